"""Assemblies and stimulus sets as Brain-Score uses them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import xarray as xr
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet

from .artifacts import StoredObject
from .assemblies import explained, read_responses
from .cache import is_cached, local_file
from .environment import ARTIFACTS_VARIABLE as ARTIFACTS_VARIABLE
from .environment import RELEASE_VARIABLE as RELEASE_VARIABLE
from .files import LocalFile, system_errors_explained
from .sources import DatasetFiles, Source, default_source, find_files
from .sources import SimulatedDataWarning as SimulatedDataWarning
from .stimuli import ADVICE, read_stimulus_set


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
        If there is no such split, the assembly has no such region, a file is damaged (its SHA-1 is checked), or the system
        cannot read or write a file.
    """
    with system_errors_explained():
        files = find_files(name, split, default_source() if source is None else source)
        stimulus_set = read_stimulus_set(files, f"{name}.{split}")
        path = local_file(assembly_file(files, region))
        responses = read_responses(path, split, region)
        _require_stimuli(path, responses, stimulus_set)
        with explained(path):
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
    with system_errors_explained():
        files = find_files(name, split, default_source() if source is None else source)
        return read_stimulus_set(files, f"{name}.{split}")


@dataclass(frozen=True)
class Dataset:
    """The files of one split, each on this machine or an S3 object."""

    assembly: Path | StoredObject
    stimulus_table: Path | StoredObject
    stimuli: Path | StoredObject


def find_dataset(name: str, split: str, region: str | None = None, source: Source | None = None) -> Dataset:
    """Find the files of a split. Only small JSON files are read, and nothing is downloaded."""
    files = find_files(name, split, default_source() if source is None else source)
    found = (assembly_file(files, region), files.stimulus_table, files.stimuli)
    return Dataset(*(one if isinstance(one, StoredObject) else one.path for one in found))


def assembly_file(files: DatasetFiles, region: str | None) -> LocalFile | StoredObject:
    """Return the smallest file that holds a region: its own, unless only the whole assembly is in the cache already."""
    whole, part = files.assembly, files.region_assemblies.get(region or "")
    if part is None or (isinstance(whole, StoredObject) and not is_cached(part) and is_cached(whole)):
        return whole
    return part


def _require_stimuli(path: Path, responses: xr.DataArray, stimulus_set: StimulusSet) -> None:
    """Raise a ValueError if an assembly has a stimulus that its stimulus set lacks."""
    with explained(path):
        unknown = set(responses["stimulus_id"].values) - set(stimulus_set["stimulus_id"])
    if unknown:
        raise ValueError(
            f"{path} has responses to {min(map(str, unknown))!r}, which is not in the stimulus table. {ADVICE}"
        )


def _with_stimulus_columns(responses: xr.DataArray, stimulus_set: StimulusSet) -> xr.DataArray:
    """Add the columns of the stimulus set to the presentations, as Brain-Score does whenever it loads an assembly."""
    rows = pd.DataFrame(stimulus_set).set_index("stimulus_id").loc[responses["stimulus_id"].values]
    columns = {column: ("presentation", rows[column].to_numpy()) for column in rows if column not in responses.coords}
    with_columns: xr.DataArray = responses.assign_coords(columns)
    return with_columns
