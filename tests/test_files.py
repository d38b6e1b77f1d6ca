import ctypes
import errno
import fcntl
import hashlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from allen2022_surface_packaging import files
from allen2022_surface_packaging.errors import PackagingError, describe_os_error
from allen2022_surface_packaging.files import (
    locked,
    naming,
    new_folder,
    read_file,
    remove_folder,
    remove_old_partials,
    restore_folder,
    scratch_folder,
    sha1_of,
    unreplaced,
    write_whole,
)
from allen2022_surface_packaging.release import refuse_existing


def fill(folder: Path, name: str) -> Path:
    """Make a folder that holds one file."""
    folder.mkdir(parents=True)
    (folder / name).touch()
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_only_folder(parent: Path, name: str) -> None:
    """Check that nothing is there but the folder, with one file."""
    assert names(parent) == ["folder"]
    assert names(parent / "folder") == [name]


def fail_to_rename(monkeypatch, *names: str) -> None:
    """Let the renaming of folders with these names fail."""
    rename = Path.rename

    def fail(self, target):
        if self.name in names:
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)


@pytest.mark.parametrize("sync", [True, False])
def test_file_holds_all_contents_in_order(tmp_path, sync):
    write_whole(tmp_path / "new" / "file", [b"one ", bytearray(b"two "), memoryview(b"three")], sync=sync)

    assert (tmp_path / "new" / "file").read_bytes() == b"one two three"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_file_keeps_its_mode_when_it_is_replaced(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    path.chmod(0o640)

    write_whole(path, [b"after"])

    assert path.read_bytes() == b"after"
    assert path.stat().st_mode & 0o777 == 0o640


def test_reader_of_a_file_keeps_it_when_it_is_replaced(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    with path.open("rb") as reader:
        write_whole(path, [b"after, and longer"])

        assert reader.read() == b"before"


@pytest.mark.parametrize(("options", "n_synced"), [({}, 1), ({"sync": True}, 1), ({"sync": False}, 0)])
def test_contents_are_on_the_disk_before_the_file_gets_its_name(tmp_path, monkeypatch, options, n_synced):
    path, states = tmp_path / "file", []

    def look(descriptor):
        states.append((path.exists(), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", look)
    write_whole(path, [b"con", b"tents"], **options)

    assert states == [(False, 8)] * n_synced


def test_file_is_unchanged_until_everything_is_written(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"before")
    states = []

    def contents():
        for content in (b"af", b"ter"):
            states.append(path.read_bytes())
            yield content

    write_whole(path, contents())

    assert states == [b"before", b"before"]
    assert path.read_bytes() == b"after"


@pytest.mark.parametrize("can_exchange", [True, False])
def test_folder_is_there_when_nothing_can_be_looked_up_afterwards(tmp_path, monkeypatch, can_exchange):
    path = fill(tmp_path / "release", "old")

    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    with new_folder(path) as partial:
        (partial / "file").write_bytes(b"new")
        rename, rename_specially = Path.rename, files._rename

        def fail_from_now_on():
            for name in ("stat", "exists", "is_dir", "is_symlink"):
                monkeypatch.setattr(Path, name, fail)

        def rename_and_fail(source, target):
            rename(source, target)
            if source == partial:
                fail_from_now_on()

        def exchange_and_fail(*arguments):
            is_done = can_exchange and rename_specially(*arguments)
            if is_done:
                fail_from_now_on()
            return is_done

        monkeypatch.setattr(Path, "rename", rename_and_fail)
        monkeypatch.setattr(files, "_rename", exchange_and_fail)

    monkeypatch.undo()
    assert (path / "file").read_bytes() == b"new"


@pytest.mark.parametrize("exists", [True, False])
def test_file_is_unchanged_when_writing_fails(tmp_path, exists):
    path = tmp_path / "file"
    if exists:
        path.write_bytes(b"before")

    def contents():
        yield b"half of the new content"
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        write_whole(path, contents())

    assert [(entry.name, entry.read_bytes()) for entry in tmp_path.iterdir()] == [("file", b"before")] * exists


def test_folder_appears_when_the_block_succeeds(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()

    with new_folder(tmp_path / "folder") as partial:
        (partial / "new").touch()
        assert [path.name for path in (tmp_path / "folder").iterdir()] == ["old"]

    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_folder_may_be_the_first_one_in_its_parent(tmp_path):
    with new_folder(tmp_path / "new" / "parent" / "folder"):
        pass

    assert names(tmp_path / "new" / "parent") == ["folder"]


def test_nothing_is_left_when_the_folder_cannot_be_opened(tmp_path, monkeypatch):
    open_file = os.open

    def fail(path, *arguments, **options):
        if str(path).endswith(".partial"):
            raise OSError(errno.EMFILE, "Too many open files")
        return open_file(path, *arguments, **options)

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="Too many open files"), new_folder(tmp_path / "folder"):
        pass

    assert names(tmp_path) == []


def test_no_descriptor_is_left_open(tmp_path):
    def count():
        return len(list(Path("/proc/self/fd").iterdir()))

    before = count()
    with new_folder(tmp_path / "folder"), pytest.raises(PackagingError), new_folder(tmp_path / "folder"):
        pass
    with locked(tmp_path):
        pass

    assert count() == before


def test_folder_itself_gets_the_name_and_no_copy_of_it(tmp_path):
    with new_folder(tmp_path / "folder") as partial:
        number = partial.stat().st_ino

    assert (tmp_path / "folder").stat().st_ino == number


def test_folder_has_another_writer_after_the_first_one_failed(tmp_path):
    with pytest.raises(ValueError, match="stop"), new_folder(tmp_path / "folder"):
        raise ValueError("stop")
    with new_folder(tmp_path / "folder") as partial:
        (partial / "second").touch()

    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["second"]


@pytest.mark.parametrize("n_bytes", [0, 1, 2**20, 2**20 + 1])
def test_sha1_of_any_file_is_that_of_its_content(tmp_path, n_bytes):
    (tmp_path / "file").write_bytes(bytes(n_bytes))

    assert sha1_of(tmp_path / "file") == hashlib.sha1(bytes(n_bytes)).hexdigest()


def test_folder_is_unchanged_when_the_block_fails(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()

    with pytest.raises(ValueError, match="stop"), new_folder(tmp_path / "folder") as partial:
        (partial / "new").touch()
        raise ValueError("stop")

    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["old"]
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_folder_starts_empty_when_a_killed_process_left_files(tmp_path):
    (tmp_path / ".folder.partial" / "inner").mkdir(parents=True)
    (tmp_path / ".folder.partial" / "left").touch()

    with new_folder(tmp_path / "folder") as partial:
        assert not list(partial.iterdir())

    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_folder_has_one_writer_at_a_time(tmp_path):
    with new_folder(tmp_path / "folder") as partial:
        (partial / "mine").touch()
        with (
            pytest.raises(PackagingError, match=r"Another process is writing .*folder\. Wait for it, or choose"),
            new_folder(tmp_path / "folder"),
        ):
            pass

    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["mine"]


def test_lock_is_waited_for_while_another_process_holds_it(tmp_path):
    code = (
        "import sys, pathlib; from allen2022_surface_packaging.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])): print('locked', flush=True)"
    )
    with locked(tmp_path):
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1)

    assert process.communicate(timeout=60)[0] == "locked\n"


def test_sha1_of_a_file_spans_several_blocks(tmp_path, rng):
    content = rng.bytes(3 * 2**20 + 7)
    (tmp_path / "file").write_bytes(content)

    assert sha1_of(tmp_path / "file") == hashlib.sha1(content).hexdigest()


@pytest.fixture
def without_exchange(monkeypatch):
    """The file system cannot exchange two names in one step."""
    monkeypatch.setattr(files, "_rename", lambda *_: False)


def test_old_folder_is_back_when_the_new_one_cannot_be_renamed(tmp_path, monkeypatch, without_exchange):
    fill(tmp_path / "folder", "old")
    fail_to_rename(monkeypatch, ".folder.partial")

    with (
        pytest.raises(PermissionError, match=r"Permission denied: '.*\.folder\.partial'"),
        new_folder(tmp_path / "folder"),
    ):
        pass

    assert_only_folder(tmp_path, "old")


def test_message_says_where_the_old_folder_is_when_it_cannot_come_back(tmp_path, monkeypatch, without_exchange):
    fill(tmp_path / "folder", "old")
    fail_to_rename(monkeypatch, ".folder.partial", ".folder.replaced")

    with (
        pytest.raises(
            PackagingError, match=r"could not be replaced .* is now in .*/\.folder\.replaced: rename it back"
        ),
        new_folder(tmp_path / "folder"),
    ):
        pass

    assert names(tmp_path / ".folder.replaced") == ["old"]
    monkeypatch.undo()
    restore_folder(tmp_path / "folder")
    assert names(tmp_path) == ["folder"]


def refuse_to_rename(number):
    """Return a function in place of the C library's that exchanges names, which fails with an error number."""

    def renameat2(*_):
        ctypes.set_errno(number)
        return -1

    return renameat2


def test_old_folder_stays_when_nothing_can_be_renamed_any_more(tmp_path, monkeypatch):
    """As when the permission to write into the folder above is taken away at that moment."""
    fill(tmp_path / "folder", "old")
    fail_to_rename(monkeypatch, "folder", ".folder.partial", ".folder.replaced")
    library = SimpleNamespace(renameat2=refuse_to_rename(errno.EACCES))
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)

    with (
        pytest.raises(PermissionError, match=r"Permission denied: '.*\.folder\.partial' -> '.*folder'"),
        new_folder(tmp_path / "folder"),
    ):
        pass

    assert_only_folder(tmp_path, "old")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, None])
def test_folder_is_replaced_where_names_cannot_be_exchanged(tmp_path, monkeypatch, number):
    library = SimpleNamespace() if number is None else SimpleNamespace(renameat2=refuse_to_rename(number))
    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: library)
    fill(tmp_path / "folder", "old")

    with new_folder(tmp_path / "folder") as partial:
        (partial / "new").touch()

    assert_only_folder(tmp_path, "new")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux exchanges names in one step")
