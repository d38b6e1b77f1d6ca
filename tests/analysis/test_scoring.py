"""The benchmark classes of Brain-Score on the loaded data, with models whose score is known beforehand.

The benchmarks are set up like those of brainscore_vision for this dataset: neuroids with a noise ceiling above 30 %, ridge
regression with one alpha per subject, images of 8.4 degrees. The models need no torch: one computes features from the
pixels, the other draws random features.
"""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
from brainscore_core.supported_data_standards.brainio.stimuli import StimulusSet
from brainscore_vision import data_registry, load_metric
from brainscore_vision.benchmark_helpers.neural_common import (
    RSABenchmark,
    TrainTestNeuralBenchmark,
    average_repetition,
    filter_reliable_neuroids,
)

import brainscore_allen2022_surface  # noqa: F401  registers the datasets
from analysis.models import VISUAL_DEGREES, random_model, signal_model
from brainscore_allen2022_surface.analysis.ceiling import expected_consistency, internal_consistency

NAME = "Allen2022_fmri_surface"
NOISE_CEILING_THRESHOLD = 30  # percent


@pytest.fixture(autouse=True)
def load_from_release(release, monkeypatch):
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_DIR", str(release))
    monkeypatch.setenv("RESULTCACHING_DISABLE", "1")  # otherwise ceilings are cached under the name of the benchmark


def load(region, split):
    assembly = data_registry[f"{NAME}.{region}.{split}"]()
    return filter_reliable_neuroids(assembly, NOISE_CEILING_THRESHOLD, "nc_testset").isel(time_bin=0)


def ridge_benchmark(region, ceiling) -> TrainTestNeuralBenchmark:
    test = load(region, "test")
    return TrainTestNeuralBenchmark(
        identifier=f"{NAME}.{region}-ridge",
        version=1,
        ceiling_func=lambda: ceiling(test),
        train_assembly=load(region, "train"),
        test_assembly=average_repetition(test),
        similarity_metric=load_metric("dual_ridgecv_split", alphas=[0.01, 1, 100, 1e4, 1e6]),
        visual_degrees=VISUAL_DEGREES,
        number_of_trials=1,
        parent=region,
        alpha_coord="subject",
    )


def rsa_benchmark(region) -> RSABenchmark:
    train, test = load(region, "train"), average_repetition(load(region, "test"))
    assembly = NeuroidAssembly(xr.concat([train, test], dim="presentation"))
    stimulus_set = StimulusSet(pd.concat([train.stimulus_set, test.stimulus_set], ignore_index=True))
    stimulus_set.stimulus_paths = train.stimulus_set.stimulus_paths | test.stimulus_set.stimulus_paths
    stimulus_set.identifier = f"{train.stimulus_set.identifier}--full"
    assembly.attrs["stimulus_set"] = stimulus_set
    return RSABenchmark(
        identifier=f"{NAME}.{region}-rdm",
        version=1,
        assembly=assembly,
        region=region,
        visual_degrees=VISUAL_DEGREES,
        number_of_trials=1,
        bibtex="",
    )


@pytest.mark.parametrize("region", ["V1", "IT"])
def test_ridge_score_is_ceiling_for_signal_and_zero_for_random_model(region):
    benchmark = ridge_benchmark(region, internal_consistency)
    nc_testset = benchmark.test_assembly["nc_testset"].values
    signal, random = signal_model(), random_model()

    score, random_score = benchmark(signal), benchmark(random)

    # A prediction without noise correlates with averages over three repetitions as the root of the noise ceiling.
    assert float(score.raw) == pytest.approx(np.median(np.sqrt(nc_testset / 100)), abs=0.05)
    assert float(score.ceiling) == pytest.approx(np.median(expected_consistency(nc_testset)), abs=0.05)
    assert float(score) == pytest.approx(1, abs=0.1)
    assert abs(float(random_score.raw)) < 0.15
    assert float(random_score) < 0.05
    assert signal.recordings == [(region, [(70, 170)])] * 2  # train, then test
    assert sorted(score.raw.raw["subject"].values) == [f"subj{subject:02d}" for subject in range(1, 9)]


def test_ridge_score_equals_that_with_the_ceiling_of_brainscore():
    # Computed once, because the benchmark computes its ceiling again for every subject.
    ceiling = load_metric("internal_consistency")(load("V4", "test"))
    expected = ridge_benchmark("V4", lambda assembly: ceiling)(signal_model())

    actual = ridge_benchmark("V4", internal_consistency)(signal_model())

    assert float(actual) == pytest.approx(float(expected), abs=1e-6)
    assert float(actual.ceiling) == pytest.approx(float(expected.ceiling), abs=1e-6)


def test_rsa_score_is_ceiling_for_signal_and_zero_for_random_model():
    benchmark = rsa_benchmark("IT")

    score, random_score = benchmark(signal_model()), benchmark(random_model())

    assert 0.85 < float(score) <= 1
    assert float(score.raw) == pytest.approx(score.ceiling.attrs["lower_bound_loo"], abs=0.05)
    assert abs(float(random_score)) < 0.05
    assert len(score.raw.attrs["subject_scores"]) == 8
