import numpy as np
import pandas as pd
import pytest

from allen2022_surface_packaging.verify.differences import (
    CellDifferences,
    Difference,
    compare_cells,
    first_difference,
    list_some,
    merge_cells,
    name_rows,
)

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


@pytest.mark.parametrize(
    ("value", "difference", "n_beyond"),
    [
        *((0.0, 1.0e-5, 0), (0.0, 1.1e-5, 1), (-60.0, 0.9e-5, 0), (60.0, 1.1e-5, 1)),
        *((1674.0, 2 * 2**-13, 0), (-1674.0, 2 * 2**-13, 0), (1674.0, 3 * 2**-13, 1), (-1674.0, -3 * 2**-13, 1)),
        *((1e300, 1e299, 1), (np.inf, -np.inf, 1), (np.nan, 1.0, 1)),
    ],
)
def test_difference_of_two_steps_of_single_precision_is_allowed(value, difference, n_beyond):
    """A step is 2**-13 between 1024 and 2048."""
    expected = np.array([[value]])

    cells = compare_cells(
        expected + difference,
        expected,
        differing=np.array([[True]]),
        presentations=PRESENTATIONS[:1],
        neuroids=NEUROIDS[:1],
    )

    assert cells.n_beyond == n_beyond


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


def test_largest_difference_is_described_with_both_values():
    expected = np.zeros((6, 10))
    expected[4, 3] = 2
    actual = expected.copy()
    actual[4, 3], actual[4, 8] = 5, 1

    for cells in (compare(actual, expected), merge_cells([compare(actual, expected)])):
        assert cells == CellDifferences(
            n_cells=60,
            n_differing=2,
            n_beyond=2,
            largest=3.0,
            location="image 4, neuroid 3",
            actual=5.0,
            expected=2.0,
            presentations=frozenset({"image 4"}),
            neuroids=frozenset({"neuroid 3", "neuroid 8"}),
        )
        assert cells.describe_extent() == "in 2 neuroids (neuroid 3, neuroid 8) and 1 presentation (image 4)"


def test_difference_of_exactly_the_tolerance_is_allowed():
    expected = np.zeros((6, 10))
    actual = expected.copy()
    actual[0, 0], actual[0, 1] = 1e-5, 1.1e-5

    assert (compare(actual, expected).n_differing, compare(actual, expected).n_beyond) == (2, 1)


def test_cells_are_compared_in_double_precision():
    expected = np.ones((6, 10))
    cells = compare(expected + 1e-9, expected)

    assert cells.largest == pytest.approx(1e-9, rel=1e-6)
    assert (cells.actual, cells.expected) == (1 + 1e-9, 1)
    assert compare(expected, expected + 1e-9).largest == pytest.approx(1e-9, rel=1e-6)


def test_block_without_neuroids_has_no_differences():
    nothing = compare(np.empty((6, 10)), np.empty((6, 10)), slice(0, 0))

    for cells in (nothing, merge_cells([nothing]), merge_cells([])):
        assert (cells.n_cells, cells.n_differing, cells.n_beyond, cells.largest) == (0, 0, 0, 0)


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


@pytest.mark.parametrize(
    ("actual", "expected", "is_rounding"),
    [(1e6 + 0.5, 1e6, True), (1e6 + 5, 1e6, False), (5e-10, 0.0, True), (5e-9, 0.0, False), (np.nan, 0.0, False)],
)
def test_only_tiny_differences_of_coordinates_count_as_rounding(actual, expected, is_rounding):
    problems = first_difference("ceiling", np.array([actual]), np.array([expected]), may_round=True)

    assert (problems == []) is is_rounding


def test_texts_and_whole_numbers_are_never_rounded():
    texts, numbers = np.array(["a", "b"], dtype=object), np.array([10**9, 10**9 + 1])

    assert first_difference("name", texts, texts, may_round=True) == []
    assert len(first_difference("number", numbers, numbers[::-1], may_round=True)) == 1


@pytest.mark.parametrize(
    ("columns", "names"),
    [
        ({"stimulus_id": ["x", "y"], "repetition": [0, 1], "neuroid_id": ["a", "b"]}, ["a", "b"]),
        ({"stimulus_id": ["x", "x"], "repetition": [0, 1]}, ["x repetition 0", "x repetition 1"]),
        ({"stimulus_id": ["x", "y"], "nsd_id": [5, 6]}, ["x", "y"]),
        ({"repetition": [0, 1]}, ["number 0", "number 1"]),
        ({"time_bin_start": [70]}, ["number 0"]),
    ],
)
def test_rows_are_named_by_what_identifies_them(columns, names):
    assert name_rows(pd.DataFrame(columns)) == names


def test_difference_is_a_line_and_a_row():
    difference = Difference("test", "values of subj01 V1", 3000, 2000, 4000, "a: 1 here, 2 there", 1.0)

    assert str(difference) == "test values of subj01 V1: 2,000 of 4,000 differ. a: 1 here, 2 there."
    assert difference.row() == {
        "split": "test",
        "what": "values of subj01 V1",
        "differ": 3000,
        "beyond tolerance": 2000,
        "of": 4000,
        "largest": 1.0,
        "where": "a: 1 here, 2 there",
    }


def test_long_lists_of_names_are_cut():
    assert list_some({"c", "a", "b"}, "neuroid") == "3 neuroids (a, b, c)"
    assert list_some({"b"}, "neuroid") == "1 neuroid (b)"
    assert list_some({"d", "b", "a", "c"}, "neuroid") == "4 neuroids (a, b, c, ...)"
