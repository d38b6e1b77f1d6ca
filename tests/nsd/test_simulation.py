import itertools
import shutil
from collections import Counter

import nibabel
import numpy as np
import pytest
import scipy.io
import xarray as xr
from nibabel.freesurfer.mghformat import MGHHeader
from scipy.spatial import KDTree

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.nsd.atlases import make_labels, vertex_directions
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import make_recipe
from support import run_cli

BETAS = "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR"


def test_betas_have_the_header_type_and_size_of_nsd(nsd_tree):
    path = nsd_tree / BETAS / "lh.betas_session01.mgh"
    with path.open("rb") as file:
        header = MGHHeader.from_fileobj(file)

    assert header.get_data_shape() == (642, 1, 1, 300)
    assert header.get_data_dtype() == np.dtype(">f4")
    assert int(header["version"]) == 1
    first_trial = np.fromfile(path, ">f4", 642, offset=284)
    np.testing.assert_array_equal(first_trial, np.asarray(nibabel.load(path).dataobj)[:, 0, 0, 0])


def test_design_has_the_integer_types_and_id_bases_of_nsd(nsd_tree):
    design = scipy.io.loadmat(nsd_tree / "nsddata/experiments/nsd/nsd_expdesign.mat")

    types = {name: (design[name].dtype, design[name].shape) for name in ("masterordering", "subjectim", "sharedix")}
    assert types == {
        "masterordering": (np.uint16, (1, 1200)),
        "subjectim": (np.int32, (8, 400)),
        "sharedix": (np.int32, (1, 300)),
    }
    assert design["masterordering"].min() == design["subjectim"].min() == 1
    np.testing.assert_array_equal(design["subjectim"][:, :300], np.tile(design["sharedix"], (8, 1)))


