import hashlib
import subprocess
import sys

import pytest

from allen2022_surface_packaging.atomic import locked, new_folder, sha1_of, write_whole
from allen2022_surface_packaging.errors import PackagingError


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
        "import sys, pathlib; from allen2022_surface_packaging.atomic import locked\n"
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
