"""What `verify` answers: is a release sound, do the raw files give it, is it the same as another one.

Each question has an answer, whatever the others give. The answers are printed, and kept in a JSON file beside the release.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ..errors import PackagingError, describe_os_error, printable
from ..files import sha1_of, write_whole
from ..release import ReleaseFolder
from .assemblies import STEPS_OF_SINGLE_PRECISION, TOLERANCE
from .comparison import DIFFERENT, compare_release, judge
from .recomputation import recompute_release
from .soundness import check_soundness

logger = logging.getLogger(__name__)

NEEDS_RAW_FILES = (
    "values, pixels, noise ceilings, COCO ids, the choice of images and vertices, counts of filled values, and the sizes of "
    "inputs (--nsd-root NSD_ROOT checks them)"
)
OUTSIDE_SAMPLE = "values of neuroids outside the sample (--all checks them)"
NOT_RECOMPUTED = "values, because a coordinate is wrong"
DAMAGED = "tables, images and assemblies, because a file is not the one that was written"
VERSIONS = "versions of packages, because nothing else tells which were installed"


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to one question about a release.

    Attributes
    ----------
    verdict : a sentence
    failure : what to say at the end if there is a problem, after the name of the release
    findings : what is kept in ``verify.json``
    not_checked : what the answer leaves open
    table : for people, with its title; it holds nothing that a problem says
    notes : what is no problem, a line each
    """

    verdict: str
    failure: str
    problems: list[str]
    findings: dict[str, object]
    not_checked: tuple[str, ...] = ()
    title: str = ""
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Verification:
    """The answers about a release by the names under which ``verify.json`` keeps them."""

    folder: ReleaseFolder
    answers: dict[str, Answer]

    def lines(self, width: int) -> Iterator[str]:
        """Yield the text for people: verdicts, tables, each problem once, and at last what was not checked."""
        for answer in self.answers.values():
            yield answer.verdict
        for answer in self.answers.values():
            if len(answer.table):
                rows = answer.table.to_string(index=False, max_colwidth=width).split("\n")
                yield "\n".join(["", f"{answer.title}:", "", *map(printable, rows)])
        problems = list(dict.fromkeys(problem for answer in self.answers.values() for problem in answer.problems))
        if problems:
            yield ""
        yield from (f"problem: {printable(problem)}" for problem in problems)
        yield from (f"note: {printable(note)}" for answer in self.answers.values() for note in answer.notes)
        not_checked = [item for answer in self.answers.values() for item in answer.not_checked]
        if "nsd_root" not in self.answers:
            not_checked.append(NEEDS_RAW_FILES)
        yield f"\nnot checked: {'; '.join([*not_checked, VERSIONS])}."

    def require_no_problems(self) -> None:
        """Raise a `PackagingError` if any answer has a problem."""
        failures = [answer.failure for answer in self.answers.values() if answer.problems]
        if failures:
            raise PackagingError(f"{self.folder} {', and '.join(failures)}. The problems are listed above.")

    def write(self) -> None:
        """Keep the answers beside the release, in place of earlier ones. A folder that cannot be written is a warning."""
        content: dict[str, object] = {"manifest_sha1": sha1_of(self.folder.manifest_path)}
        content |= {name: answer.findings for name, answer in self.answers.items()}
        text = json.dumps(content, indent=1, default=str)
        try:
            write_whole(self.folder.verification_path, [f"{text}\n".encode()])
        except OSError as error:
            logger.warning(
                "A report will not show these results, because they were not kept: %s", describe_os_error(error)
            )


def verify(
    release_path: Path,
    *,
    nsd_root: str | None = None,
    every_vertex: bool = False,
    seed: int = 0,
    against: str | None = None,
) -> Verification:
    """Answer up to three questions about a release.

    Parameters
    ----------
    nsd_root : recompute the release from these raw files; all neuroids if `every_vertex`, else a sample by `seed`
    against : the path of another release, or the identifier of a published object

    Raises
    ------
    PackagingError
        If the folder is not a release, or its manifest is damaged.
    """
    answers = {"release": _ask_release(release_path)}
    if nsd_root is not None:
        answers["nsd_root"] = _ask_raw_files(release_path, nsd_root, every_vertex=every_vertex, seed=seed)
    if against is not None:
        answers["against"] = _ask_other(release_path, against)
    return Verification(ReleaseFolder(release_path), answers)


