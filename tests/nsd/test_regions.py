import gzip
import re
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import DEFAULT_BETAS, noise_ceiling
from allen2022_surface_packaging.nsd.files import read_vertices
from allen2022_surface_packaging.nsd.inspection import inspect_tree
from allen2022_surface_packaging.nsd.regions import find_regions, read_ncsnr, read_regions
from allen2022_surface_packaging.nsd.storage import Folder, RawFile
from allen2022_surface_packaging.nsd.tree import OFFICIAL, NSDTree, open_tree
from allen2022_surface_packaging.recipe import Region, make_recipe
from support import Memory

LABELS = "nsddata/freesurfer/fsaverage/label"
KASTNER = [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 0, 0]  # V1v V1d V2v V2d V3v V3d hV4 hV4 VO1
STREAMS = [1, 0, 0, 0, 0, 0, 0, 0, 5, 5, 5, 4]  # the second hV4 vertex is also in the ventral stream


def write_labels(tree_path, atlas, labels, hemispheres=("lh", "rh")):
    for hemisphere in hemispheres:
        image = nibabel.freesurfer.MGHImage(np.array(labels, np.float32).reshape(-1, 1, 1), np.eye(4))
        nibabel.save(image, tree_path / LABELS / f"{hemisphere}.{atlas}.mgz")


@pytest.fixture
def labels_copy(tiny_tree, tmp_path):
    """A tree whose atlases a test may change."""
    shutil.copytree(tiny_tree / "nsddata", tmp_path / "nsd" / "nsddata")
    (tmp_path / "nsd" / "nsddata_betas").symlink_to(tiny_tree / "nsddata_betas")
    return tmp_path / "nsd"


@pytest.fixture
def small_tree(labels_copy):
    """A tree whose atlases have twelve vertices per hemisphere."""
    write_labels(labels_copy, "Kastner2015", KASTNER)
    write_labels(labels_copy, "streams", STREAMS)
    return labels_copy


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


def test_cortex_is_every_vertex_and_needs_no_atlas(labels_copy):
    for path in (labels_copy / LABELS).iterdir():
        path.unlink()

    region_map = read(labels_copy, Region("cortex", "cortex"))

    assert region_map.n_vertices == 1300
    assert vertices_of(region_map, "rh") == {"cortex": list(range(1300))}
    assert region_map.n_read_vertices == 2 * 1300


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


def test_region_is_kept_when_it_is_empty_in_one_hemisphere(small_tree):
    write_labels(small_tree, "streams", [0] * 12, hemispheres=("lh",))

    region_map = read(small_tree, Region("IT", "streams", (5,)))

    assert {h: region_map.regions[0].vertices[h].tolist() for h in ("lh", "rh")} == {"lh": [], "rh": [8, 9, 10]}
    assert region_map.columns(region_map.regions[0]).tolist() == [0, 1, 2]


def test_region_is_refused_when_no_vertex_has_its_named_label(small_tree):
    """The colour table names the label 6, but no vertex has it."""
    with pytest.raises(PackagingError, match="region 1, labels is 6, expected labels of vertices in .*lh.streams.mgz"):
        read(small_tree, Region("a", "streams", ("lateral",)))


def test_region_is_refused_when_its_atlas_is_empty(small_tree):
    write_labels(small_tree, "streams", [0] * 12)

    with pytest.raises(
        PackagingError, match=r"region 2, labels is empty, expected .* or rh: none\. Is it NSD's streams"
    ):
        read(small_tree, Region("a", "Kastner2015", (1,)), Region("b", "streams"))


@pytest.mark.parametrize(("n_labels", "end"), [(12, ", 12"), (13, ", 12, and 1 more")])
def test_first_twelve_labels_of_an_atlas_are_named_in_messages(small_tree, n_labels, end):
    write_labels(small_tree, "many", np.arange(n_labels + 1))

    with pytest.raises(PackagingError, match=rf"or rh: 1, 2, 3, .*{end}\. Is it NSD's many atlas\?"):
        read(small_tree, Region("a", "many", (99,)))


@pytest.mark.parametrize("label", [0.5, 4.9999995, np.inf, -np.inf, 2.0**31, -1e30])
@pytest.mark.parametrize("labels", [(), (5,)])
def test_atlas_is_refused_when_a_label_is_no_whole_number(small_tree, label, labels):
    """It is no label of any region, so a region would silently lose the vertex."""
    write_labels(small_tree, "streams", [*STREAMS[:9], label, *STREAMS[10:]], hemispheres=("rh",))

    with pytest.raises(PackagingError, match=r"rh.streams.mgz holds \S+ at vertex 9, expected whole numbers"):
        read(small_tree, Region("all", "streams", labels))


def test_vertex_without_a_label_may_be_nan(small_tree):
    write_labels(small_tree, "streams", [np.nan, *STREAMS[1:]])

    assert vertices_of(read(small_tree, Region("all", "streams")), "lh") == {"all": [8, 9, 10, 11]}


