"""What a reader should know first: the findings about a release that need attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .ceilings import CeilingTables
from .statistics import ALL, median
from .summaries import InvalidSummary, RegionSummary, RepetitionSummary, total_invalid
from .tables import format_count, format_number, join_words

MUCH_FILLED = 0.01  # of the values of a region of a subject
MANY_WITHOUT_CEILING = 0.05  # of the neuroids
LOW_SHARE = 0.5  # of the typical value: a pair of repetitions or a subject below it is far below the others
FEWEST_SUBJECTS = 3  # to call one of them low
MOST_NAMED = 4  # in a finding; the table it leads to shows the others


@dataclass(frozen=True)
class Finding:
    """Something that needs attention, and the section that shows it."""

    text: str
    section: str


def list_findings(
    regions: Sequence[RegionSummary],
    invalid: Sequence[InvalidSummary],
    repetitions: Sequence[RepetitionSummary],
    ceilings: CeilingTables,
) -> list[Finding]:
    """List what needs attention, in the order of the page."""
    return [
        *_low_subjects(regions),
        *_disagreeing_repetitions(repetitions),
        *_shared_noise(ceilings),
        *_much_filled(invalid),
        *_without_ceiling(regions, invalid),
    ]


def _low_subjects(regions: Sequence[RegionSummary]) -> Iterator[Finding]:
    """Find subjects whose ceilings are far below those of the others, in the median over regions."""
    ratios: dict[str, list[float]] = {}
    for region in dict.fromkeys(summary.region for summary in regions):
        of_subjects = {s.subject: s.medians["nc_testset"] for s in regions if s.region == region and s.subject != ALL}
        typical = median(np.array(list(of_subjects.values())))
        for subject, value in of_subjects.items():
            if typical > 0 and np.isfinite(value):
                ratios.setdefault(subject, []).append(value / typical)
    if len(ratios) < FEWEST_SUBJECTS:
        return
    for subject, values in ratios.items():
        share = float(np.median(values))
        if share < LOW_SHARE:
            yield Finding(
                f"{subject} is far below the others: its median noise ceilings are {100 * share:.0f} % of the typical ones.",
                "regions",
            )


def _disagreeing_repetitions(repetitions: Sequence[RepetitionSummary]) -> Iterator[Finding]:
    """Find subjects with a pair of repetitions that agrees much less than the best pair."""
    for summary in repetitions:
        highest, lowest = max(summary.correlations), min(summary.correlations)
        if summary.subject != ALL and lowest < LOW_SHARE * highest:
            yield Finding(
                f"Repetitions of {summary.subject} do not agree: their correlations range from "
                f"{format_number(lowest, 3)} to {format_number(highest, 3)}. Was one of them mixed up?",
                "repetitions",
            )


def _shared_noise(ceilings: CeilingTables) -> Iterator[Finding]:
    """Find subjects whose repetitions seem to share noise."""
    above = ceilings.agreement["subject"][ceilings.agreement["is_above"]].tolist()
    if above:
        yield Finding(
            f"Test repetitions of {_name(above)} agree more than NSD's noise ceilings predict: they may share noise, and "
            "ceilings from them may be too high.",
            "shared-noise",
        )
    unequal = ceilings.correlations["subject"][ceilings.correlations["is_unequal"]].tolist()
    if unequal:
        yield Finding(
            f"Pairs of repetitions of {_name(unequal)} do not correlate equally: some may share noise, and ceilings may be "
            "too high.",
            "shared-noise",
        )


def _much_filled(invalid: Sequence[InvalidSummary]) -> Iterator[Finding]:
    """Find regions of subjects of which much was filled."""
    places = []
    for summary in invalid:
        n_values = sum(summary.n_values.values())
        share = sum(summary.n_filled.values()) / n_values if n_values else 0
        if share > MUCH_FILLED:
            places.append((share, f"{summary.region} of {summary.subject} ({100 * share:.1f} %)"))
    if places:
        places.sort(key=lambda place: -place[0])
        total = total_invalid(invalid)
        share = sum(total.n_filled.values()) / sum(total.n_values.values())
        yield Finding(
            f"Much was filled: {100 * share:.1f} % of all values, and more than {100 * MUCH_FILLED:.0f} % in "
            f"{_name([name for _, name in places])}.",
            "invalid",
        )


def _without_ceiling(regions: Sequence[RegionSummary], invalid: Sequence[InvalidSummary]) -> Iterator[Finding]:
    n_neuroids = sum(summary.n_neuroids for summary in regions if summary.subject == ALL)
    n_without = total_invalid(invalid).n_without_ceiling
    if n_without > MANY_WITHOUT_CEILING * n_neuroids:
        share = 100 * n_without / n_neuroids
        yield Finding(f"{format_count(n_without)} neuroids ({share:.1f} %) have no noise ceiling.", "invalid")


def _name(names: Sequence[str]) -> str:
    """Name the first ones, and count the others."""
    n_others = len(names) - MOST_NAMED
    return join_words([*names[:MOST_NAMED], *([f"{format_count(n_others)} others"] if n_others > 0 else [])])
