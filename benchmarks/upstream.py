"""Time Brain-Score's own surface benchmarks on a full-size release: ``python benchmarks/upstream.py FOLDER V1-ridge V1-rdm``.

The release of eight subjects, with simulated responses of 640 MB and random images, is written into FOLDER unless it is there.
Every neuroid passes Brain-Score's threshold of 30 %, so that the times are upper bounds. The model has 1,000 features
of each image, and takes no time. ``--fast`` computes the ceilings with this package alone. Without it, both compute them, and
their largest difference is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import resource
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

NAME = "Allen2022_fmri_surface"
N_IMAGES = {"train": 412, "test": 103}
N_REPETITIONS = {"train": 1, "test": 3}
N_NEUROIDS = {"V1": 4276, "V2": 3391, "V4": 914, "IT": 19065}  # per subject
N_SUBJECTS = 8
N_FEATURES = 1000
N_SIGNALS = 50  # of the features, those that the responses depend on
NC_TESTSET = 75  # percent, where signal and noise have the same variance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("benchmarks", nargs="+", metavar="REGION-METRIC")
    parser.add_argument("--fast", action="store_true")
    options = parser.parse_args()
    release_path = options.folder / "full_size_release"
    if not release_path.exists():
        write_release(release_path)
    for benchmark in options.benchmarks:
        with tempfile.TemporaryDirectory() as cache_path:
            # Brain-Score reads the folder of its cache when it is imported; a benchmark asks for its ceiling nine times.
            os.environ |= {"RESULTCACHING_HOME": cache_path, "BS_INSTALL_DEPENDENCIES": "no"}
            measure(release_path, f"{NAME}.{benchmark}", is_fast=options.fast)


def measure(release_path: Path, identifier: str, *, is_fast: bool) -> None:
    """Load a benchmark, compute its ceiling, score a model, and print how long each step took."""
    from brainscore_vision import load_benchmark

    from brainscore_allen2022_surface.analysis.benchmarks import local_benchmarks

    seconds: Counter[str] = Counter(loading=0.0, ceiling=0.0, scoring=0.0)  # in this order
    with local_benchmarks(release_path, fast_ceilings=is_fast), timed(seconds, "loading"):
        benchmark = load_benchmark(identifier)
    with quiet(), timed(seconds, "ceiling"):
        ceiling = benchmark.ceiling
    with quiet(), steps_timed(seconds), timed(seconds, "scoring"):
        score = benchmark(make_model())
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    print(f"{identifier}: score {float(score):.3f}, ceiling {float(ceiling):.4f}, {megabytes:.0f} MB of memory")
    for step in [step for step in seconds if not step.endswith(", core")]:
        print_step(step, seconds)
    if not is_fast and identifier.endswith("ridge"):
        compare_ceilings(release_path, identifier, ceiling)


def compare_ceilings(release_path: Path, identifier: str, expected: Any) -> None:
    """Compute a ceiling with this package, and print how much it differs from Brain-Score's."""
    from brainscore_vision import load_benchmark

    from brainscore_allen2022_surface.analysis.benchmarks import local_benchmarks

    seconds: Counter[str] = Counter()
    with local_benchmarks(release_path, fast_ceilings=True):
        benchmark = load_benchmark(identifier)
    with timed(seconds, "fast ceiling"):
        ceiling = benchmark.ceiling
    largest = np.abs(ceiling.raw.values - expected.raw.values).max()
    print_step("fast ceiling", seconds)
    print(
        f"    the two ceilings differ by {abs(float(ceiling) - float(expected)):.1e}, in one neuroid by {largest:.1e}"
    )


def print_step(step: str, seconds: Counter[str]) -> None:
    print(f"    {step:45} {seconds[step]:8.1f} s, {seconds[f'{step}, core']:8.1f} core seconds", flush=True)


def make_model() -> Any:
    """Make a model that knows the features of each image."""
    from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
    from brainscore_vision.model_interface import BrainModel

    class RandomModel(BrainModel):
        identifier = "random"

        def visual_degrees(self) -> float:
            return 8.4

        def start_task(self, task: Any, fitting_stimuli: Any = None) -> None:
            raise NotImplementedError

        def start_recording(self, recording_target: str, time_bins: Any) -> None:
            pass

        def look_at(self, stimuli: Any, number_of_trials: int = 1) -> NeuroidAssembly:
            coords = {
                "stimulus_id": ("presentation", stimuli["stimulus_id"].to_numpy()),
                "nsd_id": ("presentation", stimuli["nsd_id"].to_numpy()),
                "neuroid_id": ("neuroid", np.arange(N_FEATURES)),
                "layer": ("neuroid", ["only"] * N_FEATURES),
            }
            features = np.stack([features_of(nsd_id) for nsd_id in stimuli["nsd_id"]])
            return NeuroidAssembly(features, dims=("presentation", "neuroid"), coords=coords)

    return RandomModel()


