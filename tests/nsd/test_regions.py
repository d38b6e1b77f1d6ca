import nibabel
import numpy as np
import pytest

from allen2022_surface_packaging.nsd.files import open_tree
from allen2022_surface_packaging.nsd.regions import noise_ceiling, read_ncsnr, read_regions, subject_neuroids

LABELS = "nsddata/freesurfer/fsaverage/label"
KASTNER = [0, 1, 2, 3, 4, 5, 6, 7, 7, 8, 0, 0]  # V1v V1d V2v V2d V3v V3d hV4 hV4 VO1
STREAMS = [1, 0, 0, 0, 0, 0, 0, 0, 5, 5, 5, 4]  # the second hV4 vertex lies in the ventral stream too


@pytest.fixture
def labelled_tree(own_tree):
    for hemisphere in ("lh", "rh"):
        for atlas, labels in (("Kastner2015", KASTNER), ("streams", STREAMS)):
            image = nibabel.freesurfer.MGHImage(np.array(labels, np.float32).reshape(-1, 1, 1), np.eye(4))
            nibabel.save(image, own_tree / LABELS / f"{hemisphere}.{atlas}.mgz")
    return open_tree(own_tree)


def test_regions_are_the_published_labels_of_the_two_atlases(labelled_tree):
    members = read_regions(labelled_tree).members

    found = {region: own[own.hemisphere == "rh"].vertex_index.tolist() for region, own in members.groupby("region")}
    assert found == {"V1": [1, 2], "V2": [3, 4], "V4": [7, 8], "IT": [8, 9, 10]}


def test_a_shared_vertex_is_read_once_and_kept_by_both_regions(labelled_tree):
    region_map = read_regions(labelled_tree)

    assert region_map.vertices["lh"].tolist() == [1, 2, 3, 4, 7, 8, 9, 10]
    both = region_map.members.query("hemisphere == 'rh' and vertex_index == 8")
    assert both.region.tolist() == ["V4", "IT"]
    assert both.column.nunique() == 1
    assert both.column.iloc[0] == 8 + 5  # after the eight of lh, the sixth of rh


def test_neuroids_are_numbered_through_lh_and_then_rh(labelled_tree):
    region_map = read_regions(labelled_tree)
    neuroids = subject_neuroids(region_map, 7, np.zeros(16))

    own = neuroids[neuroids.region == "IT"].neuroid_id.tolist()
    assert own == [f"subj07_{h}_IT_v{n:05d}" for h, n in zip(["lh"] * 3 + ["rh"] * 3, range(6), strict=True)]


def test_noise_ceiling_is_the_manuals_formula_in_percent():
    assert noise_ceiling(np.array([0.0, 1.0, np.nan])) == pytest.approx([0, 75, np.nan], nan_ok=True)
    assert noise_ceiling(np.array([2.0]), n_repetitions=1) == pytest.approx([80])


def test_ncsnr_is_read_for_the_vertices_of_the_regions(nsd_tree):
    tree = open_tree(nsd_tree)
    region_map = read_regions(tree)
    folder = nsd_tree / "nsddata_betas/ppdata/subj03/fsaverage/betas_fithrf_GLMdenoise_RR"
    expected = [
        nibabel.load(folder / f"{h}.ncsnr.mgh").get_fdata().ravel()[region_map.vertices[h]] for h in ("lh", "rh")
    ]

    np.testing.assert_array_equal(read_ncsnr(tree, region_map, 3), np.concatenate(expected))
