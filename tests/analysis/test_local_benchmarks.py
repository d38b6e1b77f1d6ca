"""Brain-Score's own surface benchmarks on a release on disk, with models whose order is known beforehand."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module

import brainscore_vision
import netCDF4
import numpy as np
import pytest
from brainscore_vision import benchmark_registry, data_registry, load_benchmark
from brainscore_vision.benchmark_helpers.cache_contract import assert_stimulus_identifier_is_cacheable

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.recipe import read_recipe
from analysis.models import load_model, random_model, random_network, signal_model
from brainscore_allen2022_surface.analysis import benchmarks
from brainscore_allen2022_surface.analysis.benchmarks import local_benchmark, local_benchmarks
from brainscore_allen2022_surface.analysis.ceiling import expected_consistency
from brainscore_allen2022_surface.loaders import SimulatedDataWarning, load_assembly
from support import accept

NAME = "Allen2022_fmri_surface"
IDENTIFIERS = {
    f"{name}.{region}-{metric}"
    for name in (NAME, f"{NAME}_4subj")
    for region in ("V1", "V2", "V4", "IT")
    for metric in ("ridge", "rdm")
}


@pytest.fixture(autouse=True)
def without_disk_cache(monkeypatch):
    """brainscore_vision may have been imported with the cache of this machine. One test below has a cache of its own."""
    monkeypatch.setenv("RESULTCACHING_DISABLE", "1")


@pytest.fixture
def upstream():
    """The registries of Brain-Score, filled by its own plugins."""
    for kind in ("data", "benchmarks"):
        import_module(f"brainscore_vision.{kind}.allen2022_fmri_surface")


def change_responses(path):
    with netCDF4.Dataset(path / f"{NAME}_test.nc", "a") as file:
        file["data"][:] = np.random.default_rng(3).standard_normal(file["data"].shape)
    accept(path, f"{NAME}_test.nc")


def marker_of(identifier):
    return identifier.partition("--")[2]


def load_local(source, identifier, **options):
    with local_benchmarks(source, **options):
        return load_benchmark(identifier)


# --- registered benchmarks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "metric"), [(f"{NAME}_4subj", "ridge"), (NAME, "rdm")])
def test_local_benchmark_gives_the_score_of_the_registered_one(upstream, releases_path, monkeypatch, name, metric):
    """Brain-Score's own code, given whole assemblies, selects the data, and computes its own ceiling."""
    for split in ("train", "test"):
        whole = load_assembly(name, split, source=releases_path)
        monkeypatch.setitem(data_registry, f"{name}_{split}", lambda whole=whole: whole)
    expected = load_benchmark(f"{name}.V4-{metric}")
    expected_score, expected_ceiling = expected(random_network()), expected.ceiling

    local = local_benchmark(releases_path, "V4", metric, name=name)

    assert isinstance(local, type(expected))
    tolerance = 0 if metric == "rdm" else 1e-6
    assert float(local(random_network())) == pytest.approx(float(expected_score), abs=tolerance)
    assert float(local.ceiling) == pytest.approx(float(expected_ceiling), abs=tolerance)
    if metric == "ridge":
        assert float(local.ceiling.error) == pytest.approx(float(expected_ceiling.error), abs=1e-6)
        np.testing.assert_allclose(local.ceiling.raw.values, expected_ceiling.raw.values, atol=1e-6)
    assert local.identifier.startswith(f"{name}.V4-{metric}--")
    assert local.identifier == load_local(releases_path, f"{name}.V4-{metric}").identifier


def test_benchmarks_rank_models_by_their_signal(release):
    ridge, rdm = load_local(release, f"{NAME}.V1-ridge", fast_ceilings=True), load_local(release, f"{NAME}.IT-rdm")
    nc_testset = ridge.test_assembly["nc_testset"].values

    score, rdm_score = ridge(signal_model()), rdm(signal_model())

    # A prediction without noise correlates with averages over three repetitions as the root of the noise ceiling.
    assert float(score.raw) == pytest.approx(np.median(np.sqrt(nc_testset / 100)), abs=0.05)
    assert float(score.ceiling) == pytest.approx(np.median(expected_consistency(nc_testset)), abs=0.05)
    assert float(score) == pytest.approx(1, abs=0.1)
    assert 0.85 < float(rdm_score) <= 1
    assert float(rdm_score.raw) == pytest.approx(rdm_score.ceiling.attrs["lower_bound_loo"], abs=0.05)
    assert max(abs(float(benchmark(random_model()))) for benchmark in (ridge, rdm)) < 0.05


