"""The verdict of `verify`, from the file that it writes beside the release."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import one_line
from ..files import read_file, sha1_of
from ..release import Manifest, ReleaseFolder

NOT_COMPARED = (
    "Values, pixels, noise ceilings and the choice of images and vertices were not compared with them. "
    "Run allen2022-surface verify RELEASE --nsd-root NSD_ROOT."
)


class Verdict(NamedTuple):
    """The result of all checks: ``sound``, ``wrong`` or ``unknown``, and the same in a few words.

    Each check has a name, its result in a sentence, and its problems.
    """

    state: str
    title: str
    checks: list[tuple[str, str, list[str]]]


def read_verdict(folder: ReleaseFolder, manifest: Manifest) -> Verdict:
    """Read what `verify` wrote. A file of unknown structure, or older than a file of the release, gives no verdict."""
    path = folder.verification_path
    if not path.is_file():
        return Verdict("unknown", "Not verified yet", [])
    try:
        content = json.loads(read_file(path))
        if content["manifest_sha1"] != sha1_of(folder.manifest_path):
            return Verdict("unknown", "Not verified since it was built again", [])
        if folder.last_written(manifest.files) > content["last_written"]:
            return Verdict("unknown", "Not verified since a file was written", [])
        checks = list(_read_checks(content))
    except (ValueError, RecursionError, AttributeError, TypeError, LookupError) as error:
        return Verdict("unknown", "No verdict", [(path.name, f"It cannot be read: {one_line(error)}.", [])])
    n_problems = sum(len(problems) for *_, problems in checks)
    if n_problems:
        return Verdict("wrong", f"{n_problems:,} {'problem' if n_problems == 1 else 'problems'} found", checks)
    return Verdict("sound", "Verified against the raw files" if "nsd_root" in content else "Files verified", checks)


def _read_checks(content: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    problems = list(content["release"]["problems"])
    yield ("Files", "The release is not sound." if problems else "No file is missing or damaged.", problems)
    if "nsd_root" in content:
        findings = content["nsd_root"]
        yield ("Raw files", _describe_recomputation(findings), list(findings["problems"]))
    else:
        yield ("Raw files", NOT_COMPARED, [])
    for other, compared in content.get("against", {}).items():
        problems = [
            f"{row['split']}, {row['what']}: {row['beyond']} of {row['of']} differ, {row['where']}"
            for row in compared["differences"]
            if row["beyond"]
        ]
        yield ("Comparison", f"{compared['verdict']}, compared with {Path(other).name}.", problems)


def _describe_recomputation(findings: dict[str, Any]) -> str:
    rows = findings["differences"]
    if not rows:
        return "No value was recomputed."
    n_values, largest = sum(row["of"] for row in rows), max(float(row["largest"]) for row in rows)
    extent = "every value" if findings["every_vertex"] else "a random sample"
    return (
        f"{n_values:,} values were recomputed ({extent}). The largest difference is {largest:.1e}. "
        f"Up to {findings['tolerance']:.0e} is allowed."
    )
