"""Two releases side by side: their facts, their options, and the ceilings of their regions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .summaries import RegionSummary
from .tables import MISSING, Table, format_count, format_number

LETTERS = ("A", "B")  # of the release of the page, and of the other one


@dataclass(frozen=True)
class Pair:
    """The release of the page and another one.

    Attributes
    ----------
    names : of both releases
    facts : a row per fact or option, with the texts of both releases
    regions : a row per region and subject of either release
    """

    names: tuple[str, str]
    facts: Table
    regions: Table


def compare_pair(
    names: tuple[str, str],
    facts: tuple[Sequence[tuple[str, str]], Sequence[tuple[str, str]]],
    regions: tuple[Sequence[RegionSummary], Sequence[RegionSummary]],
) -> Pair:
    """Arrange the facts and the summaries of two releases side by side.

    Parameters
    ----------
    names, facts, regions : of the release of the page and of the other one
        Facts are pairs of a term and a text.
    """
    return Pair(names, _fact_table(*map(dict, facts)), _region_table(*regions))


def _fact_table(first: dict[str, str], second: dict[str, str]) -> Table:
    rows = []
    for term in dict.fromkeys([*first, *second]):
        texts = [facts.get(term, MISSING) for facts in (first, second)]
        rows.append([term, *texts, "equal" if texts[0] == texts[1] else "different"])
    return Table("Facts and options of both releases", ("Fact", *LETTERS, ""), rows)


def _region_table(first: Sequence[RegionSummary], second: Sequence[RegionSummary]) -> Table:
    summaries = [{(summary.region, summary.subject): summary for summary in side} for side in (first, second)]
    rows = []
    for region, subject in dict.fromkeys([*summaries[0], *summaries[1]]):
        sides = [side.get((region, subject)) for side in summaries]
        ceilings = [side.medians["nc_testset"] if side else np.nan for side in sides]
        split_halves = [side.split_half if side else np.nan for side in sides]
        rows.append(
            [
                region,
                subject,
                *(format_count(side.n_neuroids) if side else MISSING for side in sides),
                *(format_number(value, 1) for value in (*ceilings, ceilings[1] - ceilings[0])),
                *(format_number(value, 3) for value in (*split_halves, split_halves[1] - split_halves[0])),
            ]
        )
    columns = [
        *(f"Neuroids {letter}" for letter in LETTERS),
        *(f"Median noise ceiling {side} (%)" for side in (*LETTERS, "B − A")),
        *(f"Split-half ceiling {side} (r)" for side in (*LETTERS, "B − A")),
    ]
    return Table("Regions and subjects of both releases", ("Region", "Subject", *columns), rows, n_heads=2)
