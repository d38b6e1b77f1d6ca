"""What needs the attention of a reader first."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import pandas as pd

from .statistics import ALL_REGIONS, ALL_SUBJECTS
from .tables import format_count, format_number, join_words

MUCH_FILLED = 0.01  # of the values of a region of a subject
MANY_WITHOUT_CEILING = 0.05  # of the neuroids
LOW_SHARE = 0.5  # of the typical value: a pair of repetitions or a subject below it is far below the others
FEWEST_SUBJECTS = 3  # to call one of them low
MOST_NAMED = 4  # in a finding; the table it leads to shows the others


def list_findings(groups: pd.DataFrame, pairs: pd.DataFrame, shared_noise: pd.DataFrame) -> list[tuple[str, str]]:
    """List what needs attention in the order of the page: a text, and the section that shows it.

    Parameters
    ----------
    groups : as `summarise_groups`
    pairs : as `correlate_pairs`
    shared_noise : as `measure_shared_noise`
    """
    total = groups.loc[[(ALL_REGIONS, ALL_SUBJECTS)]].to_dict("records")[0]
    regions = groups.drop(ALL_SUBJECTS, level="subject").drop(ALL_REGIONS, level="region")
    texts = {
        "regions": [*_missing_regions(regions), *_low_subjects(regions)],
        "repetitions": _disagreeing_repetitions(pairs.drop(ALL_SUBJECTS)),
        "shared-noise": _shared_noise(shared_noise),
        "invalid": _invalid(regions, total),
    }
    return [(text, section) for section, found in texts.items() for text in found]


def _missing_regions(regions: pd.DataFrame) -> Iterator[str]:
    """Find regions of subjects without a neuroid: a subject may lack a region, or all of its vertices were dropped."""
    names = [f"{region} of {subject}" for region, subject in regions.index[regions["n_neuroids"] == 0]]
    if names:
        yield f"No neuroid is in {_name(names)}."


def _low_subjects(regions: pd.DataFrame) -> Iterator[str]:
    """Find subjects whose ceilings are far below those of the others, in the median over regions."""
    ceilings = regions["nc_testset"].unstack("subject")
    typical = ceilings.median(axis=1)
    shares = ceilings[typical > 0].div(typical[typical > 0], axis=0).median().dropna()
    if len(shares) >= FEWEST_SUBJECTS:
        for subject, share in shares[shares < LOW_SHARE].items():
            percent = f"{100 * share:.0f} %"
            yield f"{subject} is far below the others: its median noise ceilings are {percent} of the typical ones."


def _disagreeing_repetitions(pairs: pd.DataFrame) -> Iterator[str]:
    """Find subjects with a pair of repetitions that agrees much less than the best pair."""
    highest, lowest = pairs.max(axis=1), pairs.min(axis=1)
    for subject in pairs.index[lowest < LOW_SHARE * highest]:
        yield (
            f"Repetitions of {subject} do not agree: their correlations range from "
            f"{format_number(lowest[subject], 3)} to {format_number(highest[subject], 3)}. Was one of them mixed up?"
        )


def _shared_noise(shared_noise: pd.DataFrame) -> Iterator[str]:
    """Find subjects whose repetitions seem to share noise."""
    above, unequal = (
        shared_noise["subject"][shared_noise[name]].tolist() for name in ("is_above_nc_testset", "is_unequal")
    )
    if above:
        yield (
            f"Test repetitions of {_name(above)} agree more than NSD's noise ceilings predict: they may share noise, and "
            "ceilings from them may be too high."
        )
    if unequal:
        yield (
            f"Pairs of repetitions of {_name(unequal)} do not correlate equally: some may share noise, and ceilings may be "
            "too high."
        )


def _invalid(regions: pd.DataFrame, total: dict[Hashable, Any]) -> Iterator[str]:
    """Find regions of subjects of which much was filled, and whether many neuroids have no noise ceiling."""
    percents = regions["percent_filled"].sort_values(ascending=False, kind="stable")
    much = percents[percents > 100 * MUCH_FILLED]
    if len(much):
        rows = much.reset_index().to_dict("records")
        names = [f"{row['region']} of {row['subject']} ({row['percent_filled']:.1f} %)" for row in rows]
        yield (
            f"Much was filled: {total['percent_filled']:.2f} % of all values, and more than {100 * MUCH_FILLED:.0f} % in "
            f"{_name(names)}."
        )
    share = total["n_without_ceiling"] / total["n_neuroids"]
    if share > MANY_WITHOUT_CEILING:
        yield f"{format_count(total['n_without_ceiling'])} neuroids ({100 * share:.1f} %) have no noise ceiling."


def _name(names: Sequence[str]) -> str:
    """Name the first ones, and count the others."""
    n_others = len(names) - MOST_NAMED
    return join_words([*names[:MOST_NAMED], *([f"{format_count(n_others)} others"] if n_others > 0 else [])])
