"""A synthetic NSD tree, with NSD's own file types, names, integer types and id bases, and a known truth inside.

The response of vertex v to the image of trial t in session s, in percent signal change, is ::

    betas[t, v] = offset[s, v] + gain[s] * (ncsnr[v] * signal[image(t), v] + noise[t, v])

where `noise` is independent and standard normal and `signal` has variance 1 over images, so that `ncsnr` is the true
ratio of the two standard deviations. It is also the one that is written. It is highest in V1, and falls smoothly with the
distance from there. The signal of a vertex is a fixed mixture of a few latents of the image; the pixels of an image are
the same latents on two-dimensional cosines, so that a model that looks at the pixels can in principle explain all of the
signal.

The vertices v are those of the subject's own surface, which has more of them than fsaverage, in another order. As in NSD, each
vertex of fsaverage copies the nearest of them, so that a few per cent of the vertices of fsaverage are copies of another one.

Another version of the betas has the same signal and more noise. A few vertices of each hemisphere are broken as some of
NSD's are: NaN always, NaN in every other session, NaN in a single trial, or constant.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py
import nibabel
import numpy as np
import pandas as pd
import scipy.io
from nibabel.freesurfer.mghformat import MGHHeader, MGHImage
from scipy.spatial import KDTree

from ..arrays import AnyArray, DoubleArray, FloatArray, IntArray, PixelArray
from ..errors import DISK_ADVICE, PackagingError, explaining
from ..facts import (
    BETAS_VERSIONS,
    DEFAULT_BETAS,
    HEMISPHERES,
    N_NATIVE_VERTICES,
    N_REPETITIONS,
    N_SESSIONS,
    N_VERTICES_OF_FSAVERAGE,
    NATIVE,
    SUBJECTS,
)
from ..files import naming, new_folder
from ..progress import follow
from ..recipe import PUBLISHED_REGIONS
from .atlases import CALCARINE, colour_table, distances_to_path, make_labels, make_native_labels, vertex_directions
from .files import MGH_DATA_OFFSET, Design, read_design
from .native import UNITS_PER_PERCENT
from .size import TreeSize
from .storage import Folder, RawFile
from .tree import LAYOUTS, NSDTree

N_LATENTS = 6
SHARED_FRACTION = 0.75  # NSD: 0.1; here most images, so that a few short sessions give enough complete ones
BLOCK_VALUES = 4 * 2**20
LOWEST_NCSNR, HIGHEST_NCSNR = 0.1, 1.0  # far from visual cortex, and in V1
REACH_OF_SIGNAL = 0.95  # radii of the sphere, from V1
NATIVE_JITTER = 0.3  # of native vertices, in distances to the next one: 3 to 8 % of fsaverage are copies
N_WAVES, WAVE_NUMBER = 12, 5.0  # of the variation over the cortex, which differs between subjects
LARGEST_COCO_ID = 581_929  # of COCO 2017
SIMULATION_MARK = (
    "This tree was written by `allen2022-surface simulate`. Its responses and images are simulated; they are no "
    "measurements of the Natural Scenes Dataset.\n"
)
CONTRAST = 20.0  # grey levels per standard deviation of a latent
RELATIVE_NOISE = dict(zip(BETAS_VERSIONS, (1.0, 1.5, 2.0), strict=True))  # standard deviation, by version of the betas
MOST_DRAWN_IMAGES = 12_000  # of a tree with more images that its subjects saw, only the shared ones are drawn


def simulate_tree(root: Path, size: TreeSize, *, expdesign_path: Path | None = None) -> None:
    """Write a synthetic NSD tree, whole or not at all, a block of trials at a time.

    A text file at its root says that the tree is simulated. A release that is built from it says so too.

    Parameters
    ----------
    expdesign_path : path, optional
        An experiment design to follow, such as NSD's. Subjects then have as many sessions as in NSD, at most
        `size.n_sessions`, and the design is cut to the longest of them.

    Raises
    ------
    PackagingError
        If `root` exists already and is not empty, or the size is impossible.
    """
    if root.exists() and (not root.is_dir() or any(root.glob("[!.]*"))):
        raise PackagingError(f"{root} exists already and is not empty. Remove it, or choose another folder.")
    rng = np.random.default_rng(size.seed)
    design, n_sessions = _make_design(size, rng) if expdesign_path is None else _follow_design(size, expdesign_path)
    n_images = int(max(design.subjectim.max(), design.sharedix.max()))
    latents = rng.standard_normal((n_images, N_LATENTS), dtype=np.float32)
    labels = {hemisphere: make_labels(size.n_vertices, hemisphere) for hemisphere in HEMISPHERES}
    with new_folder(root) as folder:
        tree = NSDTree(Folder(folder), LAYOUTS[size.layout])
        with _target(tree.simulation_mark) as path:
            path.write_text(SIMULATION_MARK, encoding="utf-8")
        _write_design(tree.design, design)
        _write_stimulus_info(tree.stimulus_info, design, n_images, rng)
        _write_images(tree, size, design, latents)
        for hemisphere, atlases in labels.items():
            _write_labels(tree, atlases, hemisphere)
        _write_responses(tree, size, design, n_sessions, labels, latents)


def image_latents(image: PixelArray) -> DoubleArray:
    """Compute the latents of a simulated image from its pixels.

    Parameters
    ----------
    image : array of shape (height, width, 3)

    Returns
    -------
    array of shape (n_latents,)
        Unitless; normally distributed over images.
    """
    patterns = _patterns(image.shape[0])
    pixels = image.astype(np.float64).ravel() - 128
    latents: DoubleArray = np.linalg.lstsq(patterns.reshape(N_LATENTS, -1).T, pixels, rcond=None)[0] / CONTRAST
    return latents


def _make_design(size: TreeSize, rng: np.random.Generator) -> tuple[Design, dict[int, int]]:
    n_trials = size.n_sessions * size.n_trials
    if n_trials % N_REPETITIONS:
        raise PackagingError(f"--sessions times --trials is {n_trials}, expected a multiple of {N_REPETITIONS}.")
    n_images_per_subject = n_trials // N_REPETITIONS
    n_shared = int(SHARED_FRACTION * n_images_per_subject)
    ids = rng.permutation(n_shared + len(SUBJECTS) * (n_images_per_subject - n_shared)) + 1
    shared, unshared = np.sort(ids[:n_shared]), ids[n_shared:].reshape(len(SUBJECTS), -1)
    subjectim = np.hstack([np.tile(shared, (len(SUBJECTS), 1)), unshared])
    masterordering = rng.permutation(np.repeat(np.arange(1, n_images_per_subject + 1), N_REPETITIONS))
    most = max(N_SESSIONS.values())
    n_sessions = {s: max(1, round(size.n_sessions * N_SESSIONS[s] / most)) for s in SUBJECTS}
    return Design(masterordering, subjectim, shared), n_sessions


def _follow_design(size: TreeSize, path: Path) -> tuple[Design, dict[int, int]]:
    if not path.is_file():
        raise PackagingError(f"{path} is missing: expected an experiment design, such as NSD's nsd_expdesign.mat.")
    design = read_design(RawFile(Folder(path.parent), path.name, path.name))
    n_sessions = {subject: min(size.n_sessions, N_SESSIONS[subject]) for subject in SUBJECTS}
    n_trials = max(n_sessions[s] for s in size.subjects) * size.n_trials
    if n_trials > design.n_trials:
        raise PackagingError(f"{path} orders {design.n_trials:,} trials, fewer than --sessions times --trials.")
    return Design(design.masterordering[:n_trials], design.subjectim, design.sharedix), n_sessions


class _Vertices(NamedTuple):
    """The truth about the vertices of one hemisphere of one subject, on the subject's own surface.

    Vertex i of fsaverage copies the vertex `native_index[i]`, 0-based. The mixture, of shape (n_latents, n_vertices), makes
    the signal of a vertex from the latents of an image. The broken vertices are NaN always, often or once, or constant: a row
    each.
    """

    directions: DoubleArray
    native_index: IntArray
    ncsnr: FloatArray
    mixture: FloatArray
    broken: IntArray


def _make_vertices(size: TreeSize, atlases: dict[str, AnyArray], subject: int, hemisphere: str) -> _Vertices:
    """Draw signal-to-noise ratios that vary smoothly over the cortex, and a little between neighbours, and what is broken."""
    rng = np.random.default_rng([size.seed, subject, HEMISPHERES.index(hemisphere)])
    directions, native_index = _draw_surface(size.n_vertices, subject, hemisphere, rng)
    n_native = len(directions)
    from_v1 = distances_to_path(directions, CALCARINE) / REACH_OF_SIGNAL
    typical = LOWEST_NCSNR + (HIGHEST_NCSNR - LOWEST_NCSNR) * np.exp(-(from_v1**2))
    waves, phases = rng.normal(0, WAVE_NUMBER, (3, N_WAVES)), rng.uniform(0, 2 * np.pi, N_WAVES)
    smooth = np.cos(directions @ waves + phases).sum(axis=1) / np.sqrt(N_WAVES / 2)
    ncsnr = (typical * np.exp(0.2 * smooth + rng.normal(0, 0.1, n_native))).astype(np.float32)
    mixture = rng.standard_normal((N_LATENTS, n_native), dtype=np.float32)
    mixture /= np.linalg.norm(mixture, axis=0)
    is_of_region = np.any([np.isin(atlases[region.atlas], region.labels) for region in PUBLISHED_REGIONS], axis=0)
    n_broken = max(1, size.n_vertices // 20_000)  # of each of four kinds
    copied_once = native_index[is_of_region & (np.bincount(native_index)[native_index] == 1)]
    broken = rng.choice(copied_once, 4 * n_broken, replace=False).reshape(4, n_broken)
    return _Vertices(directions, native_index, ncsnr, mixture, broken)


def _draw_surface(
    n_vertices: int, subject: int, hemisphere: str, rng: np.random.Generator
) -> tuple[DoubleArray, IntArray]:
    """Draw where the vertices of a subject's own surface are, next to those of fsaverage; return the nearest one to each, too."""
    n_native = round(n_vertices * N_NATIVE_VERTICES[subject][HEMISPHERES.index(hemisphere)] / N_VERTICES_OF_FSAVERAGE)
    on_fsaverage = vertex_directions(n_vertices, hemisphere)
    distances = KDTree(on_fsaverage).query(on_fsaverage, k=2)[0][:, 1]
    near = np.append(np.arange(n_vertices), rng.choice(n_vertices, n_native - n_vertices))
    directions = on_fsaverage[near] + NATIVE_JITTER * distances[near, None] * rng.standard_normal((n_native, 3))
    # FreeSurfer numbers the vertices in slices from the back to the front, and in each slice in rows.
    slices, rows = np.floor(directions[:, 1:].T * np.sqrt(n_native) / 4)
    directions = directions[np.lexsort((directions[:, 0], -rows, slices))]
    return directions, KDTree(directions).query(on_fsaverage)[1]