def test_folder_is_replaced_in_one_step(tmp_path, monkeypatch):
    """No rename is made, and both folders are locked while one has the name of a folder to write."""
    fill(tmp_path / "folder", "old")
    fail_to_rename(monkeypatch, "folder", ".folder.partial")
    seen = []

    def look_and_remove(folder):
        with pytest.raises(PackagingError, match="Another process is writing"), new_folder(tmp_path / "folder"):
            pass
        seen.append((folder.name, names(folder), names(tmp_path / "folder")))
        remove_folder(folder)

    with new_folder(tmp_path / "folder") as partial:
        (partial / "new").touch()
        monkeypatch.setattr(files, "remove_folder", look_and_remove)

    assert seen == [(".folder.partial", ["old"], ["new"])]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize("exists", [True, False])
def test_disk_holds_the_new_folder_before_the_old_one_is_removed(tmp_path, monkeypatch, exists):
    if exists:
        fill(tmp_path / "folder", "old")
    fsync, synced = os.fsync, []

    def observe(descriptor):
        assert not exists or names(tmp_path / "folder") == ["old"]
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    with new_folder(tmp_path / "folder") as partial:
        (partial / "one").touch()
        fill(partial / "inner", "two")
        monkeypatch.setattr(os, "fsync", observe)

    expected = [partial, partial / "one", partial / "inner", partial / "inner" / "two"]
    assert sorted(synced) == sorted(expected if exists else [])


