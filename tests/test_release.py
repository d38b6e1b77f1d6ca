"""The manifest of a release, and the paths of its files."""

import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import Region, make_recipe
from allen2022_surface_packaging.release import (
    DIMENSIONS,
    NEUROID_COORDINATES,
    SPLITS,
    TIME_BIN,
    FileRecord,
    FilledCounts,
    Manifest,
    ReleasedRegion,
    ReleaseFolder,
    list_presentations,
    manifest_faults,
    record_files,
    refuse_existing,
    require_regular_file,
)


def rewrite_manifest(release, change) -> None:
    path = ReleaseFolder(release).manifest_path
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def tiny_release(tiny_tree, tmp_path_factory):
    path = tmp_path_factory.mktemp("releases") / "tiny"
    build_release(tiny_tree, path, make_recipe((1, 4), name="Two"))
    return path


@pytest.fixture
def written(tmp_path):
    """A folder with a sound manifest alone."""
    (tmp_path / "release").mkdir()
    MANIFEST.write(ReleaseFolder(tmp_path / "release"))
    return tmp_path / "release"


def test_manifest_is_the_same_when_it_is_read_and_written(tiny_release, tmp_path):
    manifest = Manifest.read(ReleaseFolder(tiny_release))

    manifest.write(ReleaseFolder(tmp_path))

    assert (tmp_path / "release.json").read_bytes() == (tiny_release / "release.json").read_bytes()
    assert Manifest.read(ReleaseFolder(tmp_path)) == manifest


def test_manifest_says_whether_the_tree_was_simulated(tiny_release, tmp_path):
    simulate_tree(tmp_path / "nsd", TreeSize(subjects=(1, 2), n_trials=60, n_vertices=160, image_size=8))
    (tmp_path / "nsd" / "SIMULATED.txt").unlink()
    build_release(tmp_path / "nsd", tmp_path / "measured", make_recipe((1, 2), name="Two"))

    assert Manifest.read(ReleaseFolder(tiny_release)).simulated is True
    assert json.loads((tiny_release / "release.json").read_text())["simulated"] is True
    assert Manifest.read(ReleaseFolder(tmp_path / "measured")).simulated is False


def test_manifest_of_an_earlier_version_without_the_mark_is_of_measurements(written):
    rewrite_manifest(written, lambda manifest: manifest.pop("simulated"))

    assert Manifest.read(ReleaseFolder(written)).simulated is False


def test_manifest_lists_every_file_of_the_release(tiny_release, tmp_path):
    release_copy = Path(shutil.copytree(tiny_release, tmp_path / "copy"))
    (release_copy / "verify.json").touch()
    (release_copy / "report.html").touch()
    folder = ReleaseFolder(release_copy)

    assert Manifest.read(folder).files == record_files(folder)
    assert set(Manifest.read(folder).files) == {
        str(path.relative_to(release_copy))
        for path in release_copy.rglob("*")
        if path.is_file() and path.name not in ("release.json", "verify.json", "report.html")
    }


FAULTS = {
    "wrong type": (lambda m: m.update(n_vertices="many"), r"Expected `int`, got `str`.*n_vertices"),
    "wrong type inside": (lambda m: m["files"].update(a={"size": "big", "sha1": ""}), r"Expected `int`, got `str`"),
    "missing key": (lambda m: m.pop("recipe"), "missing required field `recipe`"),
    "missing key inside": (lambda m: m["recipe"]["regions"][0].pop("atlas"), "missing required field `atlas`"),
    "list instead of a table": (lambda m: m.update(sessions=[1, 2]), "Expected `object`, got `array`"),
    "too few dimensions": (lambda m: m["shapes"].update(train=[1, 2]), "Expected `array` of length 3"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damaged_manifest_is_refused_in_one_line(written, fault):
    change, message = FAULTS[fault]
    rewrite_manifest(written, change)

    with pytest.raises(PackagingError, match=message) as raised:
        Manifest.read(ReleaseFolder(written))
    assert str(raised.value).startswith(f"{written / 'release.json'} is damaged (")
    assert str(raised.value).endswith("). Build the release again.")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"\xff\xfe{}", b'"\xff"', b"[" * 100_000, b'{"name": ' * 100_000, b'{\n"name":\n}'],
    ids=["empty", "cut", "null", "list", "other encoding", "not UTF-8", "deep list", "deep table", "no value"],
)
def test_manifest_that_is_no_table_is_refused_in_one_line(written, content):
    (written / "release.json").write_bytes(content)

    with pytest.raises(PackagingError, match=r"release\.json is damaged \(.*\)\. Build the release again") as raised:
        Manifest.read(ReleaseFolder(written))
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 500


