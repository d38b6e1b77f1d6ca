"""Compare split-half ceilings with Brain-Score's: ``python benchmarks/ceilings.py [--neuroids 1000]``.

Both are computed from one assembly in memory, which has the shape of NSD's test split but fewer neuroids. Then this package
computes the ceilings of all neuroids of NSD, and the memory that this needs is measured. The last line is JSON, for
`bench.py`. The lines before it show the times of the other estimates from repetitions.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
import warnings
from dataclasses import asdict

import numpy as np
from brainscore_core.metrics import Score
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
from brainscore_vision import load_ceiling
from results import Ceilings

from brainscore_allen2022_surface.analysis.ceiling import internal_consistency
from brainscore_allen2022_surface.analysis.correlations import repetition_correlations
from brainscore_allen2022_surface.analysis.noise_ceilings import ceiling_intervals, repetition_noise_ceilings

N_IMAGES, N_REPETITIONS, N_NEUROIDS = 103, 3, 221_168
N_REPEATS = 5  # this package computes the ceilings in milliseconds, so a single time would vary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--neuroids", type=int, default=1000, help="for this many both compute ceilings (default %(default)s)"
    )
    assembly = make_assembly(parser.parse_args().neuroids)
    all_neuroids = make_assembly(N_NEUROIDS)
    for estimate in (repetition_noise_ceilings, ceiling_intervals, repetition_correlations):
        started = time.perf_counter()
        estimate(all_neuroids)
        print(f"{estimate.__name__} of {N_NEUROIDS:,} neuroids: {time.perf_counter() - started:.1f} s")
    seconds, score = measure_fastest(assembly)
    peer_seconds, peer_score = measure_brainscore(assembly)
    ceilings = Ceilings(
        n_neuroids=assembly.sizes["neuroid"],
        seconds=seconds,
        peer_seconds=peer_seconds,
        largest_difference=float(np.abs(score.raw.values - peer_score.raw.values).max()),
        all_neuroids_seconds=measure_fastest(all_neuroids)[0],
        all_neuroids_memory=1 + peak_memory(all_neuroids) / all_neuroids.nbytes,
    )
    print(f"\n{json.dumps(asdict(ceilings))}")


def make_assembly(n_neuroids: int) -> NeuroidAssembly:
    """Make a test split of signal plus noise, both with variance 1, with the coordinates of a release."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((N_IMAGES, N_REPETITIONS, n_neuroids), dtype=np.float32)
    values += rng.standard_normal((N_IMAGES, 1, n_neuroids), dtype=np.float32)
    nsd_ids = np.repeat(np.arange(N_IMAGES), N_REPETITIONS)
    vertices = np.arange(n_neuroids)
    subjects = [f"subj{8 * vertex // n_neuroids + 1:02d}" for vertex in vertices]
    return NeuroidAssembly(
        values.reshape(-1, n_neuroids),
        dims=("presentation", "neuroid"),
        coords={
            "stimulus_id": ("presentation", [f"nsd_{nsd_id:05d}" for nsd_id in nsd_ids]),
            "nsd_id": ("presentation", nsd_ids),
            "repetition": ("presentation", np.tile(np.arange(N_REPETITIONS), N_IMAGES)),
            "neuroid_id": (
                "neuroid",
                [f"{s}_lh_V1_v{vertex:05d}" for s, vertex in zip(subjects, vertices, strict=True)],
            ),
            "subject": ("neuroid", subjects),
            "hemisphere": ("neuroid", ["lh"] * n_neuroids),
            "vertex_index": ("neuroid", vertices),
            "region": ("neuroid", ["V1"] * n_neuroids),
            "nc_testset": ("neuroid", rng.uniform(0, 100, n_neuroids)),
        },
    )


def measure_fastest(assembly: NeuroidAssembly) -> tuple[float, Score]:
    """Return the shortest time of several repeats, and the score."""
    times = []
    for _ in range(N_REPEATS):
        started = time.perf_counter()
        score = internal_consistency(assembly)
        times.append(time.perf_counter() - started)
    return min(times), score


def measure_brainscore(assembly: NeuroidAssembly) -> tuple[float, Score]:
    """Return the time of Brain-Score's ceiling, and the score."""
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        score = load_ceiling("internal_consistency")(assembly)
    return time.perf_counter() - started, score


def peak_memory(assembly: NeuroidAssembly) -> int:
    """Return how many bytes the ceilings need at the same time, without the assembly."""
    tracemalloc.start()
    internal_consistency(assembly)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    main()
