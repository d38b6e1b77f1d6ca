"""The atlases that are drawn on a simulated cortex."""

import numpy as np
import pytest
from nilearn.datasets import fetch_surf_fsaverage
from nilearn.surface import load_surf_mesh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from allen2022_surface_packaging.nsd.atlases import make_labels, make_native_labels, read_names, vertex_directions

N_VERTICES = 10_242


@pytest.fixture(scope="module")
def fsaverage5():
    """The sphere, the pial surfaces and the triangles of fsaverage5, as FreeSurfer has them."""
    files = fetch_surf_fsaverage("fsaverage5")
    points = {name: load_surf_mesh(files[name]).coordinates for name in ("sphere_left", "pial_left", "pial_right")}
    return points | {"faces": load_surf_mesh(files["sphere_left"]).faces}


@pytest.fixture(scope="module", params=["lh", "rh"])
def labelled(request, fsaverage5):
    """The atlases of a hemisphere, and where its vertices are in the brain: to the outside, to the front, upwards, in mm."""
    points = fsaverage5["pial_left"] * (-1, 1, 1) if request.param == "lh" else fsaverage5["pial_right"]
    return make_labels(N_VERTICES, request.param), points


def members(labelled, atlas, *names):
    return np.isin(labelled[0][atlas], [1 + read_names(atlas).index(name) for name in names])


def centre(labelled, atlas, *names):
    return labelled[1][members(labelled, atlas, *names)].mean(axis=0)


def test_vertices_are_numbered_as_in_fsaverage5(fsaverage5):
    sphere = fsaverage5["sphere_left"] / 100 * (-1, 1, 1)

    np.testing.assert_allclose(vertex_directions(N_VERTICES, "lh"), sphere, atol=1e-4)
    np.testing.assert_allclose(vertex_directions(900, "lh"), sphere[:900], atol=1e-4)


@pytest.mark.parametrize("atlas", ["Kastner2015", "streams", "nsdgeneral", "HCP_MMP1"])
def test_every_area_is_one_connected_patch(atlas, labelled, fsaverage5):
    labels = labelled[0][atlas]
    edges = fsaverage5["faces"][:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    edges = edges[labels[edges[:, 0]] == labels[edges[:, 1]]]
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(N_VERTICES, N_VERTICES))
    patches = connected_components(graph, directed=False)[1]

    n_patches = {name: len(np.unique(patches[labels == i])) for i, name in enumerate(read_names(atlas), start=1)}
    assert n_patches == dict.fromkeys(read_names(atlas), 1)


def test_regions_are_where_they_are_in_the_brain(labelled):
    places = {  # the usual MNI coordinates; a simulated region is within 2 cm of them
        ("Kastner2015", "V1v", "V1d"): (12, -82, 3),
        ("Kastner2015", "hV4"): (28, -80, -14),
        ("Kastner2015", "FEF"): (30, -6, 52),
        ("Kastner2015", "hMT"): (46, -73, 2),
        ("streams", "ventral"): (42, -40, -20),
        ("streams", "parietal"): (24, -68, 44),
        ("HCP_MMP1", "V1"): (12, -92, 0),
    }
    for region, place in places.items():
        assert np.linalg.norm(centre(labelled, *region) - place) < 20, region
    heights = [centre(labelled, "Kastner2015", name)[2] for name in ("V3d", "V2d", "V1d", "V1v", "V2v", "V3v")]
    assert heights == sorted(heights, reverse=True)


@pytest.mark.parametrize("subject", [1, 4])
@pytest.mark.parametrize("hemisphere", ["lh", "rh"])
def test_regions_of_a_subject_are_near_where_they_are_in_the_brain(fsaverage5, subject, hemisphere, rng):
    points = fsaverage5["pial_left"] * (-1, 1, 1) if hemisphere == "lh" else fsaverage5["pial_right"]
    places = {  # the usual MNI coordinates, in mm
        ("floc-faces", 2): (40, -58, -18),
        ("floc-faces", 5): (36, -6, -36),
        ("floc-bodies", 1): (48, -72, 2),
        ("floc-places", 3): (16, -56, 10),
        ("prf-visualrois", 7): (28, -80, -14),
    }
    atlases = make_native_labels(vertex_directions(N_VERTICES, hemisphere), subject, hemisphere, rng)
    for (atlas, label), place in places.items():
        members = points[atlases[atlas] == label]
        if (subject, atlas, label) == (4, "floc-faces", 5):  # aTL-faces
            assert len(members) == 0
        else:
            assert np.linalg.norm(members.mean(axis=0) - place) < 20, (atlas, label)


def test_v4_and_it_share_vertices_and_early_areas_agree_between_atlases(labelled):
    early = members(labelled, "Kastner2015", "V1v", "V1d", "V2v", "V2d", "V3v", "V3d")
    v4, ventral = members(labelled, "Kastner2015", "hV4"), members(labelled, "streams", "ventral")

    np.testing.assert_array_equal(early, members(labelled, "streams", "early"))
    assert 0 < ventral[v4].mean() < 1
    assert 0.05 < (labelled[0]["HCP_MMP1"] == 0).mean() < 0.1  # the medial wall


@pytest.mark.parametrize("n_vertices", [26, 40, 60, 160, 900, 5000])
def test_small_and_odd_counts_of_vertices_have_all_published_regions(n_vertices):
    for hemisphere in ("lh", "rh"):
        labels = make_labels(n_vertices, hemisphere)
        assert all(values.shape == (n_vertices,) and values.dtype == np.int32 for values in labels.values())
        for numbers in ((1, 2), (3, 4), (7,)):
            assert np.isin(labels["Kastner2015"], numbers).sum() >= 6
            assert set(numbers) <= set(labels["Kastner2015"])
        assert (labels["streams"] == 5).sum() >= 6
        assert (labels["nsdgeneral"] == 1).sum() < max(40, n_vertices / 4)