@pytest.mark.parametrize(
    ("names", "labels", "name"),
    [
        ("4 V1.v\n5 V1_v\n", (), "V1_v"),
        ("4 V1ä\n5 V1ö\n", (4, 5), "V1_"),
        ("4 streams_5\n", (), "streams_5"),  # the default name of the label 5
    ],
)
def test_labels_that_would_be_one_region_are_refused(small_tree, names, labels, name):
    (small_tree / LABELS / "streams.mgz.ctab").write_text(names, encoding="utf-8")

    with pytest.raises(
        PackagingError, match=f"region 1, each is true, but the labels 4 and 5 .* the region {name}\\. "
    ):
        read(small_tree, Region("", "streams", labels, each=True))


def test_label_whose_name_is_too_long_for_a_region_is_refused(small_tree):
    (small_tree / LABELS / "streams.mgz.ctab").write_text(f"4 {'a' * 80}\n5 {'b' * 81}\n")

    with pytest.raises(PackagingError, match="region 1, each is true, but the name of the label 5 has 81 letters"):
        read(small_tree, Region("", "streams", each=True))
    assert list(vertices_of(read(small_tree, Region("", "streams", (4,), each=True)), "lh")) == ["a" * 80]


@pytest.mark.parametrize("each", [True, False])
def test_label_is_refused_when_it_is_listed_by_name_and_by_number(small_tree, each):
    with pytest.raises(PackagingError, match=r"labels is \['ventral', 5\], but two of them are one label"):
        read(small_tree, Region("" if each else "a", "streams", ("ventral", 5), each=each))


def test_name_of_a_label_becomes_a_region_name_without_other_characters(small_tree):
    (small_tree / LABELS / "streams.mgz.ctab").write_text("1 L_V1.a/b\n4 mid-parietal_2\n")

    names = list(vertices_of(read(small_tree, Region("", "streams", each=True)), "lh"))

    assert names == ["L_V1_a_b", "mid-parietal_2", "streams_5"]


@pytest.mark.parametrize(
    ("hemispheres", "message"),
    [(("rh",), r"'streams', but \S+rh.streams.mgz is missing. Download it \(nsddata/freesurfer/fsaverage/label/lh"),
     (("lh", "rh"), r"'streams', but \S+lh.streams.mgz and \S+rh.streams.mgz are missing")],
)  # fmt: skip
def test_missing_labels_are_named_with_their_region(small_tree, hemispheres, message):
    for hemisphere in hemispheres:
        (small_tree / LABELS / f"{hemisphere}.streams.mgz").unlink()

    with pytest.raises(PackagingError, match=rf"region 2, atlas is {message}"):
        read(small_tree, Region("a", "Kastner2015", (1,)), Region("b", "streams"), Region("c", "streams", (5,)))


@pytest.mark.parametrize(("atlas", "hemisphere"), [("Kastner2015", "rh"), ("streams", "lh")])
def test_labels_are_refused_when_they_have_another_vertex_count(small_tree, atlas, hemisphere):
    write_labels(small_tree, atlas, [1, 5, 5], hemispheres=(hemisphere,))

    message = rf"{hemisphere}.{atlas}.mgz holds 3 vertices, but \S+lh.Kastner2015.mgz holds 12"
    with pytest.raises(PackagingError, match=message):
        read(small_tree, Region("V1", "Kastner2015", (1,)), Region("IT", "streams", (5,)))


def test_ncsnr_is_refused_when_it_has_another_vertex_count(small_tree):
    region_map = read(small_tree, Region("IT", "streams", (5,)))  # 12 vertices, where the betas have 1300

    with pytest.raises(
        PackagingError, match=r"rh.ncsnr.mgh holds 1,300 vertices, but the labels have 12\. .*nativesurface"
    ):
        read_ncsnr(open_tree(small_tree), region_map, 4, "rh", DEFAULT_BETAS)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_ncsnr_is_refused_when_it_is_not_float32(tiny_tree, tmp_path, dtype):
    tree_path = Path(shutil.copytree(tiny_tree, tmp_path / "nsd"))
    path = tree_path / "nsddata_betas/ppdata/subj04/fsaverage" / DEFAULT_BETAS / "lh.ncsnr.mgh"
    values = np.asarray(nibabel.load(path).dataobj).astype(dtype)
    nibabel.save(nibabel.freesurfer.MGHImage(values, np.eye(4)), path)
    tree = open_tree(tree_path)

    with pytest.raises(PackagingError, match=rf"lh.ncsnr.mgh holds {np.dtype(dtype)}, expected float32"):
        read_ncsnr(tree, read_regions(tree, make_recipe()), 4, "lh", DEFAULT_BETAS)


@pytest.mark.parametrize("shape", [(1, 1300, 1), (1, 1, 1300), (2, 650, 1), (650, 1, 2)])
def test_values_of_vertices_are_refused_in_another_shape(tmp_path, shape):
    image = nibabel.freesurfer.MGHImage(np.zeros(shape, np.float32), np.eye(4))
    nibabel.save(image, tmp_path / "lh.ncsnr.mgh")

    with pytest.raises(PackagingError, match=re.escape(f"has the shape {shape}, expected (n_vertices, 1, 1)")):
        read_vertices(RawFile(Folder(tmp_path), "lh.ncsnr.mgh", "lh.ncsnr.mgh"))


