"""Noise ceilings from repetitions: textbook values, planted signals and noise, and intervals that cover the truth."""

import warnings

import numpy as np
import pytest
import scipy.stats

from analysis.repeated import make_assembly
from brainscore_allen2022_surface.analysis.noise_ceilings import ceiling_intervals, repetition_noise_ceilings
from brainscore_allen2022_surface.loaders import load_assembly

NAME = "Allen2022_fmri_surface"


@pytest.fixture
def test_assembly(release):
    return load_assembly(NAME, "test", source=release)


def draw_responses(rng, n_images, ceilings, *, n_latents=None, noise_of_images=0.0):
    """Draw signal plus noise of variance 1, in float64, of shape (n_images x 3, n_neuroids).

    With latents, neuroids share their signal and a fifth of their noise. `noise_of_images` is the fraction of the noise that
    all repetitions of an image share.
    """
    n_neuroids = len(ceilings)
    signal = rng.standard_normal((n_images, n_latents or n_neuroids))
    noise = rng.standard_normal((n_images, 3, n_neuroids))
    if n_latents:
        mixture = rng.standard_normal((n_latents, n_neuroids))
        signal = signal @ (mixture / np.linalg.norm(mixture, axis=0))
        noise = np.sqrt(0.8) * noise + np.sqrt(0.2) * rng.standard_normal((n_images, 3, 1))
    noise *= np.sqrt(1 - noise_of_images)
    noise += np.sqrt(noise_of_images) * rng.standard_normal((n_images, 1, n_neuroids))
    signal = signal * np.sqrt(np.asarray(ceilings) / (100 - np.asarray(ceilings)) / 3)
    return (signal[:, None] + noise).reshape(3 * n_images, n_neuroids)


def reference_ceiling(responses):
    """Return the ceiling of one neuroid from responses of shape (n_images, n_repetitions), by the F test of scipy."""
    return 100 * max(0, 1 - 1 / scipy.stats.f_oneway(*responses).statistic)


@pytest.mark.parametrize("n_repetitions", [2, 3, 5])
def test_ceiling_equals_one_minus_inverse_f_statistic(rng, n_repetitions):
    signal = np.repeat(rng.standard_normal((12, 20)), n_repetitions, axis=0)
    values = signal * np.linspace(0, 2, 20) + rng.standard_normal(signal.shape)

    ceilings = repetition_noise_ceilings(make_assembly(values, n_repetitions=n_repetitions))

    expected = [reference_ceiling(column.reshape(12, n_repetitions)) for column in values.T]
    np.testing.assert_allclose(ceilings, expected, rtol=1e-10, atol=1e-10)
    assert (ceilings == 0).any() and (ceilings > 50).any()


def test_simulated_ceilings_are_found_from_many_images(rng):
    truth = np.repeat([5.0, 20.0, 50.0, 80.0], 50)

    ceilings = repetition_noise_ceilings(make_assembly(draw_responses(rng, 2000, truth)))

    np.testing.assert_allclose(ceilings.reshape(4, 50).mean(axis=1), truth[::50], atol=0.7)


def test_ceilings_of_a_release_agree_with_its_ncsnr(test_assembly):
    nc_testset = test_assembly["nc_testset"].values

    ceilings = repetition_noise_ceilings(test_assembly)

    has_signal = nc_testset > 0
    assert abs(np.nanmedian(ceilings[has_signal]) - np.nanmedian(nc_testset[has_signal])) < 4
    assert np.corrcoef(ceilings[has_signal], nc_testset[has_signal])[0, 1] > 0.5


def test_scale_and_offset_of_a_neuroid_do_not_change_its_ceiling(rng):
    values = draw_responses(rng, 20, np.full(8, 40.0))

    expected = repetition_noise_ceilings(make_assembly(values))

    np.testing.assert_allclose(repetition_noise_ceilings(make_assembly(1e-3 * values + 100)), expected, rtol=1e-6)


