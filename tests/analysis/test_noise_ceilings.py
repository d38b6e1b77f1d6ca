"""Noise ceilings from repetitions: textbook values, planted signals and noise, and intervals that cover the truth."""

import warnings

import numpy as np
import pytest
import scipy.stats

from analysis.repeated import make_assembly
from brainscore_allen2022_surface.analysis.noise_ceilings import ceiling_intervals, repetition_noise_ceilings
from brainscore_allen2022_surface.loaders import load_assembly


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


def test_table_has_a_row_per_region_and_subject_of_a_release(release):
    test_assembly = load_assembly("Allen2022_fmri_surface", "test", source=release)
    table = ceiling_intervals(test_assembly)

    assert list(zip(table["region"], table["subject"], strict=True)) == [
        (region, f"subj{number:02d}") for region in ("V1", "V2", "V4", "IT") for number in range(1, 9)
    ]
    assert ((table["lower"] >= 0) & (table["lower"] <= table["ceiling"]) & (table["ceiling"] <= table["upper"])).all()
    assert ((table["lower"] <= table["nc_testset"]) & (table["nc_testset"] <= table["upper"])).mean() > 0.8
    assert (table["ceiling"] - table["nc_testset"]).abs().median() < 4
    group = (test_assembly["region"].values == "V2") & (test_assembly["subject"].values == "subj03")
    n_with_ceiling = np.isfinite(repetition_noise_ceilings(test_assembly)[group]).sum()
    assert table.loc[(table["region"] == "V2") & (table["subject"] == "subj03"), "n_neuroids"].item() == n_with_ceiling


def reference_interval(values):
    """Return ceiling, lower and upper end from values of shape (n_images, n_repetitions, n_neuroids), by plain code."""

    def log_unexplained(images):
        noise = total = 0
        for v in range(values.shape[2]):
            valid = images[~np.isnan(images[:, :, v]).any(axis=1), :, v]
            noise += valid.var(axis=1, ddof=1).mean() / values.shape[1]
            total += valid.mean(axis=1).var(ddof=1)
        return np.log(noise / total)

    n_images = len(values)
    without_one = [log_unexplained(np.delete(values, image, axis=0)) for image in range(n_images)]
    width = np.std(without_one) * np.sqrt(n_images - 1) * scipy.stats.t(n_images - 1).ppf(0.975)
    return [max(0, 100 * (1 - np.exp(log_unexplained(values) + shift))) for shift in (0, width, -width)]


def test_ceiling_and_interval_equal_a_plain_jackknife(rng):
    values = draw_responses(rng, 20, rng.uniform(20, 70, 6)).reshape(20, 3, 6) * [1, 1, 3, 1, 1, 1]
    values[[3, 8, 11], [0, 1, 2], 5] = np.nan
    regions = np.array(["V1", "V1", "V1", "V4", "IT", "IT"])

    table = ceiling_intervals(make_assembly(values, region=regions)).set_index("region")

    for region in ("V1", "V4", "IT"):
        actual = table.loc[region, ["ceiling", "lower", "upper"]].astype(float)
        np.testing.assert_allclose(actual, reference_interval(values[:, :, regions == region]), rtol=1e-9)


def test_missing_noise_ceilings_and_impossible_confidence_are_refused(rng):
    assembly = make_assembly(draw_responses(rng, 10, [50.0]))

    with pytest.raises(ValueError, match="no neuroid coordinate nc_testset"):
        ceiling_intervals(assembly.drop_vars("nc_testset"))
    for confidence in (0, 1):
        with pytest.raises(ValueError, match=f"confidence is {confidence}, expected a fraction between 0 and 1"):
            ceiling_intervals(assembly, confidence=confidence)


@pytest.mark.slow
@pytest.mark.parametrize("n_images", [10, 103])
def test_interval_covers_low_and_skewed_ceilings_in_about_95_percent_of_simulations(n_images):
    """200 simulations: 90 to 99 % is what a coverage of 95 % gives in all but 1 of 200 runs."""
    covered = 0
    for number in range(200):
        rng = np.random.default_rng([7, number])
        truth = np.minimum(rng.gamma(1.5, 6, 200), 95)
        values = draw_responses(rng, n_images, truth, n_latents=20) * np.sqrt((100 - truth) / 100)
        row = ceiling_intervals(make_assembly(values)).iloc[0]
        covered += row["lower"] <= truth.mean() <= row["upper"]

    assert 0.90 <= covered / 200 <= 0.99


def test_noise_that_all_repetitions_share_lies_above_nc_testset(rng):
    truth = rng.uniform(20, 40, 200)
    independent, shared = (
        make_assembly(draw_responses(rng, 103, truth, noise_of_images=fraction), nc_testset=truth)
        for fraction in (0, 0.15)
    )

    assert not ceiling_intervals(independent)["is_above_nc_testset"].item()
    assert ceiling_intervals(shared)["is_above_nc_testset"].item()


def test_constant_neuroids_and_those_with_two_images_are_left_out(rng):
    values = draw_responses(rng, 30, np.full(12, 50.0))
    expected = ceiling_intervals(make_assembly(values[:, 6:], region="V2"))
    values[:, :4] = 0
    values[6:, 4] = np.nan
    values[:, 5] = np.nan
    assembly = make_assembly(values, region=np.array(["V1"] * 2 + ["V2"] * 10), nc_testset=[np.nan] * 3 + [50.0] * 9)

    table = ceiling_intervals(assembly)

    assert list(table["n_neuroids"]) == [0, 6]
    assert table.iloc[0, 3:7].isna().all() and not table["is_above_nc_testset"][0]
    np.testing.assert_allclose(table.iloc[1, 3:7].astype(float), expected.iloc[0, 3:7].astype(float), rtol=1e-9)


def exact(rng):
    """Return exact repetitions of 20 images."""
    return np.repeat(rng.standard_normal((20, 1, 5)), 3, axis=1)


EXTREMES = {  # responses of images, repetitions and neuroids; and the ceiling with its interval
    "two images": (lambda rng: rng.standard_normal((2, 3, 5)), [np.nan, np.nan, np.nan]),
    "exact repetitions": (exact, [100, 100, 100]),
    "noise in one image": (lambda rng: exact(rng) + (np.arange(60).reshape(20, 3, 1) == 0), [98, 0, 100]),
    "noise alone": (
        lambda rng: (v := rng.standard_normal((20, 3, 5))) - 0.9 * v.mean(axis=1, keepdims=True),
        [0, 0, 0],
    ),
    "equal averages": (lambda rng: np.tile([-1.0, 0.0, 1.0], (20, 1))[:, :, None] * rng.uniform(1, 2, 5), [0, 0, 0]),
}


@pytest.mark.parametrize(("draw", "expected"), EXTREMES.values(), ids=EXTREMES)
def test_extreme_responses_have_an_interval_unless_images_are_too_few(rng, draw, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = ceiling_intervals(make_assembly(draw(rng))).iloc[0]

    np.testing.assert_allclose(row[["ceiling", "lower", "upper"]].astype(float), expected, atol=2)
    assert row["n_neuroids"] == (0 if np.isnan(expected[0]) else 5)
