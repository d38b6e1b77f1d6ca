"""What the tests of several stages share."""

import contextlib
import functools
import importlib
import io
import json
import os
import shutil
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from allen2022_surface_packaging.cli import main
from allen2022_surface_packaging.files import sha1_of
from allen2022_surface_packaging.recipe import list_recipes

# The recipes that ship, but of those that differ in the number of the subject only the first.
RECIPES = [name for name in list_recipes() if not name.endswith("_own") or name == "subj01_own"]


@dataclass(frozen=True)
class Result:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def make_mgh(values: np.ndarray, n_vertices: int | None = None) -> bytes:
    """Return an MGH file without a footer, of an array of four dimensions; its header may give another number of vertices."""
    kind = {np.uint8: 0, np.int32: 1, np.float32: 3, np.int16: 4}[values.dtype.type]
    shape = (len(values) if n_vertices is None else n_vertices, *values.shape[1:])
    header = struct.pack(">7i", 1, *shape, kind, 0).ljust(284, b"\0")
    return header + values.astype(values.dtype.newbyteorder(">")).tobytes(order="F")


@functools.cache
def is_there(program: str) -> bool:
    """Return whether this machine has a program; of `mount`, whether this user may mount a file system in memory."""
    if program != "mount":
        return shutil.which(program) is not None
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder]
        if not shutil.which("mount") or subprocess.run(command, capture_output=True, check=False).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


def run_cli(*arguments: object) -> Result:
    """Run the command line in this process, which is a second faster than in another one."""
    stdout, stderr, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as leaving:
            status = int(leaving.code or 0)
    return Result(status, stdout.getvalue(), stderr.getvalue())


def verify(release: Path, *options: object) -> dict[str, Any]:
    """Run `verify`, and return what it keeps: the answers by question, with their problems and differences."""
    run_cli("verify", release, *options)
    text = (release / "verify.json").read_text()
    (release / "verify.json").unlink()  # other tests read the release
    return json.loads(text)


def find_differences(release: Path, tree: Path) -> list[str]:
    """Return the problems of a release of which every value and table is computed again from the raw files."""
    answers = verify(release, "--nsd-root", tree, "--all")
    return [problem for question in ("release", "nsd_root") for problem in answers[question]["problems"]]


def install(site: Path, name: str, version: str, *requirements: str) -> None:
    """Install a distribution without any module, in place of the one of this machine if `site` comes first on its path."""
    for path in site.glob(f"{name}-*.dist-info"):
        shutil.rmtree(path)
    (site / f"{name}-{version}.dist-info").mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {one}" for one in requirements)]
    (site / f"{name}-{version}.dist-info" / "METADATA").write_text("\n".join(lines))
    importlib.invalidate_caches()


def install_fitting_torch(site: Path) -> None:
    """Install torch and torchvision that fit each other: those of this machine need not, and only `doctor` looks at them."""
    install(site, "torch", "2.13.0+cpu")
    install(site, "torchvision", "0.28.0+cpu", "torch (==2.13.0)")


def use_s3_server(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    """Direct boto3 to the local S3 server."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


def create_versioned_bucket(client: Any, name: str) -> None:
    """Create a bucket that keeps versions, as `upload` needs it."""
    client.create_bucket(Bucket=name)
    client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})


def upload_public(client: Any, bucket: str, folder: Path, pattern: str = "**/*", *, prefix: str = "") -> None:
    """Put the files of a folder into a bucket, so that anybody can read them, as those of NSD."""
    for path in folder.glob(pattern):
        if path.is_file():
            key = f"{prefix}{path.relative_to(folder)}"
            client.upload_file(str(path), bucket, key, ExtraArgs={"ACL": "public-read"})


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-1 of every file below a folder, by its relative path."""
    return {str(path.relative_to(folder)): sha1_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def accept(release: Path, name: str) -> None:
    """Make the manifest agree with a file that was changed, so that a check other than its hash must notice."""
    path = release / "release.json"
    manifest = json.loads(path.read_text())
    manifest["files"][name] = {"size": (release / name).stat().st_size, "sha1": sha1_of(release / name)}
    path.write_text(json.dumps(manifest))


def leave_out(reason: str) -> NoReturn:
    """Skip a test for which a program is missing. In CI it fails: there, nothing is left out unseen."""
    pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
