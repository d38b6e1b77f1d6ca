"""Invalid input of every kind. The message is one line that names the file and says what to do, and no file is left."""

import gzip
import os
import re
import shutil
import subprocess
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io

from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from support import run_cli

BETAS = "nsddata_betas/ppdata/subj02/fsaverage/betas_fithrf_GLMdenoise_RR"
LABELS = "nsddata/freesurfer/fsaverage/label"
DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
IMAGES = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"


def assert_fails(result, *patterns: str) -> None:
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("allen2022-surface: ")]
    assert len(lines) == 1, result.stderr
    for pattern in patterns:
        assert re.search(pattern, lines[0]), f"{pattern!r} does not match {lines[0]!r}"


def rewrite_design(tree: Path, **changes) -> None:
    variables = {k: v for k, v in scipy.io.loadmat(tree / DESIGN).items() if not k.startswith("__")} | changes
    scipy.io.savemat(tree / DESIGN, {name: value for name, value in variables.items() if value is not None})


def read_design(tree: Path) -> dict:
    return scipy.io.loadmat(tree / DESIGN)


def reshape_betas(path: Path, n_vertices: int, n_trials: int) -> None:
    image = nibabel.freesurfer.MGHImage(
        np.zeros((n_vertices, 1, 1, n_trials), np.float32).squeeze(-1 if n_trials == 1 else ()), np.eye(4)
    )
    nibabel.save(image, path)


def cut_in_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def set_an_id_to_zero(tree: Path, name: str) -> None:
    values = read_design(tree)[name].copy()
    values.flat[5] = 0
    rewrite_design(tree, **{name: values})


def show_each_image_once(tree: Path) -> None:
    """Show every image once, so that no image is complete."""
    design = read_design(tree)
    n = design["masterordering"].size
    ids = np.arange(1, n + 1)
    rewrite_design(tree, masterordering=ids[None].astype(np.uint16), subjectim=np.tile(ids, (8, 1)).astype(np.int32))


def show_one_image_three_times(tree: Path) -> None:
    """Show one image three times and the others once, so that one image is complete."""
    design = read_design(tree)
    order = np.arange(1, design["masterordering"].size + 1)
    order[:3] = design["sharedix"].min()
    ids = np.tile(np.arange(1, len(order) + 1), (8, 1))
    rewrite_design(tree, masterordering=order[None].astype(np.uint16), subjectim=ids.astype(np.int32))


def keep_20_images(tree: Path) -> None:
    with h5py.File(tree / IMAGES, "r+") as file:
        first_images = file["imgBrick"][:20]
        del file["imgBrick"]
        file["imgBrick"] = first_images


def write_mgz_without_header(path: Path) -> None:
    path.write_bytes(gzip.compress(b"not a header"))


