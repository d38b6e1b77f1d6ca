"""Compare speed and memory with those of the peers, on the same files: ``make bench``, or ``make bench BENCH=--full``."""

from __future__ import annotations

# Only the standard library, for the reason that `commands.py` gives.
import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from commands import MEASUREMENTS_PATH, Cost, build, build_recipes, measure, run
from results import Ceilings, Computing, Loading, Reading, Writing
from table import HEADER, Row, describe_machine, format_seconds, speedup

SUBJECT = 4
N_COMPUTATIONS = 100  # of one session and hemisphere, shared by the workers
NAME = "Allen2022_fmri_surface"
TOLERANCE = 1e-5  # of ceilings from Brain-Score's


@dataclass(frozen=True)
class Size:
    """How large the measured trees are, and how often each measurement is repeated."""

    n_sessions: int
    n_vertices: int
    n_cold_sessions: int
    n_repeats: int


QUICK = Size(n_sessions=6, n_vertices=40_962, n_cold_sessions=6, n_repeats=2)
FULL = Size(n_sessions=30, n_vertices=163_842, n_cold_sessions=3, n_repeats=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="one full-size subject: 30 sessions of 163,842 vertices")
    parser.add_argument(
        "--directory", type=Path, help="work in this folder (default: a temporary folder); --full needs 15 GB"
    )
    parser.add_argument(
        "--expdesign", type=Path, help="NSD's nsd_expdesign.mat (default: a simulated design); only used with --full"
    )
    options = parser.parse_args()
    size = FULL if options.full else QUICK
    started = time.perf_counter()
    print(f"{describe_machine()}\n\n{size}\n\n{HEADER}", flush=True)
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="bench-") as folder:
        for row in compare_all(Path(folder), size, options.expdesign if options.full else None):
            print(row, flush=True)
    print(f"\nload average {os.getloadavg()[0]:.1f}; {time.perf_counter() - started:.0f} s in all")


def compare_all(folder: Path, size: Size, expdesign_path: Path | None) -> Iterator[Row]:
    """Yield the rows of the table, one comparison after the other."""
    nsd_root = folder / "nsd"
    # Each subject has the same number of sessions. With NSD's design only subjects 4 and 8 have no more than 30.
    subjects = [SUBJECT, 8] if size is FULL else [SUBJECT, 8, 1, 2]
    make_tree(nsd_root, subjects, size.n_sessions, size.n_vertices, expdesign_path=expdesign_path)
    readings, builds = measure_builds(folder, size.n_repeats)
    yield from compare_builds(nsd_root, size, readings, builds)
    yield measure_assembling(folder, size.n_repeats)
    yield from compare_recipes(folder, size.n_repeats)
    yield from compare_build_memory(folder, size, subjects, builds[-1].memory)
    yield from compare_workers(folder, size)
    shutil.rmtree(nsd_root)
    yield from compare_cold_files(folder, size)
    yield from compare_full_size_files(folder, size.n_repeats)
    yield from compare_ceilings()


def make_tree(
    nsd_root: Path,
    subjects: Sequence[int],
    n_sessions: int,
    n_vertices: int,
    *,
    n_distinct: int = 1,
    expdesign_path: Path | None = None,
) -> None:
    """Make a tree of which `n_distinct` sessions are files, and the others are links to them."""
    names = ",".join(map(str, subjects))
    run(MEASUREMENTS_PATH, "make_tree", nsd_root, names, n_sessions, n_vertices, n_distinct, expdesign_path or "")


def list_betas(nsd_root: Path) -> list[Path]:
    """Return the betas files of the measured subject, session by session."""
    paths = (nsd_root / f"subj{SUBJECT:02d}/betas").glob("?h.betas_session*.mgh")
    return sorted(paths, key=lambda path: path.name[-6:])


def count_gigabytes(paths: Sequence[Path]) -> float:
    return sum(path.stat().st_size for path in paths) / 1e9