@pytest.mark.parametrize("function", ["open", "fsync", "close"])
def test_old_folder_stays_when_the_disk_does_not_take_the_new_one(tmp_path, monkeypatch, function):
    fill(tmp_path / "folder", "old")
    original = getattr(os, function)

    def fail(place, *arguments):
        path = Path(f"/proc/self/fd/{place}").readlink() if isinstance(place, int) else place
        if path.name == "new" and function == "close":
            original(place)
        if path.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return original(place, *arguments)

    with pytest.raises(OSError, match=r"\.folder\.partial/new'"), new_folder(tmp_path / "folder") as partial:
        (partial / "new").touch()
        monkeypatch.setattr(os, function, fail)

    assert_only_folder(tmp_path, "old")


def test_folder_that_another_process_holds_is_not_replaced(tmp_path):
    fill(tmp_path / "folder", "old")

    with locked(tmp_path / "folder"), pytest.raises(OSError, match="folder'"), new_folder(tmp_path / "folder"):
        pass

    assert_only_folder(tmp_path, "old")


def test_folder_appears_when_unlocking_reports_an_error(tmp_path, monkeypatch):
    close = os.close

    def fail(descriptor):
        close(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    with new_folder(tmp_path / "folder") as partial:
        (partial / "new").touch()
        monkeypatch.setattr(os, "close", fail)
    monkeypatch.undo()  # pytest closes folders too, when it removes the temporary one

    assert names(tmp_path / "folder") == ["new"]


@pytest.mark.parametrize("function", ["close", "rmdir", "unlink", "open"])
def test_nothing_is_left_when_a_call_of_the_cleanup_fails_once(tmp_path, monkeypatch, function):
    """The folder is removed although one system call of its removal fails."""
    original, failures = getattr(os, function), [OSError(errno.EIO, "Input/output error")]

    def fail_once(*arguments, **options):
        if failures and is_armed:
            if function == "close":
                original(*arguments)
            raise failures.pop()
        return original(*arguments, **options)

    is_armed = False
    monkeypatch.setattr(os, function, fail_once)
    with pytest.raises(ValueError, match="stop"), new_folder(tmp_path / "folder") as partial:
        fill(partial / "inner", "file")
        is_armed = True
        raise ValueError("stop")

    assert not names(tmp_path)


def test_nothing_is_left_when_the_folder_cannot_be_locked(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(OSError, match=r"No locks available: '.*\.folder\.partial'"), new_folder(tmp_path / "folder"):
        pass

    assert not names(tmp_path)


def test_lock_is_taken_again_when_the_locked_folder_got_its_final_name(tmp_path, monkeypatch):
    """Another process may finish between the moment a folder is opened and the moment it is locked."""
    flock, finished = fcntl.flock, []

    def finish_first(descriptor, operation):
        if not finished:
            finished.append((tmp_path / ".folder.partial").rename(tmp_path / "folder"))
            (tmp_path / "folder" / "other").touch()
        return flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", finish_first)
    with pytest.raises(PackagingError, match="folder was made, replaced"), new_folder(tmp_path / "folder"):
        raise AssertionError("the folder of the other process would be replaced")

    assert finished
    assert_only_folder(tmp_path, "other")


def appear_as_folder(path):
    fill(path, "precious")


def appear_as_link(path):
    path.symlink_to(fill(path.parent / "elsewhere", "precious"))


def appear_as_dangling_link(path):
    path.symlink_to(path.parent / "nowhere")


def appear_as_file(path):
    path.write_text("precious")


@pytest.mark.parametrize("appear", [appear_as_folder, appear_as_link, appear_as_dangling_link, appear_as_file])
@pytest.mark.parametrize(
    ("before", "is_late"),
    # Two folders that exchange their names are looked at just before, and not in the same step.
    [("nothing", False), ("nothing", True), ("an empty folder", False), ("an empty folder", True), ("a folder", False)],
)
@pytest.mark.parametrize("is_kept", [True, False])
def test_whatever_appears_meanwhile_stays(tmp_path, monkeypatch, appear, before, is_late, is_kept):
    """Also if it appears after the last look, which only the system call can notice."""
    path, aside = tmp_path / "parent" / "folder", tmp_path / "aside"
    if before != "nothing":
        path.mkdir(parents=True)
    if before == "a folder":
        (path / "old").touch()

    def change():
        if before != "nothing" and is_kept:
            path.rename(aside)
        elif before != "nothing":
            remove_folder(path)  # so that the file system gives its number to the next folder
        appear(path)

    with pytest.raises(PackagingError, match="folder was made, replaced or removed"), new_folder(path) as partial:
        (partial / "new").touch()
        if is_late:
            require_same = files._require_same
            monkeypatch.setattr(files, "_require_same", lambda *arguments: (require_same(*arguments), change()))
        else:
            change()

    expected = ["elsewhere", "folder"] if appear is appear_as_link else ["folder"]
    assert names(path.parent) == expected
    if appear is appear_as_dangling_link:
        assert path.readlink() == path.parent / "nowhere"
    elif appear is appear_as_file:
        assert path.read_text() == "precious"
    else:
        assert names(path) == ["precious"]
    assert path.is_symlink() == (appear in (appear_as_link, appear_as_dangling_link))


def replace_folder(path):
    """Replace a folder as `build --overwrite` does."""
    with new_folder(path) as partial:
        (partial / "new").touch()


def test_folder_that_stays_is_read_to_the_end(tmp_path):
    path = fill(tmp_path / "folder", "old")
    (tmp_path / "link").symlink_to(path)

    for place in (path, tmp_path / "link"):
        with unreplaced(place) as require:
            (path / "more").touch()
            require()
        with pytest.raises(ValueError, match="damaged"), unreplaced(place):
            raise ValueError("damaged")


@pytest.mark.parametrize("error", [None, PackagingError("it does not fit"), FileNotFoundError("gone")])
@pytest.mark.parametrize("is_link", [True, False])
def test_folder_that_is_replaced_while_it_is_read_is_named(tmp_path, error, is_link):
    path = fill(tmp_path / "folder", "old")
    (tmp_path / "link").symlink_to(path)
    place = tmp_path / "link" if is_link else path

    with (
        pytest.raises(PackagingError, match=f"^{place} was replaced while it was read. Start again"),
        unreplaced(place),
    ):
        replace_folder(path)
        if error:
            raise error
    with (
        pytest.raises(PackagingError, match="was replaced while it was read"),
        unreplaced(place) as require,
    ):
        replace_folder(path)
        require()
        raise AssertionError("something would be kept")


def test_files_that_appear_in_an_empty_folder_stay(tmp_path):
    path = tmp_path / "folder"
    path.mkdir()

    with pytest.raises(PackagingError, match="meanwhile, so nothing is changed there"), new_folder(path) as partial:
        (partial / "new").touch()
        (path / "precious").touch()

    assert_only_folder(tmp_path, "precious")


def test_folder_that_was_removed_meanwhile_is_not_written(tmp_path):
    """Its parent may have been removed for good, with a reason."""
    fill(tmp_path / "folder", "old")

    with pytest.raises(PackagingError, match="was made, replaced or removed"), new_folder(tmp_path / "folder"):
        remove_folder(tmp_path / "folder")

    assert not names(tmp_path)


def test_only_the_link_is_removed(tmp_path):
    (tmp_path / "link").symlink_to(fill(tmp_path / "elsewhere", "precious"))

    remove_folder(tmp_path / "link")

    assert names(tmp_path) == ["elsewhere"]
    assert names(tmp_path / "elsewhere") == ["precious"]


@pytest.mark.parametrize("can_exchange", [True, False])
def test_old_folder_is_removed_whole_when_a_signal_comes(tmp_path, can_exchange):
    """At whatever step of the removal. The command ends after that; the new folder is in its place."""
    run = subprocess.run(
        [sys.executable, "-c", REPLACE, str(tmp_path), str(can_exchange)], capture_output=True, text=True, check=True
    )

    statuses = [int(line) for line in run.stdout.split()]
    assert statuses[-1] == 0  # after the last step, no signal came
    assert set(statuses[:-1]) == {130}
    assert len(statuses) > 3
    assert run.stderr == "allen2022-surface: Interrupted.\n" * (len(statuses) - 1)
    for number in range(len(statuses)):
        assert_only_folder(tmp_path / str(number), "new")


REPLACE = """
import itertools, os, signal, sys
from pathlib import Path
from allen2022_surface_packaging import files
from allen2022_surface_packaging.signals import ending_signals

if sys.argv[2] == "False":
    files._rename = lambda *_: False

def replace(path, step):
    seen = []

    def interrupt(event, _):
        if event in ("os.remove", "os.rmdir", "os.rename") and is_armed:
            seen.append(event)
            if len(seen) == step + 1:
                signal.raise_signal(signal.SIGINT)

    is_armed = False
    sys.addaudithook(interrupt)
    with ending_signals(), files.new_folder(path) as partial:
        (partial / "new").touch()
        is_armed = True

for step in itertools.count():
    path = Path(sys.argv[1], str(step), "folder")
    (path / "inner").mkdir(parents=True)
    for name in ("inner/old", "release.json"):
        (path / name).touch()
    child = os.fork()
    if not child:
        try:
            replace(path, step)
        except SystemExit as ended:
            os._exit(ended.code)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, flush=True)
    if not status:
        break
"""


def test_replaced_folder_is_back_when_a_process_was_killed_between_two_renames(tmp_path):
    fill(tmp_path / ".folder.replaced", "old")
    fill(tmp_path / ".folder.partial", "new")

    with pytest.raises(PackagingError, match="folder has its name back.* Start again"), new_folder(tmp_path / "folder"):
        pass

    assert_only_folder(tmp_path, "old")


@pytest.mark.parametrize("overwrite", [False, True])
def test_release_is_back_before_a_build_decides_whether_to_replace_it(tmp_path, overwrite):
    fill(tmp_path / ".release.replaced", "release.json")

    if overwrite:
        refuse_existing(tmp_path / "release", overwrite=True)
    else:
        with pytest.raises(PackagingError, match="release exists already"):
            refuse_existing(tmp_path / "release", overwrite=False)

    assert names(tmp_path) == ["release"]
    assert names(tmp_path / "release") == ["release.json"]


def test_replaced_folder_is_removed_when_the_new_one_is_in_its_place(tmp_path):
    fill(tmp_path / ".folder.replaced", "old")
    fill(tmp_path / "folder", "new")

    restore_folder(tmp_path / "folder")
    assert names(tmp_path / "folder") == ["new"]
    with new_folder(tmp_path / "folder") as partial:
        (partial / "newer").touch()

    assert_only_folder(tmp_path, "newer")


def test_replaced_folder_is_left_alone_while_another_process_writes(tmp_path):
    with new_folder(tmp_path / "folder"):
        fill(tmp_path / ".folder.replaced", "old")
        with pytest.raises(PackagingError, match="Another process is writing"):
            restore_folder(tmp_path / "folder")
        assert names(tmp_path / ".folder.replaced") == ["old"]


def test_link_stays_when_the_folder_to_which_it_points_is_replaced(tmp_path):
    fill(tmp_path / "disk" / "folder", "old")
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "folder")

    with new_folder(tmp_path / "link") as partial:
        (partial / "new").touch()

    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "disk" / "folder") == ["new"]
    assert names(tmp_path / "disk") == ["folder"]


