"""A release on disk that is damaged: one line that names the file, and never wrong data, a hang or another exception."""

import errno
import json
import os
import socket
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray

from brainscore_allen2022_surface import assemblies, cache
from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set
from support import accept

NAME = "Allen2022_fmri_surface"
ASSEMBLY, TABLE, MANIFEST = f"{NAME}_test.nc", "stimulus_metadata_test.csv", "release.json"

pytestmark = [pytest.mark.timeout(60), pytest.mark.filterwarnings("ignore::UserWarning")]


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    here = Path.cwd()
    os.chdir(path.parent)  # the address of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def link_to_device(path):
    path.symlink_to("/dev/zero")


def make_folder(path):
    path.mkdir()


SPECIAL_FILES = {make_fifo: "a FIFO", make_socket: "a socket", link_to_device: "a device", make_folder: "a folder"}


def first_image(release):
    return min((release / "stimuli_test").iterdir()).relative_to(release)


def load_refused(release, file_name, match=""):
    """Load a damaged release, and check that the message is one line that names the file."""
    with pytest.raises((ValueError, FileNotFoundError), match=match) as error:
        load_assembly(NAME, "test", region="V4", source=release)
    message = str(error.value)
    assert str(release / file_name) in message
    assert "\n" not in message
    assert len(message) < 1000
    return message


@pytest.mark.parametrize("make", SPECIAL_FILES, ids=lambda make: make.__name__)
@pytest.mark.parametrize("kind", ["assembly", "table", "manifest", "image"])
def test_special_file_is_never_opened(release_copy, kind, make):
    names = {"assembly": ASSEMBLY, "table": TABLE, "manifest": MANIFEST, "image": first_image(release_copy)}
    path = release_copy / names[kind]
    path.unlink()
    make(path)

    load_refused(release_copy, names[kind], f"{path.name} is {SPECIAL_FILES[make]}, expected a regular file")


@pytest.mark.parametrize("make", SPECIAL_FILES, ids=lambda make: make.__name__)
def test_special_file_as_source_is_never_opened(tmp_path, make):
    make(tmp_path / "source")
    with pytest.raises((ValueError, FileNotFoundError), match="source (is neither|holds no release)"):
        load_assembly(NAME, "test", source=tmp_path / "source")


def test_link_to_itself_is_named(release_copy):
    path = release_copy / ASSEMBLY
    path.unlink()
    path.symlink_to(path)

    load_refused(release_copy, ASSEMBLY, "cannot be read")


# --- the SHA-1 -------------------------------------------------------------------------------------------------------------


def change_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["assembly", "table", "image"])
def test_file_with_one_changed_byte_is_refused(release_copy, kind):
    name = {"assembly": ASSEMBLY, "table": TABLE, "image": first_image(release_copy)}[kind]
    change_last_byte(release_copy / name)

    load_refused(release_copy, name, "is damaged: its SHA-1")


def test_file_that_changes_after_the_first_load_is_refused(release_copy):
    load_assembly(NAME, "test", source=release_copy)
    change_last_byte(release_copy / ASSEMBLY)

    load_refused(release_copy, ASSEMBLY, "is damaged: its SHA-1")


def test_unchanged_assembly_of_a_release_is_not_hashed_again(release, monkeypatch):
    load_assembly(NAME, "test", source=release)
    monkeypatch.setattr(cache, "sha1_of", lambda path: pytest.fail(f"{path} was hashed again"))

    load_assembly(NAME, "test", region="V4", source=release)


