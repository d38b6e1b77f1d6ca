"""What `verify` found, as it stands in the file beside the release."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import one_line
from ..files import read_file, sha1_of
from ..release import ReleaseFolder
from .tables import format_count

UNKNOWN, SOUND, WRONG = "unknown", "sound", "wrong"
NAMES = {"release": "Files", "nsd_root": "Raw files", "against": "Comparison"}
HASHES = ("manifest_sha1", "files_sha1")  # of the release that was verified


@dataclass(frozen=True)
class Check:
    """One check of `verify`: its name, its result in a sentence, and its problems."""

    name: str
    result: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Verdict:
    """The result of all checks.

    Attributes
    ----------
    state : `UNKNOWN`, `SOUND` or `WRONG`
    title : the result in a few words
    """

    state: str
    title: str
    checks: tuple[Check, ...] = ()


def read_verdict(folder: ReleaseFolder) -> Verdict:
    """Read what `verify` wrote beside the release. A file of unknown structure, or about other files, gives no verdict."""
    path = folder.verification_path
    if not path.is_file():
        return Verdict(UNKNOWN, "Not verified yet")
    try:
        content = json.loads(read_file(path))
        if content.get(HASHES[0]) not in (None, sha1_of(folder.manifest_path)):
            return Verdict(UNKNOWN, "Not verified since it was built again")
        checks = tuple(_read_check(name, findings) for name, findings in _list_findings(content))
    except (ValueError, RecursionError, AttributeError, TypeError, KeyError) as error:
        return Verdict(UNKNOWN, "No verdict", (Check(path.name, f"It cannot be read: {one_line(error)}."),))
    n_problems = sum(len(check.problems) for check in checks)
    if n_problems:
        return Verdict(
            WRONG, f"{format_count(n_problems)} {'problem' if n_problems == 1 else 'problems'} found", checks
        )
    if "nsd_root" in content:
        return Verdict(SOUND, "Verified against the raw files", checks)
    return Verdict(SOUND, "Verified", checks)


def _list_findings(content: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the findings of every check with its name. A release can be compared with several others."""
    for name, value in content.items():
        if name in HASHES:
            continue
        findings = _as_mapping(value)
        if name == "against":
            yield from ((name, {"other": other} | dict(_as_mapping(of_other))) for other, of_other in findings.items())
        else:
            yield name, findings


def _read_check(name: str, findings: Mapping[str, object]) -> Check:
    problems = tuple(str(problem) for problem in _as_list(findings.get("problems", [])))
    if findings.get("verdict") == "different":
        rows = [row for row in _as_list(findings.get("differences", [])) if isinstance(row, dict)]
        problems += tuple(_describe_difference(row) for row in rows if row.get("beyond tolerance"))
    title = NAMES.get(name, name)
    if name == "nsd_root":
        return Check(title, _describe_recomputation(findings), problems)
    if name == "against":
        other = Path(str(findings.get("other", "another release"))).name
        return Check(title, f"{findings.get('verdict')}, compared with {other}.", problems)
    return Check(title, "No file is missing or damaged." if not problems else "The release is not sound.", problems)


def _describe_recomputation(findings: Mapping[str, object]) -> str:
    rows = [row for row in _as_list(findings.get("differences", [])) if isinstance(row, dict)]
    n_values = sum(int(row["values"]) for row in rows)
    extent = "every value" if findings.get("every_vertex") else "a random sample"
    largest = max((float(row["largest difference"]) for row in rows), default=0.0)
    if not rows:
        return "No value was recomputed, because the raw files contradict the release."
    allowed = f" Up to {float(str(findings['tolerance'])):.0e} is allowed." if "tolerance" in findings else ""
    return (
        f"{format_count(n_values)} values were recomputed ({extent}). The largest difference is {largest:.1e}.{allowed}"
    )


def _describe_difference(row: Mapping[str, object]) -> str:
    return f"{row['split']}, {row['what']}: {row['beyond tolerance']} of {row['of']} differ, {row['where']}"


def _as_mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise TypeError(f"expected a table, but got {type(value).__name__}")
    return value


def _as_list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, but got {type(value).__name__}")
    return value
