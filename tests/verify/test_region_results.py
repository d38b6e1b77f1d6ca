"""Recomputed values compared with those of a release: which neuroids, which blocks, and what is said of them."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import xarray

from allen2022_surface_packaging.verify import recomputation
from allen2022_surface_packaging.verify.differences import CellDifferences
from allen2022_surface_packaging.verify.recomputation import (
    N_SAMPLED,
    NOT_IN_RELEASE,
    _choose_neuroids,
    _compare_region,
    _compare_values,
    _list_blocks,
    _merge_results,
    _RegionResult,
)
from allen2022_surface_packaging.verify.values import RegionValues


def list_neuroids(n=20):
    """Two subjects, two hemispheres, two regions of n vertices each; no vertex twice in a hemisphere."""
    rows = [
        (f"{subject}_{hemisphere}_{region}_{vertex}", subject, region, hemisphere, vertex)
        for subject in ("subj01", "subj03")
        for region, first in (("V1", 0), ("IT", 100))
        for hemisphere in ("lh", "rh")
        for vertex in range(first, first + n)
    ]
    return pd.DataFrame(rows, columns=["neuroid_id", "subject", "region", "hemisphere", "vertex_index"])


def assembly_of(neuroids, values):
    return xarray.DataArray(
        values[:, :, None],
        dims=("presentation", "neuroid", "time_bin"),
        coords={"neuroid_id": ("neuroid", neuroids["neuroid_id"].to_numpy())},
    )


@pytest.fixture
def neuroids():
    return list_neuroids()


@pytest.fixture
def assemblies(neuroids, rng):
    """Without zeros."""
    return {
        split: assembly_of(neuroids, rng.uniform(1, 2, (n_rows, len(neuroids))))
        for split, n_rows in (("train", 4), ("test", 6))
    }


@pytest.fixture
def expected(neuroids):
    presentations = {
        "train": pd.DataFrame({"stimulus_id": [f"nsd_{i:05d}" for i in range(4)]}),
        "test": pd.DataFrame({"stimulus_id": ["nsd_00007"] * 3 + ["nsd_00009"] * 3, "repetition": [0, 1, 2] * 2}),
    }
    return SimpleNamespace(
        neuroids=neuroids,
        images=list(range(6)),
        presentations=presentations.__getitem__,
        manifest=SimpleNamespace(
            recipe=SimpleNamespace(nan_policy="zero", subjects=(1, 3)),
            regions=[SimpleNamespace(name="V1"), SimpleNamespace(name="IT")],
        ),
    )


# --- which neuroids ---------------------------------------------------------------------------------------------------


def test_all_neuroids_are_chosen_without_a_seed(expected, assemblies, neuroids):
    chosen = _choose_neuroids(expected, assemblies, None)

    assert chosen["neuroid_id"].tolist() == neuroids["neuroid_id"].tolist()
    assert chosen["column"].tolist() == list(range(len(neuroids)))


def test_sample_holds_five_of_each_group_and_all_with_a_zero(expected, assemblies, monkeypatch):
    monkeypatch.setattr(recomputation, "NEUROIDS_AT_A_TIME", 7)
    for split, row, column in (("train", 3, 0), ("train", 0, 100), ("test", 5, 159), ("test", 2, 51)):
        assemblies[split][row, column] = 0

    chosen = _choose_neuroids(expected, assemblies, 0)

    sizes = chosen.groupby(["subject", "region", "hemisphere"]).size()
    assert len(sizes) == 8
    assert (sizes >= N_SAMPLED).all() and sizes.sum() <= 8 * N_SAMPLED + 4
    assert {0, 51, 100, 159} <= set(chosen["column"])
    assert (chosen["neuroid_id"].to_numpy() == expected.neuroids["neuroid_id"].to_numpy()[chosen["column"]]).all()


def test_sample_depends_on_the_seed(expected, assemblies):
    first, again, other = (_choose_neuroids(expected, assemblies, seed)["column"].tolist() for seed in (4, 4, 5))

    assert first == again != other
    assert len(set(first)) == 8 * N_SAMPLED


def test_group_smaller_than_a_sample_is_taken_whole(expected, rng):
    expected.neuroids = list_neuroids(3)
    assemblies = {split: assembly_of(expected.neuroids, rng.uniform(1, 2, (2, 24))) for split in ("train", "test")}

    assert _choose_neuroids(expected, assemblies, 0)["column"].tolist() == list(range(24))


@pytest.mark.parametrize("seed", [None, 0])
def test_dropped_neuroids_are_always_chosen(expected, assemblies, neuroids, seed):
    dropped = neuroids["neuroid_id"].iloc[[3, 77]].tolist()
    kept = {split: assembly[:, ~assembly["neuroid_id"].isin(dropped)] for split, assembly in assemblies.items()}

    chosen = _choose_neuroids(expected, kept, seed)

    is_dropped = chosen["column"] == NOT_IN_RELEASE
    assert chosen["neuroid_id"][is_dropped].tolist() == dropped
    present = chosen[~is_dropped]
    assert (kept["test"]["neuroid_id"].values[present["column"]] == present["neuroid_id"]).all()


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_blocks_are_of_one_subject_and_hemisphere_and_of_few_vertices(neuroids):
    neuroids.loc[20:39, "vertex_index"] = range(20)  # a vertex of two regions is in one block
    blocks = _list_blocks(neuroids, 15)

    assert [(block.subject, block.hemisphere, len(block.vertices)) for block in blocks[:3]] == [
        ("subj01", "lh", 15),
        ("subj01", "lh", 15),
        ("subj01", "lh", 10),
    ]
    assert sum(len(block.neuroids) for block in blocks) == len(neuroids)
    for block in blocks:
        assert set(block.neuroids["subject"]) == {block.subject}
        assert set(block.neuroids["hemisphere"]) == {block.hemisphere}
    rows = pd.concat([block.neuroids for block in blocks])["neuroid_id"]
    assert sorted(rows) == sorted(neuroids["neuroid_id"])


@pytest.mark.parametrize(
    ("at_a_time", "n_responses", "n_blocks"), [(40, 10**6, 4), (10, 10**6, 16), (40, 3 * 6 * 20, 8)]
)
def test_blocks_bound_the_memory(expected, assemblies, monkeypatch, at_a_time, n_responses, n_blocks):
    monkeypatch.setattr(recomputation, "NEUROIDS_AT_A_TIME", at_a_time)
    monkeypatch.setattr(recomputation, "RESPONSES_AT_A_TIME", n_responses)
    blocks = []
    monkeypatch.setattr(recomputation, "recompute_values", lambda _, block: blocks.append(block) or [])
    neuroids = _choose_neuroids(expected, assemblies, None)

    assert _compare_values(expected, neuroids, assemblies) == []
    assert len(blocks) == n_blocks


def test_results_are_merged_by_subject_and_region_in_the_order_of_the_release(expected, assemblies, monkeypatch):
    def recompute(_, block):
        for region, rows in block.neuroids.groupby("region", sort=True):  # IT comes before V1
            columns = rows["column"].to_numpy()
            by_split = {split: assembly.values[:, columns, 0].copy() for split, assembly in assemblies.items()}
            yield RegionValues(block.subject, region, rows, by_split, np.zeros(len(rows), dtype=bool))

    monkeypatch.setattr(recomputation, "recompute_values", recompute)
    monkeypatch.setattr(recomputation, "NEUROIDS_AT_A_TIME", 9)

    results = _compare_values(expected, _choose_neuroids(expected, assemblies, None), assemblies)

    assert [(result.subject, result.region) for result in results] == [
        (subject, region) for subject in ("subj01", "subj03") for region in ("V1", "IT")
    ]
    assert [(result.n_neuroids, result.cells.n_cells) for result in results] == [(40, 400)] * 4
    assert [result.cells.n_differing for result in results] == [0] * 4


# --- comparison -------------------------------------------------------------------------------------------------------


@pytest.fixture
def values(neuroids, assemblies):
    """The values of V1 of subj03 as they are in the release. The last of the four neuroids is not in it."""
    rows = neuroids.iloc[80:84].assign(column=[80, 81, 82, NOT_IN_RELEASE])
    by_split = {split: assembly.values[:, 80:84, 0].copy() for split, assembly in assemblies.items()}
    return RegionValues("subj03", "V1", rows, by_split, np.array([False, False, False, True]))


def test_equal_values_have_no_difference(expected, values, assemblies):
    result = _compare_region(expected, values, assemblies)

    assert (result.subject, result.region, result.n_neuroids) == ("subj03", "V1", 3)
    assert (result.cells.n_cells, result.cells.n_differing, result.cells.largest) == (3 * 10, 0, 0)
    assert result.n_nan == {"train": 0, "test": 0, "neuroids": 0}
    assert result.policy_problems == []


def test_nan_is_expected_as_zero_and_counted(expected, values, assemblies):
    for split, row, column in (("train", 1, 0), ("test", 2, 0), ("test", 3, 0), ("test", 3, 1), ("test", 0, 3)):
        values.by_split[split][row, column] = np.nan
        assemblies[split][row, 80 + column] = 0

    result = _compare_region(expected, values, assemblies)

    assert result.n_nan == {"train": 1, "test": 3, "neuroids": 2}
    assert result.cells.n_differing == 0


@pytest.mark.parametrize(
    ("split", "row", "location"),
    [("train", 2, "train nsd_00002, subj03_lh_V1_1"), ("test", 4, "test nsd_00009 repetition 1, subj03_lh_V1_1")],
)
def test_difference_is_located(expected, values, assemblies, split, row, location):
    values.by_split[split][row, 1] -= 0.25

    result = _compare_region(expected, values, assemblies)

    assert (result.cells.n_differing, result.cells.location) == (1, location)
    assert result.cells.largest == pytest.approx(0.25)
    assert result.cells.actual == pytest.approx(result.cells.expected + 0.25)


def test_neuroids_are_dropped_if_and_only_if_a_trial_is_invalid(expected, values, assemblies):
    expected.manifest.recipe.nan_policy = "drop"
    assert _compare_region(expected, values, assemblies).policy_problems == []

    values.has_invalid_trial[:] = [False, True, False, False]

    assert _compare_region(expected, values, assemblies).policy_problems == [
        "subj03_lh_V1_1 is in the release, but one of its needed trials is NaN.",
        "subj03_lh_V1_3 was dropped, but all its needed trials are valid.",
    ]


# --- what is said -----------------------------------------------------------------------------------------------------


def make_result(cells=None, *, n_nan=(1, 4, 2), policy_problems=()):
    cells = cells or CellDifferences(n_cells=30, largest=2e-7, location="train nsd_00001, a")
    return _RegionResult(
        "subj01", "V1", 3, dict(zip(("train", "test", "neuroids"), n_nan, strict=True)), cells, [*policy_problems]
    )


def make_manifest(**counts):
    return SimpleNamespace(
        nan_counts={"subj01": {"V1": SimpleNamespace(**({"train": 1, "test": 4, "neuroids": 2} | counts))}}
    )


BEYOND = CellDifferences(
    n_cells=3000,
    n_differing=9,
    n_beyond=2,
    largest=0.5,
    location="test nsd_00001 repetition 2, a",
    actual=1.5,
    expected=1,
    presentations=frozenset({"test nsd_00001 repetition 2"}),
    neuroids=frozenset({"a", "b"}),
)


def test_sound_result_has_no_problem():
    assert make_result().problems(make_manifest()) == []


@pytest.mark.parametrize("name", ["train", "test", "neuroids"])
def test_every_count_of_filled_values_is_compared(name):
    (problem,) = make_result().problems(make_manifest(**{name: 7}))

    recorded = {"train": 1, "test": 4, "neuroids": 2, name: 7}
    assert problem == (
        f"The manifest counts {recorded['train']} (train) and {recorded['test']} (test) filled values in "
        f"{recorded['neuroids']} neuroids of subj01 V1, but the raw files give 1 (train) and 4 (test) filled values in "
        "2 neuroids."
    )


def test_largest_difference_is_described_and_counts_are_not():
    assert make_result(BEYOND, n_nan=(9, 9, 9)).problems(make_manifest()) == [
        "test nsd_00001 repetition 2, a is 1.5, but the raw files give 1: 2 of 3,000 values of subj01 V1 differ by more than "
        "1e-05, in 2 neuroids (a, b) and 1 presentation (test nsd_00001 repetition 2)."
    ]


@pytest.mark.parametrize(("cells", "n_nan"), [(None, (1, 4, 2)), (None, (0, 0, 0)), (BEYOND, (1, 4, 2))])
def test_problems_of_the_policy_come_first(cells, n_nan):
    problems = make_result(cells, n_nan=n_nan, policy_problems=["dropped"]).problems(make_manifest())

    assert problems[0] == "dropped"
    assert len(problems) == 1 + (cells is BEYOND or n_nan == (0, 0, 0))


def test_result_is_a_row():
    assert make_result().row() == {
        "subject": "subj01",
        "region": "V1",
        "vertices": 3,
        "values": 30,
        "largest difference": 2e-7,
        "where": "train nsd_00001, a",
    }


def test_merged_results_hold_all_parts():
    merged = _merge_results(
        [make_result(policy_problems=["a"]), make_result(BEYOND, n_nan=(5, 6, 7), policy_problems=["b"])]
    )

    assert (merged.subject, merged.region, merged.n_neuroids) == ("subj01", "V1", 6)
    assert merged.n_nan == {"train": 6, "test": 10, "neuroids": 9}
    assert merged.policy_problems == ["a", "b"]
    assert (merged.cells.n_cells, merged.cells.n_beyond, merged.cells.location) == (3030, 2, BEYOND.location)