class FailingFile:
    """A file on a disk that fails."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def read(self, _):
        fail()


def fail(*_, **__):
    raise OSError(errno.EIO, "Input/output error")


def failing_for(path, place, function):
    """Return a function like that of a class or module, which fails for one path."""
    original = getattr(place, function)

    def call(given, *arguments, **options):
        if given != path:
            return original(given, *arguments, **options)
        if function != "open":
            fail()
        return FailingFile()

    return call


@pytest.mark.parametrize(
    ("load", "kind"),
    [
        *((load_assembly, kind) for kind in ("assembly", "table", "manifest", "image")),
        *((load_stimulus_set, kind) for kind in ("table", "manifest", "image")),
    ],
)
def test_file_that_the_disk_does_not_give_is_named(release_copy, monkeypatch, kind, load):
    names = {"assembly": ASSEMBLY, "table": TABLE, "manifest": MANIFEST, "image": first_image(release_copy)}
    path = release_copy / names[kind]
    for place, function in ((Path, "open"), (Path, "read_bytes"), (pd, "read_csv")):
        monkeypatch.setattr(place, function, failing_for(path, place, function))

    with pytest.raises(
        ValueError, match=r"cannot be read or written \(Input/output error\)\. Look at its perm"
    ) as error:
        load(NAME, "test", source=release_copy)
    assert str(error.value).startswith(f"{path} ")


@pytest.mark.parametrize(
    ("number", "reason"), [(errno.EMFILE, "Too many open files"), (errno.EIO, "Input/output error")]
)
def test_sound_assembly_is_not_called_damaged_by_an_error_of_the_system(release, monkeypatch, number, reason):
    def fail(*_, **__):
        raise OSError(number, reason)

    monkeypatch.setattr(xarray, "open_dataarray", fail)

    with pytest.raises(ValueError, match=rf"^{release / ASSEMBLY} cannot be read or written \({reason}\)"):
        load_assembly(NAME, "test", region="V4", source=release)


def test_folder_of_others_beside_releases_is_ignored(release, tmp_path, monkeypatch):
    """Such as lost+found. The tests may run as a user who may look into every folder."""
    (tmp_path / "release").symlink_to(release)
    (tmp_path / "lost+found").mkdir()
    exists = Path.exists

    def refuse(path):
        if path.parent.name == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", refuse)

    assert load_assembly(NAME, "test", region="V4", source=tmp_path).sizes["time_bin"] == 1


@pytest.mark.parametrize("name", [MANIFEST, "artifacts.json"])
def test_huge_file_is_refused_and_never_read(release_copy, name):
    path = release_copy / name
    path.touch()
    os.truncate(path, 2**31)

    with pytest.raises(ValueError, match=rf"^{path} has 2,147,483,648 bytes, expected at most 1,073,741,824\. "):
        load_assembly(NAME, "test", source=release_copy if name == MANIFEST else path)


def test_folder_whose_name_is_not_text_is_named(release, tmp_path):
    """The library for NetCDF needs a name in UTF-8."""
    path = tmp_path / os.fsdecode(b"x\xffy")
    path.symlink_to(release)

    with pytest.raises(ValueError, match="cannot be read as an assembly .* surrogates not allowed") as error:
        load_assembly(NAME, "test", region="V4", source=path)
    assert str(error.value).startswith(str(path / ASSEMBLY))


def test_release_loads_without_a_place_for_stamps(release, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("BRAINIO_HOME", str(tmp_path / "file"))

    assert load_assembly(NAME, "test", region="V4", source=release).sizes["time_bin"] == 1


def test_image_that_the_manifest_does_not_list_is_refused(release_copy):
    name = str(first_image(release_copy))
    manifest = json.loads((release_copy / MANIFEST).read_text())
    del manifest["files"][name]
    (release_copy / MANIFEST).write_text(json.dumps(manifest))

    load_refused(release_copy, name, "is not listed in release.json")


# --- the manifest ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [None, 1, [], {}, "", "a\nb", [[[[[]]]]]], ids=repr)
@pytest.mark.parametrize("key", ["name", "files", "simulated"])
def test_wrong_value_in_the_manifest_is_refused(release_copy, key, value):
    manifest = json.loads((release_copy / MANIFEST).read_text())
    (release_copy / MANIFEST).write_text(json.dumps(manifest | {key: value}))

    load_refused(release_copy, MANIFEST)


@pytest.mark.parametrize("record", [None, [], {}, {"size": 1}, {"sha1": "0" * 40}, {"size": 1, "sha1": "x" * 100_000}])
def test_wrong_record_of_a_file_is_refused(release_copy, record):
    manifest = json.loads((release_copy / MANIFEST).read_text())
    manifest["files"][ASSEMBLY] = record
    (release_copy / MANIFEST).write_text(json.dumps(manifest))

    load_refused(release_copy, MANIFEST, "each of its files must have a size in bytes and a SHA-1")


def test_manifest_that_is_not_text_is_refused(release_copy):
    (release_copy / MANIFEST).write_bytes(b"\xff\xfe{")

    load_refused(release_copy, MANIFEST, "is damaged")


# --- the stimulus table ------------------------------------------------------------------------------------------------------


def name_first_file(name):
    def change(table):
        table.loc[0, "image_file_name"] = name

    return change


def drop(column):
    return lambda table: table.drop(columns=column, inplace=True)


def add(column, value):
    def change(table):
        table[column] = value

    return change


def repeat_first_stimulus(table):
    table.loc[1, "stimulus_id"] = table.loc[0, "stimulus_id"]


def number_stimuli(table):
    table["stimulus_id"] = range(len(table))


def rename_first_stimulus(table):
    table.loc[0, "stimulus_id"] = "nsd_99999"


def remove_all_rows(table):
    table.drop(index=table.index, inplace=True)


def empty_one_cell(table):
    table["coco_id"] = table["coco_id"].astype(object)
    table.loc[1, "coco_id"] = None


DAMAGED_TABLES = {
    "empty file name": (name_first_file(None), "the column 'filename' has empty cells"),
    "file name outside": (name_first_file("../outside.png"), "'../outside.png' is not the name of an image file"),
    "absolute file name": (name_first_file("/etc/hostname"), "'/etc/hostname' is not the name of an image file"),
    "file name of two lines": (name_first_file("a\nb"), "is not the name of an image file"),
    "long file name": (name_first_file("a" * 256), "is not the name of an image file"),
    "file name that is a folder": (name_first_file("."), "is not the name of an image file"),
    "no file names": (drop("image_file_name"), "it has no column filename"),
    "no stimulus ids": (drop("stimulus_id"), "it has no column stimulus_id"),
    "duplicate stimulus": (repeat_first_stimulus, r"the stimulus 'nsd_\d+' is listed twice"),
    "numbers as stimulus ids": (number_stimuli, "the column stimulus_id must hold texts"),
    "no rows": (remove_all_rows, "it lists no images"),
    "empty cell": (empty_one_cell, "the column 'coco_id' has empty cells"),
    "column of a dimension": (add("neuroid", 1), "a column has the name of a dimension, neuroid"),
}


def change_table(release, change):
    table = pd.read_csv(release / TABLE)
    change(table)
    table.to_csv(release / TABLE, index=False)
    accept(release, TABLE)


@pytest.mark.parametrize("damage", DAMAGED_TABLES)
def test_damaged_stimulus_table_is_refused(release_copy, damage):
    change, reason = DAMAGED_TABLES[damage]
    change_table(release_copy, change)

    load_refused(release_copy, TABLE, rf"is damaged \(.*{reason}.*\). Build the release again")
    with pytest.raises(ValueError, match=reason):
        load_stimulus_set(NAME, "test", source=release_copy)


def test_longest_file_name_is_accepted_and_missing(release_copy):
    change_table(release_copy, name_first_file("a" * 255))

    load_refused(release_copy, f"stimuli_test/{'a' * 255}", "and 0 more images of .* are missing")


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff\xfe\0", b'"stimulus_id', b"a,b\n1,2,3\n1,2,3,4,5\n"], ids=repr)
def test_stimulus_table_that_is_no_table_is_refused(release_copy, content):
    (release_copy / TABLE).write_bytes(content)
    accept(release_copy, TABLE)

    load_refused(release_copy, TABLE, "is damaged")


def test_responses_without_a_stimulus_are_refused(release_copy):
    change_table(release_copy, rename_first_stimulus)

    load_refused(release_copy, ASSEMBLY, r"has responses to 'nsd_\d+', which is not in the stimulus table")


# --- the assembly ----------------------------------------------------------------------------------------------------------


def change_assembly(release, change):
    with netCDF4.Dataset(release / ASSEMBLY, "a") as file:
        change(file)
    accept(release, ASSEMBLY)


def rewrite_assembly(release, change):
    """Write the assembly with xarray after a change, as a plain array without an index."""
    changed = change(xarray.load_dataarray(release / ASSEMBLY))
    changed.encoding = {}  # it names the coordinates that the file had
    (release / ASSEMBLY).unlink()
    changed.to_netcdf(release / ASSEMBLY)
    accept(release, ASSEMBLY)


def truncate(release):
    path = release / ASSEMBLY
    os.truncate(path, path.stat().st_size // 2)
    accept(release, ASSEMBLY)


def replace_by_text(release):
    (release / ASSEMBLY).write_text("not NetCDF")
    accept(release, ASSEMBLY)


def damage_region_names(file):
    file["region"][5] = np.frombuffer(b"\xff\xfe", "S1")


def rename_coordinates(file):
    file["data"].coordinates = file["data"].coordinates.replace("vertex_index", "vertex_indices")


def add_a_variable(file):
    file.createVariable("another", "f4", ("neuroid",))


DAMAGED_ASSEMBLIES = {
    "truncated": (truncate, "cannot be read as an assembly"),
    "text": (replace_by_text, "cannot be read as an assembly"),
    "another variable": (lambda r: change_assembly(r, add_a_variable), "cannot be read as an assembly"),
    "region names": (lambda r: change_assembly(r, damage_region_names), "cannot be read as an assembly"),
    "two dimensions": (lambda r: rewrite_assembly(r, lambda a: a.isel(time_bin=0)), "its dimensions are presentation, neuroid"),
    "transposed": (lambda r: rewrite_assembly(r, lambda a: a.T), "its dimensions are time_bin, neuroid, presentation"),
    "double precision": (lambda r: rewrite_assembly(r, lambda a: a.astype(float)), "its values are float64, expected float32"),
    **{
        f"no {name}": (lambda r, name=name: rewrite_assembly(r, lambda a: a.drop_vars(name)), f"it has no coordinate {name} of")
        for names in (*assemblies.COORDINATES.values(), ("repetition",))
        for name in names
    },
    "coordinate of another dimension": (
        lambda r: rewrite_assembly(r, lambda a: a.assign_coords(region=("presentation", a["stimulus_id"].values))),
        "it has no coordinate region of the dimension neuroid",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED_ASSEMBLIES)
def test_damaged_assembly_is_refused(release_copy, damage):
    change, reason = DAMAGED_ASSEMBLIES[damage]
    change(release_copy)

    load_refused(release_copy, ASSEMBLY, reason)


def test_train_split_needs_no_repetitions(release):
    assert "repetition" not in load_assembly(NAME, "train", source=release).indexes["presentation"].names


def test_region_that_does_not_lie_together_is_refused(release_copy):
    def swap_first_and_last(file):
        regions = file["region"][:]
        regions[[0, -1]] = regions[[-1, 0]]
        file["region"][:] = regions

    change_assembly(release_copy, swap_first_and_last)

    for region in ("V1", "IT"):
        with pytest.raises(
            ValueError, match=f"{ASSEMBLY}: the neuroids of {region} are not contiguous. Build the release"
        ):
            load_assembly(NAME, "test", region=region, source=release_copy)
    assert load_assembly(NAME, "test", region="V4", source=release_copy).sizes["neuroid"]


@pytest.mark.parametrize("name", ["\n", "\t4"])
def test_region_names_in_a_message_are_one_line(release_copy, name):
    def rename_all(file):
        width = file["region"].shape[1]
        file["region"].set_auto_chartostring(False)
        file["region"][:] = np.tile(np.frombuffer(name.encode().ljust(width, b"\0"), "S1"), (len(file["region"]), 1))

    change_assembly(release_copy, rename_all)

    load_refused(release_copy, ASSEMBLY, r"has no neuroid of region V4, only of '\\")


def test_message_names_at_most_twenty_regions(release_copy):
    def number_regions(assembly):
        names = [f"R{row:06d}" for row in range(assembly.sizes["neuroid"])]
        return assembly.assign_coords(region=("neuroid", names))

    rewrite_assembly(release_copy, number_regions)

    load_refused(release_copy, ASSEMBLY, r"only of R000000, .*R000019 and \d+ more. Choose one of these")


# --- arguments -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_assembly, load_stimulus_set])
@pytest.mark.parametrize("split", ["tset", "", None, "test.nc", "../test"])
def test_wrong_split_is_refused(release, load, split):
    with pytest.raises(ValueError, match=f"The split is {split!r}, expected one of train, test"):
        load(NAME, split, source=release)


@pytest.mark.parametrize("region", ["MT", "", "v4", 4])
def test_wrong_region_is_refused(release, region):
    with pytest.raises(ValueError, match=rf"{ASSEMBLY} has no neuroid of region {region}, only of IT, V1, V2, V4"):
        load_assembly(NAME, "test", region=region, source=release)


@pytest.mark.parametrize("chunks", ["{", "neuroid=5", "{'neuroid': 'five'}"])
def test_damaged_chunks_are_refused(release, monkeypatch, chunks):
    monkeypatch.setenv("BRAINIO_CHUNKS", chunks)

    with pytest.raises(ValueError, match="BRAINIO_CHUNKS is|cannot be read as an assembly") as error:
        load_assembly(NAME, "test", source=release)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("variable", ["DIR", "ARTIFACTS"])
def test_home_folder_of_nobody_is_refused(monkeypatch, variable):
    monkeypatch.setenv(f"BRAINSCORE_ALLEN2022_SURFACE_{variable}", "~nobody_of_that_name/releases")

    with pytest.raises(
        ValueError, match=f"{variable} is ~nobody_of_that_name/releases, but there is no such home folder"
    ):
        load_assembly(NAME, "test")


def test_artifacts_file_in_the_home_folder_is_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "artifacts.json").write_text("{}")
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", "~/artifacts.json")

    with pytest.raises(FileNotFoundError, match=rf"{tmp_path}/artifacts.json lists nothing"):
        load_assembly(NAME, "test")


def test_missing_artifacts_file_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", str(tmp_path / "nowhere.json"))

    with pytest.raises(FileNotFoundError, match="nowhere.json, which is not a file. Set it to a file that"):
        load_assembly(NAME, "test")
