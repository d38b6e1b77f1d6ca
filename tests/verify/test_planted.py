"""Everything in a release is checked, or said not to be: each planted error is found by the form of `verify` that can."""

import shutil
from pathlib import Path

import pytest

from allen2022_surface_packaging.build.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.simulation import simulate_tree
from allen2022_surface_packaging.nsd.size import TreeSize
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.verify.recomputation import recompute_release
from allen2022_surface_packaging.verify.soundness import verify_release
from verify.planted import ALL, FOUND_BY, NAME, NOTHING, RAW_FILES, RELEASE


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A synthetic tree of two subjects, as small as can be with all regions and with vertices that are NaN."""
    root = tmp_path_factory.mktemp("planted") / "nsd"
    simulate_tree(root, TreeSize(subjects=(1, 2), n_trials=60, image_size=8, betas=(DEFAULT_BETAS,)))
    return root


@pytest.fixture(scope="module")
def sound(tree, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "release"
    build_release(tree, path, make_recipe((1, 2), name=NAME))
    return path


def find(release: Path, tree: Path, form: str) -> list[str]:
    """Return the problems that a form of `verify` finds, or the error with which it refuses the release."""
    try:
        if form == RELEASE:
            return verify_release(release)
        return recompute_release(release, tree, every_vertex=form == ALL).problems
    except PackagingError as error:
        return [str(error)]


def test_sound_release_has_no_problem(sound, tree):
    assert [find(sound, tree, form) for form in (RELEASE, RAW_FILES, ALL)] == [[], [], []]


@pytest.mark.parametrize("error", FOUND_BY)
def test_planted_error_is_found(sound, tree, tmp_path, error):
    plant, found_by = FOUND_BY[error]
    release = Path(shutil.copytree(sound, tmp_path / "release"))
    plant(release)

    if found_by == RELEASE:
        problems = find(release, tree, RELEASE)
    else:  # that fewer raw files cannot show it is what `verify` says
        forms = (RELEASE, RAW_FILES, ALL)
        earlier = forms if found_by == NOTHING else forms[: forms.index(found_by)]
        assert [find(release, tree, form) for form in earlier] == [[] for _ in earlier]
        problems = [] if found_by == NOTHING else find(release, tree, found_by)

    assert bool(problems) is (found_by != NOTHING)
    assert not any("\n" in problem for problem in problems)
