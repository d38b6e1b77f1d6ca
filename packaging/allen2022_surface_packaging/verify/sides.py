"""The two sides of a comparison: a release on disk, or a published object."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import xarray

from ..errors import PackagingError, one_line
from ..plugin import import_plugin
from ..release import SPLITS, Manifest, ReleaseFolder
from .assemblies import open_assembly
from .tables import FILE_NAME_COLUMN, read_stimulus_table


@dataclass(frozen=True, eq=False)
class Side:
    """One split of a release, or of a published object.

    Attributes
    ----------
    stimuli : the stimulus table
    image_paths : the path of each image by its stimulus id
    merged_columns : the stimulus columns that the plugin added to the presentations
    region : the only region in the assembly; None if it has all
    """

    assembly: xarray.DataArray
    stimuli: pd.DataFrame
    image_paths: Mapping[str, Path]
    merged_columns: frozenset[str] = frozenset()
    region: str | None = None

    def coordinates(self, dimension: str) -> pd.DataFrame:
        """Return the coordinates of a dimension as columns, without those that were merged in."""
        from brainscore_core.supported_data_standards.brainio.assemblies import walk_coords  # here: it takes a second

        merged_columns = self.merged_columns if dimension == "presentation" else frozenset()
        return pd.DataFrame(
            {
                name: values
                for name, dimensions, values in walk_coords(self.assembly)
                if dimensions == (dimension,) and name not in merged_columns
            }
        )

    def select_region(self, region: str | None) -> Side:
        """Return this side with the neuroids of one region; None stands for all regions."""
        if region is None:
            return self
        if "region" not in self.assembly.coords or self.assembly["region"].dims != ("neuroid",):
            raise PackagingError(f"The release cannot be compared with {region}: its neuroids have no region.")
        return replace(self, assembly=self.assembly[:, self.assembly["region"].values == region], region=region)


def open_release(path: Path) -> dict[str, Side]:
    """Open both splits of a release.

    Raises
    ------
    PackagingError
        If the folder is not a release, or one of its files is missing or damaged.
    """
    folder = ReleaseFolder(path)
    name = Manifest.read(folder).name
    sides: dict[str, Side] = {}
    try:
        for split in SPLITS:
            stimuli = read_stimulus_table(folder.stimulus_table_path(split))
            paths = [folder.stimuli_path(split) / file_name for file_name in stimuli[FILE_NAME_COLUMN]]
            assembly = open_assembly(folder.assembly_path(name, split))
            sides[split] = Side(assembly, stimuli, dict(zip(stimuli["stimulus_id"], paths, strict=True)))
    except PackagingError:
        for side in sides.values():
            side.assembly.close()
        raise
    return sides


def load_object(identifier: str) -> dict[str, Side]:
    """Load one assembly and its stimulus set with the plugin, always from S3.

    Parameters
    ----------
    identifier : such as "Allen2022_fmri_surface.train" or "Allen2022_fmri_surface.V1.train"

    Raises
    ------
    PackagingError
        If the identifier is malformed, or the object cannot be loaded.
    """
    parsed = re.fullmatch(rf"([^.]+)(?:\.([^.]+))?\.({'|'.join(SPLITS)})", identifier)
    if parsed is None:
        raise PackagingError(
            f"{identifier} is neither the folder of a release nor an identifier such as Allen2022_fmri_surface.train."
        )
    name, region, split = parsed.groups()
    loaders = import_plugin("loaders")
    # Also if the environment names a release: an identifier means what is published.
    source = os.environ.get(loaders.ARTIFACTS_VARIABLE) or loaders.SHIPPED_ARTIFACTS_PATH
    try:
        assembly = loaders.load_assembly(name, split, region=region, source=source)
    except (OSError, ValueError, KeyError) as error:
        raise PackagingError(f"{identifier} cannot be loaded: {one_line(error)}") from error
    stimulus_set = assembly.attrs["stimulus_set"]
    stimuli = pd.DataFrame(stimulus_set)
    merged_columns = frozenset(str(column) for column in stimuli) - {"stimulus_id", "nsd_id"}
    return {split: Side(assembly, stimuli, stimulus_set.stimulus_paths, merged_columns, region)}