def measure_builds(folder: Path, n_repeats: int) -> tuple[list[Reading], list[Cost]]:
    """Read the betas of one subject and build its release, in turns."""
    readings, builds = [], []
    for _ in range(n_repeats):
        readings.append(measure(Reading, "plain_read", *list_betas(folder / "nsd")))
        builds.append(build(folder / "nsd", folder / "release", [SUBJECT]))
    return readings, builds


def compare_builds(nsd_root: Path, size: Size, readings: Sequence[Reading], builds: Sequence[Cost]) -> Iterator[Row]:
    """Compare builds of one subject with the notebooks and with plain reads."""
    _, notebooks = run(MEASUREMENTS_PATH, "notebooks", nsd_root, SUBJECT, size.n_sessions, size.n_vertices)

    seconds = min(cost.seconds for cost in builds)
    reading_seconds = min(reading.seconds for reading in readings)
    n_gb = count_gigabytes(list_betas(nsd_root))
    work = f"raw betas to release, one subject, {size.n_sessions} sessions, {n_gb:.1f} GB, warm"
    yield speedup(work, seconds, "notebooks", notebooks.seconds, 12)
    yield compare_with_plain_read("the same", seconds, reading_seconds, 1.7)

    seconds = min(cost.core_seconds for cost in builds)
    reading_seconds = min(reading.core_seconds for reading in readings)
    work = "core seconds of that, which other work on the machine changes less"
    peer = f"notebooks {format_seconds(notebooks.core_seconds)}"
    yield Row(work, format_seconds(seconds), peer, notebooks.core_seconds / seconds, " x fewer", None)
    yield compare_with_plain_read("the same", seconds, reading_seconds, None)

    memory = builds[-1].memory
    peer = f"{notebooks.memory / 1e9:.2f} GB"
    yield Row("peak memory of that", f"{memory / 1e9:.2f} GB", peer, memory / 1e9, " GB", 0.7)


def compare_with_plain_read(work: str, seconds: float, reading_seconds: float, target: float | None) -> Row:
    peer = f"plain read {format_seconds(reading_seconds)}"
    return Row(work, format_seconds(seconds), peer, seconds / reading_seconds, " x", target)


def measure_assembling(folder: Path, n_repeats: int) -> Row:
    """Measure averages, statistics and assemblies of one subject whose sessions are standardised."""
    assembling = folder / "assembling"
    seconds = min(
        measure(Reading, "assemble", folder / "nsd", SUBJECT, assembling).seconds for _ in range(n_repeats + 1)
    )
    shutil.rmtree(assembling)
    work = "averages, statistics and assemblies of one subject"
    return Row(work, format_seconds(seconds), "", seconds, " s", 1.2)


def compare_recipes(folder: Path, n_repeats: int) -> Iterator[Row]:
    """Compare three recipes in one call with one of them, and measure the memory for the whole cortex."""
    times: dict[int, float] = {}
    for n in (1, 3):
        recipes = ("leak_free", "streams", "kastner")[:n]
        costs = [build_recipes(folder / "nsd", folder / "releases", [SUBJECT], recipes) for _ in range(n_repeats)]
        times[n] = min(cost.seconds for cost in costs)
    work = "three recipes in one call: leak_free, streams, kastner"
    peer = f"leak_free {format_seconds(times[1])}"
    yield Row(work, format_seconds(times[3]), peer, times[3] / times[1], " x", 1.5)
    cortex = build_recipes(folder / "nsd", folder / "releases", [SUBJECT], ["cortex"]).memory
    yield Row("peak memory, recipe cortex", f"{cortex / 1e9:.2f} GB", "", cortex / 1e9, " GB", 1.5)
    shutil.rmtree(folder / "releases")


