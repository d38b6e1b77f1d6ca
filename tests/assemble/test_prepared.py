"""Builds from prepared region assemblies. The plain reference writes the assemblies, as an earlier packaging does."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray

import reference
from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import SUBJECTS
from allen2022_surface_packaging.recipe import make_recipe


@pytest.fixture(scope="module")
def prepared_tree(nsd_tree, tmp_path_factory):
    root = Path(shutil.copytree(nsd_tree, tmp_path_factory.mktemp("prepared") / "nsd"))
    reference.prepare_regions(root, SUBJECTS)
    return root


def open_values(release: Path, split: str) -> np.ndarray:
    (path,) = release.glob(f"*_{split}.nc")
    return xarray.open_dataarray(path).values


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


def test_train_and_statistics_come_from_prepared_averages(prepared_tree, tmp_path):
    """Doubled and shifted averages give the same train half again, but another test half."""
    root = Path(shutil.copytree(prepared_tree, tmp_path / "nsd"))
    build_release(root, tmp_path / "before", make_recipe(), from_region_assemblies=True)
    for path in (root / "assemblies").iterdir():
        assembly = xarray.open_dataarray(path).load()
        assembly.close()
        (2 * assembly + 1).to_netcdf(path)
    build_release(root, tmp_path / "after", make_recipe(), from_region_assemblies=True)

    before, after = (open_values(tmp_path / folder, "train") for folder in ("before", "after"))
    np.testing.assert_allclose(after, before, atol=1e-5)
    before, after = (open_values(tmp_path / folder, "test") for folder in ("before", "after"))
    assert np.abs(after - before).mean() > 0.5


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
    "double precision": (lambda a: a.astype(np.float64), "holds float64"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_prepared_averages_are_refused_when_they_contradict_the_tree(prepared_tree, tmp_path, fault):
    change, message = FAULTS[fault]
    folder = Path(shutil.copytree(prepared_tree / "assemblies", tmp_path / "nsd" / "assemblies"))
    for entry in prepared_tree.iterdir():
        if entry.name != "assemblies":
            (tmp_path / "nsd" / entry.name).symlink_to(entry)
    assembly = xarray.open_dataarray(folder / "Allen2022_surface.V2.nc").load()
    assembly.close()
    (folder / "Allen2022_surface.V2.nc").unlink()
    changed = change(assembly)
    if changed is not None:
        changed.encoding = {}  # otherwise it still names the removed coordinate
        changed.to_netcdf(folder / "Allen2022_surface.V2.nc")

    with pytest.raises(PackagingError, match=message):
        build_release(tmp_path / "nsd", tmp_path / "release", make_recipe(), from_region_assemblies=True)
    assert not (tmp_path / "release").exists()


def test_prepared_averages_of_eight_subjects_are_refused_for_four(prepared_tree, tmp_path):
    with pytest.raises(PackagingError, match="expected .* as (in the labels|counted in the design|chosen)"):
        build_release(prepared_tree, tmp_path / "r", make_recipe((1, 2, 5, 7)), from_region_assemblies=True)
