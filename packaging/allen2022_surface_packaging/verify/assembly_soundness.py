"""Whether the assemblies of a release agree with its manifest, its tables and each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import netCDF4
import numpy as np
import pandas as pd

from ..arrays import AnyArray, DoubleArray, IntArray
from ..errors import PackagingError, one_line, raise_if_of_machine
from ..facts import (
    HEMISPHERES,
    N_REPETITIONS,
    N_SESSIONS,
    N_TRIALS_PER_SESSION,
    N_VERTICES_OF_FSAVERAGE,
    subject_name,
)
from ..recipe import N_NEUROIDS_OF_PUBLISHED_REGIONS, PUBLISHED_REGIONS, published_dataset
from ..release import (
    NEUROID_COORDINATES,
    SPLITS,
    TIME_BIN,
    UNREADABLE,
    Manifest,
    ReleaseFolder,
    list_presentations,
    require_regular_file,
)
from .differences import first_difference
from .tables import read_stimulus_table

if TYPE_CHECKING:
    import xarray

NEUROIDS_AT_A_TIME = 4096  # bounds the memory
IMAGES_AT_A_TIME = 256
# An image that is missing lowers the sum of squares by 1. A smaller difference is rounding.
LEAST_SQUARE_OF_AN_IMAGE = 0.5
VARIABLE_NAME = "data"
NUMBER_KINDS = {VARIABLE_NAME: "float32", "nc_testset": "float64"}  # all other numbers are int64
TEXT_COORDINATES = ("stimulus_id", "neuroid_id", "subject", "hemisphere", "region")
STANDARD_TOLERANCE = 1e-4  # of mean and deviation over images: float32 rounds each value


def find_assembly_problems(folder: ReleaseFolder, manifest: Manifest) -> Iterator[str]:
    """Compare both assemblies with the manifest, with their stimulus tables and with each other.

    Raises
    ------
    PackagingError
        If an assembly or a stimulus table cannot be read.
    """
    # Here, because they import xarray, which takes a second that a build does not need.
    from .assemblies import opened_assembly, require_coordinates

    neuroids, moments = {}, {}
    for split in SPLITS:
        path = folder.assembly_path(manifest.name, split)
        nsd_ids = read_stimulus_table(folder.stimulus_table_path(split))["nsd_id"].to_numpy()
        presentations = list_presentations(split, nsd_ids)
        names = [str(name) for name in presentations]
        kinds, problems = _read_layout(path, f"{manifest.name}.{split}", names)
        with opened_assembly(path, decode=False) as assembly:
            require_coordinates(path, assembly, names)
            if not kinds:  # else the values cannot be compared
                neuroids[split] = pd.DataFrame({name: assembly[name].values for name in NEUROID_COORDINATES})
                problems += _compare_assembly(assembly, neuroids[split], manifest, split, presentations)
                moments[split] = _Moments.of(assembly, split)
                problems += moments[split].find_invalid_value(neuroids[split])
        yield from (f"{path.name}: {problem}" for problem in kinds + problems)
    if len(neuroids) < len(SPLITS):
        return
    test_name = folder.assembly_path(manifest.name, "test").name
    n_differences = 0
    for name in NEUROID_COORDINATES:
        for problem in first_difference(
            f"{test_name}: {name} of neuroid",
            neuroids["test"][name].to_numpy(),
            neuroids["train"][name].to_numpy(),
            source="but train has",
        ):
            n_differences += 1
            yield problem
    if not n_differences and all(m.is_finite for m in moments.values()):
        yield from _find_filled_problems(folder, manifest, neuroids["train"], moments)
        yield from _find_standard_problems(folder, manifest, neuroids["train"], moments)


def _read_layout(path: Path, identifier: str, presentation_coordinates: list[str]) -> tuple[list[str], list[str]]:
    """Compare what the file holds beside its values: variables, types, attributes and storage.

    Returns
    -------
    the problems of types, and the others
    """
    names = [*presentation_coordinates, *NEUROID_COORDINATES, *TIME_BIN]
    attributes = {
        "coordinates": " ".join(names),
        "identifier": identifier,
        "stimulus_set_identifier": identifier,
    }

    def read() -> tuple[list[str], list[str]]:
        with netCDF4.Dataset(path) as file:
            if set(file.variables) != {VARIABLE_NAME, *names} or file.groups or file.ncattrs():
                raise PackagingError(
                    f"{path} holds the variables {sorted(file.variables)}, the groups {sorted(file.groups)} and the attributes "
                    f"{file.ncattrs()}, expected only the variables {sorted([VARIABLE_NAME, *names])}. Build the release again."
                )
            variables = [file[VARIABLE_NAME], *(file[name] for name in names)]
            kinds = [problem for variable in variables for problem in _find_kind_problems(variable)]
            problems = [*_find_storage_problems(file[VARIABLE_NAME])]
            for variable in variables:
                problems += _find_attribute_problems(variable, attributes if variable.name == VARIABLE_NAME else {})
            return kinds, problems

    require_regular_file(path)
    try:
        return read()
    except UNREADABLE as error:
        raise_if_of_machine(error, path)
        raise PackagingError(
            f"{path} cannot be read as NetCDF ({one_line(error)}). Build the release again."
        ) from error


def _find_kind_problems(variable: netCDF4.Variable[Any]) -> Iterator[str]:
    kind = "text" if variable.dtype is str or variable.dtype == "S1" else str(variable.dtype)
    expected = "text" if variable.name in TEXT_COORDINATES else NUMBER_KINDS.get(variable.name, "int64")
    if kind != expected:
        yield f"{variable.name} is {kind}, expected {expected}."


def _find_storage_problems(variable: netCDF4.Variable[Any]) -> Iterator[str]:
    if variable.endian() != "little":
        yield f"{variable.name} is {variable.endian()}-endian, expected little-endian."
    if variable.chunking() != "contiguous":
        yield f"{variable.name} is stored in chunks, expected one contiguous block, in which a region is a slice."


def _find_attribute_problems(variable: netCDF4.Variable[Any], expected: dict[str, str]) -> Iterator[str]:
    found = {name: str(variable.getncattr(name)) for name in variable.ncattrs()}
    if variable.name in TEXT_COORDINATES:
        found.pop("_Encoding", None)  # netCDF's own
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            yield f"the attribute {name} of {variable.name} is {found.get(name)!r}, expected {expected.get(name)!r}."


def _compare_assembly(
    assembly: xarray.DataArray, neuroids: pd.DataFrame, manifest: Manifest, split: str, presentations: pd.DataFrame
) -> Iterator[str]:
    """Compare the coordinates of an assembly with the manifest and with the presentations of its stimulus table."""
    if assembly.shape != manifest.shapes[split]:
        yield f"shape is {assembly.shape}, but the manifest says {manifest.shapes[split]}."
    for name, column in presentations.items():
        yield from first_difference(f"{name} of presentation", assembly[name].values, column.to_numpy())
    for name, values in TIME_BIN.items():
        yield from first_difference(f"{name} of time_bin", assembly[name].values, np.array(values))
    yield from _find_neuroid_problems(neuroids, manifest)
    yield from _find_image_count_problem(presentations, manifest, split)


@dataclass(frozen=True, eq=False)
class _Moments:
    """What one pass over the values of an assembly gives, each an array of shape (n_neuroids,).

    Attributes
    ----------
    n_images : over which the sums run; repetitions are averaged before
    n_presentations : how many values each neuroid has
    total, total_of_squares : over the images
    n_zeros : how many values are zero
    invalid_rows : the first presentation with a value that is not finite; -1 if there is none
    """

    n_images: int
    n_presentations: int
    total: DoubleArray
    total_of_squares: DoubleArray
    n_zeros: IntArray
    invalid_rows: IntArray

    @classmethod
    def of(cls, assembly: xarray.DataArray, split: str) -> _Moments:
        """Read an assembly, some neuroids at a time."""
        from .assemblies import read_block  # here, because it imports xarray

        n_repetitions = N_REPETITIONS if split == "test" else 1
        n_presentations, n_neuroids = assembly.sizes["presentation"], assembly.sizes["neuroid"]
        total, total_of_squares = np.zeros(n_neuroids), np.zeros(n_neuroids)
        n_zeros, invalid_rows = np.zeros(n_neuroids, dtype=np.int64), np.full(n_neuroids, -1)
        for start in range(0, n_neuroids, NEUROIDS_AT_A_TIME):
            block = slice(start, start + NEUROIDS_AT_A_TIME)
            values = read_block(assembly, block)
            if np.count_nonzero(values) < values.size:  # a second pass, with the axis, is several times slower
                n_zeros[block] = n_presentations - np.count_nonzero(values, axis=0)
            images: AnyArray = values
            with np.errstate(over="ignore", invalid="ignore"):
                if n_repetitions > 1 and n_presentations % n_repetitions == 0:
                    images = np.add.reduce([values[i::n_repetitions] for i in range(n_repetitions)])
                    images /= np.float32(n_repetitions)
                total[block] = images.sum(axis=0, dtype=np.float64)
                for start_row in range(0, len(images), IMAGES_AT_A_TIME):  # single precision holds a short sum
                    part = images[start_row : start_row + IMAGES_AT_A_TIME]
                    total_of_squares[block] += np.einsum("ij,ij->j", part, part)
            if not np.isfinite(total[block]).all():
                invalid = ~np.isfinite(values)
                invalid_rows[block] = np.where(invalid.any(axis=0), invalid.argmax(axis=0), -1)
        n_images = n_presentations // n_repetitions
        return cls(n_images, n_presentations, total, total_of_squares, n_zeros, invalid_rows)

    @property
    def is_finite(self) -> bool:
        """Whether every value is finite."""
        return bool((self.invalid_rows < 0).all())

    def find_invalid_value(self, neuroids: pd.DataFrame) -> Iterator[str]:
        """Describe the first neuroid with a value that is not finite."""
        columns = np.flatnonzero(self.invalid_rows >= 0)
        if len(columns):
            row, name = self.invalid_rows[columns[0]], neuroids["neuroid_id"][columns[0]]
            yield f"presentation {row}, neuroid {name} is nan or infinite, expected a finite value."


def _find_neuroid_problems(neuroids: pd.DataFrame, manifest: Manifest) -> Iterator[str]:
    ranks = _rank_neuroids(neuroids, manifest)
    unknown = np.flatnonzero(ranks.isna().any(axis=1))
    if len(unknown):
        row = int(unknown[0])
        yield f"neuroid {row} has an unknown region, subject or hemisphere: {neuroids.loc[row].to_dict()}."
        return
    keys = pd.MultiIndex.from_frame(ranks)
    if not keys.is_monotonic_increasing or not keys.is_unique:
        pairs = zip(keys[:-1], keys[1:], strict=True)
        row = next(i for i, (previous, key) in enumerate(pairs, start=1) if key <= previous)
        name = neuroids.neuroid_id[row]
        yield f"neuroid {row} ({name}) is out of order. The order is region, subject, hemisphere, vertex."
    outside = neuroids.vertex_index[~neuroids.vertex_index.between(0, manifest.n_vertices - 1)]
    if len(outside):
        yield f"vertex_index of neuroid {outside.index[0]} is {outside.iloc[0]}, expected 0 to {manifest.n_vertices - 1:,}."
    yield from _find_neuroid_id_problems(neuroids, is_complete=manifest.recipe.nan_policy != "drop")
    yield from _find_ceiling_problems(neuroids)
    yield from _find_region_size_problems(neuroids, manifest)
    yield from _find_vertex_problems(neuroids)


def _rank_neuroids(neuroids: pd.DataFrame, manifest: Manifest) -> pd.DataFrame:
    """Return numbers by which the neuroids must be ordered; NaN for an unknown region, subject or hemisphere."""
    orders = {
        "region": [region.name for region in manifest.regions],
        "subject": [subject_name(subject) for subject in manifest.recipe.subjects],
        "hemisphere": list(HEMISPHERES),
    }
    ranks = {name: neuroids[name].map({value: i for i, value in enumerate(order)}) for name, order in orders.items()}
    return pd.DataFrame(ranks | {"vertex_index": neuroids.vertex_index})


def _find_neuroid_id_problems(neuroids: pd.DataFrame, *, is_complete: bool) -> Iterator[str]:
    """Check the `neuroid_id`. The numbers in it count on, with gaps if some neuroids were dropped."""
    groups = [neuroids.subject, neuroids.region]
    numbers = neuroids.groupby(groups).cumcount()
    if not is_complete:
        numbers = pd.to_numeric(neuroids.neuroid_id.str.extract(r"_v(\d+)$")[0]).fillna(-1).astype(int)
        not_rising = np.flatnonzero(numbers.groupby(groups).diff() <= 0)
        if len(not_rising):
            row = int(not_rising[0])
            yield f"neuroid {row} ({neuroids.neuroid_id[row]}) has no higher number than the neuroid before it."
    rows = zip(neuroids.subject, neuroids.hemisphere, neuroids.region, numbers, strict=True)
    ids = np.array([f"{subject}_{hemisphere}_{region}_v{number:05d}" for subject, hemisphere, region, number in rows])
    yield from first_difference("neuroid_id of neuroid", neuroids.neuroid_id.to_numpy(), ids)
    # The same number of a region is the same vertex in every subject, because all subjects share the atlas.
    vertices = pd.DataFrame({"region": neuroids.region, "number": numbers, "vertex": neuroids.vertex_index})
    vertices["hemisphere"] = neuroids.hemisphere
    first = vertices.groupby(["region", "number"])[["vertex", "hemisphere"]].transform("first")
    differing = np.flatnonzero(
        (first["vertex"] != vertices["vertex"]) | (first["hemisphere"] != vertices["hemisphere"])
    )
    if len(differing):
        row = int(differing[0])
        yield (
            f"{neuroids.neuroid_id[row]} is vertex {neuroids.vertex_index[row]} of {neuroids.hemisphere[row]}, but the first "
            f"subject has vertex {first['vertex'][row]} of {first['hemisphere'][row]} there ({len(differing):,} differ)."
        )


def _find_ceiling_problems(neuroids: pd.DataFrame) -> Iterator[str]:
    """Check that noise ceilings are percentages, and that a vertex in two regions has one."""
    ceilings = neuroids.nc_testset.dropna()
    if not ceilings.between(0, 100).all():
        yield f"nc_testset ranges from {ceilings.min()} to {ceilings.max()}, outside 0 to 100 percent."
    first = neuroids.groupby(["subject", "hemisphere", "vertex_index"], sort=False)["nc_testset"].transform("first")
    differing = np.flatnonzero((first != neuroids.nc_testset) & ~(first.isna() & neuroids.nc_testset.isna()))
    if len(differing):
        row = int(differing[0])
        yield (
            f"nc_testset of {neuroids.neuroid_id[row]} is {neuroids.nc_testset[row]}, but another region gives "
            f"{first[row]} for the same vertex."
        )


def _find_vertex_problems(neuroids: pd.DataFrame) -> Iterator[str]:
    """Check that a vertex stands once in a region of a subject."""
    repeated = np.flatnonzero(neuroids.duplicated(["subject", "region", "hemisphere", "vertex_index"]))
    if len(repeated):
        yield f"{neuroids.neuroid_id[int(repeated[0])]} has the vertex of another neuroid of its region."


def _find_region_size_problems(neuroids: pd.DataFrame, manifest: Manifest) -> Iterator[str]:
    """Compare the number of neuroids of each region with the manifest, and of published ones with NSD's own atlases."""
    published = {(region.name, region.atlas, region.labels) for region in PUBLISHED_REGIONS}
    counts = neuroids.groupby(["subject", "region"]).size()
    for region in manifest.regions:
        is_published = (region.name, region.atlas, region.labels) in published and _is_full_size(manifest)
        expected = N_NEUROIDS_OF_PUBLISHED_REGIONS[region.name] if is_published else region.n_vertices
        for subject in map(subject_name, manifest.recipe.subjects):
            n = int(counts.get((subject, region.name), 0))
            if n > expected or (n < expected and manifest.recipe.nan_policy != "drop"):
                yield f"{subject} {region.name} has {n} neuroids, expected {expected}."
        if is_published and region.n_vertices != expected:
            yield f"the manifest gives {region.name} {region.n_vertices} vertices, expected {expected}."


