"""Damaged input of every kind, at random: ``python tests/fuzz.py --cases 5000 --seed 1 --workers 2``.

A case damages one file of a small NSD tree, a release, an artifacts file, a cache or a recipe, and runs the commands and the
loaders on it. Allowed are an error of one line that names the file or its folder, and a result that equals the sound one, or
that independent code computes from the same files. Anything else is printed: a traceback, a difference that nothing reports,
a crash, a case that takes over a minute, a file that is left behind. ``--seed S --case K`` repeats a case.
"""

import argparse
import faulthandler
import gc
import itertools
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path

from fuzzing.cases import JUDGES, kind_of, run_case, run_sound_cases
from fuzzing.samples import Samples, make_samples

MOST_SECONDS = 60
MOST_BYTES = 6 * 2**30  # of memory: a size that a damaged header states must not be believed


@dataclass
class Outcome:
    """How a case ended: what it damaged, what must not happen, and how often each allowed outcome happened."""

    number: int
    title: str
    complaints: list[str]
    counts: Counter[str] = field(default_factory=Counter)


@dataclass
class Running:
    """A case in a process of its own, so that a crash is seen, and a case that hangs can be killed."""

    number: int
    folder: Path
    process: multiprocessing.Process
    connection: Connection
    started: float

    def end(self) -> Outcome:
        """Return the outcome of a case that has sent it, died or hung."""
        is_late = time.monotonic() - self.started > MOST_SECONDS
        try:
            outcome = self.connection.recv() if self.connection.poll() else None
        except EOFError:
            outcome = None
        if outcome is None:
            self.process.kill()
            self.process.join()
            end = f"hung for {MOST_SECONDS} s" if is_late else f"died: {_describe_status(self.process.exitcode)}"
            stack = " <- ".join(line.strip() for line in _read_lines(self.folder / "stack") if "File" in line)
            outcome = Outcome(self.number, _read_lines(self.folder / "title")[0], [f"{end} {stack}"])
        self.process.join()
        shutil.rmtree(self.folder)
        return outcome


def run_cases(samples: Samples, seed: int, numbers: Sequence[int], n_workers: int = 1) -> Iterator[Outcome]:
    """Run some cases, and yield their outcomes as they end."""
    waiting, running = list(reversed(numbers)), list[Running]()
    while waiting or running:
        while waiting and len(running) < n_workers:
            running.append(_start(samples, seed, waiting.pop()))
        ready = wait([one.connection for one in running], timeout=1)
        for one in list(running):
            if one.connection in ready or time.monotonic() - one.started > MOST_SECONDS:
                running.remove(one)
                yield one.end()


def _start(samples: Samples, seed: int, number: int) -> Running:
    folder = Path(tempfile.mkdtemp(prefix=f"case_{number}_", dir=samples.root.parent))
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_run_in_process, args=(sender, samples, folder, seed, number)
    )
    process.start()
    sender.close()  # so that the receiver sees the end of the process
    return Running(number, folder, process, receiver, time.monotonic())


def _run_in_process(sender: Connection, samples: Samples, folder: Path, seed: int, number: int) -> None:
    os.setpgid(0, 0)
    signal.alarm(2 * MOST_SECONDS)  # in case nobody is left who could kill it
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    stack = (folder / "stack").open("w")
    faulthandler.enable(stack)
    faulthandler.dump_traceback_later(MOST_SECONDS - 2, file=stack)
    (folder / "title").write_text(f"case {number}\n")
    try:
        case = run_case(samples, folder / "case", seed, number, announce=(folder / "title").write_text)
        outcome = Outcome(number, case.title, case.complaints, case.outcomes)
    except BaseException as error:
        lines = traceback.format_exception_only(error)
        frames = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
        title = _read_lines(folder / "title")[0]
        outcome = Outcome(number, title, [f"{' '.join(''.join(lines).split())[:400]} <- {' '.join(frames[-6:][::-1])}"])
    sender.send(outcome)
    sender.close()
    os._exit(0)


def _describe_status(status: int | None) -> str:
    return signal.Signals(-status).name if status is not None and status < 0 else f"status {status}"


def _read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() or [""]


def main() -> None:
    """Run the cases that the command line asks for. The exit status is 1 if something is not allowed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=300, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, metavar="K", help="run only this case")
    parser.add_argument("--kind", choices=list(JUDGES), help="run only cases of this kind")
    parser.add_argument("--workers", type=int, default=1, metavar="N")
    parser.add_argument("--verbose", action="store_true", help="print every case")
    options = parser.parse_args()
    chosen = (number for number in itertools.count() if options.kind in (None, kind_of(number)))
    numbers = [options.case] if options.case is not None else list(itertools.islice(chosen, options.cases))
    started, n_faults, counts = time.monotonic(), 0, Counter[str]()
    with tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
        samples = make_samples(Path(folder) / "sound")
        run_sound_cases(samples, Path(folder) / "trial")
        gc.freeze()  # so that cases do not copy what is in memory already
        for outcome in run_cases(samples, options.seed, numbers, options.workers):
            counts += outcome.counts
            n_faults += bool(outcome.complaints)
            for complaint in outcome.complaints:
                print(f"seed {options.seed}, case {outcome.number}, {outcome.title}: {complaint}", flush=True)
            if options.verbose and not outcome.complaints:
                print(f"case {outcome.number}, {outcome.title}: {dict(outcome.counts)}", flush=True)
    print(
        f"{len(numbers)} cases, seed {options.seed}, {time.monotonic() - started:.0f} s: {n_faults} with an outcome that is not allowed"
    )
    for name, count in sorted(counts.items()):
        print(f"  {count:6} {name}")
    sys.exit(n_faults > 0)


if __name__ == "__main__":
    main()
