"""Releases of every recipe that ships, compared with the plain reference and with each other."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import xarray

import reference
from allen2022_surface_packaging.assemble import sessions
from allen2022_surface_packaging.assemble.pipeline import build_release, build_releases
from allen2022_surface_packaging.facts import SUBJECTS
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import list_recipes, read_recipe
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from allen2022_surface_packaging.verify.recomputation import recompute_release
from allen2022_surface_packaging.verify.soundness import verify_release
from support import hashes, run_cli

NEUROID_COORDINATES = ["neuroid_id", "subject", "hemisphere", "vertex_index", "region", "nc_testset"]
STREAMS = ("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal")
KASTNER = (
    *("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4", "VO1", "VO2", "PHC1", "PHC2", "MST", "hMT", "LO2", "LO1"),
    *("V3b", "V3a", "IPS0", "IPS1", "IPS2", "IPS3", "IPS4", "IPS5", "SPL1", "FEF"),
)
# What each recipe means, in the words of the reference.
EXPECTED = {
    "Allen2022_fmri_surface": {},
    "Allen2022_fmri_surface_4subj": {"subjects": (1, 2, 5, 7)},
    "leak_free": {"standardize_on": "train"},
    "fithrf": {"version": "betas_fithrf"},
    "streams": {"regions": [(name, "streams", (i,)) for i, name in enumerate(STREAMS, start=1)]},
    "kastner": {"regions": [(name, "Kastner2015", (i,)) for i, name in enumerate(KASTNER, start=1)]},
    "hcp_mmp1": {"regions": [(f"area{i:03d}", "HCP_MMP1", (i,)) for i in range(1, 181)]},
    "nsdgeneral": {"regions": [("nsdgeneral", "nsdgeneral", "all")]},
    "cortex": {"regions": [("cortex", None, "all")]},
    "subj01_own": {"subjects": (1,), "own": True, "standardize_on": "train"},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A tree with every atlas and version of the betas that the recipes use. Tests only read it."""
    root = tmp_path_factory.mktemp("raw") / "nsd"
    simulate_tree(root, TreeSize(n_sessions=6, n_trials=40, n_vertices=400, image_size=16))
    return root


@pytest.fixture(scope="module")
def releases(tree, tmp_path_factory):
    """A release of every recipe, all from one pass. Tests only read them."""
    folder = tmp_path_factory.mktemp("releases")
    build_releases(tree, {folder / name: read_recipe(name) for name in list_recipes()})
    return folder


def open_split(release, name, split):
    return xarray.open_dataarray(release / f"{name}_{split}.nc").load()


def test_a_meaning_is_known_for_every_recipe_that_ships():
    assert list_recipes() == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_release_equals_the_reference(tree, releases, name):
    expected = reference.reference_release(tree, **({"subjects": SUBJECTS} | EXPECTED[name]))

    assert min(len(expected["train_ids"]), len(expected["test_ids"])) >= 4
    for split in ("train", "test"):
        assembly = open_split(releases / name, name, split)
        np.testing.assert_allclose(assembly.values[:, :, 0], expected[split], rtol=0, atol=1e-5)
        n_repetitions = 3 if split == "test" else 1
        assert assembly["nsd_id"].values.tolist() == list(np.repeat(expected[f"{split}_ids"], n_repetitions))
        neuroids = list(zip(*(assembly[c].values.tolist() for c in NEUROID_COORDINATES), strict=True))
        assert neuroids == expected["neuroids"]
        table = pd.read_csv(releases / name / f"stimulus_metadata_{split}.csv")
        assert table["nsd_id"].tolist() == expected[f"{split}_ids"]


@pytest.mark.parametrize("name", EXPECTED)
def test_release_is_sound_and_equals_its_recomputation(tree, releases, name):
    assert verify_release(releases / name) == []
    recomputation = recompute_release(releases / name, tree, every_vertex=True)

    assert recomputation.problems == []
    assert recomputation.differences["largest difference"].max() < 1e-5


