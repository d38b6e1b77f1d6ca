"""The reference itself, on a tree of three vertices and eight trials whose results can be computed by hand."""

import ast
import inspect
from dataclasses import replace

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
import scipy.io
import xarray

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import Recipe, Region
from allen2022_surface_packaging.verify import reference
from allen2022_surface_packaging.verify.reference import read_reference

NAN, ROOT = np.nan, 2**0.5
A, B, C = 3, 5, 7  # the images of subject 1, by nsd_id; A and B are shared
# In each row the trials of one vertex: session 1 shows A A B B, and session 2 shows A B C C.
BETAS = [
    ([1, 1, -1, -1], [15, 5, 15, 5]),  # both sessions become 1 and -1
    ([NAN, 1, -1, -1], [15, 5, 15, 5]),  # session 1 becomes NaN
    ([2, 0, 0, -2], [7, 7, 7, 7]),  # session 1 becomes +- the root of 2, and session 2 becomes 0
]
TRAIN = [[-1], [-1], [-1]]  # B, by vertex
TEST = [[1, 1, 1], [NAN, NAN, 1], [3, 0, 0]]  # the repetitions of A
RECIPE = Recipe("tiny", (1,), (Region("V1", "atlas", (1, 2)),), train_fraction=0.5)


def write_mgh(path, values) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(
        nibabel.freesurfer.MGHImage(np.array(values, np.float32).reshape(3, 1, 1, *np.shape(values[0])), np.eye(4)),
        path,
    )


@pytest.fixture
def tree(tmp_path):
    """The flat layout. All files of rh are as those of lh, but for the labels and the noise-ceiling SNR."""
    for hemisphere in ("lh", "rh"):
        for session in (0, 1):
            betas = [vertex[session] for vertex in BETAS]
            write_mgh(tmp_path / f"subj01/betas/{hemisphere}.betas_session{session + 1:02d}.mgh", betas)
    write_mgh(tmp_path / "subj01/betas/lh.ncsnr.mgh", [0, (1 / 3) ** 0.5, 1])
    write_mgh(tmp_path / "subj01/betas/rh.ncsnr.mgh", [NAN, 0, 0])
    write_mgh(tmp_path / "fsaverage_labels/lh.atlas.mgz", [1, 2, 2])
    write_mgh(tmp_path / "fsaverage_labels/rh.atlas.mgz", [0, 4, 0])
    (tmp_path / "fsaverage_labels/atlas.mgz.ctab").write_text(
        "\ufeff0 Unknown 0 0 0 0\n1 V1v 1 1 1 0\n2\tV1 d 1 1 1\n4 a/b\n"
    )
    for hemisphere, copied, labels in (("lh", [3, 1, 3], [0, 0, 1]), ("rh", [2, 3, 2], [1, 0, 1])):
        write_mgh(tmp_path / f"subj01/transforms/{hemisphere}.white-to-fsaverage.mgz", copied)
        write_mgh(tmp_path / f"subj01/label/{hemisphere}.floc-faces.mgz", labels)
    (tmp_path / "subj01/label/floc-faces.mgz.ctab").write_text("1 OFA\n")
    (tmp_path / "metadata").mkdir()
    design = {
        "masterordering": np.array([[1, 1, 2, 2, 1, 2, 3, 3]], np.uint16),
        "subjectim": np.array([[A, B, C], [A, B, 8]], np.uint32) + 1,
        "sharedix": np.array([[A, B]], np.uint16) + 1,
    }
    scipy.io.savemat(tmp_path / "metadata/nsd_expdesign.mat", design)
    with h5py.File(tmp_path / "nsd_stimuli.hdf5", "w") as file:
        file["imgBrick"] = np.arange(9 * 12, dtype=np.uint8).reshape(9, 2, 2, 3)
    return tmp_path


def compute(tree, recipe=RECIPE, **options):
    """Return the reference, and the values of all neuroids of lh."""
    expected = read_reference(open_tree(tree), recipe, **options)
    (block,) = expected.blocks(expected.neuroids[expected.neuroids["hemisphere"] == "lh"])
    values, facts = expected.values(block)
    return expected, values, facts["is_valid"]


def test_values_of_the_published_method(tree):
    expected, values, is_valid = compute(tree)

    assert {split: ids.tolist() for split, ids in expected.splits.items()} == {"train": [B], "test": [A]}
    np.testing.assert_allclose(values["train"].T, TRAIN, atol=1e-6)
    np.testing.assert_allclose(values["test"].T, TEST, atol=1e-6)
    assert is_valid.tolist() == [True, False, True]
    assert (expected.n_vertices, expected.n_trials_per_session, len(expected.shown[1])) == (3, 4, 8)


def test_values_with_statistics_of_train_images_alone(tree):
    _, values, _ = compute(tree, replace(RECIPE, standardize_on="train"))

    # The only train image is the mean, and its deviation, zero, counts as 1.
    third = ROOT / 3
    np.testing.assert_allclose(values["train"].T, [[0], [0], [0]], atol=1e-6)
    np.testing.assert_allclose(values["test"].T, [[2, 2, 2], [NAN, NAN, 2], [ROOT + third, third, third]], atol=1e-6)


def test_values_of_images_that_only_one_subject_saw(tree):
    expected, values, _ = compute(tree, replace(RECIPE, pool="own", standardize_on="train"))

    assert {split: ids.tolist() for split, ids in expected.splits.items()} == {"train": [C], "test": [A, B]}
    np.testing.assert_allclose(values["train"].T, [[0], [0], [0]], atol=1e-6)
    of_a_and_b = [[1, 1, 1, -1, -1, -1], [NAN, NAN, 1, NAN, NAN, -1], [ROOT, 0, 0, 0, -ROOT, 0]]
    np.testing.assert_allclose(values["test"].T, of_a_and_b, atol=1e-6)


