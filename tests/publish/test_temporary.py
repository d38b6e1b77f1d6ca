"""Temporary files of `upload`, `pack` and `record`: they hold NSD's photographs, so none is left behind."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.publish.temporary import temporary_folder
from publish.proxy import refuse
from publish.uploads import OBJECTS, publish
from support import run_cli


@pytest.fixture
def temporary_path(tmp_path, monkeypatch):
    """The folder for temporary files, also of processes that the test starts."""
    path = tmp_path / "temporary"
    path.mkdir()
    monkeypatch.setenv("TMPDIR", str(path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return path


def list_left(temporary_path):
    return sorted(str(path.relative_to(temporary_path)) for path in temporary_path.rglob("*"))


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
def test_next_upload_removes_what_a_killed_one_left(temporary_path, release, s3, proxy, uploader, artifacts_path, stop):
    def kill(pid):
        def end(request):
            if request.puts(OBJECTS[1]):
                os.kill(pid, stop)

        proxy.fault = end

    status = uploader.run("killed", artifacts_path, on_pid=kill)
    assert os.WTERMSIG(status) == stop
    assert any(name.endswith(OBJECTS[1]) for name in list_left(temporary_path))  # the photographs
    proxy.clear()

    assert uploader.run("killed", artifacts_path) == 0

    assert list_left(temporary_path) == []


def test_failed_upload_leaves_nothing(temporary_path, release, s3, proxy, artifacts_path, monkeypatch):
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    proxy.fault = lambda request: refuse(503, "SlowDown") if request.puts(OBJECTS[8]) else None

    with pytest.raises(PackagingError, match="SlowDown"):
        publish(release, artifacts_path)

    assert list_left(temporary_path) == []


def test_pack_and_record_leave_nothing(temporary_path, release, tmp_path):
    assert run_cli("pack", release, tmp_path / "packed").returncode == 0
    assert list_left(temporary_path) == []

    result = run_cli("record", release, tmp_path / "packed" / "version_ids.csv", "--artifacts", tmp_path / "a.json")

    assert "has no version id" in result.stderr
    assert list_left(temporary_path) == []


def test_folder_is_of_this_user_only(temporary_path):
    with temporary_folder() as folder:
        assert folder.parent == temporary_path
        assert folder.stat().st_mode & 0o777 == 0o700
    assert list_left(temporary_path) == []


def test_folder_of_a_process_that_runs_stays(temporary_path):
    with temporary_folder() as first:
        (first / "photograph").write_text("x")
        with temporary_folder() as second:
            assert second != first
        assert (first / "photograph").exists()


def test_folder_of_a_process_that_has_ended_is_removed(temporary_path):
    code = (
        "import os\nfrom allen2022_surface_packaging.publish.temporary import temporary_folder\n"
        "with temporary_folder() as folder:\n    (folder / 'photograph').write_text('x')\n    os._exit(1)"
    )
    subprocess.run([sys.executable, "-c", code])
    assert len(list_left(temporary_path)) == 2

    with temporary_folder():
        assert len(list_left(temporary_path)) == 1


def test_links_and_files_of_that_name_stay(temporary_path, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("x")
    (temporary_path / "allen2022_surface_objects_link").symlink_to(tmp_path / "elsewhere")
    (temporary_path / "allen2022_surface_objects_file").write_text("x")

    with temporary_folder():
        pass

    assert (tmp_path / "elsewhere" / "file").exists()
    assert len(list_left(temporary_path)) == 2


SIGNALS = """
import itertools, os, signal, sys, tempfile
from pathlib import Path
from allen2022_surface_packaging.files import scratch_folder
from allen2022_surface_packaging.publish.temporary import temporary_folder
from allen2022_surface_packaging.signals import ending_signals

place, make = Path(sys.argv[1]), {"temporary": temporary_folder, "scratch": lambda: scratch_folder(place, "x")}[sys.argv[2]]
tempfile.gettempdir()  # which tries to write there, the first time
for step in itertools.count():
    child = os.fork()
    if not child:
        seen = []

        def interrupt(frame, event, function):
            if event in ("c_call", "c_return") and function in (os.mkdir, os.rename, os.unlink, os.rmdir):
                seen.append(event)
                if len(seen) == step + 1:
                    signal.raise_signal(signal.SIGTERM)

        with ending_signals():
            sys.setprofile(interrupt)
            with make() as folder:
                for name in ("one", "two"):
                    (folder / name).mkdir()
                    (folder / name / "photograph").touch()
            sys.setprofile(None)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status, sorted(str(path) for path in place.rglob("*")), flush=True)
    if not status:
        break
"""


@pytest.mark.parametrize("kind", ["temporary", "scratch"])
def test_signal_before_or_after_any_step_leaves_nothing(temporary_path, kind):
    run = subprocess.run([sys.executable, "-c", SIGNALS, temporary_path, kind], capture_output=True, text=True)

    lines = run.stdout.splitlines()
    assert len(lines) > 12, run.stderr  # steps
    assert lines == ["143 []"] * (len(lines) - 1) + ["0 []"]
