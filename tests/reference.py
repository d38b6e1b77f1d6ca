"""Whole releases and parts of them, computed by `verify.reference`, which shares no code with the build."""

from pathlib import Path

import nibabel
import numpy as np
import scipy.io
import xarray

from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import Recipe, Region
from allen2022_surface_packaging.verify.reference import read_reference

# Name, atlas and labels. The labels "all" are those above 0; the atlas None is the whole cortex.
REGIONS = (
    ("V1", "Kastner2015", (1, 2)),
    ("V2", "Kastner2015", (3, 4)),
    ("V4", "Kastner2015", (7,)),
    ("IT", "streams", (5,)),
)
DEFAULT_BETAS = "betas_fithrf_GLMdenoise_RR"
HEMISPHERES = ("lh", "rh")


class Paths:
    """The literal paths of NSD's files, in either layout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.is_official = (root / "nsddata").is_dir()
        self.labels = root / ("nsddata/freesurfer/fsaverage/label" if self.is_official else "fsaverage_labels")
        self.design = root / ("nsddata/experiments/nsd" if self.is_official else "metadata") / "nsd_expdesign.mat"

    def betas(self, subject: int, version: str = DEFAULT_BETAS) -> Path:
        if self.is_official:
            return self.root / f"nsddata_betas/ppdata/subj{subject:02d}/fsaverage/{version}"
        return self.root / f"subj{subject:02d}" / ("betas" if version == DEFAULT_BETAS else version)


def read_mgh(path: Path) -> np.ndarray:
    """Read one value per vertex."""
    return np.asarray(nibabel.load(path).dataobj).ravel()


def region_masks(root: Path, regions=REGIONS) -> dict[tuple[str, str], np.ndarray]:
    """Return which vertices belong to a region, by region and hemisphere."""
    masks = {}
    for hemisphere in HEMISPHERES:
        for region, atlas, labels in regions:
            if atlas is None:
                ncsnr = read_mgh(Paths(root).betas(1) / f"{hemisphere}.ncsnr.mgh")
                masks[region, hemisphere] = np.ones(len(ncsnr), bool)
                continue
            values = read_mgh(Paths(root).labels / f"{hemisphere}.{atlas}.mgz")
            masks[region, hemisphere] = values > 0 if labels == "all" else np.isin(values, labels)
    return masks


def shared_with_others(root: Path, subject: int) -> set[int]:
    """Return the 0-based 73k ids of the images that any other subject was to see."""
    subjectim = scipy.io.loadmat(Paths(root).design)["subjectim"]
    return {int(i) - 1 for row in range(len(subjectim)) if row != subject - 1 for i in subjectim[row]}


def shown_images(root: Path, subject: int, n_trials: int) -> list[int]:
    """Return the 0-based 73k id of the image in each of a subject's first trials."""
    design = scipy.io.loadmat(Paths(root).design)
    order = [int(i) for i in design["masterordering"].ravel()[:n_trials]]
    return [int(design["subjectim"][subject - 1, i - 1]) - 1 for i in order]


def shared_images(root: Path) -> list[int]:
    """Return the 0-based 73k ids of the images that all subjects saw."""
    return [int(i) - 1 for i in scipy.io.loadmat(Paths(root).design)["sharedix"].ravel()]


def session_files(root: Path, subject: int, hemisphere: str, version: str = DEFAULT_BETAS) -> list[Path]:
    """Return the betas files of a subject, by session."""
    return sorted(Paths(root).betas(subject, version).glob(f"{hemisphere}.betas_session*.mgh"))


def standardised_trials(
    root: Path, subject: int, masks: dict[str, np.ndarray], version: str = DEFAULT_BETAS
) -> np.ndarray:
    """Return all trials of a subject, of shape (n_trials, n_vertices of lh + rh); each session is standardised.

    They are rounded to single precision, in which the published procedure keeps them.
    """
    hemispheres = []
    for hemisphere, mask in masks.items():
        sessions = []
        for path in session_files(root, subject, hemisphere, version):
            betas = np.asarray(nibabel.load(path).dataobj)[:, 0, 0, :][mask].T.astype(np.float64)
            deviation = betas.std(axis=0)
            deviation[deviation == 0] = 1
            sessions.append(((betas - betas.mean(axis=0)) / deviation).astype(np.float32).astype(np.float64))
        hemispheres.append(np.concatenate(sessions))
    return np.concatenate(hemispheres, axis=1)


