"""What `verify` answers: is a release sound, do the raw files give it, is it the same as another one.

Each question has an answer, whatever the others give. The answers are printed, and kept in a JSON file beside the release.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import PackagingError, describe_os_error, printable
from ..files import sha1_of, write_whole
from ..release import ReleaseFolder
from .comparison import compare_release
from .differences import STEPS_OF_SINGLE_PRECISION, TOLERANCE
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


@dataclass
class Verification:
    """The answers about a release, which `verify` fills in.

    Attributes
    ----------
    verdicts : a sentence for each question
    problems, notes : a line each; a note is no problem
    table : of the largest difference from the raw files, if values were recomputed
    not_checked : what the answers leave open
    failures : what to say at the end of each answer with a problem, after the name of the release
    findings : what is kept in ``verify.json``: `release`, and `nsd_root` and `against` if they were asked and answered
    """

    folder: ReleaseFolder
    verdicts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    table: str = ""
    findings: dict[str, object] = field(default_factory=dict)

    def lines(self) -> Iterator[str]:
        """Yield the text for people: verdicts, table, each problem once, notes, and at last what was not checked."""
        yield from self.verdicts
        if self.table:
            yield f"\n{self.table}"
        if self.problems or self.notes:
            yield ""
        yield from (f"problem: {printable(problem)}" for problem in dict.fromkeys(self.problems))
        yield from (f"note: {printable(note)}" for note in self.notes)
        yield f"\nnot checked: {'; '.join([*self.not_checked, VERSIONS])}."

    def require_no_problems(self) -> None:
        """Raise a `PackagingError` if any answer has a problem."""
        if self.failures:
            raise PackagingError(f"{self.folder} {', and '.join(self.failures)}. The problems are listed above.")

    def write(self) -> None:
        """Keep the answers beside the release, in place of earlier ones. A folder that cannot be written is a warning."""
        content = {"manifest_sha1": sha1_of(self.folder.manifest_path)} | self.findings
        try:
            write_whole(self.folder.verification_path, [f"{json.dumps(content, indent=1)}\n".encode()])
        except OSError as error:
            reason = describe_os_error(error)
            logger.warning("A report will not show these results, because they were not kept: %s", reason)


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
    verification = Verification(ReleaseFolder(release_path))
    _ask_release(verification)
    if nsd_root is None:
        verification.not_checked.append(NEEDS_RAW_FILES)
    else:
        try:
            _ask_raw_files(verification, nsd_root, every_vertex=every_vertex, seed=seed)
        except PackagingError as error:
            verification.not_checked.append(NEEDS_RAW_FILES)
            _answer(verification, f"was not compared with {nsd_root}", [str(error)])
    if against is not None:
        try:
            _ask_other(verification, against)
        except PackagingError as error:
            _answer(verification, f"was not compared with {against}", [str(error)])
    return verification


def _answer(v: Verification, verdict: str, problems: list[str], failure: str = "") -> None:
    """Add an answer. `failure` is what to say at the end if there is a problem, unless it is the verdict."""
    v.verdicts.append(f"{v.folder} {verdict}")
    v.problems += problems
    v.failures += [failure or verdict] if problems else []


def _ask_release(v: Verification) -> None:
    soundness = check_soundness(v.folder.path)
    problems = soundness.problems
    v.findings["release"] = {"problems": problems}
    v.notes += [f"{path} does not belong to the release, and nothing reads it." for path in soundness.strangers]
    v.not_checked += [] if soundness.is_intact else [DAMAGED]
    sound = f"is sound: its {len(soundness.manifest.files):,} files agree with the manifest and with each other"
    _answer(v, f"is not sound: {_count(problems)}" if problems else sound, problems)


def _ask_raw_files(v: Verification, nsd_root: str, *, every_vertex: bool, seed: int) -> None:
    differences, problems = recompute_release(v.folder.path, nsd_root, every_vertex=every_vertex, seed=seed)
    asked = {"every_vertex": every_vertex, "seed": seed, "tolerance": TOLERANCE}
    v.findings["nsd_root"] = asked | {"differences": differences.to_dict("records"), "problems": problems}
    failure = f"is not what {nsd_root} gives"
    verdict = f"{failure}: {_count(problems)}; " if problems else f"is what {nsd_root} gives: "
    if not len(differences):
        v.not_checked.append(NOT_RECOMPUTED)
        _answer(v, f"{verdict}no value was recomputed", problems, failure)
        return
    v.not_checked += [] if every_vertex else [OUTSIDE_SAMPLE]
    verdict += (
        f"{differences['values'].sum():,} values of {'all' if every_vertex else 'a sample of'} neuroids were "
        f"recomputed, the largest difference is {differences['largest difference'].max():.1e}, and {TOLERANCE:.0e} is allowed "
        f"({STEPS_OF_SINGLE_PRECISION} steps of single precision where that is more)"
    )
    _answer(v, verdict, problems, failure)
    largest = differences.groupby(["region", "subject"], sort=False)["largest difference"].max()
    table = largest.map("{:.1e}".format).unstack(fill_value="-").reindex(differences["region"].unique())
    title = f"largest difference from the raw files (unitless; {TOLERANCE:.0e} is allowed):"
    v.table = f"{title}\n\n{table.rename_axis(None, axis=1).reset_index().to_string(index=False)}"


def _ask_other(v: Verification, other: str) -> None:
    differences = compare_release(v.folder.path, other)
    problems, rows = [str(d) for d in differences if d.beyond], [asdict(d) for d in differences]
    judgement = "different" if problems else "the same within tolerance" if rows else "identical"
    name = str(Path(other).absolute()) if Path(other).is_dir() else other
    v.findings["against"] = {name: {"verdict": judgement, "differences": rows}}
    n_ways = f": {len(rows)} ways, {len(problems)} of them by more than {TOLERANCE:.0e}" if rows else ""
    failure = f"differs from {other} in {len(problems)} ways"
    _answer(v, f"and {other} are {judgement}{n_ways}", problems, failure)
    v.notes += [str(d) for d in differences if not d.beyond]


def _count(problems: list[str]) -> str:
    return f"{len(problems):,} problem{'s' * (len(problems) != 1)}"
