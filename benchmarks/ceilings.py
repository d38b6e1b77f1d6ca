"""Split-half ceilings against Brain-Score's own: ``python benchmarks/ceilings.py [--neuroids 1000]``.

Both on the same assembly of NSD's test shape, in memory; then the own ones of all 221,168 neuroids, with the memory they take on
top of the assembly. The last line is JSON, for `bench.py`.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
import warnings

import numpy as np
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
from brainscore_vision import load_ceiling

from brainscore_allen2022_surface.ceiling import internal_consistency

N_IMAGES, N_REPETITIONS, N_NEUROIDS = 103, 3, 221_168
N_REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--neuroids", type=int, default=1000, help="that both compute (default %(default)s)")
    n_neuroids = parser.parse_args().neuroids
    assembly = make_assembly(n_neuroids)
    own_seconds, own = fastest(assembly, N_REPEATS)
    started = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = load_ceiling("internal_consistency")(assembly)
    peer_seconds = time.perf_counter() - started
    everything = make_assembly(N_NEUROIDS)
    facts = {
        "n_neuroids": n_neuroids,
        "own_seconds": own_seconds,
        "peer_seconds": peer_seconds,
        "times_faster": peer_seconds / own_seconds,
        "largest_difference": float(np.abs(own.raw.values - peer.raw.values).max()),
        "own_seconds_of_all": fastest(everything, N_REPEATS)[0],
        "assemblies_in_memory": 1 + peak_bytes(everything) / everything.nbytes,
    }
    print(f"\n{json.dumps(facts)}")


def make_assembly(n_neuroids: int) -> NeuroidAssembly:
    """Make a test split of signal and noise of the same size, with the coordinates of a real one."""
    rng = np.random.default_rng(0)
    n_presentations = N_IMAGES * N_REPETITIONS
    values = rng.standard_normal((n_presentations, n_neuroids), dtype=np.float32)
    values.reshape(N_IMAGES, N_REPETITIONS, n_neuroids)[:] += rng.standard_normal((N_IMAGES, 1, n_neuroids))
    nsd_ids = np.repeat(np.arange(N_IMAGES), N_REPETITIONS)
    numbers = np.arange(n_neuroids)
    return NeuroidAssembly(
        values,
        dims=("presentation", "neuroid"),
        coords={
            "stimulus_id": ("presentation", [f"nsd_{nsd_id:05d}" for nsd_id in nsd_ids]),
            "nsd_id": ("presentation", nsd_ids),
            "repetition": ("presentation", np.tile(np.arange(N_REPETITIONS), N_IMAGES)),
            "neuroid_id": ("neuroid", [f"subj{number % 8 + 1:02d}_lh_V1_v{number:05d}" for number in numbers]),
            "subject": ("neuroid", [f"subj{number % 8 + 1:02d}" for number in numbers]),
            "hemisphere": ("neuroid", ["lh"] * n_neuroids),
            "vertex_index": ("neuroid", numbers),
            "region": ("neuroid", ["V1"] * n_neuroids),
            "nc_testset": ("neuroid", rng.uniform(0, 100, n_neuroids)),
        },
    )


def fastest(assembly: NeuroidAssembly, n_repeats: int) -> tuple[float, NeuroidAssembly]:
    """Return the shortest time of some repeats, and the score."""
    seconds = []
    for _ in range(n_repeats):
        started = time.perf_counter()
        score = internal_consistency(assembly)
        seconds.append(time.perf_counter() - started)
    return min(seconds), score


def peak_bytes(assembly: NeuroidAssembly) -> int:
    """Return the most memory that is taken at once on top of the assembly."""
    tracemalloc.start()
    internal_consistency(assembly)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


if __name__ == "__main__":
    main()
