"""Prepared region assemblies, made here by the plain reference as an earlier packaging would have left them."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import xarray

from allen2022_surface_packaging.build import Method, build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd import SUBJECTS

_spec = importlib.util.spec_from_file_location("reference", Path(__file__).with_name("reference.py"))
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)


def prepare_regions(root: Path, subjects) -> None:
    masks = reference.region_masks(root)
    shared = reference.shared_ids(root)
    (root / "assemblies").mkdir()
    for region in ("V1", "V2", "V4", "IT"):
        averages, coordinates, counts = [], [], []
        for subject in subjects:
            trials = np.hstack(
                [reference.standardised_trials(root, subject, h, masks[region, h]) for h in ("lh", "rh")]
            )
            seen = reference.shown(root, subject, len(trials))
            counts.append([seen.count(i) for i in shared])
            own = np.full((len(shared), trials.shape[1]), np.nan, np.float32)
            for row, image in enumerate(shared):
                rows = trials[[t for t, i in enumerate(seen) if i == image]].astype(np.float32)
                valid = ~np.isnan(rows)
                with np.errstate(invalid="ignore"):
                    own[row] = np.where(valid, rows, 0).sum(axis=0) / valid.sum(axis=0)
            averages.append(own)
            for h in ("lh", "rh"):
                coordinates += [(f"subj{subject:02d}", h, int(v)) for v in np.flatnonzero(masks[region, h])]
        subject_names, hemispheres, vertices = zip(*coordinates, strict=True)
        xarray.DataArray(
            np.hstack(averages),
            dims=("presentation", "neuroid"),
            coords={
                "stimulus_id": ("presentation", [f"nsd_{i:05d}" for i in shared]),
                "nsd_id": ("presentation", shared),
                "min_reps_across_subjects": ("presentation", np.min(counts, axis=0)),
                "subject": ("neuroid", list(subject_names)),
                "hemisphere": ("neuroid", list(hemispheres)),
                "vertex_index": ("neuroid", list(vertices)),
            },
        ).to_netcdf(root / "assemblies" / f"Allen2022_surface.{region}.nc")


@pytest.fixture(scope="module")
def prepared_tree(nsd_tree, tmp_path_factory):
    import shutil

    root = Path(shutil.copytree(nsd_tree, tmp_path_factory.mktemp("prepared") / "nsd"))
    prepare_regions(root, SUBJECTS)
    return root


def open_values(release: Path, split: str) -> np.ndarray:
    (path,) = release.glob(f"*_{split}.nc")
    return xarray.open_dataarray(path).values


@pytest.mark.parametrize("method", [Method(), Method(standardize_on="train"), Method(nan_policy="drop")])
def test_prepared_averages_give_the_same_values_as_the_betas(nsd_tree, prepared_tree, tmp_path, method):
    name = None if method == Method() else "Other"
    for root, folder, prepared in ((nsd_tree, "raw", False), (prepared_tree, "prepared", True)):
        build_release(
            root, tmp_path / folder, subjects=SUBJECTS, method=method, name=name, from_region_assemblies=prepared
        )

    for split in ("train", "test"):
        raw, prepared = (open_values(tmp_path / folder, split) for folder in ("raw", "prepared"))
        np.testing.assert_allclose(prepared, raw, rtol=0, atol=1e-5)


def test_train_and_statistics_come_from_the_prepared_averages(prepared_tree, tmp_path):
    """Doubled and shifted averages are standardised back to the same train half, but not to the same test half."""
    import shutil

    root = Path(shutil.copytree(prepared_tree, tmp_path / "nsd"))
    build_release(root, tmp_path / "before", subjects=SUBJECTS, from_region_assemblies=True)
    for path in (root / "assemblies").iterdir():
        assembly = xarray.open_dataarray(path).load()
        assembly.close()
        (2 * assembly + 1).to_netcdf(path)
    build_release(root, tmp_path / "after", subjects=SUBJECTS, from_region_assemblies=True)

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
def test_prepared_averages_that_disagree_with_the_tree_are_refused(prepared_tree, tmp_path, fault):
    import shutil

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
        changed.encoding = {}  # or it would still name the coordinate that is gone
        changed.to_netcdf(folder / "Allen2022_surface.V2.nc")

    with pytest.raises(PackagingError, match=message):
        build_release(tmp_path / "nsd", tmp_path / "release", subjects=SUBJECTS, from_region_assemblies=True)
    assert not (tmp_path / "release").exists()


def test_prepared_averages_of_eight_subjects_do_not_serve_four(prepared_tree, tmp_path):
    with pytest.raises(PackagingError, match="expected .* as (in the labels|counted in the design|chosen)"):
        build_release(prepared_tree, tmp_path / "r", subjects=(1, 2, 5, 7), from_region_assemblies=True)
