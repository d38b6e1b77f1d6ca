"""Speed and memory against the peers, on the same files, in one run: ``make bench``, or ``make bench BENCH=--full``."""

from __future__ import annotations

# Nothing but the standard library: the memory of a parent counts in the peak of its children.
import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
VERSIONS = ("numpy", "xarray", "netCDF4", "nibabel", "dask", "brainscore_core", "brainscore_vision")
SUBJECT = 4


@dataclass(frozen=True)
class Size:
    """How large the measured trees are."""

    n_sessions: int
    n_vertices: int
    n_cold_sessions: int
    n_repeats: int


QUICK = Size(n_sessions=6, n_vertices=40_962, n_cold_sessions=6, n_repeats=2)
FULL = Size(n_sessions=30, n_vertices=163_842, n_cold_sessions=3, n_repeats=2)


@dataclass(frozen=True)
class Row:
    """One line of the table: the ratio or value measured, and whether it meets its target."""

    work: str
    own: str
    peer: str
    measured: float
    unit: str
    target: float | None
    more_is_better: bool = False

    def __str__(self) -> str:
        if self.target is None:
            return f"| {self.work} | {self.own} | {self.peer} | {self.measured:.2f}{self.unit} | – | – |"
        met = self.measured >= self.target if self.more_is_better else self.measured <= self.target
        sign = "≥" if self.more_is_better else "≤"
        verdict = "met" if met else "**not met**"
        return (
            f"| {self.work} | {self.own} | {self.peer} | {self.measured:.2f}{self.unit} | "
            f"{sign} {self.target:g}{self.unit} | {verdict} |"
        )


@dataclass(frozen=True)
class Cost:
    """What a command cost: seconds on the clock, seconds of all cores, and the peak memory of one process, in bytes."""

    seconds: float
    core_seconds: float
    memory: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="one full-size subject: 30 sessions of 163,842 vertices")
    parser.add_argument("--directory", type=Path, help="work here (default: a temporary folder); needs 15 GB if --full")
    parser.add_argument("--expdesign", type=Path, help="NSD's own nsd_expdesign.mat (default: a made one; --full only)")
    options = parser.parse_args()
    size = FULL if options.full else QUICK
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="bench-") as folder:
        print(machine(), flush=True)
        print(f"\n{size}\n\n| work | own | peer | measured | target | |\n|---|---|---|---|---|---|", flush=True)
        started = time.perf_counter()
        for part in (raw_to_release, workers, cold_files, full_size_files, ceilings):
            for row in part(Path(folder), size, options.expdesign if options.full else None):
                print(row, flush=True)
    print(f"\nload average {os.getloadavg()[0]:.1f}; {time.perf_counter() - started:.0f} s in all")


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    packages = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}; {packages}; load average {os.getloadavg()[0]:.1f} at the start"
    )


def run(*command: str | Path, environment: dict[str, str] | None = None) -> tuple[dict[str, Any], Cost]:
    """Run a command; return what it printed as JSON, and what it cost."""
    started = time.perf_counter()
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | {"PYTHONWARNINGS": "ignore"} | (environment or {}),
        )
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{' '.join(map(str, command))} failed:\n{errors.read().decode()[-3000:]}")
    last = output.decode().strip().splitlines()[-1] if output.strip() else ""
    return json.loads(last) if last.startswith("{") else {}, Cost(
        seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    )


def measure(name: str, *arguments: Any, environment: dict[str, str] | None = None) -> dict[str, Any]:
    return run(HERE / "measurements.py", name, *map(str, arguments), environment=environment)[0]


def make_tree(
    root: Path, subjects: list[int], size: Size, n_real: int, n_sessions: int, expdesign: Path | None
) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r}); from pathlib import Path; from trees import make_tree; "
        f"make_tree(Path({str(root)!r}), subjects={subjects}, n_sessions={n_sessions}, n_vertices={size.n_vertices}, "
        f"n_real={n_real}, expdesign={f'Path({str(expdesign)!r})' if expdesign else None})"
    )
    run("-c", code)


def betas(root: Path, subject: int = SUBJECT) -> list[Path]:
    return sorted((root / f"subj{subject:02d}/betas").glob("?h.betas_session*.mgh"), key=lambda path: path.name[-6:])


def build(root: Path, release: Path, subjects: list[int], *more: str) -> Cost:
    """Build a release from nothing, and return what the whole command cost."""
    shutil.rmtree(release, ignore_errors=True)
    names = [str(subject) for subject in subjects]
    command = ["-m", "allen2022_surface_packaging", "build", root, release, "--name", "bench", "--cache", "none"]
    return run(*command, "--subjects", *names, *more)[1]


