"""The Natural Scenes Dataset: its facts, the places of its files, and the only code that reads them.

References
----------
Allen et al. (2022), Nature Neuroscience 25, 116-126, doi:10.1038/s41593-021-00962-x, and the NSD Data Manual.
"""

from __future__ import annotations

import gzip
import io
import re
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import scipy.io
from nibabel.freesurfer.mghformat import MGHHeader

from ..errors import PackagingError
from .storage import BucketFile, FolderFile, Storage, open_storage

SUBJECTS = (1, 2, 3, 4, 5, 6, 7, 8)
HEMISPHERES = ("lh", "rh")
N_TRIALS_OF_NSD = 30_000  # masterordering of the experiment as planned: 40 sessions of 750 trials
N_IMAGES_OF_NSD = 73_000  # nsd_stimuli.hdf5
SESSIONS_OF_NSD = dict(zip(SUBJECTS, (40, 40, 32, 30, 40, 32, 40, 30), strict=True))  # sessions acquired, Table 1
N_VERTICES_OF_FSAVERAGE = 163_842
TERMS = "https://cvnlab.slite.page/p/IB6BSeW_7o/Terms-and-Conditions"

MGH_DATA_OFFSET = 284
MGH_FLOAT = 3


@dataclass(frozen=True)
class Layout:
    """The places of NSD's files below a root; ``{s}`` stands for the subject's name."""

    name: str
    betas: str
    labels: str
    experiment: str
    images: tuple[str, ...]


OFFICIAL = Layout(
    name="official",
    betas="nsddata_betas/ppdata/{s}/fsaverage/betas_fithrf_GLMdenoise_RR",
    labels="nsddata/freesurfer/fsaverage/label",
    experiment="nsddata/experiments/nsd",
    images=("nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",),
)
FLAT = Layout(
    name="flat",
    betas="{s}/betas",
    labels="fsaverage_labels",
    experiment="metadata",
    images=("nsd_stimuli.hdf5", "stimuli/nsd_stimuli.hdf5"),
)
LAYOUTS = {layout.name: layout for layout in (OFFICIAL, FLAT)}
DESIGN = "nsd_expdesign.mat"


def subject_name(subject: int) -> str:
    """Return NSD's name of a subject, such as ``subj01``."""
    return f"subj{subject:02d}"


@dataclass(frozen=True)
class Design:
    """The experiment design, in NSD's own 1-based numbers.

    Attributes
    ----------
    masterordering : array of shape (n_trials,)
        For each trial the index of its image within the subject's images.
    subjectim : array of shape (n_subjects, n_images_per_subject)
        The 73k ids of each subject's images.
    sharedix : array of shape (n_shared_images,)
        The 73k ids of the images that all subjects saw, ascending.
    """

    masterordering: np.ndarray
    subjectim: np.ndarray
    sharedix: np.ndarray

    @property
    def n_trials(self) -> int:
        """Trials of a subject who finished every planned session."""
        return len(self.masterordering)

    @property
    def is_full_size(self) -> bool:
        """Whether this is NSD's own experiment and not a reduced one."""
        return self.n_trials == N_TRIALS_OF_NSD


