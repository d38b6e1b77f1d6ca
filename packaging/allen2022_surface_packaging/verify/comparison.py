"""Two releases side by side, or a release and the object that `artifacts.json` names: what is the same, and what is not."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray
from PIL import Image

from ..build.assembly import DIMENSIONS
from ..errors import PackagingError
from ..release import MANIFEST, SPLITS, assembly_file, read_manifest

TOLERANCE = 1e-5  # unitless, of responses and of coordinates that are no whole numbers
NEUROIDS_AT_A_TIME = 4096
VERIFICATION = "verify.json"
IDENTICAL, WITHIN_TOLERANCE, DIFFERENT = "identical", "the same within tolerance", "different"
# What tells neuroids and presentations apart, in order of preference: if one is wrong, the next still finds the pairs.
NEUROID_KEYS = (("neuroid_id",), ("subject", "region", "hemisphere", "vertex_index"))
PRESENTATION_KEYS = (("stimulus_id", "repetition"), ("nsd_id", "repetition"))


@dataclass
class Comparison:
    """What differs between a release ("here") and another ("there").

    Attributes
    ----------
    differences : a dict per kind of difference
        ``split``, ``what``, how many ``differ`` and how many of these lie ``beyond tolerance``, ``of`` how many, the
        ``largest`` difference (unitless; None for what is no number), and ``where`` it or the first is.
    filled : for each split, how many cells are zero or NaN in both, and how in only one
        Zero in one and NaN in the other is no difference, but two ways to fill.
    """

    differences: list[dict[str, Any]] = field(default_factory=list)
    filled: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """The comparison in a word or four."""
        if not self.differences:
            return IDENTICAL
        return DIFFERENT if any(row["beyond tolerance"] for row in self.differences) else WITHIN_TOLERANCE

    @property
    def problems(self) -> list[str]:
        """The differences that are beyond the tolerance, a line each."""
        return [
            f"{row['split']} {row['what']}: {row['beyond tolerance']:,} of {row['of']:,} differ. {row['where']}."
            for row in self.differences
            if row["beyond tolerance"]
        ]


def compare_release(release_path: Path, other: str) -> Comparison:
    """Compare a release with another, or one of its assemblies with the object of an identifier in `artifacts.json`.

    Parameters
    ----------
    other : path of a release, or identifier such as "Allen2022_fmri_surface.train" or "Allen2022_fmri_surface.V1.train"
        An object is loaded from S3 by the plugin, whatever folder the environment names.

    Raises
    ------
    PackagingError
        If one of the two is not there or cannot be read.
    """
    here = _open_release(release_path)
    there = _open_release(Path(other)) if Path(other).is_dir() else _load_object(other)
    comparison = Comparison()
    try:
        for split, other_side in there.items():
            own = here[split]
            if other_side.region is not None:
                own = replace(own, assembly=own.assembly[:, own.assembly["region"].values == other_side.region])
            _compare_assemblies(split, own, other_side, comparison)
            _compare_stimuli(split, own, other_side, comparison)
    except (LookupError, ValueError, OSError, RuntimeError) as error:
        raise PackagingError(
            f"{release_path} and {other} cannot be compared ({type(error).__name__}: {error}). Are both whole?"
        ) from error
    finally:
        for side in (*here.values(), *there.values()):
            side.assembly.close()
    return comparison


def write_verification(release_path: Path, findings: Mapping[str, Any]) -> None:
    """Write what was found into `verify.json` of a release."""
    path = release_path / VERIFICATION
    path.write_text(json.dumps(_plain(findings), indent=1, allow_nan=False) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class _Side:
    """One of the two that are compared: an assembly, its stimulus table, and its images by stimulus id."""

    assembly: xarray.DataArray
    stimuli: pd.DataFrame
    image_paths: Mapping[str, Path]
    region: str | None = None
    is_merged: bool = False  # whether the columns of the table are among the assembly's coordinates

    def columns(self, dimension: str) -> pd.DataFrame:
        """Return the coordinates of a dimension; not what was merged in from the stimulus table."""
        from brainscore_core.supported_data_standards.brainio.assemblies import walk_coords  # takes a second

        merged = (
            set(self.stimuli) - {"stimulus_id", "nsd_id"} if self.is_merged and dimension == "presentation" else set()
        )
        return pd.DataFrame(
            {
                name: values
                for name, dims, values in walk_coords(self.assembly)
                if dims == (dimension,) and name not in merged
            }
        )


def _open_release(path: Path) -> dict[str, _Side]:
    name = read_manifest(path)["name"]
    sides = {}
    for split in SPLITS:
        try:
            stimuli = pd.read_csv(path / f"stimulus_metadata_{split}.csv")
            folder = path / f"stimuli_{split}"
            images = dict(zip(stimuli.stimulus_id, [folder / file for file in stimuli.image_file_name], strict=True))
            assembly = xarray.open_dataarray(path / assembly_file(name, split))
        except (OSError, ValueError, AttributeError) as error:
            raise PackagingError(
                f"{path} cannot be compared ({type(error).__name__}: {error}). Is the release whole?"
            ) from error
        sides[split] = _Side(assembly, stimuli, images)
    return sides


def _load_object(identifier: str) -> dict[str, _Side]:
    """Load one assembly and its stimulus set from S3, through the plugin."""
    parts = identifier.split(".")
    if len(parts) not in (2, 3) or parts[-1] not in SPLITS:
        raise PackagingError(
            f"{identifier} is neither the folder of a release, with a {MANIFEST}, nor an identifier such as "
            "Allen2022_fmri_surface.train."
        )
    from brainscore_allen2022_surface.loaders import (
        load_assembly,  # brainscore_vision comes with it, where there is one
    )

    region = parts[1] if len(parts) == 3 else None
    with _nothing_local():
        try:
            assembly = load_assembly(parts[0], parts[-1], region=region)
        except (OSError, ValueError, KeyError) as error:
            raise PackagingError(f"{identifier} cannot be loaded: {error}") from error
    stimulus_set = assembly.attrs["stimulus_set"]
    stimuli = pd.DataFrame(stimulus_set)
    return {parts[-1]: _Side(assembly, stimuli, stimulus_set.stimulus_paths, region=region, is_merged=True)}


@contextmanager
def _nothing_local() -> Iterator[None]:
    """Let the plugin load from S3: a folder in the environment would come first."""
    from brainscore_allen2022_surface.releases import VARIABLE

    setting = os.environ.pop(VARIABLE, None)
    try:
        yield
    finally:
        if setting is not None:
            os.environ[VARIABLE] = setting


def _compare_assemblies(split: str, here: _Side, there: _Side, comparison: Comparison) -> None:
    if here.assembly.dims != there.assembly.dims or here.assembly.dtype != there.assembly.dtype:
        own, other = (f"{side.assembly.dtype} of {side.assembly.dims}" for side in (here, there))
        comparison.differences.append(_row(split, "kind of assembly", 1, 1, f"{own} here, {other} there"))
        if set(here.assembly.dims) != set(there.assembly.dims):
            return
    places = {}
    for dimension, keys in (("presentation", PRESENTATION_KEYS), ("neuroid", NEUROID_KEYS), ("time_bin", ())):
        own, other = here.columns(dimension), there.columns(dimension)
        place = _find_pairs(own, other, keys)
        comparison.differences += _missing_rows(split, dimension, own, other, place)
        comparison.differences += _order_rows(split, dimension, own, place)
        comparison.differences += _coordinate_rows(split, dimension, own, other, place)
        places[dimension] = place
    _compare_values(split, here, there, places["presentation"], places["neuroid"], comparison)


def _find_pairs(here: pd.DataFrame, there: pd.DataFrame, keys: Sequence[tuple[str, ...]]) -> np.ndarray:
    """Return for each row here its place there, -1 for none; by the key that leaves the fewest rows alone."""
    best: np.ndarray | None = None
    for key in keys:
        names = [name for name in key if name in here and name in there]
        own, other = (pd.MultiIndex.from_frame(table[names]) if names else pd.Index([]) for table in (here, there))
        if not names or not own.is_unique or not other.is_unique:
            continue
        place = other.get_indexer(own)
        if best is None or (place < 0).sum() < (best < 0).sum():
            best = place
    if best is None:  # nothing to tell them apart by: they count as they come
        best = np.where(np.arange(len(here)) < len(there), np.arange(len(here)), -1)
    return best


def _missing_rows(
    split: str, dimension: str, here: pd.DataFrame, there: pd.DataFrame, place: np.ndarray
) -> list[dict[str, Any]]:
    rows = []
    only_here = np.flatnonzero(place < 0)
    only_there = np.setdiff1d(np.arange(len(there)), place)
    for table, alone, side in ((here, only_here, "here"), (there, only_there, "there")):
        if len(alone):
            rows.append(_row(split, f"{dimension}s only {side}", len(alone), len(table), _label(table, alone[0])))
    return rows


def _order_rows(split: str, dimension: str, here: pd.DataFrame, place: np.ndarray) -> list[dict[str, Any]]:
    paired = np.flatnonzero(place >= 0)
    moved = paired[np.argsort(np.argsort(place[paired])) != np.arange(len(paired))]
    if not len(moved):
        return []
    where = f"{_label(here, moved[0])} is number {moved[0]} here, {place[moved[0]]} there"
    return [_row(split, f"order of {dimension}s", len(moved), len(paired), where)]


def _coordinate_rows(
    split: str, dimension: str, here: pd.DataFrame, there: pd.DataFrame, place: np.ndarray
) -> list[dict[str, Any]]:
    rows = []
    for name in [name for name in here if name not in there] + [name for name in there if name not in here]:
        side = "here" if name in here else "there"
        rows.append(_row(split, f"coordinate {name}", len(here), len(here), f"only {side}"))
    paired = np.flatnonzero(place >= 0)
    for name in [name for name in here if name in there]:
        own, other = here[name].to_numpy()[paired], there[name].to_numpy()[place[paired]]
        rows += _column_rows(split, f"coordinate {name}", own, other, here.iloc[paired])
    return rows


def _column_rows(
    split: str, what: str, own: np.ndarray, other: np.ndarray, table: pd.DataFrame
) -> list[dict[str, Any]]:
    """Compare two columns that belong to the rows of `table`."""
    with np.errstate(invalid="ignore"):
        differ = np.asarray(own != other) & ~(pd.isna(own) & pd.isna(other))
    if not differ.any():
        return []
    first = int(np.flatnonzero(differ)[0])
    largest, n_beyond = None, int(differ.sum())
    if {own.dtype.kind, other.dtype.kind} <= set("iuf"):
        apart = np.abs(own.astype(float) - other.astype(float))
        apart[~differ] = 0
        apart[np.isnan(apart)] = np.inf
        first = int(np.argmax(apart))
        largest = float(apart[first])
        n_beyond = int((apart > TOLERANCE).sum())
    where = f"{_label(table, first)}: {own[first]} here, {other[first]} there"
    return [_row(split, what, int(differ.sum()), len(own), where, largest, n_beyond)]


def _label(table: pd.DataFrame, row: int) -> str:
    """Name a row of a table of neuroids, presentations or time bins."""
    own = table.iloc[int(row)]
    if "neuroid_id" in own:
        return str(own["neuroid_id"])
    if "stimulus_id" in own:
        return (
            f"{own['stimulus_id']} repetition {own['repetition']}" if "repetition" in own else str(own["stimulus_id"])
        )
    return f"number {row}"


def _compare_values(
    split: str, here: _Side, there: _Side, presentation: np.ndarray, neuroid: np.ndarray, comparison: Comparison
) -> None:
    """Compare all values that both hold, a block of neuroids at a time."""
    own_values, other_values = (side.assembly.variable.transpose(*DIMENSIONS) for side in (here, there))
    other_values = other_values.load()
    presentations, neuroids = here.columns("presentation"), here.columns("neuroid")
    rows = np.flatnonzero(presentation >= 0)
    groups: dict[tuple[str, str], _Values] = {}
    filled = dict.fromkeys(("both", "zero here, NaN there", "NaN here, zero there", "here only", "there only"), 0)
    for (region, subject), own in neuroids.groupby(["region", "subject"], sort=False):
        values = groups.setdefault((str(region), str(subject)), _Values())
        members = own.index.to_numpy()[neuroid[own.index.to_numpy()] >= 0]
        for start in range(0, len(members), NEUROIDS_AT_A_TIME):
            block = members[start : start + NEUROIDS_AT_A_TIME]
            span = slice(int(block[0]), int(block[-1]) + 1)
            own_block = own_values[:, span].values[rows][:, block - span.start, 0]
            other_block = other_values.values[presentation[rows][:, None], neuroid[block], 0]
            values.add(own_block, other_block, rows, block, filled)
    comparison.filled[split] = filled
    for (region, subject), values in groups.items():
        for what, kind in (("values", values.unlike), ("cells filled in one only", values.filled_in_one)):
            if kind.n:
                where = (
                    f"{_label(presentations, kind.row)}, {_label(neuroids, kind.neuroid)}: {kind.own:.6g} here, "
                    f"{kind.other:.6g} there; in {_some(neuroids, kind.neuroids, 'neuroid')} and "
                    f"{_some(presentations, kind.rows, 'presentation')}"
                )
                comparison.differences.append(
                    _row(
                        split,
                        f"{what} of {subject} {region}",
                        kind.n,
                        values.n,
                        where,
                        kind.largest,
                        kind.n_beyond,
                    )
                )
    for what in ("zero here, NaN there", "NaN here, zero there"):
        if filled[what]:
            n_values = sum(values.n for values in groups.values())
            comparison.differences.append(
                _row(split, f"cells filled with {what}", filled[what], n_values, "everywhere", None, 0)
            )


@dataclass
class _Cells:
    """Cells that differ in one way, and the worst of them; presentations and neuroids of those beyond the tolerance, if any."""

    n: int = 0
    n_beyond: int = 0
    largest: float = -1.0
    row: int = 0
    neuroid: int = 0
    own: float = 0.0
    other: float = 0.0
    rows: set[int] = field(default_factory=set)
    neuroids: set[int] = field(default_factory=set)

    def add(self, own: np.ndarray, other: np.ndarray, mask: np.ndarray, rows: np.ndarray, neuroids: np.ndarray) -> None:
        """Count the cells of `mask`, both of shape (n_rows, n_neuroids)."""
        if not mask.any():
            return
        difference = np.where(mask, np.abs(own.astype(float) - other.astype(float)), -1.0)
        difference[np.isnan(difference)] = np.inf
        i, j = np.unravel_index(difference.argmax(), difference.shape)
        beyond = difference > TOLERANCE
        if beyond.any() and not self.n_beyond:  # those that only round differently matter no more
            self.rows.clear()
            self.neuroids.clear()
        self.n += int(mask.sum())
        self.n_beyond += int(beyond.sum())
        noted = beyond if self.n_beyond else mask
        self.rows |= set(rows[noted.any(axis=1)].tolist())
        self.neuroids |= set(neuroids[noted.any(axis=0)].tolist())
        if difference[i, j] > self.largest:
            self.largest, self.row, self.neuroid = float(difference[i, j]), int(rows[i]), int(neuroids[j])
            self.own, self.other = float(own[i, j]), float(other[i, j])


@dataclass
class _Values:
    """The values of one subject's region on both sides."""

    n: int = 0
    unlike: _Cells = field(default_factory=_Cells)
    filled_in_one: _Cells = field(default_factory=_Cells)

    def add(
        self, own: np.ndarray, other: np.ndarray, rows: np.ndarray, neuroids: np.ndarray, filled: dict[str, int]
    ) -> None:
        """Compare a block of shape (n_rows, n_neuroids); zero and NaN are what NaN are filled with, or not."""
        own_nan, other_nan = np.isnan(own), np.isnan(other)
        own_filled, other_filled = own_nan | (own == 0), other_nan | (other == 0)
        # A constant vertex is exactly zero on one side, and rounded to nearly zero on the other
        in_one = (own_filled ^ other_filled) & ~(np.abs(own - other) <= TOLERANCE)
        self.n += own.size
        self.filled_in_one.add(own, other, in_one, rows, neuroids)
        self.unlike.add(own, other, ~in_one & (own != other) & ~(own_filled & other_filled), rows, neuroids)
        filled["both"] += int((own_filled & other_filled).sum())
        filled["zero here, NaN there"] += int(((own == 0) & other_nan).sum())
        filled["NaN here, zero there"] += int((own_nan & (other == 0)).sum())
        filled["here only"] += int((in_one & own_filled).sum())
        filled["there only"] += int((in_one & other_filled).sum())


