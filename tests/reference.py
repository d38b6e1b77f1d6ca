"""The method, written out plainly and slowly from its description, sharing nothing with the package.

It reads the raw files with nibabel and scipy, holds everything in memory and loops over trials.
"""

import warnings
from pathlib import Path

import nibabel
import numpy as np
import scipy.io
import xarray

KASTNER = {"V1": (1, 2), "V2": (3, 4), "V4": (7,)}
VENTRAL_STREAM = 5


class Paths:
    """The literal places of NSD's files, in either layout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.official = (root / "nsddata").is_dir()
        self.labels = root / ("nsddata/freesurfer/fsaverage/label" if self.official else "fsaverage_labels")
        self.metadata = root / ("nsddata/experiments/nsd" if self.official else "metadata")

    def betas(self, subject: int) -> Path:
        if self.official:
            return self.root / f"nsddata_betas/ppdata/subj{subject:02d}/fsaverage/betas_fithrf_GLMdenoise_RR"
        return self.root / f"subj{subject:02d}/betas"


def region_masks(root: Path) -> dict[tuple[str, str], np.ndarray]:
    masks = {}
    for hemisphere in ("lh", "rh"):
        kastner = np.asarray(nibabel.load(Paths(root).labels / f"{hemisphere}.Kastner2015.mgz").dataobj).ravel()
        streams = np.asarray(nibabel.load(Paths(root).labels / f"{hemisphere}.streams.mgz").dataobj).ravel()
        for region, labels in KASTNER.items():
            masks[region, hemisphere] = np.isin(kastner, labels)
        masks["IT", hemisphere] = streams == VENTRAL_STREAM
    return masks


def shown(root: Path, subject: int, n_trials: int) -> list[int]:
    """The 0-based 73k id shown in each of a subject's first trials."""
    design = scipy.io.loadmat(Paths(root).metadata / "nsd_expdesign.mat")
    order = [int(i) for i in design["masterordering"].ravel()[:n_trials]]
    return [int(design["subjectim"][subject - 1, i - 1]) - 1 for i in order]


def shared_ids(root: Path) -> list[int]:
    return [int(i) - 1 for i in scipy.io.loadmat(Paths(root).metadata / "nsd_expdesign.mat")["sharedix"].ravel()]


def session_files(root: Path, subject: int, hemisphere: str) -> list[Path]:
    return sorted(Paths(root).betas(subject).glob(f"{hemisphere}.betas_session*.mgh"))


def standardised_trials(root: Path, subject: int, hemisphere: str, mask: np.ndarray) -> np.ndarray:
    """All trials of a subject, (n_trials, n_vertices), each session standardised by itself."""
    sessions = []
    for path in session_files(root, subject, hemisphere):
        betas = np.asarray(nibabel.load(path).dataobj)[:, 0, 0, :][mask].T.astype(np.float64)
        deviation = betas.std(axis=0)
        deviation[deviation == 0] = 1
        sessions.append((betas - betas.mean(axis=0)) / deviation)
    return np.concatenate(sessions)


def reference_release(root: Path, subjects, *, standardize_on="all", drop=False):
    """Train averages, test repetitions and neuroid coordinates as the published method gives them."""
    masks = region_masks(root)
    n_trials = {s: sum(nibabel.load(p).shape[3] for p in session_files(root, s, "lh")) for s in subjects}
    seen = {s: shown(root, s, n_trials[s]) for s in subjects}
    complete = [i for i in shared_ids(root) if all(seen[s].count(i) >= 3 for s in subjects)]
    order = np.random.RandomState(42).permutation(len(complete))
    n_train = int(0.8 * len(complete))
    train_rows, test_rows = sorted(order[:n_train]), sorted(order[n_train:])

    train, test, neuroids = [], [], []
    for region in ("V1", "V2", "V4", "IT"):
        for subject in subjects:
            both = [standardised_trials(root, subject, h, masks[region, h]) for h in ("lh", "rh")]
            trials = np.concatenate(both, axis=1)
            places = {i: [t for t, image in enumerate(seen[subject]) if image == i] for i in complete}
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # means of nothing but NaN are meant to be NaN
                repetitions = np.array([trials[places[i]] for i in complete])
                averages = np.nanmean(repetitions, axis=1)
                base = averages[train_rows] if standardize_on == "train" else averages
                mean, deviation = np.nanmean(base, axis=0), np.nanstd(base, axis=0)
            deviation[deviation == 0] = 1
            keep = np.ones(trials.shape[1], bool)
            if drop:
                keep = ~np.isnan(repetitions).any(axis=(0, 1))
            train.append(((averages - mean) / deviation)[train_rows][:, keep])
            test_repetitions = ((repetitions - mean) / deviation)[test_rows][:, :3]
            test.append(test_repetitions.reshape(-1, trials.shape[1])[:, keep])

            number = 0
            for hemisphere in ("lh", "rh"):
                ncsnr = nibabel.load(Paths(root).betas(subject) / f"{hemisphere}.ncsnr.mgh").get_fdata().ravel()
                for vertex in np.flatnonzero(masks[region, hemisphere]):
                    ceiling = 100 * ncsnr[vertex] ** 2 / (ncsnr[vertex] ** 2 + 1 / 3)
                    name = f"subj{subject:02d}"
                    if keep[number]:
                        row = (f"{name}_{hemisphere}_{region}_v{number:05d}", name, hemisphere, vertex, region, ceiling)
                        neuroids.append(row)
                    number += 1
    return {
        "train": np.nan_to_num(np.concatenate(train, axis=1)),
        "test": np.nan_to_num(np.concatenate(test, axis=1)),
        "n_nan": {
            split: int(np.isnan(np.concatenate(v, axis=1)).sum()) for split, v in (("train", train), ("test", test))
        },
        "train_ids": [complete[i] for i in train_rows],
        "test_ids": [complete[i] for i in test_rows],
        "neuroids": neuroids,
    }


def prepare_regions(root: Path, subjects) -> None:
    """Leave the averages of all shared images in the tree, as an earlier packaging would have."""
    masks = region_masks(root)
    shared = shared_ids(root)
    (root / "assemblies").mkdir()
    for region in ("V1", "V2", "V4", "IT"):
        averages, coordinates, counts = [], [], []
        for subject in subjects:
            trials = np.hstack([standardised_trials(root, subject, h, masks[region, h]) for h in ("lh", "rh")])
            seen = shown(root, subject, len(trials))
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
