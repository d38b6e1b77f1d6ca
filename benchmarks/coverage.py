"""How often intervals cover the truth: ``python benchmarks/coverage.py [--simulations 300] [--processes 2] [SCENARIO ...]``.

Each simulation is one region of one subject, whose neuroids have known noise ceilings. It counts whether the interval of
`ceiling_intervals` covers the true ceiling of the region, and whether `repetition_correlations` calls the pairs of repetitions
unequal. The table of `docs/ceilings.md` comes from here.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from typing import Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from brainscore_allen2022_surface.analysis.correlations import repetition_correlations
from brainscore_allen2022_surface.analysis.noise_ceilings import ceiling_intervals

N_REPETITIONS = 3
HIGHEST_CEILING = 95.0
DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """One region of one subject. As in a release, the average over repetitions has the variance 1 in every neuroid.

    Attributes
    ----------
    ceilings : how noise ceilings are distributed over neuroids, drawn for each simulation, in percent
        "gamma": of shape 1.5 and scale 6; "exponential": with mean 12; "uniform": from 5 to 60.
    is_correlated : bool
        Signals are mixtures of 20 features of an image. Mixtures and noise are smooth over neighbours (a Gaussian kernel with a
        standard deviation of 5 neuroids), and a tenth of the variance of the noise is common to all. Otherwise neuroids
        share nothing.
    signal : the distribution of a feature, or of the signal of an independent neuroid, over images
    shared_noise : float
        The fraction of the variance of the noise that the first two repetitions of an image share (planted).
    """

    ceilings: Literal["gamma", "exponential", "uniform"]
    n_neuroids: int = 300
    n_images: int = 103
    is_correlated: bool = True
    signal: Literal["normal", "t3", "log-normal"] = "normal"
    shared_noise: float = 0.0

    def __str__(self) -> str:
        parts = [
            f"{self.ceilings}, {self.n_neuroids:,} {'correlated' if self.is_correlated else 'independent'}",
            f"{self.n_images} images",
            *([f"{self.signal} signal"] if self.signal != "normal" else []),
            *([f"{100 * self.shared_noise:.0f} % of noise shared by two"] if self.shared_noise else []),
        ]
        return ", ".join(parts)


def list_scenarios() -> list[Scenario]:
    """Return the rows of the table."""
    gamma, exponential, uniform = (Scenario(ceilings) for ceilings in ("gamma", "exponential", "uniform"))
    scenarios = [
        replace(base, n_neuroids=n_neuroids, is_correlated=is_correlated)
        for base in (gamma, exponential, uniform)
        for is_correlated in (False, True)
        for n_neuroids in (300, 1000, 2000)
    ]
    few = [
        replace(base, n_images=n_images, is_correlated=is_correlated)
        for base in (gamma, uniform)
        for is_correlated in (False, True)
        for n_images in (20, 10, 5)
    ]
    heavy = [
        replace(base, signal=signal, is_correlated=is_correlated)
        for base in (gamma, uniform)
        for is_correlated in (False, True)
        for signal in ("t3", "log-normal")
    ]
    return [*scenarios, *few, *heavy, replace(gamma, shared_noise=0.15), replace(uniform, shared_noise=0.15)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="only those whose name contains this")
    parser.add_argument("--simulations", type=int, default=300, help="of each scenario (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="at the same time (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"{arguments.simulations} simulations of each scenario, seed {arguments.seed}\n")
    print("| scenario | interval covers | too high | too low | mean width | mean error | called unequal |")
    print("|---|---|---|---|---|---|---|")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each process uses one core
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        for scenario in list_scenarios():
            if any(part in str(scenario) for part in arguments.scenarios or [""]):
                seeds = [(arguments.seed, number) for number in range(arguments.simulations)]
                outcomes = pool.map(partial(simulate_once, scenario), seeds, chunksize=10)
                print(format_row(str(scenario), np.array(list(outcomes))), flush=True)


def format_row(name: str, outcomes: DoubleArray) -> str:
    """Return a row of the table from outcomes of shape (n_simulations, 5)."""
    is_above, is_below, widths, errors, is_unequal = outcomes.T
    covers = 100 - 100 * (is_above + is_below).mean()
    return (
        f"| {name} | {covers:.1f} % | {100 * is_above.mean():.1f} % | {100 * is_below.mean():.1f} % | {widths.mean():.1f} | "
        f"{errors.mean():+.2f} | {100 * is_unequal.mean():.1f} % |"
    )


def simulate_once(scenario: Scenario, seed: tuple[int, int]) -> tuple[float, ...]:
    """Return whether the interval lies above the truth, whether below, its width, the error, and whether pairs are unequal."""
    assembly, truth = simulate(scenario, np.random.default_rng(seed))
    row = ceiling_intervals(assembly).iloc[0]
    is_unequal = repetition_correlations(assembly)["is_unequal"].item()
    is_above, is_below = row["lower"] > truth, row["upper"] < truth
    return float(is_above), float(is_below), row["upper"] - row["lower"], row["ceiling"] - truth, float(is_unequal)


def simulate(scenario: Scenario, rng: np.random.Generator) -> tuple[xr.DataArray, float]:
    """Return an assembly, and the true noise ceiling of the region, in percent of the average of three repetitions."""
    shape = (scenario.n_images, N_REPETITIONS, scenario.n_neuroids)
    ceilings = draw_ceilings(scenario, rng)
    signal = draw_signals(scenario, rng)
    noise, shared = rng.standard_normal(shape), rng.standard_normal((scenario.n_images, scenario.n_neuroids))
    if scenario.is_correlated:
        noise = np.sqrt(0.9) * smooth(noise) + np.sqrt(0.1) * rng.standard_normal((*shape[:2], 1))
        shared = smooth(shared)
    noise[:, :2] = np.sqrt(1 - scenario.shared_noise) * noise[:, :2] + np.sqrt(scenario.shared_noise) * shared[:, None]
    signal *= np.sqrt(ceilings / 100)
    noise *= np.sqrt(N_REPETITIONS * (1 - ceilings / 100))
    return make_assembly(signal[:, None] + noise, ceilings), float(ceilings.mean())


def draw_ceilings(scenario: Scenario, rng: np.random.Generator) -> DoubleArray:
    ceilings = {
        "gamma": lambda: rng.gamma(1.5, 6, scenario.n_neuroids),
        "exponential": lambda: rng.exponential(12, scenario.n_neuroids),
        "uniform": lambda: rng.uniform(5, 60, scenario.n_neuroids),
    }[scenario.ceilings]()
    return np.minimum(ceilings, HIGHEST_CEILING)


def draw_signals(scenario: Scenario, rng: np.random.Generator) -> DoubleArray:
    """Return signals of shape (n_images, n_neuroids), whose variance over all possible images is 1."""
    shape = (scenario.n_images, 20 if scenario.is_correlated else scenario.n_neuroids)
    features = {
        "normal": lambda: rng.standard_normal(shape),
        "t3": lambda: rng.standard_t(3, shape) / np.sqrt(3),
        "log-normal": lambda: (rng.lognormal(0, 1, shape) - np.exp(0.5)) / np.sqrt(np.e * (np.e - 1)),
    }[scenario.signal]()
    if not scenario.is_correlated:
        return features
    mixture = smooth(rng.standard_normal((shape[1], scenario.n_neuroids)))
    return features @ (mixture / np.linalg.norm(mixture, axis=0))


def smooth(values: DoubleArray, deviation: int = 5) -> DoubleArray:
    """Smooth over the last axis, whose ends meet, with a Gaussian kernel that keeps the variance."""
    n = values.shape[-1]
    distances = np.minimum(np.arange(n), n - np.arange(n))
    kernel = np.exp(-((distances / deviation) ** 2) / 2)
    kernel /= np.linalg.norm(kernel)
    return np.fft.irfft(np.fft.rfft(values) * np.fft.rfft(kernel), n)


def make_assembly(values: DoubleArray, ceilings: DoubleArray) -> xr.DataArray:
    """Make an assembly from values of shape (n_images, n_repetitions, n_neuroids)."""
    n_images, n_repetitions, n_neuroids = values.shape
    images = np.repeat([f"nsd_{image:05d}" for image in range(n_images)], n_repetitions)
    return xr.DataArray(
        values.reshape(-1, n_neuroids).astype(np.float32),
        dims=("presentation", "neuroid"),
        coords={
            "stimulus_id": ("presentation", images),
            "repetition": ("presentation", np.tile(np.arange(n_repetitions), n_images)),
            "subject": ("neuroid", ["subj01"] * n_neuroids),
            "region": ("neuroid", ["V1"] * n_neuroids),
            "nc_testset": ("neuroid", ceilings),
        },
    )


if __name__ == "__main__":
    main()
