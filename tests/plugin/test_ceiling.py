import subprocess
import sys
import time
import tracemalloc
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import xarray as xr
from brainscore_core.metrics import Score
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly
from sklearn.model_selection import ShuffleSplit

from brainscore_allen2022_surface.ceiling import internal_consistency, noise_ceiling, repetition_halves
from brainscore_allen2022_surface.loaders import load_assembly

NAME = "Allen2022_fmri_surface"


@pytest.fixture
def test_assembly(release, monkeypatch):
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_DIR", str(release))
    return load_assembly(NAME, "test")


def make_assembly(values, *, n_repetitions=3) -> NeuroidAssembly:
    n_presentations, n_neuroids = values.shape
    return NeuroidAssembly(
        values,
        dims=("presentation", "neuroid"),
        coords={
            "stimulus_id": ("presentation", [f"nsd_{i // n_repetitions:05d}" for i in range(n_presentations)]),
            "repetition": ("presentation", np.arange(n_presentations) % n_repetitions),
            "neuroid_id": ("neuroid", [f"subj01_lh_V1_v{i:05d}" for i in range(n_neuroids)]),
            "region": ("neuroid", ["V1"] * n_neuroids),
        },
    )


def brainscore_ceiling(assembly):
    from brainscore_vision import load_ceiling

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant neuroids
        return load_ceiling("internal_consistency")(assembly)