FAULTS = {
    "no design": (lambda t: (t / DESIGN).unlink(), ["holds no NSD design", "metadata/nsd_expdesign.mat"]),
    "design is no MATLAB file": (lambda t: (t / DESIGN).write_text("no"), ["nsd_expdesign.mat", "is not a MATLAB"]),
    "design is cut short": (lambda t: cut_in_half(t / DESIGN), ["nsd_expdesign.mat", "Download it again"]),
    "design is empty": (lambda t: (t / DESIGN).write_bytes(b""), ["nsd_expdesign.mat", "is not a MATLAB"]),
    "variable missing": (
        lambda t: rewrite_design(t, sharedix=None),
        ["nsd_expdesign.mat", "lacks the variable sharedix"],
    ),
    "masterordering out of range": (
        lambda t: set_an_id_to_zero(t, "masterordering"),
        ["masterordering holds 0 to", "1 to 400"],
    ),
    "subjectim out of range": (lambda t: set_an_id_to_zero(t, "subjectim"), ["subjectim holds 0 to"]),
    "sharedix out of range": (lambda t: set_an_id_to_zero(t, "sharedix"), ["sharedix holds 0 to"]),
    "no complete image": (show_each_image_once, ["nsd_expdesign.mat: no image was seen 3 times"]),
    "one complete image": (show_one_image_three_times, ["nsd_expdesign.mat: 1 image was seen 3 times", "at least 2"]),
    "session missing": (
        lambda t: [(t / BETAS / f"{h}.betas_session02.mgh").unlink() for h in ("lh", "rh")],
        ["subj02", "session02.mgh is missing"],
    ),
    "hemisphere missing": (
        lambda t: (t / BETAS / "rh.betas_session02.mgh").unlink(),
        ["rh.betas_session02.mgh is missing"],
    ),
    "no betas": (lambda t: shutil.rmtree(t / BETAS), ["subj02", "holds no betas"]),
    "ncsnr missing": (lambda t: (t / BETAS / "lh.ncsnr.mgh").unlink(), ["subj02.*lh.ncsnr.mgh is missing"]),
    "labels missing": (lambda t: (t / LABELS / "lh.streams.mgz").unlink(), ["lh.streams.mgz is missing"]),
    "labels damaged": (
        lambda t: write_mgz_without_header(t / LABELS / "rh.Kastner2015.mgz"),
        ["rh.Kastner2015.mgz cannot be read as MGH"],
    ),
    "labels not gzip": (
        lambda t: (t / LABELS / "rh.Kastner2015.mgz").write_text("x"),
        ["rh.Kastner2015.mgz cannot be read"],
    ),
    "other vertex count": (
        lambda t: reshape_betas(t / BETAS / "lh.betas_session03.mgh", 600, 300),
        ["lh.betas_session03.mgh", "600 vertices", "642"],
    ),
    "other trial count": (
        lambda t: reshape_betas(t / BETAS / "lh.betas_session03.mgh", 642, 299),
        ["lh.betas_session03.mgh", "299 trials", "300"],
    ),
    "ncsnr of other vertices": (
        lambda t: reshape_betas(t / BETAS / "lh.ncsnr.mgh", 600, 1),
        ["lh.ncsnr.mgh holds 600 vertices", "642"],
    ),
    "betas cut short": (
        lambda t: cut_in_half(t / BETAS / "rh.betas_session01.mgh"),
        ["rh.betas_session01.mgh is cut short", "bytes"],
    ),
    "betas not MGH": (
        lambda t: (t / BETAS / "rh.betas_session01.mgh").write_bytes(b"some other content" * 100),
        ["rh.betas_session01.mgh is not an MGH file"],
    ),
    "betas empty": (
        lambda t: (t / BETAS / "rh.betas_session01.mgh").write_bytes(b""),
        ["rh.betas_session01.mgh is not an MGH file"],
    ),
    "betas is a folder": (
        lambda t: ((t / BETAS / "rh.betas_session01.mgh").unlink(), (t / BETAS / "rh.betas_session01.mgh").mkdir()),
        ["rh.betas_session01.mgh is missing"],
    ),
    "images missing": (lambda t: (t / IMAGES).unlink(), ["nsd_stimuli.hdf5 is missing"]),
    "images not HDF5": (
        lambda t: (t / IMAGES).write_text("no"),
        ["nsd_stimuli.hdf5 does not hold an HDF5 dataset imgBrick"],
    ),
    "image outside imgBrick": (keep_20_images, ["imgBrick holds 20 images", "asks for image"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_build_fails_in_one_line_when_the_tree_is_invalid(tree_copy, tmp_path, fault):
    break_tree, patterns = FAULTS[fault]
    break_tree(tree_copy)
    before = {path: path.stat().st_mtime_ns for path in tree_copy.rglob("*")}

    assert_fails(run_cli("build", tree_copy, tmp_path / "out" / "release"), *patterns)

    assert not list(tmp_path.glob("out/*"))
    assert {path: path.stat().st_mtime_ns for path in tree_copy.rglob("*")} == before


@pytest.mark.parametrize("fault", ["session missing", "betas cut short", "image outside imgBrick", "labels damaged"])
def test_check_finds_the_same_fault_as_build(tree_copy, fault):
    break_tree, patterns = FAULTS[fault]
    break_tree(tree_copy)

    result = run_cli("check", tree_copy)
    assert result.returncode == 1
    for pattern in patterns:
        assert re.search(pattern, result.stdout)


def test_check_lists_every_problem_of_a_tree(tree_copy):
    (tree_copy / BETAS / "rh.betas_session02.mgh").unlink()
    (tree_copy / LABELS / "lh.streams.mgz").unlink()
    (tree_copy / LABELS / "rh.Kastner2015.mgz").write_text("no")
    (tree_copy / IMAGES).write_text("no")
    cut_in_half(tree_copy / BETAS / "lh.betas_session01.mgh")

    result = run_cli("check", tree_copy)
    assert_fails(result, r"\d problems in")
    names = ("rh.betas_session02.mgh", "lh.streams.mgz", "rh.Kastner2015.mgz", "lh.betas_session01.mgh")
    for name in names:
        assert result.stdout.count(name) >= 1
    problems = [line for line in result.stdout.splitlines() if line.startswith("problem: ")]
    assert len(problems) == len(set(problems)) == len(names)


def test_check_finds_both_files_of_a_missing_pair(tree_copy):
    for hemisphere in ("lh", "rh"):
        (tree_copy / BETAS / f"{hemisphere}.ncsnr.mgh").unlink()

    assert_fails(run_cli("check", tree_copy), "2 problems in")


def test_check_prints_a_row_per_subject(nsd_tree):
    result = run_cli("check", nsd_tree)

    assert result.returncode == 0
    for subject, sessions in zip(range(1, 9), (4, 4, 3, 3, 4, 3, 4, 3), strict=True):
        assert re.search(
            rf"subj{subject:02d} +{sessions} +{sessions} +{2 * sessions}/{2 * sessions} +642 x 300", result.stdout
        )
    assert "no problems found" in result.stdout


@pytest.mark.parametrize("root", ["missing_tree", "empty"])
def test_build_refuses_a_missing_or_empty_tree(tmp_path, root):
    (tmp_path / "empty").mkdir()

    assert_fails(run_cli("build", tmp_path / root, tmp_path / "release"), root, "NSD")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_every_session_is_required_when_the_design_is_full_size(tmp_path, full_size_design):
    """The tree has two sessions, but its design is as large as NSD's."""
    simulate_tree(tmp_path / "nsd", TreeSize(subjects=(4,), n_sessions=2, n_trials=750, n_vertices=40, image_size=8))
    shutil.copyfile(full_size_design, tmp_path / "nsd" / DESIGN)

    result = run_cli("build", tmp_path / "nsd", tmp_path / "release", "--subjects", 4, "--name", "one")
    # 28 sessions of two hemispheres, and the images
    assert_fails(result, "subj04.*session03.mgh is missing", "57 problems in all")


@pytest.fixture
def full_size_design(tmp_path, rng) -> Path:
    order = rng.permutation(np.repeat(np.arange(1, 10_001), 3))
    ids = rng.permutation(73_000) + 1
    shared = np.sort(ids[:1000])
    subjectim = np.hstack([np.tile(shared, (8, 1)), ids[1000:].reshape(8, -1)])
    variables = {"masterordering": order[None].astype(np.uint16), "subjectim": subjectim.astype(np.int32)}
    scipy.io.savemat(tmp_path / "design.mat", variables | {"sharedix": shared[None].astype(np.int32)})
    return tmp_path / "design.mat"


@pytest.mark.needs("mount")
def test_build_fails_in_one_line_when_the_disk_is_full(nsd_tree, tmp_path):
    """The disk is a small file system in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], check=True)
    try:
        result = run_cli("build", nsd_tree, disk / "release", "--cache", tmp_path / "cache")
        assert_fails(result, "[Nn]o space left", "[Ff]ree some space")
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "a"],
        ["build", "a", "b", "--subjects", "9"],
        ["build", "a", "b", "--subjects", "1", "1"],
        ["build", "a", "b", "--subjects", "1", "2"],
        ["build", "a", "b", "--workers", "0"],
        ["build", "a", "b", "--nan-policy", "drop"],
        ["simulate", "a", "--trials", "none"],
        ["fly"],
        [],
    ],
)
def test_wrong_usage_ends_with_exit_status_2(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)

    result = run_cli(*arguments)

    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.iterdir())


def test_error_escapes_what_cannot_be_printed(tmp_path):
    result = run_cli("check", tmp_path, "--recipe", f"{tmp_path}/a\x1b[2J.toml")

    assert_fails(result, r"a\\x1b\[2J\.toml is neither")
