"""The contents of NSD's raw files. Only this module parses them."""

from __future__ import annotations

import gzip
import io
import re
from collections import deque
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.io
from nibabel.freesurfer.mghformat import MGHHeader, MGHImage

from ..arrays import AnyArray, FloatArray, IntArray, PixelArray
from ..errors import PackagingError, reading
from ..facts import N_IMAGES, N_TRIALS
from .storage import RawFile

MGH_DATA_OFFSET = 284
MGH_FLOAT = 3  # the code of float32 in an MGH header
LARGEST_LABEL = 2**31 - 1  # of an int32, the largest whole numbers that an MGH file holds


@dataclass(frozen=True)
class Design:
    """The experiment design, in NSD's own 1-based numbers.

    Attributes
    ----------
    masterordering : array of shape (n_trials,)
        For each trial the index of its image among the subject's images.
    subjectim : array of shape (n_subjects, n_images_per_subject)
        The 73k ids of each subject's images.
    sharedix : array of shape (n_shared_images,)
        The 73k ids of the images that all subjects saw, ascending.
    source : the file, for messages
    """

    masterordering: IntArray
    subjectim: IntArray
    sharedix: IntArray
    source: str = "the design"

    @property
    def n_trials(self) -> int:
        """The number of trials of a subject who finished every planned session."""
        return len(self.masterordering)

    @property
    def is_full_size(self) -> bool:
        """Whether this is the experiment of NSD and not a reduced one."""
        return self.n_trials == N_TRIALS

    @property
    def shared_images(self) -> IntArray:
        """The `nsd_id` (0-based) of the shared images, ascending."""
        return self.sharedix - 1


def read_design(file: RawFile) -> Design:
    """Read and check the experiment design.

    Raises
    ------
    PackagingError
        If the file is missing or not a MATLAB file, a variable is missing or no matrix of whole numbers, or an id is out
        of range.
    """
    content = file.read()
    with reading(file, "NSD's experiment design"):
        variables = scipy.io.loadmat(io.BytesIO(content))
        subjectim = _read_ids(variables, "subjectim", highest=N_IMAGES)
        sharedix = _read_ids(variables, "sharedix", highest=N_IMAGES).ravel()
        masterordering = _read_ids(variables, "masterordering", highest=subjectim.shape[1]).ravel()
        if np.any(np.diff(sharedix) <= 0):
            raise ValueError("sharedix is not ascending without repeats")
    return Design(masterordering, subjectim, sharedix, source=str(file))


def _read_ids(variables: Mapping[str, Any], name: str, *, highest: int) -> IntArray:
    """Return a variable of a MATLAB file, which may hold anything, as a matrix of whole numbers from 1 on."""
    values = variables.get(name)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf" or values.ndim != 2 or not values.size:
        raise ValueError(f"{name} is missing or no matrix of numbers")
    if not np.array_equal(values, np.rint(values)) or values.min() < 1 or values.max() > highest:
        raise ValueError(f"{name} holds {values.min()} to {values.max()}, expected whole numbers from 1 to {highest}")
    return values.astype(np.int64)


def read_vertices(file: RawFile) -> AnyArray:
    """Read an MGH or MGZ file of one value per vertex.

    Returns
    -------
    array of shape (n_vertices,)
        In the type of the file, in native byte order.

    Raises
    ------
    PackagingError
        If the file is missing, damaged or not MGH of shape (n_vertices, 1, 1).
    """
    content = file.read()
    with reading(file, "an MGH file of one value per vertex"):
        content = gzip.decompress(content) if file.path.endswith(".mgz") else content
        values: AnyArray = np.asarray(MGHImage.from_bytes(content).dataobj)
        if values.size != len(values):
            raise ValueError(f"its shape is {values.shape}, expected (n_vertices, 1, 1)")
    values = values.ravel()
    return values.astype(values.dtype.newbyteorder("="))