def _write_responses(
    tree: NSDTree,
    size: TreeSize,
    design: Design,
    n_sessions: dict[int, int],
    labels: dict[str, dict[str, AnyArray]],
    latents: FloatArray,
) -> None:
    """Write the betas and ncsnr files of every subject and hemisphere."""
    files = [
        (subject, hemisphere, version, session)
        for subject in size.subjects
        for hemisphere in HEMISPHERES
        for version in size.betas
        for session in range(1, n_sessions[subject] + 1)
    ]
    for subject, hemisphere, version, session in follow(files, n_items=len(files), title="betas files", unit="file"):
        side, noise = HEMISPHERES.index(hemisphere), RELATIVE_NOISE[version]
        if (version, session) == (size.betas[0], 1):  # the first file of a hemisphere
            vertices = _make_vertices(size, labels[hemisphere], subject, hemisphere)
            _write_vertices(tree.native_index(subject, hemisphere), vertices.native_index.astype(np.int32) + 1)
            rng = np.random.default_rng([size.seed, subject, side, 0])  # sessions are numbered from 1
            atlases = make_native_labels(vertices.directions, subject, hemisphere, rng)
            _write_labels(tree, atlases, hemisphere, subject)
        if session == 1:
            written = vertices.ncsnr / np.float32(noise)
            written[vertices.broken[[0, 3]]] = 0  # no signal
            _write_vertices(tree.ncsnr(subject, hemisphere, version), written[vertices.native_index])
        trials = slice((session - 1) * size.n_trials, session * size.n_trials)
        images = design.subjectim[subject - 1, design.masterordering[trials] - 1] - 1
        other = [] if version == DEFAULT_BETAS else [BETAS_VERSIONS.index(version)]
        rng = np.random.default_rng([size.seed, subject, side, session, *other])
        blocks: Iterable[FloatArray] = _simulate_session(vertices, latents[images], session, noise, rng)
        if size.has_native_betas:
            blocks = list(blocks)
            _write_native_betas(tree.betas(subject, hemisphere, session, version, NATIVE), blocks)
        on_fsaverage = (block[:, vertices.native_index] for block in blocks)
        _write_betas(tree.betas(subject, hemisphere, session, version), size, on_fsaverage)