def _find_image_count_problem(presentations: pd.DataFrame, manifest: Manifest, split: str) -> Iterator[str]:
    """Compare the number of images of a published dataset with the number by NSD's own design."""
    dataset = published_dataset(manifest.name)
    n_sessions = {subject_name(subject): N_SESSIONS[subject] for subject in manifest.recipe.subjects}
    if dataset is None or not _is_full_size(manifest) or manifest.sessions != n_sessions:
        return
    n_images = presentations["nsd_id"].nunique()
    if n_images != dataset.n_images[split]:
        yield f"{n_images} images, expected {dataset.n_images[split]}."


def _is_full_size(manifest: Manifest) -> bool:
    """Return whether a release holds all neuroids of the full surface, so that their number is known."""
    return manifest.n_vertices == N_VERTICES_OF_FSAVERAGE and manifest.recipe.nan_policy == "zero"


def _find_filled_problems(
    folder: ReleaseFolder, manifest: Manifest, neuroids: pd.DataFrame, moments: dict[str, _Moments]
) -> Iterator[str]:
    """Compare the counts of filled values with the zeros in the assemblies.

    A value that was filled is zero. A vertex that is constant is zero as well, but in every presentation. So the number of zeros
    is an upper bound, and the number of zeros beside other values is a lower bound. A vertex that is constant but for a few
    presentations is zero in most others, because they equal the mean; it is filled only if its squares say that images are
    missing: their sum is the number of images over which it was standardised. That sum is exact where three repetitions make an
    average, as in NSD's own sessions. With `standardize_on` = "train", it tells of the train images only.
    """
    _, squares, n_images = _sum_images(manifest, moments)
    lacks_images = n_images - squares > LEAST_SQUARE_OF_AN_IMAGE
    zeros = pd.DataFrame({f"{split} most": m.n_zeros for split, m in moments.items()})
    for split, m in moments.items():
        is_filled = (m.n_zeros < m.n_presentations) & (lacks_images | (2 * m.n_zeros < m.n_presentations))
        zeros[f"{split} least"] = np.where(is_filled, m.n_zeros, 0)
    for bound in ("most", "least"):
        zeros[f"neuroids {bound}"] = (zeros[[f"{split} {bound}" for split in SPLITS]] > 0).any(axis=1).astype(np.int64)
    sums = zeros.groupby([neuroids.subject, neuroids.region]).sum()
    bounds = {
        key: dict(zip(zeros, row, strict=True)) for key, row in zip(sums.index, sums.to_numpy().tolist(), strict=True)
    }
    for subject, counts in manifest.nan_counts.items():
        for region, count in counts.items():
            limits = bounds.get((subject, region), dict.fromkeys(zeros, 0))
            for part in ("train", "test", "neuroids"):
                least, most = limits[f"{part} least"], limits[f"{part} most"]
                n = getattr(count, part)
                if not least <= n <= most:
                    expected = f"{least}" if least == most else f"{least} to {most}"
                    yield (
                        f"{folder.manifest_path.name} counts {n} filled {'neuroids' if part == 'neuroids' else 'values'} "
                        f"of {subject} {region}{'' if part == 'neuroids' else f' ({part})'}, but the zeros allow {expected}."
                    )
            if (count.train + count.test > 0) != (count.neuroids > 0) or count.neuroids > count.train + count.test:
                yield f"{folder.manifest_path.name} contradicts itself about the filled values of {subject} {region}: {count}."


