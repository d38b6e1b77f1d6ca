"""The contents of NSD's raw files. Only this module parses them."""

from __future__ import annotations

import errno
import gzip
import io
import re
from collections import deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.io
from nibabel.freesurfer.mghformat import MGHHeader, MGHImage

from ..arrays import AnyArray, FloatArray, IntArray, PixelArray
from ..errors import PackagingError, one_line
from ..facts import N_IMAGES, N_TRIALS
from .storage import RawFile

MGH_DATA_OFFSET = 284
ORIGIN_COLUMNS = ("nsdId", "cocoId", "cocoSplit", "cropBox")
COCO_SPLITS = ("train2017", "val2017")  # all that NSD took its images from
LARGEST_COCO_ID = 10**7  # COCO 2017 goes to 581,929
LONGEST_REASON = 200  # characters of a library's message
MGH_FLOAT = 3  # the code of float32 in an MGH header


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
    try:
        variables = scipy.io.loadmat(io.BytesIO(content))
    except Exception as error:  # scipy, zlib and numpy each raise other exceptions for damaged files
        raise PackagingError(f"{file} is not a MATLAB 5 file ({one_line(error)}). Download it again.") from error
    missing = [name for name in ("masterordering", "subjectim", "sharedix") if name not in variables]
    if missing:
        raise PackagingError(f"{file} lacks the variable {', '.join(missing)}. Is it NSD's nsd_expdesign.mat?")
    design = Design(
        masterordering=_whole_numbers(file, "masterordering", variables["masterordering"]).ravel(),
        subjectim=_whole_numbers(file, "subjectim", variables["subjectim"]),
        sharedix=_whole_numbers(file, "sharedix", variables["sharedix"]).ravel(),
        source=str(file),
    )
    _require_ids(file, "masterordering", design.masterordering, highest=design.subjectim.shape[1])
    _require_ids(file, "subjectim", design.subjectim, highest=N_IMAGES)
    _require_ids(file, "sharedix", design.sharedix, highest=N_IMAGES)
    if np.any(np.diff(design.sharedix) <= 0):
        raise PackagingError(f"{file}: sharedix is not ascending without repeats. Download it again.")
    return design


def _whole_numbers(file: RawFile, name: str, values: object) -> IntArray:
    """Return a variable of a MATLAB file, which may hold anything, as a matrix of whole numbers."""
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf" or values.ndim != 2:
        kind = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
        raise PackagingError(f"{file}: {name} is {kind}, expected a matrix of whole numbers. Download it again.")
    if not np.array_equal(values, np.rint(values)):
        raise PackagingError(f"{file}: {name} holds fractions or NaN, expected whole numbers. Download it again.")
    return values.astype(np.int64)


def _require_ids(file: RawFile, name: str, ids: IntArray, *, highest: int) -> None:
    if ids.size == 0 or ids.min() < 1 or ids.max() > highest:
        actual = f"{ids.min()} to {ids.max()}" if ids.size else "nothing"
        raise PackagingError(f"{file}: {name} holds {actual}, expected ids from 1 to {highest}. Download it again.")


