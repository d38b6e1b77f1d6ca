"""What all estimates from repetitions refuse: an assembly that is incomplete, and parameters that are impossible."""

import re

import numpy as np
import pytest
import xarray as xr

from analysis.repeated import make_assembly
from brainscore_allen2022_surface.analysis.ceiling import internal_consistency
from brainscore_allen2022_surface.analysis.correlations import repetition_correlations
from brainscore_allen2022_surface.analysis.noise_ceilings import ceiling_intervals, repetition_noise_ceilings

ESTIMATES = [internal_consistency, repetition_noise_ceilings, repetition_correlations, ceiling_intervals]
N_IMAGES, N_REPETITIONS, N_NEUROIDS = 10, 3, 4

every_estimate = pytest.mark.parametrize("estimate", ESTIMATES, ids=lambda function: function.__name__)
every_bootstrap = pytest.mark.parametrize("estimate", ESTIMATES[2:], ids=lambda function: function.__name__)


@pytest.fixture
def assembly(rng) -> xr.DataArray:
    """Ten images with three repetitions each, which follow each other."""
    signal = 5 * np.repeat(rng.standard_normal((N_IMAGES, N_NEUROIDS)), N_REPETITIONS, axis=0)
    return make_assembly(signal + rng.standard_normal(signal.shape), n_repetitions=N_REPETITIONS)


@every_estimate
@pytest.mark.parametrize(
    ("rows", "found"),
    [(slice(0, None, 3), "1 repetitions of 10 images"), (slice(0, 3), "3 repetitions of 1 images")],
)
def test_too_few_images_or_repetitions_are_refused(estimate, assembly, rows, found):
    with pytest.raises(ValueError, match=f"has {found}, expected 2 or more of each. Select more presentations"):
        estimate(assembly.isel(presentation=rows))


@every_estimate
@pytest.mark.parametrize(
    "rows", [slice(0, 6), np.delete(np.arange(30), slice(0, None, 3))], ids=["images", "repetitions"]
)
def test_two_images_or_two_repetitions_are_enough(estimate, assembly, rows):
    assert np.isfinite(numbers(estimate(assembly.isel(presentation=rows)))).any()


@every_estimate
@pytest.mark.parametrize("n_left", [1, 2])
def test_error_names_image_with_missing_repetition(estimate, assembly, n_left):
    incomplete = assembly.isel(presentation=np.delete(np.arange(30), slice(12 + n_left, 15)))

    with pytest.raises(
        ValueError, match=f"Image nsd_00004 has 0 presentations with repetition {n_left} and .*expected 1. Select whole"
    ):
        estimate(incomplete)


@every_estimate
def test_error_names_image_with_a_repetition_twice(estimate, assembly):
    with pytest.raises(ValueError, match="Image nsd_00002 has 2 presentations with repetition 1 and the same coord"):
        estimate(assembly.isel(presentation=[*range(30), 7]))


@every_estimate
def test_presentations_without_repetition_are_refused(estimate, assembly):
    with pytest.raises(ValueError, match=re.escape("no coordinate repetition, so it has no repetitions to compare")):
        estimate(assembly.drop_vars("repetition"))


@every_estimate
def test_several_time_bins_or_missing_dimensions_are_refused(estimate, assembly):
    with pytest.raises(ValueError, match="'time_bin': 2.*expected presentation, neuroid and at most one time_bin"):
        estimate(xr.concat([assembly, assembly], dim="time_bin"))
    with pytest.raises(ValueError, match="expected presentation, neuroid"):
        estimate(assembly.isel(neuroid=0))


@every_estimate
def test_order_of_presentations_does_not_matter(estimate, assembly, rng):
    shuffled = assembly.isel(presentation=rng.permutation(30))

    np.testing.assert_allclose(numbers(estimate(shuffled)), numbers(estimate(assembly)), rtol=1e-10)


@every_estimate
def test_images_may_lack_the_value_of_a_coordinate(estimate, assembly):
    """Two of the images, such as those of unknown origin. Their other coordinates tell them apart."""
    extra = np.repeat(np.arange(10.0), 3)
    extra[3:9] = np.nan

    result = estimate(assembly.assign_coords(coco_id=("presentation", extra)))

    np.testing.assert_allclose(numbers(result), numbers(estimate(assembly)), rtol=1e-10)


def numbers(result):
    """Return the numbers of a score, an array or a table."""
    values = result.select_dtypes("number") if hasattr(result, "select_dtypes") else result
    return np.asarray(values, dtype=float)


@every_bootstrap
@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"n_bootstraps": 1}, "n_bootstraps is 1, expected 2 or more"),
        ({"confidence": 0}, "confidence is 0, expected a fraction between 0 and 1"),
        ({"confidence": 1}, "confidence is 1, expected a fraction between 0 and 1"),
    ],
)
def test_impossible_bootstrap_is_refused(estimate, assembly, parameters, reason):
    with pytest.raises(ValueError, match=reason):
        estimate(assembly, **parameters)


@every_bootstrap
def test_smallest_bootstrap_gives_an_interval(estimate, assembly):
    assert estimate(assembly, n_bootstraps=2)["lower"].notna().all()