@dataclass(frozen=True)
class NSDTree:
    """An NSD tree: a storage, and the layout found in it. Every path of a raw file is made here."""

    storage: Storage
    layout: Layout

    def __str__(self) -> str:
        return str(self.storage)

    @property
    def design_path(self) -> str:
        """The experiment design."""
        return f"{self.layout.experiment}/{DESIGN}"

    @property
    def stimulus_info_path(self) -> str:
        """The table of images with their COCO ids."""
        return f"{self.layout.experiment}/nsd_stim_info_merged.csv"

    @property
    def images_path(self) -> str:
        """The images; the first place where they may lie if they lie in none."""
        found = [path for path in self.layout.images if self.storage.exists(path)]
        return (found or list(self.layout.images))[0]

    def betas_folder(self, subject: int) -> str:
        """Return the folder of a subject's betas."""
        return self.layout.betas.format(s=subject_name(subject))

    def betas_path(self, subject: int, hemisphere: str, session: int) -> str:
        """Return the path of the single-trial responses of one session (1-based) and hemisphere."""
        return f"{self.betas_folder(subject)}/{hemisphere}.betas_session{session:02d}.mgh"

    def ncsnr_path(self, subject: int, hemisphere: str) -> str:
        """Return the path of the noise-ceiling signal-to-noise ratio."""
        return f"{self.betas_folder(subject)}/{hemisphere}.ncsnr.mgh"

    def labels_path(self, atlas: str, hemisphere: str) -> str:
        """Return the path of an atlas on fsaverage."""
        return f"{self.layout.labels}/{hemisphere}.{atlas}.mgz"

    def official_path(self, path: str) -> str:
        """Return the place of `path` in NSD's public bucket, so that a record of it is the same for every layout."""
        subject = path.split("/")[0]
        own_to_official = {
            self.layout.betas.format(s=subject): OFFICIAL.betas.format(s=subject),
            self.layout.labels: OFFICIAL.labels,
            self.layout.experiment: OFFICIAL.experiment,
        }
        if path in self.layout.images:
            return OFFICIAL.images[0]
        folder, _, name = path.rpartition("/")
        return f"{own_to_official.get(folder, folder)}/{name}"

    def sessions_found(self, subject: int) -> list[int]:
        """Return the sessions (1-based) of which at least one hemisphere is there."""
        names = self.storage.names(self.betas_folder(subject))
        matches = (re.fullmatch(r"[lr]h\.betas_session(\d{2})\.mgh", name) for name in names)
        return sorted({int(match[1]) for match in matches if match})


def open_tree(root: str | Path) -> NSDTree:
    """Find out which layout an NSD tree has, by looking for its experiment design.

    Raises
    ------
    PackagingError
        If there is no design in either place.
    """
    storage = open_storage(root)
    for layout in LAYOUTS.values():
        tree = NSDTree(storage, layout)
        if storage.exists(tree.design_path):
            return tree
    places = " or ".join(f"{layout.experiment}/{DESIGN} ({layout.name} layout)" for layout in LAYOUTS.values())
    raise PackagingError(f"{root} holds no NSD design. Expected {places}. Is this the root of the NSD tree?")


def read_design(tree: NSDTree) -> Design:
    """Read and check the experiment design.

    Raises
    ------
    PackagingError
        If the file is no MATLAB file, a variable is missing or an id runs out of range.
    """
    place = tree.storage.locate(tree.design_path)
    content = _read_whole(tree, tree.design_path)
    try:
        variables = scipy.io.loadmat(io.BytesIO(content))
    except Exception as error:  # scipy, zlib and numpy each have their own ways to say that the bytes are wrong
        raise PackagingError(f"{place} is not a MATLAB 5 file ({_one_line(error)}). Download it again.") from error
    missing = [name for name in ("masterordering", "subjectim", "sharedix") if name not in variables]
    if missing:
        raise PackagingError(f"{place} lacks the variable {', '.join(missing)}. Is it NSD's {DESIGN}?")
    design = Design(
        masterordering=variables["masterordering"].ravel().astype(np.int64),
        subjectim=np.atleast_2d(variables["subjectim"]).astype(np.int64),
        sharedix=variables["sharedix"].ravel().astype(np.int64),
    )
    for name, ids, highest in (
        ("masterordering", design.masterordering, design.subjectim.shape[1]),
        ("subjectim", design.subjectim, N_IMAGES_OF_NSD),
        ("sharedix", design.sharedix, N_IMAGES_OF_NSD),
    ):
        if ids.size == 0 or ids.min() < 1 or ids.max() > highest:
            found = f"{ids.min()} to {ids.max()}" if ids.size else "nothing"
            raise PackagingError(f"{place}: {name} holds {found}, expected ids from 1 to {highest}.")
    if np.any(np.diff(design.sharedix) <= 0):
        raise PackagingError(f"{place}: sharedix is not ascending without repeats, as NSD's is.")
    return design