def _some(table: pd.DataFrame, rows: set[int], what: str) -> str:
    listed = ", ".join(_label(table, row) for row in sorted(rows)[:3]) + (", ..." if len(rows) > 3 else "")
    return f"{len(rows):,} {what}{'s' * (len(rows) > 1)} ({listed})"


def _compare_stimuli(split: str, here: _Side, there: _Side, comparison: Comparison) -> None:
    """Compare the stimulus tables and the pixels of the images that both have; presentations tell which only one has."""
    own, other = (side.stimuli.set_index("stimulus_id") for side in (here, there))
    common = [stimulus_id for stimulus_id in own.index if stimulus_id in other.index]
    table = own.loc[common].reset_index()
    for name in [name for name in own if name in other and name not in ("image_file_name", "filename")]:
        own_column, other_column = own.loc[common, name].to_numpy(), other.loc[common, name].to_numpy()
        comparison.differences += _column_rows(split, f"stimulus column {name}", own_column, other_column, table)
    differing = {}
    for stimulus_id in common:
        difference = _image_difference(here.image_paths[stimulus_id], there.image_paths[stimulus_id])
        if difference is not None:
            differing[stimulus_id] = difference
    if differing:
        worst = max(differing, key=lambda stimulus_id: differing[stimulus_id][0])
        comparison.differences.append(
            _row(
                split,
                "images (0 to 255)",
                len(differing),
                len(common),
                f"{worst}: {differing[worst][1]}",
                differing[worst][0],
            )
        )


