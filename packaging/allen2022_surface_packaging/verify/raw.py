"""Raw files of NSD, read without the code with which the builder reads them."""

from __future__ import annotations

import io
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError, MGHImage

from ..arrays import AnyArray, DoubleArray, IntArray
from ..errors import PackagingError, one_line, raise_if_of_machine
from ..nsd.storage import Folder, RawFile

COPY_BYTES = 64 * 2**20  # of one request, if the tree is in a bucket
# The exceptions of numpy, pandas, scipy, nibabel, h5py, xarray and netCDF4 for a damaged file
DAMAGES = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RecursionError, RuntimeError),
    *(TypeError, ValueError, ImageFileError, MGHError, struct.error, zlib.error),
)


@contextmanager
def reading(file: RawFile, kind: str) -> Iterator[None]:
    """Name the raw file if the block fails to read it.

    Raises
    ------
    PackagingError
        If the block raises one of `DAMAGES`.
    OSError
        If the system cannot read the file.
    """
    try:
        yield
    except DAMAGES as error:
        raise_if_of_machine(error, file)
        raise PackagingError(f"{file} cannot be read as {kind} ({one_line(error)}). Download it again.") from error


@contextmanager
def local_copy(file: RawFile) -> Iterator[Path]:
    """Yield the path of a raw file on this machine, because nibabel reads nothing else. A file in a bucket is copied.

    Raises
    ------
    PackagingError
        If the file is missing.
    """
    if not file.exists():
        raise PackagingError(f"{file} is missing, but the release was made from it. Download it again.")
    if isinstance(file.storage, Folder):
        yield Path(str(file))
        return
    with tempfile.TemporaryDirectory() as folder:
        copy_path = Path(folder) / Path(file.path).name
        with file.open() as source, copy_path.open("wb") as target:
            shutil.copyfileobj(source, target, COPY_BYTES)
        yield copy_path


@dataclass(frozen=True, eq=False)
class Design:
    """The experiment design in NSD's 1-based numbers.

    Attributes
    ----------
    masterordering : array of shape (n_trials,)
    subjectim : array of shape (n_subjects, n_images_per_subject)
    sharedix : array of shape (n_shared_images,)
    """

    masterordering: IntArray
    subjectim: IntArray
    sharedix: IntArray


def read_design(file: RawFile) -> Design:
    """Read the experiment design.

    Raises
    ------
    PackagingError
        If the file is missing or damaged.
    """
    with reading(file, "NSD's experiment design"):
        variables = scipy.io.loadmat(io.BytesIO(file.read()))
        return Design(
            masterordering=variables["masterordering"].astype(np.int64).ravel(),
            subjectim=variables["subjectim"].astype(np.int64),
            sharedix=variables["sharedix"].astype(np.int64).ravel(),
        )


def read_extent(file: RawFile) -> tuple[int, int]:
    """Read the numbers of vertices and of trials from the header of an MGH file.

    Raises
    ------
    PackagingError
        If the file is missing or damaged.
    """
    with reading(file, "MGH"), file.open() as opened:
        _, n_vertices, _, _, n_trials = struct.unpack(">5i", opened.read(20))
    return n_vertices, n_trials


def read_surface(file: RawFile) -> AnyArray:
    """Read one value per vertex, of shape (n_vertices,).

    Raises
    ------
    PackagingError
        If the file is missing or damaged.
    """
    with reading(file, "MGH"), local_copy(file) as path:
        return np.array(_map_values(path)).ravel()


def read_label_names(file: RawFile) -> dict[int, str]:
    """Read the names of labels from a colour table; empty if the file is missing.

    Raises
    ------
    PackagingError
        If the file is damaged.
    """
    if not file.exists():
        return {}
    with reading(file, "a colour table"):
        rows = [
            line.split()[:2]
            for line in file.read().decode("utf-8", errors="replace").splitlines()
            if line.strip() and line.split()[0][0] != "#"
        ]
        return {int(label): name for label, name in rows}


def read_trials(file: RawFile, vertices: IntArray) -> DoubleArray:
    """Read the responses of some vertices in one session, of shape (n_trials, n_vertices), in percent signal change.

    Raises
    ------
    PackagingError
        If the file is missing or damaged.
    """
    with reading(file, "MGH"), local_copy(file) as path:
        responses: DoubleArray = _map_values(path).T[:, 0, 0, :][:, vertices].astype(np.float64)
    return responses


def _map_values(path: Path) -> AnyArray:
    """Map the values of an MGH file into memory, so that only the pages that are asked for are read."""
    values = np.asanyarray(MGHImage.from_filename(path).dataobj)
    if values.shape[1:3] != (1, 1):
        raise ValueError(f"its values have the shape {values.shape}, expected a number per vertex and trial")
    return values


def read_stimulus_info(file: RawFile) -> pd.DataFrame | None:
    """Read what NSD's table says about all images, as text, indexed by `nsd_id`; None if the file is missing.

    Raises
    ------
    PackagingError
        If the file is damaged.
    """
    if not file.exists():
        return None
    with reading(file, "NSD's table of images"):
        table = pd.read_csv(io.BytesIO(file.read()), dtype=str, keep_default_na=False)
        table = table[table["nsdId"] != ""]
        table.index = pd.Index(table["nsdId"].astype(np.int64))
        if not table.index.is_unique or "cocoId" not in table:
            raise ValueError("an nsdId occurs twice, or there is no cocoId")
        return table
