"""What all estimates from repetitions have in common: the assemblies that they take, and those that they refuse."""

import re
import tracemalloc

import numpy as np
import pytest
import xarray as xr

from analysis.repeated import make_assembly
from brainscore_allen2022_surface.analysis.ceiling import internal_consistency
from brainscore_allen2022_surface.analysis.correlations import repetition_correlations
from brainscore_allen2022_surface.analysis.noise_ceilings import ceiling_intervals, repetition_noise_ceilings
from brainscore_allen2022_surface.loaders import load_assembly

ESTIMATES = [internal_consistency, repetition_noise_ceilings, repetition_correlations, ceiling_intervals]

every_estimate = pytest.mark.parametrize("estimate", ESTIMATES, ids=lambda function: function.__name__)


@pytest.fixture
def assembly(rng) -> xr.DataArray:
    """Ten images with three repetitions each, which follow each other."""
    return make_assembly(5 * rng.standard_normal((10, 1, 4)) + rng.standard_normal((10, 3, 4)))


def numbers(result):
    """Return the numbers of a score with those of its neuroids, an array or a table."""
    values = result.select_dtypes("number") if hasattr(result, "select_dtypes") else result
    return np.append(getattr(result, "raw", []), np.asarray(values, dtype=float))


MISSING = "presentations with repetition 1 and the same coordinates, expected 1. Select whole images"
REFUSED = {
    "one repetition": (lambda a: a[::3], "has 1 repetitions of 10 images, expected 2 or more of each. Select more"),
    "one image": (lambda a: a[:3], "has 3 repetitions of 1 images, expected 2 or more of each. Select more"),
    "a missing repetition": (lambda a: a[np.delete(range(30), 13)], f"Image nsd_00004 has 0 {MISSING}"),
    "two missing repetitions": (lambda a: a[np.delete(range(30), [13, 14])], f"Image nsd_00004 has 0 {MISSING}"),
    "a repetition twice": (lambda a: a[[*range(30), 7]], f"Image nsd_00002 has 2 {MISSING}"),
    "no coordinate": (lambda a: a.drop_vars("repetition"), "no coordinate repetition, so it has no repetitions to"),
    "two time bins": (lambda a: a.expand_dims(time_bin=2), "expected presentation, neuroid and at most one time_bin"),
    "one neuroid": (lambda a: a[:, 0], "expected presentation, neuroid"),
}


@every_estimate
@pytest.mark.parametrize(("change", "reason"), REFUSED.values(), ids=REFUSED)
def test_incomplete_assembly_is_refused(estimate, assembly, change, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        estimate(change(assembly))


@every_estimate
@pytest.mark.parametrize(
    "rows", [slice(0, 6), np.delete(np.arange(30), slice(0, None, 3))], ids=["images", "repetitions"]
)
def test_two_images_or_two_repetitions_are_enough(estimate, assembly, rows):
    assert np.isfinite(numbers(estimate(assembly.isel(presentation=rows)))).any()


@every_estimate
def test_order_and_further_coordinates_of_presentations_do_not_matter(estimate, assembly, rng):
    """Two images lack the value of a coordinate, such as those of unknown origin. Others tell them apart."""
    extra = np.repeat(np.arange(10.0), 3)
    extra[3:9] = np.nan
    expected = numbers(estimate(assembly))

    for same in (
        assembly.isel(presentation=rng.permutation(30)),
        assembly.transpose("neuroid", "presentation"),
        assembly.assign_coords(coco_id=("presentation", extra)),
    ):
        np.testing.assert_allclose(numbers(estimate(same)), expected, rtol=1e-10)


@every_estimate
def test_lazy_assembly_with_a_time_bin_gives_the_same_numbers(estimate, release, monkeypatch):
    assembly = load_assembly("Allen2022_fmri_surface", "test", "V4", source=release)
    monkeypatch.setenv("BRAINIO_CHUNKS", "{'presentation': 50, 'neuroid': 100}")
    lazy = load_assembly("Allen2022_fmri_surface", "test", "V4", source=release)
    assert lazy.chunks is not None

    np.testing.assert_array_equal(numbers(estimate(lazy)), numbers(estimate(assembly.isel(time_bin=0))))


@pytest.mark.parametrize("estimate", ESTIMATES[:2], ids=lambda function: function.__name__)
def test_many_neuroids_take_less_memory_than_the_assembly_and_keep_their_values(estimate, rng):
    assembly = make_assembly(rng.standard_normal((309, 60_000), dtype=np.float32))
    tracemalloc.start()
    try:
        result = estimate(assembly)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < assembly.nbytes  # in addition to the assembly
    for some in (slice(0, 3), slice(20_470, 20_490), slice(59_990, 60_000)):  # neuroids are computed in blocks
        of_neuroids, alone = (
            getattr(r, "raw", r)[..., s] for r, s in ((result, some), (estimate(assembly[:, some]), slice(None)))
        )
        np.testing.assert_allclose(of_neuroids, alone, atol=1e-6)
