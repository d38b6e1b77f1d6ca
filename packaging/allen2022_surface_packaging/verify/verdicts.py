"""What `verify` answers: is a release sound, do the raw files give it, is it the same as another one.

Each question has an answer, whatever the others give. The answers are printed, and kept in a JSON file beside the release.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import PackagingError, printable
from ..files import read_file, write_whole
from ..release import ReleaseFolder
from .differences import STEPS_OF_SINGLE_PRECISION, TOLERANCE, Difference
from .soundness import Soundness, check_soundness

NEEDS_RAW_FILES = (
    "values, pixels, noise ceilings, COCO ids, the choice of images and vertices, and the sizes of inputs "
    "(--nsd-root NSD_ROOT checks them)"
)
OUTSIDE_SAMPLE = "values of neuroids outside the sample (--all checks them)"
NOT_RECOMPUTED = "values, because the manifest or a coordinate is wrong"
DAMAGED = "tables, images and assemblies, because a file is not the one that was written"
VERSIONS = "versions of packages, because nothing else tells which were installed"


@dataclass(frozen=True, eq=False)
class Answer:
    """The answer to one question about a release.

    Attributes
    ----------
    verdict : a sentence
    failure : what to say at the end if there is a problem, after the name of the release
    problems : a line each
    findings : what is kept; None if the question could not be answered, so that an earlier answer stays
    not_checked : what the answer leaves open
    table : for people, with its title; it holds nothing that a problem says
    """

    verdict: str
    failure: str
    problems: list[str]
    findings: Mapping[str, object] | None
    not_checked: tuple[str, ...] = ()
    table: pd.DataFrame | None = None
    title: str = ""


@dataclass(frozen=True, eq=False)
class Verification:
    """All answers about a release.

    Attributes
    ----------
    raw_files : None if there was no such question
    others : by the path of the other release, or the identifier of an object; empty if there was no such question
    """

    folder: ReleaseFolder
    soundness: Soundness
    release: Answer
    raw_files: Answer | None
    others: Mapping[str, Answer]

    @property
    def answers(self) -> list[Answer]:
        """The answers in the order of the questions."""
        return [self.release, *([] if self.raw_files is None else [self.raw_files]), *self.others.values()]

    def lines(self, width: int) -> Iterator[str]:
        """Yield the text for people: verdicts, tables, each problem once, and at last what was not checked."""
        for answer in self.answers:
            yield answer.verdict
        for answer in self.answers:
            if answer.table is not None and len(answer.table):
                rows = answer.table.to_string(index=False, max_colwidth=width).split("\n")
                yield "\n".join(["", f"{answer.title}:", "", *map(printable, rows)])
        problems = list(dict.fromkeys(problem for answer in self.answers for problem in answer.problems))
        if problems:
            yield ""
        yield from (f"problem: {printable(problem)}" for problem in problems)
        not_checked = [item for answer in self.answers for item in answer.not_checked]
        if self.raw_files is None:
            not_checked.append(NEEDS_RAW_FILES)
        yield f"\nnot checked: {'; '.join([*not_checked, VERSIONS])}."

    def require_no_problems(self) -> None:
        """Raise a `PackagingError` if any answer has a problem."""
        failures = [answer.failure for answer in self.answers if answer.problems]
        if failures:
            raise PackagingError(f"{self.folder} {', and '.join(failures)}. The problems are listed above.")

    def write(self) -> None:
        """Keep the answers beside the release, in place of earlier ones to the same questions.

        Earlier answers to other questions stay if no file of the release has changed since. If the only question is whether
        the release is sound, nothing is written unless there are earlier answers.

        Raises
        ------
        PackagingError
            If the file cannot be written.
        """
        path = self.folder.verification_path
        earlier = _read_earlier(path)
        if earlier is None and len(self.answers) == 1:
            return
        of_release = {"manifest_sha1": self.soundness.manifest_sha1, "files_sha1": self.soundness.files_sha1}
        kept = earlier or {}
        content = dict(kept) if of_release.items() <= kept.items() else {}
        content |= of_release | {"release": self.release.findings}
        if self.raw_files is not None and self.raw_files.findings is not None:
            content["nsd_root"] = self.raw_files.findings
        findings = {name: answer.findings for name, answer in self.others.items() if answer.findings is not None}
        if findings:
            others = content.get("against")
            content["against"] = (others if isinstance(others, dict) else {}) | findings
        content = {name: _to_json(value) for name, value in content.items()}
        if content == earlier:
            return
        text = json.dumps(content, indent=1, allow_nan=False)
        try:
            write_whole(path, [f"{text}\n".encode()])
        except OSError as error:
            raise PackagingError(
                f"{path} cannot be written ({error.strerror}), so a report will not show these results. Make the folder writable."
            ) from error


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
        If the folder is not a release or its manifest is damaged.
    """
    soundness = check_soundness(release_path)
    return Verification(
        ReleaseFolder(release_path),
        soundness,
        _describe_soundness(release_path, soundness),
        None if nsd_root is None else _ask_raw_files(release_path, nsd_root, every_vertex=every_vertex, seed=seed),
        {} if against is None else {_name_other(against): _ask_other(release_path, against)},
    )