def read_labels(file: RawFile) -> AnyArray:
    """Read the label of every vertex: whole numbers, or NaN for a vertex outside the atlas.

    Raises
    ------
    PackagingError
        As `read_vertices`, and if a label is no whole number: a region would lose the vertex.
    """
    labels = read_vertices(file)
    is_label = np.isnan(labels) | ((labels == np.trunc(labels)) & (np.abs(labels) <= LARGEST_LABEL))
    if not is_label.all():
        vertex = int(np.flatnonzero(~is_label)[0])
        raise PackagingError(
            f"{file} holds {labels[vertex]} at vertex {vertex}, expected whole numbers, which are labels. Is it an atlas? "
            f"If so, download it again ({file.official_path})."
        )
    return labels


def read_label_names(file: RawFile) -> dict[int, str]:
    """Read the names of an atlas's labels from its colour table.

    Returns
    -------
    the name of each label, without the label 0, which marks what is outside the atlas

    Raises
    ------
    PackagingError
        If a line does not begin with a number and a name, or a number or name occurs twice.
    """
    names: dict[int, str] = {}
    content = file.read()
    with reading(file, "a colour table"):
        for line in content.decode("utf-8", errors="replace").splitlines():
            fields = line.split()
            if not fields or fields[0].startswith("#"):
                continue
            if len(fields) < 2 or not re.fullmatch("-?[0-9]{1,10}", fields[0]):
                raise ValueError(f"it has the line {line[:60]!r}, expected a number and a name")
            label, name = int(fields[0]), fields[1]
            if label in names or name in names.values():
                raise ValueError(f"it names the label {label} {name!r}, but one of them is taken")
            names[label] = name
    return {label: name for label, name in names.items() if label != 0}


@dataclass(frozen=True)
class BetasShape:
    """The shape of a betas file."""

    n_vertices: int
    n_trials: int


def read_betas_shape(file: RawFile) -> BetasShape:
    """Read the header of a betas file.

    Raises
    ------
    PackagingError
        If the file is missing, not MGH float32 of shape (n_vertices, 1, 1, n_trials), or shorter than its header says.
    """
    content = file.read(MGH_DATA_OFFSET)
    n_bytes, expected_bytes = file.size(), MGH_DATA_OFFSET
    with reading(file, "a betas file of fsaverage"):
        if len(content) == MGH_DATA_OFFSET:
            header = MGHHeader(content[: MGHHeader.template_dtype.itemsize], check=False)
            version, kind, dims = int(header["version"]), int(header["type"]), tuple(int(n) for n in header["dims"])
            if version != 1:
                raise ValueError(f"its version of MGH is {version}, expected 1")
            if kind != MGH_FLOAT or dims[1:3] != (1, 1) or min(dims) < 1:
                raise ValueError(
                    f"it holds type {kind} of shape {dims}, expected float32 (type {MGH_FLOAT}) of shape (n_vertices, 1, 1, n_trials)"
                )
            expected_bytes += 4 * dims[0] * dims[3]
        if n_bytes < expected_bytes:
            raise ValueError(f"it ends early: {n_bytes:,} bytes, expected at least {expected_bytes:,}")
    return BetasShape(n_vertices=dims[0], n_trials=dims[3])