def expected_sessions(tree: NSDTree, design: Design, subject: int) -> list[int]:
    """Return the sessions (1-based) that a subject must have: NSD's own number, or in a reduced tree those up to the last found."""
    n_sessions = SESSIONS_OF_NSD[subject] if design.is_full_size else max(tree.sessions_found(subject), default=0)
    return list(range(1, n_sessions + 1))


def read_vertices(tree: NSDTree, path: str) -> np.ndarray:
    """Read an MGH or MGZ file of one value per vertex (labels, ncsnr).

    Returns
    -------
    array of shape (n_vertices,)
        In the file's own type, native byte order.

    Raises
    ------
    PackagingError
        If the file is missing, damaged or not MGH.
    """
    content = _read_whole(tree, path)
    place = tree.storage.locate(path)
    try:
        content = gzip.decompress(content) if path.endswith(".mgz") else content
        values = np.asarray(nibabel.freesurfer.MGHImage.from_bytes(content).dataobj).ravel()
    except Exception as error:  # nibabel, zlib and numpy each have their own ways to say that the bytes are wrong
        raise PackagingError(f"{place} cannot be read as MGH ({_one_line(error)}). Download it again.") from error
    return values.astype(values.dtype.newbyteorder("="))


def read_betas_shape(tree: NSDTree, path: str) -> tuple[int, int]:
    """Read the header of a betas file.

    Returns
    -------
    n_vertices, n_trials

    Raises
    ------
    PackagingError
        If the file is missing, not MGH float32 of shape (n_vertices, 1, 1, n_trials), or shorter than that.
    """
    place = tree.storage.locate(path)
    with _open(tree, path) as file:
        binaryblock = file.read(MGH_DATA_OFFSET)
    try:
        header = MGHHeader(binaryblock[: MGHHeader.template_dtype.itemsize], check=False)
        version, kind, dims = int(header["version"]), int(header["type"]), [int(n) for n in header["dims"]]
    except Exception as error:
        raise PackagingError(f"{place} is not an MGH file: its header is cut short. Download it again.") from error
    if version != 1:
        raise PackagingError(f"{place} is not an MGH file: its version is {version}, expected 1. Download it again.")
    if kind != MGH_FLOAT or dims[1:3] != [1, 1] or min(dims) < 1:
        raise PackagingError(
            f"{place} holds type {kind} of shape {tuple(dims)}, expected float32 (type {MGH_FLOAT}) of shape "
            "(n_vertices, 1, 1, n_trials). Was it downloaded from fsaverage/betas_fithrf_GLMdenoise_RR?"
        )
    n_vertices, n_trials = dims[0], dims[3]
    expected, found = MGH_DATA_OFFSET + 4 * n_vertices * n_trials, tree.storage.size(path)
    if found < expected:
        raise PackagingError(
            f"{place} is cut short: {found:,} bytes, expected at least {expected:,}. Download it again."
        )
    return n_vertices, n_trials