def test_own_images_with_fewer_than_three_repetitions_are_averaged_over_those(tree, tmp_path):
    """Subject 4 missed a quarter of the sessions."""
    recipe = write_recipe(tmp_path, name="subj04_own", subjects="[4]", images="own")
    build_release(tree, tmp_path / "release", read_recipe(str(recipe)))

    expected = reference.reference_release(tree, (4,), own=True, standardize_on="train", regions=EARLY_AND_V1)
    shown = reference.shown_images(tree, 4, 40 * 4)
    assert {min(3, shown.count(image)) for image in expected["train_ids"]} == {1, 2, 3}
    train = open_split(tmp_path / "release", "subj04_own", "train")
    np.testing.assert_allclose(train.values[:, :, 0], expected["train"], rtol=0, atol=1e-5)


def test_vertices_with_nan_are_dropped_with_own_images(tree, tmp_path):
    recipe = write_recipe(tmp_path, name="subj04_own", subjects="[4]", images="own", policy="drop")
    build_release(tree, tmp_path / "release", read_recipe(str(recipe)))

    expected = reference.reference_release(
        tree, (4,), own=True, standardize_on="train", drop=True, regions=EARLY_AND_V1
    )
    train = open_split(tmp_path / "release", "subj04_own", "train")
    assert train["neuroid_id"].values.tolist() == [neuroid[0] for neuroid in expected["neuroids"]]
    assert 0 < len(train["neuroid"]) < open_split_size(tree, tmp_path)
    assert recompute_release(tmp_path / "release", tree, every_vertex=True).problems == []


def open_split_size(tree, tmp_path):
    recipe = write_recipe(tmp_path, name="subj04_own", subjects="[4]", images="own")
    build_release(tree, tmp_path / "zero", read_recipe(str(recipe)))
    return Manifest.read(ReleaseFolder(tmp_path / "zero")).shapes["train"][1]


def test_other_split_equals_the_reference(tree, tmp_path):
    recipe = write_recipe(tmp_path, name="half", subjects="[2, 5]", split="fraction = 0.5\nseed = 7")
    build_release(tree, tmp_path / "release", read_recipe(str(recipe)))

    expected = reference.reference_release(tree, (2, 5), fraction=0.5, seed=7, regions=EARLY_AND_V1)
    test = open_split(tmp_path / "release", "half", "test")
    assert test["nsd_id"].values.tolist() == list(np.repeat(expected["test_ids"], 3))
    np.testing.assert_allclose(test.values[:, :, 0], expected["test"], rtol=0, atol=1e-5)
    assert recompute_release(tmp_path / "release", tree, every_vertex=True).problems == []


EARLY_AND_V1 = [("early", "streams", (1, 5)), ("V1", "Kastner2015", (1, 2))]  # of the recipe below


def write_recipe(folder, *, name, subjects, images="shared", split="", policy="zero"):
    path = folder / "recipe.toml"
    path.write_text(
        f'''
name = "{name}"
subjects = {subjects}
[[region]]
name = "early"
atlas = "streams"
labels = ["early", 5]
[[region]]
name = "V1"
atlas = "Kastner2015"
labels = [1, "V1d"]
[images]
pool = "{images}"
[invalid]
policy = "{policy}"
'''
        + (f"[split]\n{split}\n" if split else "")
    )
    return path


def test_each_betas_file_is_read_once_for_all_recipes(tree, tmp_path, monkeypatch):
    n_reads = Counter()
    read_betas = sessions.read_betas

    def count_and_read(file, shape):
        n_reads[str(file)] += 1
        return read_betas(file, shape)

    monkeypatch.setattr(sessions, "read_betas", count_and_read)
    names = ("Allen2022_fmri_surface", "streams", "subj01_own", "leak_free")
    build_releases(tree, {tmp_path / name: read_recipe(name) for name in names})

    assert set(n_reads.values()) == {1}
    assert sum("subj01" in path for path in n_reads) == 2 * 6
    assert sum("subj04" in path for path in n_reads) >= 2 * 3