def _describe_soundness(release_path: Path, soundness: Soundness) -> Answer:
    problems = soundness.problems
    verdict = f"{release_path} is sound: its {soundness.n_files:,} files agree with the manifest and with each other"
    if problems:
        verdict = f"{release_path} is not sound: {_count(problems)}"
    failure = f"is not sound: {_count(problems)}"
    not_checked = () if soundness.is_intact else (DAMAGED,)
    return Answer(verdict, failure, problems, {"problems": problems}, not_checked)


def _ask_raw_files(release_path: Path, nsd_root: str, *, every_vertex: bool, seed: int) -> Answer:
    from .recomputation import recompute_release  # here, because it imports nibabel and scipy

    asked = {"every_vertex": every_vertex, "seed": seed, "tolerance": TOLERANCE}
    failure = f"is not what {nsd_root} gives"
    try:
        result = recompute_release(release_path, nsd_root, every_vertex=every_vertex, seed=seed)
    except PackagingError as error:
        verdict = f"{release_path} was not compared with {nsd_root}"
        return Answer(verdict, f"was not compared with {nsd_root}", [str(error)], None, (NEEDS_RAW_FILES,))
    differences, problems = result.differences, result.problems
    extent = f"{_sum(differences, 'values'):,} values of {'all' if every_vertex else 'a sample of'} neuroids"
    if len(differences):
        largest = differences["largest difference"].max()
        extent += f" were recomputed, the largest difference is {largest:.1e}, and {TOLERANCE:.0e} is allowed"
        if largest > TOLERANCE and not problems:
            extent += f" ({STEPS_OF_SINGLE_PRECISION} steps of single precision where that is more)"
    verdict = f"{release_path} is what {nsd_root} gives: {extent}"
    if problems:
        verdict = f"{release_path} is not what {nsd_root} gives: {_count(problems)}; {extent}"
    not_checked = () if every_vertex else (OUTSIDE_SAMPLE,)
    return Answer(
        verdict,
        failure,
        problems,
        asked | {"differences": differences, "problems": problems},
        not_checked if len(differences) else (NOT_RECOMPUTED,),
        _tabulate(differences),
        f"largest difference from the raw files (unitless; {TOLERANCE:.0e} is allowed)",
    )


def _tabulate(differences: pd.DataFrame) -> pd.DataFrame:
    """Return the largest differences as a table with a row per region and a column per subject."""
    if not len(differences):
        return differences
    largest = differences.assign(largest=[f"{size:.1e}" for size in differences["largest difference"]])
    table = largest.pivot(index="region", columns="subject", values="largest").fillna("-")
    table = table.reindex(list(dict.fromkeys(differences["region"])))
    return table.rename_axis(None, axis=1).reset_index()


def _ask_other(release_path: Path, other: str) -> Answer:
    from .comparison import DIFFERENT, compare_release  # here, because it imports xarray and the plugin

    try:
        comparison = compare_release(release_path, other)
    except PackagingError as error:
        verdict = f"{release_path} was not compared with {other}"
        return Answer(verdict, f"was not compared with {other}", [str(error)], None)
    problems = comparison.problems
    n_ways = f": {len(comparison.differences)} ways, {len(problems)} of them by more than {TOLERANCE:.0e}"
    return Answer(
        f"{release_path} and {other} are {comparison.verdict}{n_ways if comparison.differences else ''}",
        f"differs from {other} in {len(problems)} ways",
        problems,
        {"verdict": comparison.verdict, "differences": comparison.differences, "filled": comparison.filled},
        (),
        comparison.within_tolerance,
        f"differences within {TOLERANCE:.0e}" if comparison.verdict == DIFFERENT else "differences",
    )


def _name_other(other: str) -> str:
    return str(Path(other).absolute()) if Path(other).is_dir() else other


def _sum(table: pd.DataFrame, column: str) -> int:
    return int(table[column].sum()) if len(table) else 0


def _count(problems: list[str]) -> str:
    return f"{len(problems):,} problem{'s' * (len(problems) != 1)}"


def _read_earlier(path: Path) -> dict[str, object] | None:
    """Read the earlier answers; None if there is no file. A file of unknown structure counts as empty."""
    if not path.is_file():
        return None
    try:
        content = json.loads(read_file(path))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _to_json(value: object) -> object:
    """Turn tables, differences and infinite numbers into what JSON can hold."""
    match value:
        case pd.DataFrame():
            return _to_json(value.to_dict("records"))
        case Difference():
            return _to_json(value.row())
        case Mapping():
            return {key: _to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [_to_json(item) for item in value]
        case np.generic():
            return _to_json(value.item())
        case float() if not math.isfinite(value):
            return str(value)
    return value
