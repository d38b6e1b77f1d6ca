"""Everything in a release is checked, or said not to be: each planted error is found by the form of `verify` that can."""

import pytest

from support import find_differences, run_cli
from verify.planted import ALL, NOTHING, OF_ASSEMBLIES_AND_IMAGES, PLAIN, PLANTED, SAMPLE, TEST, TEST_TABLE


def test_sound_release_has_no_problem(tiny_copy, tiny_release, tiny_tree):
    result = run_cli("verify", tiny_copy, "--nsd-root", tiny_tree, "--against", tiny_release)

    assert result.returncode == 0
    assert f"{tiny_copy} is the same as {tiny_release}: identical" in result.stdout.splitlines()
    assert find_differences(tiny_copy, tiny_tree) == []


@pytest.mark.parametrize("name", PLANTED)
def test_planted_error_is_found(tiny_copy, tiny_release, tiny_tree, name):
    found_by, plant = PLANTED[name]
    plant(tiny_copy)

    result = run_cli("verify", tiny_copy, "--nsd-root", tiny_tree, "--against", tiny_release)

    assert result.returncode == int(found_by != NOTHING)
    if not result.stdout:  # the manifest contradicts itself
        assert (found_by, result.stderr.count("\n")) == (PLAIN, 1)
        return
    # Every question has its answer, whatever the error. That a form cannot show an error is what it says.
    of_release, of_raw_files, of_other, *_ = result.stdout.splitlines()
    assert ("is not sound" in of_release) == (found_by == PLAIN)
    if found_by != PLAIN:
        assert (f"is what {tiny_tree} gives" not in of_raw_files) == (found_by == SAMPLE)
    if found_by == ALL:
        assert len(find_differences(tiny_copy, tiny_tree)) > 0
    if name in OF_ASSEMBLIES_AND_IMAGES:
        assert f"differs from {tiny_release}" in of_other or f"not compared with {tiny_release}" in of_other


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
