"""What the tests of several stages share."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

from allen2022_surface_packaging.atomic import sha1_of
from allen2022_surface_packaging.cli import main


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def run_cli(*arguments: object) -> Result:
    """Run the command line in this process, which is a second faster than in another one."""
    stdout, stderr, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            status = int(leaving.code or 0)
    return Result(status, stdout.getvalue(), stderr.getvalue())


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-1 of every file below a folder, by its relative path."""
    return {str(path.relative_to(folder)): sha1_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def accept(release: Path, name: str) -> None:
    """Make the manifest agree with a file that was changed, so that a check other than its hash must notice."""
    path = release / "release.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {"size": (release / name).stat().st_size, "sha1": sha1_of(release / name)}
    path.write_text(json.dumps(manifest))
