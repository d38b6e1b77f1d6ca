"""Damaged input at random: ``python tests/tools/fuzz.py --cases 2000 --seed 1 --workers 2``.

A case damages one file of a small NSD tree, a release, a cache or a recipe, and runs commands and loaders on it. Allowed are an
error of one line that names the folder, and a result that independent code confirms. Anything else is printed: a traceback, a
difference that `verify` does not report, a crash, a case that takes over a minute, a file that is left behind. ``--case K``
repeats one case.
"""

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set
from support import Result, hashes, run_cli

MOST_SECONDS = 60
MOST_BYTES = 6 * 2**30  # of memory: a size that a damaged header states must not be believed
NAME = "one"
SIZE = ["--subjects", "1", "--sessions", "2", "--trials", "30", "--vertices", "162", "--image-size", "8"]
CHOICE = ("--subjects", 1, "--name", NAME)
ODD_WORDS = (b"", b"nan", b"-1", b"1e30", b"0", b"null", b"[]", b'"', b"\xff\xfe", b"../x", b"99999999999999999999")


@dataclass(frozen=True)
class Samples:
    """A sound tree, a release of it, and the cache of its build."""

    root: Path

    @property
    def tree(self) -> Path:
        return self.root / "nsd"

    @property
    def release(self) -> Path:
        return self.root / "release"

    @property
    def cache(self) -> Path:
        return self.root / "allen2022_surface_cache"


# --- damages -------------------------------------------------------------------------------------------------------------


def change_bytes(content: bytearray, rng: random.Random) -> None:
    """Change some bytes; those at the start are headers."""
    end = rng.choice((64, 512, 4096, len(content)))
    for _ in range(rng.choice((1, 1, 4, 64))):
        content[rng.randrange(min(end, len(content)))] = rng.randrange(256)


