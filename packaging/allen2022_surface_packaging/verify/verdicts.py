"""What `verify` answers: is a release sound, do the raw files give it, is it the same as another one.

Each question has an answer, whatever the others give. The answers are printed, and kept in a JSON file beside the release.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

from ..errors import PackagingError, printable
from ..files import sha1_of, write_whole
from ..release import Manifest, ReleaseFolder
from .comparison import compare_release
from .findings import Answer
from .recomputation import recompute_release
from .soundness import check_release

logger = logging.getLogger(__name__)

NEEDS_RAW_FILES = (
    "values, pixels, noise ceilings, COCO ids, the choice of images and vertices, counts of filled values, and the sizes of "
    "inputs (--nsd-root NSD_ROOT checks them)"
)
VERSIONS = "versions of packages, because nothing else tells which were installed"


def verify(
    release_path: Path,
    *,
    nsd_root: str | None = None,
    every_vertex: bool = False,
    seed: int = 0,
    against: str | None = None,
) -> dict[str, Answer]:
    """Answer up to three questions about a release, `release`, `nsd_root` and `against`, and keep the answers beside it.

    Parameters
    ----------
    nsd_root : recompute the release from these raw files; all neuroids if `every_vertex`, else a sample by `seed`
    against : the path of another release, or the identifier of a published object

    Raises
    ------
    PackagingError
        If the folder is not a release, or its manifest is damaged.
    """
    answers = {"release": check_release(release_path)}
    if nsd_root is None:
        answers["release"].not_checked.append(NEEDS_RAW_FILES)
    else:
        try:
            answers["nsd_root"] = recompute_release(release_path, nsd_root, every_vertex=every_vertex, seed=seed)
        except PackagingError as error:
            verdict = f"was not compared with {nsd_root}"
            answers["nsd_root"] = Answer(verdict, [str(error)], not_checked=[NEEDS_RAW_FILES])
    if against is not None:
        try:
            answers["against"] = compare_release(release_path, against)
        except PackagingError as error:
            answers["against"] = Answer(f"was not compared with {against}", [str(error)])
    _write_answers(ReleaseFolder(release_path), answers)
    return answers


def _write_answers(folder: ReleaseFolder, answers: dict[str, Answer]) -> None:
    """Keep the answers in place of earlier ones. A release that cannot be changed gives a warning."""
    last_written = folder.last_written(Manifest.read(folder).files)
    content: dict[str, object] = {"manifest_sha1": sha1_of(folder.manifest_path), "last_written": last_written}
    content |= {question: answer.findings for question, answer in answers.items() if answer.findings}
    try:
        write_whole(folder.verification_path, [f"{json.dumps(content, indent=1)}\n".encode()])
    except OSError as error:
        path, reason = folder.verification_path, error.strerror or error
        logger.warning("The verdict is not recorded, so a report will not show it: %s: %s.", path, reason)


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