def assert_same_score(found: Score, expected: xr.DataArray):
    """Compare value, error and all of raw: dimensions, coordinates, their order, and every value."""
    assert isinstance(found, Score)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found.values, expected.values, atol=1e-6)
    np.testing.assert_allclose(found.error.values, expected.error.values, atol=1e-6)
    assert found.raw.dims == expected.raw.dims
    assert list(found.raw.coords) == list(expected.raw.coords)
    assert found.raw.dtype == expected.raw.dtype
    for dim in expected.raw.dims:
        pd.testing.assert_index_equal(found.raw.indexes[dim], expected.raw.indexes[dim])
    np.testing.assert_allclose(found.raw.values, expected.raw.values, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_the_ceiling_is_brainscores_and_at_least_300_times_faster(test_assembly):
    assembly = test_assembly.isel(time_bin=0)
    start = time.perf_counter()
    expected = brainscore_ceiling(assembly)
    brainscore_seconds = time.perf_counter() - start
    own_seconds = []
    for _ in range(5):
        start = time.perf_counter()
        found = internal_consistency(assembly)
        own_seconds.append(time.perf_counter() - start)

    assert_same_score(found, expected)
    assert np.isnan(expected.raw.values).any(), "the release should hold invalid vertices, which are constant"
    assert brainscore_seconds / min(own_seconds) > 300


def test_nan_and_constant_neuroids_are_treated_as_brainscore_does(rng):
    signal = np.repeat(rng.standard_normal((12, 7)), 3, axis=0)
    values = (signal + rng.standard_normal(signal.shape)).astype(np.float32)
    values[0, 0] = np.nan  # one repetition of an image: only the halves without another are lost
    values[3:5, 1] = np.nan
    values[6:9, 2] = np.nan
    values[:, 3] = 0
    values[::3, 4] = 0.1  # constant in one repetition alone; the mean of 0.1 is not 0.1 in single precision
    values[5, 5] = np.inf
    assembly = make_assembly(values)

    found = internal_consistency(assembly)

    assert_same_score(found, brainscore_ceiling(assembly))
    assert 0 < np.isnan(found.raw.values[:, 0]).sum() < 10
    assert np.isnan(found.raw.values[:, [2, 3]]).all()
    assert 0 < np.isnan(found.raw.values[:, 4]).sum() < 10
    assert np.isfinite(found.raw.values[:, 6]).all()


def test_opposite_halves_blow_up_as_brainscores_do(rng):
    values = np.repeat(rng.standard_normal((20, 5)), 3, axis=0) + rng.standard_normal((60, 5))
    values[1::3, :2] = -values[::3, :2] + 0.1 * rng.standard_normal((20, 2))  # the others keep the median sane
    values[2::3, :2] = values[::3, :2]
    assembly = make_assembly(values.astype(np.float32))

    found = internal_consistency(assembly)

    assert np.abs(found.raw.values).max() > 100
    assert_same_score(found, brainscore_ceiling(assembly))


@pytest.mark.parametrize("n_repetitions", [2, 4, 5])
def test_other_numbers_of_repetitions_give_brainscores_value(rng, n_repetitions):
    signal = np.repeat(rng.standard_normal((15, 5)), n_repetitions, axis=0)
    assembly = make_assembly(signal + rng.standard_normal(signal.shape), n_repetitions=n_repetitions)

    assert_same_score(internal_consistency(assembly), brainscore_ceiling(assembly))


def test_the_order_of_presentations_and_neuroids_is_brainscores_to_choose(test_assembly, rng):
    assembly = test_assembly.isel(time_bin=0, neuroid=np.arange(0, 920, 40))
    shuffled = assembly.isel(presentation=rng.permutation(78), neuroid=rng.permutation(23))

    assert_same_score(internal_consistency(shuffled), brainscore_ceiling(shuffled))
    np.testing.assert_array_equal(internal_consistency(shuffled).raw.values, internal_consistency(assembly).raw.values)


def test_a_time_bin_is_taken_as_if_it_were_selected(test_assembly):
    with_time_bin = internal_consistency(test_assembly)

    xr.testing.assert_identical(with_time_bin.raw, internal_consistency(test_assembly.isel(time_bin=0)).raw)


def test_transposed_assemblies_give_the_same(test_assembly):
    assembly = test_assembly.isel(time_bin=0)

    found = internal_consistency(assembly.transpose("neuroid", "presentation"))

    xr.testing.assert_identical(found.raw, internal_consistency(assembly).raw)


@pytest.mark.parametrize("chunks", ["{}", "{'presentation': 50, 'neuroid': 100}"])
def test_lazily_loaded_assemblies_give_the_same(test_assembly, monkeypatch, chunks):
    monkeypatch.setenv("BRAINIO_CHUNKS", chunks)
    lazy = load_assembly(NAME, "test")
    assert lazy.chunks is not None

    found = internal_consistency(lazy.isel(time_bin=0))

    xr.testing.assert_identical(found.raw, internal_consistency(test_assembly).raw)


@pytest.mark.parametrize("chunk", [1, 10, 900])
def test_chunks_of_any_size_are_read_to_their_last_neuroid(test_assembly, monkeypatch, chunk):
    expected = internal_consistency(test_assembly)
    monkeypatch.setattr("brainscore_allen2022_surface.ceiling.NEUROIDS_AT_A_TIME", 7)
    monkeypatch.setattr("brainscore_allen2022_surface.ceiling.NEUROIDS_IN_MEMORY", 200)

    found = internal_consistency(test_assembly.chunk({"neuroid": chunk}))

    xr.testing.assert_allclose(found.raw, expected.raw, atol=1e-6)


def test_many_blocks_of_neuroids_give_what_each_gives_alone(rng, monkeypatch):
    signal = np.repeat(rng.standard_normal((20, 25)), 3, axis=0)
    assembly = make_assembly(signal + rng.standard_normal(signal.shape))
    whole = internal_consistency(assembly)
    monkeypatch.setattr("brainscore_allen2022_surface.ceiling.NEUROIDS_AT_A_TIME", 4)

    np.testing.assert_allclose(internal_consistency(assembly).raw.values, whole.raw.values, atol=1e-12)


def test_memory_stays_below_twice_the_assembly(rng):
    assembly = make_assembly(rng.standard_normal((309, 60_000), dtype=np.float32))
    tracemalloc.start()
    try:
        internal_consistency(assembly)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < assembly.nbytes  # on top of the assembly itself


def test_a_planted_signal_gives_the_consistency_that_theory_tells(rng):
    n_images, n_neuroids = 400, 200
    ncsnr = 0.8
    signal = np.repeat(ncsnr * rng.standard_normal((n_images, n_neuroids)), 3, axis=0)
    assembly = make_assembly(signal + rng.standard_normal(signal.shape))
    correlation = ncsnr**2 / np.sqrt((ncsnr**2 + 1) * (ncsnr**2 + 1 / 2))

    score = internal_consistency(assembly)

    assert score.item() == pytest.approx(2 * correlation / (1 + correlation), abs=0.01)
    assert internal_consistency(make_assembly(rng.standard_normal((1200, 200)))).item() == pytest.approx(0, abs=0.01)


def test_one_raw_value_is_the_corrected_pearson_correlation_of_two_halves(rng):
    values = rng.standard_normal((60, 3)) + np.repeat(rng.standard_normal((20, 3)), 3, axis=0)
    first, second = repetition_halves(3)[4]

    r, _ = scipy.stats.pearsonr(values[first[0] :: 3, 1], (values[second[0] :: 3, 1] + values[second[1] :: 3, 1]) / 2)

    assert internal_consistency(make_assembly(values)).raw.values[4, 1] == pytest.approx(2 * r / (1 + r), abs=1e-12)


@pytest.mark.parametrize("n_repetitions", [2, 3, 4, 5, 8])
def test_the_halves_are_those_of_scikit_learn(n_repetitions):
    splits = ShuffleSplit(n_splits=10, train_size=0.5, random_state=1).split(np.zeros(n_repetitions))

    assert repetition_halves(n_repetitions) == [(tuple(train), tuple(test)) for train, test in splits]


def test_the_train_split_has_no_halves(release, monkeypatch):
    monkeypatch.setenv("BRAINSCORE_ALLEN2022_SURFACE_DIR", str(release))

    with pytest.raises(ValueError, match="no coordinate repetition.*Take the test split"):
        internal_consistency(load_assembly(NAME, "train"))


def test_a_missing_repetition_is_named(rng):
    assembly = make_assembly(rng.standard_normal((30, 2)))

    with pytest.raises(ValueError, match="Image nsd_00004 has 0 presentations with repetition 1"):
        internal_consistency(assembly.isel(presentation=np.delete(np.arange(30), 13)))


def test_too_few_images_or_repetitions_are_refused(rng):
    assembly = make_assembly(rng.standard_normal((30, 2)))

    with pytest.raises(ValueError, match="1 repetitions of 10 images, expected 2 or more"):
        internal_consistency(assembly.isel(presentation=slice(0, None, 3)))
    with pytest.raises(ValueError, match="3 repetitions of 1 images, expected 2 or more"):
        internal_consistency(assembly.isel(presentation=slice(0, 3)))


def test_other_shapes_are_refused(test_assembly):
    with pytest.raises(ValueError, match="'time_bin': 2.*expected presentation, neuroid and at most one time_bin"):
        internal_consistency(xr.concat([test_assembly, test_assembly], dim="time_bin"))
    with pytest.raises(ValueError, match="expected presentation, neuroid"):
        internal_consistency(test_assembly.isel(neuroid=0))


def test_noise_ceilings_follow_the_data_manual():
    ncsnr = np.array([0, 1, 0.5, np.nan])

    np.testing.assert_allclose(noise_ceiling(ncsnr), [0, 75, 100 * 0.25 / (0.25 + 1 / 3), np.nan])
    np.testing.assert_allclose(noise_ceiling(ncsnr, n_repetitions=1), [0, 50, 20, np.nan])
    with pytest.raises(ValueError, match="n_repetitions must be at least 1, but got 0"):
        noise_ceiling(ncsnr, n_repetitions=0)


def test_the_release_carries_the_noise_ceilings_of_its_ncsnr(nsd_tree, test_assembly):
    import nibabel

    folder = nsd_tree / "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR"
    ncsnr = np.asarray(nibabel.load(folder / "lh.ncsnr.mgh").dataobj).ravel()
    own = (test_assembly["subject"].values == "subj01") & (test_assembly["hemisphere"].values == "lh")

    found = test_assembly["nc_testset"].values[own]

    np.testing.assert_allclose(found, noise_ceiling(ncsnr[test_assembly["vertex_index"].values[own]]), rtol=1e-6)


def test_a_plain_install_has_the_ceilings():
    code = """
import sys
for missing in ("brainscore_vision", "sklearn", "torch"):
    sys.modules[missing] = None  # as if it were not installed
class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("brainscore_vision", "sklearn", "torch"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
for missing in ("brainscore_vision", "sklearn", "torch"):
    del sys.modules[missing]
sys.meta_path.insert(0, NotInstalled())
from brainscore_allen2022_surface.ceiling import noise_ceiling
print(noise_ceiling(1.0))
"""
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)

    assert run.stdout.strip() == "75.0", run.stderr
