"""Correlations between subjects: a reference by loops, planted signals, and intervals that cover the truth."""

import warnings

import numpy as np
import pytest

from analysis.repeated import make_assembly
from brainscore_allen2022_surface.analysis.between_subjects import between_subject_intervals, between_subjects


def make_subjects(values, places):
    """Make an assembly from rows of subject, hemisphere, vertex and region."""
    subject, hemisphere, vertex, region = (np.array(column) for column in zip(*places, strict=True))
    assembly = make_assembly(values, subject=subject, region=region)
    return assembly.assign_coords(hemisphere=("neuroid", hemisphere), vertex_index=("neuroid", vertex))


def draw_subjects(rng, n_images, n_vertices, *, n_subjects=4, shared=0.5, noise=1.0):
    """Draw signals of variance 1 that correlate as `shared` between subjects, in 3 repetitions with noise."""
    common = rng.standard_normal((n_images, 1, n_vertices))
    signals = np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.standard_normal((n_images, n_subjects, n_vertices))
    signals = signals.reshape(n_images, 1, -1)
    values = signals + noise * rng.standard_normal((n_images, 3, n_subjects * n_vertices))
    places = [(f"subj{1 + s:02d}", "lh", vertex, "V1") for s in range(n_subjects) for vertex in range(n_vertices)]
    return make_subjects(values, places)


def true_correlation(shared, n_others):
    """Return the correlation of the signal of a subject with the mean of those of the others."""
    return shared / np.sqrt((1 + (n_others - 1) * shared) / n_others)


def reference_moments(responses, others):
    """Return the five moments of one neuroid from arrays of shape (n_images, n_repetitions) without NaN."""
    n_repetitions = responses.shape[1]
    mean_of_others = np.mean([other.mean(axis=1) for other in others], axis=0)
    (variance, covariance), (_, of_others) = np.cov(responses.mean(axis=1), mean_of_others)
    noise, *noises = (one.var(axis=1, ddof=1).mean() / n_repetitions for one in [responses, *others])
    return np.array([covariance, variance, of_others, noise, sum(noises) / len(others) ** 2])


def reference_values(moments):
    """Return the correlation and the corrected one."""
    covariance, variance, of_others, noise, noise_of_others = moments
    signals = variance - noise, of_others - noise_of_others
    corrected = covariance / np.sqrt(signals[0] * signals[1]) if min(signals) > 0 else np.nan
    return covariance / np.sqrt(variance * of_others), corrected


def reference_columns(of_all, without_each):
    """Return all columns but `n_others`, from moments of all images and without each."""
    t = {9: 2.2621571628, 10: 2.2281388520, 11: 2.2009851601}[len(without_each) - 1]
    (r, corrected), left_out = reference_values(of_all), np.array([reference_values(one) for one in without_each])
    left_out[:, 0] = np.arctanh(left_out[:, 0])
    half_r, half_corrected = t * np.sqrt((len(left_out) - 1) * left_out.var(axis=0))
    ends = np.tanh(np.arctanh(r) + half_r * np.array([-1, 1]))
    return [r, *ends, corrected, corrected - half_corrected, corrected + half_corrected]


@pytest.fixture
def unequal_subjects(rng):
    """Twelve images: subjects that lack some vertices, two hemispheres, two regions, NaN values and a constant neuroid."""
    vertices = {"subj01": [3, 5, 8, 9], "subj02": [9, 8, 3], "subj05": [3, 8, 11]}
    places = [
        (subject, hemisphere, vertex, region)
        for subject, numbers in vertices.items()
        for hemisphere in ("lh", "rh")
        for region in ("V1", "IT")
        for vertex in numbers
    ]
    common = {place: rng.standard_normal((12, 1)) for place in sorted({place[1:] for place in places})}
    values = np.stack([2 * common[place[1:]] + rng.standard_normal((12, 3)) for place in places], axis=2)
    values[4, 1, places.index(("subj02", "lh", 3, "V1"))] = np.nan
    values[7, 0, places.index(("subj05", "lh", 3, "V1"))] = np.nan
    values[:, :, places.index(("subj02", "rh", 8, "IT"))] = 0.1
    values[2:, 0, places.index(("subj05", "rh", 3, "IT"))] = np.nan
    return make_subjects(values, places), values, places


