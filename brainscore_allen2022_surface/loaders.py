"""Assemblies and stimulus sets as Brain-Score uses them."""

from __future__ import annotations

import os
from ast import literal_eval
from pathlib import Path
from typing import Any, TypeAlias

import netCDF4
import numpy as np
import pandas as pd
import xarray as xr
from brainscore_core.supported_data_standards.brainio.assemblies import BRAINIO_CHUNKS, NeuroidAssembly
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet
from numpy.typing import NDArray

from .artifacts import StoredObject
from .cache import is_cached, local_file, local_folder
from .markers import SEPARATOR, image_marker
from .sources import DatasetFiles, Source, default_source, find_files

StringArray: TypeAlias = NDArray[Any]  # of str, as objects or of a fixed width


def load_assembly(name: str, split: str, region: str | None = None, *, source: Source | None = None) -> NeuroidAssembly:
    """Load the responses of a split, with their stimulus set attached.

    Parameters
    ----------
    name : "Allen2022_fmri_surface", "Allen2022_fmri_surface_4subj", or the name of another release
    split : "train" or "test"
    region : "V1", "V2", "V4" or "IT", optional
        Only this region is read. From S3, only this region is downloaded if it has an object of its own.
    source : path, optional
        A release, a folder of releases, or an artifacts file. By default, the source that the environment variables
        ``BRAINSCORE_ALLEN2022_SURFACE_DIR`` and ``BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS`` name, or else the published data.

    Returns
    -------
    NeuroidAssembly of shape (n_presentations, n_neuroids, 1)
        float32, unitless: z-scored per session and then per vertex over images. Values that were NaN are 0. Loaded
        eagerly, because Brain-Score's ceilings take minutes on lazy arrays. If ``BRAINIO_CHUNKS`` is set, the assembly is
        lazy, with these chunks.

    Raises
    ------
    FileNotFoundError
        If the source or a file in it does not exist, or the source does not hold the dataset.
    ConnectionError
        If a download fails.
    ValueError
        If a file is damaged, or the assembly has no such region.
    """
    files = find_files(name, split, default_source() if source is None else source)
    stimulus_set = _read_stimulus_set(files, f"{name}.{split}")
    responses = _read_responses(local_file(_assembly_file(files, region)), region)
    assembly = NeuroidAssembly(_with_stimulus_columns(responses, stimulus_set))
    assembly.attrs["identifier"] = f"{name}.{region}.{split}" if region else f"{name}.{split}"
    assembly.attrs["stimulus_set_identifier"] = stimulus_set.identifier
    assembly.attrs["stimulus_set"] = stimulus_set
    return assembly


def load_stimulus_set(name: str, split: str, *, source: Source | None = None) -> StimulusSet:
    """Load the stimulus set of a split. The assembly is not downloaded.

    Parameters
    ----------
    name, split, source
        As in `load_assembly`.

    Returns
    -------
    StimulusSet
        One row per image. `get_stimulus(stimulus_id)` returns the path of an image. The identifier is ``NAME.SPLIT`` for the
        images that the shipped artifacts file lists, and ``NAME.SPLIT--MARKER`` for any others. The marker is a hash of
        the image files: Brain-Score caches converted images and activations by the identifier.

    Raises
    ------
    FileNotFoundError, ConnectionError, ValueError
        As `load_assembly`.
    """
    files = find_files(name, split, default_source() if source is None else source)
    return _read_stimulus_set(files, f"{name}.{split}")


def _assembly_file(files: DatasetFiles, region: str | None) -> Path | StoredObject:
    """Return the smallest file that holds a region: its own, unless only the whole assembly is in the cache already."""
    whole, part = files.assembly, files.region_assemblies.get(region or "")
    if part is None or (isinstance(whole, StoredObject) and not is_cached(part) and is_cached(whole)):
        return whole
    return part


def _read_stimulus_set(files: DatasetFiles, key: str) -> StimulusSet:
    table = pd.read_csv(local_file(files.stimulus_table))
    folder = local_folder(files.stimuli)
    if "filename" not in table:  # brainio needs this column; the table of a release has only image_file_name
        table.insert(1, "filename", table["image_file_name"])
    image_paths = {
        stimulus_id: folder / file_name
        for stimulus_id, file_name in zip(table["stimulus_id"], table["filename"], strict=True)
    }
    missing_paths = [path for path in image_paths.values() if not path.is_file()]
    if missing_paths:
        raise FileNotFoundError(
            f"{missing_paths[0]} and {len(missing_paths) - 1} more images of {key} are missing. "
            "Build the release again, or upload it again."
        )
    stimulus_set = StimulusSet(table)
    stimulus_set.identifier = key if files.has_shipped_stimuli else f"{key}{SEPARATOR}{image_marker(image_paths)}"
    stimulus_set.stimulus_paths = image_paths
    return stimulus_set


def _read_responses(path: Path, region: str | None) -> xr.DataArray:
    """Read an assembly or one region of it, eagerly unless ``BRAINIO_CHUNKS`` is set."""
    chunks = os.environ.get(BRAINIO_CHUNKS)
    responses: xr.DataArray = xr.open_dataarray(path, chunks=literal_eval(chunks) if chunks else None)
    if region is not None:
        responses = responses.isel(neuroid=_region_slice(_read_regions(path), region))
    if not chunks:
        responses.load().close()
    return responses


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


def _region_slice(regions: StringArray, region: str) -> slice:
    """Return where the neuroids of a region lie. They are contiguous, so that one slice reads them all."""
    rows = np.flatnonzero(regions == region)
    if not len(rows):
        raise ValueError(
            f"The assembly has no neuroid of region {region}, only of {', '.join(sorted(set(regions)))}. Choose one of these."
        )
    region_slice = slice(int(rows[0]), int(rows[-1]) + 1)
    if region_slice.stop - region_slice.start != len(rows):
        raise ValueError(f"The neuroids of {region} are not contiguous. Build the release again.")
    return region_slice


def _with_stimulus_columns(responses: xr.DataArray, stimulus_set: StimulusSet) -> xr.DataArray:
    """Add the columns of the stimulus set to the presentations, as Brain-Score does whenever it loads an assembly."""
    rows = pd.DataFrame(stimulus_set).set_index("stimulus_id").loc[responses["stimulus_id"].values]
    columns = {column: ("presentation", rows[column].to_numpy()) for column in rows if column not in responses.coords}
    with_columns: xr.DataArray = responses.assign_coords(columns)
    return with_columns
