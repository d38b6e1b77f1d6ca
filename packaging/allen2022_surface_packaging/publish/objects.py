"""The brainio objects of a release, as S3 holds them.

Each split has an assembly, a stimulus table and a ZIP of images. A release of several regions also has an assembly of each
region of each split, so that a loader fetches only what it needs; the only region of a release is the whole.

The same release gives the same bytes, on any day and under any hash seed.
"""

from __future__ import annotations

import logging
import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr

from ..assemble.assembly import create_assembly
from ..errors import PackagingError
from ..files import naming, read_file, sha1_of
from ..release import SPLITS, Manifest, ReleaseFolder
from ..verify.soundness import check_release

logger = logging.getLogger(__name__)

Kind: TypeAlias = Literal["assembly", "stimulus_csv", "stimulus_zip"]

NAME_PARTS: dict[Kind, tuple[str, str]] = {
    "assembly": ("assy", "nc"),
    "stimulus_csv": ("stimulus", "csv"),
    "stimulus_zip": ("stimulus", "zip"),
}
EARLIEST_ZIP_TIME = (1980, 1, 1, 0, 0, 0)
REGULAR_FILE = 0o100644 << 16
UNIX = 3
VALUES_AT_A_TIME = 4 * 2**20  # 16 MiB of float32: it bounds the memory


@dataclass(frozen=True)
class BrainioObject:
    """An object of a release.

    Attributes
    ----------
    identifier : of the dataset, such as "Allen2022_fmri_surface.train" or "Allen2022_fmri_surface.V4.train"
    shape : of an assembly
    neuroids : of the assembly of a region: where they are in the assembly of all regions
    simulated : whether an assembly holds simulated responses
    """

    identifier: str
    kind: Kind
    split: str
    shape: tuple[int, int, int] | None = None
    neuroids: slice | None = None
    simulated: bool = False

    @property
    def name(self) -> str:
        """The name, without a prefix, under which brainio's loaders look for the object."""
        prefix, suffix = NAME_PARTS[self.kind]
        return f"{prefix}_{self.identifier.replace('.', '_')}.{suffix}"


@dataclass(frozen=True)
class ObjectFile:
    """A file that becomes an S3 object; its size is in bytes, and its SHA-1 in hexadecimal."""

    item: BrainioObject
    path: Path
    size: int
    sha1: str


def open_release(path: Path, *, allow_simulated: bool = False) -> tuple[ReleaseFolder, Manifest]:
    """Open a release that is to be published, and verify it. What reads it afterwards need not check its files.

    Raises
    ------
    PackagingError
        If the folder is not a release, or the release is simulated or not sound.
    """
    release = ReleaseFolder(path)
    manifest = Manifest.read(release)
    if manifest.simulated and not allow_simulated:
        raise PackagingError(
            f"{release} was built from a simulated tree, so it is not published. Build a release from NSD's files."
        )
    answer = check_release(path)
    if answer.problems:
        raise PackagingError(f"{release} is not sound, so it is not published: {answer.problems[0]}")
    for note in answer.notes:
        logger.warning(note)
    return release, manifest


def list_objects(release: ReleaseFolder, manifest: Manifest) -> list[BrainioObject]:
    """List the objects of a release: stimulus sets, then assemblies, then regions."""
    stimuli, assemblies, regions = [], [], []
    for split in SPLITS:
        identifier, shape = f"{manifest.name}.{split}", manifest.shapes[split]
        stimuli += [BrainioObject(identifier, "stimulus_csv", split), BrainioObject(identifier, "stimulus_zip", split)]
        assemblies.append(BrainioObject(identifier, "assembly", split, shape, None, manifest.simulated))
        for region, neuroids in find_regions(release.assembly_path(manifest.name, split)).items():
            identifier, shape = f"{manifest.name}.{region}.{split}", (shape[0], neuroids.stop - neuroids.start, 1)
            regions.append(BrainioObject(identifier, "assembly", split, shape, neuroids, manifest.simulated))
    return stimuli + assemblies + (regions if len(regions) > len(SPLITS) else [])


def write_objects(release: ReleaseFolder, manifest: Manifest, folder: Path) -> list[ObjectFile]:
    """Write the objects of a release to `folder`, except for the assemblies of all regions: they are files of the release.

    The regions together are as large as these assemblies.
    """
    files = []
    for item in list_objects(release, manifest):
        path = folder / item.name
        with naming(path):
            if item.kind == "assembly" and item.neuroids is None:
                path = release.assembly_path(manifest.name, item.split)
            elif item.neuroids is not None:
                write_region(release.assembly_path(manifest.name, item.split), item.neuroids, path, item.identifier)
            else:
                write_stimuli(release, item, path)
        files.append(ObjectFile(item, path, path.stat().st_size, sha1_of(path)))
    return files


def write_stimuli(release: ReleaseFolder, item: BrainioObject, path: Path) -> None:
    """Write the stimulus table or the images of a split.

    The table has brainio's column `filename` after `stimulus_id`. The ZIP is flat and in the order of the table, without times
    or owners, and without compression: the images are compressed already.
    """
    table = pd.read_csv(release.stimulus_table_path(item.split), dtype=str, keep_default_na=False)
    if item.kind == "stimulus_csv":
        table.insert(1, "filename", table["image_file_name"])
        table.to_csv(path, index=False, lineterminator="\n")
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in table["image_file_name"]:
            entry = zipfile.ZipInfo(name, EARLIEST_ZIP_TIME)
            entry.create_system = UNIX
            entry.external_attr = REGULAR_FILE
            archive.writestr(entry, read_file(release.stimuli_path(item.split) / name))


def find_regions(assembly_path: Path) -> dict[str, slice]:
    """Return where the neuroids of each region are in an assembly, in its order. Those of a region are contiguous."""
    with xr.open_dataarray(assembly_path) as assembly:
        numbers, names = pd.factorize(assembly["region"].values)  # in the order of the assembly, so they ascend
    bounds = np.searchsorted(numbers, range(len(names) + 1)).tolist()
    return {str(name): slice(*ends) for name, ends in zip(names, pairwise(bounds), strict=True)}


def write_region(assembly_path: Path, neuroids: slice, path: Path, identifier: str) -> None:
    """Write some neuroids of an assembly as an assembly file in the layout of the whole, whose stimulus set they share."""
    with xr.open_dataarray(assembly_path) as whole:
        part = whole[:, neuroids, 0]
        presentations, regional = (
            pd.DataFrame({name: values.values for name, values in part.coords.items() if values.dims == (dimension,)})
            for dimension in part.dims
        )
        with create_assembly(
            path,
            identifier=identifier,
            stimulus_set_identifier=whole.attrs["stimulus_set_identifier"],
            presentations=presentations,
            neuroids=regional,
        ) as write:
            n_at_a_time = max(1, VALUES_AT_A_TIME // len(regional))
            for start in range(0, len(presentations), n_at_a_time):
                write(start, 0, part[start : start + n_at_a_time].values)
