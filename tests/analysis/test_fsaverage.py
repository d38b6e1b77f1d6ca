"""Values on the whole of fsaverage, as nilearn and pycortex take them."""

import re

import numpy as np
import pytest
import xarray as xr

from brainscore_allen2022_surface.analysis.fsaverage import N_VERTICES, to_fsaverage
from brainscore_allen2022_surface.loaders import load_assembly

NAME = "Allen2022_fmri_surface"
N_TREE_VERTICES = 642  # of a hemisphere of the small tree


@pytest.fixture
def subject_assembly(release):
    assembly = load_assembly(NAME, "test", source=release)
    return assembly.isel(neuroid=assembly["subject"].values == "subj01")


def make_assembly(
    values, *, vertices=(3, 0, 5, 5), regions=("V1", "V1", "V4", "IT"), hemispheres=("lh", "rh", "lh", "rh")
):
    """Make an assembly with the neuroids as its last dimension."""
    values = np.asarray(values)
    return xr.DataArray(
        values,
        dims=("presentation", "time_bin", "neuroid")[-values.ndim :],
        coords={
            "subject": ("neuroid", ["subj01"] * values.shape[-1]),
            "hemisphere": ("neuroid", list(hemispheres)),
            "vertex_index": ("neuroid", list(vertices)),
            "region": ("neuroid", list(regions)),
        },
    )


def test_each_value_lies_at_its_vertex_and_nan_elsewhere():
    maps = to_fsaverage(make_assembly([1.0, 2.0, 3.0, 4.0]), n_vertices=6)

    assert list(maps) == ["lh", "rh"]
    np.testing.assert_array_equal(maps["lh"], [np.nan, np.nan, np.nan, 1, np.nan, 3])
    np.testing.assert_array_equal(maps["rh"], [2, np.nan, np.nan, np.nan, np.nan, 4])


def test_responses_of_a_release_are_found_again_at_their_vertices(subject_assembly):
    response = subject_assembly.isel(presentation=4, time_bin=0)

    maps = to_fsaverage(response, n_vertices=N_TREE_VERTICES)

    for row in range(0, response.sizes["neuroid"], 7):
        neuroid = response.isel(neuroid=row)["neuroid"].item()
        names = response.indexes["neuroid"].names
        coordinates = dict(zip(names, neuroid, strict=True))
        assert maps[coordinates["hemisphere"]][coordinates["vertex_index"]] == response.values[row]
    n_vertices = len(set(zip(response["hemisphere"].values, response["vertex_index"].values, strict=True)))
    assert sum(np.isfinite(surface).sum() for surface in maps.values()) == n_vertices < response.sizes["neuroid"]


def test_other_dimensions_stay_in_front_of_the_vertices(subject_assembly):
    responses = subject_assembly.isel(presentation=slice(0, 6))

    maps = to_fsaverage(responses, n_vertices=N_TREE_VERTICES)

    assert maps["lh"].shape == (6, 1, N_TREE_VERTICES)
    single = to_fsaverage(responses.isel(presentation=5, time_bin=0), n_vertices=N_TREE_VERTICES)
    np.testing.assert_array_equal(maps["rh"][5, 0], single["rh"])


def test_plain_values_take_their_vertices_from_an_assembly(subject_assembly):
    nc_testset = subject_assembly["nc_testset"].values
    v1 = subject_assembly["region"].values == "V1"

    maps = to_fsaverage(np.stack([nc_testset, 2 * nc_testset]), subject_assembly, n_vertices=N_TREE_VERTICES)

    lh = v1 & (subject_assembly["hemisphere"].values == "lh")
    vertices = subject_assembly["vertex_index"].values[lh]
    np.testing.assert_array_equal(maps["lh"][0, vertices], nc_testset[lh])
    np.testing.assert_array_equal(maps["lh"][1], 2 * maps["lh"][0])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [("float32", "float32"), ("float64", "float64"), ("int16", "float64"), ("int64", "float64"), ("bool", "float64")],
)
def test_floating_point_types_stay_and_others_become_float64(dtype, expected):
    maps = to_fsaverage(make_assembly(np.array([1, 0, 1, 1], dtype=dtype)), n_vertices=6)

    assert maps["lh"].dtype == maps["rh"].dtype == expected
    assert maps["lh"][3] == 1