def read_betas(file: RawFile, shape: BetasShape) -> Iterator[FloatArray]:
    """Read the single-trial responses of one file once, in order, a block of trials at a time.

    From a bucket the next blocks are fetched while the caller works on the last one. A block is valid only until the
    next one is requested.

    Yields
    ------
    array of shape (n_trials_in_block, n_vertices)
        Big-endian float32, percent signal change, as on disk.

    Raises
    ------
    PackagingError
        If the file is missing or ends early.
    """
    with file.open() as opened, ThreadPoolExecutor(max(1, opened.n_readers)) as readers:
        n_ahead = opened.n_readers
        n_block = max(1, min(shape.n_trials, opened.block_bytes // (4 * shape.n_vertices)))
        n_blocks = -(-shape.n_trials // n_block)
        buffers = [np.empty((n_block, shape.n_vertices), dtype=">f4") for _ in range(n_ahead + 1)]

        def read(i: int) -> FloatArray:
            block = buffers[i % len(buffers)][: min(n_block, shape.n_trials - i * n_block)]
            start = MGH_DATA_OFFSET + i * n_block * 4 * shape.n_vertices
            n_read = opened.read_at(start, block.data.cast("B"))
            if n_read < block.nbytes:
                raise PackagingError(f"{file} ends {block.nbytes - n_read:,} bytes early. Download it again.")
            return block

        ahead = deque(readers.submit(read, i) for i in range(min(n_ahead, n_blocks)))
        for i in range(n_blocks):
            block = ahead.popleft().result() if ahead else read(i)
            if 0 < n_ahead < n_blocks - i:
                ahead.append(readers.submit(read, i + n_ahead))  # into the buffer of the block before this one
            yield block


def read_brick_shape(file: RawFile) -> tuple[int, ...]:
    """Return the shape (n_images, height, width, 3) of `imgBrick`.

    Raises
    ------
    PackagingError
        If the file is missing, or does not hold `imgBrick`.
    """
    with _open_brick(file) as brick:
        shape: tuple[int, ...] = brick.shape
    return shape


def read_images(file: RawFile, nsd_ids: Sequence[int]) -> Iterator[PixelArray]:
    """Read some of the 73k images, by their 0-based ids.

    Yields
    ------
    array of shape (height, width, 3)
        uint8; red, green, blue.

    Raises
    ------
    PackagingError
        If the file is missing, or does not hold `imgBrick` with these images.
    """
    with _open_brick(file) as brick:
        for nsd_id in nsd_ids:
            yield brick[nsd_id]


@contextmanager
def _open_brick(file: RawFile) -> Iterator[Any]:
    source = file.hdf5_source()
    with reading(file, "NSD's images"), h5py.File(source, "r", locking=False) as opened:
        brick = opened["imgBrick"]
        if not isinstance(brick, h5py.Dataset) or brick.ndim != 4 or brick.shape[3] != 3 or brick.dtype != np.uint8:
            raise ValueError(f"imgBrick is {brick}, expected uint8 of shape (n_images, height, width, 3)")
        yield brick


@dataclass(frozen=True)
class ImageOrigin:
    """Where an image comes from: COCO's image, and what NSD cut off.

    Attributes
    ----------
    coco_split : such as "train2017"; empty if the table does not say
    crop_box : what was cut off at the top, bottom, left and right, as fractions of COCO's image; None if unknown
    """

    coco_id: int
    coco_split: str
    crop_box: tuple[float, float, float, float] | None


def read_origins(file: RawFile, nsd_ids: Collection[int]) -> dict[int, ImageOrigin]:
    """Read the origin of images, by their 0-based 73k ids.

    Returns
    -------
    the origin of each image, in the order of `nsd_ids`; empty if the COCO id of one of them is unknown

    Raises
    ------
    PackagingError
        If the file is not the table that NSD publishes.
    """
    content = file.read()
    with reading(file, "NSD's table of images"):
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
        lacking = {"nsdId", "cocoId"} - set(table)
        if lacking:
            raise ValueError(f"it lacks the column {', '.join(sorted(lacking))}")
        rows = {int(row["nsdId"]): row for row in table.to_dict("records")}
        if len(rows) < len(table):
            raise ValueError("an nsdId occurs twice")
        if not all(nsd_id in rows and rows[nsd_id]["cocoId"] for nsd_id in nsd_ids):
            return {}
        return {nsd_id: _read_origin(rows[nsd_id]) for nsd_id in nsd_ids}


def _read_origin(row: Mapping[Hashable, str]) -> ImageOrigin:
    coco_id, crop_box = int(row["cocoId"]), None
    if row.get("cropBox"):  # a text such as "(0, 0, 0.1328125, 0.1328125)"
        top, bottom, left, right = (float(number) for number in row["cropBox"].strip(" ()").split(","))
        if not all(0 <= share < 1 for share in (top, bottom, left, right)):
            raise ValueError(f"cropBox is {row['cropBox']!r}, expected four fractions")
        crop_box = (top, bottom, left, right)
    return ImageOrigin(coco_id, row.get("cocoSplit", ""), crop_box)