def test_links_in_a_folder_are_removed_and_not_followed(tmp_path):
    fill(tmp_path / "elsewhere", "kept")

    with pytest.raises(ValueError, match="stop"), new_folder(tmp_path / "folder") as partial:
        (partial / "link").symlink_to(tmp_path / "elsewhere")
        raise ValueError("stop")

    assert names(tmp_path) == ["elsewhere"]
    assert names(tmp_path / "elsewhere") == ["kept"]


def test_scratch_folder_is_empty_at_the_start_and_gone_at_the_end(tmp_path):
    fill(tmp_path / ".scratch", "left")

    with scratch_folder(tmp_path, "scratch") as scratch:
        assert not names(scratch)
        fill(scratch / "inner", "file")

    assert not names(tmp_path)


def test_half_written_file_of_a_killed_process_is_removed_by_the_next_one(tmp_path):
    path, other = tmp_path / "file", tmp_path / f".other.{'0' * 32}.partial"
    other.touch()

    def contents():
        yield b"half"
        assert len(names(tmp_path)) == 2
        write_whole(path, [b"second"])  # while the first one still writes
        assert len(names(tmp_path)) == 3
        yield b" and half"

    write_whole(path, contents())
    assert path.read_bytes() == b"half and half"

    child = os.fork()
    if not child:
        write_whole(path, iter(lambda: os.kill(os.getpid(), 9) or b"never", b""))
    assert os.waitpid(child, 0)[1] == 9
    assert len(names(tmp_path)) == 3
    write_whole(path, [b"whole"])

    assert names(tmp_path) == [other.name, "file"]
    assert path.read_bytes() == b"whole"


