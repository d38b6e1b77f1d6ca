"""The published method, written plainly and slowly from its description. It shares no code with the package.

It reads the raw files with nibabel and scipy, holds everything in memory, and loops over trials.
"""

import warnings
from pathlib import Path

import nibabel
import numpy as np
import scipy.io
import xarray

REGIONS = ("V1", "V2", "V4", "IT")
KASTNER_LABELS = {"V1": (1, 2), "V2": (3, 4), "V4": (7,)}
VENTRAL_STREAM = 5
HEMISPHERES = ("lh", "rh")


class Paths:
    """The literal paths of NSD's files, in either layout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.is_official = (root / "nsddata").is_dir()
        self.labels = root / ("nsddata/freesurfer/fsaverage/label" if self.is_official else "fsaverage_labels")
        self.design = root / ("nsddata/experiments/nsd" if self.is_official else "metadata") / "nsd_expdesign.mat"

    def betas(self, subject: int) -> Path:
        if self.is_official:
            return self.root / f"nsddata_betas/ppdata/subj{subject:02d}/fsaverage/betas_fithrf_GLMdenoise_RR"
        return self.root / f"subj{subject:02d}/betas"


def read_mgh(path: Path) -> np.ndarray:
    """Read one value per vertex."""
    return np.asarray(nibabel.load(path).dataobj).ravel()


def region_masks(root: Path) -> dict[tuple[str, str], np.ndarray]:
    """Return which vertices belong to a region, by region and hemisphere."""
    masks = {}
    for hemisphere in HEMISPHERES:
        kastner = read_mgh(Paths(root).labels / f"{hemisphere}.Kastner2015.mgz")
        streams = read_mgh(Paths(root).labels / f"{hemisphere}.streams.mgz")
        for region, labels in KASTNER_LABELS.items():
            masks[region, hemisphere] = np.isin(kastner, labels)
        masks["IT", hemisphere] = streams == VENTRAL_STREAM
    return masks


def shown_images(root: Path, subject: int, n_trials: int) -> list[int]:
    """Return the 0-based 73k id of the image in each of a subject's first trials."""
    design = scipy.io.loadmat(Paths(root).design)
    order = [int(i) for i in design["masterordering"].ravel()[:n_trials]]
    return [int(design["subjectim"][subject - 1, i - 1]) - 1 for i in order]


def shared_images(root: Path) -> list[int]:
    """Return the 0-based 73k ids of the images that all subjects saw."""
    return [int(i) - 1 for i in scipy.io.loadmat(Paths(root).design)["sharedix"].ravel()]


def session_files(root: Path, subject: int, hemisphere: str) -> list[Path]:
    """Return the betas files of a subject, by session."""
    return sorted(Paths(root).betas(subject).glob(f"{hemisphere}.betas_session*.mgh"))


def standardised_trials(root: Path, subject: int, masks: dict[str, np.ndarray]) -> np.ndarray:
    """Return all trials of a subject, of shape (n_trials, n_vertices of lh + rh); each session is standardised."""
    hemispheres = []
    for hemisphere, mask in masks.items():
        sessions = []
        for path in session_files(root, subject, hemisphere):
            betas = np.asarray(nibabel.load(path).dataobj)[:, 0, 0, :][mask].T.astype(np.float64)
            deviation = betas.std(axis=0)
            deviation[deviation == 0] = 1
            sessions.append((betas - betas.mean(axis=0)) / deviation)
        hemispheres.append(np.concatenate(sessions))
    return np.concatenate(hemispheres, axis=1)


def masks_of_region(masks: dict[tuple[str, str], np.ndarray], region: str) -> dict[str, np.ndarray]:
    return {hemisphere: masks[region, hemisphere] for hemisphere in HEMISPHERES}


def list_neuroids(root: Path, subject: int, region: str, masks: dict[str, np.ndarray]) -> list[tuple]:
    """Return the coordinates of the neuroids of one subject and region."""
    neuroids = []
    for hemisphere, mask in masks.items():
        ncsnr = read_mgh(Paths(root).betas(subject) / f"{hemisphere}.ncsnr.mgh").astype(np.float64)
        for vertex in np.flatnonzero(mask):
            ceiling = 100 * ncsnr[vertex] ** 2 / (ncsnr[vertex] ** 2 + 1 / 3)
            name = f"subj{subject:02d}"
            neuroid_id = f"{name}_{hemisphere}_{region}_v{len(neuroids):05d}"
            neuroids.append((neuroid_id, name, hemisphere, vertex, region, ceiling))
    return neuroids


def standardise_over_images(repetitions: np.ndarray, train_rows: list[int], standardize_on: str) -> tuple:
    """Standardise the averages and the repetitions, of shape (n_images, n_repetitions, n_vertices)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of nothing but NaN is NaN, as intended
        averages = np.nanmean(repetitions, axis=1)
        base = averages[train_rows] if standardize_on == "train" else averages
        mean, deviation = np.nanmean(base, axis=0), np.nanstd(base, axis=0)
    deviation[deviation == 0] = 1
    return (averages - mean) / deviation, (repetitions - mean) / deviation


def reference_release(root: Path, subjects, *, standardize_on="all", drop=False):
    """Return the train averages, the test repetitions and the neuroid coordinates that the published method gives."""
    masks = region_masks(root)
    n_trials = {s: sum(nibabel.load(path).shape[3] for path in session_files(root, s, "lh")) for s in subjects}
    shown = {s: shown_images(root, s, n_trials[s]) for s in subjects}
    complete = [image for image in shared_images(root) if all(shown[s].count(image) >= 3 for s in subjects)]
    order = np.random.RandomState(42).permutation(len(complete))
    n_train = int(0.8 * len(complete))
    train_rows, test_rows = sorted(order[:n_train]), sorted(order[n_train:])

    train, test, neuroids = [], [], []
    for region in REGIONS:
        for subject in subjects:
            region_neuroids = list_neuroids(root, subject, region, masks_of_region(masks, region))
            trials = standardised_trials(root, subject, masks_of_region(masks, region))
            trials_of_image = {i: [t for t, image in enumerate(shown[subject]) if image == i] for i in complete}
            repetitions = np.array([trials[trials_of_image[image]] for image in complete])
            averages, test_repetitions = standardise_over_images(repetitions, train_rows, standardize_on)
            keep = np.ones(trials.shape[1], bool)
            if drop:
                keep = ~np.isnan(repetitions).any(axis=(0, 1))
            train.append(averages[train_rows][:, keep])
            test.append(test_repetitions[test_rows][:, :3].reshape(-1, trials.shape[1])[:, keep])
            neuroids += [neuroid for neuroid, is_kept in zip(region_neuroids, keep, strict=True) if is_kept]
    values = {"train": np.concatenate(train, axis=1), "test": np.concatenate(test, axis=1)}
    return {
        "train": np.nan_to_num(values["train"]),
        "test": np.nan_to_num(values["test"]),
        "n_nan": {split: int(np.isnan(split_values).sum()) for split, split_values in values.items()},
        "train_ids": [complete[row] for row in train_rows],
        "test_ids": [complete[row] for row in test_rows],
        "neuroids": neuroids,
    }


def prepare_regions(root: Path, subjects) -> None:
    """Write the averages of all shared images into the tree, as an earlier packaging does."""
    masks = region_masks(root)
    (root / "assemblies").mkdir()
    for region in REGIONS:
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
