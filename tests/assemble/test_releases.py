"""Releases of any recipe, layout and odd values equal the reference, which shares no code with the build."""

import errno
import json
import math
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from allen2022_surface_packaging.assemble.pipeline import build_release, build_releases
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.files import MGH_DATA_OFFSET
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import Recipe, Region, make_recipe, read_recipe
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from reference import session_files
from support import RECIPES, find_differences, hashes, run_cli, verify

TWO = make_recipe((3, 8), name="Two")
SMALL = TreeSize((1, 4), n_sessions=4, n_trials=42, n_vertices=162, image_size=8, betas=(DEFAULT_BETAS,))
REGIONS = (
    Region("early", "streams", ("early", 5)),
    Region("V1", "Kastner2015", (1, "V1d")),
    Region("", "Kastner2015", (), each=True),
    Region("general", "nsdgeneral"),
    Region("whole", "cortex"),
)
ODD_VALUES = (1e6, 1e12, 1e30, 3e38, -3e38, 1e-30, 1e-45, 0, np.inf, -np.inf, np.nan)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A tree with every atlas and version of the betas that the recipes use. Tests only read it."""
    root = tmp_path_factory.mktemp("raw") / "nsd"
    simulate_tree(root, TreeSize(n_sessions=6, n_trials=40, n_vertices=400, image_size=16, has_native_betas=True))
    return root


@pytest.fixture(scope="module")
def releases(tree, tmp_path_factory) -> Path:
    """A release of every recipe that ships, all from one pass. Tests only read them."""
    folder = tmp_path_factory.mktemp("releases")
    build_releases(tree, {folder / name: read_recipe(name) for name in RECIPES})
    return folder


NAMED = """
name = "named"
subjects = [1, 4]
[[region]]
name = "early"
atlas = "streams"
labels = ["early", 5]
[split]
fraction = 0.5
seed = 0
[invalid]
policy = "drop"
"""


def test_recipe_that_is_shown_of_a_release_gives_the_same_release(tree, releases, tmp_path):
    """Of an own pool, of each label, of labels by name, of a changed split, of JPEG, and of a recipe that got a name by an option."""
    (tmp_path / "named.toml").write_text(NAMED)
    options = ("--image-format", "jpg", "--cache", "none")
    run_cli("build", tree, tmp_path / "named", "--recipe", tmp_path / "named.toml", *options)
    run_cli(
        "build", tree, tmp_path / "renamed", "--recipe", "leak_free", "--subjects", 3, "--name", "renamed", *options
    )

    for release in (*(releases / name for name in ("subj01_own", "kastner")), tmp_path / "named", tmp_path / "renamed"):
        text = run_cli("recipes", "show", release / "release.json").stdout
        (tmp_path / "shown.toml").write_text(text)
        words = text.splitlines()[0].partition("THIS_FILE")[2].split()
        result = run_cli("build", tree, tmp_path / "again" / release.name, "--recipe", tmp_path / "shown.toml", *words)
        assert result.returncode == 0, result.stderr
        assert hashes(tmp_path / "again" / release.name) == hashes(release)


@pytest.fixture(scope="module")
def small_trees(tmp_path_factory) -> dict[str, Path]:
    """Trees of two subjects, by layout. Tests only read them."""
    folder = tmp_path_factory.mktemp("small")
    for layout in ("official", "flat"):
        simulate_tree(folder / layout, replace(SMALL, layout=layout))
    return {layout: folder / layout for layout in ("official", "flat")}


def open_split(release: Path, split: str) -> xarray.DataArray:
    (path,) = release.glob(f"*_{split}.nc")
    with xarray.open_dataarray(path) as assembly:
        return assembly.load()


@st.composite
def recipes(draw) -> Recipe:
    subjects = draw(st.sampled_from([(1,), (4,), (1, 4)]))
    pool = draw(st.sampled_from(["shared", "own"] if len(subjects) == 1 else ["shared"]))
    return Recipe(
        "any",
        subjects,
        tuple(draw(st.lists(st.sampled_from(REGIONS), min_size=1, max_size=3, unique=True))),
        standardize_on="train" if pool == "own" else draw(st.sampled_from(["all", "train"])),
        nan_policy=draw(st.sampled_from(["zero", "drop"])),
        copies=draw(st.sampled_from(["keep", "drop"])),
        pool=pool,
        train_fraction=draw(st.sampled_from([0.3, 0.5, 0.8])),
        split_seed=draw(st.integers(0, 100)),
    )


def plant(root: Path, values: list[tuple]) -> None:
    """Put values into the left hemisphere of subject 1: each into some trials of every seventh vertex of one session."""
    for first_vertex, (session, trials, value) in enumerate(values):
        path = session_files(root, 1, "lh")[session]
        shape = (SMALL.n_trials, SMALL.n_vertices)
        betas = np.memmap(path, dtype=">f4", mode="r+", offset=MGH_DATA_OFFSET, shape=shape)
        betas[trials, first_vertex::7] = value
        betas.flush()


TRIALS = st.one_of(st.integers(0, SMALL.n_trials - 1), st.sampled_from([slice(None), slice(0, None, 2)]))
PLANTED = st.lists(st.tuples(st.integers(0, 3), TRIALS, st.sampled_from(ODD_VALUES)), max_size=7)


@settings(
    max_examples=25, phases=[Phase.explicit, Phase.generate]
)  # each builds a release; shrinking would take minutes
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the reference
@given(recipe=recipes(), layout=st.sampled_from(["official", "flat"]), planted=PLANTED)
def test_any_release_equals_the_reference(small_trees, tmp_path_factory, recipe, layout, planted):
    folder = tmp_path_factory.mktemp("any")
    root = Path(shutil.copytree(small_trees[layout], folder / "nsd"))
    plant(root, planted)
    build_release(root, folder / "release", recipe)

    assert find_differences(folder / "release", root) == []
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", RECIPES)
def test_release_of_a_shipped_recipe_equals_the_reference(tree, releases, name):
    answers = verify(releases / name, "--nsd-root", tree, "--all")
    differences = answers["nsd_root"]["differences"]

    assert answers["release"]["problems"] == answers["nsd_root"]["problems"] == []
    assert 0 < max(row["largest"] for row in differences) < 1e-5
    manifest = Manifest.read(ReleaseFolder(releases / name))
    assert sum(row["of"] for row in differences) == sum(map(math.prod, manifest.shapes.values()))
    assert manifest.recipe == read_recipe(name)
    assert min(manifest.shapes["train"][0], manifest.shapes["test"][0]) >= 4
    assert str(releases) not in (releases / name / "release.json").read_text()


def test_cortex_of_many_blocks_equals_the_reference(tiny_tree, tmp_path):
    for policy in ("zero", "drop"):
        recipe = replace(read_recipe("cortex"), name=policy, subjects=(1, 4), nan_policy=policy)
        build_release(tiny_tree, tmp_path / policy, recipe)

        assert find_differences(tmp_path / policy, tiny_tree) == []


def test_first_of_the_copies_in_each_region_is_kept(small_trees, tmp_path):
    """Of the vertices 3, 7 and 11 the last two get the responses of the first, and 5 and 9 get none."""
    root = Path(shutil.copytree(small_trees["official"], tmp_path / "nsd"))
    for path in session_files(root, 1, "lh"):
        betas = np.memmap(path, ">f4", "r+", MGH_DATA_OFFSET, (SMALL.n_trials, SMALL.n_vertices))
        betas[:, [7, 11]], betas[:, [5, 9]] = betas[:, [3]], 0
        betas.flush()
    recipe = replace(TWO, subjects=(1, 4), regions=(Region("whole", "cortex"), Region("V1", "Kastner2015", (1, 2))))
    for policy in ("keep", "drop"):
        build_release(root, tmp_path / policy, replace(recipe, copies=policy))

    for split in ("train", "test"):
        whole, kept = (open_split(tmp_path / policy, split) for policy in ("keep", "drop"))
        columns = pd.DataFrame(whole.values[:, :, 0].T)
        neuroids = pd.DataFrame({name: whole[name].values for name in ("subject", "region")})
        is_copy = pd.concat([neuroids, columns], axis=1).duplicated() & (columns.nunique(axis=1) > 1)
        assert 2 < is_copy.sum() < 0.2 * len(is_copy)
        xarray.testing.assert_identical(kept, whole[:, ~is_copy.to_numpy()])
    left = kept["vertex_index"].values[kept["neuroid_id"].str.startswith("subj01_lh_whole").values]
    assert set(range(3, 12)) - set(left.tolist()) == {7, 11}


def test_one_vertex_has_the_same_values_alone_and_among_others(small_trees, tmp_path):
    """NumPy sums a single column in another order."""
    root = Path(shutil.copytree(small_trees["official"], tmp_path / "nsd"))
    build_release(root, tmp_path / "whole", replace(TWO, subjects=(1,), regions=(Region("whole", "cortex"),)))
    for hemisphere in ("lh", "rh"):
        path = root / f"nsddata/freesurfer/fsaverage/label/{hemisphere}.nsdgeneral.mgz"
        image = np.zeros((SMALL.n_vertices, 1, 1), np.int32)
        image[5] = hemisphere == "lh"
        write_mgz(path, image)
    build_release(root, tmp_path / "one", replace(TWO, subjects=(1,), regions=(Region("one", "nsdgeneral"),)))

    for split in ("train", "test"):
        whole, one = (open_split(tmp_path / name, split) for name in ("whole", "one"))
        np.testing.assert_array_equal(one.values[:, 0], whole.values[:, 5])


def write_mgz(path: Path, values: np.ndarray) -> None:
    import nibabel

    nibabel.save(nibabel.freesurfer.MGHImage(values, np.eye(4)), path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Allen2022_fmri_surface", "hcp_mmp1", "subj01_own"])
def test_bytes_are_the_same_for_workers_layout_and_hash_seed(releases, tmp_path, name):
    simulate_tree(tmp_path / "flat", TreeSize(n_sessions=6, n_trials=40, n_vertices=400, image_size=16, layout="flat"))
    command = [sys.executable, "-m", "allen2022_surface_packaging", "build", tmp_path / "flat", tmp_path / "r"]
    result = subprocess.run(
        [*command, "--recipe", name, "--workers", "2", "--cache", "none"],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONHASHSEED": "3"},
    )

    assert result.returncode == 0, result.stderr
    assert hashes(tmp_path / "r") == hashes(releases / name)


def test_several_recipes_become_a_folder_of_the_releases_that_single_builds_give(tree, releases, tmp_path):
    result = run_cli("build", tree, tmp_path / "all", "--recipe", "streams", "--recipe", "leak_free", "--cache", "none")

    assert result.returncode == 0
    for name in ("streams", "leak_free"):
        assert hashes(tmp_path / "all" / name) == hashes(releases / name)
        build_release(tree, tmp_path / name, read_recipe(name))
        assert hashes(tmp_path / name) == hashes(releases / name)


def test_own_stands_for_the_own_images_of_every_subject(tree, tmp_path):
    """One pass gives what single builds give. Every release reads the betas of its subject alone."""
    result = run_cli("build", tree, tmp_path / "all", "--recipe", "own", "--cache", "none")

    assert result.returncode == 0, result.stderr
    names = [f"subj{subject:02d}_own" for subject in range(1, 9)]
    assert sorted(path.name for path in (tmp_path / "all").iterdir() if path.is_dir()) == names
    betas = []
    for subject, name in enumerate(names, start=1):
        release = tmp_path / "all" / name
        manifest = Manifest.read(ReleaseFolder(release))
        assert (manifest.recipe.name, manifest.recipe.subjects) == (name, (subject,))
        betas += [path for path in manifest.inputs if "betas_session" in path]
    for name in (names[0], names[-1]):
        build_release(tree, tmp_path / name, read_recipe(name))
        assert hashes(tmp_path / "all" / name) == hashes(tmp_path / name)
    assert len(betas) == len(set(betas))  # no file belongs to two of them


def test_options_change_a_recipe(tree, tmp_path):
    result = run_cli(
        *("build", tree, tmp_path / "r", "--recipe", "kastner", "--subjects", 3, "--nan-policy", "drop"),
        *("--name", "k3", "--cache", "none"),
    )

    assert result.returncode == 0
    recipe = Manifest.read(ReleaseFolder(tmp_path / "r")).recipe
    assert recipe == replace(read_recipe("kastner"), name="k3", subjects=(3,), nan_policy="drop")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--recipe", "streams", "--recipe", "streams"], "two recipes have the same name"),
        (["--recipe", "streams", "--recipe", "kastner", "--name", "x"], "--name gives one name"),
        (["--recipe", "subj01_own", "--subjects", 1, 2], "expected one subject, because images.pool is 'own'"),
        (["--recipe", "subj01_own", "--standardize-on", "all"], "standardise.over is 'all', expected 'train'"),
        (["--recipe", "own", "--subjects", 3], "--recipe own makes a release of each subject: name the recipes"),
        (["--recipe", "own", "--name", "x"], "--name gives one name"),
        (["--subjects", 1, 2], "needs a --name"),
        (["--nan-policy", "drop"], "needs a --name"),
    ],
)
def test_impossible_choices_are_wrong_usage(tree, tmp_path, arguments, message):
    result = run_cli("build", tree, tmp_path / "r", *arguments)

    assert result.returncode == 2
    assert message in result.stderr
    assert not (tmp_path / "r").exists()


def test_release_holds_what_the_design_lists_and_nothing_else(release):
    assert {path.name for path in release.iterdir()} == {
        "Allen2022_fmri_surface_train.nc",
        "Allen2022_fmri_surface_test.nc",
        "stimuli_train",
        "stimuli_test",
        "stimulus_metadata_train.csv",
        "stimulus_metadata_test.csv",
        "train_test_split.csv",
        "stimulus_origin.csv",
        "release.json",
    }


def test_manifest_lists_the_inputs_and_files_with_their_sizes(nsd_tree, release):
    manifest = Manifest.read(ReleaseFolder(release))

    assert manifest.inputs == {path: (nsd_tree / path).stat().st_size for path in manifest.inputs}
    betas = [path for path in manifest.inputs if "betas_session" in path]
    assert len(betas) == 2 * 3 * 8  # the fourth session of subjects 1, 2, 5 and 7 shows no complete image
    assert "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5" in manifest.inputs
    assert {name: file.sha1 for name, file in manifest.files.items()} == {
        name: sha1 for name, sha1 in hashes(release).items() if name != "release.json"
    }
    assert (manifest.sessions["subj01"], manifest.sessions["subj04"], manifest.simulated) == (4, 3, True)


def test_release_is_replaced_only_when_asked_and_only_a_release_is(nsd_tree, release_copy, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    with pytest.raises(PackagingError, match="exists already"):
        build_release(nsd_tree, release_copy, TWO)
    with pytest.raises(PackagingError, match="is not a release"):
        build_release(nsd_tree, tmp_path / "mine", TWO, overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").exists()

    build_release(nsd_tree, release_copy, TWO, overwrite=True)

    assert json.loads((release_copy / "release.json").read_text())["name"] == "Two"


def test_finished_release_stays_when_the_next_one_fails(small_trees, tmp_path):
    """The second recipe drops invalid vertices, and subject 1 has no other."""
    root = Path(shutil.copytree(small_trees["official"], tmp_path / "nsd"))
    for hemisphere in ("lh", "rh"):
        for path in session_files(root, 1, hemisphere):
            np.memmap(path, ">f4", "r+", MGH_DATA_OFFSET, (SMALL.n_trials, SMALL.n_vertices))[0] = np.nan
    first = make_recipe((1, 4), name="first")
    second = replace(first, name="second", nan_policy="drop")
    with pytest.raises(PackagingError, match="^subj01 has no vertex whose trials are all valid"):
        build_releases(root, {tmp_path / "first": first, tmp_path / "second": second})

    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "nsd"]


def test_build_is_refused_before_it_reads_when_the_disk_is_too_small(nsd_tree, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(PackagingError, match=r"has 1,000 bytes free, but the build writes [\d,]+ there: no space left"):
        build_release(nsd_tree, tmp_path / "release", TWO)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", range(2))
def test_reads_and_writes_that_are_short_give_the_same_release(small_trees, tmp_path, monkeypatch, seed):
    recipe = make_recipe((1,), name="one")
    build_release(small_trees["flat"], tmp_path / "whole", recipe)
    rng, preadv, pwrite = random.Random(seed), os.preadv, os.pwrite

    def part(buffer):
        return buffer[: rng.randint(1, max(1, len(buffer)))]

    monkeypatch.setattr(os, "preadv", lambda file, buffers, offset: preadv(file, [part(buffers[0])], offset))
    monkeypatch.setattr(os, "pwrite", lambda file, buffer, offset: pwrite(file, part(buffer), offset))
    build_release(small_trees["flat"], tmp_path / "parts", recipe)

    assert hashes(tmp_path / "parts") == hashes(tmp_path / "whole")


@pytest.mark.parametrize("function", ["pwrite", "posix_fallocate"])
def test_disk_that_fails_is_named_and_the_older_release_stays(small_trees, tmp_path, monkeypatch, function):
    (tmp_path / "release").mkdir()
    (tmp_path / "release" / "release.json").touch()

    def fail(*_):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, function, fail)
    choices = ("--subjects", 1, "--name", "one", "--overwrite", "--cache", "none")
    result = run_cli("build", small_trees["flat"], tmp_path / "release", *choices)

    assert result.returncode == 1
    assert "one_train.nc" in result.stderr
    assert "Disk quota exceeded" in result.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["release", "release.json"]
