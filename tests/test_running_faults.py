"""Faults while a command runs: signals, dead workers, a dead scheduler, other builds, changed files.

Each command runs in a session of its own, so that the processes that it leaves behind can be found.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support import hashes, run_cli

COMMAND = [sys.executable, "-m", "allen2022_surface_packaging"]
CACHE = "allen2022_surface_cache"
BETAS = "nsddata_betas/ppdata/subj08/fsaverage/betas_fithrf_GLMdenoise_RR"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


class Run:
    """A command that runs in `folder`. Its temporary files are in there, so that those that it leaves behind can be found."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir(exist_ok=True)
        self.process = subprocess.Popen(
            [*COMMAND, *map(str, arguments)],
            env=os.environ | {"TMPDIR": str(self.temporary), "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def wait_until(self, condition: Callable[[], object]) -> None:
        """Wait for a moment of the run."""
        deadline = time.monotonic() + 60
        while not condition():
            assert self.process.poll() is None, f"the command ended too early: {self.process.communicate()}"
            assert time.monotonic() < deadline, "the moment did not come"
            time.sleep(0.001)

    def end(self) -> tuple[int, str]:
        """Wait for the end, check that no process or temporary file is left, and return the status and the last line."""
        _, errors = self.process.communicate(timeout=90)
        lines = [line for line in errors.splitlines() if line.startswith("allen2022-surface: ")]
        assert "Traceback" not in errors
        assert len(lines) == (self.process.returncode != 0), errors
        assert not lines or errors.endswith(f"{lines[0]}\n"), errors
        deadline = time.monotonic() + 5
        while list_session(self.process.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not list_session(self.process.pid)
        assert not [path for path in self.temporary.rglob("*") if not path.is_dir()]
        return self.process.returncode, lines[0] if lines else ""

    def workers(self) -> list[int]:
        return [pid for pid, command in list_session(self.process.pid).items() if "spawn_main" in command]


def list_session(leader: int) -> dict[int, str]:
    """Return the command lines of the processes of a session that have not ended, by number."""
    commands = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            state, *fields = path.read_text().rpartition(")")[2].split()
            if int(fields[2]) == leader and state != "Z":
                commands[int(path.parent.name)] = path.with_name("cmdline").read_bytes().decode()
    return commands


def kill_session(leader: int) -> None:
    for pid in list_session(leader):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def start(tmp_path):
    """A function that starts a command in the folder of the test. What a failed test leaves behind is killed."""
    runs: list[Run] = []

    def start_run(*arguments: object) -> Run:
        runs.append(Run(tmp_path, *arguments))
        return runs[-1]

    yield start_run
    for run in runs:
        kill_session(run.process.pid)
        run.process.wait()


def is_starting_workers(run: Run, folder: Path) -> bool:
    return bool(run.workers())


def is_reading(run: Run, folder: Path) -> bool:
    return any((folder / CACHE).glob("*.npy"))


def is_writing_values(run: Run, folder: Path) -> bool:
    return any(folder.glob(".release.partial/*.nc"))


@pytest.fixture
def reading(start, nsd_tree, tmp_path):
    """A function that starts a build with two workers, and returns it when it reads betas."""

    def start_reading(*options: object) -> Run:
        run = start("build", nsd_tree, tmp_path / "release", *(options or ("--workers", 2)))
        run.wait_until(lambda: is_reading(run, tmp_path))
        return run

    return start_reading


MOMENTS = [
    (is_writing_values, signal.SIGTERM),
    (is_starting_workers, signal.SIGINT),
    (is_reading, signal.SIGTERM),
    (is_reading, signal.SIGKILL),
]


@pytest.mark.parametrize(("moment", "number"), MOMENTS)
def test_build_that_a_signal_ends_leaves_nothing_and_continues(start, nsd_tree, release, tmp_path, moment, number):
    """SIGKILL leaves hidden files, which the next build removes."""
    arguments = ("build", nsd_tree, tmp_path / "release")
    run = start(*arguments, "--workers", 1 if moment is is_writing_values else 2)
    run.wait_until(lambda: moment(run, tmp_path))

    run.process.send_signal(number)

    if number == signal.SIGKILL:
        assert run.process.wait(timeout=60) == -number
    else:
        assert run.end()[0] == 128 + number
        assert {path.name for path in tmp_path.iterdir()} <= {CACHE, "tmp"}
        assert not any(path.name.endswith(".partial") for path in tmp_path.rglob("*"))
    assert start(*arguments).end() == (0, "")
    assert hashes(tmp_path / "release") == hashes(release)
    assert {path.name for path in tmp_path.iterdir()} == {"release", CACHE, "tmp"}
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(("number", "reason"), [(signal.SIGINT, "Interrupted"), (signal.SIGHUP, "Stopped by SIGHUP")])
def test_terminal_ends_a_build_and_its_workers(reading, tmp_path, number, reason):
    """By Ctrl-C, or because it is closed: it sends the signal to all processes."""
    run = reading()

    os.killpg(run.process.pid, number)

    assert run.end() == (128 + number, f"allen2022-surface: {reason}.")
    assert {path.name for path in tmp_path.iterdir()} == {CACHE, "tmp"}


def test_ignored_signal_stays_ignored(start, tmp_path):
    """As nohup asks for."""
    handler = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run = start("simulate", tmp_path / "nsd")
    finally:
        signal.signal(signal.SIGHUP, handler)
    run.wait_until(lambda: any(tmp_path.glob(".nsd.partial/nsddata_betas/**/*.mgh")))

    run.process.send_signal(signal.SIGHUP)

    assert run.end() == (0, "")


# --- workers and schedulers ----------------------------------------------------------------------------------------------


def test_build_goes_on_after_a_worker_dies(reading, release, tmp_path):
    run = reading()

    os.kill(run.workers()[0], signal.SIGKILL)

    assert run.end() == (0, "")
    assert hashes(tmp_path / "release") == hashes(release)


def test_build_fails_in_one_line_when_workers_keep_dying(reading, tmp_path, monkeypatch):
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT", "3s")
    run = reading()

    deadline = time.monotonic() + 60
    while run.process.poll() is None and time.monotonic() < deadline:
        for pid in run.workers():
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)

    status, line = run.end()
    assert status == 1 and "workers died" in line
    assert not list(tmp_path.glob("*release*"))


SCHEDULER = """
import sys
from distributed import LocalCluster

if __name__ == "__main__":
    options = {"threads_per_worker": 1, "processes": False, "protocol": "tcp", "dashboard_address": None}
    with LocalCluster(n_workers=int(sys.argv[1]), **options) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@contextlib.contextmanager
def cluster(folder: Path, n_workers: int = 1, python_path: str = ""):
    """A scheduler and its workers, in a session of its own."""
    script = folder / "scheduler.py"
    script.write_text(SCHEDULER)
    process = subprocess.Popen(
        [sys.executable, script, str(n_workers)],
        env=os.environ | {"PYTHONPATH": python_path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        cwd=folder,
    )
    try:
        yield process, process.stdout.readline().strip()
    finally:
        kill_session(process.pid)
        process.wait()


def test_build_fails_in_one_line_when_the_scheduler_dies(reading, tmp_path):
    with cluster(tmp_path) as (scheduler, address):
        run = reading("--scheduler", address)

        os.killpg(scheduler.pid, signal.SIGKILL)

        status, line = run.end()
    assert status == 1 and address in line
    assert not list(tmp_path.glob("*release*"))


@pytest.mark.parametrize(
    ("n_workers", "content", "message"),
    [
        (0, "", "The dask scheduler has no workers. Start some"),
        (1, "raise ModuleNotFoundError('No module named it')", "0.1.0 (No module named it). Install it where"),
        (1, "__version__ = '0.0.9'", "0.1.0 (0.0.9). Install it where the scheduler and all workers run."),
    ],
)
def test_what_a_cluster_lacks_is_said_in_one_line(nsd_tree, tmp_path, monkeypatch, n_workers, content, message):
    monkeypatch.setattr("allen2022_surface_packaging.assemble.cluster.PATIENCE_SECONDS", 1)
    package = tmp_path / "path" / "allen2022_surface_packaging" / "__init__.py"
    package.parent.mkdir(parents=True)
    package.write_text(content)
    with cluster(tmp_path, n_workers, str(package.parent.parent) if content else "") as (_, address):
        result = run_cli("build", nsd_tree, tmp_path / "release", "--scheduler", address, "--cache", "none")

    assert result.returncode == 1
    assert message in result.stderr.splitlines()[-1]
    assert not list(tmp_path.glob("*release*"))


# --- other builds and changed files --------------------------------------------------------------------------------------


def test_two_builds_share_a_cache(start, nsd_tree, release, four_subject_release, tmp_path):
    eight = start("build", nsd_tree, tmp_path / "eight")
    four = start("build", nsd_tree, tmp_path / "four", "--subjects", 1, 2, 5, 7)

    assert (eight.end(), four.end()) == ((0, ""), (0, ""))

    assert hashes(tmp_path / "eight") == hashes(release)
    assert hashes(tmp_path / "four") == hashes(four_subject_release)


def test_two_builds_of_one_release_give_it_once(start, nsd_tree, release, tmp_path):
    runs = [start("build", nsd_tree, tmp_path / "release") for _ in range(2)]

    first, (status, line) = sorted(run.end() for run in runs)

    assert (first, status) == ((0, ""), 1)
    assert "Another process is writing" in line or "exists already" in line
    assert hashes(tmp_path / "release") == hashes(release)
    assert {path.name for path in tmp_path.iterdir()} == {"release", CACHE, "tmp"}


def overwrite(path: Path) -> None:
    """Write other betas into the file, which keeps its size."""
    content = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(284)
        file.write(content[284:][::-1])


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("change", [overwrite, truncate, Path.unlink])
def test_build_notices_betas_that_change_meanwhile(start, tree_copy, tmp_path, change):
    run = start("build", tree_copy, tmp_path / "release")
    run.wait_until(lambda: is_reading(run, tmp_path))

    path = tree_copy / BETAS / "rh.betas_session03.mgh"
    change(path)

    status, line = run.end()
    assert status == 1 and str(path) in line
    assert not list(tmp_path.glob("*release*"))
