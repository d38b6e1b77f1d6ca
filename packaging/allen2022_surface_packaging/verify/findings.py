"""What `verify` finds: differences, and the answers to its questions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

TOLERANCE = 1e-5  # unitless
# From 64 on, single precision has steps of 8e-6 and more. Two programs may round such a response to neighbouring ones.
STEPS_OF_SINGLE_PRECISION = 2


@dataclass(frozen=True)
class Difference:
    """One way in which two sides differ: a line for people, and a row of ``verify.json``.

    Attributes
    ----------
    split : or the name of a table of both splits
    what : what differs, such as "nsd_id of presentations" or "values of subj01 V1"
    differ, beyond, of : how many differ, how many of these by more than the tolerance, and of how many
    where : the largest difference or the first one
    largest, mean : over those that differ, in the unit of what differs; None if that is no number
    """

    split: str
    what: str
    differ: int
    beyond: int
    of: int
    where: str
    largest: float | None = None
    mean: float | None = None

    def __str__(self) -> str:
        sizes = "" if self.mean is None else f" by {self.mean:.2g} on average and by {self.largest:.2g} at most"
        return f"{self.split} {self.what}: {self.differ:,} of {self.of:,} differ{sizes}. {self.where}."

    def __add__(self, more: Difference) -> Difference:
        """Return the difference of two parts together, both of numbers."""
        total = sum(part.differ * (part.mean or 0) for part in (self, more))
        differ = self.differ + more.differ
        return replace(
            max(self, more, key=lambda part: part.largest or 0),
            differ=differ,
            beyond=self.beyond + more.beyond,
            of=self.of + more.of,
            mean=total / max(differ, 1),
        )


@dataclass
class Answer:
    """The answer to one question about a release.

    Attributes
    ----------
    verdict : the rest of a sentence that begins with the name of the release; what follows ": " are details
    problems, notes : a line each; a note is no problem
    checked, not_checked : what the answer is about, and what it leaves open
    table : of the largest difference from the raw files, if values were recomputed
    findings : what ``verify.json`` keeps; empty if the question could not be answered
    """

    verdict: str
    problems: list[str]
    notes: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    table: str = ""
    findings: dict[str, object] = field(default_factory=dict)


def count_problems(problems: list[str]) -> str:
    """Return the number of problems as a text."""
    return f"{len(problems):,} problem{'s' * (len(problems) != 1)}"