def test_written_ncsnr_agrees_with_the_simulated_responses(tmp_path):
    """Repetitions separate signal from noise, as in NSD's estimate of ncsnr, over enough trials to be certain."""
    simulate_tree(tmp_path / "nsd", TreeSize(subjects=(1,), n_sessions=1, n_trials=9000, n_vertices=60, image_size=8))
    design = scipy.io.loadmat(tmp_path / "nsd/nsddata/experiments/nsd/nsd_expdesign.mat")
    betas = np.asarray(nibabel.load(tmp_path / "nsd" / BETAS / "lh.betas_session01.mgh").dataobj)[:, 0, 0, :].T
    order = np.argsort(design["masterordering"].ravel(), kind="stable")
    repetitions = betas[order].reshape(-1, 3, 60).astype(np.float64)
    noise = repetitions.var(axis=1, ddof=1).mean(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        signal_to_noise = (repetitions.var(axis=(0, 1)) - noise) / noise  # of variances; its standard error is 0.02
    written = nibabel.load(tmp_path / "nsd" / BETAS / "lh.ncsnr.mgh").get_fdata().ravel()
    valid = np.isfinite(signal_to_noise)

    assert valid.sum() >= 56
    np.testing.assert_allclose(signal_to_noise[valid], written[valid] ** 2, rtol=0.1, atol=0.08)


def test_vertices_of_fsaverage_copy_those_of_each_surface(nsd_tree):
    """In NSD, 2.4 to 8.3 % of the vertices of a hemisphere are copies of another one."""
    maps, files = {}, "nsddata/ppdata/subj0{}/transforms/{}.white-to-fsaverage.mgz"
    for subject, hemisphere in itertools.product(range(1, 9), ("lh", "rh")):
        index = np.asarray(nibabel.load(nsd_tree / files.format(subject, hemisphere)).dataobj).ravel()
        assert (index.dtype, index.shape, index.min() >= 1) == (">i4", (642,), True)
        assert 0.02 < 1 - len(np.unique(index)) / 642 < 0.09
        maps[subject, hemisphere] = index
        path = nsd_tree / BETAS.replace("subj01", f"subj0{subject}") / f"{hemisphere}.betas_session02.mgh"
        betas = np.asarray(nibabel.load(path).dataobj)[:, 0, 0]
        vertices, first, copies = np.unique(index, return_index=True, return_inverse=True)
        np.testing.assert_array_equal(betas, betas[first][copies])
        assert len(np.unique(betas[first], axis=0)) > len(vertices) - 3  # of vertices that are NaN all are equal

    assert len({index.tobytes() for index in maps.values()}) == 16  # no two hemispheres are alike


@pytest.mark.parametrize("hemisphere", ["lh", "rh"])
def test_signal_to_noise_varies_smoothly_and_is_highest_in_early_visual_cortex(hemisphere, nsd_tree):
    labels = make_labels(642, hemisphere)
    directions = vertex_directions(642, hemisphere)
    neighbours = KDTree(directions).query(directions, k=2)[1][:, 1]
    rows = []
    for subject in range(1, 9):
        path = nsd_tree / BETAS.replace("subj01", f"subj0{subject}") / f"{hemisphere}.ncsnr.mgh"
        ncsnr = nibabel.load(path).get_fdata().ravel()
        valid = (ncsnr > 0) & (ncsnr[neighbours] > 0)
        logarithms = np.log(ncsnr[valid]), np.log(ncsnr[neighbours][valid])
        assert np.corrcoef(*logarithms)[0, 1] > 0.85
        members = [np.isin(labels["Kastner2015"], (1, 2, 3, 4)), labels["streams"] == 5, labels["streams"] == 0]
        rows.append([np.median(ncsnr[chosen]) for chosen in members])

    early, ventral, elsewhere = np.median(rows, axis=0)
    assert early > 1.3 * ventral > 2 * elsewhere
    assert np.std([early for early, *_ in rows]) > 0.02  # subjects differ


def test_trees_are_equal_when_their_seeds_are_equal(tmp_path):
    for name, seed in (("first", 3), ("same_seed", 3), ("other_seed", 4)):
        size = TreeSize(subjects=(2,), n_sessions=1, n_trials=30, n_vertices=60, image_size=8, seed=seed)
        simulate_tree(tmp_path / name, size)
    files = [path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*betas_session*")]

    assert len(files) == 4  # of two hemispheres and two versions
    for file in files:
        first, same, other = ((tmp_path / name / file).read_bytes() for name in ("first", "same_seed", "other_seed"))
        assert first == same != other


def test_full_size_tree_has_the_sizes_of_nsd(tmp_path):
    size = TreeSize(subjects=(4,), n_sessions=1, n_trials=30, n_vertices=163_842, image_size=8)
    simulate_tree(tmp_path / "nsd", size)
    build_release(tmp_path / "nsd", tmp_path / "release", make_recipe((4,), name="One"))

    with xr.open_dataarray(tmp_path / "release/One_test.nc") as assembly:
        counts = Counter(assembly["region"].values.tolist())
    assert counts == {"V1": 4276, "V2": 3391, "V4": 914, "IT": 19_065}
    left, right = (tmp_path / f"nsd/nsddata/freesurfer/subj04/label/{side}h.floc-faces.mgz" for side in "lr")
    shutil.copyfile(left, right)  # a longer file, which has a label for every vertex that fsaverage copies
    result = run_cli("check", tmp_path / "nsd", "--recipe", "faces", "--subjects", 4)
    assert f"{right} holds 228,495 vertices, expected 227,262" in result.stdout
    left, right = (tmp_path / f"nsd/nsddata/ppdata/subj04/transforms/{side}h.white-to-fsaverage.mgz" for side in "lr")
    shutil.copyfile(left, right)
    result = run_cli("check", tmp_path / "nsd", "--recipe", "faces", "--subjects", 4)
    assert f"{right} refers to vertex 228,4" in result.stdout


def test_recipe_with_the_real_names_of_areas_can_be_rehearsed(tmp_path):
    simulate_tree(tmp_path / "nsd", TreeSize(subjects=(1,), n_sessions=1, n_trials=90, image_size=8))
    text = 'name = "real"\nsubjects = [1]\n'
    for name, atlas, labels in (
        ("FFC", "HCP_MMP1", ["FFC"]),
        ("motor", "HCP_MMP1", ["4", "p9-46v"]),
        ("PPA", "Kastner2015", ["PHC1", "PHC2"]),
    ):
        text += f'[[region]]\nname = "{name}"\natlas = "{atlas}"\nlabels = {labels}\n'
    (tmp_path / "real.toml").write_text(text)

    result = run_cli("build", tmp_path / "nsd", tmp_path / "release", "--recipe", tmp_path / "real.toml")

    assert result.returncode == 0, result.stderr
    with xr.open_dataarray(tmp_path / "release/real_test.nc") as assembly:
        assert set(assembly["region"].values.tolist()) == {"FFC", "motor", "PPA"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sessions", 1, "--trials", 301], "expected a multiple of 3"),
        (["--vertices", 10], "--vertices 10 is too few"),
        (["--expdesign", "missing.mat"], "missing.mat is missing"),
    ],
)
def test_tree_of_an_impossible_size_is_refused(tmp_path, options, message):
    result = run_cli("simulate", tmp_path / "nsd", *options)

    assert result.returncode == 1
    assert message in result.stderr
    assert not list(tmp_path.iterdir())


def test_simulation_is_refused_when_the_folder_holds_files(tmp_path):
    (tmp_path / "mine").write_text("mine")

    assert "exists already and is not empty" in run_cli("simulate", tmp_path).stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