def test_vertex_of_two_regions_needs_equal_values_or_one_region():
    shared = {"vertices": (3, 3, 5, 5), "regions": ("V4", "IT", "V4", "IT"), "hemispheres": ("lh", "lh", "lh", "rh")}

    equal = to_fsaverage(make_assembly([1.5, 1.5, np.nan, 4.0], **shared), n_vertices=6)
    assert equal["lh"][3] == 1.5
    both_nan = to_fsaverage(make_assembly([np.nan, np.nan, 3.0, 4.0], **shared), n_vertices=6)
    assert np.isnan(both_nan["lh"][3])
    different = make_assembly([[1.0, 1.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]], **shared)
    with pytest.raises(ValueError, match="Vertex 3 is in V4 and in IT with different values.*Select one region"):
        to_fsaverage(different, n_vertices=6)
    with pytest.raises(ValueError, match="Vertex 3 is in V4 and in IT with different values"):
        to_fsaverage(make_assembly([1.0, np.nan, 3.0, 4.0], **shared), n_vertices=6)
    of_region = different.isel(neuroid=different["region"].values == "IT")
    np.testing.assert_array_equal(to_fsaverage(of_region, n_vertices=6)["lh"][:, 3], [1, 2])


def test_several_subjects_are_refused(release):
    assembly = load_assembly(NAME, "test", region="V1", source=release).isel(presentation=0, time_bin=0)

    with pytest.raises(ValueError, match=r"subj01, subj02, .*, expected one subject.*\['subject'\].values == 'subj01'"):
        to_fsaverage(assembly)


VALUES = [1.0, 2.0, 3.0, 4.0]
ASSEMBLY = make_assembly(VALUES)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"values": ASSEMBLY[:0]}, "no subject, expected one subject"),
        ({"values": ASSEMBLY, "n_vertices": 5}, "vertex_index holds 5, expected 0 to 4. Set n_vertices"),
        ({"values": make_assembly(VALUES, vertices=(3, 0, 5, -1))}, "vertex_index holds -1, expected 0 to 5"),
        ({"values": make_assembly(VALUES, hemispheres=("lh", "left", "lh", "rh"))}, "holds left, expected lh and rh"),
        ({"values": [1, 2, 3], "neuroids": ASSEMBLY}, "shape (3,), expected 4 neuroids as the last dimension"),
        ({"values": 1.0, "neuroids": ASSEMBLY}, "shape (), expected 4 neuroids as the last dimension"),
        ({"values": np.arange(4)}, "no coordinates. Name the assembly"),
        ({"values": ASSEMBLY[0]}, "dimensions (), expected neuroid"),
        ({"values": np.array(list("abcd")), "neuroids": ASSEMBLY}, "type <U1, expected numbers"),
        ({"values": ASSEMBLY.drop_vars("vertex_index")}, "no neuroid coordinate vertex_index"),
    ],
)
def test_values_without_a_place_on_the_surface_are_refused(arguments, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        to_fsaverage(**{"n_vertices": 6, **arguments})


def test_nilearn_draws_the_first_vertices_on_fsaverage5(subject_assembly, tmp_path):
    import matplotlib

    matplotlib.use("Agg")
    from nilearn import datasets, plotting, surface

    mesh = datasets.fetch_surf_fsaverage("fsaverage5")
    coordinates = surface.load_surf_mesh(mesh.infl_left).coordinates
    maps = to_fsaverage(subject_assembly["nc_testset"].values, subject_assembly)

    drawn = maps["lh"][: len(coordinates)]
    figure = plotting.plot_surf_stat_map(mesh.infl_left, drawn, hemi="left", engine="matplotlib")
    figure.savefig(tmp_path / "map.png")

    in_lh = subject_assembly["hemisphere"].values == "lh"
    assert set(np.flatnonzero(np.isfinite(drawn))) == set(subject_assembly["vertex_index"].values[in_lh])
    assert len(coordinates) == 10_242


def test_pycortex_takes_both_hemispheres_in_one_array(subject_assembly):
    maps = to_fsaverage(subject_assembly.isel(presentation=0, time_bin=0))

    both = np.concatenate([maps["lh"], maps["rh"]], axis=-1)

    rh = subject_assembly["hemisphere"].values == "rh"
    vertices = N_VERTICES + subject_assembly["vertex_index"].values[rh]
    assert both.shape == (327_684,)
    np.testing.assert_array_equal(both[vertices], subject_assembly.values[0, rh, 0])
