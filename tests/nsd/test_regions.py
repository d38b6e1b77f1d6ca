import re
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import xarray

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.facts import DEFAULT_BETAS, noise_ceiling
from allen2022_surface_packaging.nsd.inspection import inspect_tree
from allen2022_surface_packaging.nsd.regions import find_regions, read_ncsnr, read_regions
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import Region, make_recipe

LABELS = "nsddata/freesurfer/fsaverage/label"
KASTNER = [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 0, 0]  # V1v V1d V2v V2d V3v V3d hV4 hV4 VO1
STREAMS = [1, 0, 0, 0, 0, 0, 0, 0, 5, 5, 5, 4]  # the second hV4 vertex is also in the ventral stream


def write_labels(tree_path, atlas, labels):
    for hemisphere in ("lh", "rh"):
        image = nibabel.freesurfer.MGHImage(np.array(labels, np.float32).reshape(-1, 1, 1), np.eye(4))
        nibabel.save(image, tree_path / LABELS / f"{hemisphere}.{atlas}.mgz")


@pytest.fixture
def small_tree(tree_copy):
    """A tree whose atlases have twelve vertices per hemisphere."""
    write_labels(tree_copy, "Kastner2015", KASTNER)
    write_labels(tree_copy, "streams", STREAMS)
    return tree_copy


@pytest.fixture
def region_map(small_tree):
    return read_regions(open_tree(small_tree), make_recipe())


def read(tree_path, *regions):
    return read_regions(open_tree(tree_path), replace(make_recipe((1,), name="x"), regions=regions))


def vertices_of(region_map, hemisphere):
    return {region.name: region.vertices[hemisphere].tolist() for region in region_map.regions}


def test_regions_have_the_published_labels_of_both_atlases(region_map):
    assert vertices_of(region_map, "rh") == {"V1": [1, 2], "V2": [3, 4], "V4": [7, 8], "IT": [8, 9, 10]}


def test_shared_vertex_is_read_once_and_kept_by_both_regions(region_map):
    assert region_map.vertices["lh"].tolist() == [1, 2, 3, 4, 7, 8, 9, 10]
    columns = {region.name: region_map.columns(region).tolist() for region in region_map.regions}
    assert columns["V4"] == [4, 5, 12, 13]  # rh comes after the eight vertices of lh
    assert columns["IT"] == [5, 6, 7, 13, 14, 15]


def test_region_may_name_labels_as_the_colour_table_does(small_tree):
    region_map = read(small_tree, Region("a", "streams", ("ventral", 4)), Region("b", "Kastner2015", ("hV4",)))

    assert vertices_of(region_map, "lh") == {"a": [8, 9, 10, 11], "b": [7, 8]}
    assert [region.labels for region in region_map.regions] == [(4, 5), (7,)]


def test_each_label_becomes_a_region_with_its_name(small_tree):
    region_map = read(small_tree, Region("", "streams", each=True))

    assert vertices_of(region_map, "lh") == {"early": [0], "midparietal": [11], "ventral": [8, 9, 10]}


def test_labels_without_a_name_are_numbered(small_tree):
    (small_tree / LABELS / "streams.mgz.ctab").unlink()

    assert list(vertices_of(read(small_tree, Region("", "streams", each=True)), "lh")) == [
        "streams_1",
        "streams_4",
        "streams_5",
    ]


def test_region_without_labels_is_all_of_its_atlas(small_tree):
    labels = [-1, *STREAMS[1:]]  # NSD marks what is outside an atlas with 0 or -1
    write_labels(small_tree, "streams", labels)

    assert vertices_of(read(small_tree, Region("all", "streams")), "rh") == {"all": [8, 9, 10, 11]}


