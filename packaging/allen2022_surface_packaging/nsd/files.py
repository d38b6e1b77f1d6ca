"""The contents of NSD's raw files. Only this module parses them."""

from __future__ import annotations

import gzip
import io
import math
import re
from collections import deque
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import scipy.io
from nibabel.freesurfer.mghformat import MGHHeader

from ..arrays import AnyArray, FloatArray, IntArray, PixelArray
from ..errors import PackagingError, reading
from ..facts import N_IMAGES, N_TRIALS
from .storage import RawFile

MGH_DATA_OFFSET = 284
MGH_TYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2"}  # by their codes in an MGH header
LARGEST_IMAGE_BYTES = 2**28  # of NSD's, 541,875; more are a damaged count, for which HDF5 would take memory
LARGEST_MAP_BYTES = 2**28  # of a file of one value per vertex; those of NSD have less than 1 MB
LARGEST_LABEL = 2**31 - 1  # and the largest number of a vertex: of an int32, the largest whole numbers of an MGH file


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
    if content.startswith(b"MATLAB 7.3"):
        raise PackagingError(
            f"{file} is a MATLAB file of version 7.3, expected version 5, in which NSD publishes it. Save it with "
            f"`save -v7`, or download NSD's own ({file.official_path})."
        )
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


def _read_mgh_header(content: bytes, n_bytes: int) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return the type and the shape in the header of an MGH file, which must be as long as they say."""
    if len(content) < MGH_DATA_OFFSET:
        raise ValueError(f"it ends early: {n_bytes:,} bytes, expected at least {MGH_DATA_OFFSET}")
    header = MGHHeader(content[: MGHHeader.template_dtype.itemsize], check=False)
    version, kind, dims = int(header["version"]), int(header["type"]), tuple(int(n) for n in header["dims"])
    if version % 256 != 1:  # FreeSurfer 7 writes what the values are meant for into the byte above
        raise ValueError(f"its version of MGH is {version}, expected 1")
    if kind not in MGH_TYPES or min(dims) < 1:
        raise ValueError(f"it holds type {kind} of shape {dims}, expected values of one of the types {list(MGH_TYPES)}")
    dtype = np.dtype(MGH_TYPES[kind])
    expected_bytes = MGH_DATA_OFFSET + dtype.itemsize * math.prod(dims)
    if n_bytes < expected_bytes:
        raise ValueError(f"it ends early: {n_bytes:,} bytes, expected at least {expected_bytes:,}")
    return dtype, dims


def read_vertices(file: RawFile) -> AnyArray:
    """Read an MGH or MGZ file of one value per vertex.

    Returns
    -------
    array of shape (n_vertices,)
        In the type of the file, in native byte order.

    Raises
    ------
    PackagingError
        If the file is missing, damaged or not MGH of shape (n_vertices, 1, 1, 1).
    """
    content = file.read()
    with reading(file, "an MGH file of one value per vertex"):
        if content.startswith(b"\x1f\x8b"):
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(LARGEST_MAP_BYTES)
        dtype, dims = _read_mgh_header(content, len(content))
        if dims[1:] != (1, 1, 1):
            raise ValueError(f"its shape is {dims}, expected (n_vertices, 1, 1, 1)")
        values = np.frombuffer(content, dtype, dims[0], offset=MGH_DATA_OFFSET)
    return values.astype(dtype.newbyteorder("="))


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


def read_native_index(file: RawFile) -> IntArray:
    """Read which vertex of a subject's own surface each vertex of fsaverage copies.

    Returns
    -------
    array of shape (n_vertices,)
        0-based; in the file, 1-based.

    Raises
    ------
    PackagingError
        As `read_vertices`, and if a number is not whole or below 1.

    References
    ----------
    NSD Data Manual, "Transforms": white-to-fsaverage; `analysis_transformfsaverage.m` of the code of the NSD paper.
    """
    numbers = read_vertices(file)
    is_index = (numbers == np.trunc(numbers)) & (numbers >= 1) & (numbers <= LARGEST_LABEL)
    if not is_index.all():
        vertex = int(np.flatnonzero(~is_index)[0])
        raise PackagingError(
            f"{file} holds {numbers[vertex]} at vertex {vertex}, expected the 1-based number of a vertex. Is it NSD's "
            f"white-to-fsaverage? Download it again ({file.official_path})."
        )
    return numbers.astype(np.int64) - 1


def copy_labels(file: RawFile, labels: AnyArray, index_file: RawFile, index: IntArray) -> AnyArray:
    """Return the labels of the vertices of fsaverage: those of the vertices of a subject's own surface that they copy.

    Raises
    ------
    PackagingError
        If a vertex is not on the surface of the labels.
    """
    if index.max() >= len(labels):
        raise PackagingError(
            f"{file} holds {len(labels):,} vertices, but {index_file} refers to vertex {index.max() + 1:,} (1-based). Expected "
            f"labels on the subject's own surface, not on fsaverage. Download it again ({file.official_path})."
        )
    return labels[index]


def read_label_names(file: RawFile) -> dict[str, set[int]]:
    """Read the names of an atlas's labels from its colour table: a number, a name and four numbers of a colour in a line.

    Lines of another form are left out, and so are labels below 1, which mark what is outside the atlas.

    Returns
    -------
    the labels of each name, which is usually one

    Raises
    ------
    PackagingError
        If the file is missing.
    """
    content = file.read()
    encoding = "utf-16" if content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # which gives every byte a character
    names: dict[str, set[int]] = {}
    for line in text.splitlines():
        words = line.split()
        is_colour = [re.fullmatch("[0-9]+", word) is not None for word in words[-4:]]
        n_colours = next((n for n in (4, 3) if len(words) > n + 1 and all(is_colour[-n:])), 0)
        if len(words) > 1 and re.fullmatch("[0-9]{1,10}", words[0]) and int(words[0]) > 0:
            names.setdefault(" ".join(words[1 : len(words) - n_colours]), set()).add(int(words[0]))
    return names


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
    with reading(file, "a betas file of fsaverage"):
        dtype, dims = _read_mgh_header(content, file.size())
        if dtype != ">f4" or dims[1:3] != (1, 1):
            raise ValueError(
                f"it holds {dtype.name} of shape {dims}, expected float32 of shape (n_vertices, 1, 1, n_trials)"
            )
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
        If the file is missing or ends early, or with zeros.
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
            if i == n_blocks - 1 and not block[-1].any():
                raise PackagingError(f"{file} ends with a trial of zeros: it was copied in part. Download it again.")
            if 0 < n_ahead < n_blocks - i:
                ahead.append(readers.submit(read, i + n_ahead))  # into the buffer of the block before this one
            yield block


def read_brick_shape(file: RawFile, nsd_ids: Sequence[int]) -> tuple[int, ...]:
    """Return the shape (n_images, height, width, 3) of `imgBrick`, after a look at the first and the last of some images.

    Raises
    ------
    PackagingError
        As `read_images`, but for images that are not there.
    """
    with _open_brick(file) as brick:
        for nsd_id in {*nsd_ids[:1], *nsd_ids[-1:]} & {*range(len(brick))}:
            _read_image(brick, nsd_id)
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
        If the file is missing, does not hold `imgBrick` with these images, or one of them was never written.
    """
    with _open_brick(file) as brick:
        for nsd_id in nsd_ids:
            yield _read_image(brick, nsd_id)