def test_prepared_averages_take_the_place_of_averages(tree):
    (tree / "assemblies").mkdir()
    xarray.DataArray(
        np.array([[6.0, 2, np.inf], [10, 4, 1]], np.float32),
        dims=("presentation", "neuroid"),
        coords={
            "nsd_id": ("presentation", [A, B]),
            "subject": ("neuroid", ["subj01"] * 3),
            "hemisphere": ("neuroid", ["lh"] * 3),
            "vertex_index": ("neuroid", [2, 1, 0]),
        },
    ).to_netcdf(tree / "assemblies/Allen2022_surface.V1.nc")

    _, values, is_valid = compute(tree, from_region_assemblies=True)

    # Means 1, 3 and 8, deviations 1 (for 0), 1 and 2. The infinite average of vertex 0 counts as NaN.
    np.testing.assert_allclose(values["train"].T, [[0], [1], [1]], atol=1e-6)
    test = [[0, 0, 0], [NAN, NAN, -2], [(ROOT - 8) / 2, -4, -4]]
    np.testing.assert_allclose(values["test"].T, test, atol=1e-6)
    assert is_valid.tolist() == [False, False, True]


REGIONS = {
    "labels by number": (Region("V1", "atlas", (1, 2)), [("V1", (1, 2), ["lh0", "lh1", "lh2"])]),
    "a label by name": (Region("V1", "atlas", ("V1v",)), [("V1", (1,), ["lh0"])]),
    "all of an atlas": (Region("all", "atlas"), [("all", (1, 2, 4), ["lh0", "lh1", "lh2", "rh1"])]),
    "each label": (
        Region("", "atlas", each=True),
        [("V1v", (1,), ["lh0"]), ("V1_d", (2,), ["lh1", "lh2"]), ("a_b", (4,), ["rh1"])],
    ),
    "labels on the subject's surface": (Region("OFA", "floc-faces", ("OFA",)), [("OFA", (1,), ["lh0", "lh2", "rh1"])]),
    "whole cortex": (Region("cortex", "cortex"), [("cortex", (), ["lh0", "lh1", "lh2", "rh0", "rh1", "rh2"])]),
}


@pytest.mark.parametrize("name", REGIONS)
def test_regions_of_a_recipe(tree, name):
    region, given = REGIONS[name]
    expected = read_reference(open_tree(tree), replace(RECIPE, regions=(region,)))

    sizes = [(r.name, r.labels, r.n_vertices) for r in expected.regions]
    assert sizes == [(name, labels, {"subj01": len(vertices)}) for name, labels, vertices in given]
    neuroids = expected.neuroids
    for region_name, _, vertices in given:
        rows = neuroids[neuroids["region"] == region_name]
        assert (rows["hemisphere"] + rows["vertex_index"].astype(str)).tolist() == vertices
        ids = [f"subj01_{vertex[:2]}_{region_name}_v{i:05d}" for i, vertex in enumerate(vertices)]
        assert rows["neuroid_id"].tolist() == ids


def test_label_that_the_atlas_lacks_is_named(tree):
    for label in (3, "V9"):
        with pytest.raises(PackagingError, match=str(label)):
            read_reference(open_tree(tree), replace(RECIPE, regions=(Region("V1", "atlas", (label,)),)))


def test_coordinates_and_pixels(tree):
    expected = read_reference(open_tree(tree), replace(RECIPE, regions=(Region("cortex", "cortex"),)))

    np.testing.assert_allclose(expected.neuroids["nc_testset"], [0, 50, 75, NAN, 0, 0])  # in percent
    rows = [["nsd_00003", A, 0], ["nsd_00003", A, 1], ["nsd_00003", A, 2]]
    assert expected.presentations("test").values.tolist() == rows
    assert expected.presentations("train").values.tolist() == [["nsd_00005", B]]
    assert [pixels.tolist() for pixels in expected.pixels(np.array([1]))] == [
        [[[12, 13, 14], [15, 16, 17]], [[18, 19, 20], [21, 22, 23]]]
    ]


@pytest.mark.parametrize("is_complete", [True, False])
def test_tables_hold_coco_ids_if_all_are_known(tree, is_complete):
    rows = {"nsdId": [A, 4, B], "cocoId": ["11", "", "13" if is_complete else ""], "cocoSplit": ["train2017"] * 3}
    table = pd.DataFrame(rows | {"cropBox": ["(0, 0, 0.5, 0.25)"] * 3})
    table.to_csv(tree / "metadata/nsd_stim_info_merged.csv")

    tables = compute(tree)[0].tables()

    assert tables["train_test_split.csv"].values.tolist() == [["nsd_00003", A, "test"], ["nsd_00005", B, "train"]]
    if not is_complete:
        assert len(tables) == 3
        assert list(tables["stimulus_metadata_test.csv"]) == ["stimulus_id", "nsd_id"]
        return
    assert tables["stimulus_metadata_train.csv"].values.tolist() == [["nsd_00005", B, 13]]
    assert tables["stimulus_origin.csv"].values.tolist() == [
        ["nsd_00003", A, 11, "train2017", 0, 0, 0.5, 0.25],
        ["nsd_00005", B, 13, "train2017", 0, 0, 0.5, 0.25],
    ]


def test_reference_shares_no_arithmetic_and_no_reader_with_the_build():
    nodes = ast.walk(ast.parse(inspect.getsource(reference)))
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.level}

    assert imported == {"arrays", "errors", "facts", "nsd.storage", "nsd.tree", "recipe", "release"}
    assert not hasattr(reference, "noise_ceiling")