def _simulate_session(
    vertices: _Vertices, latents: FloatArray, session: int, relative_noise: float, rng: np.random.Generator
) -> Iterator[FloatArray]:
    """Yield the responses of all native vertices, some trials at a time; the module says how they are made."""
    n_trials, n_vertices = len(latents), len(vertices.ncsnr)
    always_nan, often_nan, once_nan, constant = vertices.broken
    gain = np.float32(rng.uniform(0.7, 1.3))
    offset = rng.normal(0, 0.5, n_vertices).astype(np.float32)
    trial_with_nan = int(rng.integers(n_trials))
    n_block = max(1, BLOCK_VALUES // n_vertices)
    for start in range(0, n_trials, n_block):
        block = rng.standard_normal((len(latents[start : start + n_block]), n_vertices), dtype=np.float32)
        block *= np.float32(relative_noise)
        block += (latents[start : start + n_block] @ vertices.mixture) * vertices.ncsnr
        block *= gain
        block += offset
        block[:, constant] = offset[constant]
        block[:, always_nan] = np.nan
        if session % 2 == 0:
            block[:, often_nan] = np.nan
        if session == 1 and start <= trial_with_nan < start + len(block):
            block[trial_with_nan - start, once_nan] = np.nan
        yield block


def _patterns(size: int) -> DoubleArray:
    """Return the two-dimensional cosines that latents are drawn with, of shape (n_latents, size, size, 3)."""
    x = np.pi * (np.arange(size) + 0.5) / size
    waves = [np.outer(np.cos(u * x), np.cos(v * x)) for u, v in ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (2, 1))]
    tints = np.array([(1, 1, 1), (1, 1, -1), (1, -1, 1), (-1, 1, 1), (1, 0, -1), (1, 1, 0)])
    return np.stack([wave[:, :, None] * tint for wave, tint in zip(waves, tints, strict=True)])


