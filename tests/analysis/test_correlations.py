"""Correlations between repetitions: textbook values, and noise that is planted and found again."""

import warnings
from itertools import combinations

import numpy as np
import pytest
import scipy.stats

from analysis.repeated import make_assembly
from brainscore_allen2022_surface.analysis.correlations import repetition_correlations


def draw_responses(rng, *, n_images=103, n_neuroids=30, repetitions_with_shared_noise=()):
    """Draw a signal that neuroids share partly, and noise of variance 1, a quarter of which some repetitions may share."""
    mixture = rng.standard_normal((8, n_neuroids)) / 4
    noise = rng.standard_normal((n_images, 3, n_neuroids))
    shared = rng.standard_normal((n_images, n_neuroids))
    for repetition in repetitions_with_shared_noise:
        noise[:, repetition] = np.sqrt(0.75) * noise[:, repetition] + np.sqrt(0.25) * shared
    return (rng.standard_normal((n_images, 8)) @ mixture)[:, None] + noise


def test_correlations_equal_pearsons_averaged_over_neuroids(rng):
    values = draw_responses(rng, n_images=20, n_neuroids=5)

    row = repetition_correlations(make_assembly(values)).iloc[0]

    expected = {
        f"r_{a}_{b}": np.mean([scipy.stats.pearsonr(*responses)[0] for responses in values[:, [a, b]].T])
        for a, b in combinations(range(3), 2)
    }
    assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert row["largest_difference"] == pytest.approx(max(expected.values()) - min(expected.values()))


def test_noise_that_two_repetitions_share_is_found(rng):
    table = repetition_correlations(make_assembly(draw_responses(rng, repetitions_with_shared_noise=(0, 1))))

    assert table["is_unequal"].item() and table["p_value"].item() < 0.001
    assert table["r_0_1"].item() > table[["r_0_2", "r_1_2"]].max(axis=1).item() + 0.1


@pytest.mark.slow
@pytest.mark.parametrize("n_images", [4, 40])
def test_independent_noise_is_called_unequal_in_at_most_5_percent_of_simulations(n_images):
    """300 simulations: 5 % gives more than 9 % in 1 of 500 runs only."""
    n_unequal = sum(
        repetition_correlations(make_assembly(draw_responses(np.random.default_rng([3, number]), n_images=n_images)))[
            "is_unequal"
        ].item()
        for number in range(300)
    )

    assert n_unequal / 300 <= 0.09
    assert n_images < 10 or n_unequal / 300 >= 0.02


def test_fewer_false_alarms_need_a_smaller_p(rng):
    assembly = make_assembly(draw_responses(rng, n_images=30, repetitions_with_shared_noise=(0, 1)))
    p_value = repetition_correlations(assembly)["p_value"].item()

    assert repetition_correlations(assembly, false_alarms=p_value)["is_unequal"].item()
    assert not repetition_correlations(assembly, false_alarms=p_value * 0.99)["is_unequal"].item()
    for false_alarms in (0, 1):
        with pytest.raises(ValueError, match=f"false_alarms is {false_alarms}, expected a probability"):
            repetition_correlations(assembly, false_alarms=false_alarms)


def test_images_with_nan_and_constant_neuroids_are_left_out(rng):
    values = draw_responses(rng, n_images=30, n_neuroids=4).astype(np.float32)
    values[:, :, 0] = 0.1
    values[:, 2, 1] = 0.1  # constant in one repetition only
    values[4, 1, 2] = np.nan
    values[:, 1, 3] = np.nan

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = repetition_correlations(make_assembly(values)).iloc[0]

    valid = np.delete(values[:, :, 2], 4, axis=0)
    assert row["n_neuroids"] == 1
    assert row["r_0_1"] == pytest.approx(scipy.stats.pearsonr(valid[:, 0], valid[:, 1])[0], abs=1e-6)
    nothing = repetition_correlations(make_assembly(values[:, :, :2])).iloc[0]
    assert nothing["n_neuroids"] == 0 and np.isnan(nothing["r_0_1"]) and not nothing["is_unequal"]


def test_two_repetitions_have_one_pair_and_no_difference(rng):
    row = repetition_correlations(make_assembly(draw_responses(rng)[:, :2])).iloc[0]

    assert row["largest_difference"] == 0 and not row["is_unequal"]
    assert "r_0_2" not in row