def test_file_is_created_again_when_it_is_taken_for_abandoned(tmp_path, monkeypatch):
    """In the moment between its creation and its lock."""
    flock, removed = fcntl.flock, []

    def remove_first(file, operation):
        if not removed:
            (partial,) = tmp_path.iterdir()
            removed.append(partial.unlink())
        return flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    write_whole(tmp_path / "file", [b"whole"])

    assert removed
    assert names(tmp_path) == ["file"]


def test_old_partial_files_are_removed_and_young_ones_kept(tmp_path):
    for name, minutes in (("old", 1), ("young", -1)):
        path = tmp_path / f".{name}.partial"
        path.touch()
        os.utime(path, (time.time() - 24 * 3600 - 60 * minutes,) * 2)
    (tmp_path / "entry.partial").touch()  # no file that `write_whole` leaves

    remove_old_partials(tmp_path)

    assert names(tmp_path) == [".young.partial", "entry.partial"]


def test_error_names_the_file_when_the_system_does_not(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="No space") as caught, naming(tmp_path / "file"):
        raise full
    assert describe_os_error(caught.value) == (
        f"{tmp_path / 'file'}: No space left on device. Free some space and start again."
    )


def test_error_keeps_the_file_that_the_system_names(tmp_path):
    with pytest.raises(FileNotFoundError, match=re.escape(str(tmp_path / "missing"))), naming(tmp_path / "other"):
        (tmp_path / "missing").open()


