import nibabel
import numpy as np
import pytest
import xarray

from allen2022_surface_packaging.nsd.facts import noise_ceiling
from allen2022_surface_packaging.nsd.regions import list_neuroids, read_ncsnr, read_regions
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import PUBLISHED_REGIONS

LABELS = "nsddata/freesurfer/fsaverage/label"
KASTNER = [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 0, 0]  # V1v V1d V2v V2d V3v V3d hV4 hV4 VO1
STREAMS = [1, 0, 0, 0, 0, 0, 0, 0, 5, 5, 5, 4]  # the second hV4 vertex is also in the ventral stream


@pytest.fixture
def region_map(tree_copy):
    """The regions of twelve vertices per hemisphere."""
    for hemisphere in ("lh", "rh"):
        for atlas, labels in (("Kastner2015", KASTNER), ("streams", STREAMS)):
            image = nibabel.freesurfer.MGHImage(np.array(labels, np.float32).reshape(-1, 1, 1), np.eye(4))
            nibabel.save(image, tree_copy / LABELS / f"{hemisphere}.{atlas}.mgz")
    return read_regions(open_tree(tree_copy), PUBLISHED_REGIONS)


def test_regions_have_the_published_labels_of_both_atlases(region_map):
    rh_members = region_map.members[region_map.members.hemisphere == "rh"]

    vertices = {region: members.vertex_index.tolist() for region, members in rh_members.groupby("region")}
    assert vertices == {"V1": [1, 2], "V2": [3, 4], "V4": [7, 8], "IT": [8, 9, 10]}


def test_shared_vertex_is_read_once_and_kept_by_both_regions(region_map):
    assert region_map.vertices["lh"].tolist() == [1, 2, 3, 4, 7, 8, 9, 10]
    shared_vertex = region_map.members.query("hemisphere == 'rh' and vertex_index == 8")
    assert shared_vertex.region.tolist() == ["V4", "IT"]
    assert shared_vertex.column.nunique() == 1
    assert shared_vertex.column.iloc[0] == 8 + 5  # after the eight vertices of lh, the sixth of rh


def test_neuroids_are_numbered_through_lh_then_rh(region_map):
    neuroids = list_neuroids(region_map, 7, np.zeros(16))

    it_ids = neuroids[neuroids.region == "IT"].neuroid_id.tolist()
    assert it_ids == [f"subj07_{h}_IT_v{n:05d}" for h, n in zip(["lh"] * 3 + ["rh"] * 3, range(6), strict=True)]


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
    region_map = read_regions(tree, PUBLISHED_REGIONS)
    folder = nsd_tree / "nsddata_betas/ppdata/subj03/fsaverage/betas_fithrf_GLMdenoise_RR"
    file_values = nibabel.load(folder / f"{hemisphere}.ncsnr.mgh").get_fdata().ravel()

    np.testing.assert_array_equal(
        read_ncsnr(tree, region_map, 3, hemisphere), file_values[region_map.vertices[hemisphere]]
    )
