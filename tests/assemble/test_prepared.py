"""Builds from prepared region assemblies. The plain reference writes the assemblies, as an earlier packaging does."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import DEFAULT_BETAS, SUBJECTS
from allen2022_surface_packaging.nsd.files import MGH_DATA_OFFSET
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import make_recipe, read_recipe
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from reference import prepare_regions, session_files
from support import find_differences


@pytest.fixture(scope="module")
def prepared_tree(nsd_tree, tmp_path_factory) -> Path:
    root = Path(shutil.copytree(nsd_tree, tmp_path_factory.mktemp("prepared") / "nsd"))
    prepare_regions(root, SUBJECTS)
    return root


@pytest.fixture
def tree_copy(prepared_tree, tmp_path) -> Path:
    """A tree whose prepared assemblies a test may change; the rest is linked."""
    (tmp_path / "nsd").mkdir()
    for entry in prepared_tree.iterdir():
        if entry.name != "assemblies":
            (tmp_path / "nsd" / entry.name).symlink_to(entry)
    shutil.copytree(prepared_tree / "assemblies", tmp_path / "nsd" / "assemblies")
    return tmp_path / "nsd"


def change_assembly(root: Path, change, region: str = "V2") -> None:
    path = root / "assemblies" / f"Allen2022_surface.{region}.nc"
    with xarray.open_dataarray(path) as opened:
        changed = change(opened.load())
    path.unlink()
    if changed is not None:
        changed.encoding = {}  # otherwise it still names a coordinate that was removed
        changed.to_netcdf(path)


def open_values(release: Path, split: str) -> np.ndarray:
    (path,) = release.glob(f"*_{split}.nc")
    with xarray.open_dataarray(path) as assembly:
        return assembly.values[:, :, 0]


@pytest.mark.parametrize(
    "choices", [{}, {"name": "Other", "standardize_on": "train"}, {"name": "Other", "nan_policy": "drop"}]
)
def test_prepared_averages_give_the_same_values_as_betas(nsd_tree, prepared_tree, tmp_path, choices):
    recipe = make_recipe(**choices)
    build_release(nsd_tree, tmp_path / "raw", recipe)
    build_release(prepared_tree, tmp_path / "prepared", recipe, from_region_assemblies=True)

    for split in ("train", "test"):
        raw, prepared = (open_values(tmp_path / folder, split) for folder in ("raw", "prepared"))
        np.testing.assert_allclose(prepared, raw, rtol=0, atol=1e-5)


def plant_averages(assembly: xarray.DataArray) -> xarray.DataArray:
    """Plant averages that are NaN, infinite, constant, or so small that single precision cannot hold what they give."""
    assembly[1, 0] = np.inf
    assembly[:, 1] = -np.inf
    assembly[::3, 2] = np.nan
    assembly[:, 3] = 7
    assembly[:, 4] = 1e-44 * (np.arange(len(assembly)) % 2)
    return 2 * assembly + np.float32(1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the reference
@pytest.mark.parametrize("nan_policy", ["zero", "drop"])
def test_release_equals_the_reference_for_odd_averages(tree_copy, tmp_path, nan_policy):
    """Averages that no betas give show that train and statistics come from them."""
    for region in ("V1", "V2"):
        change_assembly(tree_copy, plant_averages, region)
    recipe = make_recipe(name="odd", nan_policy=nan_policy)
    build_release(tree_copy, tmp_path / "release", recipe, from_region_assemblies=True)

    assert find_differences(tmp_path / "release", tree_copy) == []


def test_only_sessions_of_test_images_are_read(tmp_path):
    """The other betas files cannot give a sound session: all their responses are NaN."""
    root = tmp_path / "nsd"
    size = TreeSize((1,), n_sessions=8, n_trials=9, n_vertices=162, image_size=8, betas=(DEFAULT_BETAS,))
    simulate_tree(root, size)
    prepare_regions(root, (1,))
    recipe = replace(make_recipe((1,), name="few_test_images"), train_fraction=0.85)
    build_release(root, tmp_path / "before", recipe, from_region_assemblies=True)
    inputs = Manifest.read(ReleaseFolder(tmp_path / "before")).inputs
    unread = [
        path for h in ("lh", "rh") for path in session_files(root, 1, h) if str(path.relative_to(root)) not in inputs
    ]
    for path in unread:
        np.memmap(path, ">f4", "r+", MGH_DATA_OFFSET, (size.n_trials, size.n_vertices))[:] = np.nan
    build_release(root, tmp_path / "after", recipe, from_region_assemblies=True)

    assert 0 < len(unread) < 2 * 8
    for split in ("train", "test"):
        np.testing.assert_array_equal(open_values(tmp_path / "after", split), open_values(tmp_path / "before", split))


FAULTS = {
    "a file missing": (lambda a: None, "V2.nc is missing"),
    "other subjects": (
        lambda a: a.assign_coords(subject=("neuroid", a.subject.values[::-1])),
        "subject number 0 is subj08",
    ),
    "fewer neuroids": (lambda a: a.isel(neuroid=slice(3, None)), "values of vertex_index, expected"),
    "other vertices": (lambda a: a.assign_coords(vertex_index=a.vertex_index + 1), "vertex_index number 0 is"),
    "other images": (lambda a: a.assign_coords(nsd_id=a.nsd_id + 1), "nsd_id number 0 is"),
    "fewer images": (lambda a: a.isel(presentation=slice(1, None)), "values of nsd_id, expected"),
    "other counts": (
        lambda a: a.assign_coords(min_reps_across_subjects=a.min_reps_across_subjects * 0),
        "min_reps_across_subjects number",
    ),
    "a coordinate missing": (lambda a: a.drop_vars("hemisphere"), "lacks the coordinate hemisphere"),
    "a coordinate of no dimension": (lambda a: a.assign_coords(vertex_index=7), "holds 1 values of vertex_index"),
    "an image never written": (
        lambda a: a.where(a.nsd_id != a.nsd_id[a.min_reps_across_subjects >= 3][0]),
        "all are 0",
    ),
    "double precision": (lambda a: a.astype(np.float64), "holds float64"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_prepared_averages_are_refused_when_they_contradict_the_tree(tree_copy, tmp_path, fault):
    change, message = FAULTS[fault]
    change_assembly(tree_copy, change)

    with pytest.raises(PackagingError, match=message):
        build_release(tree_copy, tmp_path / "release", make_recipe(), from_region_assemblies=True)
    assert not (tmp_path / "release").exists()


def test_damaged_prepared_assembly_is_named_in_one_line(tree_copy, tmp_path):
    path = tree_copy / "assemblies" / "Allen2022_surface.V1.nc"
    path.write_bytes(path.read_bytes()[:1000])

    with pytest.raises(PackagingError, match=r"V1\.nc is not an assembly \([^\n]*\)\. Prepare it again"):
        build_release(tree_copy, tmp_path / "release", make_recipe(), from_region_assemblies=True)


def test_prepared_averages_of_other_subjects_or_images_are_refused(prepared_tree, tmp_path):
    with pytest.raises(PackagingError, match="expected .* as in the design, the labels and the recipe"):
        build_release(prepared_tree, tmp_path / "r", make_recipe((1, 2, 5, 7)), from_region_assemblies=True)
    with pytest.raises(PackagingError, match="images of the pool 'own'.* Build without --from-region-assemblies"):
        recipe = replace(read_recipe("subj01_own"), name="other")
        build_release(prepared_tree, tmp_path / "r", recipe, from_region_assemblies=True)
