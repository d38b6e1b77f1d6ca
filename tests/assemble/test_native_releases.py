"""A release from the betas on the subjects' own surfaces is the one from fsaverage, but for the rounding of the betas."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import xarray

from allen2022_surface_packaging.assemble.pipeline import build_releases
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.release import SPLITS
from allen2022_surface_packaging.verify.reference import read_reference
from publish.proxy import Proxy
from reference import session_files
from support import hashes, run_cli

SCRIPT_PATH = Path(__file__).parents[2] / ".github/compare_native_session.py"
SIZE = TreeSize((1, 4), n_sessions=4, n_trials=300, n_vertices=400, image_size=8, betas=(DEFAULT_BETAS,))
ROUNDING = 1 / 600  # percent signal change: half of the step of the integers
COPIED = make_recipe((1, 4), name="copied")
NATIVE = replace(COPIED, name="native", files="nativesurface")
RECIPES = [recipe for r in (COPIED, NATIVE) for recipe in (r, replace(r, name=f"{r.name}_drop", nan_policy="drop"))]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw") / "nsd"
    simulate_tree(root, replace(SIZE, has_native_betas=True))
    return root


@pytest.fixture(scope="module")
def releases(tree, tmp_path_factory):
    """Releases of both kinds of files, filled and dropped, with one cache."""
    folder = tmp_path_factory.mktemp("releases")
    build_releases(tree, {folder / recipe.name: recipe for recipe in RECIPES}, cache_path=folder / "cache")
    return folder


def read(releases, name, split):
    with xarray.open_dataarray(releases / name / f"{name}_{split}.nc") as assembly:
        return assembly.load()


def rounding_of_neuroids(tree: Path, neuroids) -> np.ndarray:
    """Return by how much the rounding can move a value of each neuroid: over the deviations of a session and of the images."""
    expected = read_reference(open_tree(tree), COPIED)
    most = np.empty(len(neuroids))
    for (subject, hemisphere), part in neuroids.groupby(["subject", "hemisphere"]):
        vertices, number = part["vertex_index"].to_numpy(), int(subject[-2:])
        files = session_files(tree, number, hemisphere)
        sessions = [np.asarray(nibabel.load(file).dataobj)[vertices, 0, 0].astype(float) for file in files]
        responses = expected.responses(number, hemisphere, vertices, expected.images)
        deviations = np.nanmin([betas.std(axis=1) for betas in sessions], axis=0)
        most[part.index] = ROUNDING / (deviations * np.nanmean(responses, axis=1).std(axis=0))
    return most


@pytest.mark.filterwarnings("ignore:Mean of empty slice", "ignore:All-NaN", "ignore:divide by zero")
@pytest.mark.parametrize("policy", ["", "_drop"])
@pytest.mark.parametrize("split", SPLITS)
def test_values_differ_by_the_rounding_and_coordinates_do_not(tree, releases, split, policy):
    copied, native = (read(releases, f"{name}{policy}", split) for name in ("copied", "native"))
    neuroids = copied["neuroid"].to_dataframe().reset_index(drop=True)
    differences = np.abs(copied.values - native.values)[:, :, 0]

    for name in copied.coords:
        np.testing.assert_array_equal(copied[name].values, native[name].values)
    np.testing.assert_array_equal(copied.values == 0, native.values == 0)
    most = rounding_of_neuroids(tree, neuroids)
    most[np.isnan(most)] = np.inf
    # The rounding moves the mean and the deviation of a session, too, the less the more trials it has.
    assert (differences <= 1.25 * most).all()
    assert 1e-4 < np.median(differences) < 1e-3
    texts = [(releases / f"{name}{policy}" / "release.json").read_text() for name in ("copied", "native")]
    assert json.loads(texts[0])["nan_counts"] == json.loads(texts[1])["nan_counts"]


def test_release_from_a_bucket_has_the_same_bytes_and_reads_some_of_each_file(
    tree, releases, tmp_path, moto_port, direct_client, monkeypatch
):
    direct_client.create_bucket(Bucket="native-nsd", ACL="public-read")
    for path in tree.rglob("*"):
        if path.is_file() and "fsaverage/betas" not in str(path.parent) or "ncsnr" in path.name:
            key = str(path.relative_to(tree))
            direct_client.upload_file(str(path), "native-nsd", key, ExtraArgs={"ACL": "public-read"})
    proxy = Proxy(moto_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)

    build_releases("s3://native-nsd", {tmp_path / "native": NATIVE})

    proxy.close()
    assert hashes(tmp_path / "native") == hashes(releases / "native")
    sent = [request for request in proxy.requests if request.path.endswith(".hdf5") and "session" in request.path]
    assert len(sent) < 12 * 14  # of 14 files


def test_report_says_that_the_betas_are_rounded(releases, tmp_path):
    assert run_cli("report", releases / "native", "--output", tmp_path / "report.html").returncode == 0

    text = (tmp_path / "report.html").read_text()
    assert "own surface, in steps of 1/300 percent signal change" in text
    assert "<td>nativesurface</td>" in re.sub(r"<td[^>]*>", "<td>", text)


def test_verify_recomputes_the_release_and_says_how_it_differs(tree, releases):
    result = run_cli("verify", releases / "native_drop", "--nsd-root", tree, "--all")
    assert result.returncode == 0, result.stdout
    assert "of all neuroids were recomputed" in result.stdout

    result = run_cli("verify", releases / "native", "--against", releases / "copied")
    sizes = r"values differ by \S+e-04 standard deviations on average and by \S+e-03 at most, and all else is the same"
    assert re.search(sizes, result.stdout)


@pytest.mark.parametrize("session", [1, 2])
def test_script_of_the_workflow_finds_the_session_of_another_file(tree, tmp_path, session):
    root = Path(shutil.copytree(tree, tmp_path / "nsd"))
    folder = root / "nsddata_betas/ppdata/subj01/nativesurface/betas_fithrf_GLMdenoise_RR"
    shutil.copyfile(folder / f"rh.betas_session0{session}.hdf5", folder / "rh.betas_session01.hdf5.new")
    (folder / "rh.betas_session01.hdf5.new").rename(folder / "rh.betas_session01.hdf5")

    run = subprocess.run([sys.executable, SCRIPT_PATH, root], capture_output=True, text=True, check=False)

    assert "subj01 lh: 300 trials of" in run.stdout
    assert run.returncode == (session != 1)
    assert session == 1 or "vertices lack data in one of the two files only" in run.stderr


def test_check_names_native_files_that_are_missing_or_of_another_surface(tmp_path):
    size = ("--subjects", 1, "--sessions", 3, "--trials", 30, "--vertices", 162, "--betas", DEFAULT_BETAS)
    recipe = ("--recipe", "Allen2022_fmri_surface_small_download", "--subjects", 1)
    for name, options in (("copied", ()), ("both", ("--nativesurface",))):
        assert run_cli("simulate", tmp_path / name, *size, *options).returncode == 0

    result = run_cli("check", tmp_path / "copied", *recipe)
    assert result.returncode == 1
    assert "lh.betas_session01.hdf5 is missing" in result.stdout
    assert "write it again with `allen2022-surface simulate --nativesurface`" in result.stdout

    result = run_cli("check", tmp_path / "both", *recipe)
    assert result.returncode == 0, result.stdout
    assert re.search(r'or reads [\d.]+ [kM]B in about \d+ s with files = "fsaverage"', result.stdout)
    (path,) = (tmp_path / "both").rglob("nativesurface/*/rh.betas_session02.hdf5")
    with h5py.File(path, "w") as file:
        file.create_dataset("betas", data=np.ones((30, 900), np.int16), chunks=(30, 1))
    result = run_cli("build", tmp_path / "both", tmp_path / "out", *recipe)
    assert result.returncode == 1
    assert "rh.betas_session02.hdf5 holds 900 vertices, expected" in result.stderr