def _image_difference(own_path: Path, other_path: Path) -> tuple[float, str] | None:
    """Return the largest difference of a pixel and where it is, or None if the images show the same."""
    if not own_path.is_file() or not other_path.is_file():
        return math.inf, f"{own_path if other_path.is_file() else other_path} is missing"
    if own_path.read_bytes() == other_path.read_bytes():
        return None
    try:
        own, other = (np.asarray(Image.open(path)).astype(int) for path in (own_path, other_path))
    except OSError as error:
        return math.inf, f"cannot be read ({error})"
    if own.shape != other.shape:
        return math.inf, f"shape {own.shape} here, {other.shape} there"
    differences = np.abs(own - other).max(axis=-1)
    if not differences.any():
        return None
    row, column = np.unravel_index(differences.argmax(), differences.shape)
    return float(differences[row, column]), (
        f"pixel (row {row}, column {column}) is {own[row, column].tolist()} here, {other[row, column].tolist()} there; "
        f"{np.count_nonzero(differences):,} pixels differ"
    )


def _row(
    split: str, what: str, differ: int, of: int, where: str, largest: float | None = None, beyond: int | None = None
) -> dict[str, Any]:
    return {
        "split": split,
        "what": what,
        "differ": differ,
        "beyond tolerance": differ if beyond is None else beyond,
        "of": of,
        "largest": largest,
        "where": where,
    }


def _plain(value: Any) -> Any:
    """Turn tables and infinities into what JSON has."""
    if isinstance(value, pd.DataFrame):
        return _plain(value.to_dict("records"))
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
