"""Disks that lack what others have, add files of their own, or tell other times: no work is lost, and a release stays sound."""

import errno
import fcntl
import mmap
import os
import shutil
from pathlib import Path

import pytest

from allen2022_surface_packaging.assemble import estimates, subjects
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from brainscore_allen2022_surface.loaders import load_assembly
from support import hashes, run_cli

SIZE = TreeSize((1,), n_sessions=2, n_trials=60, n_vertices=162, image_size=8, betas=(DEFAULT_BETAS,))
SIZE_OPTIONS = ("--subjects", 1, "--sessions", 2, "--trials", 60, "--vertices", 162, "--image-size", 8)
BUILD = ("--subjects", 1, "--name", "one")
OPTIONAL = ("fsync", "chmod", "utime", "link", "symlink", "posix_fallocate", "posix_fadvise", "statvfs")
SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini", ".nfs000001", ".fuse_hidden0001")
SYSTEM_FOLDERS = (".AppleDouble", ".Spotlight-V100", ".fseventsd", ".snapshot", "lost+found", "@eaDir")


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
    monkeypatch.setattr(mmap, "mmap", type("NoMap", (mmap.mmap,), {"__new__": fail}))
    monkeypatch.setattr(estimates, "SMALL_TREE_BYTES", 0)
    for name in ("rename", "replace"):
        rename = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda old, new, rename=rename: fail() if Path(new).exists() else rename(old, new)
        )


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM, errno.EAGAIN])
def test_everything_works_on_a_disk_that_lacks_what_others_have(tree, tmp_path, monkeypatch, number):
    refuse(monkeypatch, number)
    release, warnings = tmp_path / "release", []
    for command in (
        ("simulate", tmp_path / "nsd", *SIZE_OPTIONS),
        ("build", tree, release, *BUILD),
        ("build", tree, release, *BUILD, "--overwrite"),
        ("check", tree, "--subjects", 1),
        ("verify", release, "--nsd-root", tree),
        ("report", release),
        ("report", release),
        ("pack", release, tmp_path / "packed"),
    ):
        result = run_cli(*command)
        assert result.returncode == 0, (command, result.stderr)
        warnings += [line for line in result.stderr.splitlines() if "has no locks" in line]
    assert len(warnings) == 1
    assert not [path for path in tmp_path.rglob(".*") if path.is_dir()]


def test_plugin_is_exported_to_a_disk_without_modes_and_times(tmp_path, monkeypatch):
    """The command then fails, because the tests of the plugin need the rest of a checkout."""
    data_path = tmp_path / "vision" / "brainscore_vision" / "data"
    data_path.mkdir(parents=True)
    (data_path.parent / "__init__.py").write_text("data_registry = {}\nstimulus_set_registry = {}\n")
    refuse(monkeypatch, errno.EPERM)

    assert "test.py" in run_cli("export", tmp_path / "vision").stderr
    assert (data_path / "allen2022_surface" / "data_packaging" / "rebuild.py").is_file()


def scatter(folder: Path) -> None:
    """Leave what systems leave: files beside every file, and files and folders in every folder."""
    for path in [folder, *folder.rglob("*")]:
        if path.is_file():
            path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07")
        elif path.name not in SYSTEM_FOLDERS:
            for name in SYSTEM_FILES:
                (path / name).write_bytes(b"Mac OS X")
            for name in SYSTEM_FOLDERS:
                (path / name).mkdir(exist_ok=True)
                (path / name / "x").touch()


def test_files_of_the_system_change_nothing(tree, tmp_path, monkeypatch):
    """They are beside the raw files, and appear in the cache and in the release while they are written."""
    assert run_cli("build", tree, tmp_path / "clean", *BUILD).returncode == 0
    clean = Manifest.read(ReleaseFolder(tmp_path / "clean"))
    root = Path(shutil.copytree(tree, tmp_path / "nsd"))
    for split in ("train", "test"):
        shutil.copytree(tmp_path / "clean" / f"stimuli_{split}", root / "brainscore" / f"stimuli_{split}")
    scatter(root)
    (tmp_path / "out" / ".release.partial" / "stimuli_train").mkdir(parents=True)  # of a build that was killed
    list_presentations = subjects.list_presentations

    def scatter_and_list(*arguments):
        scatter(tmp_path / "out")
        return list_presentations(*arguments)

    def unlink_what_is_not_open(path, *, unlink=os.unlink, **options):
        if Path(path).name.startswith(".nfs"):
            raise OSError(errno.EBUSY, "Device or resource busy")
        unlink(path, **options)

    monkeypatch.setattr(subjects, "list_presentations", scatter_and_list)
    monkeypatch.setattr(os, "unlink", unlink_what_is_not_open)
    for options in ((), ("--overwrite",), ("--overwrite",)):
        scatter(tmp_path / "out")
        result = run_cli("build", root, tmp_path / "out" / "release", *BUILD, *options)
        assert result.returncode == 0, result.stderr
    left = {path.name for path in (tmp_path / "out").glob(".release*/**/*") if path.is_file()}
    assert left == {".nfs000001"}  # no other file of the older releases

    assert Manifest.read(ReleaseFolder(tmp_path / "out" / "release")).files == clean.files
    for command in (("verify", "--nsd-root", root), ("report",), ("pack", tmp_path / "packed")):
        result = run_cli(command[0], tmp_path / "out" / "release", *command[1:])
        assert result.returncode == 0, result.stderr
    assert load_assembly("one", "test", source=tmp_path / "out").equals(
        load_assembly("one", "test", source=tmp_path / "clean")
    )


def test_path_that_is_not_in_utf8_is_refused_before_any_work(tree, tmp_path):
    odd = tmp_path / os.fsdecode(b"caf\xe9")
    assert run_cli("build", tree, tmp_path / "release", *BUILD).returncode == 0
    shutil.copytree(tmp_path / "release", odd / "release")
    shutil.copytree(tree, odd / "nsd")
    before = hashes(odd)
    for command in (
        ("build", tree, odd / "new", *BUILD),
        ("verify", odd / "release"),
        ("pack", tmp_path / "release", odd / "packed"),
        ("export", tmp_path, "--release", odd / "release"),
        ("demo", odd / "demo"),
    ):
        result = run_cli(*command)
        assert result.returncode == 2, command
        (line,) = result.stderr.splitlines()
        assert "is not in UTF-8, so the NetCDF library opens no file there. Rename the folder" in line
    assert hashes(odd) == before
    assert {path.name for path in tmp_path.iterdir()} == {odd.name, "allen2022_surface_cache", "release"}

    assert run_cli("check", odd / "nsd", "--subjects", 1).returncode == 0
    assert run_cli("build", odd / "nsd", tmp_path / "new", *BUILD).returncode == 0
    assert load_assembly("one", "test", source=odd / "release").equals(
        load_assembly("one", "test", source=tmp_path / "release")
    )
