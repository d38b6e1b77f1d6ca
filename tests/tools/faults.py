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
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

COMMAND = [sys.executable, "-m", "allen2022_surface_packaging"]
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


@dataclass(frozen=True)
class Scene:
    """A command, what it writes, and what is there before and after it."""

    arguments: tuple[str, ...]
    target: Path
    before: dict[str, bytes]
    after: dict[str, bytes]


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder that is the same in every run, by relative path."""
    paths = [path for path in folder.rglob("[!.]*") if path.is_file() and path.name not in VOLATILE]
    return {str(path.relative_to(folder)): path.read_bytes()[MATLAB_TEXT * (path.suffix == ".mat") :] for path in paths}


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Make a folder hold these files and no others; no folder if there are no files."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def run(arguments: tuple[str, ...], *strace: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the package, under strace if it has options."""
    environment = os.environ | {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1"}
    tracing = ["strace", "-f", "-y", "-qq", *strace] if strace else []
    return subprocess.run([*tracing, *COMMAND, "-q", *arguments], env=environment, capture_output=True, text=True)


def make_scenes(folder: Path) -> list[Scene]:
    """Make a small tree, and the sound result of every command."""
    tree, target, regions = folder / "nsd", folder / "out" / "release", folder / "copy"
    size = ["--subjects", "1", "--sessions", "2", "--trials", "30", "--vertices", "162", "--image-size", "8"]
    build = ("build", str(tree), str(target), "--subjects", "1", "--name", "one")
    assert run(("simulate", str(tree), *size)).returncode == 0
    assert run(build).returncode == 0
    release = read_files(target)
    assert run(("report", str(target))).returncode == 0
    reported = read_files(target)
    old = {"release.json": release["release.json"], "old": b"old"}
    return [
        Scene(("simulate", str(regions), *size), regions, {}, read_files(tree)),
        Scene(build, target, {}, release),
        Scene((*build, "--overwrite"), target, old, release),
        Scene(("report", str(target)), target, release | {"report.html": b"old"}, reported),
        Scene(("verify", str(target), "--nsd-root", str(tree), "--all"), target, release, release),
    ]


def prepare(scene: Scene, folder: Path) -> None:
    """Bring the folder into the state before a command."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    write_files(scene.target, scene.before)


def is_about(folder: Path, line: str) -> bool:
    """Return whether a line of strace is about a file of the folder: its path or its descriptor is the first argument."""
    return re.search(rf'\w\((\d+<|AT_FDCWD(<[^>]*>)?, "|"){folder}', line) is not None


def list_calls(scene: Scene, folder: Path) -> dict[str, list[int]]:
    """Return which calls of the first thread are on files of the folder, by kind and number."""
    prepare(scene, folder)
    log = folder.parent / "log"
    run(scene.arguments, "-o", str(log), "-e", f"trace={','.join(FAULTS)}")
    numbers: Counter[str] = Counter()
    calls: dict[str, list[int]] = {}
    lines = log.read_text(errors="replace").splitlines()
    for line in lines:
        thread, call = line.split(maxsplit=1)[0], re.match(r"\d+ +(\w+)\(", line)
        if call and thread == lines[0].split(maxsplit=1)[0]:
            numbers[call[1]] += 1
            if is_about(folder, line):
                calls.setdefault(call[1], []).append(numbers[call[1]])
    return calls


def try_fault(scene: Scene, folder: Path, fault: str) -> str | None:
    """Run a command with a fault, and say which promise it breaks, "" if it keeps all, or None if no file of the folder was met."""
    prepare(scene, folder)
    log = folder.parent / "log"
    result = run(scene.arguments, "-o", str(log), "-e", f"trace={','.join(FAULTS)}", "-e", f"inject={fault}")
    is_killed = KILL in fault
    lines = log.read_text(errors="replace").splitlines()
    if not is_killed and not any(is_about(folder, line) for line in lines if "INJECTED" in line):
        return None
    lines = [line for line in result.stderr.splitlines() if line.startswith("allen2022-surface: ")]
    files = read_files(scene.target)
    is_failed = result.returncode == 1 or (
        result.returncode == -signal.SIGSEGV and lines
    )  # as HDF5 may end after a failure
    if not (is_killed or is_failed or result.returncode == 0) or "Traceback" in result.stderr:
        return f"status {result.returncode}: {result.stderr[-500:]}"
    if is_failed and (len(lines) != 1 or str(folder) not in lines[0]):
        return f"not one line that names the file: {result.stderr[-500:]}"
    replaced = read_files(scene.target.with_name(f".{scene.target.name}.replaced"))
    if files not in (scene.before, scene.after) and not (is_killed and not files and replaced == scene.before):
        return f"status {result.returncode}, and the target holds {sorted(files)[:5]} ..."
    if result.returncode == 0 and files != scene.after:
        return f"success, but the target holds {sorted(files)[:5]} ..."
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
