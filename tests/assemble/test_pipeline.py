"""What becomes of computed values: their places in the assemblies, what is counted, and what the manifest records."""

import json
import logging
import shutil
from collections import namedtuple
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
import xarray

from allen2022_surface_packaging import __version__
from allen2022_surface_packaging.assemble import pipeline
from allen2022_surface_packaging.assemble.pipeline import (
    AssemblyRecord,
    build_release,
    build_releases,
    describe_release,
    write_assemblies,
)
from allen2022_surface_packaging.assemble.subjects import SubjectValues
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.files import sha1_of
from allen2022_surface_packaging.nsd.inspection import inspect_tree
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import Region, make_recipe
from allen2022_surface_packaging.release import FilledCounts, Manifest, ReleasedRegion, ReleaseFolder

RECIPE = replace(
    make_recipe((1, 4), name="Two"),
    regions=(Region("V4", "Kastner2015", (7,)), Region("cortex", "cortex")),
)


@pytest.fixture(scope="module")
def plan(tiny_tree):
    return inspect_tree(open_tree(tiny_tree), RECIPE).require_sound()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "release").mkdir()
    return ReleaseFolder(tmp_path / "release")


def value_of(subject, split, row, column):
    """A value that no other subject, split, presentation or vertex has."""
    return 1e6 * subject + (5e5 if split == "test" else 0) + 2600 * row + column


@pytest.fixture
def values(plan, tmp_path):
    """The values of both subjects as workers leave them, in two blocks of unequal width; subject 4 comes first."""
    n_columns = plan.region_map.n_read_vertices
    n_rows = {"train": len(plan.splits["train"]), "test": 3 * len(plan.splits["test"])}
    all_values = []
    for subject in (4, 1):
        path = tmp_path / f"{subject}.values"
        blocks = [(0, 1024), (1024, n_columns - 1024)]
        rows = {
            split: value_of(subject, split, np.arange(n)[:, None], np.arange(n_columns)).astype(np.float32)
            for split, n in n_rows.items()
        }
        with path.open("wb") as file:
            for start, width in blocks:
                for split in ("train", "test"):
                    file.write(np.ascontiguousarray(rows[split][:, start : start + width]).tobytes())
        counts = {split: np.zeros(n_columns, int) for split in n_rows}
        all_values.append(SubjectValues(subject, path, blocks, n_rows, counts, np.ones(n_columns, bool)))
    return all_values


def open_assembly(folder, split):
    with xarray.open_dataarray(folder.assembly_path("Two", split)) as array:
        return array.load()


def assert_values_are_in_place(plan, folder):
    vertices = [(h, v) for h in ("lh", "rh") for v in plan.region_map.vertices[h].tolist()]
    for split in ("train", "test"):
        array = open_assembly(folder, split)
        subjects = [int(name[4:]) for name in array["subject"].values]
        columns = [
            vertices.index(key)
            for key in zip(array["hemisphere"].values.tolist(), array["vertex_index"].values.tolist(), strict=True)
        ]
        rows = np.arange(array.shape[0])[:, None]
        expected = value_of(np.array(subjects), split, rows, np.array(columns)).astype(np.float32)
        np.testing.assert_array_equal(array.values[:, :, 0], expected)


def test_values_of_every_subject_and_block_are_in_their_places(plan, values, folder, monkeypatch):
    monkeypatch.setattr(
        "allen2022_surface_packaging.assemble.subjects.BAND_VALUES", 2 * 2600
    )  # two presentations at once
    record = write_assemblies(plan, iter(values), folder)

    assert_values_are_in_place(plan, folder)
    n_neuroids = 2 * (2600 + plan.region_map.regions[0].n_vertices)
    assert record.shapes == {
        "train": (len(plan.splits["train"]), n_neuroids, 1),
        "test": (3 * len(plan.splits["test"]), n_neuroids, 1),
    }
    assert list(record.nan_counts) == ["subj01", "subj04"]  # whichever was ready first


def test_files_of_values_are_removed_one_by_one(plan, values, folder):
    seen = []

    def yield_values():
        for subject_values in values:
            yield subject_values
            seen.append(subject_values.path.exists())

    write_assemblies(plan, yield_values(), folder)

    assert seen == [False, False]