def raw_to_release(folder: Path, size: Size, expdesign: Path | None) -> Iterator[Row]:
    root, release = folder / "nsd", folder / "release"
    # Four subjects of as many sessions each; of NSD's own only 4 and 8 have no more than 30.
    subjects = [SUBJECT, 8, 1, 2] if size is QUICK else [SUBJECT, 8]
    make_tree(root, subjects, size, 1, size.n_sessions, expdesign)
    plain, costs = [], []
    for _ in range(size.n_repeats):
        plain.append(measure("plain_read", *betas(root)))
        costs.append(build(root, release, [SUBJECT]))
    own, memory = [cost.seconds for cost in costs], costs[-1].memory
    _, peer = run(HERE / "measurements.py", "notebooks", root, str(SUBJECT), str(size.n_sessions), str(size.n_vertices))
    gigabytes = sum(path.stat().st_size for path in betas(root)) / 1e9
    work = f"raw betas to release, one subject, {size.n_sessions} sessions, {gigabytes:.1f} GB, warm"
    times = f"{min(own):.2f} s"
    reading = min(found["seconds"] for found in plain)
    yield Row(
        work, times, f"notebooks {peer.seconds:.1f} s", peer.seconds / min(own), " x faster", 12, more_is_better=True
    )
    yield Row("the same", times, f"plain read {reading:.2f} s", min(own) / reading, " x", 2)
    core_seconds, reading = min(cost.core_seconds for cost in costs), min(found["core seconds"] for found in plain)
    times = f"{core_seconds:.2f} s"
    yield Row(
        "core seconds of that, which other work on the machine changes less", times,
        f"notebooks {peer.core_seconds:.1f} s", peer.core_seconds / core_seconds, " x fewer", None,
    )  # fmt: skip
    yield Row("the same", times, f"plain read {reading:.2f} s", core_seconds / reading, " x", None)
    yield Row("peak memory of that", f"{memory / 1e9:.2f} GB", f"{peer.memory / 1e9:.2f} GB", memory / 1e9, " GB", 0.7)
    for n_subjects in (2, 4):
        if n_subjects <= len(subjects):
            more = build(root, release, subjects[:n_subjects]).memory
            yield Row(
                f"peak memory, {n_subjects} subjects", f"{more / 1e9:.2f} GB", "", more / memory, " x of one", 1.1
            )
    if size.n_sessions > 10:
        other = folder / "fewer"
        make_tree(other, [SUBJECT], size, 1, size.n_sessions // 2, None)
        fewer = build(other, release, [SUBJECT]).memory
        yield Row("peak memory, half the sessions", f"{fewer / 1e9:.2f} GB", "", memory / fewer, " x of it", 1.1)
        shutil.rmtree(other)


def _start(processes: list[subprocess.Popen[str]]) -> list[str]:
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [process.communicate()[0] for process in processes]


def workers(folder: Path, size: Size, expdesign: Path | None) -> Iterator[Row]:
    root = folder / "nsd"
    cores = sorted(os.sched_getaffinity(0))[:2]
    n_repeats = 100

    def together(n_workers: int) -> tuple[float, float]:
        share = n_repeats // n_workers
        command = [sys.executable, HERE / "measurements.py", "compute", root, SUBJECT]
        processes = [
            subprocess.Popen(
                [*map(str, [*command, core, share])], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for core in cores[:n_workers]
        ]
        for process in processes:  # start together, when each has its betas in memory
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
        found = [json.loads(output) for output in _start(processes)]
        seconds = max(one["ended"] for one in found) - min(one["started"] for one in found)
        return seconds, max(one["core seconds"] for one in found)

    if len(cores) == 2:
        pairs = [(together(1), together(2)) for _ in range(size.n_repeats)]
        for i, what in enumerate(("CPU-bound part", "core seconds of each")):
            one, two = (min(found[i] for found in many) for many in zip(*pairs, strict=True))
            yield Row(
                f"two workers on two cores, {what}", f"{two:.2f} s", f"one on one core {one:.2f} s", one / two,
                " x faster", None if i else 1.7, more_is_better=True,
            )  # fmt: skip
    times = {}
    for n_workers in (1, 2):
        times[n_workers] = build(root, folder / "release", [SUBJECT], "--workers", str(n_workers)).seconds
    yield Row(
        "the whole build, --workers 2", f"{times[2]:.2f} s", f"--workers 1 {times[1]:.2f} s", times[1] / times[2],
        " x faster", None,
    )  # fmt: skip
    shutil.rmtree(root)


def cold_files(folder: Path, size: Size, expdesign: Path | None) -> Iterator[Row]:
    root = folder / "cold"
    make_tree(root, [SUBJECT], size, size.n_cold_sessions, size.n_cold_sessions, None)
    paths = betas(root)

    def forget() -> None:
        for path in paths:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    plain, own = [], []
    for i in range(size.n_repeats):
        forget()
        plain.append(measure("plain_read", *paths)["seconds"])
        forget()
        own.append(measure("sessions", root, SUBJECT, 1, folder / f"cold_cache{i}")["seconds"])
    gigabytes = sum(path.stat().st_size for path in paths) / 1e9
    work = f"cold files, {len(paths) // 2} sessions, {gigabytes:.1f} GB: read and standardised"
    yield Row(work, f"{min(own):.2f} s", f"plain read {min(plain):.2f} s", min(own) / min(plain), " x", 1.25)
    shutil.rmtree(root)


def full_size_files(folder: Path, size: Size, expdesign: Path | None) -> Iterator[Row]:
    """Write and load assemblies of NSD's own size, which takes seconds in either mode."""
    root, release, home = folder / "labels", folder / "full", folder / "brainio"
    home.mkdir()
    code = (
        f"from pathlib import Path; from allen2022_surface_packaging.nsd.simulation import Recipe, simulate_tree; "
        f"simulate_tree(Path({str(root)!r}), Recipe(subjects=(1,), n_sessions=1, n_trials=9, n_vertices=163842, image_size=8))"
    )
    run("-c", code)
    own = [measure("write_own", root, folder / "own.nc") for _ in range(size.n_repeats)]
    core = measure("write_core", root, home)
    fastest = min(one["seconds"] for one in own)
    peer = core["train"]
    yield Row(
        "writing the train assembly, 412 x 221,160", f"{fastest:.2f} s", f"write_netcdf {peer['seconds']:.1f} s",
        peer["seconds"] / fastest, " x faster", 20, more_is_better=True,
    )  # fmt: skip
    yield Row(
        "size of that", f"{own[0]['bytes'] / 1e6:.1f} MB", f"{peer['bytes'] / 1e6:.1f} MB",
        own[0]["bytes"] / peer["bytes"], " x", 1.03,
    )  # fmt: skip
    measure("write_release", root, release)
    environment = {"BRAINSCORE_ALLEN2022_SURFACE_DIR": str(release), "BRAINIO_HOME": str(home)}
    for identifier, split, region, target in (
        ("Allen2022_fmri_surface.train", "train", "", 3),
        ("Allen2022_fmri_surface.V4.test", "test", "V4", 20),
    ):
        ours, theirs = [], []
        for _ in range(size.n_repeats):
            ours.append(measure("load_own", identifier, environment=environment))
            theirs.append(measure("load_core", core[split]["sha1"], split, release, region, environment=environment))
        assert abs(ours[0]["sum"] - theirs[0]["sum"]) < 1e-3 and ours[0]["shape"] == theirs[0]["shape"]
        one, other = (min(found["seconds"] for found in many) for many in (ours, theirs))
        yield Row(
            f"loading {identifier}", f"{one:.3f} s", f"load_assembly_from_s3 {other:.2f} s", other / one, " x faster",
            target, more_is_better=True,
        )  # fmt: skip
        if region:
            one, other = (max(found["more memory"] for found in many) for many in (ours, theirs))
            yield Row(
                "memory of that", f"{one / 1e6:.0f} MB", f"{other / 1e6:.0f} MB", one / other, " x", 0.1
            )  # fmt: skip


def ceilings(folder: Path, size: Size, expdesign: Path | None) -> Iterator[Row]:
    found, _ = run(HERE / "ceilings.py")
    own, peer = f"{1000 * found['own_seconds']:.1f} ms", f"load_ceiling {found['peer_seconds']:.1f} s"
    work = f"split-half ceilings, {found['n_neuroids']:,} neuroids"
    yield Row(work, own, peer, found["times_faster"], " x faster", 300, more_is_better=True)
    memory = found["assemblies_in_memory"]
    work = "memory for the ceilings of all 221,168 neuroids"
    yield Row(work, f"{found['own_seconds_of_all']:.2f} s", "", memory, " x the assembly", 2)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