def test_manifest_is_refused_when_text_that_nothing_reads_is_not_utf_8(written):
    path = written / "release.json"
    path.write_bytes(path.read_bytes().replace(b"{", b'{"unknown": "\xff",', 1))

    with pytest.raises(PackagingError, match=r"release\.json is damaged \('utf-8' codec can't decode byte 0xff"):
        Manifest.read(ReleaseFolder(written))


@pytest.mark.parametrize("path", ["missing", "empty", "file"])
def test_folder_without_a_manifest_is_not_a_release(tmp_path, path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()

    with pytest.raises(PackagingError, match=rf"{path} is not a release: it holds no release\.json\. Build one first"):
        Manifest.read(ReleaseFolder(tmp_path / path))


RECIPE = replace(
    make_recipe((1, 4), name="Two"),
    regions=(
        Region("V4", "Kastner2015", (7,)),
        Region("", "streams", ("ventral", 6), each=True),
        Region("a", "streams", ("ventral", 6)),
        Region("c", "cortex"),
    ),
)
SHA1 = "0" * 40
MANIFEST = Manifest(
    name="Two",
    recipe=RECIPE,
    regions=(
        ReleasedRegion("V4", "Kastner2015", (7,), 9),
        ReleasedRegion("ventral", "streams", (5,), 4),
        ReleasedRegion("lateral", "streams", (6,), 4),
        ReleasedRegion("a", "streams", (5, 6), 8),
        ReleasedRegion("c", "cortex", (), 20),
    ),
    image_format="png",
    from_region_assemblies=False,
    n_vertices=10,
    n_trials_per_session=30,
    sessions={"subj01": 4, "subj04": 3},
    shapes={"train": (8, 90, 1), "test": (6, 90, 1)},
    nan_counts={
        subject: {name: FilledCounts(0, 0, 0) for name in ("V4", "ventral", "lateral", "a", "c")}
        for subject in ("subj01", "subj04")
    },
    inputs={"nsddata/a.mat": 5},
    versions={},
    files={
        name: FileRecord(1, SHA1)
        for name in (
            *("Two_train.nc", "Two_test.nc", "train_test_split.csv"),
            *("stimulus_metadata_train.csv", "stimulus_metadata_test.csv", "stimuli_test/nsd_00001.png"),
        )
    },
)


def change_region(number, **changes):
    regions = list(MANIFEST.regions)
    regions[number] = replace(regions[number], **changes)
    return {"regions": tuple(regions)}


def rename_region(old, new):
    """Rename a region that has no name in the recipe, so that only its name is wrong."""
    regions = tuple(replace(region, name=new) if region.name == old else region for region in MANIFEST.regions)
    counts = {s: {new if n == old else n: c for n, c in v.items()} for s, v in MANIFEST.nan_counts.items()}
    return {"regions": regions, "nan_counts": counts}


def without_file(name):
    return {"files": {path: record for path, record in MANIFEST.files.items() if path != name}}


def test_sound_manifest_has_no_fault(tmp_path):
    assert list(manifest_faults(MANIFEST)) == []
    MANIFEST.write(ReleaseFolder(tmp_path))
    assert Manifest.read(ReleaseFolder(tmp_path)) == MANIFEST


CONTRADICTIONS = {
    "another name": ({"name": "Other"}, "name is 'Other', expected 'Two', the name of the recipe"),
    "impossible recipe": (
        {"recipe": replace(RECIPE, subjects=(4, 1))},
        r"recipe: subjects is \[4, 1\], expected ascending",
    ),
    "image format": ({"image_format": "gif"}, "image_format is 'gif', expected one of png, jpg"),
    "region name": (rename_region("ventral", "a b"), "the name of a region is 'a b', expected letters, digits, under"),
    "region twice": (change_region(2, name="ventral"), "regions is .*, expected every name once"),
    "atlas": (change_region(0, atlas="streams"), "regions is ReleasedRegion.*V4.*expected one that fits Region.*V4"),
    "other labels": (change_region(0, labels=(8,)), "regions is ReleasedRegion.*V4.*expected one that fits Region.*V4"),
    "too few labels": (change_region(3, labels=(6,)), "regions is .*'c'.*expected one that fits Region.*'a'"),
    "too many labels": (change_region(3, labels=(4, 5, 6)), "regions is .*'a'.*expected one that fits Region.*'a'"),
    "numbered label missing": (change_region(3, labels=(5, 7)), "regions is .*'a'.*expected one that fits Region.*'a'"),
    "two labels of each": (
        change_region(1, labels=(5, 6)),
        "regions is .*ventral.*expected one that fits Region.*each=True",
    ),
    "region missing": (
        {"regions": MANIFEST.regions[:-1]},
        "regions is one too few, expected one that fits Region.*'c'",
    ),
    "region too much": (
        {"regions": (*MANIFEST.regions, *(ReleasedRegion(name, "cortex", (), 20) for name in "de"))},
        "regions is .*'d'.*expected no region after those of the recipe",
    ),
    "labels in another order": (change_region(3, labels=(6, 5)), r"the labels of a is \[6, 5\], expected ascending"),
    "more vertices than the cortex": (change_region(4, n_vertices=21), "n_vertices of c is 21, expected at most 20"),
    "session of another subject": (
        {"sessions": {"subj01": 4, "subj05": 3}},
        "the keys of sessions is subj01, subj05, expected subj01, subj04",
    ),
    "no sessions": ({"sessions": {}}, "the keys of sessions is none, expected subj01, subj04"),
    "counts of another subject": (
        {"nan_counts": {"subj01": MANIFEST.nan_counts["subj01"]}},
        "the keys of nan_counts is subj01, expected subj01, subj04",
    ),
    "counts of another region": (
        {"nan_counts": MANIFEST.nan_counts | {"subj04": {"V4": FilledCounts(0, 0, 0)}}},
        "the keys of nan_counts of subj04 is V4, expected V4, ventral, lateral, a, c",
    ),
    "one shape": ({"shapes": {"train": (8, 90, 1)}}, "the keys of shapes is train, expected train, test"),
    "neuroids of one split": (
        {"shapes": {"train": (8, 90, 1), "test": (6, 91, 1)}},
        "shapes is .*as many neuroids of train",
    ),
    "two time bins": ({"shapes": {"train": (8, 90, 2), "test": (6, 90, 2)}}, "shapes is .*and one time bin"),
    "repetition missing": (
        {"shapes": {"train": (8, 90, 1), "test": (7, 90, 1)}},
        "the shape of test is .*3 presentations",
    ),
    "path out of the release": (
        {"files": MANIFEST.files | {"../a": FileRecord(1, SHA1)}},
        "a path of files is '../a', expected one like stimuli_test/nsd_00001.png",
    ),
    "path out of the tree": ({"inputs": {"/a": 1}}, "a path of inputs is '/a', expected one like"),
    "path with a backslash": ({"inputs": {"a\\b": 1}}, "a path of inputs is .*, expected one like"),
    "longer path than needed": ({"inputs": {"a/./b": 1}}, "a path of inputs is 'a/./b', expected one like"),
    "empty path": ({"inputs": {"": 1}}, "a path of inputs is '', expected one like"),
    "path of two lines": ({"inputs": {"a\nb": 1}}, "a path of inputs is 'a.*b', expected one like"),
    **{
        f"no {name}": (without_file(name), f"the record of {name} in files is missing, expected its size and SHA-1")
        for name in MANIFEST.files
        if "/" not in name
    },
}


@pytest.mark.parametrize("contradiction", CONTRADICTIONS)
def test_manifest_that_contradicts_itself_is_refused(tmp_path, contradiction):
    changes, message = CONTRADICTIONS[contradiction]
    replace(MANIFEST, **changes).write(ReleaseFolder(tmp_path))

    with pytest.raises(PackagingError, match=rf"release\.json is damaged \({message}.*\)\. Build") as raised:
        Manifest.read(ReleaseFolder(tmp_path))
    assert len(str(raised.value).splitlines()) == 1


def test_region_of_each_may_have_any_label_by_default():
    recipe = replace(RECIPE, regions=(Region("", "streams", each=True),))
    regions = (ReleasedRegion("x", "streams", (1,), 2), ReleasedRegion("y", "streams", (9,), 2))
    counts = {subject: {name: FilledCounts(0, 0, 0) for name in "xy"} for subject in ("subj01", "subj04")}

    assert list(manifest_faults(replace(MANIFEST, recipe=recipe, regions=regions, nan_counts=counts))) == []


def test_region_of_each_has_a_label_of_the_recipe():
    recipe = replace(RECIPE, regions=(Region("", "streams", (1, 2), each=True),))
    regions = (ReleasedRegion("x", "streams", (1,), 2), ReleasedRegion("y", "streams", (9,), 2))
    counts = {subject: {name: FilledCounts(0, 0, 0) for name in "xy"} for subject in ("subj01", "subj04")}

    (fault,) = manifest_faults(replace(MANIFEST, recipe=recipe, regions=regions, nan_counts=counts))
    assert fault[0] == "regions"


def test_long_parts_of_a_message_are_cut(tmp_path):
    replace(MANIFEST, name="x" * 151).write(ReleaseFolder(tmp_path))
    with pytest.raises(PackagingError, match=rf"name is '{'x' * 149}\.\.\., expected 'Two'"):
        Manifest.read(ReleaseFolder(tmp_path))

    replace(MANIFEST, name="x" * 148).write(ReleaseFolder(tmp_path))
    with pytest.raises(PackagingError, match=rf"name is '{'x' * 148}', expected 'Two'"):
        Manifest.read(ReleaseFolder(tmp_path))


@pytest.mark.parametrize(
    ("key", "value", "is_sound"),
    [("size", 0, True), ("size", -1, False), ("size", 2**63 - 1, True), ("size", 2**63, False)]
    + [("sha1", "a" * 40, True), ("sha1", "A" * 40, False), ("sha1", "a" * 39, False), ("sha1", "a" * 41, False)],
)
def test_sizes_and_hashes_have_their_form(tmp_path, key, value, is_sound):
    replace(MANIFEST, files=MANIFEST.files | {"a": replace(FileRecord(1, SHA1), **{key: value})}).write(
        ReleaseFolder(tmp_path)
    )
    if is_sound:
        Manifest.read(ReleaseFolder(tmp_path))
    else:
        with pytest.raises(PackagingError, match=r"release\.json is damaged \(Expected .*files"):
            Manifest.read(ReleaseFolder(tmp_path))


@pytest.mark.parametrize(("n", "is_sound"), [(0, False), (1, True)])
def test_counts_that_cannot_be_zero_are_positive(tmp_path, n, is_sound):
    replace(MANIFEST, n_trials_per_session=n).write(ReleaseFolder(tmp_path))
    if is_sound:
        Manifest.read(ReleaseFolder(tmp_path))
    else:
        with pytest.raises(PackagingError, match="Expected `int` >= 1.*n_trials_per_session"):
            Manifest.read(ReleaseFolder(tmp_path))


def test_manifest_holds_no_description_and_no_path_of_the_recipe(tmp_path):
    recipe = replace(RECIPE, description="for people", source="/home/me/two.toml")
    replace(MANIFEST, recipe=recipe).write(ReleaseFolder(tmp_path))
    text = (tmp_path / "release.json").read_text()

    assert "for people" not in text
    assert "/home/me" not in text
    assert text.startswith('{\n "name": "Two",\n "recipe": {\n')
    assert text.endswith("}\n")


def test_manifest_that_is_a_named_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "release.json")

    with pytest.raises(PackagingError, match=r"release\.json is not a regular file\. Build the release again"):
        Manifest.read(ReleaseFolder(tmp_path))


