"""A synthetic NSD tree, with NSD's own file types, names, integer types and id bases, and a known truth inside.

The response of vertex v to the image of trial t in session s, in percent signal change, is ::

    betas[t, v] = offset[s, v] + gain[s] * (ncsnr[v] * signal[image(t), v] + noise[t, v])

where `noise` is independent and standard normal and `signal` has variance 1 over images, so that `ncsnr` is the true
ratio of the two standard deviations, and the one written. The signal of a vertex is a fixed mixture of a few latents of
the image; the pixels of an image are the same latents on two-dimensional cosines, so that a model that looks at the
pixels can in principle explain all of the signal.

A few vertices of each hemisphere are broken as some of NSD's are: NaN always, NaN in every other session, NaN in a single
trial, or constant.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import scipy.io
from nibabel.freesurfer.mghformat import MGHHeader

from ..errors import PackagingError
from ..progress import follow
from ..release import new_folder
from .files import (
    HEMISPHERES,
    LAYOUTS,
    MGH_DATA_OFFSET,
    N_VERTICES_OF_FSAVERAGE,
    SESSIONS_OF_NSD,
    SUBJECTS,
    Design,
    NSDTree,
    read_design,
)
from .regions import REGIONS
from .storage import Folder

logger = logging.getLogger(__name__)

N_LATENTS = 6
N_REPETITIONS = 3
SHARED_FRACTION = 0.75  # NSD: 0.1; here most images, so that a few short sessions give enough complete ones
BLOCK_VALUES = 4 * 2**20
# Vertices of each region in lh and rh of fsaverage. Of IT only the sum, 19,065, is a known size.
N_REGION_VERTICES = {"V1": (2153, 2123), "V2": (1643, 1748), "V4": (410, 504), "IT": (9530, 9535)}
FEWEST_REGION_VERTICES = 6
MEDIAN_NCSNR = {"V1": 1.0, "V2": 0.9, "V4": 0.8, "IT": 0.6}
OTHER_LABELS = {"Kastner2015": (5, 6, 8, 9), "streams": (1, 2, 6, 7)}


@dataclass(frozen=True)
class Recipe:
    """The size of a synthetic tree. `n_sessions` are those of the subjects who finished; others have NSD's share."""

    subjects: Sequence[int] = SUBJECTS
    n_sessions: int = 4
    n_trials: int = 300
    n_vertices: int = 642
    image_size: int = 64
    layout: str = "official"
    seed: int = 0