def test_assemblies_have_names_of_the_recipe_and_coordinates_of_the_plan(plan, values, folder):
    write_assemblies(plan, iter(values), folder)

    train, test = open_assembly(folder, "train"), open_assembly(folder, "test")
    assert train.attrs == {"identifier": "Two.train", "stimulus_set_identifier": "Two.train"}
    assert test.attrs == {"identifier": "Two.test", "stimulus_set_identifier": "Two.test"}
    assert train["nsd_id"].values.tolist() == plan.splits["train"].tolist()
    assert test["nsd_id"].values.tolist() == np.repeat(plan.splits["test"], 3).tolist()
    assert test["repetition"].values.tolist() == [0, 1, 2] * len(plan.splits["test"])
    assert test["stimulus_id"].values[0] == f"nsd_{plan.splits['test'][0]:05d}"
    assert train["region"].values.tolist() == ["V4"] * 2 * plan.region_map.regions[0].n_vertices + ["cortex"] * 5200


@pytest.mark.parametrize("column", [0, 1023, 1024, 2599])
def test_nan_is_counted_in_every_region_that_has_the_vertex(plan, values, folder, column):
    """The first subject has two values of train in a vertex, and three of test in another one that has one of train."""
    v4 = plan.region_map.columns(plan.region_map.regions[0])
    values[1].n_invalid["train"][[column, v4[0]]] += [2, 1]
    values[1].n_invalid["test"][v4[0]] += 3
    counts = write_assemblies(plan, iter(values), folder).nan_counts

    train = {"V4": 1 + 2 * (column in v4), "cortex": 3}
    n_columns = {"V4": 1 + (column in v4 and column != v4[0]), "cortex": 1 + (column != v4[0])}
    assert counts["subj01"] == {name: FilledCounts(train[name], 3, n_columns[name]) for name in ("V4", "cortex")}
    assert counts["subj04"] == {name: FilledCounts(0, 0, 0) for name in ("V4", "cortex")}


def test_neuroid_counts_once_when_both_splits_are_invalid(plan, values, folder):
    values[0].n_invalid["train"][5] = values[0].n_invalid["test"][5] = values[0].n_invalid["test"][6] = 1

    counts = write_assemblies(plan, iter(values), folder).nan_counts

    assert counts["subj04"]["cortex"] == FilledCounts(train=1, test=2, neuroids=2)


def test_invalid_vertices_of_each_subject_are_left_out_when_asked(plan, values, folder):
    dropping = replace(plan, recipe=replace(RECIPE, nan_policy="drop"))
    values[0].is_valid[[0, 1025]] = False
    values[1].is_valid[2599] = False
    record = write_assemblies(dropping, iter(values), folder)

    assert_values_are_in_place(plan, folder)
    array = open_assembly(folder, "test").isel(neuroid=slice(2 * plan.region_map.regions[0].n_vertices - 3, None))
    cortex = array.isel(neuroid=array["region"].values == "cortex")
    assert (cortex["subject"].values == "subj04").sum() == 2598
    assert (cortex["subject"].values == "subj01").sum() == 2599
    assert record.shapes["train"][1] == len(open_assembly(folder, "train")["neuroid"])


def test_subject_without_a_valid_vertex_is_refused_when_dropping(plan, values, folder):
    dropping = replace(plan, recipe=replace(RECIPE, nan_policy="drop"))
    values[0].is_valid[:] = False

    with pytest.raises(PackagingError, match=r"^subj04 has no vertex whose trials are all valid.*--nan-policy zero"):
        write_assemblies(dropping, iter(values), folder)


@pytest.mark.parametrize("is_short", [False, True])
def test_space_for_both_assemblies_is_required(plan, values, folder, monkeypatch, is_short):
    n_values = (
        (len(plan.splits["train"]) + 3 * len(plan.splits["test"])) * 2 * (2600 + plan.region_map.regions[0].n_vertices)
    )
    usage = namedtuple("usage", "total used free")
    asked = []

    def report_usage(path):
        asked.append(path)
        return usage(10**12, 0, 4 * n_values - is_short)

    monkeypatch.setattr(shutil, "disk_usage", report_usage)
    if not is_short:
        write_assemblies(plan, iter(values), folder)
        assert asked == [folder.path]
        return
    with pytest.raises(
        PackagingError, match=rf"{4 * n_values - 1:,} bytes free, but the assemblies take {4 * n_values:,}"
    ):
        write_assemblies(plan, iter(values), folder)
    assert list(folder.path.iterdir()) == []


