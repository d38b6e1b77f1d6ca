"""The whole of it, small, in a minute: simulate, build, verify, link, load, ceilings."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .build import build_release
from .checks import verify_release
from .errors import PackagingError
from .nsd import SUBJECTS
from .regions import REGIONS
from .release import NAMES
from .simulation import Recipe, simulate_tree
from .trials import N_REPETITIONS

NAME = NAMES[SUBJECTS]


def run_demo(directory: Path | None) -> None:
    """Run the demo in `directory`, or in a temporary folder that is removed at the end.

    Raises
    ------
    PackagingError
        If brainscore_vision is not installed, something is in the way, or a ceiling is not what was simulated.
    """
    if find_spec("brainscore_vision") is None:
        raise PackagingError(
            "brainscore_vision is not installed, and the demo ends in it. Install brainscore_allen2022_surface[brainscore]."
        )
    with tempfile.TemporaryDirectory() if directory is None else nullcontext(str(directory)) as folder:
        nsd_root, release_path = Path(folder) / "nsd", Path(folder) / "release"
        _step("simulate", f"a small NSD in {nsd_root}")
        simulate_tree(nsd_root, Recipe())
        _step("build", f"a release in {release_path}")
        build_release(nsd_root, release_path, subjects=SUBJECTS)
        _step("verify", "the release from disk")
        problems = verify_release(release_path)
        if problems:
            raise PackagingError(problems[0])
        _step("load", f"load_dataset('{NAME}.test') through brainscore_vision")
        with _linked(), _loading_from(release_path):
            ceilings = measure_ceilings(release_path)
        print(f"\n{ceilings.to_string(index=False, float_format='%.2f')}\n")
        apart = (ceilings["split-half ceiling"] - ceilings["simulated"]).abs()
        if not (apart < 0.1).all():
            raise PackagingError("A measured ceiling lies 0.1 or more from the simulated one, which should not happen.")
        print("Every ceiling is within 0.1 of the signal-to-noise ratio that was simulated.")


def measure_ceilings(release_path: Path) -> pd.DataFrame:
    """Load the release as any user of Brain-Score would, and set its ceilings beside those that were simulated."""
    from brainscore_vision import load_ceiling, load_dataset, load_stimulus_set

    stimulus_set = load_stimulus_set(f"{NAME}.test")
    assembly = load_dataset(f"{NAME}.test").isel(time_bin=0)
    print(f"   {assembly.sizes['presentation']} presentations of {len(stimulus_set)} images, {assembly.sizes['neuroid']} neuroids")
    _step("ceiling", "load_ceiling('internal_consistency')")
    raw = load_ceiling("internal_consistency")(assembly).raw
    rows: list[dict[str, Any]] = []
    for region in REGIONS:
        # a constant neuroid, or one without a valid trial, has no ceiling
        own = (raw["region"].values == region.name) & np.isfinite(raw.values).all(axis=0)
        rows.append(
            {
                "region": region.name,
                "neuroids": int(own.sum()),
                "split-half ceiling": float(np.median(raw.values[:, own], axis=1).mean()),
                "simulated": float(np.median(expected_consistency(raw["nc_testset"].values[own]))),
            }
        )
    return pd.DataFrame(rows)


def expected_consistency(nc_testset: np.ndarray) -> np.ndarray:
    """Return the split-half consistency to expect of a neuroid: one repetition against the mean of two, corrected.

    Parameters
    ----------
    nc_testset : array
        Noise ceiling of three repetitions, percent.

    Notes
    -----
    With the signal's variance s in units of the noise's, one repetition has the variance s + 1, the mean of two s + 1/2,
    and both share s. Brain-Score applies the Spearman-Brown correction for two halves to their correlation.
    """
    explained = nc_testset / 100
    signal = explained / (1 - explained) / N_REPETITIONS
    correlation = signal / np.sqrt((signal + 1) * (signal + 1 / 2))
    return 2 * correlation / (1 + correlation)


@contextmanager
def _linked() -> Iterator[None]:
    """Link the plugin into brainscore_vision, and take it out again unless it was there before."""
    from brainscore_allen2022_surface.links import is_linked, link, unlink

    was_linked = is_linked()
    link()
    try:
        yield
    finally:
        if not was_linked:
            unlink()


@contextmanager
def _loading_from(release_path: Path) -> Iterator[None]:
    from brainscore_allen2022_surface.releases import VARIABLE

    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(release_path)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


_START = time.monotonic()


def _step(name: str, what: str) -> None:
    print(f"[{time.monotonic() - _START:3.0f} s] {name}: {what}", flush=True)