def make_atlas_files(atlas, labels):
    files = {}
    for hemisphere, values in labels.items():
        image = nibabel.freesurfer.MGHImage(np.array(values, np.int32).reshape(-1, 1, 1), np.eye(4))
        files[f"{OFFICIAL.labels}/{hemisphere}.{atlas}.mgz"] = gzip.compress(image.to_bytes(), compresslevel=1)
    return files


@given(st.data())
def test_regions_of_any_atlases_agree_with_plain_selection(data):
    n_vertices = data.draw(st.integers(1, 12))
    values = st.lists(st.integers(-1, 4), min_size=n_vertices, max_size=n_vertices)
    labels = {atlas: {"lh": data.draw(values), "rh": data.draw(values)} for atlas in ("a", "b")}
    tree = NSDTree(Memory(make_atlas_files("a", labels["a"]) | make_atlas_files("b", labels["b"])), OFFICIAL)
    chosen = st.tuples(st.sampled_from("ab"), st.lists(st.integers(1, 4), unique=True, max_size=3).map(tuple))
    regions = [
        Region(f"r{number}", atlas, region_labels)
        for number, (atlas, region_labels) in enumerate(data.draw(st.lists(chosen, min_size=1, max_size=4)))
    ]
    present = {
        atlas: {v for hemisphere in values.values() for v in hemisphere if v > 0} for atlas, values in labels.items()
    }
    recipe = replace(make_recipe((1,), name="x"), regions=tuple(regions))
    if any(not present[r.atlas] or not set(r.labels) <= present[r.atlas] for r in regions):
        with pytest.raises(PackagingError, match=r"recipe \(x\): region \d, labels is"):
            read_regions(tree, recipe)
        return
    region_map = read_regions(tree, recipe)

    def has(region, hemisphere, vertex):
        label = labels[region.atlas][hemisphere][vertex]
        return label in region.labels if region.labels else label > 0

    read_vertices = [(h, v) for h in ("lh", "rh") for v in range(n_vertices) if any(has(r, h, v) for r in regions)]
    assert [(h, v) for h in ("lh", "rh") for v in region_map.vertices[h].tolist()] == read_vertices
    assert (region_map.n_vertices, region_map.n_read_vertices) == (n_vertices, len(read_vertices))
    assert [region.name for region in region_map.regions] == [region.name for region in regions]
    for region, result in zip(regions, region_map.regions, strict=True):
        members = [(h, v) for h in ("lh", "rh") for v in range(n_vertices) if has(region, h, v)]
        assert [(h, v) for h in ("lh", "rh") for v in result.vertices[h].tolist()] == members
        assert region_map.columns(result).tolist() == [read_vertices.index(member) for member in members]
        assert result.n_vertices == len(members)
        assert result.labels == (tuple(sorted(region.labels)) or tuple(sorted(present[region.atlas])))


@pytest.mark.parametrize(
    "line",
    ["ventral 5", "5", "5 ventral\n5 other", "5 ventral\n6 ventral", "--5 ventral", "-", f"{'5' * 5000} ventral"],
)
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


@pytest.fixture(scope="module")
def tiny_release(tiny_tree, tmp_path_factory):
    path = tmp_path_factory.mktemp("releases") / "tiny"
    build_release(tiny_tree, path, make_recipe((1, 4), name="Two"))
    return path


def test_noise_ceilings_of_a_release_follow_its_ncsnr(tiny_tree, tiny_release):
    ncsnr = nibabel.load(
        tiny_tree / "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/lh.ncsnr.mgh"
    ).get_fdata()
    with xarray.open_dataarray(tiny_release / "Two_test.nc") as assembly:
        in_hemisphere = (assembly["subject"].values == "subj01") & (assembly["hemisphere"].values == "lh")
        ceilings = assembly["nc_testset"].values[in_hemisphere]
        vertices = assembly["vertex_index"].values[in_hemisphere]

    assert len(vertices) > 50
    np.testing.assert_allclose(ceilings, noise_ceiling(ncsnr.ravel()[vertices]), rtol=1e-6)


@pytest.mark.parametrize("hemisphere", ["lh", "rh"])
def test_ncsnr_is_read_for_the_vertices_of_regions(tiny_tree, hemisphere):
    tree = open_tree(tiny_tree)
    region_map = read_regions(tree, make_recipe())
    folder = tiny_tree / "nsddata_betas/ppdata/subj04/fsaverage/betas_fithrf_GLMdenoise_RR"
    file_values = nibabel.load(folder / f"{hemisphere}.ncsnr.mgh").get_fdata().ravel()

    np.testing.assert_array_equal(
        read_ncsnr(tree, region_map, 4, hemisphere, DEFAULT_BETAS), file_values[region_map.vertices[hemisphere]]
    )
