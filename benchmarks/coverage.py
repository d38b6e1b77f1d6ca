"""How often intervals cover the truth: ``python benchmarks/coverage.py [--simulations 1000] [--processes 2] [SCENARIO ...]``.

Each simulation is one region of one subject, with a known noise ceiling of every neuroid. It counts whether the interval of
`ceiling_intervals` covers the median of the true ceilings, and whether `repetition_correlations` calls the pairs of
repetitions unequal. The table of `docs/ceilings.md` comes from here.
"""

from __future__ import annotations

import argparse
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import Literal

import numpy as np
import numpy.typing as npt
import xarray as xr

from brainscore_allen2022_surface.analysis.correlations import repetition_correlations
from brainscore_allen2022_surface.analysis.noise_ceilings import ceiling_intervals

N_REPETITIONS = 3
DoubleArray = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scenario:
    """One region of one subject.

    Attributes
    ----------
    ceilings : how noise ceilings are distributed over neuroids, anew in each simulation
        "5-60": uniform from 5 to 60 percent; "1-25": likewise; "30": the same for all; "skewed": log-normal ncsnr with a
        median of 0.45, so that the middle 95 % of the ceilings are from 9 to 81 percent; "bell": normal, 35 +- 10 percent; "two
        groups": half of the neuroids 15 +- 4 percent, half 45 +- 6, so that the median lies between the groups.
    n_latents : int
        The signals of all neuroids are mixtures of so many features of an image. 0: every neuroid has its own signal.
    smoothness : float
        The standard deviation, in neuroids, of the Gaussian kernel that smooths noise and mixtures over neighbours.
    common_noise : float
        The fraction of the variance of the noise that all neuroids share.
    images : the distribution of a feature over images
    shared_noise : float
        The fraction of the variance of the noise that the first two repetitions of an image share (planted).
    """

    n_neuroids: int = 500
    n_images: int = 103
    ceilings: Literal["5-60", "1-25", "30", "skewed", "bell", "two groups"] = "5-60"
    n_latents: int = 0
    smoothness: int = 0
    common_noise: float = 0.0
    images: Literal["normal", "Laplace", "exponential"] = "normal"
    shared_noise: float = 0.0


correlated = partial(Scenario, n_latents=20, smoothness=5, common_noise=0.1)

