"""Everything in a release is checked, or said not to be: each planted error is found by the form of `verify` that can."""

import pytest

from support import Result, run_cli
from verify.planted import ALL, NOTHING, OF_ASSEMBLIES_AND_IMAGES, PLAIN, PLANTED, SAMPLE, TEST, TEST_TABLE

OPTIONS = {PLAIN: [], SAMPLE: ["--nsd-root", "TREE"], ALL: ["--nsd-root", "TREE", "--all"]}


def run(release, tree, form, *options) -> Result:
    return run_cli("verify", release, *(tree if option == "TREE" else option for option in OPTIONS[form]), *options)


def test_sound_release_has_no_problem(tiny_copy, tiny_release, tiny_tree):
    assert [run(tiny_copy, tiny_tree, form).returncode for form in OPTIONS] == [0, 0, 0]
    result = run(tiny_copy, tiny_tree, PLAIN, "--against", tiny_release)
    assert result.returncode == 0
    assert f"{tiny_copy} is the same as {tiny_release}: identical" in result.stdout.splitlines()


@pytest.mark.parametrize("name", PLANTED)
def test_planted_error_is_found(tiny_copy, tiny_release, tiny_tree, name):
    found_by, plant = PLANTED[name]
    plant(tiny_copy)

    for form in OPTIONS:
        if form == found_by:
            break
        # That these forms cannot show it is what they say.
        assert run(tiny_copy, tiny_tree, form).returncode == 0
    if found_by == NOTHING:
        return
    result = run(tiny_copy, tiny_tree, found_by)
    assert result.returncode == 1
    assert "problem: " in result.stdout or result.stderr.count("\n") == 1
    # Every question has its answer, whatever the error.
    result = run(tiny_copy, tiny_tree, SAMPLE, "--against", tiny_release)
    assert found_by == ALL or result.returncode == 1
    if name in OF_ASSEMBLIES_AND_IMAGES:
        assert f"differs from {tiny_release}" in result.stderr or f"not compared with {tiny_release}" in result.stderr


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