def compare_build_memory(folder: Path, size: Size, subjects: Sequence[int], memory: float) -> Iterator[Row]:
    """Compare the peak memory of a build, in bytes, with those of more subjects and of fewer sessions."""
    for n_subjects in range(2, len(subjects) + 1, 2):
        more = build(folder / "nsd", folder / "release", subjects[:n_subjects]).memory
        yield Row(f"peak memory, {n_subjects} subjects", f"{more / 1e9:.2f} GB", "", more / memory, " x of one", 1.1)
    if size.n_sessions > 10:
        short_root = folder / "nsd_short"
        make_tree(short_root, [SUBJECT], size.n_sessions // 2, size.n_vertices)
        fewer = build(short_root, folder / "release", [SUBJECT]).memory
        yield Row("peak memory, half the sessions", f"{fewer / 1e9:.2f} GB", "", memory / fewer, " x of it", 1.1)
        shutil.rmtree(short_root)


def compare_workers(folder: Path, size: Size) -> Iterator[Row]:
    """Compare one worker with two: computing alone, each worker on one core, and the whole build."""
    nsd_root = folder / "nsd"
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) == 2:
        pairs = [(compute_on(cores[:1], nsd_root), compute_on(cores, nsd_root)) for _ in range(size.n_repeats)]
        alone, together = zip(*pairs, strict=True)
        work = "two workers on two cores, CPU-bound part"
        yield speedup(work, min(map(clock_seconds, together)), "one on one core", min(map(clock_seconds, alone)), 1.7)
        work = "two workers on two cores, core seconds of each"
        yield speedup(work, min(map(core_seconds, together)), "one on one core", min(map(core_seconds, alone)), None)
    costs: dict[int, Cost] = {n: build(nsd_root, folder / "release", [SUBJECT], "--workers", str(n)) for n in (1, 2)}
    yield speedup("the whole build, --workers 2", costs[2].seconds, "--workers 1", costs[1].seconds, None)


