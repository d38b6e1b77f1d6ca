"""Values on the whole of fsaverage, as nilearn and pycortex take them."""

import re

import numpy as np
import pytest
import xarray as xr

from brainscore_allen2022_surface.analysis.fsaverage import N_VERTICES, to_fsaverage
from brainscore_allen2022_surface.loaders import load_assembly

NAME = "Allen2022_fmri_surface"


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


def test_responses_of_a_release_are_found_again_at_their_vertices(release):
    assembly = load_assembly(NAME, "test", source=release)
    responses = assembly.isel(neuroid=assembly["subject"].values == "subj01", presentation=slice(0, 6))

    maps = to_fsaverage(responses)

    assert maps["lh"].shape == (6, 1, N_VERTICES)  # other dimensions stay in front
    for hemisphere in ("lh", "rh"):
        of_hemisphere = responses.isel(neuroid=responses["hemisphere"].values == hemisphere)
        vertices = of_hemisphere["vertex_index"].values
        np.testing.assert_array_equal(maps[hemisphere][..., vertices], of_hemisphere.transpose(..., "neuroid").values)
        assert set(np.flatnonzero(np.isfinite(maps[hemisphere][0, 0]))) == set(vertices)
    of_values = to_fsaverage(responses.values[:, :, 0], responses)
    np.testing.assert_array_equal(of_values["rh"], maps["rh"][:, 0])


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
        ({"values": [1, 2, 3], "neuroids": ASSEMBLY}, "shape (3,) and the type int64, expected 4 neuroids as the last"),
        ({"values": 1.0, "neuroids": ASSEMBLY}, "shape () and the type float64, expected 4 neuroids as the last dim"),
        ({"values": np.arange(4)}, "no coordinates. Name the assembly"),
        ({"values": ASSEMBLY[0]}, "dimensions (), expected neuroid"),
        ({"values": list("abcd"), "neuroids": ASSEMBLY}, "type <U1, expected 4 neuroids as the last dimension, and n"),
        ({"values": ASSEMBLY.drop_vars("vertex_index")}, "no neuroid coordinate vertex_index"),
    ],
)
def test_values_without_a_place_on_the_surface_are_refused(arguments, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        to_fsaverage(**{"n_vertices": 6, **arguments})
