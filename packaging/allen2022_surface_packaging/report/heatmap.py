"""The heat map: a number of every region and subject, and the measures between which a reader chooses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import DoubleArray
from ..release import Manifest
from .colours import scale_steps
from .measures import highest_on_scale
from .statistics import ALL
from .summaries import InvalidSummary, RegionSummary, region_names, subject_names
from .tables import format_number


@dataclass(frozen=True, eq=False)
class HeatMeasure:
    """One measure of the heat map.

    Attributes
    ----------
    values : array of shape (n_regions, n_columns)
        NaN where unknown.
    highest : the end of the scale of colours, which starts at 0
    """

    title: str
    unit: str
    n_digits: int
    values: DoubleArray
    highest: float

    def cells(self) -> list[list[tuple[str, int]]]:
        """Return the text and the number of the colour of each cell, by region; -1 is no colour."""
        steps = scale_steps(self.values, (0, self.highest))
        return [
            [(format_number(value, self.n_digits), int(step)) for value, step in zip(*row, strict=True)]
            for row in zip(self.values, steps, strict=True)
        ]

    @property
    def script_values(self) -> dict[str, object]:
        """What the script of the page needs."""
        rounded = np.round(self.values, self.n_digits)
        return {
            "title": self.title,
            "unit": self.unit,
            "digits": self.n_digits,
            "high": self.highest,
            "values": [[float(value) if np.isfinite(value) else None for value in row] for row in rounded],
        }


@dataclass(frozen=True, eq=False)
class HeatMap:
    """A measure of each region (rows) and subject (columns); the last column is all subjects, if there are several."""

    regions: list[str]
    columns: list[str]
    measures: list[HeatMeasure]


def heat_map(manifest: Manifest, regions: Sequence[RegionSummary], invalid: Sequence[InvalidSummary]) -> HeatMap:
    """Arrange the summaries of regions by region and subject."""
    subjects = subject_names(manifest)
    columns = [*subjects, *([ALL] if len(subjects) > 1 else [])]
    names = region_names(manifest)
    summaries = {(summary.region, summary.subject): summary for summary in regions}
    measures = []
    for title, unit, n_digits, read in _choices(_filled_shares(invalid)):
        values = np.array([[read(summaries[name, column]) for column in columns] for name in names], dtype=np.float64)
        measures.append(HeatMeasure(title, unit, n_digits, values, highest_on_scale(values)))
    return HeatMap(names, columns, measures)


def _choices(
    filled_shares: dict[tuple[str, str], float],
) -> list[tuple[str, str, int, Callable[[RegionSummary], float]]]:
    """Return title, unit, digits and source of each measure. The first one is shown first."""
    return [
        ("Noise ceiling (median)", "%", 1, lambda summary: summary.medians["nc_testset"]),
        ("Noise ceiling from test repetitions (median)", "%", 1, lambda summary: summary.medians["nc_repetitions"]),
        ("Split-half ceiling", "r", 2, lambda summary: summary.split_half),
        ("Correlation of repetitions (median)", "r", 2, lambda summary: summary.medians["repetition_r"]),
        ("Neuroids", "", 0, lambda summary: summary.n_neuroids),
        ("Filled values", "%", 2, lambda summary: filled_shares.get((summary.region, summary.subject), np.nan)),
    ]


def _filled_shares(summaries: Sequence[InvalidSummary]) -> dict[tuple[str, str], float]:
    """Return the share of filled values in percent, of each region of each subject and of all subjects."""
    n_filled: dict[tuple[str, str], int] = {}
    n_values: dict[tuple[str, str], int] = {}
    for summary in summaries:
        for place in ((summary.region, summary.subject), (summary.region, ALL)):
            n_filled[place] = n_filled.get(place, 0) + sum(summary.n_filled.values())
            n_values[place] = n_values.get(place, 0) + sum(summary.n_values.values())
    return {place: 100 * n_filled[place] / n for place, n in n_values.items() if n}