def simulate_tree(root: Path, recipe: Recipe = Recipe(), *, expdesign_path: Path | None = None) -> None:
    """Write a synthetic NSD tree, whole or not at all, a block of trials at a time.

    Parameters
    ----------
    expdesign_path : path, optional
        An experiment design to follow, such as NSD's own. Sessions are then NSD's own, at most `recipe.n_sessions`; if
        that leaves some out, the design is cut to the sessions that are there.

    Raises
    ------
    PackagingError
        If there is something at `root` already, or the recipe cannot be followed.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise PackagingError(f"{root} exists already and is not empty. Remove it, or choose another folder.")
    rng = np.random.default_rng(recipe.seed)
    design, sessions = _make_design(recipe, rng) if expdesign_path is None else _follow_design(recipe, expdesign_path)
    n_images = int(max(design.subjectim.max(), design.sharedix.max()))
    latents = rng.standard_normal((n_images, N_LATENTS), dtype=np.float32)
    labels = {hemisphere: _make_labels(recipe.n_vertices, i, rng) for i, hemisphere in enumerate(HEMISPHERES)}
    with new_folder(root) as folder:
        tree = NSDTree(Folder(folder), LAYOUTS[recipe.layout])
        _write_design(tree, design, expdesign_path)
        _write_stimulus_info(tree, design, n_images, rng)
        _write_images(tree, design, latents, recipe.image_size)
        for hemisphere, atlases in labels.items():
            for atlas, values in atlases.items():
                _write_vertices(tree, tree.labels_path(atlas, hemisphere), values)
        files = [(s, h, session) for s in recipe.subjects for h in HEMISPHERES for session in range(1, sessions[s] + 1)]
        vertices: dict[tuple[int, str], _Vertices] = {}
        for subject, hemisphere, session in follow(files, n_items=len(files), what="betas files", unit="file"):
            if (subject, hemisphere) not in vertices:
                own = _make_vertices(recipe, labels[hemisphere], subject, hemisphere)
                vertices[subject, hemisphere] = own
                _write_vertices(tree, tree.ncsnr_path(subject, hemisphere), own.written_ncsnr)
            shown = _images_of_session(design, recipe, subject, session)
            seed = [recipe.seed, subject, HEMISPHERES.index(hemisphere), session]
            blocks = _simulate_session(
                vertices[subject, hemisphere], latents[shown], session, np.random.default_rng(seed)
            )
            _write_betas(
                tree, tree.betas_path(subject, hemisphere, session), recipe.n_vertices, recipe.n_trials, blocks
            )
        if root.exists():
            root.rmdir()  # empty, as seen above


def image_latents(image: np.ndarray) -> np.ndarray:
    """Read the latents back from the pixels of a simulated image, of shape (height, width, 3)."""
    patterns = _patterns(image.shape[0])
    pixels = image.astype(np.float64).ravel() - 128
    return np.linalg.lstsq(patterns.reshape(N_LATENTS, -1).T, pixels, rcond=None)[0] / _CONTRAST


def _make_design(recipe: Recipe, rng: np.random.Generator) -> tuple[Design, dict[int, int]]:
    n_trials = recipe.n_sessions * recipe.n_trials
    if n_trials % N_REPETITIONS:
        raise PackagingError(
            f"--sessions times --trials is {n_trials}, expected a multiple of {N_REPETITIONS} repetitions."
        )
    n_own = n_trials // N_REPETITIONS
    n_shared = int(SHARED_FRACTION * n_own)
    ids = rng.permutation(n_shared + len(SUBJECTS) * (n_own - n_shared)) + 1
    shared, others = np.sort(ids[:n_shared]), ids[n_shared:].reshape(len(SUBJECTS), -1)
    subjectim = np.hstack([np.tile(shared, (len(SUBJECTS), 1)), others])
    masterordering = rng.permutation(np.repeat(np.arange(1, n_own + 1), N_REPETITIONS))
    sessions = {
        s: max(1, round(recipe.n_sessions * SESSIONS_OF_NSD[s] / max(SESSIONS_OF_NSD.values()))) for s in SUBJECTS
    }
    return Design(masterordering, subjectim, shared), sessions


def _follow_design(recipe: Recipe, path: Path) -> tuple[Design, dict[int, int]]:
    if not path.is_file():
        raise PackagingError(f"{path} is missing: expected an experiment design, such as NSD's nsd_expdesign.mat.")
    folder = Folder(path.parent)
    design = read_design(_LooseDesign(folder, path.name))  # type: ignore[arg-type]
    sessions = {subject: min(recipe.n_sessions, SESSIONS_OF_NSD[subject]) for subject in SUBJECTS}
    if max(sessions[s] for s in recipe.subjects) * recipe.n_trials > design.n_trials:
        raise PackagingError(f"{path} orders {design.n_trials:,} trials, fewer than --sessions times --trials.")
    if any(sessions[subject] < SESSIONS_OF_NSD[subject] for subject in recipe.subjects) or recipe.n_trials != 750:
        n_trials = max(sessions[s] for s in recipe.subjects) * recipe.n_trials
        design = Design(design.masterordering[:n_trials], design.subjectim, design.sharedix)
    return design, sessions


@dataclass(frozen=True)
class _LooseDesign:
    """A design that lies outside any tree."""

    storage: Folder
    design_path: str


def _make_labels(n_vertices: int, hemisphere: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Scatter the regions over a hemisphere; a third of V4 belongs to IT as well."""
    sizes = {
        name: max(FEWEST_REGION_VERTICES, round(counts[hemisphere] * n_vertices / N_VERTICES_OF_FSAVERAGE))
        for name, counts in N_REGION_VERTICES.items()
    }
    if sum(sizes.values()) > n_vertices:
        raise PackagingError(f"--vertices {n_vertices} is too few: the regions take {sum(sizes.values())}.")
    order = rng.permutation(n_vertices)
    n_overlap = sizes["V4"] // 3
    starts = np.cumsum([0, sizes["V1"], sizes["V2"], sizes["V4"] - n_overlap])
    atlases = {atlas: rng.choice((0, *labels), n_vertices).astype(np.int32) for atlas, labels in OTHER_LABELS.items()}
    for region, start in zip(REGIONS, starts, strict=True):
        own = order[start : start + sizes[region.name]]
        atlases[region.atlas][own] = np.resize(region.labels, len(own))
    return atlases


@dataclass(frozen=True)
class _Vertices:
    """What is true of the vertices of one subject's hemisphere, each an array over vertices (`mixture`: latents first)."""

    ncsnr: np.ndarray
    mixture: np.ndarray
    always_nan: np.ndarray
    often_nan: np.ndarray
    once_nan: np.ndarray
    constant: np.ndarray

    @property
    def written_ncsnr(self) -> np.ndarray:
        ncsnr = self.ncsnr.copy()
        ncsnr[self.constant] = 0
        ncsnr[self.always_nan] = 0
        return ncsnr