@pytest.fixture
def manifest(plan, folder):
    (folder.path / "stimuli_test").mkdir()
    (folder.path / "stimuli_test" / "a.png").write_bytes(b"pixels")
    (folder.path / "train_test_split.csv").write_bytes(b"table")
    record = AssemblyRecord({"train": (1, 2, 1), "test": (3, 2, 1)}, {"subj01": {"V4": FilledCounts(1, 2, 3)}})
    stimuli = [folder.path / "stimuli_test" / "a.png", folder.split_path]
    for split in ("train", "test"):
        folder.assembly_path("Two", split).write_bytes(b"values")
    return describe_release(plan, record, folder, stimuli)


def test_manifest_records_the_choices_of_the_plan(plan, manifest):
    v4, cortex = plan.region_map.regions
    assert manifest.name == "Two"
    assert manifest.recipe == RECIPE
    assert manifest.regions == (
        ReleasedRegion("V4", "Kastner2015", (7,), v4.n_vertices),
        ReleasedRegion("cortex", "cortex", (), 2600),
    )
    assert (manifest.image_format, manifest.from_region_assemblies) == ("png", False)
    assert (manifest.n_vertices, manifest.n_trials_per_session) == (1300, 42)
    assert manifest.sessions == {"subj01": 4, "subj04": 3}
    assert manifest.shapes == {"train": (1, 2, 1), "test": (3, 2, 1)}
    assert manifest.nan_counts == {"subj01": {"V4": FilledCounts(1, 2, 3)}}
    assert manifest.simulated is True


@pytest.mark.parametrize(
    "change", [{"image_format": "jpg"}, {"from_region_assemblies": True}, {"n_trials_per_session": 9}]
)
def test_manifest_follows_other_choices(plan, folder, change):
    plan = replace(plan, **change)
    if plan.from_region_assemblies:
        plan = replace(plan, recipe=replace(RECIPE, regions=()))  # there are no prepared assemblies to record
    for split in ("train", "test"):
        folder.assembly_path("Two", split).write_bytes(b"values")
    manifest = describe_release(plan, AssemblyRecord({}, {}), folder, [])

    ((key, value),) = change.items()
    assert getattr(manifest, key) == value


def test_manifest_records_every_input_with_its_size(tiny_tree, plan, manifest):
    betas = "nsddata_betas/ppdata/subj0{}/fsaverage/betas_fithrf_GLMdenoise_RR"
    expected = ["nsddata/experiments/nsd/nsd_expdesign.mat", "nsddata/experiments/nsd/nsd_stim_info_merged.csv"]
    expected += [f"nsddata/freesurfer/fsaverage/label/{h}.Kastner2015.mgz" for h in ("lh", "rh")]
    for subject in (1, 4):
        for h in ("lh", "rh"):  # session 4 of subject 1 shows no complete image
            expected += [f"{betas.format(subject)}/{h}.betas_session{number:02d}.mgh" for number in (1, 2, 3)]
            expected += [f"{betas.format(subject)}/{h}.ncsnr.mgh"]
    expected += ["nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"]

    assert list(manifest.inputs) == sorted(expected)
    assert manifest.inputs == {path: (tiny_tree / path).stat().st_size for path in expected}


def test_manifest_records_every_file_and_version(folder, manifest):
    assert {name: (record.size, record.sha1) for name, record in manifest.files.items()} == {
        name: (size, sha1_of(folder.path / name))
        for name, size in (
            *(("Two_test.nc", 6), ("Two_train.nc", 6)),
            *(("stimuli_test/a.png", 6), ("train_test_split.csv", 5)),
        )
    }
    packages = ("numpy", "scipy", "nibabel", "h5py", "netCDF4", "pandas", "Pillow")
    assert manifest.versions == {name: version(name) for name in packages} | {
        "brainscore_allen2022_surface": __version__
    }


@pytest.fixture
def built(tiny_tree, tmp_path, caplog):
    """A release and what was logged."""
    with caplog.at_level(logging.INFO):
        build_release(tiny_tree, tmp_path / "built", RECIPE)
    return tmp_path / "built", caplog.text


def test_build_says_what_it_writes(built, plan):
    n_train, n_test = (len(plan.splits[split]) for split in ("train", "test"))
    path, log = built
    n_neuroids = 2 * (2600 + plan.region_map.regions[0].n_vertices)

    assert f"Two: {n_train + n_test} images, {n_train} train, {n_test} test" in log
    assert f"subj04: {n_neuroids // 2} neuroids" in log
    size = (path / "Two_train.nc").stat().st_size / 1e6
    assert f"Two_train.nc: ({n_train}, {n_neuroids}, 1), {size:.1f} MB" in log