def _read_image(brick: Any, nsd_id: int) -> PixelArray:
    pixels: PixelArray = brick[nsd_id]
    # HDF5 gives zeros for what was never written, and for a source of a virtual dataset that is missing.
    if not pixels.any():
        raise ValueError(f"all pixels of image {nsd_id} (0-based) are 0. Is the file, or what it refers to, complete?")
    return pixels


@contextmanager
def _open_brick(file: RawFile) -> Iterator[Any]:
    source = file.hdf5_source()
    with reading(file, "NSD's images"), h5py.File(source, "r", locking=False) as opened:
        brick = opened["imgBrick"]
        is_brick = (
            isinstance(brick, h5py.Dataset) and brick.ndim == 4 and brick.shape[3] == 3 and brick.dtype == np.uint8
        )
        if not is_brick or math.prod(brick.shape[1:]) > LARGEST_IMAGE_BYTES:
            raise ValueError(f"imgBrick is {brick}, expected uint8 of shape (n_images, height, width, 3)")
        # In an object of a bucket, HDF5 would look for these files on this machine.
        if not isinstance(source, str) and (brick.is_virtual or brick.external):
            raise ValueError(
                "the pixels of imgBrick lie in other files, expected all in this one, as it is in a bucket"
            )
        itself = {".", str(source), Path(str(source)).name}
        parts = brick.virtual_sources() if brick.is_virtual else ()
        if any(part.file_name in itself and part.dset_name.strip("/") == "imgBrick" for part in parts):
            raise ValueError("imgBrick refers to itself, for which HDF5 would crash")
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
        table = pd.read_csv(io.BytesIO(content), dtype=str).fillna("")
        lacking = {"nsdId", "cocoId"} - set(table)
        if lacking:
            raise ValueError(f"it lacks the column {', '.join(sorted(lacking))}")
        table = table[table["nsdId"] != ""]  # a spreadsheet may add empty rows
        rows = {_whole_number(row["nsdId"]): row for row in table.to_dict("records")}
        if len(rows) < len(table):
            raise ValueError("an nsdId occurs twice")
        if not all(nsd_id in rows and rows[nsd_id]["cocoId"] for nsd_id in nsd_ids):
            return {}
        return {nsd_id: _read_origin(rows[nsd_id]) for nsd_id in nsd_ids}


def _read_origin(row: Mapping[Hashable, str]) -> ImageOrigin:
    coco_id, crop_box = _whole_number(row["cocoId"]), None
    if row.get("cropBox"):  # a text such as "(0, 0, 0.1328125, 0.1328125)"
        top, bottom, left, right = (float(number) for number in row["cropBox"].strip(" ()[]").split(","))
        if not all(0 <= share < 1 for share in (top, bottom, left, right)):
            raise ValueError(f"cropBox is {row['cropBox']!r}, expected four fractions")
        crop_box = (top, bottom, left, right)
    return ImageOrigin(coco_id, row.get("cocoSplit", ""), crop_box)


def _whole_number(text: str) -> int:
    """Return a number that a spreadsheet may have written as ``46002.0``."""
    number = float(text)
    if number != int(number):
        raise ValueError(f"it holds the id {text!r}, expected a whole number")
    return int(number)