def _make_vertices(recipe: Recipe, atlases: dict[str, np.ndarray], subject: int, hemisphere: str) -> _Vertices:
    rng = np.random.default_rng([recipe.seed, subject, HEMISPHERES.index(hemisphere)])
    n = recipe.n_vertices
    median = np.full(n, 0.2)
    members = {r.name: np.flatnonzero(np.isin(atlases[r.atlas], r.labels)) for r in REGIONS}
    for name, own in members.items():
        median[own] = MEDIAN_NCSNR[name]
    ncsnr = (median * rng.lognormal(0, 0.3, n)).astype(np.float32)
    mixture = rng.standard_normal((N_LATENTS, n), dtype=np.float32)
    mixture /= np.linalg.norm(mixture, axis=0)
    n_odd = max(1, n // 20_000)
    odd = rng.choice(np.unique(np.concatenate(list(members.values()))), 4 * n_odd, replace=False).reshape(4, n_odd)
    return _Vertices(ncsnr, mixture, *odd)


def _images_of_session(design: Design, recipe: Recipe, subject: int, session: int) -> np.ndarray:
    """Return the 0-based 73k ids of the images shown in a session."""
    trials = slice((session - 1) * recipe.n_trials, session * recipe.n_trials)
    return design.subjectim[subject - 1, design.masterordering[trials] - 1] - 1


def _simulate_session(
    vertices: _Vertices, latents: np.ndarray, session: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    n_trials, n_vertices = len(latents), len(vertices.ncsnr)
    gain = np.float32(rng.uniform(0.7, 1.3))
    offset = rng.normal(0, 0.5, n_vertices).astype(np.float32)
    trial_with_nan = int(rng.integers(n_trials))
    n_block = max(1, BLOCK_VALUES // n_vertices)
    for start in range(0, n_trials, n_block):
        block = rng.standard_normal((len(latents[start : start + n_block]), n_vertices), dtype=np.float32)
        block += (latents[start : start + n_block] @ vertices.mixture) * vertices.ncsnr
        block *= gain
        block += offset
        block[:, vertices.constant] = offset[vertices.constant]
        block[:, vertices.always_nan] = np.nan
        if session % 2 == 0:
            block[:, vertices.often_nan] = np.nan
        if session == 1 and start <= trial_with_nan < start + len(block):
            block[trial_with_nan - start, vertices.once_nan] = np.nan
        yield block


_CONTRAST = 20.0  # grey levels per standard deviation of a latent


def _patterns(size: int) -> np.ndarray:
    """Return the two-dimensional cosines that latents are drawn with, of shape (n_latents, size, size, 3)."""
    x = np.pi * (np.arange(size) + 0.5) / size
    waves = [np.outer(np.cos(u * x), np.cos(v * x)) for u, v in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 1))]
    tints = np.array([(1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1), (1, 0, -1), (1, 1, 0)])
    return np.stack([wave[:, :, None] * tint for wave, tint in zip(waves, tints, strict=True)])


def _write_images(tree: NSDTree, design: Design, latents: np.ndarray, size: int) -> None:
    """Draw the shared images; the others, which no release holds, stay blank and take no room."""
    patterns = _patterns(size)
    with h5py.File(_new_file(tree, tree.images_path), "w") as file:
        images = file.create_dataset("imgBrick", (len(latents), size, size, 3), "uint8", chunks=(1, size, size, 3))
        for nsd_id in design.sharedix - 1:
            pixels = 128 + _CONTRAST * np.tensordot(latents[nsd_id], patterns, axes=1)
            images[nsd_id] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _write_design(tree: NSDTree, design: Design, expdesign_path: Path | None) -> None:
    path = _new_file(tree, tree.design_path)
    if expdesign_path is not None and design.is_full_size:
        shutil.copyfile(expdesign_path, path)
        return
    variables = {
        "masterordering": design.masterordering.astype(np.uint16).reshape(1, -1),
        "subjectim": design.subjectim.astype(np.int32),
        "sharedix": design.sharedix.astype(np.int32).reshape(1, -1),
    }
    scipy.io.savemat(path, variables)


def _write_stimulus_info(tree: NSDTree, design: Design, n_images: int, rng: np.random.Generator) -> None:
    nsd_ids = np.arange(n_images)
    table = pd.DataFrame(
        {
            "cocoId": np.sort(rng.choice(581_929, n_images, replace=False)) + 1,  # the largest id of COCO 2017
            "cocoSplit": "train2017",
            "nsdId": nsd_ids,
            "flagged": False,
            "shared1000": np.isin(nsd_ids, design.sharedix - 1),
        }
    )
    table.to_csv(_new_file(tree, tree.stimulus_info_path))


def _write_vertices(tree: NSDTree, path: str, values: np.ndarray) -> None:
    image = nibabel.freesurfer.MGHImage(values.reshape(-1, 1, 1), affine=np.eye(4))
    nibabel.save(image, _new_file(tree, path))


def _write_betas(tree: NSDTree, path: str, n_vertices: int, n_trials: int, blocks: Iterator[np.ndarray]) -> None:
    header = MGHHeader()
    header.set_data_dtype(np.float32)
    header.set_data_shape((n_vertices, 1, 1, n_trials))
    with _new_file(tree, path).open("wb") as file:
        header.writehdr_to(file)
        file.seek(MGH_DATA_OFFSET)
        for block in blocks:  # trials follow each other: (n_vertices, 1, 1, n_trials) in Fortran order
            file.write(block.astype(">f4").tobytes())
        header.writeftr_to(file)


def _new_file(tree: NSDTree, path: str) -> Path:
    place = Path(tree.storage.locate(path))
    place.parent.mkdir(parents=True, exist_ok=True)
    return place