def _ask_release(release_path: Path) -> Answer:
    soundness = check_soundness(release_path)
    n_problems = _count(soundness.problems)
    verdict = f"{release_path} is sound: its {len(soundness.manifest.files):,} files agree with the manifest and with each other"
    if soundness.problems:
        verdict = f"{release_path} is not sound: {n_problems}"
    not_checked = () if soundness.is_intact else (DAMAGED,)
    notes = tuple(f"{path} does not belong to the release, and nothing reads it." for path in soundness.strangers)
    findings: dict[str, object] = {"problems": soundness.problems}
    return Answer(verdict, f"is not sound: {n_problems}", soundness.problems, findings, not_checked, notes=notes)


def _ask_raw_files(release_path: Path, nsd_root: str, *, every_vertex: bool, seed: int) -> Answer:
    findings: dict[str, object] = {
        "every_vertex": every_vertex,
        "seed": seed,
        "tolerance": TOLERANCE,
        "differences": [],
    }
    try:
        result = recompute_release(release_path, nsd_root, every_vertex=every_vertex, seed=seed)
    except PackagingError as error:
        failure = f"was not compared with {nsd_root}"
        findings["problems"] = [str(error)]
        return Answer(f"{release_path} {failure}", failure, [str(error)], findings, (NEEDS_RAW_FILES,))
    differences, problems = result.differences, result.problems
    findings |= {"differences": differences.to_dict("records"), "problems": problems}
    verdict = f"{release_path} is what {nsd_root} gives: "
    if problems:
        verdict = f"{release_path} is not what {nsd_root} gives: {_count(problems)}; "
    if not len(differences):
        failure = f"is not what {nsd_root} gives"
        return Answer(f"{verdict}no value was recomputed", failure, problems, findings, (NOT_RECOMPUTED,))
    verdict += (
        f"{differences['values'].sum():,} values of {'all' if every_vertex else 'a sample of'} neuroids were recomputed, the "
        f"largest difference is {differences['largest difference'].max():.1e}, and {TOLERANCE:.0e} is allowed "
        f"({STEPS_OF_SINGLE_PRECISION} steps of single precision where that is more)"
    )
    table = differences.assign(largest=[f"{size:.1e}" for size in differences["largest difference"]])
    table = table.pivot(index="region", columns="subject", values="largest").fillna("-")
    table = table.reindex(differences["region"].unique()).rename_axis(None, axis=1).reset_index()
    return Answer(
        verdict,
        f"is not what {nsd_root} gives",
        problems,
        findings,
        () if every_vertex else (OUTSIDE_SAMPLE,),
        f"largest difference from the raw files (unitless; {TOLERANCE:.0e} is allowed)",
        table,
    )


def _ask_other(release_path: Path, other: str) -> Answer:
    name = str(Path(other).absolute()) if Path(other).is_dir() else other
    try:
        differences = compare_release(release_path, other)
    except PackagingError as error:
        failure = f"was not compared with {other}"
        findings = {"verdict": "not compared", "problems": [str(error)]}
        return Answer(f"{release_path} {failure}", failure, [str(error)], {name: findings})
    judgement = judge(differences)
    problems = [str(difference) for difference in differences if difference.n_beyond]
    n_ways = f": {len(differences)} ways, {len(problems)} of them by more than {TOLERANCE:.0e}" if differences else ""
    return Answer(
        f"{release_path} and {other} are {judgement}{n_ways}",
        f"differs from {other} in {len(problems)} ways",
        problems,
        {name: {"verdict": judgement, "differences": [difference.row() for difference in differences]}},
        (),
        f"differences within {TOLERANCE:.0e}" if judgement == DIFFERENT else "differences",
        pd.DataFrame([difference.row() for difference in differences if not difference.n_beyond]),
    )


def _count(problems: list[str]) -> str:
    return f"{len(problems):,} problem{'s' * (len(problems) != 1)}"