def test_file_that_cannot_be_written_is_named(tmp_path):
    def contents():
        yield b"half"
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    with pytest.raises(OSError, match=r"Disk quota exceeded: '.*/file'"):
        write_whole(tmp_path / "file", contents())


def test_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def fail(_):
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "file").touch()

    with pytest.raises(OSError, match=r"Input/output error: '.*/file'"), monkeypatch.context() as patch:
        patch.setattr(os, "fstat", fail)
        read_file(tmp_path / "file")


def test_largest_file_that_is_read_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST_FILE_BYTES", 3)
    (tmp_path / "three").write_bytes(b"123")
    (tmp_path / "four").write_bytes(b"1234")

    assert read_file(tmp_path / "three") == b"123"
    with pytest.raises(PackagingError, match="four has 4 bytes, expected at most 3"):
        read_file(tmp_path / "four")


@pytest.mark.parametrize(
    "told", [OSError(errno.EDQUOT, "Disk quota exceeded"), PermissionError(errno.EACCES, "no", "x")]
)
def test_error_that_a_library_hides_behind_its_own_is_told(tmp_path, told):
    """SciPy and nibabel raise an `OSError` without a number while they handle that of the system."""
    with pytest.raises(OSError) as raised, naming(tmp_path / "file"):
        try:
            raise told
        except OSError as error:
            raise OSError("Reader needs file name") from error

    assert raised.value is told
    assert raised.value.filename in (str(tmp_path / "file"), "x")


def test_error_of_a_library_stays_when_it_hides_none(tmp_path):
    with pytest.raises(OSError, match="^no such format$"), naming(tmp_path / "file"):
        raise OSError("no such format")


def test_both_files_of_a_copy_that_fails_are_named():
    error = OSError(errno.ENOSPC, "No space left on device", "from", None, "to")

    assert describe_os_error(error) == "from to to: No space left on device. Free some space and start again."
