"""Neuroids of an assembly: their order, ids, vertices and noise ceilings, in tables written by hand."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray

from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from allen2022_surface_packaging.verify import assembly_soundness
from allen2022_surface_packaging.verify.assembly_soundness import _Moments

REGIONS, SUBJECTS = ("V1", "V2"), ("subj01", "subj02")
VERTICES = {("V1", "lh"): (0, 5), ("V1", "rh"): (3,), ("V2", "lh"): (6, 641), ("V2", "rh"): (7,)}


@pytest.fixture
def manifest(tiny_release):
    """The manifest of two regions of three vertices, in two subjects."""
    manifest = Manifest.read(ReleaseFolder(tiny_release))
    regions = tuple(
        replace(region, name=name, atlas="other", n_vertices=3)
        for region, name in zip(manifest.regions, REGIONS, strict=False)
    )
    return replace(manifest, regions=regions)


@pytest.fixture
def neuroids():
    """The neuroids in their order: region, subject, hemisphere, vertex."""
    rows = []
    for region in REGIONS:
        for subject in SUBJECTS:
            number = 0
            for hemisphere in ("lh", "rh"):
                for vertex in VERTICES[region, hemisphere]:
                    rows.append((f"{subject}_{hemisphere}_{region}_v{number:05d}", subject, hemisphere, region, vertex))
                    number += 1
    table = pd.DataFrame(rows, columns=["neuroid_id", "subject", "hemisphere", "region", "vertex_index"])
    return table.assign(nc_testset=np.linspace(0, 100, len(table)))


def find(neuroids, manifest, nan_policy="zero"):
    manifest = replace(manifest, recipe=replace(manifest.recipe, nan_policy=nan_policy))
    return list(assembly_soundness._find_neuroid_problems(neuroids.reset_index(drop=True), manifest))


@pytest.mark.parametrize("nan_policy", ["zero", "drop"])
def test_sound_neuroids_have_no_problem(neuroids, manifest, nan_policy):
    assert find(neuroids, manifest, nan_policy) == []


def test_dropped_neuroids_leave_gaps_in_the_numbers(neuroids, manifest):
    remaining = neuroids[neuroids.index != 1]

    assert find(remaining, manifest, "drop") == []
    problems = find(remaining, manifest)
    assert any("subj01 V1 has 2 neuroids, expected 3" in problem for problem in problems)
    assert any(problem.startswith("neuroid_id of neuroid 1 is subj01_rh_V1_v00002") for problem in problems)


@pytest.mark.parametrize(
    ("column", "value"), [("region", "V9"), ("subject", "subj07"), ("hemisphere", "xh"), ("region", "")]
)
def test_unknown_names_are_the_only_problem(neuroids, manifest, column, value):
    neuroids.loc[[4, 9], column] = value

    problems = find(neuroids, manifest)

    assert len(problems) == 1
    assert problems[0].startswith("neuroid 4 has an unknown region, subject or hemisphere: {'neuroid_id': ")


@pytest.mark.parametrize(("first", "second"), [(0, 1), (1, 2), (3, 6), (2, 11)])
def test_first_neuroid_out_of_order_is_named(neuroids, manifest, first, second):
    order = list(range(len(neuroids)))
    order[first], order[second] = order[second], order[first]

    problems = find(neuroids.iloc[order], manifest)

    name = neuroids.neuroid_id[order[first + 1]]
    assert problems[0] == (
        f"neuroid {first + 1} ({name}) is out of order. The order is region, subject, hemisphere, vertex."
    )


def test_repeated_neuroid_is_out_of_order(neuroids, manifest):
    neuroids.loc[1, "vertex_index"] = 0

    problems = find(neuroids, manifest)

    assert problems[0].startswith("neuroid 1 (subj01_lh_V1_v00001) is out of order")
    assert problems[-1] == "subj01_lh_V1_v00001 has the vertex of another neuroid of its region."


@pytest.mark.parametrize(("row", "vertex"), [(0, -1), (7, 642)])
def test_vertex_outside_the_surface_is_named(neuroids, manifest, row, vertex):
    neuroids.loc[row, "vertex_index"] = vertex

    assert f"vertex_index of neuroid {row} is {vertex}, expected 0 to 641." in find(neuroids, manifest)


@pytest.mark.parametrize("nan_policy", ["zero", "drop"])
@pytest.mark.parametrize("name", ["subj01_lh_V1_v1", "subj01_lh_V1", "subj01_rh_V1_v00001", "v00001"])
def test_wrong_id_is_named(neuroids, manifest, nan_policy, name):
    neuroids.loc[1, "neuroid_id"] = name

    assert any(
        problem.startswith(f"neuroid_id of neuroid 1 is {name}") for problem in find(neuroids, manifest, nan_policy)
    )


def test_id_without_a_number_counts_as_none(neuroids, manifest):
    neuroids.loc[0, "neuroid_id"] = "subj01_lh_V1"

    assert find(neuroids, manifest, "drop")[0].startswith(
        "neuroid_id of neuroid 0 is subj01_lh_V1, expected subj01_lh_V1_v-0001"
    )


@pytest.mark.parametrize("number", [0, 1])
def test_numbers_rise_where_neuroids_were_dropped(neuroids, manifest, number):
    neuroids.loc[2, "neuroid_id"] = f"subj01_rh_V1_v{number:05d}"

    line = f"neuroid 2 (subj01_rh_V1_v{number:05d}) has no higher number than the neuroid before it."
    assert find(neuroids, manifest, "drop")[0] == line


def test_number_is_the_same_vertex_in_every_subject(neuroids, manifest):
    neuroids.loc[[3, 4], "vertex_index"] = [1, 4]

    assert find(neuroids, manifest) == [
        "subj02_lh_V1_v00000 is vertex 1 of lh, but the first subject has vertex 0 of lh there (2 differ)."
    ]


def test_noise_ceilings_are_percentages_or_missing(neuroids, manifest):
    neuroids.loc[0, "nc_testset"] = np.nan
    assert find(neuroids, manifest) == []

    neuroids.loc[1, "nc_testset"] = 100.5
    assert [problem.rpartition(" to 100.5, ")[2] for problem in find(neuroids, manifest)] == [
        "outside 0 to 100 percent."
    ]
    neuroids.loc[1, "nc_testset"] = -0.5
    assert find(neuroids, manifest)[0].startswith("nc_testset ranges from -0.5 to 100.0, outside")


@pytest.mark.parametrize(
    ("first", "second", "n_problems"),
    [(1.0, 1.0, 0), (1.0, 2.0, 1), (np.nan, np.nan, 0), (np.nan, 1.0, 1), (1.0, np.nan, 1)],
)
def test_vertex_of_two_regions_has_one_noise_ceiling(neuroids, manifest, first, second, n_problems):
    neuroids.loc[[7, 10], "vertex_index"] = 5  # of V2, as the second one of V1
    neuroids.loc[[6, 9], "vertex_index"] = 4
    neuroids["nc_testset"] = 50.0
    neuroids.loc[[1, 7], "nc_testset"] = [first, second]

    problems = find(neuroids, manifest)

    assert len(problems) == n_problems
    assert all("for the same vertex" in problem for problem in problems)


def test_squares_of_many_images_with_one_outlier_are_summed_exactly(rng):
    """As of the 9,000 images that only one subject saw."""
    values = rng.standard_normal((9000, 3, 1), dtype=np.float32)
    values[0] = 1000
    assembly = xarray.DataArray(values, dims=("presentation", "neuroid", "time_bin"))

    moments = _Moments.of(assembly, "train")

    expected = (values[:, :, 0].astype(np.float64) ** 2).sum(axis=0)
    np.testing.assert_allclose(moments.total_of_squares, expected, rtol=1e-6)


def test_first_value_that_is_not_finite_is_named(neuroids):
    rows = np.full(len(neuroids), -1)
    nothing = np.zeros(len(neuroids))
    assert list(_Moments(3, 3, nothing, nothing, nothing, rows).find_invalid_value(neuroids)) == []

    rows[[4, 7]] = [0, 2]
    moments = _Moments(3, 3, nothing, nothing, nothing, rows)
    assert not moments.is_finite
    assert list(moments.find_invalid_value(neuroids)) == [
        "presentation 0, neuroid subj02_lh_V1_v00001 is nan or infinite, expected a finite value."
    ]
