"""Copies of neuroids: those that are planted, and no others."""

import numpy as np
import pytest

from analysis.repeated import make_assembly
from brainscore_allen2022_surface.analysis.copies import find_copies


@pytest.fixture
def planted(rng):
    """Twelve neuroids of two subjects: 4 and 10 copy 1, 9 copies 6; 2 and 3 are zero, and 5 is NaN, like 11."""
    values = rng.standard_normal((30, 12)).astype(np.float32)
    values[:, [4, 8, 10]] = values[:, [1]]  # 8 is of the other subject
    values[:, 9] = values[:, 6]
    values[:, [2, 3]], values[:, [5, 11]] = 0, np.nan
    return make_assembly(values, subject=["subj01"] * 6 + ["subj02"] * 3 + ["subj02", "subj01", "subj01"])


FIRSTS = [0, 1, 2, 3, 1, 5, 6, 7, 8, 6, 1, 11]


@pytest.mark.parametrize(
    "make", [lambda a: a, lambda a: a.expand_dims(time_bin=1, axis=2), lambda a: a.chunk(), lambda a: a.T]
)
def test_planted_copies_are_found_in_any_form(planted, make):
    assert find_copies(make(planted)).tolist() == FIRSTS


def test_nearly_equal_neuroids_are_no_copies(planted):
    planted[7, 4] = np.nextafter(planted.values[7, 4], np.float32(9))

    assert find_copies(planted)[4] == 4


def test_copies_are_found_among_more_neuroids_than_are_read_at_once(rng):
    values = rng.standard_normal((6, 40_000), dtype=np.float32)
    values[:, 39_999] = values[:, 1]

    assert np.flatnonzero(find_copies(make_assembly(values)) != np.arange(40_000)).tolist() == [39_999]


def test_assembly_without_subjects_is_refused(planted):
    with pytest.raises(ValueError, match="no neuroid coordinate subject"):
        find_copies(planted.drop_vars("subject"))