def test_cortex_is_every_vertex_and_needs_no_atlas(tree_copy):
    for path in (tree_copy / LABELS).iterdir():
        path.unlink()

    region_map = read(tree_copy, Region("cortex", "cortex"))

    assert region_map.n_vertices == 642
    assert vertices_of(region_map, "rh") == {"cortex": list(range(642))}
    assert region_map.n_read_vertices == 2 * 642


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (Region("a", "Kastner2015", (1, 99)), r"recipe \(x\): region 1, labels is 99, expected labels .*1 \(V1v\), 2"),
        (Region("a", "streams", ("ventrall",)), "region 1, labels is 'ventrall', expected .*5 \\(ventral\\)"),
        (Region("a", "streams", (2,)), "region 1, labels is 2, expected labels of vertices"),
        (
            Region("a", "Glasser", (2,)),
            r"recipe \(x\): region 1, atlas is 'Glasser', but .*lh.Glasser.mgz and .*rh.Glasser.mgz are missing",
        ),
    ],
)
def test_region_is_refused_when_the_atlas_lacks_it(small_tree, region, message):
    with pytest.raises(PackagingError, match=message):
        read(small_tree, region)


def test_every_fault_of_the_regions_is_found_at_once(small_tree):
    regions = (
        Region("a", "Glasser"),
        Region("b", "Kastner2015", (99,)),
        Region("b", "streams", (5,)),
        Region("c", "streams", ("ventrall",)),
        Region("", "streams", each=True),
        Region("ventral", "streams", (5,)),
    )
    recipe = replace(make_recipe((1,), name="x"), regions=regions)

    region_map, faults = find_regions(open_tree(small_tree), recipe)

    assert region_map is None
    assert [re.search(r"region (\w+)", fault)[1] for fault in faults] == ["1", "2", "4", "ventral"]
    assert inspect_tree(open_tree(small_tree), recipe).problems[: len(faults)] == faults


def test_region_is_refused_when_its_name_occurs_twice(small_tree):
    with pytest.raises(PackagingError, match="region ventral occurs twice"):
        read(small_tree, Region("ventral", "Kastner2015", (1,)), Region("", "streams", each=True))


@pytest.mark.parametrize("line", ["ventral 5", "5", "5 ventral\n5 other", "5 ventral\n6 ventral"])
def test_damaged_colour_table_is_refused(small_tree, line):
    (small_tree / LABELS / "streams.mgz.ctab").write_text(f"0 Unknown\n\n# comment\n{line}\n")

    with pytest.raises(PackagingError, match="streams.mgz.ctab (holds the line|names the label)"):
        read(small_tree, Region("", "streams", each=True))


def test_noise_ceiling_follows_the_data_manual_in_percent():
    assert noise_ceiling([0.0, 1.0, 0.5, np.nan]) == pytest.approx(
        [0, 75, 100 * 0.25 / (0.25 + 1 / 3), np.nan], nan_ok=True
    )
    assert noise_ceiling([0.0, 1.0, 0.5, 2.0, np.nan], n_repetitions=1) == pytest.approx(
        [0, 50, 20, 80, np.nan], nan_ok=True
    )


def test_noise_ceilings_of_a_release_follow_its_ncsnr(nsd_tree, release):
    ncsnr = nibabel.load(
        nsd_tree / "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/lh.ncsnr.mgh"
    ).get_fdata()
    with xarray.open_dataarray(release / "Allen2022_fmri_surface_test.nc") as assembly:
        in_hemisphere = (assembly["subject"].values == "subj01") & (assembly["hemisphere"].values == "lh")
        ceilings = assembly["nc_testset"].values[in_hemisphere]
        vertices = assembly["vertex_index"].values[in_hemisphere]

    assert len(vertices) > 50
    np.testing.assert_allclose(ceilings, noise_ceiling(ncsnr.ravel()[vertices]), rtol=1e-6)


@pytest.mark.parametrize("hemisphere", ["lh", "rh"])
def test_ncsnr_is_read_for_the_vertices_of_regions(nsd_tree, hemisphere):
    tree = open_tree(nsd_tree)
    region_map = read_regions(tree, make_recipe())
    folder = nsd_tree / "nsddata_betas/ppdata/subj03/fsaverage/betas_fithrf_GLMdenoise_RR"
    file_values = nibabel.load(folder / f"{hemisphere}.ncsnr.mgh").get_fdata().ravel()

    np.testing.assert_array_equal(
        read_ncsnr(tree, region_map, 3, hemisphere, DEFAULT_BETAS), file_values[region_map.vertices[hemisphere]]
    )
