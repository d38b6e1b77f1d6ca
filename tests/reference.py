"""Prepared region assemblies, computed by `verify.reference`, which shares no code with the build."""

from pathlib import Path

import numpy as np
import scipy.io
import xarray

from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import PUBLISHED_REGIONS, Recipe
from allen2022_surface_packaging.verify.reference import read_reference


def session_files(root: Path, subject: int, hemisphere: str, version: str = DEFAULT_BETAS) -> list[Path]:
    """Return the betas files of a subject, by session."""
    return sorted(
        (root / open_tree(root).layout.betas_folder(subject, version)).glob(f"{hemisphere}.betas_session*.mgh")
    )


def prepare_regions(root: Path, subjects, regions=PUBLISHED_REGIONS) -> None:
    """Write the averages of all shared images into the tree, as an earlier packaging does."""
    tree = open_tree(root)
    expected = read_reference(tree, Recipe("prepared", tuple(subjects), regions))
    shared = scipy.io.loadmat(str(tree.design))["sharedix"].ravel().astype(int) - 1
    (root / "assemblies").mkdir()
    for region, neuroids in expected.neuroids.groupby("region", sort=False):
        averages = []
        for (subject, hemisphere), part in neuroids.groupby(["subject", "hemisphere"], sort=False):
            responses = expected.responses(int(subject[-2:]), hemisphere, part["vertex_index"].to_numpy(), shared)
            valid = ~np.isnan(responses)
            with np.errstate(invalid="ignore"):
                sums = np.where(valid, responses, 0).astype(np.float32).sum(axis=1)
                averages.append((sums / valid.sum(axis=1)).astype(np.float32))
        counts = [[np.count_nonzero(shown == image) for image in shared] for shown in expected.shown.values()]
        xarray.DataArray(
            np.hstack(averages),
            dims=("presentation", "neuroid"),
            coords={
                "stimulus_id": ("presentation", [f"nsd_{image:05d}" for image in shared]),
                "nsd_id": ("presentation", shared),
                "min_reps_across_subjects": ("presentation", np.min(counts, axis=0)),
                **{name: ("neuroid", neuroids[name].tolist()) for name in ("subject", "hemisphere", "vertex_index")},
            },
        ).to_netcdf(root / "assemblies" / f"Allen2022_surface.{region}.nc")
