"""Each damage is named by a recomputation from the raw files, and by a comparison with the undamaged release."""

import json

import pytest

from verify.damages import DAMAGES


@pytest.fixture(params=DAMAGES, ids=lambda damage: damage.__name__)
def damaged(request, release_copy):
    """A damaged release, and the texts that a report of the damage must hold."""
    return release_copy, request.param(release_copy)


def test_recomputation_names_the_location_of_a_damage(damaged, nsd_tree, run_verify):
    release, texts = damaged

    result = run_verify(release, "--nsd-root", nsd_tree, "--all")

    assert result.status == 1
    for text in texts:
        assert any(text in problem for problem in result.problems), (text, result.problems)
    assert json.loads((release / "verify.json").read_text())["nsd_root"]["problems"]


def test_comparison_names_the_location_of_a_damage(damaged, release, run_verify):
    damaged_release, texts = damaged

    result = run_verify(damaged_release, "--against", release)

    assert result.status == 1
    for text in texts:
        assert any(text in problem for problem in result.problems), (text, result.problems)
    findings = json.loads((damaged_release / "verify.json").read_text())["against"][str(release)]
    assert findings["verdict"] == "different"
    assert findings["differences"]