# --- any region of any release ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def areas(nsd_tree, tmp_path_factory):
    """A release with a name and with regions that Brain-Score does not know."""
    path = tmp_path_factory.mktemp("areas") / "release"
    build_release(nsd_tree, path, read_recipe("kastner"))
    return path


def fill_with_zeros(path, region, n_neuroids):
    """Fill neuroids with zeros, and let them seem reliable."""
    for split in ("train", "test"):
        with netCDF4.Dataset(path / f"{NAME}_{split}.nc", "a") as file:
            columns = np.flatnonzero(file["region"][:] == region)[:n_neuroids]
            for column in columns:
                file["data"][:, column] = 0
                file["nc_testset"][column] = 50
        accept(path, f"{NAME}_{split}.nc")


def test_zero_filled_vertices_are_left_out_with_a_warning(release_copy):
    fill_with_zeros(release_copy, "V1", 3)
    registered_marker = marker_of(local_benchmark(release_copy, "V1", "rdm").identifier)

    with pytest.warns(UserWarning, match="left out, because their responses are constant") as caught:
        benchmark = local_benchmark(release_copy, "V1")

    assert float(benchmark(signal_model())) == pytest.approx(1, abs=0.1)
    n_kept = benchmark.test_assembly.sizes["neuroid"]
    assert f"3 of {n_kept + 3} neuroids of {NAME}.V1 are left out" in "".join(str(one.message) for one in caught)
    assert marker_of(benchmark.identifier) != registered_marker  # so that a NaN in a cache does not come back


def test_subjects_with_hardly_a_neuroid_are_named(release_copy):
    with netCDF4.Dataset(release_copy / f"{NAME}_test.nc", "a") as file:
        is_v1 = file["region"][:] == "V1"
        first, second = (np.flatnonzero(is_v1 & (file["subject"][:] == subject)) for subject in ("subj01", "subj02"))
        for columns, n_kept in ((first, 0), (second, 1)):
            for number, column in enumerate(columns):
                file["nc_testset"][column] = 50 if number < n_kept else 20
    accept(release_copy, f"{NAME}_test.nc")
    message = "V1 has few neuroids with a noise ceiling above 30 %: 0 of subj01, 1 of subj02."

    with pytest.warns(UserWarning, match=message):
        local_benchmark(release_copy, "V1")
    with pytest.raises(ValueError, match=f"{message} The metric 'rdm' needs two of a subject"):
        local_benchmark(release_copy, "V1", "rdm")


@pytest.mark.parametrize("metric", ["ridge", "ridgecv", "rdm"])
def test_region_of_another_release_takes_the_layer_of_a_region_or_a_layer(areas, metric):
    by_region, by_layer, worse = (local_benchmark(areas, "V3v", metric, layer=name) for name in ("V4", "signal", "V1"))
    model = load_model()

    score = float(by_region(model))

    assert by_region.identifier.startswith(f"kastner.V3v-{metric}--")
    assert score == float(by_layer(model)) > 0.8
    assert score > float(worse(model)) > 0.2
    assert set(model.layer_model.region_layer_map) == {"V1", "V2", "V4", "IT"}  # as before


def test_region_without_a_layer_asks_for_one_in_one_line(areas):
    with pytest.warns(SimulatedDataWarning) as caught:
        benchmark = local_benchmark(areas, "V3v")
    assert [warning.category for warning in caught].count(SimulatedDataWarning) == 1  # not for each split

    message = "The model layered has no layer for V3v. Name .* layers for IT, V1, V2, V4."
    with pytest.raises(ValueError, match=message) as error:
        benchmark(load_model())
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="The model signal has no region_layer_map, so layer='V2' has no use"):
        local_benchmark(areas, "V3v", layer="V2")(signal_model())


