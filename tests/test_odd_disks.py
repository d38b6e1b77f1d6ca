"""Disks that lack what others have, add files of their own, or tell other times: no work is lost, and a release stays sound."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from support import run_cli

SIZE = TreeSize((1,), n_sessions=2, n_trials=60, n_vertices=162, image_size=8, betas=(DEFAULT_BETAS,))
SIZE_OPTIONS = ("--subjects", 1, "--sessions", 2, "--trials", 60, "--vertices", 162, "--image-size", 8)
BUILD = ("--subjects", 1, "--name", "one")
OPTIONAL = ("fsync", "fdatasync", "chmod", "fchmod", "utime", "link", "symlink", "posix_fallocate")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("odd") / "nsd"
    simulate_tree(root, SIZE)
    (root / "SIMULATED.txt").unlink()  # else nothing would be published
    return root


def refuse(monkeypatch, number):
    """Let everything fail that some disks lack. Files and folders still get names that are free."""

    def fail(*_, **__):
        raise OSError(number, os.strerror(number))

    for name in OPTIONAL:
        monkeypatch.setattr(os, name, fail)
    monkeypatch.setattr(fcntl, "flock", fail)
    for name in ("rename", "replace"):
        rename = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda old, new, rename=rename: fail() if Path(new).exists() else rename(old, new)
        )


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.EIO, errno.EAGAIN])
def test_everything_works_on_a_disk_that_lacks_what_others_have(tree, tmp_path, monkeypatch, number):
    refuse(monkeypatch, number)
    release, warnings = tmp_path / "release", []
    for command in (
        ("simulate", tmp_path / "nsd", *SIZE_OPTIONS),
        ("build", tree, release, *BUILD),
        ("build", tree, release, *BUILD, "--overwrite"),
        ("verify", release),
        ("report", release),
        ("report", release),
        ("pack", release, tmp_path / "packed"),
    ):
        result = run_cli(*command)
        assert result.returncode == 0, (command, result.stderr)
        warnings += [line for line in result.stderr.splitlines() if "has no locks" in line]
    assert len(warnings) == 1
    assert not [path for path in tmp_path.rglob(".*") if path.is_dir()]