def moments_by_loops(values, places):
    """Return the number of others of each neuroid, and its moments from all images, and without each."""
    is_valid = np.isfinite(values).all(axis=1)
    is_usable = (is_valid.sum(axis=0) >= 3) & (np.nanmax(values, axis=(0, 1)) > np.nanmin(values, axis=(0, 1)))
    results = []
    for neuroid, place in enumerate(places):
        others = [
            one for one, there in enumerate(places) if there[1:] == place[1:] and one != neuroid and is_usable[one]
        ]
        if not (others and is_usable[neuroid]):
            results.append((0, None, []))
            continue
        valid = np.flatnonzero(is_valid[:, [neuroid, *others]].all(axis=1))
        of_all = reference_moments(values[valid, :, neuroid], [values[valid, :, other] for other in others])
        without = {}
        for image in valid:
            left = valid[valid != image]
            without[image] = reference_moments(values[left, :, neuroid], [values[left, :, one] for one in others])
        results.append((len(others), of_all, without))
    return results


def test_neuroids_and_regions_equal_reference_by_loops(unequal_subjects):
    """A region has the ratios of the sums over its neuroids."""
    assembly, values, places = unequal_subjects
    results = moments_by_loops(values, places)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = between_subjects(assembly)

    for row, (n_others, of_all, without) in zip(table.to_numpy(), results, strict=True):
        assert row[0] == n_others
        expected = reference_columns(of_all, list(without.values())) if n_others else np.full(6, np.nan)
        np.testing.assert_allclose(row[1:], expected, rtol=2e-5)  # averages are in float32
    assert sorted(set(table["n_others"])) == [0, 1, 2]
    for (subject, region), row in between_subject_intervals(assembly).set_index(["subject", "region"]).iterrows():
        kept = [one for one, place in zip(results, places, strict=True) if place[::3] == (subject, region) and one[0]]
        of_all = sum(one[1] for one in kept)
        without = [sum(one[2].get(image, one[1]) for one in kept) for image in range(12)]
        assert row.iloc[0] == len(kept)
        np.testing.assert_allclose(row.iloc[1:], reference_columns(of_all, without), rtol=2e-5)


def test_hemispheres_and_subjects_without_others_are_apart(rng):
    signal = rng.standard_normal((30, 1, 1))
    values = np.concatenate([signal, -signal, signal, -signal, signal], axis=2) + 0.1 * rng.standard_normal((30, 3, 5))
    places = [(s, h, 7, "V1") for s in ("subj01", "subj02") for h in ("lh", "rh")] + [("subj01", "lh", 8, "V1")]

    table = between_subjects(make_subjects(values, places))

    assert (table["correlation"][:4] > 0.9).all()
    assert table["n_others"].tolist() == [1, 1, 1, 1, 0]
    assert table.iloc[4, 1:].isna().all()


@pytest.mark.parametrize("n_subjects", [2, 4, 8])
def test_planted_correlation_is_found_after_correction(rng, n_subjects):
    """The 400 vertices are independent: the standard error of a region is below 1.5 / sqrt(100 x 400), so 0.03 is four."""
    truth = true_correlation(0.5, n_subjects - 1)

    table = between_subject_intervals(draw_subjects(rng, 100, 400, n_subjects=n_subjects, noise=1.5))

    np.testing.assert_allclose(table["corrected"], truth, atol=0.03)
    assert (table["correlation"] < truth - 0.1).all()


def test_corrected_values_are_neither_clipped_nor_invented(rng):
    table = between_subjects(draw_subjects(rng, 40, 300, shared=1.0, noise=2.0))

    assert (table["corrected"] > 1).mean() > 0.25
    no_signal = between_subjects(draw_subjects(rng, 40, 300, shared=0.0, noise=100.0))
    assert no_signal["corrected"].isna().mean() > 0.5
    assert no_signal["correlation"].notna().all()


@pytest.mark.parametrize(
    ("n_images", "noise", "without"), [(100, 1.0, 0.0), (20, 1.0, 0.01), (20, 2.0, 0.3), (10, 2.0, 0.6)]
)
def test_intervals_of_neuroids_cover_the_truth_or_are_missing(rng, n_images, noise, without):
    """1,200 neuroids: noise ceilings of 75 and 43 %. Four at a vertex depend on each other, so errors may be 2.5 %."""
    table = between_subjects(draw_subjects(rng, n_images, 300, noise=noise))
    truth = true_correlation(0.5, 3)
    signal_of_others, noise_of_others = 2 / 3, noise**2 / 9  # variances of the mean of three
    reliability = np.sqrt(1 / (1 + noise**2 / 3) * signal_of_others / (signal_of_others + noise_of_others))

    given = table[table["corrected_lower"].notna()]
    of_raw = table["lower"].le(truth * reliability) & table["upper"].ge(truth * reliability)
    of_corrected = given["corrected_lower"].le(truth) & given["corrected_upper"].ge(truth)

    assert 0.91 <= of_raw.mean() <= 0.99
    assert 0.87 <= of_corrected.mean() <= 0.99
    assert 1 - len(given) / len(table) == pytest.approx(without, abs=0.06)