def _standardised_splits(manifest: Manifest) -> tuple[str, ...]:
    """Return the splits over whose images a recipe standardises each neuroid."""
    return ("train",) if manifest.recipe.standardize_on == "train" else SPLITS


def _sum_images(manifest: Manifest, moments: dict[str, _Moments]) -> tuple[DoubleArray, DoubleArray, int]:
    """Return the sums and the sums of squares over the images that were standardised together, and their number."""
    parts = [moments[split] for split in _standardised_splits(manifest)]
    total = np.add.reduce([part.total for part in parts])
    return total, np.add.reduce([part.total_of_squares for part in parts]), sum(part.n_images for part in parts)


def _find_standard_problems(
    folder: ReleaseFolder, manifest: Manifest, neuroids: pd.DataFrame, moments: dict[str, _Moments]
) -> Iterator[str]:
    """Check that each neuroid has mean 0 and deviation 1 over the images over which the recipe standardises.

    Neuroids with a zero are left out: a zero may have been filled. If all images are standardised together, their averages
    are those of the three repetitions only in NSD's own sessions, because another design may show an image more often.
    """
    splits = _standardised_splits(manifest)
    if len(splits) > 1 and (manifest.from_region_assemblies or manifest.n_trials_per_session != N_TRIALS_PER_SESSION):
        return
    total, squares, n_images = _sum_images(manifest, moments)
    mean = total / n_images
    deviation = np.sqrt(np.maximum(squares / n_images - mean**2, 0))
    is_complete = np.all([moment.n_zeros == 0 for moment in moments.values()], axis=0)
    is_wrong = is_complete & ((np.abs(mean) > STANDARD_TOLERANCE) | (np.abs(deviation - 1) > STANDARD_TOLERANCE))
    columns = np.flatnonzero(is_wrong)
    if len(columns):
        column = int(columns[0])
        yield (
            f"{neuroids.neuroid_id[column]} has mean {mean[column]:.4g} and deviation {deviation[column]:.4g} over the "
            f"{'train' if len(splits) == 1 else 'train and test'} images, expected 0 and 1, because "
            f"{folder.manifest_path.name} says that it was standardised over them ({len(columns):,} such neuroids)."
        )
