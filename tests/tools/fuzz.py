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
import warnings
from concurrent.futures import ThreadPoolExecutor
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


def damage(folder: Path, rng: random.Random) -> Path:
    """Damage one file below a folder, of any kind with the same probability, and return its path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    kinds = {path.suffix if path.suffix == ".png" else path.name: path for path in rng.sample(paths, len(paths))}
    path = kinds[rng.choice(sorted(kinds))]
    content = bytearray(path.read_bytes())
    start, n = rng.randrange(len(content)), rng.choice((1, 8, 1000))
    match rng.randrange(9):
        case 0:
            path.unlink()
            return path
        case 1:
            content[:] = rng.choice(paths).read_bytes()
        case 2:
            del content[start:]
        case 3:
            del content[start : start + n]
        case 4:
            content[start:start] = rng.randbytes(n)
        case 5:
            content += rng.choice((bytes(8), bytes(content)))
        case 6:
            content[start : start + 64] = bytes(64)
        case 7:  # an odd word in the place of one, as of a table, a recipe or a manifest
            words = bytes(content).replace(b",", b" , ").replace(b":", b" : ").split(b" ")
            words[rng.randrange(len(words))] = rng.choice(ODD_WORDS)
            content[:] = b" ".join(words)
        case 8:  # some bytes; those at the start are headers
            for _ in range(rng.choice((1, 4, 64))):
                content[rng.randrange(min(rng.choice((64, 512, 4096, len(content))), len(content)))] = rng.randrange(
                    256
                )
    path.write_bytes(content)
    return path


def run(folder: Path, *arguments: object, allowed: tuple[int, ...] = (0, 1)) -> Result:
    """Run a command, and complain of a traceback, and of an error that is not one line."""
    result = run_cli("-q", *arguments)
    lines = [line for line in result.stderr.splitlines() if line.startswith("allen2022-surface: ")]
    printed = f"{arguments[0]} ended with {result.returncode}: {result.stdout[-900:]}{result.stderr[-500:]}"
    assert result.returncode in allowed and "Traceback" not in result.stderr, printed
    if result.returncode == 1:
        assert len(lines) == 1 and str(folder) in result.stderr + result.stdout, printed
    left = [path for path in folder.rglob(".*") if path.name != ".cache"]
    assert not left, f"{arguments[0]} left {left}"
    return result


def judge_tree(samples: Path, folder: Path, rng: random.Random) -> Path:
    """A build of a damaged tree fails in one line, or gives what independent code computes from the same files."""
    tree, release = Path(shutil.copytree(samples / "nsd", folder / "nsd")), folder / "release"
    path = damage(tree, rng)
    run(folder, "check", tree, "--subjects", 1)
    if run(folder, "build", tree, release, *CHOICE, "--cache", folder / ".cache").returncode == 0:
        # Two ways to read an HDF5 file may find different chunks by a damaged index.
        allowed = (0, 1) if path.suffix == ".hdf5" else (0,)
        run(folder, "verify", release, "--nsd-root", tree, "--all", allowed=allowed)
    else:
        assert not release.exists(), "a failed build left a release"
    return path


def judge_release(samples: Path, folder: Path, rng: random.Random) -> Path:
    """`verify` notices a damaged release; a loader raises one of its errors, or gives something."""
    release = Path(shutil.copytree(samples / "release", folder / "release"))
    path = damage(release, rng)
    if hashes(release) != hashes(samples / "release") and run(folder, "verify", release).returncode == 0:
        assert path.name == "release.json", f"verify does not notice the damage of {path.name}"
    run(folder, "report", release)
    for load in (load_assembly, load_stimulus_set):
        for split in ("train", "test"):
            try:
                load(NAME, split, source=release)
            except (ValueError, FileNotFoundError, ConnectionError) as error:
                assert "\n" not in str(error), f"the loader raises several lines: {error}"
    return path


def judge_cache(samples: Path, folder: Path, rng: random.Random) -> Path:
    """A build with a damaged cache fails in one line, or gives a release."""
    cache = Path(shutil.copytree(samples / "allen2022_surface_cache", folder / "cache"))
    path = damage(cache, rng)
    run(folder, "build", samples / "nsd", folder / "release", *CHOICE, "--cache", cache)
    return path


def judge_recipe(samples: Path, folder: Path, rng: random.Random) -> Path:
    """A damaged recipe is refused in one line, or read."""
    name = rng.choice(("streams", "leak_free", "subj01_own", "hcp_mmp1"))
    (folder / "recipe.toml").write_text(run_cli("recipes", "show", name).stdout)
    path = damage(folder, rng)
    run(folder, "check", samples / "nsd", "--recipe", path, "--subjects", 1)
    return path


JUDGES = (judge_tree, judge_tree, judge_release, judge_release, judge_cache, judge_recipe)


def judge(samples: Path, folder: Path, seed: int, number: int) -> None:
    """Judge a case in this process, and end it with status 1 if something is not allowed."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    warnings.simplefilter("ignore")
    status = 0
    try:
        JUDGES[number % len(JUDGES)](samples, folder, random.Random(f"{seed} {number}"))
    except BaseException as error:
        print(f"seed {seed}, case {number}: {type(error).__name__}: {error}", flush=True)
        status = 1
    os._exit(status)  # not through HDF5's end, which may crash after a failure


def is_allowed(samples: Path, seed: int, number: int) -> bool:
    """Run a case in a process of its own, which may crash or hang, and return whether its outcome is allowed."""
    with tempfile.TemporaryDirectory(prefix=f"case_{number}_", dir=samples.parent) as folder:
        process = multiprocessing.get_context("fork").Process(target=judge, args=(samples, Path(folder), seed, number))
        process.start()
        process.join(MOST_SECONDS)
        if process.exitcode not in (0, 1):
            outcome = "takes too long" if process.exitcode is None else f"dies: {process.exitcode}"
            print(f"seed {seed}, case {number} {outcome}", flush=True)
            process.kill()
            process.join()
    return process.exitcode == 0


def make_samples(root: Path) -> None:
    """Make a tree, a release of it and the cache of its build, which the cases damage, and check that they are sound."""
    release = root / "release"
    run(root, "simulate", root / "nsd", *SIZE, allowed=(0,))
    run(root, "build", root / "nsd", release, *CHOICE, allowed=(0,))
    run(root, "verify", release, "--nsd-root", root / "nsd", "--all", allowed=(0,))
    (release / "verify.json").unlink()  # it does not belong to the release


def main() -> None:
    """Run the cases that the command line asks for. The exit status is 1 if something is not allowed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, metavar="K", help="run only this case")
    parser.add_argument("--workers", type=int, default=1, metavar="N")
    options = parser.parse_args()
    numbers = range(options.cases) if options.case is None else [options.case]
    with tempfile.TemporaryDirectory(prefix="fuzz_") as folder, ThreadPoolExecutor(options.workers) as threads:
        samples = Path(folder) / "sound"
        make_samples(samples)
        outcomes = list(threads.map(lambda number: is_allowed(samples, options.seed, number), numbers))
    print(f"{len(outcomes)} cases: {outcomes.count(False)} with an outcome that is not allowed")
    sys.exit(not all(outcomes))


if __name__ == "__main__":
    main()
