"""Stimulus sets from tables and images that are written by hand."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest

from brainscore_allen2022_surface.files import LocalFile, LocalFolder
from brainscore_allen2022_surface.markers import hash_images, image_marker
from brainscore_allen2022_surface.sources import DatasetFiles
from brainscore_allen2022_surface.stimuli import read_stimulus_set

KEY = "one.train"
ADVICE = "Build the release again, or upload it again."
IMAGES = {"nsd_00001": "a.png", "nsd_00002": "below/b.png", "nsd_00003": "c d.png"}


def sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def images(tmp_path) -> Path:
    folder = tmp_path / "images"
    for name in IMAGES.values():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def read(images, tmp_path):
    """A function that reads a stimulus set from the text of a table or the table."""

    def read_table(table, *, sha1s=None, has_shipped_stimuli=False):
        path = tmp_path / "stimuli.csv"
        text = table if isinstance(table, str | bytes) else table.to_csv(index=False)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        if sha1s is None:
            sha1s = {name: sha1(name.encode()) for name in IMAGES.values()}
        table_file = LocalFile(path, sha1(path.read_bytes()))
        files = DatasetFiles(
            LocalFile(tmp_path / "one.nc", ""),
            table_file,
            LocalFolder(images, sha1s),
            has_shipped_stimuli=has_shipped_stimuli,
        )
        return read_stimulus_set(files, KEY)

    read_table.path = tmp_path / "stimuli.csv"
    return read_table


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame({"stimulus_id": list(IMAGES), "nsd_id": [1, 2, 3], "image_file_name": list(IMAGES.values())})


@pytest.mark.parametrize("has_shipped_stimuli", [False, True])
def test_stimulus_set_has_the_table_and_the_paths(read, table, images, has_shipped_stimuli):
    stimulus_set = read(table, has_shipped_stimuli=has_shipped_stimuli)

    assert list(stimulus_set.columns) == ["stimulus_id", "filename", "nsd_id", "image_file_name"]
    assert stimulus_set["filename"].tolist() == stimulus_set["image_file_name"].tolist() == list(IMAGES.values())
    paths = {stimulus_id: images / name for stimulus_id, name in IMAGES.items()}
    assert stimulus_set.stimulus_paths == paths
    assert stimulus_set.get_stimulus("nsd_00002") == images / "below/b.png"
    marker = image_marker(hash_images(paths))
    assert stimulus_set.identifier == (KEY if has_shipped_stimuli else f"{KEY}--{marker}")


def test_column_filename_has_priority(read, table):
    table["filename"] = list(reversed(IMAGES.values()))

    stimulus_set = read(table)

    assert stimulus_set["filename"].tolist() == list(reversed(IMAGES.values()))
    assert stimulus_set.get_stimulus("nsd_00001").name == "c d.png"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: t.drop(columns="stimulus_id"), "it has no column stimulus_id"),
        (lambda t: t.drop(columns="image_file_name"), "it has no column filename"),
        (lambda t: t[:0], "it lists no images"),
        (lambda t: t.assign(neuroid=1), "a column has the name of a dimension, neuroid"),
        (lambda t: t.assign(time_bin=1, presentation=2), "a column has the name of a dimension, presentation"),
        (lambda t: t.assign(coco_id=[1, None, 3]), "the column 'coco_id' has empty cells"),
        (lambda t: t.assign(image_file_name=["a.png", None, "b"]), "the column 'filename' has empty cells"),
        (lambda t: t.assign(stimulus_id=[1, 2, 3]), "the column stimulus_id must hold texts"),
        (lambda t: t.assign(stimulus_id=["a", "b", "a"]), "the stimulus 'a' is listed twice"),
    ],
)
def test_damaged_table_is_named(read, table, change, fault):
    with pytest.raises(ValueError) as raised:
        read(change(table))
    assert str(raised.value) == f"{read.path} is damaged ({fault}). {ADVICE}"


@pytest.mark.parametrize(
    "name",
    ["/a.png", "../a.png", "below/../../a.png", ".", "a\x07b", "a\nb", "1", f"{'é' * 128}.png", f"a/{'b' * 256}"],
)
def test_name_outside_the_folder_is_refused(read, table, name):
    with pytest.raises(ValueError, match=r"stimuli\.csv is damaged \(.* is not the name of an image file\)\. Build"):
        read(table.assign(image_file_name=[name, name, name] if name == "1" else ["a.png", name, "c d.png"]))


def test_longest_name_is_taken(read, table, images):
    name = f"{'é' * 125}.png12"  # 256 bytes would be too many
    assert len(name.encode()) == 256
    with pytest.raises(ValueError, match="is not the name of an image file"):
        read(table.assign(image_file_name=["a.png", name, "c d.png"]))

    name = name[:-1]
    (images / name).write_bytes(b"longest")
    read(
        table.assign(image_file_name=["a.png", name, "c d.png"]),
        sha1s={"a.png": sha1(b"a.png"), name: sha1(b"longest"), "c d.png": sha1(b"c d.png")},
    )


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\xfd", b'stimulus_id\n"', b"a,b\n1\n2,3,4\n"])
def test_table_that_is_no_table_is_one_line(read, content):
    with pytest.raises(ValueError) as raised:
        read(content)
    assert str(raised.value).startswith(f"{read.path} is damaged (")
    assert str(raised.value).endswith(f"). {ADVICE}")
    assert "\n" not in str(raised.value)


def test_number_that_is_too_large_is_one_line(read, table, monkeypatch):
    def fail(path):
        raise OverflowError("Python int too large\nto convert")

    monkeypatch.setattr("brainscore_allen2022_surface.stimuli.pd.read_csv", fail)

    with pytest.raises(ValueError, match=r"is damaged \(Python int too large to convert\)\. Build"):
        read(table)


@pytest.mark.parametrize(("n_missing", "text"), [(1, "and 0 more images"), (3, "and 2 more images")])
def test_missing_images_are_counted(read, table, images, n_missing, text):
    for name in list(IMAGES.values())[:n_missing]:
        (images / name).unlink()

    with pytest.raises(FileNotFoundError) as raised:
        read(table)
    assert str(raised.value) == f"{images / 'a.png'} {text} of {KEY} are missing. {ADVICE}"


def test_folder_in_place_of_an_image_is_named(read, table, images):
    (images / "a.png").unlink()  # is named after the folder, which is a worse sign
    (images / "c d.png").unlink()
    (images / "c d.png").mkdir()

    with pytest.raises(ValueError, match=rf"c d\.png is a folder, expected a regular file\. {ADVICE}$"):
        read(table)


def test_image_that_the_manifest_does_not_list_is_named(read, table, images):
    sha1s = {name: sha1(name.encode()) for name in IMAGES.values() if name != "below/b.png"}

    with pytest.raises(ValueError, match=r"below/b\.png is not listed in release\.json\. Build the release again\.$"):
        read(table, sha1s=sha1s)


def test_damaged_image_is_named(read, table, images):
    (images / "c d.png").write_bytes(b"damaged")

    with pytest.raises(ValueError) as raised:
        read(table)
    assert str(raised.value) == (
        f"{images / 'c d.png'} is damaged: its SHA-1 is {sha1(b'damaged')}, expected {sha1(b'c d.png')} as in release.json. "
        "Build the release again."
    )
