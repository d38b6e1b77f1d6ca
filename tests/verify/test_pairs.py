"""Rows of two assemblies are paired by what identifies them, and their coordinates are compared in pairs."""

import numpy as np
import pandas as pd
import pytest

from allen2022_surface_packaging.verify.pairs import compare_columns, compare_coordinates, find_pairs

HERE = {"stimulus_id": ["a", "b", "c"], "nsd_id": [1, 2, 3]}


def pair(dimension, here, there):
    return find_pairs(dimension, pd.DataFrame(here), pd.DataFrame(there))


def list_pairs(dimension, here, there) -> list[tuple[int, int]]:
    pairs = pair(dimension, here, there)
    return list(zip(pairs.rows_here.tolist(), pairs.rows_there.tolist(), strict=True))


def describe(dimension, here, there) -> list[str]:
    return [str(difference) for difference in compare_coordinates("test", pair(dimension, here, there))]


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        ({"stimulus_id": ["c", "a"], "nsd_id": [3, 1]}, [(0, 1), (2, 0)]),
        ({"stimulus_id": ["x", "y", "a"], "nsd_id": [2, 3, 1]}, [(0, 2), (1, 0), (2, 1)]),  # the numbers are right
        ({"stimulus_id": ["a", "b", "x"], "nsd_id": [9, 2, 3]}, [(0, 0), (1, 1)]),  # both are as good
        ({"stimulus_id": ["a", "a", "b"], "nsd_id": [3, 2, 1]}, [(0, 2), (1, 1), (2, 0)]),  # the ids are not unique
        ({"nsd_id": [2, 1, 3]}, [(0, 1), (1, 0), (2, 2)]),
        ({"other": [2, 1]}, [(0, 0), (1, 1)]),
        ({"other": [2, 1, 0, 5]}, [(0, 0), (1, 1), (2, 2)]),
    ],
)
def test_presentations_are_paired_by_the_key_that_leaves_the_fewest_alone(there, expected):
    assert list_pairs("presentation", HERE, there) == expected


def test_presentations_with_the_same_key_are_paired_by_their_numbers():
    for here, there in ((["a", "a"], ["b", "a"]), (["b", "a"], ["a", "a"])):
        assert list_pairs("presentation", {"stimulus_id": here}, {"stimulus_id": there}) == [(0, 0), (1, 1)]


def test_repetitions_of_one_image_are_different_presentations():
    here, there = {"stimulus_id": ["a", "a"], "repetition": [0, 1]}, {"stimulus_id": ["a", "a"], "repetition": [1, 0]}

    assert list_pairs("presentation", here, there) == [(0, 1), (1, 0)]


def test_rows_of_one_side_only_are_counted_and_the_first_is_named():
    assert describe("presentation", HERE, {"stimulus_id": ["d", "a", "e", "f"], "nsd_id": [7, 1, 8, 9]}) == [
        "test presentations only here: 2 of 3 differ. b.",
        "test presentations only there: 3 of 4 differ. d.",
    ]


def test_first_row_out_of_order_is_named():
    ids = ["a", "b", "c", "d"]

    assert describe("neuroid", {"neuroid_id": ids}, {"neuroid_id": ["a", "c", "d", "b"]}) == [
        "test order of neuroids: 3 of 4 differ. b is number 1 here, 3 there."
    ]
    assert describe("neuroid", {"neuroid_id": ids}, {"neuroid_id": ["x", *ids]}) == [
        "test neuroids only there: 1 of 5 differ. x."
    ]


def test_coordinate_of_one_side_only_is_named():
    assert describe("time_bin", {"start": [70]}, {"end": [170]}) == [
        "test coordinate start: 1 of 1 differ. only here.",
        "test coordinate end: 1 of 1 differ. only there.",
    ]


def test_coordinates_are_compared_between_partners():
    here = {"neuroid_id": ["a", "b"], "vertex_index": [5, 6]}

    assert describe("neuroid", here, {"neuroid_id": ["b", "a"], "vertex_index": [6, 7]}) == [
        "test order of neuroids: 2 of 2 differ. a is number 0 here, 1 there.",
        "test coordinate vertex_index: 1 of 2 differ. a: 5 here, 7 there.",
    ]


@pytest.mark.parametrize(
    ("here", "there", "n_differing", "n_beyond", "description", "largest"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.1, 3.5], 2, 2, "c: 3.0 here, 3.5 there", 0.5),
        ([0.0, 0.0, 0.0], [1e-5, 1e-6, 0.0], 2, 0, "a: 0.0 here, 1e-05 there", 1e-5),
        ([1.0, np.nan, np.nan], [3.0, 2.0, np.nan], 2, 2, "b: nan here, 2.0 there", np.inf),
        ([1, 2, 2**53], [1, 2, 2**53 - 1], 1, 1, f"c: {2**53} here, {2**53 - 1} there", 1.0),
        ([1, 2, 2**53 - 1], [1, 2, 2**53], 1, 1, f"c: {2**53 - 1} here, {2**53} there", 1.0),
        (["x", "y", "z"], ["x", "u", "v"], 2, 2, "b: y here, u there", None),
        ([1, 2, 3], ["1", "2", "3"], 3, 3, "a: 1 here, 1 there", None),
    ],
)
def test_columns_differ_by_their_largest_difference_or_the_first(
    here, there, n_differing, n_beyond, description, largest
):
    columns = (np.array(column, dtype=object if isinstance(column[0], str) else None) for column in (here, there))

    (difference,) = compare_columns("test", "coordinate x", *columns, row_names=["a", "b", "c"])

    assert (difference.n_differing, difference.n_beyond, difference.n_compared) == (n_differing, n_beyond, 3)
    assert (difference.description, difference.largest) == (description, largest)
    assert compare_columns("test", "coordinate x", np.array(here), np.array(here), row_names=["a", "b", "c"]) == []