def compute_on(cores: Sequence[int], nsd_root: Path) -> list[Computing]:
    """Standardise one hemisphere many times, with one process per core. They start together, with betas in memory."""
    n_each = N_COMPUTATIONS // len(cores)
    processes = []
    for core in cores:
        command = [sys.executable, MEASUREMENTS_PATH, "compute", nsd_root, SUBJECT, core, n_each]
        processes.append(
            subprocess.Popen([*map(str, command)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    return [Computing(**json.loads(process.communicate()[0])) for process in processes]


def clock_seconds(computations: Sequence[Computing]) -> float:
    """Return the time from the first start to the last end."""
    return max(each.ended for each in computations) - min(each.started for each in computations)


def core_seconds(computations: Sequence[Computing]) -> float:
    """Return the core seconds of the process that took most."""
    return max(each.core_seconds for each in computations)


def compare_cold_files(folder: Path, size: Size) -> Iterator[Row]:
    """Compare standardising sessions with plain reads, of files that are not in memory."""
    nsd_root = folder / "cold"
    n_sessions = size.n_cold_sessions
    make_tree(nsd_root, [SUBJECT], n_sessions, size.n_vertices, n_distinct=n_sessions)
    paths = list_betas(nsd_root)
    readings, sessions = [], []
    for number in range(size.n_repeats):
        drop_from_memory(paths)
        readings.append(measure(Reading, "plain_read", *paths))
        drop_from_memory(paths)
        sessions.append(measure(Reading, "prepare_sessions", nsd_root, SUBJECT, folder / f"cold_cache{number}"))
    work = f"cold files, {n_sessions} sessions, {count_gigabytes(paths):.1f} GB: read and standardised"
    seconds = min(session.seconds for session in sessions)
    yield compare_with_plain_read(work, seconds, min(reading.seconds for reading in readings), 1.0)
    shutil.rmtree(nsd_root)


def drop_from_memory(paths: Sequence[Path]) -> None:
    """Make the kernel forget the contents of files, so that the next read comes from the disk."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare_full_size_files(folder: Path, n_repeats: int) -> Iterator[Row]:
    """Write and load assemblies of the size that NSD gives, which takes about two minutes in either mode."""
    nsd_root, home = folder / "labels", folder / "brainio"
    home.mkdir()
    run(MEASUREMENTS_PATH, "make_labels", nsd_root)
    core = {split: measure(Writing, "write_with_core", nsd_root, home, split) for split in ("train", "test")}
    yield from compare_writing(nsd_root, folder / "train.nc", core["train"], n_repeats)
    run(MEASUREMENTS_PATH, "write_release", nsd_root, folder / "full")
    yield from compare_loading(folder / "full", home, core, n_repeats)


def compare_writing(nsd_root: Path, path: Path, core: Writing, n_repeats: int) -> Iterator[Row]:
    """Compare writing the train assembly with `write_netcdf` of brainscore_core."""
    writings = [measure(Writing, "write_train", nsd_root, path) for _ in range(n_repeats)]
    seconds, size = min(writing.seconds for writing in writings), writings[0].size
    yield speedup("writing the train assembly, 412 x 221,160", seconds, "write_netcdf", core.seconds, 20)
    yield Row("size of that", f"{size / 1e6:.1f} MB", f"{core.size / 1e6:.1f} MB", size / core.size, " x", 1.03)


def compare_loading(release_path: Path, home: Path, core: dict[str, Writing], n_repeats: int) -> Iterator[Row]:
    """Compare loading a whole assembly, and one region of it, with `load_assembly_from_s3` of brainscore_core."""
    environment = {"BRAINSCORE_ALLEN2022_SURFACE_DIR": str(release_path), "BRAINIO_HOME": str(home)}
    for split, region, target in (("train", "", 3), ("test", "V4", 20)):
        identifier = f"{NAME}.{region}.{split}" if region else f"{NAME}.{split}"
        loadings, core_loadings = [], []
        for _ in range(n_repeats):
            loadings.append(measure(Loading, "load_identifier", identifier, environment=environment))
            arguments = (core[split].sha1, split, region)
            core_loadings.append(measure(Loading, "load_with_core", *arguments, environment=environment))
        require_same(loadings[0], core_loadings[0])
        seconds = min(loading.seconds for loading in loadings)
        peer_seconds = min(loading.seconds for loading in core_loadings)
        yield speedup(f"loading {identifier}", seconds, "load_assembly_from_s3", peer_seconds, target)
        if region:
            memory = max(loading.memory for loading in loadings)
            peer = max(loading.memory for loading in core_loadings)
            yield Row("memory of that", f"{memory / 1e6:.0f} MB", f"{peer / 1e6:.0f} MB", memory / peer, " x", 0.1)


def require_same(loading: Loading, core_loading: Loading) -> None:
    """End the benchmark if two loaders give different assemblies."""
    if loading.shape != core_loading.shape or abs(loading.total - core_loading.total) > 1e-3:
        sys.exit(f"The two loaders give different assemblies: {loading} and {core_loading}.")


def compare_ceilings() -> Iterator[Row]:
    """Compare split-half ceilings with Brain-Score's."""
    line, _ = run(Path(__file__).parent / "ceilings.py")
    ceilings = Ceilings(**json.loads(line))
    if not ceilings.largest_difference < TOLERANCE:
        sys.exit(
            f"The ceilings differ from Brain-Score's by {ceilings.largest_difference}, expected below {TOLERANCE}."
        )
    work = f"split-half ceilings, {ceilings.n_neuroids:,} neuroids"
    yield speedup(work, ceilings.seconds, "load_ceiling", ceilings.peer_seconds, 300)
    work = "memory for the ceilings of all 221,168 neuroids"
    seconds = format_seconds(ceilings.all_neuroids_seconds)
    yield Row(work, seconds, "", ceilings.all_neuroids_memory, " x the assembly", 2)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a process that crashes must not fill the disk
    main()
