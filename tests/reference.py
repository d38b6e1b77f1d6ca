"""Whole releases and prepared region assemblies, computed by `verify.reference`, which shares no code with the build."""

from pathlib import Path

import numpy as np
import scipy.io
import xarray

from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import Recipe
from allen2022_surface_packaging.verify.reference import read_reference


def session_files(root: Path, subject: int, hemisphere: str, version: str = DEFAULT_BETAS) -> list[Path]:
    """Return the betas files of a subject, by session."""
    return sorted(
        (root / open_tree(root).layout.betas_folder(subject, version)).glob(f"{hemisphere}.betas_session*.mgh")
    )


def compute_release(root: Path, recipe: Recipe, *, from_region_assemblies: bool = False) -> dict:
    """Return the train averages, the test repetitions and the neuroid coordinates that the raw files give for a recipe."""
    expected = read_reference(open_tree(root), recipe, from_region_assemblies=from_region_assemblies)
    n_rows = {split: len(expected.presentations(split)) for split in ("train", "test")}
    values = {split: np.full((n, len(expected.neuroids)), np.nan) for split, n in n_rows.items()}
    is_kept = np.ones(len(expected.neuroids), bool)
    for block in expected.blocks(expected.neuroids):
        computed, is_valid = expected.values(block)
        for split in values:
            values[split][:, block.index] = computed[split]
        if recipe.nan_policy == "drop":
            is_kept[block.index] = is_valid
    values = {split: split_values[:, is_kept] for split, split_values in values.items()}
    return {
        "train": np.nan_to_num(values["train"]),
        "test": np.nan_to_num(values["test"]),
        "n_nan": {split: int(np.isnan(split_values).sum()) for split, split_values in values.items()},
        "train_ids": expected.splits["train"].tolist(),
        "test_ids": expected.splits["test"].tolist(),
        "neuroids": list(expected.neuroids[is_kept].itertuples(index=False, name=None)),
    }


def prepare_regions(root: Path, subjects) -> None:
    """Write the averages of all shared images into the tree, as an earlier packaging does."""
    tree = open_tree(root)
    expected = read_reference(tree, Recipe("prepared", tuple(subjects)))
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
