"""The sphere of fsaverage, and the areas that are drawn on it."""

import numpy as np
import pytest
from nilearn.datasets import fetch_surf_fsaverage
from nilearn.surface import load_surf_mesh
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from allen2022_surface_packaging.nsd.atlases import LABEL_NAMES, make_labels
from allen2022_surface_packaging.nsd.sphere import sphere_vertices

N_VERTICES = 10_242
SIDES = {"lh": "left", "rh": "right"}
# Published regions at the size of fsaverage5. Of 163,842 vertices, V1 of lh has 2,153.
N_REGION_VERTICES = {"lh": (135, 103, 26, 596), "rh": (133, 109, 32, 596)}
KASTNER = LABEL_NAMES["Kastner2015"]
STREAMS = LABEL_NAMES["streams"]


@pytest.fixture(scope="module")
def fsaverage5() -> dict[str, np.ndarray]:
    """The sphere, the pial surfaces and the triangles of fsaverage5, as FreeSurfer has them."""
    files = fetch_surf_fsaverage("fsaverage5")
    points = {name: load_surf_mesh(files[name]).coordinates for name in ("sphere_left", "pial_left", "pial_right")}
    return points | {"faces": load_surf_mesh(files["sphere_left"]).faces}


@pytest.fixture(scope="module", params=["lh", "rh"])
def labelled(request, fsaverage5) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The atlases of a hemisphere, and where its vertices are in the brain: to the outside, to the front, upwards, in mm."""
    points = fsaverage5[f"pial_{SIDES[request.param]}"] * (-1 if request.param == "lh" else 1, 1, 1)
    return make_labels(N_VERTICES, request.param), points


def members(labelled, atlas, *names):
    return np.isin(labelled[0][atlas], [1 + LABEL_NAMES[atlas].index(name) for name in names])


def centre(labelled, atlas, *names):
    return labelled[1][members(labelled, atlas, *names)].mean(axis=0)


def test_vertices_of_the_sphere_are_numbered_as_in_fsaverage5(fsaverage5):
    np.testing.assert_allclose(sphere_vertices(N_VERTICES), fsaverage5["sphere_left"] / 100, atol=1e-4)


@pytest.mark.parametrize("n_vertices", [12, 40, 642, 900, 5000])
def test_fewer_vertices_are_the_first_of_more_vertices(n_vertices):
    vertices = sphere_vertices(n_vertices)

    assert vertices.shape == (n_vertices, 3)
    np.testing.assert_array_equal(vertices, sphere_vertices(40_962)[:n_vertices])


def test_vertices_of_fsaverage_are_all_different_and_on_the_sphere():
    vertices = sphere_vertices(163_842)

    assert len(np.unique(vertices.round(9), axis=0)) == 163_842
    np.testing.assert_allclose(np.linalg.norm(vertices, axis=1), 1, atol=1e-12)


@pytest.mark.parametrize("atlas", LABEL_NAMES)
def test_every_area_is_one_connected_patch(atlas, labelled, fsaverage5):
    labels = labelled[0][atlas]
    edges = fsaverage5["faces"][:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2)
    edges = edges[labels[edges[:, 0]] == labels[edges[:, 1]]]
    graph = coo_array((np.ones(len(edges)), edges.T), shape=(N_VERTICES, N_VERTICES))
    patches = connected_components(graph, directed=False)[1]

    n_patches = {name: len(np.unique(patches[labels == i])) for i, name in enumerate(LABEL_NAMES[atlas], start=1)}
    assert n_patches == dict.fromkeys(LABEL_NAMES[atlas], 1)


@pytest.mark.parametrize("hemisphere", ["lh", "rh"])
def test_published_regions_have_their_share_of_the_vertices(hemisphere):
    labels = make_labels(N_VERTICES, hemisphere)
    kastner, streams = labels["Kastner2015"], labels["streams"]

    counts = [np.isin(kastner, numbers).sum() for numbers in ((1, 2), (3, 4), (7,))]
    assert (*counts, (streams == 5).sum()) == N_REGION_VERTICES[hemisphere]
    assert ((kastner == 7) & (streams == 5)).sum() == counts[2] // 3


def test_regions_are_where_they_are_in_the_brain(labelled):
    v1, v4 = centre(labelled, "Kastner2015", "V1v", "V1d"), centre(labelled, "Kastner2015", "hV4")
    it, parietal = centre(labelled, "streams", "ventral"), centre(labelled, "streams", "parietal")
    fef, mt = centre(labelled, "Kastner2015", "FEF"), centre(labelled, "Kastner2015", "hMT")

    # The usual MNI coordinates; a simulated region is within 2 cm of them.
    for found, expected in (
        (v1, (12, -82, 3)),
        (v4, (28, -80, -14)),
        (it, (42, -40, -20)),
        (parietal, (24, -68, 44)),
        (fef, (30, -6, 52)),
        (mt, (46, -73, 2)),
    ):
        assert np.linalg.norm(found - expected) < 20
    heights = {name: centre(labelled, "Kastner2015", name)[2] for name in KASTNER}
    assert heights["V3d"] > heights["V2d"] > heights["V1d"] > heights["V1v"] > heights["V2v"] > heights["V3v"]


def test_atlases_agree_with_each_other(labelled):
    early = members(labelled, "Kastner2015", "V1v", "V1d", "V2v", "V2d", "V3v", "V3d")
    general = labelled[0]["nsdgeneral"] == 1

    np.testing.assert_array_equal(early, members(labelled, "streams", "early"))
    assert set(labelled[0]["streams"][members(labelled, "Kastner2015", "hV4")]) == {2, 5}  # midventral, ventral
    for name, stream in (("LO1", "midlateral"), ("V3a", "midparietal"), ("IPS1", "parietal"), ("MST", "lateral")):
        assert (members(labelled, "Kastner2015", name) & members(labelled, "streams", stream)).any()
    assert general[early | members(labelled, "Kastner2015", "hV4")].all()
    assert 0.3 < general[members(labelled, "streams", "ventral")].mean() < 1  # it ends before the ventral stream does
    assert not general[members(labelled, "Kastner2015", "FEF")].any()


def test_parcels_cover_the_cortex_but_for_the_medial_wall(labelled):
    parcels, points = labelled[0]["HCP_MMP1"], labelled[1]

    assert 0.05 < (parcels == 0).mean() < 0.1
    assert (points[parcels == 0, 0] < 25).all()
    counts = np.bincount(parcels)[1:]
    assert len(counts) == 180
    assert counts.max() < 6 * counts.min()


@pytest.mark.parametrize("n_vertices", [24, 40, 60, 160, 400, 900, 5000])
def test_small_and_odd_counts_of_vertices_have_all_published_regions(n_vertices):
    for hemisphere in ("lh", "rh"):
        labels = make_labels(n_vertices, hemisphere)
        assert all(values.shape == (n_vertices,) and values.dtype == np.int32 for values in labels.values())
        for numbers in ((1, 2), (3, 4), (7,)):
            assert np.isin(labels["Kastner2015"], numbers).sum() >= 6
            assert set(numbers) <= set(labels["Kastner2015"])
        assert (labels["streams"] == 5).sum() >= 4
        if n_vertices >= 40:
            assert len(np.unique(labels["Kastner2015"])) == 1 + len(KASTNER)
            assert len(np.unique(labels["streams"])) == 1 + len(STREAMS)
