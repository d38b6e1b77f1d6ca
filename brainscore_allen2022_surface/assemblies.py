"""Assembly files: NetCDF with one variable. A file is checked before Brain-Score uses it."""

from __future__ import annotations

import os
from ast import literal_eval
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import netCDF4
import numpy as np
import xarray as xr
from brainscore_core.supported_data_standards.brainio.assemblies import BRAINIO_CHUNKS
from numpy.typing import NDArray

from .files import SYSTEM_ERRORS, naming

StringArray: TypeAlias = NDArray[Any]  # of str, as objects or of a fixed width

COORDINATES = {
    "presentation": ("stimulus_id", "nsd_id"),
    "neuroid": ("neuroid_id", "subject", "hemisphere", "vertex_index", "region", "nc_testset"),
    "time_bin": ("time_bin_start", "time_bin_end"),
}
REPETITION = "repetition"  # of the presentations of the test split
# What xarray and netCDF4 raise for damaged files.
READ_ERRORS = (AttributeError, LookupError, MemoryError, OSError, OverflowError, RuntimeError, TypeError, ValueError)
ADVICE = "Build the release again, or upload it again."
N_NAMED_REGIONS = 20  # in a message


def read_responses(path: Path, split: str, region: str | None) -> xr.DataArray:
    """Read an assembly or one region of it, eagerly unless ``BRAINIO_CHUNKS`` is set.

    Parameters
    ----------
    split : "train" or "test"
        The presentations of the test split must have repetitions.

    Raises
    ------
    ValueError
        If the file is damaged, or the assembly has no such region, or ``BRAINIO_CHUNKS`` is damaged.
    """
    chunks = _read_chunks()
    with explained(path):
        responses: xr.DataArray = xr.open_dataarray(path, chunks=chunks)
        fault = _find_fault(responses, split)
    if fault:
        raise ValueError(f"{path} is no assembly of the {split} split: {fault}. {ADVICE}")
    if region is not None:
        responses = responses.isel(neuroid=_find_region(path, region))
    if chunks is None:
        with explained(path):
            responses.load().close()
    return responses


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn whatever a damaged assembly file raises into a ValueError of one line that names the file.

    Raises
    ------
    ValueError
        If the file is damaged.
    OSError
        If the system cannot read the file now.
    """
    try:
        with naming(path):
            yield
    except READ_ERRORS as error:
        if isinstance(error, OSError) and error.errno in SYSTEM_ERRORS:
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} cannot be read as an assembly ({reason}). {ADVICE}") from error


def _read_chunks() -> Any:
    """Return the chunks that ``BRAINIO_CHUNKS`` asks for, or None for an eager assembly."""
    setting = os.environ.get(BRAINIO_CHUNKS)
    if not setting:
        return None
    try:
        return literal_eval(setting)
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{BRAINIO_CHUNKS} is {setting!r}, expected chunks such as {{'neuroid': 1000}}.") from error


def _find_fault(responses: xr.DataArray, split: str) -> str:
    """Return what is wrong with an assembly; empty if nothing is."""
    if responses.dims != tuple(COORDINATES):
        return f"its dimensions are {', '.join(map(str, responses.dims))}, expected {', '.join(COORDINATES)}"
    if responses.dtype != np.float32:
        return f"its values are {responses.dtype}, expected float32"
    for dimension, names in COORDINATES.items():
        needs_repetition = dimension == "presentation" and split == "test"
        for name in (*names, REPETITION) if needs_repetition else names:
            if name not in responses.coords or responses[name].dims != (dimension,):
                return f"it has no coordinate {name} of the dimension {dimension}"
    return ""


def _find_region(path: Path, region: str) -> slice:
    """Return where the neuroids of a region lie. They are contiguous, so that one slice reads them all."""
    with explained(path):
        regions = _read_regions(path)
        rows = np.flatnonzero(regions == region)
    if not len(rows):
        names = sorted(set(regions))
        more = f" and {len(names) - N_NAMED_REGIONS} more" if len(names) > N_NAMED_REGIONS else ""
        raise ValueError(
            f"{path} has no neuroid of region {region}, only of {', '.join(map(_named, names[:N_NAMED_REGIONS]))}{more}. "
            "Choose one of these."
        )
    region_slice = slice(int(rows[0]), int(rows[-1]) + 1)
    if region_slice.stop - region_slice.start != len(rows):
        raise ValueError(f"{path}: the neuroids of {region} are not contiguous. {ADVICE}")
    return region_slice


def _named(region: str) -> str:
    return region if region.isprintable() else repr(region)


def _read_regions(path: Path) -> StringArray:
    """Read the region of every neuroid. xarray would convert each string one by one, which takes twice as long."""
    with netCDF4.Dataset(path) as file:
        variable = file["region"]
        variable.set_auto_maskandscale(False)
        variable.set_auto_chartostring(False)
        regions: StringArray = variable[:]
    if regions.ndim == 1:  # strings of variable length, as in the objects that Brain-Score published
        return regions
    # Arrays of characters, as in a release of this package.
    encoded = np.ascontiguousarray(regions).view(f"S{regions.shape[1]}").ravel()
    names, numbers = np.unique(encoded, return_inverse=True)
    return np.char.decode(names, "utf-8")[numbers]
