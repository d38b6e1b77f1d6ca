"""Files and folders appear whole or not at all."""

import errno
import os
import shutil
import time
from pathlib import Path

import pytest

from allen2022_surface_packaging import files
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.files import naming, new_folder, write_whole
from allen2022_surface_packaging.release import refuse_existing


def fill(folder: Path, name: str) -> Path:
    """Make a folder that holds one file."""
    folder.mkdir(parents=True)
    (folder / name).touch()
    return folder


def tree(folder: Path) -> list[str]:
    """Return the relative path of every file and folder below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("before", [None, "empty", "full", "link"])
def test_folder_appears_when_the_block_succeeds(tmp_path, before):
    path = tmp_path / "parent" / "folder"
    if before == "link":
        fill(tmp_path / "elsewhere", "old")
        path.parent.mkdir()
        path.symlink_to(tmp_path / "elsewhere")
    elif before:
        fill(path, "old")
        if before == "empty":
            (path / "old").unlink()
    with new_folder(path) as partial:
        fill(partial / "new", "file")
        assert path.exists() == (before is not None)
        assert tree(path) == ([] if before in (None, "empty") else ["old"])

    assert tree(path) == ["new", "new/file"]
    assert path.is_symlink() == (before == "link")
    assert [entry.name for entry in path.parent.iterdir()] == ["folder"]


def test_old_folder_is_back_when_the_new_one_cannot_get_its_name(tmp_path):
    fill(tmp_path / "folder", "old")

    with pytest.raises(FileNotFoundError, match=r"\.folder\.partial"), new_folder(tmp_path / "folder") as partial:
        shutil.rmtree(partial)

    assert tree(tmp_path) == ["folder", "folder/old"]


def test_folder_that_appeared_meanwhile_is_not_replaced(tmp_path):
    with pytest.raises(PackagingError, match="folder has appeared"), new_folder(tmp_path / "folder"):
        fill(tmp_path / "folder", "theirs")

    assert tree(tmp_path) == ["folder", "folder/theirs"]


def test_second_writer_is_refused_and_the_first_one_finishes(tmp_path):
    with new_folder(tmp_path / "folder") as partial:
        (partial / "first").touch()
        with pytest.raises(PackagingError, match="Another process is writing"), new_folder(tmp_path / "folder"):
            pass

    assert tree(tmp_path) == ["folder", "folder/first"]


def test_release_that_lost_its_name_to_a_kill_gets_it_back(tmp_path):
    fill(tmp_path / ".folder.replaced", "release.json")

    with pytest.raises(PackagingError, match="exists already"):
        refuse_existing(tmp_path / "folder", overwrite=False)

    assert tree(tmp_path) == ["folder", "folder/release.json"]


def test_release_that_a_killed_run_had_replaced_is_removed(tmp_path):
    fill(tmp_path / "folder", "release.json")
    fill(tmp_path / ".folder.replaced", "old")

    refuse_existing(tmp_path / "folder", overwrite=True)

    assert tree(tmp_path) == ["folder", "folder/release.json"]


@pytest.mark.parametrize("exists", [True, False])
def test_file_is_replaced_when_everything_is_written(tmp_path, exists):
    path = tmp_path / "new" / "file"
    if exists:
        path.parent.mkdir()
        path.write_bytes(b"before")
        path.chmod(0o640)

    def contents():
        yield b"one "
        assert not exists or path.read_bytes() == b"before"
        yield from (bytearray(b"two "), memoryview(b"three"))

    write_whole(path, contents())

    assert path.read_bytes() == b"one two three"
    assert tree(tmp_path) == ["new", "new/file"]
    assert not exists or path.stat().st_mode & 0o777 == 0o640


def test_file_is_unchanged_when_writing_fails(tmp_path):
    (tmp_path / "file").write_bytes(b"before")

    def contents():
        yield b"half of the new content"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left on device: '.*/file'"):
        write_whole(tmp_path / "file", contents())

    assert (tmp_path / "file").read_bytes() == b"before"
    assert tree(tmp_path) == ["file"]


def test_two_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    def contents():
        yield b"first"
        write_whole(tmp_path / "file", [b"second"])
        assert (tmp_path / "file").read_bytes() == b"second"
        yield b" and whole"

    write_whole(tmp_path / "file", contents())

    assert (tmp_path / "file").read_bytes() == b"first and whole"
    assert tree(tmp_path) == ["file"]


def test_half_written_file_of_a_killed_process_is_removed_after_an_hour(tmp_path):
    for name, age in (
        (".a[1].0.partial", 2 * files.ABANDONED_SECONDS),
        (".a[1].1.partial", 0),
        (".b.0.partial", 10**6),
    ):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)

    write_whole(tmp_path / "a[1]", [b"whole"])

    assert tree(tmp_path) == [".a[1].1.partial", ".b.0.partial", "a[1]"]


def test_error_of_a_read_names_its_file(tmp_path):
    with pytest.raises(OSError, match="Input/output error: '.*/file'"), naming(tmp_path / "file"):
        raise OSError(errno.EIO, "Input/output error")
