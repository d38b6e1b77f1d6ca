"""Everything in a release is checked, or said not to be: each planted error is found by the form of `verify` that can."""

from pathlib import Path

import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.verify.comparison import compare_release
from allen2022_surface_packaging.verify.recomputation import recompute_release
from allen2022_surface_packaging.verify.soundness import verify_release
from support import run_cli
from verify.planted import (
    ALL,
    CHANGE_ONE_BIT,
    NOTHING,
    OF_ASSEMBLIES_AND_IMAGES,
    PLAIN,
    PLANTED,
    SAMPLE,
    TEST,
    TEST_TABLE,
)

FORMS = (PLAIN, SAMPLE, ALL)


def find(release: Path, tree: Path, form: str) -> list[str]:
    """Return the problems that a form of `verify` finds, or the error with which it refuses the release."""
    try:
        if form == PLAIN:
            return verify_release(release)
        return recompute_release(release, tree, every_vertex=form == ALL).problems
    except PackagingError as error:
        return [str(error)]


def differs(release: Path, other: Path) -> bool:
    try:
        return bool(compare_release(release, str(other)))
    except PackagingError:
        return True


def test_sound_release_has_no_problem(tiny_release, tiny_tree):
    assert [find(tiny_release, tiny_tree, form) for form in FORMS] == [[], [], []]
    assert not differs(tiny_release, tiny_release)


@pytest.mark.parametrize("name", PLANTED)
def test_planted_error_is_found(tiny_copy, tiny_release, tiny_tree, name):
    found_by, plant = PLANTED[name]
    plant(tiny_copy)

    n_silent = len(FORMS) if found_by == NOTHING else FORMS.index(found_by)
    for form in FORMS[:n_silent]:  # that these cannot show it is what `verify` says
        assert find(tiny_copy, tiny_tree, form) == []
    for form in FORMS[n_silent : n_silent + 1]:
        problems = find(tiny_copy, tiny_tree, form)
        assert problems
        assert not any("\n" in problem for problem in problems)
    if name in OF_ASSEMBLIES_AND_IMAGES:
        assert differs(tiny_copy, tiny_release)


@pytest.mark.parametrize("name", ["release.json", TEST, TEST_TABLE, "stimuli_test/"])
@pytest.mark.parametrize("damage", ["cut", "overwritten", "empty", "missing"])
def test_damaged_file_is_one_line_that_names_it(tiny_copy, name, damage):
    path = min((tiny_copy / name).iterdir()) if name.endswith("/") else tiny_copy / name
    content = path.read_bytes()
    path.write_bytes({"cut": content[: len(content) // 2], "empty": b""}.get(damage, bytes(len(content))))
    if damage == "missing":
        path.unlink()

    result = run_cli("verify", tiny_copy)

    assert result.returncode == 1
    lines = [line for line in result.stdout.splitlines() if line.startswith("problem: ")] or result.stderr.splitlines()
    assert len(lines) == 1
    assert path.name in lines[0]


def test_hash_that_does_not_agree_is_found_without_the_raw_files(tiny_copy, tiny_release):
    CHANGE_ONE_BIT(tiny_copy)
    (tiny_copy / "release.json").write_bytes((tiny_release / "release.json").read_bytes())

    (problem,) = verify_release(tiny_copy)
    assert problem.startswith(f"{tiny_copy / TEST} has the SHA-1 ")