def test_recipe_built_alone_from_the_cache_of_others_has_the_same_bytes(tree, releases, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    build_releases(tree, {tmp_path / name: read_recipe(name) for name in ("cortex", "subj01_own")}, cache_path=cache)
    monkeypatch.setattr(sessions, "read_betas", None)  # a read would raise
    for name in ("kastner", "leak_free", "subj01_own"):
        build_release(tree, tmp_path / "alone" / name, read_recipe(name), cache_path=cache)

        assert hashes(tmp_path / "alone" / name) == hashes(releases / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hcp_mmp1", "subj01_own"])
def test_bytes_are_the_same_for_workers_layout_and_hash_seed(tree, releases, tmp_path, name):
    size = TreeSize(n_sessions=6, n_trials=40, n_vertices=400, image_size=16, layout="flat")
    simulate_tree(tmp_path / "flat", size)
    command = [sys.executable, "-m", "allen2022_surface_packaging", "build", tmp_path / "flat", tmp_path / "r"]
    subprocess.run(
        [*command, "--recipe", name, "--workers", "2", "--cache", "none"],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONHASHSEED": "3"},
    )

    assert hashes(tmp_path / "r") == hashes(releases / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kastner", "subj01_own"])
def test_killed_build_of_a_recipe_gives_the_same_bytes_when_resumed(tree, releases, tmp_path, name):
    command = [sys.executable, "-m", "allen2022_surface_packaging", "build", tree, tmp_path / "r", "--recipe", name]
    cache = tmp_path / "allen2022_surface_cache"
    for n_awaited in (1, 3):
        build = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while build.poll() is None and len(list(cache.glob("subj*"))) < n_awaited:
            time.sleep(0.001)
        os.kill(build.pid, signal.SIGKILL)
        build.wait()
        assert not (tmp_path / "r").exists()

    subprocess.run(command, check=True, capture_output=True)

    assert hashes(tmp_path / "r") == hashes(releases / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["allen2022_surface_cache", "r"]


def test_several_recipes_become_a_folder_of_releases(tree, releases, tmp_path):
    result = run_cli("build", tree, tmp_path / "all", "--recipe", "streams", "--recipe", "leak_free")

    assert result.returncode == 0
    assert f"streams in {tmp_path / 'all' / 'streams'}: " in result.stdout
    for name in ("streams", "leak_free"):
        assert hashes(tmp_path / "all" / name) == hashes(releases / name)


def test_options_change_a_recipe(tree, tmp_path):
    result = run_cli(
        *("build", tree, tmp_path / "r", "--recipe", "kastner", "--subjects", 3, "--nan-policy", "drop"),
        *("--name", "k3", "--cache", "none"),
    )

    assert result.returncode == 0
    recipe = Manifest.read(ReleaseFolder(tmp_path / "r")).recipe
    assert (recipe.name, recipe.subjects, recipe.nan_policy) == ("k3", (3,), "drop")
    assert recipe.regions == read_recipe("kastner").regions


def test_release_says_how_to_make_it_again(releases):
    manifest = Manifest.read(ReleaseFolder(releases / "kastner"))

    assert manifest.recipe == read_recipe("kastner")
    assert [region.name for region in manifest.regions] == list(KASTNER)
    assert str(releases) not in (releases / "kastner" / "release.json").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "streams", "--recipe", "streams"], "two recipes have the same name"),
        (["--recipe", "streams", "--recipe", "kastner", "--name", "x"], "--name gives one name"),
        (
            ["--recipe", "subj01_own", "--subjects", 1, 2],
            "images.pool is 'own' for subj01, subj02, expected one subject",
        ),
        (["--recipe", "subj01_own", "--standardize-on", "all"], "standardise.over is 'all', expected 'train'"),
    ],
)
def test_impossible_choices_are_wrong_usage(tree, tmp_path, arguments, message):
    result = run_cli("build", tree, tmp_path / "r", *arguments)

    assert result.returncode == 2
    assert message in result.stderr
    assert not (tmp_path / "r").exists()


def test_check_says_what_is_missing_for_a_recipe(tree, tmp_path):
    root = shutil.copytree(tree, tmp_path / "nsd")
    (root / "nsddata/freesurfer/fsaverage/label/rh.HCP_MMP1.mgz").unlink()
    shutil.rmtree(root / "nsddata_betas/ppdata/subj03/fsaverage/betas_fithrf")

    result = run_cli("check", root, "--recipe", "hcp_mmp1", "--recipe", "fithrf")

    assert result.returncode == 1
    assert "rh.HCP_MMP1.mgz is missing" in result.stdout
    assert "subj03/fsaverage/betas_fithrf holds no betas" in result.stdout
    assert run_cli("check", root, "--recipe", "streams").returncode == 0