def test_sessions_are_ready_before_the_first_subject_is_computed(built):
    assert "computed again" not in built[1]


def test_build_leaves_the_release_and_nothing_else(built, tmp_path):
    assert [path.name for path in tmp_path.iterdir()] == ["built"]
    manifest = Manifest.read(ReleaseFolder(tmp_path / "built"))
    assert manifest.files["Two_train.nc"].sha1 == sha1_of(tmp_path / "built" / "Two_train.nc")


def test_named_cache_of_a_build_is_kept_without_values(tiny_tree, tmp_path):
    build_release(tiny_tree, tmp_path / "r", RECIPE, cache_path=tmp_path / "cache")

    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "r"]
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} == {".responses"}
    assert len(list((tmp_path / "cache").iterdir())) == 2 * 3


def test_release_that_exists_is_refused_before_anything_is_read(tmp_path):
    (tmp_path / "r").mkdir()
    with pytest.raises(PackagingError, match="exists already"):
        build_releases(tmp_path / "no tree", {tmp_path / "new": RECIPE, tmp_path / "r": RECIPE})
    with pytest.raises(PackagingError, match="exists already"):
        build_release(tmp_path / "no tree", tmp_path / "r", RECIPE)
    with pytest.raises(PackagingError, match="is not a release: --overwrite replaces only"):
        build_release(tmp_path / "no tree", tmp_path / "r", RECIPE, overwrite=True)


def test_first_release_stays_when_the_second_one_fails(tiny_tree, tmp_path, monkeypatch):
    write = pipeline.write_assemblies

    def fail_for_the_second(plan, subjects, folder):
        if plan.recipe.name == "second":
            raise PackagingError("no space")
        return write(plan, subjects, folder)

    monkeypatch.setattr(pipeline, "write_assemblies", fail_for_the_second)
    recipes = {tmp_path / name: replace(RECIPE, name=name) for name in ("first", "second")}
    with pytest.raises(PackagingError, match="no space"):
        build_releases(tiny_tree, recipes)

    assert [path.name for path in tmp_path.iterdir()] == ["first"]
    assert json.loads((tmp_path / "first" / "release.json").read_text())["name"] == "first"


def test_images_are_written_before_any_session_is_read(tiny_tree, tmp_path, monkeypatch):
    """A damaged one ends the build at once, and not after hours."""

    def fail(plan, folder):
        raise PackagingError("no picture")

    monkeypatch.setattr(pipeline, "write_stimuli", fail)
    monkeypatch.setattr(pipeline.SessionCache, "prepare", lambda *_: pytest.fail("sessions were read"))
    with pytest.raises(PackagingError, match="no picture"):
        build_release(tiny_tree, tmp_path / "release", RECIPE)


def test_choices_of_a_build_reach_the_inspection(tiny_tree, tmp_path, monkeypatch):
    asked = []

    def inspect(tree, recipe, **choices):
        asked.append((str(tree), recipe, choices))
        raise PackagingError("stop")

    monkeypatch.setattr(pipeline, "inspect_tree", inspect)
    with pytest.raises(PackagingError, match="stop"):
        build_release(tiny_tree, tmp_path / "r", RECIPE, image_format="jpg", from_region_assemblies=True)

    assert asked == [(str(tiny_tree), RECIPE, {"image_format": "jpg", "from_region_assemblies": True})]


def test_choices_of_workers_reach_them(tiny_tree, tmp_path, monkeypatch):
    def make_workers(n_workers, scheduler):
        raise PackagingError(f"{n_workers} at {scheduler}")

    monkeypatch.setattr(pipeline, "Workers", make_workers)
    with pytest.raises(PackagingError, match="^5 at tcp://there$"):
        build_release(tiny_tree, tmp_path / "r", RECIPE, n_workers=5, scheduler="tcp://there")
    with pytest.raises(PackagingError, match="^1 at None$"):
        build_releases(tiny_tree, {tmp_path / "r": RECIPE})


def test_release_is_replaced_by_a_new_one_when_asked(tiny_tree, tmp_path):
    build_release(tiny_tree, tmp_path / "r", replace(RECIPE, name="Old"))
    build_release(tiny_tree, tmp_path / "r", RECIPE, overwrite=True)

    assert pd.read_csv(tmp_path / "r" / "train_test_split.csv").shape[1] == 3
    assert {path.name for path in (tmp_path / "r").glob("*.nc")} == {"Two_train.nc", "Two_test.nc"}
