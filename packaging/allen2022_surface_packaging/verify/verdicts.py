"""What `verify` answers: is a release sound, do the raw files give it, is it the same as another one.

Each question has an answer, whatever the others give. The answers are printed, and kept in a JSON file beside the release.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pandas as pd

from ..errors import PackagingError, printable
from ..files import sha1_of, write_whole
from ..release import Manifest, ReleaseFolder
from .comparison import compare_release
from .differences import STEPS_OF_SINGLE_PRECISION, TOLERANCE
from .recomputation import recompute_release
from .soundness import find_changed_files, find_contradictions, list_strangers

logger = logging.getLogger(__name__)

FILES = "size and SHA-1 of every file"
CONTENTS = (
    "tables, images, shapes and coordinates, by the recipe and by each other; values, which are finite and standardised"
)
RAW_FILES = "coordinates, noise ceilings, tables, images, inputs and values, computed again from the raw files"
OTHER = "coordinates and stimulus tables, and the values and images that both have"
NEEDS_RAW_FILES = (
    "values, pixels, noise ceilings, COCO ids, the choice of images and vertices, counts of filled values, and the sizes of "
    "inputs (--nsd-root NSD_ROOT checks them)"
)
DAMAGED = "tables, images and assemblies, because a file is not the one that was written"
VERSIONS = "versions of packages, because nothing else tells which were installed"


@dataclass
class Answer:
    """The answer to one question about a release.

    Attributes
    ----------
    verdict : the rest of a sentence that begins with the name of the release; what follows ": " are details
    problems, notes : a line each; a note is no problem
    checked, not_checked : what the answer is about, and what it leaves open
    table : of the largest difference from the raw files, if values were recomputed
    findings : what is kept in ``verify.json``; None if the question could not be answered
    """

    verdict: str
    problems: list[str]
    notes: list[str] = field(default_factory=list)
    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    table: str = ""
    findings: dict[str, object] | None = None


def verify(
    release_path: Path,
    *,
    nsd_root: str | None = None,
    every_vertex: bool = False,
    seed: int = 0,
    against: str | None = None,
) -> dict[str, Answer]:
    """Answer up to three questions about a release: `release`, `nsd_root` and `against`.

    Parameters
    ----------
    nsd_root : recompute the release from these raw files; all neuroids if `every_vertex`, else a sample by `seed`
    against : the path of another release, or the identifier of a published object

    Raises
    ------
    PackagingError
        If the folder is not a release, or its manifest is damaged.
    """
    answers = {"release": _ask_release(ReleaseFolder(release_path))}
    if nsd_root is None:
        answers["release"].not_checked.append(NEEDS_RAW_FILES)
    else:
        answers["nsd_root"] = _ask_raw_files(release_path, nsd_root, every_vertex, seed)
    if against is not None:
        answers["against"] = _ask_other(release_path, against)
    return answers


def describe_answers(release_path: Path, answers: dict[str, Answer]) -> Iterator[str]:
    """Yield the text for people: verdicts, table, each problem once, notes, and what was checked and what was not."""
    given = answers.values()
    yield from (f"{release_path} {answer.verdict}" for answer in given)
    yield from (f"\n{answer.table}" for answer in given if answer.table)
    lines = [f"problem: {problem}" for answer in given for problem in answer.problems]
    lines += [f"note: {note}" for answer in given for note in answer.notes]
    report_path = ReleaseFolder(release_path).report_path
    if report_path.exists() and any(answer.problems for answer in given):
        lines.append(f"note: {report_path} was written earlier, and does not show these problems.")
    yield from ["", *map(printable, dict.fromkeys(lines))] if lines else []
    yield "\nchecked:"
    yield from (f"    {part}" for answer in given for part in answer.checked)
    yield "not checked:"
    yield from (f"    {part}" for part in (*(part for answer in given for part in answer.not_checked), VERSIONS))


def require_no_problems(release_path: Path, answers: dict[str, Answer]) -> None:
    """Raise a `PackagingError` if any answer has a problem."""
    failures = [answer.verdict.split(": ")[0] for answer in answers.values() if answer.problems]
    if failures:
        raise PackagingError(f"{release_path} {', and '.join(failures)}. The problems are listed above.")


def write_answers(release_path: Path, answers: dict[str, Answer]) -> None:
    """Keep the answers beside the release, in place of earlier ones. A release that cannot be changed gives a warning."""
    folder = ReleaseFolder(release_path)
    last_written = folder.last_written(Manifest.read(folder).files)
    content: dict[str, object] = {"manifest_sha1": sha1_of(folder.manifest_path), "last_written": last_written}
    content |= {question: answer.findings for question, answer in answers.items() if answer.findings is not None}
    try:
        write_whole(folder.verification_path, [f"{json.dumps(content, indent=1)}\n".encode()])
    except OSError as error:
        path, reason = folder.verification_path, error.strerror or error
        logger.warning("The verdict is not recorded, so a report will not show it: %s: %s.", path, reason)


def _ask_release(folder: ReleaseFolder) -> Answer:
    manifest = Manifest.read(folder)
    changed = list(find_changed_files(folder, manifest))
    problems = changed or find_contradictions(folder, manifest)
    verdict = f"is sound: its {len(manifest.files):,} files agree with the manifest and with each other"
    return Answer(
        f"is not sound: {_count(problems)}" if problems else verdict,
        problems,
        notes=[
            f"{path} does not belong to the release, and nothing reads it." for path in list_strangers(folder, manifest)
        ],
        checked=[FILES] if changed else [FILES, CONTENTS],
        not_checked=[DAMAGED] if changed else [],
        findings={"problems": problems},
    )


def _ask_raw_files(release_path: Path, nsd_root: str, every_vertex: bool, seed: int) -> Answer:
    try:
        values, problems, not_checked = recompute_release(release_path, nsd_root, every_vertex=every_vertex, seed=seed)
    except PackagingError as error:
        return Answer(f"was not compared with {nsd_root}", [str(error)], not_checked=[NEEDS_RAW_FILES])
    verdict = f"is not what {nsd_root} gives: {_count(problems)}; " if problems else f"is what {nsd_root} gives: "
    differences = [asdict(difference) for difference in values.values()]
    findings: dict[str, object] = {"every_vertex": every_vertex, "seed": seed, "tolerance": TOLERANCE}
    findings |= {"differences": differences, "problems": problems}
    if not values:
        return Answer(f"{verdict}no value was recomputed", problems, not_checked=not_checked, findings=findings)
    rows = [(subject, region, difference.largest) for (_, subject, region), difference in values.items()]
    largest = (
        pd.DataFrame(rows, columns=["subject", "region", "largest"]).groupby(["region", "subject"], sort=False).max()
    )
    verdict += (
        f"{sum(difference.of for difference in values.values()):,} values of {'all' if every_vertex else 'a sample of'} "
        f"neuroids were recomputed, the largest difference is {largest['largest'].max():.1e}, and {TOLERANCE:.0e} is allowed "
        f"({STEPS_OF_SINGLE_PRECISION} steps of single precision where that is more)"
    )
    table = largest["largest"].map("{:.1e}".format).unstack(fill_value="-").rename_axis(None, axis=1).reset_index()
    title = f"largest difference from the raw files (unitless; {TOLERANCE:.0e} is allowed):"
    text = f"{title}\n\n{table.to_string(index=False)}"
    return Answer(verdict, problems, checked=[RAW_FILES], not_checked=not_checked, table=text, findings=findings)


def _ask_other(release_path: Path, other: str) -> Answer:
    try:
        differences = compare_release(release_path, other)
    except PackagingError as error:
        return Answer(f"was not compared with {other}", [str(error)])
    problems = [str(difference) for difference in differences if difference.beyond]
    judgement = "different" if problems else "the same within tolerance" if differences else "identical"
    verdict = f"differs from {other}" if problems else f"is the same as {other}"
    details = f"{len(differences)} differences, {len(problems)} of them by more than {TOLERANCE:.0e}"
    name = str(Path(other).absolute()) if Path(other).is_dir() else other
    return Answer(
        f"{verdict}: {details if differences else judgement}",
        problems,
        notes=[str(difference) for difference in differences if not difference.beyond],
        checked=[OTHER],
        findings={name: {"verdict": judgement, "differences": [asdict(difference) for difference in differences]}},
    )


def _count(problems: list[str]) -> str:
    return f"{len(problems):,} problem{'s' * (len(problems) != 1)}"
