"""Regions of atlases: which vertices they have, and which recipes an atlas cannot give."""

from dataclasses import replace

import numpy as np
import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.regions import find_regions
from allen2022_surface_packaging.recipe import PUBLISHED_REGIONS, Region, make_recipe

KASTNER = [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 0, 0]  # V1v V1d V2v V2d V3v V3d hV4 hV4 VO1
STREAMS = [1, 0, 0, 0, 0, 0, 0, 0, 5, 5, 5, 4]  # the second hV4 vertex is also in the ventral stream
NAMES = {"early": {1}, "midparietal": {4}, "ventral": {5}, "lateral": {6}}  # no vertex has the label 6


def find(*regions, streams=STREAMS, names=NAMES, left=None):
    left = streams if left is None else left
    labels = {("Kastner2015", 0, h): np.array(KASTNER, np.float32) for h in ("lh", "rh")}
    labels |= {("streams", 0, "lh"): np.array(left, np.float32), ("streams", 0, "rh"): np.array(streams, np.float32)}
    recipe = replace(make_recipe((1,), name="x"), regions=regions)
    return find_regions(recipe, labels, {"Kastner2015": {"hV4": {7}}, "streams": names}, n_vertices=12)


def vertices_of(region_map, hemisphere="lh"):
    return {region.name: region.vertices[1][hemisphere].tolist() for region in region_map.regions}


def test_published_regions_share_a_vertex_that_is_read_once():
    region_map = find(*PUBLISHED_REGIONS)

    assert vertices_of(region_map) == {"V1": [1, 2], "V2": [3, 4], "V4": [7, 8], "IT": [8, 9, 10]}
    assert region_map.vertices[1]["lh"].tolist() == [1, 2, 3, 4, 7, 8, 9, 10]


@pytest.mark.parametrize(
    ("region", "options", "expected"),
    [
        (Region("a", "streams", ("ventral", 4)), {}, {"a": [8, 9, 10, 11]}),
        (Region("b", "Kastner2015", ("hV4",)), {}, {"b": [7, 8]}),
        (Region("all", "streams"), {}, {"all": [0, 8, 9, 10, 11]}),
        (Region("all", "streams"), {"streams": [-1, np.nan, *STREAMS[2:]]}, {"all": [8, 9, 10, 11]}),
        (Region("", "streams", each=True), {}, {"early": [0], "midparietal": [11], "ventral": [8, 9, 10]}),
        (
            Region("", "streams", each=True),
            {"names": {"L V1.a/b": {1}, "mid-parietal_2": {4, 5}}},
            {"L_V1_a_b": [0], "mid-parietal_2": [8, 9, 10, 11]},
        ),
        (Region("a", "streams", ("both",)), {"names": {"both": {4, 5}}}, {"a": [8, 9, 10, 11]}),
        (Region("a", "streams", ("ventral", 5)), {}, {"a": [8, 9, 10]}),
        (Region("", "streams", ("ventral",), each=True), {}, {"ventral": [8, 9, 10]}),
        (Region("", "Kastner2015", (7,), each=True), {}, {"hV4": [7, 8]}),
        (Region("everything", "cortex"), {}, {"everything": list(range(12))}),
    ],
)
def test_region_has_the_vertices_of_its_labels(region, options, expected):
    region_map = find(region, **options)

    assert vertices_of(region_map) == vertices_of(region_map, "rh") == expected


def test_region_may_be_empty_in_one_hemisphere():
    region_map = find(Region("IT", "streams", ("ventral",)), left=[0] * 12)

    assert (vertices_of(region_map, "lh"), vertices_of(region_map, "rh")) == ({"IT": []}, {"IT": [8, 9, 10]})


@pytest.mark.parametrize(
    ("regions", "options", "message"),
    [
        ((Region("a", "Kastner2015", (1, 99)),), {}, r"recipe \(x\): region 1, labels is 99, .*7 \(hV4\), 8\. Is"),
        ((Region("a", "streams", ("ventrall",)),), {}, r"region 1, labels is 'ventrall', expected .*5 \(ventral\)"),
        ((Region("a", "streams", ("lateral",)),), {}, "labels is 6, which no vertex has, expected labels of vertices"),
        ((Region("b", "streams"),), {"streams": [0] * 12}, r"region 1, labels is empty, .*: none\."),
        ((Region("a", "streams", (99,)),), {"streams": range(1, 13)}, r"10, 11, 12\. Is it NSD's streams atlas\?"),
        ((Region("a", "streams", (99,)),), {"streams": range(1, 14)}, r"10, 11, 12, and 1 more\. Is it NSD's streams"),
        ((Region("ventral", "cortex"), Region("", "streams", each=True)), {}, "region ventral occurs twice"),
        ((Region("", "streams", each=True),), {"names": {"V1.v": {1, 4}, "V1_v": {5}}}, "region V1_v occurs twice"),
        ((Region("", "streams", (4,), each=True),), {"names": {"a" * 81: {4}}}, "name of the label 4 has 81 letters"),
        ((Region("", "Kastner2015", (7, 8), each=True),), {}, r"Kastner2015\.mgz\.ctab has 0 names for the label 8"),
        ((Region("", "streams", (4,), each=True),), {"names": {"a": {4}, "b": {4}}}, "has 2 names for the label 4"),
    ],
)
def test_region_that_an_atlas_cannot_give_is_refused(regions, options, message):
    with pytest.raises(PackagingError, match=message):
        find(*regions, **options)