def _write_images(tree: NSDTree, size: TreeSize, design: Design, latents: FloatArray) -> None:
    """Draw the images that the subjects saw, or only the shared ones if those are too many.

    The others are grey and take no space.
    """
    patterns = _patterns(size.image_size)
    seen = np.unique(design.subjectim[np.array(size.subjects) - 1]) - 1
    drawn = np.union1d(seen if len(seen) <= MOST_DRAWN_IMAGES else [], design.shared_images).astype(int)
    shape = patterns.shape[1:]
    with (
        _target(tree.images) as path,
        explaining(path, "could not be written", DISK_ADVICE),
        h5py.File(path, "w") as file,
    ):
        images = file.create_dataset("imgBrick", (len(latents), *shape), "uint8", chunks=(1, *shape), fillvalue=128)
        for nsd_id in drawn:
            pixels = 128 + CONTRAST * np.tensordot(latents[nsd_id], patterns, axes=1)
            images[nsd_id] = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def _write_design(file: RawFile, design: Design) -> None:
    variables = {
        "masterordering": design.masterordering.astype(np.uint16).reshape(1, -1),
        "subjectim": design.subjectim.astype(np.int32),
        "sharedix": design.sharedix.astype(np.int32).reshape(1, -1),
    }
    with _target(file) as path:
        scipy.io.savemat(path, variables, do_compression=True)  # as MATLAB does


