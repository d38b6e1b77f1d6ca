"""Commands of the package run while system calls fail, and what must be true afterwards.

One process runs all cases. It is started with the shim `faults.c` loaded, imports the package once, and forks for every command.

The suite runs a sample (`test_faults.py`). This runs more, and prints every case that breaks a promise, and a summary::

    python tests/faults.py                      # every call once, with an error chosen at random: two hours
    python tests/faults.py --scene pack         # of one command; several may run at the same time
    python tests/faults.py --cases 300 --seed 1
"""

import argparse
import ctypes
import errno
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from tqdm import tqdm

from allen2022_surface_packaging.recipe import PUBLISHED_REGIONS
from support import recipe_lines

SOURCE = Path(__file__).with_suffix(".c")
SUBJECT, NAME = 1, "one"
SHORT = 0  # in place of an error number: a read or write that is short
ERRORS = {
    "read": (SHORT, errno.EIO),
    "write": (SHORT, errno.ENOSPC, errno.EIO, errno.EDQUOT),
    "open": (errno.EMFILE, errno.EACCES, errno.EIO),
    "close": (errno.EIO, errno.ENOSPC),
    "rename": (errno.EACCES, errno.EIO),
    "fallocate": (errno.ENOSPC, errno.EDQUOT),
    "truncate": (errno.EIO,),
    "mkdir": (errno.ENOSPC, errno.EROFS),
    "unlink": (errno.EACCES, errno.EIO),
    "stat": (errno.EIO,),
    "flock": (errno.EIO,),
    "fsync": (errno.EIO,),
}
DEATH = -1  # in place of an error number: the process is killed before the call
DEADLY = ("rename", "mkdir", "unlink", "close", "open", "flock", "fallocate", "write")
# A cleanup that may not look or delete leaves something behind, whoever writes it.
CLEANING_CALLS = ("unlink", "open", "stat")
IMPORTED = (
    *("pandas.io.formats.csvs", "xarray", "dask.array", "distributed", "jinja2", "PIL.PngImagePlugin"),
    *(
        f"allen2022_surface_packaging.{name}"
        for name in ("build.pipeline", "nsd.simulation", "report.page", "verify.verdicts")
    ),
)
TITLES = ("build", "build --overwrite", "pack", "report", "simulate", "verify")
# Closing a file that was only read does not fail on any real disk, and HDF5 crashes where it does.
READING_TITLES = ("report", "verify")
TIMEOUT_SECONDS = 60
MATLAB_TEXT = 116  # bytes at the start of a MATLAB file, which hold the time
TWO_REGIONS = recipe_lines(NAME, [SUBJECT], PUBLISHED_REGIONS[::2])


@dataclass(frozen=True)
class Fault:
    """Which calls fail: the n-th of its kind, and all later ones if it `lasts`."""

    call: str
    n: int
    error: int
    lasts: bool

    def __str__(self) -> str:
        error = {SHORT: "short", DEATH: "killed"}.get(self.error) or errno.errorcode[self.error]
        return f"{self.call} number {self.n}{' and later' * self.lasts}: {error}"


NO_FAULT = Fault("none", 0, SHORT, False)


@dataclass(frozen=True)
class Outcome:
    """How a command ended: its exit status (negative for a signal), its standard error, and how many calls it made."""

    status: int
    stderr: str
    n_calls: dict[str, int]


