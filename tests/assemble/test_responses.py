"""The arithmetic of responses, compared with plain loops over Python's own numbers."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from allen2022_surface_packaging.assemble.responses import (
    METHOD_VERSION,
    average_repetitions,
    standardise_images,
    standardise_session,
)

ALL = slice(None)


def floats(limit, **options):
    return st.floats(-limit, limit, width=32, allow_subnormal=False, **options)


BETAS = st.one_of(floats(2**14), st.sampled_from([np.nan, np.inf, -np.inf, 0.0]))


def standardise_blocks(betas, vertices=ALL, trials=ALL, n_block=7):
    betas = np.asarray(betas)
    blocks = [betas[start : start + n_block].astype(">f4") for start in range(0, len(betas), n_block)]
    vertices, trials = np.arange(betas.shape[1])[vertices], np.arange(len(betas))[trials]
    return standardise_session(iter(blocks), vertices=vertices, kept_trials=trials)


def standardise_plainly(betas):
    betas = betas.astype(np.float32).astype(np.float64)
    deviation = betas.std(axis=0)
    return (betas - betas.mean(axis=0)) / np.where(deviation == 0, 1, deviation)


def test_session_offsets_and_gains_are_removed(rng):
    signal = rng.standard_normal((60, 5))

    np.testing.assert_allclose(standardise_blocks(3 * signal + 10), standardise_blocks(signal), atol=1e-5)


@pytest.mark.parametrize("offset", [1e3, 1e4])
def test_accuracy_is_kept_when_the_offset_is_large(rng, offset):
    betas = (rng.standard_normal((750, 20)) + offset).astype(np.float32)

    np.testing.assert_allclose(standardise_blocks(betas, n_block=64), standardise_plainly(betas), rtol=0, atol=1e-6)


def test_bytes_are_the_same_for_either_byte_order(rng):
    betas = rng.standard_normal((60, 5)).astype(np.float32)
    native = standardise_session(iter([betas]), vertices=np.arange(5), kept_trials=np.arange(60))

    assert native.tobytes() == standardise_blocks(betas).tobytes()


@pytest.mark.parametrize("value", [0.0, 0.1, -273.15, 1e30])
def test_constant_vertex_is_exactly_zero(rng, value):
    betas = rng.standard_normal((750, 3))
    betas[:, 1] = value

    assert (standardise_blocks(betas)[:, 1] == 0).all()


def test_arithmetic_is_the_one_of_its_method_version(rng):
    """If the bytes change, raise METHOD_VERSION. Otherwise old cache entries would be mixed with new ones."""
    betas = rng.integers(-1000, 1000, (30, 200)) / 64
    digest = hashlib.sha1(standardise_blocks(betas).tobytes()).hexdigest()

    assert (METHOD_VERSION, digest[:12]) == (1, "bdab69f17986")


def plain_moments(values):
    """Return mean and population standard deviation of some numbers; a deviation of 0 is replaced by 1."""
    mean = math.fsum(values) / len(values)
    if min(values) == max(values):
        return values[0], 1.0
    return mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))


@pytest.mark.filterwarnings("error::RuntimeWarning")  # NumPy's
@given(st.data())
def test_any_session_agrees_with_plain_arithmetic(data):
    betas = data.draw(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=9), elements=BETAS))
    kept = sorted(data.draw(st.sets(st.integers(0, len(betas) - 1), min_size=1)))
    vertices = sorted(data.draw(st.sets(st.integers(0, betas.shape[1] - 1), min_size=1)))
    result = standardise_blocks(betas, vertices, kept, n_block=data.draw(st.integers(1, 10)))

    assert result.dtype == np.float32
    assert result.shape == (len(kept), len(vertices))
    for column, vertex in enumerate(vertices):
        values = betas[:, vertex].tolist()
        if not all(map(math.isfinite, values)):
            assert np.isnan(result[:, column]).all()
            continue
        mean, deviation = plain_moments(values)
        expected = [(values[trial] - mean) / deviation for trial in kept]
        np.testing.assert_allclose(result[:, column], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("n_invalid", [0, 1, 2])
def test_averages_are_accumulated_in_double_precision(n_invalid):
    repetitions = [2**24, 1, 1, *[np.nan] * n_invalid]  # in single precision 2**24 + 1 is 2**24
    responses = np.array(repetitions, np.float32).reshape(1, -1, 1)

    assert average_repetitions(responses).tolist() == [[(2**24 + 2) / 3]]


def test_value_is_infinite_when_single_precision_cannot_hold_it():
    averages = np.array([[0, 1e-45], [0, 0], [0, 0]], np.float32)
    values = standardise_images(averages, np.full((1, 3, 2), 1e3, np.float32), train=np.arange(3))

    assert np.isinf(values["test"][:, 1]).all()
    assert (values["test"][:, 0] == 1e3).all()
