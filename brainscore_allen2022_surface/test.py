"""Tests of this plugin. They follow the objects that `artifacts.json` lists; those marked `private_access` load them."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from brainscore_vision import load_ceiling, load_dataset, load_stimulus_set
from brainscore_vision.benchmark_helpers.cache_contract import assert_stimulus_identifier_is_cacheable

FOLDER = Path(__file__).parent
ARTIFACTS = json.loads((FOLDER / "artifacts.json").read_text(encoding="utf-8"))
DATASETS = [identifier for identifier in ARTIFACTS if identifier.count(".") == 1]
NAMES = sorted({identifier.split(".")[0] for identifier in DATASETS})
REGIONS = ("V1", "V2", "V4", "IT")
N_REPETITIONS = 3

load = functools.lru_cache(maxsize=2)(load_dataset)  # whole assemblies have hundreds of megabytes


def test_every_listed_dataset_and_each_of_its_regions_is_registered_in_a_line_of_its_own():
    lines = (FOLDER / "__init__.py").read_text(encoding="utf-8").splitlines()
    regions = [f"{name}.{region}.{split}" for name, split in (i.split(".") for i in DATASETS) for region in REGIONS]

    datasets = [line.split("'")[1] for line in lines if line.startswith("data_registry['")]
    stimulus_sets = [line.split("'")[1] for line in lines if line.startswith("stimulus_set_registry['")]
    assert {*ARTIFACTS, *DATASETS, *regions} <= set(datasets)
    assert set(DATASETS) <= set(stimulus_sets)
    assert len(set(datasets)) == len(datasets) and len(set(stimulus_sets)) == len(stimulus_sets)


def test_every_object_has_a_version_and_a_sha1():
    objects = [stored for entry in ARTIFACTS.values() for stored in entry.values()]

    assert all(stored["version_id"] not in ("", "null") for stored in objects)
    assert all(len(bytes.fromhex(stored["sha1"])) == 20 for stored in objects)


@pytest.mark.parametrize("identifier", DATASETS)
def test_brainscore_may_cache_by_the_identifier_of_a_stimulus_set(identifier):
    assert_stimulus_identifier_is_cacheable(identifier)
    assert_stimulus_identifier_is_cacheable(f"{identifier}--0a1b2c3d")  # of other images than the listed ones


@pytest.mark.private_access
@pytest.mark.parametrize("identifier", DATASETS)
def test_assembly_has_the_listed_shape_and_finite_standardised_responses(identifier):
    assembly = load(identifier)

    assert assembly.dims == ("presentation", "neuroid", "time_bin")
    assert assembly.shape == tuple(ARTIFACTS[identifier]["assembly"]["shape"])
    assert np.isfinite(assembly.values).all()
    deviations = assembly.values.std(axis=0)
    assert 0.5 < np.median(deviations[deviations > 0]) < 3
    assert assembly["time_bin_start"].values.tolist() == [70] and assembly["time_bin_end"].values.tolist() == [170]


@pytest.mark.private_access
@pytest.mark.parametrize("identifier", DATASETS)
def test_every_image_is_shown_once_or_three_times_and_is_a_file(identifier):
    assembly, stimulus_set = load(identifier), load_stimulus_set(identifier)
    n_repetitions = N_REPETITIONS if identifier.endswith(".test") else 1

    images = np.unique(assembly["nsd_id"].values)
    np.testing.assert_array_equal(assembly["nsd_id"].values, np.repeat(images, n_repetitions))
    np.testing.assert_array_equal(assembly["stimulus_id"].values, [f"nsd_{n:05d}" for n in assembly["nsd_id"].values])
    if n_repetitions > 1:
        np.testing.assert_array_equal(assembly["repetition"].values, np.tile(range(n_repetitions), len(images)))
    assert set(stimulus_set["stimulus_id"]) == set(assembly["stimulus_id"].values)
    assert all(stimulus_set.get_stimulus(stimulus_id).is_file() for stimulus_id in stimulus_set["stimulus_id"])
    assert assembly.attrs["stimulus_set"].identifier == stimulus_set.identifier
    assert stimulus_set.identifier.partition("--")[0] == identifier


@pytest.mark.private_access
@pytest.mark.parametrize("name", NAMES)
def test_both_splits_have_the_same_neuroids_and_share_no_image(name):
    train, test = load(f"{name}.train"), load(f"{name}.test")

    assert not set(train["stimulus_id"].values) & set(test["stimulus_id"].values)
    for level in ("neuroid_id", "subject", "hemisphere", "vertex_index", "region", "nc_testset"):
        np.testing.assert_array_equal(train[level].values, test[level].values)
    assert len(set(train["neuroid_id"].values)) == train.sizes["neuroid"]
    assert not (train["nc_testset"].values < 0).any() and not (train["nc_testset"].values > 100).any()


@pytest.mark.private_access
@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("identifier", DATASETS)
def test_region_is_a_part_of_the_whole(identifier, region):
    name, split = identifier.split(".")
    whole, part = load(identifier), load_dataset(f"{name}.{region}.{split}")

    in_region = whole["region"].values == region
    np.testing.assert_array_equal(part.values, whole.values[:, in_region])
    np.testing.assert_array_equal(part["neuroid_id"].values, whole["neuroid_id"].values[in_region])


@pytest.mark.private_access
@pytest.mark.parametrize("name", NAMES)
def test_internal_consistency_is_between_0_and_1(name):
    repetitions = load_dataset(f"{name}.V4.test").isel(time_bin=0)

    assert 0 < float(load_ceiling("internal_consistency")(repetitions)) < 1
