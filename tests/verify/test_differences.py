import numpy as np
import pytest

from allen2022_surface_packaging.verify.differences import compare_cells, first_difference, list_some, merge_cells

PRESENTATIONS = [f"image {row}" for row in range(6)]
NEUROIDS = [f"neuroid {column}" for column in range(10)]


def compare(actual, expected, columns=slice(None)):
    actual, expected = actual[:, columns], expected[:, columns]
    differing = actual != expected
    names = NEUROIDS[columns]
    return compare_cells(actual, expected, differing=differing, presentations=PRESENTATIONS, neuroids=names)


@pytest.mark.parametrize("size", [1e-3, 1e-8])
def test_merged_blocks_equal_the_comparison_of_the_whole(rng, size):
    expected = rng.standard_normal((6, 10))
    actual = expected + size * rng.random((6, 10)) * (rng.random((6, 10)) < 0.3)

    merged = merge_cells([compare(actual, expected, slice(0, 4)), compare(actual, expected, slice(4, 10))])

    assert merged == compare(actual, expected)
    assert merged.n_differing > 0


def test_neuroids_that_round_differently_are_not_listed_beside_real_differences():
    expected = np.ones((6, 10))
    actual = expected.copy()
    actual[:, 2] += 1e-7
    actual[3, 7] += 1

    for columns in (slice(None), slice(2, 8)):
        assert compare(actual, expected, columns).neuroids == {"neuroid 7"}
    parts = merge_cells([compare(actual, expected, slice(0, 5)), compare(actual, expected, slice(5, 10))])
    assert parts.neuroids == {"neuroid 7"}
    assert (parts.n_differing, parts.n_beyond, parts.location) == (7, 1, "image 3, neuroid 7")


def test_nan_on_one_side_is_the_largest_difference():
    expected = np.zeros((6, 10))
    actual = expected.copy()
    actual[1, 1], actual[2, 3] = 100, np.nan

    assert compare(actual, expected).largest == np.inf
    assert compare(actual, expected).location == "image 2, neuroid 3"


def test_block_without_neuroids_has_no_differences():
    nothing = compare(np.empty((6, 10)), np.empty((6, 10)), slice(0, 0))

    assert merge_cells([nothing]).n_cells == 0
    assert merge_cells([]).n_cells == 0


def test_first_difference_is_described_with_the_number_of_all():
    actual, expected = np.array(["a", "b", "c"]), np.array(["a", "x", "y"], dtype=object)

    assert first_difference("name of row", actual, expected) == [
        "name of row 1 is b, expected x (2 of 3 differ).",
    ]
    assert first_difference("name of row", actual, actual) == []
    assert first_difference("name of row", actual, expected[:2]) == ["name of row: 3 values, expected 2."]


def test_rounding_counts_as_a_difference_unless_it_is_allowed():
    actual, expected = np.array([1.0, np.nan]), np.array([1.0 + 1e-12, np.nan])

    assert first_difference("ceiling", actual, expected, may_round=True) == []
    assert len(first_difference("ceiling", actual, expected)) == 1


def test_long_lists_of_names_are_cut():
    assert list_some({"b"}, "neuroid") == "1 neuroid (b)"
    assert list_some({"d", "b", "a", "c"}, "neuroid") == "4 neuroids (a, b, c, ...)"