def test_images_with_nan_are_left_out_for_that_neuroid_only(rng):
    values = draw_responses(rng, 20, np.full(5, 50.0))
    with_nan = values.copy()
    with_nan[7, 1] = np.nan  # repetition 1 of image 2
    with_nan[::3, 2] = np.nan
    with_nan[6:, 3] = np.nan  # two images are enough
    with_nan[3:, 4] = np.nan

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ceilings = repetition_noise_ceilings(make_assembly(with_nan))

    assert ceilings[0] == repetition_noise_ceilings(make_assembly(values))[0]
    assert ceilings[1] == pytest.approx(reference_ceiling(np.delete(values[:, 1].reshape(20, 3), 2, axis=0)), rel=1e-10)
    assert ceilings[3] == pytest.approx(reference_ceiling(values[:6, 3].reshape(2, 3)), rel=1e-10)
    assert np.isnan(ceilings[[2, 4]]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_neuroid_has_no_ceiling_and_exact_repetitions_have_all(rng, dtype):
    values = draw_responses(rng, 20, np.full(3, 50.0)).astype(dtype)
    values[:, 0] = 0.1  # the mean of three is not exactly 0.1
    values[:, 1] = np.repeat(values[::3, 1], 3)

    ceilings = repetition_noise_ceilings(make_assembly(values))

    assert np.isnan(ceilings[0])
    assert ceilings[1] == pytest.approx(100)


def test_zeros_in_place_of_nan_change_the_ceiling_in_both_directions(rng):
    values = draw_responses(rng, 100, np.full(40, 30.0)) + 5
    silent, partly_silent = values.copy(), values.copy()
    silent.reshape(100, 3, 40)[:20] = 0
    partly_silent.reshape(100, 3, 40)[:, 0] = 0
    before, with_silent, with_partly = (
        np.median(repetition_noise_ceilings(make_assembly(v))) for v in (values, silent, partly_silent)
    )

    assert with_silent > before + 20
    assert with_partly < before - 20


def test_table_has_a_row_per_region_and_subject_of_a_release(test_assembly):
    table = ceiling_intervals(test_assembly, n_bootstraps=50)

    assert list(zip(table["region"], table["subject"], strict=True)) == [
        (region, f"subj{number:02d}") for region in ("V1", "V2", "V4", "IT") for number in range(1, 9)
    ]
    ceilings = repetition_noise_ceilings(test_assembly)
    group = (test_assembly["region"].values == "V2") & (test_assembly["subject"].values == "subj03")
    row = table[(table["region"] == "V2") & (table["subject"] == "subj03")].iloc[0]
    assert row["n_neuroids"] == np.isfinite(ceilings[group]).sum()
    assert row["median_ceiling"] == pytest.approx(np.nanmedian(ceilings[group]))
    has_ceiling = group & np.isfinite(ceilings)
    assert row["median_nc_testset"] == pytest.approx(np.median(test_assembly["nc_testset"].values[has_ceiling]))
    assert (table["lower"] <= table["corrected_ceiling"]).all() and (table["corrected_ceiling"] <= table["upper"]).all()
    assert not table["is_above_nc_testset"].all()


def test_same_seed_gives_the_same_interval_and_another_seed_a_similar_one(rng):
    assembly = make_assembly(draw_responses(rng, 50, rng.uniform(10, 60, 40)))
    first = ceiling_intervals(assembly)

    assert first.equals(ceiling_intervals(assembly, n_bootstraps=500, confidence=0.95, seed=0))
    second = ceiling_intervals(assembly, seed=1)
    assert not first.equals(second)
    assert second["lower"].item() == pytest.approx(first["lower"].item(), abs=1.5)


def test_interval_of_a_group_does_not_depend_on_other_neuroids_or_their_order(rng):
    values = draw_responses(rng, 30, rng.uniform(10, 60, 30), n_latents=5)
    assembly = make_assembly(values, region=np.array(["V1", "IT", "V4"] * 10))
    table = ceiling_intervals(assembly, n_bootstraps=100)

    alone = ceiling_intervals(assembly.isel(neuroid=np.arange(1, 30, 3)), n_bootstraps=100)

    assert list(table["region"]) == ["V1", "IT", "V4"]
    np.testing.assert_allclose(table[table["region"] == "IT"].iloc[:, 2:8], alone.iloc[:, 2:8], rtol=1e-9)


def test_width_follows_the_t_distribution(rng):
    assembly = make_assembly(draw_responses(rng, 12, rng.uniform(60, 90, 40)))
    widths = []
    for confidence in (0.5, 0.9, 0.99):
        row = ceiling_intervals(assembly, confidence=confidence).iloc[0]
        upper, middle, lower = np.log(1 - row[["lower", "corrected_ceiling", "upper"]].astype(float) / 100)
        assert upper - middle == pytest.approx(middle - lower)
        widths.append(upper - lower)

    expected = scipy.stats.t(11).ppf([0.75, 0.95, 0.995])
    np.testing.assert_allclose(np.divide(widths, widths[0]), expected / expected[0])


def test_missing_noise_ceilings_are_refused(rng):
    with pytest.raises(ValueError, match="no neuroid coordinate nc_testset"):
        ceiling_intervals(make_assembly(draw_responses(rng, 10, [50.0])).drop_vars("nc_testset"))


@pytest.mark.slow
@pytest.mark.parametrize("n_latents", [None, 10], ids=["independent", "correlated"])
def test_interval_covers_the_true_median_in_about_95_percent_of_simulations(n_latents):
    """300 simulations: 91 to 98 % is what a coverage of 95 % gives in all but 1 of 100 runs."""
    covered = 0
    for number in range(300):
        rng = np.random.default_rng([7, number])
        truth = rng.uniform(5, 60, 100)
        row = ceiling_intervals(
            make_assembly(draw_responses(rng, 103, truth, n_latents=n_latents)), n_bootstraps=200
        ).iloc[0]
        covered += row["lower"] <= np.median(truth) <= row["upper"]

    assert 0.91 <= covered / 300 <= 0.98


def test_noise_of_single_neuroids_shifts_the_plain_median_but_not_the_corrected_one():
    """The ceilings are skewed, so that the median of noisy estimates is too high."""
    errors = []
    for number in range(30):
        rng = np.random.default_rng(number)
        signal = (0.45 * rng.lognormal(0, 0.5, 2000)) ** 2
        truth = 100 * signal / (signal + 1 / 3)
        row = ceiling_intervals(make_assembly(draw_responses(rng, 103, truth)), n_bootstraps=50).iloc[0]
        errors.append((row["median_ceiling"] - np.median(truth), row["corrected_ceiling"] - np.median(truth)))

    plain, corrected = np.mean(errors, axis=0)
    assert plain > 0.7 and abs(corrected) < 0.4 * plain


def test_noise_that_all_repetitions_share_lies_above_nc_testset(rng):
    truth = rng.uniform(20, 40, 200)
    independent, shared = (
        make_assembly(draw_responses(rng, 103, truth, noise_of_images=fraction), nc_testset=truth)
        for fraction in (0, 0.15)
    )

    assert not ceiling_intervals(independent)["is_above_nc_testset"].item()
    assert ceiling_intervals(shared)["is_above_nc_testset"].item()


def test_neuroids_without_ceiling_are_left_out_of_the_interval(rng):
    values = draw_responses(rng, 30, np.full(12, 50.0))
    values[:, :4] = 0
    values[4, 5] = np.nan
    assembly = make_assembly(values, region=np.array(["V1"] * 2 + ["V2"] * 10), nc_testset=np.arange(12) / 7)

    table = ceiling_intervals(assembly, n_bootstraps=50)

    assert list(table["n_neuroids"]) == [0, 8]
    assert table.iloc[0, 3:8].isna().all() and not table["is_above_nc_testset"][0]
    assert table["median_nc_testset"][1] == np.median(np.arange(4, 12) / 7)
    assert 0 <= table["lower"][1] < table["upper"][1] <= 100


def test_interval_of_one_neuroid_is_as_wide_as_the_f_distribution_says(rng):
    row = ceiling_intervals(make_assembly(draw_responses(rng, 103, [50.0])), n_bootstraps=2000).iloc[0]

    lower, upper = np.log(1 - row[["upper", "lower"]].astype(float) / 100)
    f_values = scipy.stats.f(102, 206).ppf([0.025, 0.975])
    assert upper - lower == pytest.approx(np.log(f_values[1] / f_values[0]), rel=0.2)
    assert row["corrected_ceiling"] == pytest.approx(row["median_ceiling"], abs=2)
