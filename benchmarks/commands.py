"""Commands run in processes of their own, with the time and memory that they took.

This module, and all that `bench.py` imports, use the standard library only: the memory of a parent process counts in the
peak memory of its children.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

MEASUREMENTS_PATH = Path(__file__).parent / "measurements.py"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """What a command took: seconds on the clock, seconds of all cores, and its peak memory in bytes."""

    seconds: float
    core_seconds: float
    memory: float


def run(*arguments: str | int | Path, environment: dict[str, str] | None = None) -> tuple[str, Cost]:
    """Run Python with some arguments. Return the last line that it printed, and what it took.

    The benchmark ends with the error messages of the command if the command fails.
    """
    command = [sys.executable, *map(str, arguments)]
    variables = os.environ | {"PYTHONWARNINGS": "ignore"} | (environment or {})
    started = time.perf_counter()
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=variables) as process,
    ):
        assert process.stdout is not None
        lines = process.stdout.read().decode().strip().splitlines()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{errors.read().decode()[-3000:]}")
    return lines[-1] if lines else "", Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


def measure(
    result_type: type[Result], name: str, *arguments: str | int | Path, environment: dict[str, str] | None = None
) -> Result:
    """Run a function of `measurements.py`, and return its result."""
    line, _ = run(MEASUREMENTS_PATH, name, *arguments, environment=environment)
    return result_type(**json.loads(line))


def build(nsd_root: Path, release_path: Path, subjects: Sequence[int], *options: str) -> Cost:
    """Build a release of the published regions without a cache, and return what the whole command took."""
    return build_recipes(nsd_root, release_path, subjects, [], "--name", "bench", *options)


def build_recipes(
    nsd_root: Path, release_path: Path, subjects: Sequence[int], recipes: Sequence[str], *options: str
) -> Cost:
    """Build releases of some recipes without a cache, and return what the whole command took."""
    shutil.rmtree(release_path, ignore_errors=True)
    command = ("-m", "allen2022_surface_packaging", "build", nsd_root, release_path, "--cache", "none", *options)
    choices = [argument for recipe in recipes for argument in ("--recipe", recipe)]
    return run(*command, *choices, "--subjects", *subjects)[1]
