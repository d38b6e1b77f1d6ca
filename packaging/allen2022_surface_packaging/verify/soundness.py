"""Whether a release is sound: whether its files agree with its manifest and with each other."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image

from ..atomic import sha1_of
from ..errors import one_line
from ..nsd.facts import HEMISPHERES, N_SESSIONS, N_VERTICES_OF_FSAVERAGE, stimulus_name, subject_name
from ..recipe import N_NEUROIDS_OF_PUBLISHED_REGIONS, PUBLISHED_REGIONS, published_dataset
from ..release import (
    DIMENSIONS,
    NEUROID_COORDINATES,
    ORIGIN_COLUMNS,
    SPLITS,
    TIME_BIN,
    FileRecord,
    Manifest,
    ReleaseFolder,
    list_presentations,
)
from .differences import first_difference

if TYPE_CHECKING:
    import xarray

NEUROIDS_AT_A_TIME = 4096  # bounds the memory
UNREADABLE = (AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)


def verify_release(release_path: Path) -> list[str]:
    """Compare the files of a release with its manifest and with each other.

    Returns
    -------
    the problems, a line each; empty if the release is sound

    Raises
    ------
    PackagingError
        If the folder is not a release.
    """
    folder = ReleaseFolder(release_path)
    manifest = Manifest.read(folder)
    problems = _find_file_problems(folder, manifest.files)
    if problems:
        return problems  # a file that is not the one that was written needs no further check
    for find_problems in (_find_stimulus_problems, _find_assembly_problems):
        try:
            problems += find_problems(folder, manifest)
        except UNREADABLE as error:
            problems.append(
                f"{folder} cannot be checked: {type(error).__name__}: {one_line(error)}. Build the release again."
            )
    return problems


def _find_file_problems(folder: ReleaseFolder, records: dict[str, FileRecord]) -> list[str]:
    manifest_name = folder.manifest_path.name
    paths = {folder.file_name(path): path for path in folder.files()}
    missing, unlisted = sorted(set(records) - set(paths)), sorted(set(paths) - set(records))
    problems = [f"{folder.path / name} is missing, but {manifest_name} lists it." for name in missing]
    problems += [f"{paths[name]} is in the release, but {manifest_name} does not list it." for name in unlisted]
    for name in sorted(set(paths) & set(records)):
        problems += _compare_file(paths[name], records[name])
    return problems


def _compare_file(path: Path, expected: FileRecord) -> list[str]:
    size = path.stat().st_size
    if size != expected.size:
        return [f"{path} has {size:,} bytes, expected {expected.size:,}."]
    sha1 = sha1_of(path)
    return [f"{path} has the SHA-1 {sha1}, expected {expected.sha1}."] if sha1 != expected.sha1 else []


def _find_stimulus_problems(folder: ReleaseFolder, manifest: Manifest) -> list[str]:
    problems = []
    images = pd.read_csv(folder.split_path)
    if not images.nsd_id.is_monotonic_increasing or not images.nsd_id.is_unique:
        problems.append(
            f"{folder.split_path.name}: nsd_id is not ascending without repeats, so train and test may overlap."
        )
    problems += _find_origin_problems(folder, images)
    for split in SPLITS:
        table = pd.read_csv(folder.stimulus_table_path(split))
        if table.nsd_id.tolist() != images.nsd_id[images.split == split].tolist():
            problems.append(
                f"{folder.stimulus_table_path(split).name} and {folder.split_path.name} list different images."
            )
        problems += _find_stimulus_table_problems(folder, split, table)
        for name in table.image_file_name:
            problems += _find_image_problems(folder.stimuli_path(split) / name)
    return problems


def _find_origin_problems(folder: ReleaseFolder, images: pd.DataFrame) -> list[str]:
    """Compare the table of origins, if there is one, with that of the split."""
    path = folder.origin_path
    if not path.is_file():
        return []
    table = pd.read_csv(path)
    if tuple(table) != ORIGIN_COLUMNS:
        return [f"{path.name} has the columns {list(table)}, expected {list(ORIGIN_COLUMNS)}."]
    if table.nsd_id.tolist() != images.nsd_id.tolist():
        return [f"{path.name} and {folder.split_path.name} list different images."]
    return [f"{path.name} holds empty cells."] if table.isna().any(axis=None) else []


def _find_stimulus_table_problems(folder: ReleaseFolder, split: str, table: pd.DataFrame) -> list[str]:
    problems = []
    table_name, images_path = folder.stimulus_table_path(split).name, folder.stimuli_path(split)
    if table.stimulus_id.tolist() != [stimulus_name(nsd_id) for nsd_id in table.nsd_id]:
        problems.append(f"{table_name}: a stimulus_id does not belong to its nsd_id.")
    if table.isna().any(axis=None):
        problems.append(f"{table_name} holds empty cells. Brain-Score reads them as NaN, and NaN differs from itself.")
    if sorted(table.image_file_name) != sorted(path.name for path in images_path.iterdir()):
        problems.append(f"{table_name} and the files in {images_path.name}/ differ.")
    return problems


def _find_image_problems(path: Path) -> list[str]:
    try:
        with Image.open(path) as image:
            image.load()
            return [] if image.mode == "RGB" else [f"{path} is {image.mode}, expected RGB."]
    except OSError as error:
        return [f"{path} is not an image ({one_line(error)})."]


def _find_assembly_problems(folder: ReleaseFolder, manifest: Manifest) -> list[str]:
    import xarray  # here, because the import takes a second that a build does not need

    problems = []
    neuroids = {}
    for split in SPLITS:
        path = folder.assembly_path(manifest.name, split)
        nsd_ids = pd.read_csv(folder.stimulus_table_path(split)).nsd_id.to_numpy()
        presentations = list_presentations(split, nsd_ids)
        with xarray.open_dataarray(path) as assembly:
            split_problems = _compare_assembly(assembly, manifest, split, presentations)
            problems += [f"{path.name}: {problem}" for problem in split_problems]
            neuroids[split] = {name: assembly[name].values for name in NEUROID_COORDINATES if name in assembly.coords}
    test_name = folder.assembly_path(manifest.name, "test").name
    for name in sorted(set(neuroids["train"]) & set(neuroids["test"])):
        problems += first_difference(
            f"{test_name}: {name} of neuroid", neuroids["test"][name], neuroids["train"][name], source="but train has"
        )
    return problems


def _compare_assembly(
    assembly: xarray.DataArray, manifest: Manifest, split: str, presentations: pd.DataFrame
) -> list[str]:
    """Compare an assembly with the manifest and with the presentations that its stimulus table asks for."""
    if assembly.dims != DIMENSIONS:
        return [f"dimensions are {assembly.dims}, expected {DIMENSIONS}."]
    problems = []
    if assembly.dtype != np.float32:
        problems.append(f"values are {assembly.dtype}, expected float32.")
    if assembly.shape != manifest.shapes[split]:
        problems.append(f"shape is {assembly.shape}, but the manifest says {manifest.shapes[split]}.")
    names = _list_coordinates(assembly, "presentation")
    if names != set(presentations):
        problems.append(f"presentation coordinates are {sorted(names)}, expected {sorted(map(str, presentations))}.")
    for name in names & set(presentations):
        expected = presentations[name].to_numpy()
        problems += first_difference(f"{name} of presentation", assembly[name].values, expected)
    for name, values in TIME_BIN.items():
        problems += first_difference(f"{name} of time_bin", assembly[name].values, np.array(values))
    problems += _find_neuroid_problems(assembly, manifest)
    problems += _find_image_count_problem(presentations, manifest, split)
    return problems + _find_invalid_value(assembly)


def _list_coordinates(assembly: xarray.DataArray, dimension: str) -> set[str]:
    return {str(name) for name, values in assembly.coords.items() if values.dims == (dimension,)}


def _find_invalid_value(assembly: xarray.DataArray) -> list[str]:
    """Describe the first value that is not finite."""
    for start in range(0, assembly.sizes["neuroid"], NEUROIDS_AT_A_TIME):
        values = assembly[:, start : start + NEUROIDS_AT_A_TIME, 0].values
        if not np.isfinite(values).all():
            row, column = np.argwhere(~np.isfinite(values))[0]
            neuroid = assembly["neuroid_id"].values[start + column]
            return [f"presentation {row}, neuroid {neuroid} is {values[row, column]}, expected a finite value."]
    return []


def _find_neuroid_problems(assembly: xarray.DataArray, manifest: Manifest) -> list[str]:
    names = _list_coordinates(assembly, "neuroid")
    if names != set(NEUROID_COORDINATES):
        return [f"neuroid coordinates are {sorted(names)}, expected {sorted(NEUROID_COORDINATES)}."]
    neuroids = pd.DataFrame({name: assembly[name].values for name in NEUROID_COORDINATES})
    ranks = _rank_neuroids(neuroids, manifest)
    unknown = np.flatnonzero(ranks.isna().any(axis=1))
    if len(unknown):
        row = int(unknown[0])
        return [f"neuroid {row} has an unknown region, subject or hemisphere: {neuroids.loc[row].to_dict()}."]
    problems = []
    keys = pd.MultiIndex.from_frame(ranks)
    if not keys.is_monotonic_increasing or not keys.is_unique:
        pairs = zip(keys[:-1], keys[1:], strict=True)
        row = next(i for i, (previous, key) in enumerate(pairs, start=1) if key <= previous)
        problems.append(
            f"neuroid {row} ({neuroids.neuroid_id[row]}) is out of order. The order is region, subject, hemisphere, vertex."
        )
    problems += _find_neuroid_id_problems(neuroids, is_complete=manifest.recipe.nan_policy != "drop")
    ceilings = neuroids.nc_testset.dropna()
    if not ceilings.between(0, 100).all():
        problems.append(f"nc_testset ranges from {ceilings.min()} to {ceilings.max()}, outside 0 to 100 percent.")
    return problems + _find_region_size_problems(neuroids, manifest)


def _rank_neuroids(neuroids: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Return numbers by which the neuroids must be ordered; NaN for an unknown region, subject or hemisphere."""
    orders = {
        "region": [region.name for region in manifest.regions],
        "subject": [subject_name(subject) for subject in manifest.recipe.subjects],
        "hemisphere": list(HEMISPHERES),
    }
    ranks = {name: neuroids[name].map({value: i for i, value in enumerate(order)}) for name, order in orders.items()}
    return pd.DataFrame(ranks | {"vertex_index": neuroids.vertex_index})


