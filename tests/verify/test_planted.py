"""Everything in a release is checked, or said not to be: each planted error is found by the form of `verify` that can."""

from pathlib import Path

import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.verify.recomputation import recompute_release
from allen2022_surface_packaging.verify.soundness import verify_release
from verify.planted import ALL, FOUND_BY, NOTHING, RAW_FILES, RELEASE


def find(release: Path, tree: Path, form: str) -> list[str]:
    """Return the problems that a form of `verify` finds, or the error with which it refuses the release."""
    try:
        if form == RELEASE:
            return verify_release(release)
        return recompute_release(release, tree, every_vertex=form == ALL).problems
    except PackagingError as error:
        return [str(error)]


def test_sound_release_has_no_problem(tiny_release, tiny_tree):
    assert [find(tiny_release, tiny_tree, form) for form in (RELEASE, RAW_FILES, ALL)] == [[], [], []]


@pytest.mark.parametrize("error", FOUND_BY)
def test_planted_error_is_found(tiny_copy, tiny_tree, error):
    plant, found_by = FOUND_BY[error]
    plant(tiny_copy)

    if found_by == RELEASE:
        problems = find(tiny_copy, tiny_tree, RELEASE)
    else:  # that fewer raw files cannot show it is what `verify` says
        forms = (RELEASE, RAW_FILES, ALL)
        earlier = forms if found_by == NOTHING else forms[: forms.index(found_by)]
        assert [find(tiny_copy, tiny_tree, form) for form in earlier] == [[] for _ in earlier]
        problems = [] if found_by == NOTHING else find(tiny_copy, tiny_tree, found_by)

    assert bool(problems) is (found_by != NOTHING)
    assert not any("\n" in problem for problem in problems)