def masks_of_region(masks: dict[tuple[str, str], np.ndarray], region: str) -> dict[str, np.ndarray]:
    return {hemisphere: masks[region, hemisphere] for hemisphere in HEMISPHERES}


def split_complete_images(complete: list[int], fraction: float, seed: int) -> dict[str, list[int]]:
    order = np.random.RandomState(seed).permutation(len(complete))
    n_train = int(fraction * len(complete))
    return {
        "train": [complete[row] for row in sorted(order[:n_train])],
        "test": [complete[row] for row in sorted(order[n_train:])],
    }


def find_trials(shown: list[int], images: list[int], n_repetitions: int) -> np.ndarray:
    """Return the trials of each image, of shape (n_images, n_repetitions); -1 for a repetition that was not shown."""
    trials = np.full((len(images), n_repetitions), -1)
    for row, image in enumerate(images):
        found = [t for t, shown_image in enumerate(shown) if shown_image == image]
        trials[row, : len(found)] = found
    return trials


def compute_release(root, recipe, *, from_region_assemblies=False) -> dict:
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


def reference_release(
    root, subjects, *, standardize_on="all", drop=False, regions=REGIONS, version=DEFAULT_BETAS, own=False, fraction=0.8, seed=42
):  # fmt: skip
    """Return what `compute_release` gives for a recipe in the words of this module."""
    regions = [Region(n, a or "cortex", () if labels == "all" else tuple(labels)) for n, a, labels in regions]
    recipe = Recipe(
        "reference",
        tuple(subjects),
        tuple(regions),
        standardize_on=standardize_on,
        nan_policy="drop" if drop else "zero",
        betas=version,
        pool="own" if own else "shared",
        train_fraction=fraction,
        split_seed=seed,
    )
    return compute_release(root, recipe)


def prepare_regions(root: Path, subjects) -> None:
    """Write the averages of all shared images into the tree, as an earlier packaging does."""
    masks = region_masks(root)
    (root / "assemblies").mkdir()
    for region, _, _ in REGIONS:
        prepare_region(root, subjects, region, masks_of_region(masks, region))


def prepare_region(root: Path, subjects, region: str, masks: dict[str, np.ndarray]) -> None:
    """Write the averages of one region."""
    shared = shared_images(root)
    averages, coordinates, counts = [], [], []
    for subject in subjects:
        trials = standardised_trials(root, subject, masks)
        shown = shown_images(root, subject, len(trials))
        counts.append([shown.count(image) for image in shared])
        averages.append(average_trials(trials, shown, shared))
        for hemisphere, mask in masks.items():
            coordinates += [(f"subj{subject:02d}", hemisphere, int(vertex)) for vertex in np.flatnonzero(mask)]
    subject_names, hemispheres, vertices = zip(*coordinates, strict=True)
    xarray.DataArray(
        np.hstack(averages),
        dims=("presentation", "neuroid"),
        coords={
            "stimulus_id": ("presentation", [f"nsd_{image:05d}" for image in shared]),
            "nsd_id": ("presentation", shared),
            "min_reps_across_subjects": ("presentation", np.min(counts, axis=0)),
            "subject": ("neuroid", list(subject_names)),
            "hemisphere": ("neuroid", list(hemispheres)),
            "vertex_index": ("neuroid", list(vertices)),
        },
    ).to_netcdf(root / "assemblies" / f"Allen2022_surface.{region}.nc")


def average_trials(trials: np.ndarray, shown: list[int], images: list[int]) -> np.ndarray:
    """Average the trials of each image that are not NaN, in single precision."""
    averages = np.full((len(images), trials.shape[1]), np.nan, np.float32)
    for row, image in enumerate(images):
        image_trials = trials[[t for t, shown_image in enumerate(shown) if shown_image == image]].astype(np.float32)
        valid = ~np.isnan(image_trials)
        with np.errstate(invalid="ignore"):
            averages[row] = np.where(valid, image_trials, 0).sum(axis=0) / valid.sum(axis=0)
    return averages