def features_of(nsd_id: int) -> np.ndarray:
    """Return the features of an image. Responses are weighted sums of the first ones, with noise."""
    return np.random.default_rng(int(nsd_id)).standard_normal(N_FEATURES, dtype=np.float32)


@contextlib.contextmanager
def timed(seconds: Counter[str], step: str) -> Iterator[None]:
    """Add the seconds of a block to those of a step, and the seconds in which a core worked for it."""
    started, core_started = time.perf_counter(), time.process_time()
    yield
    seconds[step] += time.perf_counter() - started
    seconds[f"{step}, core"] += time.process_time() - core_started


@contextlib.contextmanager
def steps_timed(seconds: Counter[str]) -> Iterator[None]:
    """Time the parts of a scoring by Brain-Score."""
    from brainscore_vision.metric_helpers.xarray_utils import XarrayCorrelation, XarrayRegression
    from brainscore_vision.metrics.rdm.metric import RDM, RDMSimilarity

    steps = {
        (XarrayRegression, "fit"): "  of this, ridge regression, fit",
        (XarrayRegression, "predict"): "  of this, ridge regression, predict",
        (XarrayCorrelation, "__call__"): "  of this, correlation of each neuroid",
        (RDM, "__call__"): "  of this, dissimilarity matrices",
        (RDMSimilarity, "__call__"): "  of this, their correlations",
    }
    originals = {(owner, name): getattr(owner, name) for owner, name in steps}
    for (owner, name), step in steps.items():
        setattr(owner, name, with_timer(originals[owner, name], seconds, step))
    try:
        yield
    finally:
        for (owner, name), original in originals.items():
            setattr(owner, name, original)


def with_timer(function: Callable[..., Any], seconds: Counter[str], step: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        with timed(seconds, step):
            return function(*arguments, **options)

    return wrapper


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hide what Brain-Score prints and warns."""
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def write_release(path: Path) -> None:
    """Write a release of the size of NSD, whose responses are weighted sums of features with noise."""
    from allen2022_surface_packaging.assemble.assembly import create_assembly

    path.mkdir(parents=True)
    rng = np.random.default_rng(0)
    neuroids = list_neuroids()
    weights = rng.standard_normal((N_SIGNALS, len(neuroids)), dtype=np.float32) / np.float32(np.sqrt(N_SIGNALS))
    first = 0
    for split, n_images in N_IMAGES.items():
        nsd_ids = np.arange(first, first + n_images)
        first += n_images
        n_repetitions = N_REPETITIONS[split]
        presentations = write_stimuli(path, split, nsd_ids, rng)
        presentations = presentations.loc[presentations.index.repeat(n_repetitions), ["stimulus_id", "nsd_id"]]
        if n_repetitions > 1:
            presentations["repetition"] = np.tile(np.arange(n_repetitions), n_images)
        assembly_path, identifier = path / f"{NAME}_{split}.nc", f"{NAME}.{split}"
        with create_assembly(
            assembly_path, identifier=identifier, presentations=presentations, neuroids=neuroids
        ) as write:
            for number, nsd_id in enumerate(nsd_ids):
                noise = rng.standard_normal((n_repetitions, len(neuroids)), dtype=np.float32)
                write(number * n_repetitions, 0, features_of(nsd_id)[:N_SIGNALS] @ weights + noise)
    files = {file.name: {"size": file.stat().st_size} for file in path.iterdir() if file.is_file()}
    (path / "release.json").write_text(json.dumps({"name": NAME, "files": files}))


def write_stimuli(path: Path, split: str, nsd_ids: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """Write the images of a split and their table."""
    (path / f"stimuli_{split}").mkdir()
    stimulus_ids = [f"nsd_{nsd_id:05d}" for nsd_id in nsd_ids]
    table = pd.DataFrame({"stimulus_id": stimulus_ids, "nsd_id": nsd_ids})
    table["image_file_name"] = [f"{stimulus_id}.png" for stimulus_id in stimulus_ids]
    for file_name in table["image_file_name"]:
        pixels = rng.integers(0, 16, (425, 425, 3), dtype=np.uint8)  # 16 levels: files as large as those of NSD
        Image.fromarray(pixels * 16).save(path / f"stimuli_{split}" / file_name, compress_level=1)
    table.to_csv(path / f"stimulus_metadata_{split}.csv", index=False)
    return table


def list_neuroids() -> pd.DataFrame:
    """List neuroids as many as those of NSD, in the order of a release."""
    tables = [
        pd.DataFrame(
            {
                "neuroid_id": [f"subj{subject:02d}_lh_{region}_v{vertex:05d}" for vertex in range(n_neuroids)],
                "subject": f"subj{subject:02d}",
                "hemisphere": "lh",
                "vertex_index": np.arange(n_neuroids),
                "region": region,
                "nc_testset": float(NC_TESTSET),
            }
        )
        for region, n_neuroids in N_NEUROIDS.items()
        for subject in range(1, N_SUBJECTS + 1)
    ]
    return pd.concat(tables, ignore_index=True)


if __name__ == "__main__":
    main()
