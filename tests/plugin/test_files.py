"""Files on this machine: only regular ones are opened, and a stamp records that they passed their check."""

import hashlib
import os
import socket
import stat
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from brainscore_allen2022_surface import files
from brainscore_allen2022_surface.files import (
    LocalFile,
    LocalFolder,
    passes,
    require_file,
    sha1_of,
    stamp,
    temporary_path,
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


@pytest.mark.parametrize(("kind", "checked"), [(LocalFile, "0" * 40), (LocalFolder, {"a.png": "0" * 40})])
def test_files_of_a_release_are_equal_by_their_content_and_stay(kind, checked):
    file = kind(Path("a"), checked)

    assert file == kind(Path("a"), checked) != kind(Path("b"), checked)
    with pytest.raises(FrozenInstanceError):
        file.path = Path("b")


def test_regular_file_and_a_link_to_it_are_taken(file, tmp_path):
    require_file(file, "Copy it.")
    (tmp_path / "link").symlink_to(file)
    require_file(tmp_path / "link", "Copy it.")


@pytest.mark.parametrize("name", ["missing", "missing/file", "file/below", "dangling"])
def test_missing_file_is_named(file, tmp_path, name):
    (tmp_path / "dangling").symlink_to("nothing")

    with pytest.raises(FileNotFoundError) as raised:
        require_file(tmp_path / name, "Copy it.")
    assert str(raised.value) == f"{tmp_path / name} is missing. Copy it."


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as unbound:
        unbound.bind(str(path))


@pytest.mark.parametrize(
    ("make", "kind"), [(Path.mkdir, "a folder"), (os.mkfifo, "a FIFO"), (make_socket, "a socket"), (None, "a device")]
)
def test_what_is_no_regular_file_is_named(tmp_path, monkeypatch, make, kind):
    monkeypatch.chdir(tmp_path)  # the path of a socket may not be long
    path = Path("there") if make else Path(os.devnull)
    if make:
        make(path)

    with pytest.raises(ValueError, match=rf"^{path} is {kind}, expected a regular file\. Copy it\.$"):
        require_file(path, "Copy it.")


@pytest.mark.parametrize(("kind", "name"), [(stat.S_IFBLK, "a device"), (0o050000, "something else")])
def test_rare_kinds_are_named(file, monkeypatch, kind, name):
    status = os.stat_result((kind, *file.stat()[1:]))
    monkeypatch.setattr(Path, "stat", lambda self: status)

    with pytest.raises(ValueError, match=f"file is {name}, expected a regular file"):
        require_file(file, "Copy it.")


def test_path_that_cannot_be_looked_up_is_named(tmp_path):
    (tmp_path / "loop").symlink_to("loop")

    with pytest.raises(ValueError, match=r"loop cannot be read \(Too many levels of symbolic links\)\. Copy it\.$"):
        require_file(tmp_path / "loop", "Copy it.")


@pytest.mark.parametrize("n_bytes", [0, 1, 2**20, 2**20 + 1, 2 * 2**20 + 5, 3 * 2**20])
def test_sha1_is_that_of_the_whole_file(file, rng, n_bytes):
    content = rng.bytes(n_bytes)
    file.write_bytes(content)

    assert sha1_of(file) == hashlib.sha1(content).hexdigest()


@pytest.fixture
def checked(file, tmp_path):
    """A function that asks whether a file passes, and the answers of its check in the order in which it ran."""
    answers = []

    def ask(answer=True, path=file):
        def check():
            answers.append(answer)
            return answer

        return passes([path], tmp_path / "cache" / "stamps" / "of_file", check)

    ask.answers = answers
    return ask


def test_check_runs_once_if_the_file_passes(checked):
    assert checked() and checked() and checked(answer=False)
    assert checked.answers == [True]


def test_check_runs_again_after_it_failed(checked, tmp_path):
    assert not checked(answer=False) and not checked(answer=False)
    assert checked() and checked(answer=False)
    assert checked.answers == [False, False, True]


@pytest.mark.parametrize("change", ["content", "size", "time", "other file"])
def test_check_runs_again_for_a_changed_file(checked, file, change):
    checked()
    before = file.stat()
    if change == "size":
        file.write_bytes(b"longer content")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "content":  # of the same size, and with the old time; the time of the change of its status tells
        file.write_bytes(b"CONTENT")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "time":
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    else:
        file.rename(file.with_name("renamed"))

    assert checked(path=file if file.exists() else file.with_name("renamed"))
    assert checked.answers == [True, True]


def test_missing_file_does_not_pass(checked, file):
    file.unlink()

    assert not checked()
    assert checked.answers == []


def test_stamp_counts_as_a_check(checked, file, tmp_path):
    stamp([file], tmp_path / "cache" / "stamps" / "of_file")

    assert checked(answer=False)
    assert [path.name for path in (tmp_path / "cache" / "stamps").iterdir()] == ["of_file"]


def test_stamp_is_of_all_files(file, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(b"other")
    stamp([file, other], tmp_path / "stamp")

    assert passes([file, other], tmp_path / "stamp", lambda: False)
    assert not passes([file], tmp_path / "stamp", lambda: False)
    os.utime(other, ns=(0, 0))
    assert not passes([file, other], tmp_path / "stamp", lambda: False)


@pytest.mark.parametrize("damage", ["folder", "pipe", "text", "shorter"])
def test_damaged_stamp_is_no_stamp(checked, tmp_path, damage):
    checked()
    path = tmp_path / "cache" / "stamps" / "of_file"
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "pipe":
        os.mkfifo(path)
    else:
        path.write_bytes(b"\xff" * 40 if damage == "text" else content[:-1])

    assert checked()
    assert checked.answers == [True, True]


def test_stamp_is_read_no_further_than_its_hash(checked, tmp_path):
    """Whatever the length of a file that stands in its place."""
    checked()
    with (tmp_path / "cache" / "stamps" / "of_file").open("ab") as file:
        file.write(b"\n" * 100)

    assert checked(answer=False)
    assert checked.answers == [True]


def test_folder_that_takes_no_stamp_lets_every_check_run(file, tmp_path):
    (tmp_path / "no folder").write_bytes(b"")
    stamp_path = tmp_path / "no folder" / "stamp"

    assert passes([file], stamp_path, lambda: True)
    assert not passes([file], stamp_path, lambda: False)


def test_stamp_that_cannot_be_renamed_leaves_nothing(file, tmp_path, monkeypatch):
    def fail(self, target):
        assert self.parent == target.parent  # on the same disk
        raise PermissionError

    monkeypatch.setattr(files.Path, "replace", fail)

    assert passes([file], tmp_path / "cache" / "stamps" / "of_file", lambda: True)
    assert list((tmp_path / "cache" / "stamps").iterdir()) == []


def test_temporary_paths_are_hidden_and_new(tmp_path):
    paths = {temporary_path(tmp_path / "a.nc") for _ in range(3)}

    assert len(paths) == 3
    assert all(path.parent == tmp_path and path.name.startswith(".a.nc.") for path in paths)