def blank(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    content[start : start + 64] = bytes(min(64, len(content) - start))


def cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def remove(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    del content[start : start + rng.choice((1, 8, 1000))]


def insert(content: bytearray, rng: random.Random) -> None:
    start = rng.randrange(len(content))
    content[start:start] = rng.randbytes(rng.choice((1, 8, 1000)))


def extend(content: bytearray, rng: random.Random) -> None:
    content += rng.choice((bytes(8), bytes(content)))


def change_word(content: bytearray, rng: random.Random) -> None:
    """Put an odd word in the place of one, as of a table, a recipe or a manifest."""
    words = bytes(content).replace(b",", b" , ").replace(b":", b" : ").split(b" ")
    words[rng.randrange(len(words))] = rng.choice(ODD_WORDS)
    content[:] = b"".join(words)


DAMAGES = (change_bytes, change_bytes, blank, cut, remove, insert, extend, change_word)


def damage(folder: Path, rng: random.Random) -> Path:
    """Damage one file below a folder, of any kind with the same probability, and return its path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    kinds = sorted({(path.suffix, path.stem if path.suffix != ".png" else "") for path in paths})
    suffix, stem = rng.choice(kinds)
    path = rng.choice([path for path in paths if path.suffix == suffix and (not stem or path.stem == stem)])
    how = rng.randrange(12)
    if how == 0:
        path.unlink()
    elif how == 1:
        other = rng.choice(paths).read_bytes()
        path.write_bytes(other)
    else:
        content = bytearray(path.read_bytes())
        rng.choice(DAMAGES)(content, rng)
        path.write_bytes(content)
    return path


# --- what is allowed -----------------------------------------------------------------------------------------------------


def run(folder: Path, *arguments: object, allowed: tuple[int, ...] = (0, 1)) -> Result:
    """Run a command, and complain of a traceback, and of an error that is not one line."""
    result = run_cli("-q", *arguments)
    lines = [line for line in result.stderr.splitlines() if line.startswith("allen2022-surface: ")]
    assert result.returncode in allowed, (
        f"{arguments[0]} ended with {result.returncode}: {result.stdout[-900:]}{result.stderr[-300:]}"
    )
    assert "Traceback" not in result.stderr, result.stderr[-500:]
    if result.returncode == 1:
        assert len(lines) == 1, f"{arguments[0]} printed {lines}"
        assert str(folder) in result.stderr + result.stdout, f"{arguments[0]} names no file: {lines}"
    left = [path for path in folder.rglob(".*") if path.name != ".cache"]
    assert not left, f"{arguments[0]} left {left}"
    return result


def judge_tree(samples: Samples, folder: Path, rng: random.Random) -> str:
    """A build of a damaged tree fails in one line, or gives what independent code computes from the same files."""
    tree, release = Path(shutil.copytree(samples.tree, folder / "nsd")), folder / "release"
    path = damage(tree, rng)
    run(folder, "check", tree, "--subjects", 1)
    if run(folder, "build", tree, release, *CHOICE, "--cache", folder / ".cache").returncode == 0:
        # Two ways to read an HDF5 file may find different chunks by a damaged index.
        allowed = (0, 1) if path.suffix == ".hdf5" else (0,)
        run(folder, "verify", release, "--nsd-root", tree, "--all", allowed=allowed)
    else:
        assert not release.exists(), "a failed build left a release"
    return path.name


def judge_release(samples: Samples, folder: Path, rng: random.Random) -> str:
    """`verify` notices a damaged release; a loader raises one of its errors, or gives something."""
    release = Path(shutil.copytree(samples.release, folder / "release"))
    path = damage(release, rng)
    if hashes(release) != hashes(samples.release) and run(folder, "verify", release).returncode == 0:
        assert path.name == "release.json", f"verify does not notice the damage of {path.name}"
    run(folder, "report", release)
    for load in (load_assembly, load_stimulus_set):
        for split in ("train", "test"):
            try:
                load(NAME, split, source=release)
            except (ValueError, FileNotFoundError, ConnectionError) as error:
                assert "\n" not in str(error), f"the loader raises several lines: {error}"
    return path.name


def judge_cache(samples: Samples, folder: Path, rng: random.Random) -> str:
    """A build with a damaged cache fails in one line, or gives a release."""
    cache = Path(shutil.copytree(samples.cache, folder / "cache"))
    path = damage(cache, rng)
    run(folder, "build", samples.tree, folder / "release", *CHOICE, "--cache", cache)
    return path.name


def judge_recipe(samples: Samples, folder: Path, rng: random.Random) -> str:
    """A damaged recipe is refused in one line, or read."""
    name = rng.choice(("streams", "leak_free", "subj01_own", "hcp_mmp1"))
    (folder / "recipe.toml").write_text(run_cli("recipes", "show", name).stdout)
    damage(folder, rng)
    run(folder, "check", samples.tree, "--recipe", folder / "recipe.toml", "--subjects", 1)
    return "recipe.toml"


JUDGES: tuple[Callable[[Samples, Path, random.Random], str], ...] = (
    *(judge_tree, judge_tree, judge_release, judge_release, judge_cache, judge_recipe),
)


# --- running cases -------------------------------------------------------------------------------------------------------


def run_case(samples: Samples, seed: int, number: int) -> tuple[str, str]:
    """Run a case in a process of its own, and return what it is about and what is not allowed, or an empty text."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    folder = Path(tempfile.mkdtemp(prefix=f"case_{number}_", dir=samples.root.parent))
    process = multiprocessing.get_context("fork").Process(target=_judge, args=(sender, samples, folder, seed, number))
    process.start()
    sender.close()
    title, complaint = JUDGES[number % len(JUDGES)].__name__, f"it takes more than {MOST_SECONDS} s"
    try:
        if receiver.poll(MOST_SECONDS):
            title, complaint = receiver.recv()
    except EOFError:
        process.join()
        complaint = f"it died: {process.exitcode}"
    process.kill()
    process.join()
    shutil.rmtree(folder)
    return title, complaint


def _judge(sender: Connection, samples: Samples, folder: Path, seed: int, number: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    warnings.simplefilter("ignore")
    judge = JUDGES[number % len(JUDGES)]
    title, complaint = judge.__name__, ""
    try:
        title += f" of {judge(samples, folder, random.Random(f'{seed} {number}'))}"
    except BaseException as error:
        complaint = f"{type(error).__name__}: {error}"
    sender.send((title, complaint))
    sender.close()
    os._exit(0)  # not through HDF5's end, which may crash after a failure


def make_samples(root: Path) -> Samples:
    """Make what the cases damage, and check that it is sound."""
    samples = Samples(root)
    run(root, "simulate", samples.tree, *SIZE, allowed=(0,))
    run(root, "build", samples.tree, samples.release, *CHOICE, allowed=(0,))
    run(root, "verify", samples.release, "--nsd-root", samples.tree, "--all", allowed=(0,))
    (samples.release / "verify.json").unlink()  # it does not belong to the release
    return samples


def main() -> None:
    """Run the cases that the command line asks for. The exit status is 1 if something is not allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, metavar="K", help="run only this case")
    parser.add_argument("--workers", type=int, default=1, metavar="N")
    options = parser.parse_args()
    numbers = range(options.cases) if options.case is None else [options.case]
    started, counts = time.monotonic(), Counter[bool]()
    with tempfile.TemporaryDirectory(prefix="fuzz_") as folder, ThreadPoolExecutor(options.workers) as threads:
        samples = make_samples(Path(folder) / "sound")
        outcomes = threads.map(partial(run_case, samples, options.seed), numbers)
        for number, (title, complaint) in zip(numbers, outcomes, strict=True):
            counts[bool(complaint)] += 1
            if complaint:
                print(f"seed {options.seed}, case {number}, {title}: {complaint}", flush=True)
    print(
        f"{len(numbers)} cases in {time.monotonic() - started:.0f} s: {counts[True]} with an outcome that is not allowed"
    )
    sys.exit(counts[True] > 0)


if __name__ == "__main__":
    main()