def _write_stimulus_info(file: RawFile, design: Design, n_images: int, rng: np.random.Generator) -> None:
    nsd_ids = np.arange(n_images)
    margins = rng.uniform(0, 0.4, n_images)  # most COCO images are wider than high: NSD cuts off left and right
    table = pd.DataFrame(
        {
            "cocoId": np.sort(rng.choice(LARGEST_COCO_ID, n_images, replace=False)) + 1,
            "cocoSplit": rng.choice(["train2017", "val2017"], n_images, p=[0.95, 0.05]),
            "cropBox": [f"(0, 0, {left!r}, {left!r})" for left in (margins / 2).round(6).tolist()],
            "nsdId": nsd_ids,
            "flagged": False,
            "shared1000": np.isin(nsd_ids, design.shared_images),
        }
    )
    with _target(file) as path:
        table.to_csv(path)


def _write_vertices(file: RawFile, values: AnyArray) -> None:
    with _target(file) as path:
        nibabel.save(MGHImage(values.reshape(-1, 1, 1), affine=np.eye(4)), path)


def _write_labels(tree: NSDTree, atlases: dict[str, AnyArray], hemisphere: str, subject: int = 0) -> None:
    """Write the labels of atlases on fsaverage, or on a subject's own surface, and their names."""
    for atlas, values in atlases.items():
        _write_vertices(tree.labels(atlas, hemisphere, subject), values)
        with _target(tree.label_names(atlas, subject)) as path:
            shutil.copyfile(colour_table(atlas), path)


def _write_betas(file: RawFile, size: TreeSize, blocks: Iterable[FloatArray]) -> None:
    header = MGHHeader()
    header.set_data_dtype(np.float32)
    header.set_data_shape((size.n_vertices, 1, 1, size.n_trials))
    with _target(file) as path, path.open("wb") as target:
        header.writehdr_to(target)
        target.seek(MGH_DATA_OFFSET)
        for block in blocks:  # trials follow each other: (n_vertices, 1, 1, n_trials) in Fortran order
            target.write(block.astype(">f4").tobytes())
        header.writeftr_to(target)


def _write_native_betas(file: RawFile, blocks: Iterable[FloatArray]) -> None:
    """Write betas as NSD writes those on a subject's own surface. There, a vertex without data is 0."""
    betas = np.concatenate(list(blocks))
    largest = np.iinfo(np.int16).max
    integers = np.clip(np.rint(UNITS_PER_PERCENT * np.nan_to_num(betas)), -largest, largest).astype(np.int16)
    integers[:, np.isnan(betas).any(axis=0)] = 0
    with _target(file) as path, explaining(path, "could not be written", DISK_ADVICE), h5py.File(path, "w") as opened:
        opened.create_dataset("betas", data=integers, chunks=(len(betas), 1))


@contextmanager
def _target(file: RawFile) -> Iterator[Path]:
    """Yield the path of a file to write, in a folder that exists. An `OSError` of the block names the file."""
    path = Path(str(file))
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path):
        yield path
