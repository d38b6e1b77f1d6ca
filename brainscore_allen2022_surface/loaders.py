"""Stimulus sets and assemblies as Brain-Score wants them, from a release on disk or from S3."""

from __future__ import annotations

import os
from ast import literal_eval
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import xarray as xr
from brainscore_core.supported_data_standards.brainio.assemblies import BRAINIO_CHUNKS, NeuroidAssembly
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet

from .artifacts import fetch, fetch_folder, stored_objects
from .releases import find_release, release_split


def load_assembly(name: str, split: str, region: str | None = None) -> NeuroidAssembly:
    """Load the responses of a split, with their stimulus set attached.

    Parameters
    ----------
    name : "Allen2022_fmri_surface" or "Allen2022_fmri_surface_4subj"
    split : "train" or "test"
    region : "V1", "V2", "V4" or "IT", optional
        Read this region only.

    Returns
    -------
    NeuroidAssembly of shape (n_presentations, n_neuroids, 1)
        float32, unitless: z-scored per session and then per vertex over images; invalid vertices are 0. Read at once,
        since Brain-Score's ceilings take minutes over what is read in time; with `BRAINIO_CHUNKS` set, lazy in such chunks.

    Raises
    ------
    FileNotFoundError, ConnectionError, ValueError
        If the data is not there, cannot be had or is damaged; the message says what to do.
    """
    stimulus_set = load_stimulus_set(name, split)
    assembly_path = _assembly_path(name, split)
    chunks = os.environ.get(BRAINIO_CHUNKS)
    array = xr.open_dataarray(assembly_path, chunks=literal_eval(chunks) if chunks else None)
    if region is not None:
        array = array.isel(neuroid=_region_slice(_read_regions(assembly_path), region))
    if not chunks:
        array.load().close()
    assembly = NeuroidAssembly(_with_stimulus_columns(array, stimulus_set))
    assembly.attrs["identifier"] = f"{name}.{region}.{split}" if region else f"{name}.{split}"
    assembly.attrs["stimulus_set_identifier"] = stimulus_set.identifier
    assembly.attrs["stimulus_set"] = stimulus_set
    return assembly


def load_stimulus_set(name: str, split: str) -> StimulusSet:
    """Load the images of a split: a row each, and their paths through `get_stimulus(stimulus_id)`.

    Raises
    ------
    FileNotFoundError, ConnectionError, ValueError
        If the data is not there, cannot be had or is damaged; the message says what to do.
    """
    return _read_stimulus_set(*_stimulus_paths(name, split), identifier=f"{name}.{split}")


def _assembly_path(name: str, split: str) -> Path:
    release_path = find_release(name)
    if release_path is not None:
        return release_split(release_path, split).assembly_path
    return fetch(stored_objects(f"{name}.{split}")["assembly"])


def _stimulus_paths(name: str, split: str) -> tuple[Path, Path]:
    """Return the stimulus table and the folder of its images."""
    release_path = find_release(name)
    if release_path is not None:
        files = release_split(release_path, split)
        return files.table_path, files.stimuli_path
    stored = stored_objects(f"{name}.{split}")
    return fetch(stored["stimulus_csv"]), fetch_folder(stored["stimulus_zip"])


def _read_stimulus_set(table_path: Path, stimuli_path: Path, identifier: str) -> StimulusSet:
    table = pd.read_csv(table_path)
    if "filename" not in table:  # brainio's column; a release's own table has only the image's
        table.insert(1, "filename", table["image_file_name"])
    paths = {row.stimulus_id: stimuli_path / row.filename for row in table.itertuples()}
    missing = [path for path in paths.values() if not path.is_file()]
    if missing:
        raise FileNotFoundError(f"{missing[0]} and {len(missing) - 1} more images of {identifier} are missing.")
    stimulus_set = StimulusSet(table)
    stimulus_set.identifier = identifier
    stimulus_set.stimulus_paths = {stimulus_id: Path(path) for stimulus_id, path in paths.items()}
    return stimulus_set


def _read_regions(path: Path) -> np.ndarray:
    """Read the region of every neuroid, by netCDF4 itself: xarray would make a string of each, for half of the time."""
    with netCDF4.Dataset(path) as file:
        variable = file["region"]
        variable.set_auto_maskandscale(False)
        variable.set_auto_chartostring(False)
        regions = variable[:]
    if regions.ndim == 2:  # characters, as this project writes them; what was published has strings of any length
        regions = np.ascontiguousarray(regions).view(f"S{regions.shape[1]}").ravel()
        names, numbers = np.unique(regions, return_inverse=True)
        regions = np.char.decode(names, "utf-8")[numbers]
    return regions


def _region_slice(regions: np.ndarray, region: str) -> slice:
    """Find a region, whose neuroids lie together, so that it can be read in one piece."""
    members = np.flatnonzero(regions == region)
    if not len(members):
        raise ValueError(f"No neuroid of region {region} is there, only of {', '.join(sorted(set(regions)))}.")
    found = slice(int(members[0]), int(members[-1]) + 1)
    if found.stop - found.start != len(members):
        raise ValueError(f"The neuroids of {region} do not lie together, as this format asks for.")
    return found


def _with_stimulus_columns(array: xr.DataArray, stimulus_set: StimulusSet) -> xr.DataArray:
    """Add the stimulus set's columns to the presentations, as Brain-Score does whenever it loads an assembly."""
    rows = pd.DataFrame(stimulus_set).set_index("stimulus_id").loc[array["stimulus_id"].values]
    return array.assign_coords(
        {name: ("presentation", rows[name].to_numpy()) for name in rows if name not in array.coords}
    )