def test_impossible_benchmark_is_refused(areas, releases_path):
    for arguments, reason in (
        ((areas, "V3v", "pls"), "The metric is 'pls', expected one of ridge, ridgecv, rdm"),
        ((areas, "FEF"), "No neuroid of kastner.FEF has a noise ceiling .* above 30 %"),
        ((areas, "V9"), "V9"),
        ((releases_path, "V4"), "is not a release, so the name of one is needed"),
        ((areas / "nowhere", "V1"), f"{areas / 'nowhere'} does not exist, expected a release"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=reason):
            local_benchmark(*arguments)


# --- nothing stays behind --------------------------------------------------------------------------------------------------


def test_context_replaces_16_benchmarks_and_restores_them_also_after_an_exception(upstream, release):
    before = dict(benchmark_registry), dict(data_registry)

    with pytest.raises(FileNotFoundError, match=f"expected {NAME}_4subj once"), local_benchmarks(release):
        replaced = {key for key, value in benchmark_registry.items() if before[0].get(key) is not value}
        benchmark = load_benchmark(f"{NAME}.V4-ridge")
        load_benchmark(f"{NAME}_4subj.V1-rdm")

    assert replaced == IDENTIFIERS
    assert (benchmark_registry, data_registry) == before
    assert 0.3 < float(benchmark.ceiling) < 1  # it stays usable


CACHED_SCORES = """
import json, sys
import brainscore_vision
from brainscore_vision import benchmark_registry, data_registry
from brainscore_allen2022_surface.analysis.benchmarks import local_benchmarks
from analysis.models import signal_model

results = []
for source in sys.argv[1:]:
    with local_benchmarks(source):
        ridge, rdm = (brainscore_vision.load_benchmark(f"Allen2022_fmri_surface.V4-{metric}") for metric in ("ridge", "rdm"))
    model = signal_model()
    model.visual_degrees = lambda: 8  # so that images are converted
    results.append([float(score) for score in (ridge(model), ridge.ceiling, rdm(model), rdm.ceiling)])
print(json.dumps(results))
"""


@pytest.mark.slow
def test_disk_cache_mixes_no_releases_and_holds_no_published_name(release, release_copy, tmp_path):
    """In another process, because Brain-Score reads the folder of its cache when it is imported."""
    change_responses(release_copy)
    cache_path = tmp_path / "results"
    environment = os.environ | {
        "RESULTCACHING_HOME": str(cache_path),
        "RESULTCACHING_DISABLE": "0",
        "BRAINSCORE_HOME": str(tmp_path / "brainscore"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-c", CACHED_SCORES, str(release), str(release_copy), str(release)]

    run = subprocess.run(command, capture_output=True, text=True, env=environment)

    assert run.returncode == 0, run.stderr
    first, other, again = json.loads(run.stdout.splitlines()[-1])
    assert again == first
    assert abs(other[1]) < 0.3 < first[1]  # responses without signal have no ceiling
    cached = [path.stem.partition("=")[2].split(",")[0] for path in cache_path.rglob("*.pkl")]
    n_ceilings, n_stimulus_sets = 4, 3  # two benchmarks of two releases; train, test and all images
    assert len(cached) == n_ceilings + n_stimulus_sets
    for name in cached:
        assert re.search("--[0-9a-f]{8}(--|$)", name), name


# --- identifiers -----------------------------------------------------------------------------------------------------------


def change_noise_ceiling(path):
    """Benchmarks choose their neuroids by it."""
    with netCDF4.Dataset(path / f"{NAME}_test.nc", "a") as file:
        column = int(np.flatnonzero(file["region"][:] == "V4")[0])
        file["nc_testset"][column] = np.nextafter(file["nc_testset"][column], 100)
    accept(path, f"{NAME}_test.nc")


@pytest.mark.parametrize("change", [change_responses, change_noise_ceiling])
def test_identifier_of_benchmark_changes_with_the_release(release, release_copy, change):
    ridge, rdm, same = (
        load_local(source, f"{NAME}.V4-{metric}").identifier
        for source, metric in ((release, "ridge"), (release, "rdm"), (release_copy, "ridge"))
    )
    change(release_copy)

    assert ridge.startswith(f"{NAME}.V4-ridge--")
    assert marker_of(ridge) == marker_of(rdm)
    assert ridge == same != load_local(release_copy, f"{NAME}.V4-ridge").identifier


def test_set_of_all_images_is_marked_and_cacheable(release):
    splits = [load_assembly(NAME, split, "V4", source=release).stimulus_set for split in ("train", "test")]

    identifier = load_local(release, f"{NAME}.V4-rdm")._assembly.stimulus_set.identifier

    assert identifier == "--".join([f"{NAME}_train--full", *(marker_of(one.identifier) for one in splits)])
    assert_stimulus_identifier_is_cacheable(identifier)


def test_brainscore_without_surface_benchmarks_is_refused(release, monkeypatch):
    monkeypatch.setattr(benchmarks, "PLUGIN", "allen2022_nothing")

    message = "data.allen2022_nothing cannot be imported .* Install a version that has it"
    with pytest.raises(ModuleNotFoundError, match=message), local_benchmarks(release):
        brainscore_vision.load_benchmark(f"{NAME}.V4-rdm")