SCENARIOS = {
    "independent, 50 neuroids": Scenario(n_neuroids=50),
    "independent, 500 neuroids": Scenario(),
    "independent, 2000 neuroids": Scenario(n_neuroids=2000),
    "independent, 2000 neuroids, 200 images": Scenario(n_neuroids=2000, n_images=200),
    "independent, low ceilings": Scenario(ceilings="1-25"),
    "independent, skewed ceilings": Scenario(ceilings="skewed"),
    "independent, equal ceilings": Scenario(ceilings="30"),
    "correlated, 50 neuroids": correlated(n_neuroids=50),
    "correlated, 500 neuroids": correlated(),
    "correlated, 2000 neuroids": correlated(n_neuroids=2000),
    "correlated, 500 neuroids, 200 images": correlated(n_images=200),
    "correlated, low ceilings": correlated(ceilings="1-25"),
    "correlated, skewed ceilings": correlated(ceilings="skewed"),
    "correlated, exponential features": correlated(images="exponential"),
    "strongly correlated: 3 Laplace features": correlated(n_latents=3, common_noise=0.3, images="Laplace"),
    # These four had no part in the choice of the method. They ran once, with --seed 2.
    "held out: independent, bell-shaped ceilings": Scenario(ceilings="bell"),
    "held out: independent, 1000 neuroids, two groups": Scenario(n_neuroids=1000, ceilings="two groups"),
    "held out: correlated, 1000 neuroids, two groups": correlated(n_neuroids=1000, ceilings="two groups"),
    "held out: correlated, 60 images": correlated(n_images=60),
    "planted: shared noise of two repetitions": correlated(shared_noise=0.15),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="only those whose name contains this")
    parser.add_argument("--simulations", type=int, default=1000, help="of each scenario (default %(default)s)")
    parser.add_argument("--processes", type=int, default=2, help="at the same time (default %(default)s)")
    parser.add_argument("--bootstraps", type=int, default=500, help="of each interval (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    chosen = {n: s for n, s in SCENARIOS.items() if any(part in n for part in arguments.scenarios or [""])}
    print(
        f"{arguments.simulations} simulations of each scenario, {arguments.bootstraps} bootstraps, seed {arguments.seed}\n"
    )
    print("| scenario | interval covers | too high | too low | mean width | plain median off by | called unequal |")
    print("|---|---|---|---|---|---|---|")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # each process uses one core
    with ProcessPoolExecutor(arguments.processes, get_context("spawn")) as pool:
        for name, scenario in chosen.items():
            seeds = [(arguments.seed, number) for number in range(arguments.simulations)]
            run = partial(simulate_once, scenario, n_bootstraps=arguments.bootstraps)
            print(format_row(name, np.array(list(pool.map(run, seeds, chunksize=10)))), flush=True)


def format_row(name: str, outcomes: DoubleArray) -> str:
    """Return a row of the table from outcomes of shape (n_simulations, 5)."""
    is_above, is_below, widths, errors, is_unequal = outcomes.T
    covers = 100 - 100 * (is_above + is_below).mean()
    return (
        f"| {name} | {covers:.1f} % | {100 * is_above.mean():.1f} % | {100 * is_below.mean():.1f} % | {widths.mean():.1f} | "
        f"{errors.mean():+.2f} | {100 * is_unequal.mean():.1f} % |"
    )


def simulate_once(scenario: Scenario, seed: tuple[int, int], *, n_bootstraps: int) -> tuple[float, ...]:
    """Return whether the interval lies above the truth, whether below, its width, the error, and whether pairs are unequal."""
    assembly, true_ceilings = simulate(scenario, np.random.default_rng(seed))
    truth = float(np.median(true_ceilings))
    row = ceiling_intervals(assembly, n_bootstraps=n_bootstraps).iloc[0]
    is_unequal = repetition_correlations(assembly, n_bootstraps=1000)["is_unequal"].iloc[0]
    width, error = row["upper"] - row["lower"], row["median_ceiling"] - truth
    return float(row["lower"] > truth), float(row["upper"] < truth), width, error, float(is_unequal)


def simulate(scenario: Scenario, rng: np.random.Generator) -> tuple[xr.DataArray, DoubleArray]:
    """Return an assembly, and the true noise ceilings of its neuroids, in percent of the average of three repetitions."""
    shape = (scenario.n_images, N_REPETITIONS, scenario.n_neuroids)
    ceilings = draw_ceilings(scenario, rng)
    noise = smooth(rng.standard_normal(shape), scenario.smoothness)
    noise *= np.sqrt(1 - scenario.common_noise)
    noise += np.sqrt(scenario.common_noise) * rng.standard_normal((*shape[:2], 1))
    shared = smooth(rng.standard_normal((scenario.n_images, scenario.n_neuroids)), scenario.smoothness)
    noise[:, :2] = np.sqrt(1 - scenario.shared_noise) * noise[:, :2] + np.sqrt(scenario.shared_noise) * shared[:, None]
    signal = draw_signals(scenario, rng) * np.sqrt(ceilings / (100 - ceilings) / N_REPETITIONS)
    return make_assembly(signal[:, None] + noise, ceilings), ceilings


def draw_ceilings(scenario: Scenario, rng: np.random.Generator) -> DoubleArray:
    if scenario.ceilings == "skewed":
        signal = (0.45 * rng.lognormal(0, 0.5, scenario.n_neuroids)) ** 2
        return 100 * signal / (signal + 1 / N_REPETITIONS)
    if scenario.ceilings in ("bell", "two groups"):
        groups = [(35, 10)] if scenario.ceilings == "bell" else [(15, 4), (45, 6)]
        means, deviations = np.array([groups[n % len(groups)] for n in range(scenario.n_neuroids)]).T
        return np.clip(rng.normal(means, deviations), 1, 95)
    low, high = {"5-60": (5, 60), "1-25": (1, 25), "30": (30, 30)}[scenario.ceilings]
    return rng.uniform(low, high, scenario.n_neuroids)


def draw_signals(scenario: Scenario, rng: np.random.Generator) -> DoubleArray:
    """Return signals of shape (n_images, n_neuroids), whose variance over all possible images is 1."""
    shape = (scenario.n_images, scenario.n_latents or scenario.n_neuroids)
    features = {
        "normal": lambda: rng.standard_normal(shape),
        "Laplace": lambda: rng.laplace(0, np.sqrt(0.5), shape),
        "exponential": lambda: rng.exponential(1, shape) - 1,
    }[scenario.images]()
    if not scenario.n_latents:
        return features
    mixture = smooth(rng.standard_normal((scenario.n_latents, scenario.n_neuroids)), scenario.smoothness)
    return features @ (mixture / np.linalg.norm(mixture, axis=0))


def smooth(values: DoubleArray, deviation: int) -> DoubleArray:
    """Smooth over the last axis, whose ends meet, with a Gaussian kernel that keeps the variance."""
    if not deviation:
        return values
    n = values.shape[-1]
    distances = np.minimum(np.arange(n), n - np.arange(n))
    kernel = np.exp(-((distances / deviation) ** 2) / 2)
    kernel /= np.linalg.norm(kernel)
    return np.fft.irfft(np.fft.rfft(values) * np.fft.rfft(kernel), n)


def make_assembly(values: DoubleArray, ceilings: DoubleArray) -> xr.DataArray:
    """Make an assembly from values of shape (n_images, n_repetitions, n_neuroids)."""
    n_images, n_repetitions, n_neuroids = values.shape
    return xr.DataArray(
        values.reshape(-1, n_neuroids).astype(np.float32),
        dims=("presentation", "neuroid"),
        coords={
            "stimulus_id": (
                "presentation",
                np.repeat([f"nsd_{image:05d}" for image in range(n_images)], n_repetitions),
            ),
            "repetition": ("presentation", np.tile(np.arange(n_repetitions), n_images)),
            "subject": ("neuroid", ["subj01"] * n_neuroids),
            "region": ("neuroid", ["V1"] * n_neuroids),
            "nc_testset": ("neuroid", ceilings),
        },
    )


if __name__ == "__main__":
    main()
