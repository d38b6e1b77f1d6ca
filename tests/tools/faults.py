"""Commands run while system calls fail, or are killed there, and what must be true afterwards.

    python tests/tools/faults.py --cases 100 --seed 1        # about five seconds a case

strace lets one call on a file of the working folder fail. The command must succeed, or end with one line that names the
folder; the older result stays until the new one is whole; and the same command, started again, succeeds and leaves nothing.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

COMMAND = [sys.executable, "-m", "allen2022_surface_packaging", "-q"]
KILL = "signal=SIGKILL"
# Closing a file that was only read does not fail on any real disk, so `close` is left out.
FAULTS = {
    "read": ("error=EIO",),
    "preadv2": ("error=EIO",),
    "write": ("error=ENOSPC", "error=EIO", KILL),
    "pwrite64": ("error=ENOSPC", "error=EDQUOT"),
    "openat": ("error=EMFILE", "error=EACCES", "error=EIO", KILL),
    "rename": ("error=EACCES", "error=EIO", KILL),
    "fallocate": ("error=ENOSPC", "error=EOPNOTSUPP"),
    "mkdir": ("error=ENOSPC", "error=EROFS", KILL),
    "unlink": ("error=EACCES", KILL),
    "flock": ("error=ENOLCK", "error=EBADF", "error=EAGAIN"),
    "chmod": ("error=EPERM",),
    "fsync": ("error=EINVAL",),
}
MATLAB_TEXT = 116  # bytes at the start of a MATLAB file, which hold the time
VOLATILE = ("verify.json", "nsd_stimuli.hdf5")  # they hold times


class Scene(NamedTuple):
    """A command, what it writes, and what is there before and after it."""

    arguments: tuple[str, ...]
    target: Path
    before: dict[str, bytes]
    after: dict[str, bytes]


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder that is the same in every run, by relative path."""
    paths = [path for path in folder.rglob("[!.]*") if path.is_file() and path.name not in VOLATILE]
    return {str(path.relative_to(folder)): path.read_bytes()[MATLAB_TEXT * (path.suffix == ".mat") :] for path in paths}


def run(arguments: tuple[str, ...], *strace: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the package, under strace if it has options."""
    tracing = ["strace", "-f", "-y", "-qq", "-e", f"trace={','.join(FAULTS)}", *strace] if strace else []
    environment = os.environ | {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run([*tracing, *COMMAND, *arguments], env=environment, capture_output=True, text=True)


def make_scenes(folder: Path) -> list[Scene]:
    """Make a small tree, and the sound result of every command."""
    tree, target, copy = folder / "nsd", folder / "out" / "release", folder / "copy"
    size = ("--subjects", "1", "--sessions", "2", "--trials", "30", "--vertices", "162", "--image-size", "8")
    build, report = ("build", str(tree), str(target), "--subjects", "1", "--name", "one"), ("report", str(target))
    results = []
    for arguments in (("simulate", str(tree), *size), build, report):
        assert run(arguments).returncode == 0
        results.append(read_files(target if target.exists() else tree))
    simulated, release, reported = results
    old = {"release.json": release["release.json"], "old": b"old"}
    return [
        Scene(("simulate", str(copy), *size), copy, {}, simulated),
        Scene(build, target, {}, release),
        Scene((*build, "--overwrite"), target, old, release),
        Scene(report, target, release | {"report.html": b"old"}, reported),
        Scene(("verify", str(target), "--nsd-root", str(tree), "--all"), target, release, release),
    ]


def trace(scene: Scene, folder: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """Bring the folder into the state before a command, and return how it ends under strace, and the lines of strace."""
    for path in (folder / "out", scene.target):
        shutil.rmtree(path, ignore_errors=True)
    for name, content in scene.before.items():
        (scene.target / name).parent.mkdir(parents=True, exist_ok=True)
        (scene.target / name).write_bytes(content)
    log = folder.parent / "log"
    return run(scene.arguments, "-o", str(log), *options), log.read_text(errors="replace").splitlines()


def is_about(folder: Path, line: str) -> bool:
    """Return whether a line of strace is about a file of the folder: its path or its descriptor is the first argument."""
    return re.search(rf'\w\((\d+<|AT_FDCWD(<[^>]*>)?, "|"){folder}', line) is not None


def list_calls(scene: Scene, folder: Path) -> dict[str, list[int]]:
    """Return which calls of the first thread are on files of the folder, by kind and number."""
    numbers, calls, first_thread = Counter[str](), defaultdict[str, list[int]](list), ""
    for line in trace(scene, folder)[1]:
        thread, rest = line.split(maxsplit=1)
        first_thread = first_thread or thread
        call = re.match(r"(\w+)\(", rest)
        if call and thread == first_thread:
            numbers[call[1]] += 1
            if is_about(folder, line):
                calls[call[1]].append(numbers[call[1]])
    return calls


def try_fault(scene: Scene, folder: Path, fault: str) -> str | None:
    """Run a command with a fault, and say which promise it breaks, "" if it keeps all, or None if no file of the folder was met."""
    result, traced = trace(scene, folder, "-e", f"inject={fault}")
    is_killed, is_failed = KILL in fault, result.returncode == 1
    if not is_killed and not any(is_about(folder, line) for line in traced if "INJECTED" in line):
        return None
    lines = [line for line in result.stderr.splitlines() if line.startswith("allen2022-surface: ")]
    is_failed |= result.returncode == -signal.SIGSEGV and bool(lines)  # as HDF5 may end after a failure
    files, status = read_files(scene.target), f"status {result.returncode}"
    if not (is_killed or is_failed or result.returncode == 0) or "Traceback" in result.stderr:
        return f"{status}: {result.stderr[-500:]}"
    if is_failed and (len(lines) != 1 or str(folder) not in lines[0]):
        return f"not one line that names the file: {result.stderr[-500:]}"
    replaced = read_files(scene.target.with_name(f".{scene.target.name}.replaced"))
    is_whole = files in (scene.before, scene.after) or (is_killed and not files and replaced == scene.before)
    if not is_whole or (result.returncode == 0 and files != scene.after):
        return f"{status}, and the target holds {sorted(files)[:5]} ..."
    if files != scene.after and (again := run(scene.arguments)).returncode:
        return f"a second run fails: {again.stderr[-500:]}"
    if read_files(scene.target) != scene.after:
        return "a second run gives another result"
    # A half-written file may be that of another process, so it stays for an hour.
    left = [path for path in folder.rglob(".*") if path.is_dir() or path.suffix != ".partial"]
    return f"left behind: {left}" if left else ""


def main() -> None:
    """Try faults, and print those that break a promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, counts, n_broken = random.Random(options.seed), Counter[str](), 0
    with tempfile.TemporaryDirectory(prefix="faults_") as temporary:
        folder = Path(temporary) / "scene"
        folder.mkdir()
        calls = [(scene, list_calls(scene, folder)) for scene in make_scenes(folder)]
        for number in range(options.cases):
            scene, numbers = rng.choice(calls)
            call = rng.choice(sorted(numbers))
            fault = f"{call}:{rng.choice(FAULTS[call])}:when={rng.choice(numbers[call])}"
            broken = try_fault(scene, folder, fault)
            counts["missed" if broken is None else call] += 1
            if broken:
                n_broken += 1
                print(f"case {number}, {' '.join(scene.arguments)}, {fault}: {broken}", flush=True)
    print(f"{counts.total()} faults ({dict(counts)}): {n_broken} break a promise")
    sys.exit(n_broken > 0)


if __name__ == "__main__":
    main()