class Runner:
    """The process that runs commands."""

    def __init__(self, shim: Path) -> None:
        environment = os.environ | {"LD_PRELOAD": str(shim), "OPENBLAS_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(shim)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.process.stdin.close()
        self.process.wait()

    def run(self, arguments: list, folder: Path, fault: Fault = NO_FAULT) -> Outcome:
        """Run a command of the package while calls on the files below a folder fail."""
        order = {"arguments": [str(argument) for argument in arguments], "folder": str(folder), "fault": asdict(fault)}
        self.process.stdin.write(f"{json.dumps(order)}\n")
        self.process.stdin.flush()
        return Outcome(**json.loads(self.process.stdout.readline()))


def compile_shim(folder: Path) -> Path:
    """Compile the shim."""
    path = folder / "faults.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(path), str(SOURCE), "-ldl"], check=True)
    return path


@dataclass(frozen=True)
class Scene:
    """A command, the folder where it works, and what is there before and after it.

    Attributes
    ----------
    arguments : of the command; `target` is what it writes
    before : the files of the target before the command; empty if there is none
    after : those after it
    """

    title: str
    folder: Path
    arguments: list
    target: Path
    before: dict
    after: dict


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, by relative path, without hidden files and verdicts of `verify`."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name[0] != "."]
    files = {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.name != "verify.json"}
    return {name: content[MATLAB_TEXT:] if name.endswith(".mat") else content for name, content in files.items()}


def write_files(folder: Path, files: dict[str, bytes]) -> None:
    """Make a folder hold these files and no others; no folder if there are no files."""
    shutil.rmtree(folder, ignore_errors=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def make_scenes(folder: Path, runner: Runner) -> list[Scene]:
    """Make a small tree and the sound results of every command."""
    (folder / "tmp").mkdir(parents=True)
    tree, release = folder / "nsd", folder / "out" / "release"
    size = ["--subjects", SUBJECT, "--sessions", 2, "--trials", 30, "--vertices", 162, "--image-size", 8]
    simulate = ["simulate", tree, *size]
    recipe, regions_release = folder.parent / "two_regions.toml", folder.parent / "regions_release"
    recipe.write_text(TWO_REGIONS)
    build_regions = ["build", tree, regions_release, "--recipe", recipe]
    pack = ["pack", regions_release, folder / "out" / "packed"]
    build = ["build", tree, release, "--subjects", SUBJECT, "--name", NAME]
    report, verify = ["report", release], ["verify", release, "--nsd-root", tree, "--all"]

    def sound(arguments: list, target: Path) -> dict:
        outcome = runner.run(arguments, folder)
        assert outcome.status == 0, outcome.stderr
        return read_files(target)

    tree_files = sound(simulate, tree)
    shutil.copytree(tree, folder.parent / "sound_tree")
    release_files = sound(build, release)
    shutil.rmtree(folder / "out")
    sound(build_regions, regions_release)
    manifest_path = regions_release / "release.json"  # a simulated release is not packed
    manifest_path.write_text(manifest_path.read_text().replace('"simulated": true', '"simulated": false'))
    packed_files = sound(pack, folder / "out" / "packed")
    write_files(release, release_files)
    reported_files = sound(report, release)
    old_files = {"release.json": release_files["release.json"], "old": b"old"}
    scenes = (
        (build, release, {}, release_files),
        ([*build, "--overwrite"], release, old_files, release_files),
        (pack, folder / "out" / "packed", {}, packed_files),
        (report, release, release_files | {"report.html": b"old"}, reported_files),
        (simulate, tree, {}, tree_files),
        (verify, release, release_files, release_files),
    )
    return [Scene(title, folder, *scene) for title, scene in zip(TITLES, scenes, strict=True)]


def prepare(scene: Scene) -> None:
    """Bring the folder of a scene into the state before the command."""
    for path in (scene.folder / "out", scene.folder / "tmp", *scene.folder.glob(".*")):
        shutil.rmtree(path, ignore_errors=True)
    (scene.folder / "tmp").mkdir()  # for temporary files
    if scene.title != "simulate" and not (scene.folder / "nsd").is_dir():
        shutil.copytree(scene.folder.parent / "sound_tree", scene.folder / "nsd")
    write_files(scene.target, scene.before)


def list_faults(scene: Scene, runner: Runner) -> dict[str, list[list[Fault]]]:
    """List what can happen at every call of a command, by the kind of the call."""
    prepare(scene)
    n_calls = runner.run(scene.arguments, scene.folder).n_calls
    return {
        call: [
            [Fault(call, n, error, lasts) for error in errors for lasts in (False, True)]
            + [Fault(call, n, DEATH, False)] * (call in DEADLY)
            for n in range(1, n_calls[call] + 1)
        ]
        for call, errors in ERRORS.items()
        if n_calls[call] and not (call == "close" and scene.title in READING_TITLES)
    }


def try_fault(scene: Scene, fault: Fault, runner: Runner) -> str | None:
    """Run the command of a scene with a fault, and say which promise it breaks; None if it keeps all."""
    prepare(scene)
    outcome = runner.run(scene.arguments, scene.folder, fault)
    broken = find_loss(scene, outcome) if fault.error == DEATH else find_broken_promise(scene, fault, outcome)
    is_there = scene.target.exists() and read_files(scene.target) == scene.after
    if broken is None and not is_there:
        again = runner.run(scene.arguments, scene.folder)
        if again.status != 0 or read_files(scene.target) != scene.after:
            broken = f"a second run does not succeed: {again.stderr.strip()}"
        elif left := find_left(scene.folder):
            broken = f"left behind after a second run: {left}"
    return broken and f"{scene.title}, {fault}: {broken}"


def find_left(folder: Path) -> list[str]:
    """List hidden and temporary files and folders.

    A killed process may leave a half-written entry in the cache for a day, and an empty temporary folder.
    """
    temporary = folder / "tmp"
    hidden = [path for path in folder.rglob(".*") if path.suffix != ".partial" or "cache" not in path.parent.name]
    left = [path for path in hidden if temporary not in path.parents]
    return [str(path) for path in (*left, *(path for path in temporary.rglob("*") if path.is_file()))]


def find_loss(scene: Scene, outcome: Outcome) -> str | None:
    """Say what a killed process has lost."""
    if outcome.status not in (-9, 0):
        # HDF5 runs in a process of its own, whose death the command reports.
        return find_broken_promise(scene, NO_FAULT, outcome)
    replaced = scene.target.with_name(f".{scene.target.name}.replaced")
    files, old_files = [read_files(path) if path.exists() else {} for path in (scene.target, replaced)]
    if files not in (scene.before, scene.after) and not (not files and old_files == scene.before):
        return f"the target holds {len(files)} files, and {replaced.name} {len(old_files)}"
    return None


def find_broken_promise(scene: Scene, fault: Fault, outcome: Outcome) -> str | None:
    """Compare the state after a command with what is promised."""
    lines = [line for line in outcome.stderr.splitlines() if line.startswith("allen2022-surface: ")]
    if outcome.status not in (0, 1):
        return f"status {outcome.status}: {outcome.stderr.strip()[-300:]}"
    if "Traceback" in outcome.stderr or "Exception ignored" in outcome.stderr:
        return f"a traceback: {outcome.stderr.strip()[-300:]}"
    if outcome.status == 1 and (len(lines) != 1 or str(scene.folder) not in lines[0]):
        return f"not one line that names the file: {outcome.stderr.strip()[-300:]}"
    if outcome.status == 1 and fault.error == SHORT and fault != NO_FAULT:
        return f"a short read or write is an error: {lines[0]}"
    files = read_files(scene.target) if scene.target.exists() else {}
    if files != (scene.after if outcome.status == 0 else scene.before):
        changed = sorted(name for name in {*files, *scene.after} if files.get(name) != scene.after.get(name))
        return f"status {outcome.status}, but the target holds {len(files)} files, other are {changed[:3]}"
    left = find_left(scene.folder)
    if left and not (fault.lasts and fault.call in CLEANING_CALLS):
        return f"left behind: {left} ({(lines or ['success'])[0]})"
    return None


def iterate_cases(
    runner: Runner, folder: Path, n: int | None, seed: int, title: str | None = None
) -> Iterator[tuple[Fault, str | None]]:
    """Try faults, and yield each with the promise that it breaks.

    `n` faults are chosen at random, of every kind of call as many; without it, one fault of every call. They are of all
    scenes, or of that with the title.
    """
    rng = random.Random(seed)
    scenes = [scene for scene in make_scenes(folder, runner) if title in (None, scene.title)]
    kinds = [(scene, faults) for scene in scenes for faults in list_faults(scene, runner).values()]
    if n is None:
        cases = [(scene, rng.choice(choices)) for scene, calls in kinds for choices in calls]
    else:
        chosen = rng.sample(kinds * -(-n // len(kinds)), n)
        cases = [(scene, rng.choice(rng.choice(calls))) for scene, calls in chosen]
    for scene, fault in tqdm(cases, unit="fault", disable=None):
        yield fault, try_fault(scene, fault, runner)


def serve(shim: str) -> None:
    """Run the commands that standard input orders, each in a child process."""
    import allen2022_surface_packaging.cli as cli

    # Before the first fork, so that children need not.
    for name in IMPORTED:
        importlib.import_module(name)
    library = ctypes.CDLL(shim)
    library.faults_count.restype = ctypes.c_long
    for line in sys.stdin:
        order = json.loads(line)
        with tempfile.TemporaryFile() as stderr, tempfile.TemporaryFile() as counts:
            child = os.fork()
            if child == 0:
                tempfile.tempdir = f"{order['folder']}/tmp"
                os.dup2(os.open(os.devnull, os.O_RDWR), 0)
                os.dup2(stderr.fileno(), 1)
                os.dup2(stderr.fileno(), 2)
                fault = order["fault"]
                arm = (fault["call"].encode(), ctypes.c_long(fault["n"]), fault["error"], int(fault["lasts"]))
                library.faults_arm(order["folder"].encode(), *arm)
                try:
                    cli.main(order["arguments"])
                finally:
                    n_calls = {call: library.faults_count(call.encode()) for call in ERRORS}
                    os.write(counts.fileno(), json.dumps(n_calls).encode())
            outcome_status = wait_for(child)
            stderr.seek(0)
            counts.seek(0)
            outcome = Outcome(
                outcome_status,
                stderr.read().decode(errors="replace"),
                json.loads(counts.read() or "{}"),
            )
        print(json.dumps(asdict(outcome)), flush=True)


def wait_for(child: int) -> int:
    """Return the exit status of a child process, negative for a signal; a child that takes too long is killed."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    is_over, status = os.waitpid(child, os.WNOHANG)
    while not is_over:
        time.sleep(0.005)
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGALRM)  # not SIGKILL, which is a fault
        is_over, status = os.waitpid(child, os.WNOHANG)
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    """Try faults, and print those that break a promise."""
    if "--serve" in sys.argv:
        serve(sys.argv[-1])
        return
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cases", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scene", choices=TITLES)
    options = parser.parse_args()
    calls: Counter[str] = Counter()
    n_broken = 0
    with tempfile.TemporaryDirectory() as folder, Runner(compile_shim(Path(folder))) as runner:
        for fault, broken in iterate_cases(runner, Path(folder) / "scene", options.cases, options.seed, options.scene):
            calls[fault.call] += 1
            if broken:
                n_broken += 1
                print(broken, flush=True)
    counted = ", ".join(f"{n} {call}" for call, n in calls.items())
    print(f"{calls.total()} faults ({counted}): {n_broken} break a promise")
    sys.exit(n_broken > 0)


if __name__ == "__main__":
    main()