def _find_neuroid_id_problems(neuroids: pd.DataFrame, *, is_complete: bool) -> list[str]:
    """Check the `neuroid_id`. The numbers in it count on, with gaps if some neuroids were dropped."""
    problems = []
    groups = [neuroids.subject, neuroids.region]
    numbers = neuroids.groupby(groups).cumcount()
    if not is_complete:
        numbers = pd.to_numeric(neuroids.neuroid_id.str.extract(r"_v(\d+)$")[0]).fillna(-1).astype(int)
        not_rising = np.flatnonzero(numbers.groupby(groups).diff() <= 0)
        if len(not_rising):
            row = int(not_rising[0])
            problems.append(
                f"neuroid {row} ({neuroids.neuroid_id[row]}) has no higher number than the neuroid before it."
            )
    rows = zip(neuroids.subject, neuroids.hemisphere, neuroids.region, numbers, strict=True)
    ids = np.array([f"{subject}_{hemisphere}_{region}_v{number:05d}" for subject, hemisphere, region, number in rows])
    return problems + first_difference("neuroid_id of neuroid", neuroids.neuroid_id.to_numpy(), ids)


def _find_region_size_problems(neuroids: pd.DataFrame, manifest: Manifest) -> list[str]:
    """Compare the number of neuroids of each published region with the number on NSD's own atlases."""
    if not _is_full_size(manifest):
        return []
    problems = []
    published = {(region.name, region.atlas, region.labels) for region in PUBLISHED_REGIONS}
    for region in manifest.regions:
        if (region.name, region.atlas, region.labels) not in published:
            continue
        expected = N_NEUROIDS_OF_PUBLISHED_REGIONS[region.name]
        counts = neuroids[neuroids.region == region.name].groupby("subject").size()
        problems += [
            f"{subject} {region.name} has {n} neuroids, expected {expected}."
            for subject, n in counts.items()
            if n != expected
        ]
    return problems


def _find_image_count_problem(presentations: pd.DataFrame, manifest: Manifest, split: str) -> list[str]:
    """Compare the number of images of a published dataset with the number by NSD's own design."""
    dataset = published_dataset(manifest.name)
    n_sessions = {subject_name(subject): N_SESSIONS[subject] for subject in manifest.recipe.subjects}
    if dataset is None or not _is_full_size(manifest) or manifest.sessions != n_sessions:
        return []
    n_images = presentations["nsd_id"].nunique()
    return [f"{n_images} images, expected {dataset.n_images[split]}."] if n_images != dataset.n_images[split] else []


def _is_full_size(manifest: Manifest) -> bool:
    """Return whether a release holds all neuroids of the full surface, so that their number is known."""
    return manifest.n_vertices == N_VERTICES_OF_FSAVERAGE and manifest.recipe.nan_policy == "zero"