def read_betas(tree: NSDTree, path: str, *, n_vertices: int, n_trials: int) -> Iterator[np.ndarray]:
    """Read the single-trial responses of one file once, in order, a block of trials at a time.

    From a bucket the next blocks are fetched while the caller works on the last. A block is only valid until the next is
    asked for.

    Yields
    ------
    array of shape (n_trials_in_block, n_vertices)
        Big-endian float32, percent signal change, as on disk.

    Raises
    ------
    PackagingError
        If the file ends early.
    """
    with _open(tree, path) as file, ThreadPoolExecutor(max(1, file.n_readers)) as readers:
        n_block = max(1, min(n_trials, file.block_bytes // (4 * n_vertices)))
        n_blocks = -(-n_trials // n_block)
        buffers = [np.empty((n_block, n_vertices), dtype=">f4") for _ in range(file.n_readers + 1)]

        def read(i: int) -> np.ndarray:
            block = buffers[i % len(buffers)][: min(n_block, n_trials - i * n_block)]
            start = MGH_DATA_OFFSET + i * n_block * 4 * n_vertices
            n_read = file.read_at(start, block.data.cast("B"))
            if n_read < block.nbytes:
                place = tree.storage.locate(path)
                raise PackagingError(f"{place} ended {block.nbytes - n_read:,} bytes early. Download it again.")
            return block

        ahead = deque(readers.submit(read, i) for i in range(min(file.n_readers, n_blocks)))
        for i in range(n_blocks):
            block = ahead.popleft().result() if ahead else read(i)
            if 0 < file.n_readers < n_blocks - i:
                ahead.append(readers.submit(read, i + file.n_readers))  # into the buffer of the block before this
            yield block


def count_images(tree: NSDTree, nsd_ids: Sequence[int]) -> int:
    """Return how many images `imgBrick` holds, after checking that all of `nsd_ids` (0-based) are among them.

    Raises
    ------
    PackagingError
        As `read_images`.
    """
    with _open(tree, tree.images_path) as file:
        return len(_open_images(tree, file, nsd_ids))


def read_images(tree: NSDTree, nsd_ids: Sequence[int]) -> Iterator[np.ndarray]:
    """Read some of the 73k images, by their 0-based ids.

    Yields
    ------
    array of shape (height, width, 3)
        uint8, red, green, blue.

    Raises
    ------
    PackagingError
        If the file is missing or not HDF5, or an id lies outside `imgBrick`.
    """
    with _open(tree, tree.images_path) as file:
        images = _open_images(tree, file, nsd_ids)
        for nsd_id in nsd_ids:
            yield images[nsd_id]


def _open_images(tree: NSDTree, file: FolderFile | BucketFile, nsd_ids: Sequence[int]) -> h5py.Dataset:
    place = tree.storage.locate(tree.images_path)
    try:
        images = h5py.File(file, "r")["imgBrick"]
    except (OSError, KeyError) as error:
        raise PackagingError(f"{place} holds no HDF5 dataset imgBrick. Download it again.") from error
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise PackagingError(
            f"{place}: imgBrick is {images.dtype} of shape {images.shape}, expected uint8 (n_images, height, width, 3)."
        )
    outside = [nsd_id for nsd_id in nsd_ids if not 0 <= nsd_id < len(images)]
    if outside:
        raise PackagingError(
            f"{place}: imgBrick holds {len(images):,} images, but the design asks for image {outside[0]} (0-based)"
            f"{f' and {len(outside) - 1} more' if len(outside) > 1 else ''}. Do design and images belong together?"
        )
    return images


def read_coco_ids(tree: NSDTree, nsd_ids: Sequence[int]) -> list[int] | None:
    """Read the COCO ids of images, by their 0-based 73k ids; None unless all are known.

    Raises
    ------
    PackagingError
        If the table is there but lacks its columns.
    """
    path = tree.stimulus_info_path
    if not tree.storage.exists(path):
        return None
    table = pd.read_csv(io.BytesIO(_read_whole(tree, path)))
    missing = {"nsdId", "cocoId"} - set(table.columns)
    if missing:
        raise PackagingError(f"{tree.storage.locate(path)} lacks the column {', '.join(sorted(missing))}.")
    coco_ids = table.set_index("nsdId")["cocoId"].reindex(list(nsd_ids))
    return None if coco_ids.isna().any() else [int(coco_id) for coco_id in coco_ids]


def _open(tree: NSDTree, path: str) -> FolderFile | BucketFile:
    if not tree.storage.exists(path):
        raise PackagingError(f"{tree.storage.locate(path)} is missing. Download it ({tree.official_path(path)}).")
    return tree.storage.open(path)


def _read_whole(tree: NSDTree, path: str) -> bytes:
    with _open(tree, path) as file:
        return file.read()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