def test_regular_files_are_told_from_others(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    require_regular_file(tmp_path / "file")

    with pytest.raises(PackagingError, match=r"/missing is missing\. Build the release again"):
        require_regular_file(tmp_path / "missing")
    for path in (tmp_path, tmp_path / "link"):
        with pytest.raises(PackagingError, match=rf"{path} is not a regular file"):
            require_regular_file(path)


def test_parts_of_an_assembly_are_the_documented_ones():
    assert SPLITS == ("train", "test")
    assert DIMENSIONS == ("presentation", "neuroid", "time_bin")
    assert NEUROID_COORDINATES == ("neuroid_id", "subject", "hemisphere", "vertex_index", "region", "nc_testset")
    assert TIME_BIN == {"time_bin_start": [70], "time_bin_end": [170]}


def test_paths_of_a_release_are_the_documented_ones():
    folder = ReleaseFolder(Path("/r"))
    paths = [folder.manifest_path, folder.split_path, folder.origin_path, folder.verification_path, folder.report_path]
    paths += [folder.assembly_path("a", "train"), folder.stimulus_table_path("test"), folder.stimuli_path("test")]

    assert str(folder) == "/r"
    assert [folder.file_name(path) for path in paths] == [
        *("release.json", "train_test_split.csv", "stimulus_origin.csv", "verify.json", "report.html"),
        *("a_train.nc", "stimulus_metadata_test.csv", "stimuli_test"),
    ]


def test_files_of_a_release_are_recorded_with_size_and_sha1(tmp_path):
    (tmp_path / "b").mkdir()
    for name, content in (
        ("b/c", b"123"),
        ("a", b""),
        ("release.json", b"x"),
        ("verify.json", b"x"),
        ("report.html", b"x"),
    ):
        (tmp_path / name).write_bytes(content)

    assert list(record_files(ReleaseFolder(tmp_path)).items()) == [
        ("a", FileRecord(0, hashlib.sha1(b"").hexdigest())),
        ("b/c", FileRecord(3, hashlib.sha1(b"123").hexdigest())),
    ]


def test_only_a_release_is_overwritten_and_only_when_asked(tmp_path):
    for overwrite in (False, True):
        refuse_existing(tmp_path / "missing", overwrite=overwrite)
    with pytest.raises(
        PackagingError, match=rf"{tmp_path} exists already\. Remove it, choose another folder, or add --over"
    ):
        refuse_existing(tmp_path, overwrite=False)
    with pytest.raises(
        PackagingError, match="is not a release: --overwrite replaces only a folder that holds a release.js"
    ):
        refuse_existing(tmp_path, overwrite=True)
    (tmp_path / "release.json").touch()
    refuse_existing(tmp_path, overwrite=True)
    with pytest.raises(PackagingError, match="exists already"):
        refuse_existing(tmp_path, overwrite=False)


@given(st.lists(st.integers(0, 72_999), min_size=1, max_size=6, unique=True).map(sorted))
def test_presentations_of_any_images_agree_with_plain_lists(nsd_ids):
    train, test = (list_presentations(split, np.array(nsd_ids)) for split in ("train", "test"))

    assert train.to_dict("list") == {"stimulus_id": [f"nsd_{i:05d}" for i in nsd_ids], "nsd_id": nsd_ids}
    rows = [(f"nsd_{i:05d}", i, repetition) for i in nsd_ids for repetition in (0, 1, 2)]
    assert list(test) == ["stimulus_id", "nsd_id", "repetition"]
    assert list(test.itertuples(index=False, name=None)) == rows


def test_manifest_describes_the_release(release):
    manifest = Manifest.read(ReleaseFolder(release))

    assert manifest.recipe == make_recipe()
    assert manifest.name == manifest.recipe.name
    assert manifest.shapes == {"train": (102, 920, 1), "test": (78, 920, 1)}
    assert manifest.sessions == {f"subj{s:02d}": 4 if s in (1, 2, 5, 7) else 3 for s in range(1, 9)}
    assert (manifest.n_vertices, manifest.n_trials_per_session) == (642, 300)
    assert isinstance(manifest.nan_counts["subj01"]["V1"], FilledCounts)
    assert isinstance(manifest.files["train_test_split.csv"], FileRecord)