def read_vertices(file: RawFile) -> AnyArray:
    """Read an MGH or MGZ file of one value per vertex (labels, ncsnr).

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
    try:
        content = gzip.decompress(content) if file.path.endswith(".mgz") else content
        values: AnyArray = np.asarray(MGHImage.from_bytes(content).dataobj)
    except Exception as error:  # nibabel, zlib and numpy each raise other exceptions for damaged files
        raise PackagingError(f"{file} cannot be read as MGH ({one_line(error)}). Download it again.") from error
    if values.size != len(values):
        raise PackagingError(f"{file} has the shape {values.shape}, expected (n_vertices, 1, 1). Download it again.")
    values = values.ravel()
    return values.astype(values.dtype.newbyteorder("="))


@dataclass(frozen=True)
class BetasShape:
    """The shape of a betas file."""

    n_vertices: int
    n_trials: int

    def __str__(self) -> str:
        return f"{self.n_vertices:,} vertices x {self.n_trials} trials"


def read_betas_shape(file: RawFile) -> BetasShape:
    """Read the header of a betas file.

    Raises
    ------
    PackagingError
        If the file is missing, not MGH float32 of shape (n_vertices, 1, 1, n_trials), or shorter than its header says.
    """
    content = file.read(MGH_DATA_OFFSET)
    header_bytes = MGHHeader.template_dtype.itemsize
    if len(content) < header_bytes:
        raise PackagingError(f"{file} is not an MGH file: its header is cut short. Download it again.")
    header = MGHHeader(content[:header_bytes], check=False)
    version, kind, dims = int(header["version"]), int(header["type"]), [int(n) for n in header["dims"]]
    if version != 1:
        raise PackagingError(f"{file} is not an MGH file: its version is {version}, expected 1. Download it again.")
    if kind != MGH_FLOAT or dims[1:3] != [1, 1] or min(dims) < 1:
        raise PackagingError(
            f"{file} holds type {kind} of shape {tuple(dims)}, expected float32 (type {MGH_FLOAT}) of shape "
            "(n_vertices, 1, 1, n_trials). Was it downloaded from a betas folder of fsaverage/?"
        )
    shape = BetasShape(n_vertices=dims[0], n_trials=dims[3])
    expected, actual = MGH_DATA_OFFSET + 4 * shape.n_vertices * shape.n_trials, file.size()
    if actual < expected:
        raise PackagingError(
            f"{file} is cut short: {actual:,} bytes, expected at least {expected:,}. Download it again."
        )
    return shape


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
                raise PackagingError(f"{file} ended {block.nbytes - n_read:,} bytes early. Download it again.")
            return block

        ahead = deque(readers.submit(read, i) for i in range(min(n_ahead, n_blocks)))
        for i in range(n_blocks):
            block = ahead.popleft().result() if ahead else read(i)
            if 0 < n_ahead < n_blocks - i:
                ahead.append(readers.submit(read, i + n_ahead))  # into the buffer of the block before this one
            yield block


def check_images(file: RawFile, nsd_ids: Sequence[int]) -> None:
    """Check that `imgBrick` holds the images with these 0-based ids.

    Raises
    ------
    PackagingError
        If the file is missing or not HDF5, or an id is outside `imgBrick`.
    """
    with _open_images(file, nsd_ids):
        pass


def read_images(file: RawFile, nsd_ids: Sequence[int]) -> Iterator[PixelArray]:
    """Read some of the 73k images, by their 0-based ids.

    Yields
    ------
    array of shape (height, width, 3)
        uint8; red, green, blue.

    Raises
    ------
    PackagingError
        If the file is missing or not HDF5, or an id is outside `imgBrick`.
    """
    with _open_images(file, nsd_ids) as images:
        for nsd_id in nsd_ids:
            with _explained(file, f"image {nsd_id} of imgBrick"):
                pixels = images[nsd_id]
            yield pixels


def count_image_bytes(file: RawFile) -> int:
    """Return how many bytes an image of `imgBrick` has before it is compressed.

    Raises
    ------
    PackagingError
        If the file is missing or not HDF5.
    """
    with _open_images(file, []) as images:
        return int(np.prod(images.shape[1:]))


@contextmanager
def _open_images(file: RawFile, nsd_ids: Sequence[int]) -> Iterator[Any]:
    source = file.hdf5_source()
    with ExitStack() as stack:
        with _explained(file, "an HDF5 dataset imgBrick"):
            images = stack.enter_context(h5py.File(source, "r"))["imgBrick"]
            is_brick = images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8
            description = f"{images.dtype} of shape {images.shape}"
        if not is_brick:
            raise PackagingError(
                f"{file}: imgBrick is {description}, expected uint8 (n_images, height, width, 3). Download it again."
            )
        outside = [nsd_id for nsd_id in nsd_ids if not 0 <= nsd_id < len(images)]
        if outside:
            raise PackagingError(
                f"{file}: imgBrick holds {len(images):,} images, but the design asks for image {outside[0]} (0-based)"
                f"{f' and {len(outside) - 1} more' if len(outside) > 1 else ''}. Do design and images belong together?"
            )
        yield images


@contextmanager
def _explained(file: RawFile, content: str) -> Iterator[None]:
    """Turn any exception of h5py, which raises many kinds for damaged files, into a `PackagingError`."""
    try:
        yield
    except PackagingError:
        raise
    except Exception as error:
        # With an error number the disk failed, and the file may be sound. EINVAL comes of an impossible position in it.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise PackagingError(f"{file} does not hold {content} ({one_line(error)}). Download it again.") from error


def read_label_names(file: RawFile) -> dict[int, str]:
    """Read the names of an atlas's labels from its colour table.

    Returns
    -------
    the name of each label, without the label 0, which marks what is outside the atlas; empty if the file is missing

    Raises
    ------
    PackagingError
        If a line does not begin with a number and a name, or a number or name occurs twice.
    """
    if not file.exists():
        return {}
    names: dict[int, str] = {}
    for line in file.read().decode("utf-8", errors="replace").splitlines():
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) < 2 or not re.fullmatch("-?[0-9]{1,10}", fields[0]):
            raise PackagingError(
                f"{file} holds the line {line[:60]!r}, expected a number and a name. Download it again."
            )
        label, name = int(fields[0]), fields[1]
        if label in names or name in names.values():
            raise PackagingError(
                f"{file} names the label {label} {name!r}, but one of them is taken. Download it again."
            )
        names[label] = name
    return {label: name for label, name in names.items() if label != 0}


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


def read_origins(file: RawFile, nsd_ids: Sequence[int]) -> list[ImageOrigin] | None:
    """Read the origin of images, by their 0-based 73k ids.

    Returns
    -------
    the origins in the order of `nsd_ids`; None if the file is missing, or lacks the COCO id of one of the images

    Raises
    ------
    PackagingError
        If the file is not the table that NSD publishes.
    """
    if not file.exists():
        return None
    try:
        table = pd.read_csv(io.BytesIO(file.read()), dtype=str, keep_default_na=False)
        missing = {"nsdId", "cocoId"} - set(table.columns)
        if missing:
            raise ValueError(f"it lacks the column {', '.join(sorted(missing))}")
        repeated = [name for name in ORIGIN_COLUMNS if f"{name}.1" in table.columns]  # as pandas renames it
        if repeated:
            raise ValueError(f"it has two columns {repeated[0]}")
        rows = {_read_id(row, "nsdId", N_IMAGES - 1): row for row in table.to_dict("records") if row["nsdId"]}
        if len(rows) < len(table):
            raise ValueError("an nsdId is empty or occurs twice")
        if not all(nsd_id in rows and rows[nsd_id]["cocoId"] for nsd_id in nsd_ids):
            return None
        return [_read_origin(rows[nsd_id]) for nsd_id in nsd_ids]
    except (ValueError, OverflowError, RecursionError, MemoryError) as error:  # pandas' own errors are ValueErrors
        raise PackagingError(
            f"{file} is not NSD's table of images ({one_line(error)[:LONGEST_REASON]}). Download it again."
        ) from error


def _read_origin(row: Mapping[Hashable, str]) -> ImageOrigin:
    crop_box = row.get("cropBox") or None
    coco_split = row.get("cocoSplit", "")
    if coco_split not in ("", *COCO_SPLITS):
        raise ValueError(f"cocoSplit is {coco_split!r}, expected {' or '.join(COCO_SPLITS)}")
    coco_id = _read_id(row, "cocoId", LARGEST_COCO_ID)
    return ImageOrigin(coco_id, coco_split, _read_crop_box(crop_box) if crop_box else None)


def _read_id(row: Mapping[Hashable, str], name: str, largest: int) -> int:
    text = row[name]
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) > largest:
        raise ValueError(f"{name} is {text!r}, expected a number from 0 to {largest}")
    return int(text)


def _read_crop_box(text: str) -> tuple[float, float, float, float]:
    """Read a text such as ``(0, 0, 0.1328125, 0.1328125)``."""
    top, bottom, left, right = (float(number) for number in text.strip().strip("()").split(","))
    if not all(0 <= share < 1 for share in (top, bottom, left, right)):
        raise ValueError(f"cropBox is {text!r}, expected four fractions")
    return top, bottom, left, right
