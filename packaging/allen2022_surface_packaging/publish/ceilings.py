"""The ceilings of each region of a release, for the text of a pull request."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import PackagingError, one_line
from ..plugin import import_plugin
from ..release import Manifest, ReleaseFolder
from .objects import open_release


@dataclass(frozen=True)
class RegionCeiling:
    """The ceilings of one region of a release, over all subjects.

    Attributes
    ----------
    noise_ceiling : median of `nc_testset` over neuroids, in percent
    split_half : Brain-Score's `internal_consistency` of the test split, unitless
    """

    region: str
    n_neuroids: int
    noise_ceiling: float
    split_half: float


@dataclass(frozen=True)
class ReleaseCeilings:
    """The ceilings of a release.

    Attributes
    ----------
    test_shape, test_sha1 : of the assembly that the ceilings are computed from
    """

    name: str
    test_shape: tuple[int, int, int]
    test_sha1: str
    regions: list[RegionCeiling]


def measure_ceilings(release_path: Path) -> ReleaseCeilings:
    """Compute the ceilings of each region of a release.

    Raises
    ------
    PackagingError
        If the folder is not a release of measurements, or its test split cannot be loaded.
    """
    release, manifest = open_release(release_path)
    file_name = release.file_name(release.assembly_path(manifest.name, "test"))
    try:
        regions = [_measure_region(release, manifest, region.name) for region in manifest.regions]
        return ReleaseCeilings(manifest.name, manifest.shapes["test"], manifest.files[file_name].sha1, regions)
    except (KeyError, OSError, ValueError) as error:
        raise PackagingError(f"{release} has no ceilings ({one_line(error)}). Verify it: verify {release}.") from error


def _measure_region(release: ReleaseFolder, manifest: Manifest, region: str) -> RegionCeiling:
    assembly = import_plugin("loaders").load_assembly(manifest.name, "test", region, source=release.path)
    return RegionCeiling(
        region=region,
        n_neuroids=assembly.sizes["neuroid"],
        noise_ceiling=float(np.nanmedian(assembly["nc_testset"].values)),
        split_half=float(import_plugin("analysis.ceiling").internal_consistency(assembly)),
    )
