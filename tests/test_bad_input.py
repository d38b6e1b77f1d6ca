"""Whatever is wrong with the input: one line that names the file, says what was found and what to do, and nothing left behind."""

import gzip
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io

from allen2022_surface_packaging.cli import main
from allen2022_surface_packaging.nsd.simulation import Recipe, simulate_tree

BETAS = "nsddata_betas/ppdata/subj02/fsaverage/betas_fithrf_GLMdenoise_RR"
LABELS = "nsddata/freesurfer/fsaverage/label"
DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
IMAGES = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def run(capsys):
    """Run the command line in this process, which is a second faster than in another."""

    def run_command(*arguments) -> Result:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Result(leaving.value.code or 0, captured.out, captured.err)

    return run_command


def assert_fails(result: Result, *words: str) -> None:
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("allen2022-surface: ")]
    assert len(lines) == 1, result.stderr
    for word in words:
        assert re.search(word, lines[0]), f"{word!r} is not in {lines[0]!r}"


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


def out_of_range(tree: Path, name: str) -> None:
    values = read_design(tree)[name].copy()
    values.flat[5] = 0
    rewrite_design(tree, **{name: values})


def unseen_images(tree: Path) -> None:
    """Show every image once: no image is complete."""
    design = read_design(tree)
    n = design["masterordering"].size
    ids = np.arange(1, n + 1)
    rewrite_design(tree, masterordering=ids[None].astype(np.uint16), subjectim=np.tile(ids, (8, 1)).astype(np.int32))


def one_complete_image(tree: Path) -> None:
    design = read_design(tree)
    order = np.arange(1, design["masterordering"].size + 1)
    order[:3] = design["sharedix"].min()
    ids = np.tile(np.arange(1, len(order) + 1), (8, 1))
    rewrite_design(tree, masterordering=order[None].astype(np.uint16), subjectim=ids.astype(np.int32))


def fewer_images(tree: Path) -> None:
    with h5py.File(tree / IMAGES, "r+") as file:
        few = file["imgBrick"][:20]
        del file["imgBrick"]
        file["imgBrick"] = few


def not_mgz(path: Path) -> None:
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
        lambda t: out_of_range(t, "masterordering"),
        ["masterordering holds 0 to", "1 to 400"],
    ),
    "subjectim out of range": (lambda t: out_of_range(t, "subjectim"), ["subjectim holds 0 to"]),
    "sharedix out of range": (lambda t: out_of_range(t, "sharedix"), ["sharedix holds 0 to"]),
    "no complete image": (unseen_images, ["No image was seen 3 times"]),
    "one complete image": (one_complete_image, ["1 image was seen 3 times", "at least 2"]),
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
        lambda t: not_mgz(t / LABELS / "rh.Kastner2015.mgz"),
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
        lambda t: (t / BETAS / "rh.betas_session01.mgh").write_bytes(b"nothing of the kind" * 100),
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
    "images not HDF5": (lambda t: (t / IMAGES).write_text("no"), ["nsd_stimuli.hdf5 holds no HDF5 dataset imgBrick"]),
    "image outside imgBrick": (fewer_images, ["imgBrick holds 20 images", "asks for image"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_tree_is_one_line_and_leaves_nothing(run, own_tree, tmp_path, fault):
    break_tree, words = FAULTS[fault]
    break_tree(own_tree)
    before = {path: path.stat().st_mtime_ns for path in own_tree.rglob("*")}

    assert_fails(run("build", own_tree, tmp_path / "out" / "release"), *words)

    assert not list(tmp_path.glob("out/*"))
    assert {path: path.stat().st_mtime_ns for path in own_tree.rglob("*")} == before


@pytest.mark.parametrize("fault", ["session missing", "betas cut short", "image outside imgBrick", "labels damaged"])
def test_check_finds_the_same_fault(run, own_tree, fault):
    break_tree, words = FAULTS[fault]
    break_tree(own_tree)

    result = run("check", own_tree)
    assert result.returncode == 1
    for word in words:
        assert re.search(word, result.stdout)


def test_check_lists_every_problem_and_not_just_the_first(run, own_tree):
    (own_tree / BETAS / "rh.betas_session02.mgh").unlink()
    (own_tree / LABELS / "lh.streams.mgz").unlink()
    (own_tree / LABELS / "rh.Kastner2015.mgz").write_text("no")
    (own_tree / IMAGES).write_text("no")
    cut_in_half(own_tree / BETAS / "lh.betas_session01.mgh")

    result = run("check", own_tree)
    assert_fails(result, r"\d problems in")
    names = ("rh.betas_session02.mgh", "lh.streams.mgz", "rh.Kastner2015.mgz", "lh.betas_session01.mgh")
    for name in names:
        assert result.stdout.count(name) >= 1
    problems = [line for line in result.stdout.splitlines() if line.startswith("problem: ")]
    assert len(problems) == len(set(problems)) == len(names)


def test_check_finds_both_files_of_a_missing_pair(run, own_tree):
    for hemisphere in ("lh", "rh"):
        (own_tree / BETAS / f"{hemisphere}.ncsnr.mgh").unlink()

    result = run("check", own_tree)
    assert_fails(result, "2 problems in")


def test_check_prints_a_row_per_subject(run, nsd_tree):
    result = run("check", nsd_tree)

    assert result.returncode == 0
    for subject, sessions in zip(range(1, 9), (4, 4, 3, 3, 4, 3, 4, 3), strict=True):
        assert re.search(
            rf"subj{subject:02d} +{sessions} +{sessions} +{2 * sessions}/{2 * sessions} +642 x 300", result.stdout
        )
    assert "no problems found" in result.stdout


@pytest.mark.parametrize("root", ["nowhere", "empty"])
def test_a_missing_or_empty_tree_is_refused(run, tmp_path, root):
    (tmp_path / "empty").mkdir()

    assert_fails(run("build", tmp_path / root, tmp_path / "release"), root, "NSD")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_with_nsds_own_design_every_session_must_be_there(run, tmp_path, nsd_sized_design):
    """A tree of two sessions that claims to be NSD itself."""
    simulate_tree(tmp_path / "nsd", Recipe(subjects=(4,), n_sessions=2, n_trials=750, n_vertices=40, image_size=8))
    shutil.copyfile(nsd_sized_design, tmp_path / "nsd" / DESIGN)

    result = run("build", tmp_path / "nsd", tmp_path / "release", "--subjects", 4, "--name", "one")
    assert_fails(
        result, "subj04.*session03.mgh is missing", "57 problems in all"
    )  # 28 sessions of two hemispheres, and the images


@pytest.fixture
def nsd_sized_design(tmp_path, rng) -> Path:
    order = rng.permutation(np.repeat(np.arange(1, 10_001), 3))
    ids = rng.permutation(73_000) + 1
    shared = np.sort(ids[:1000])
    subjectim = np.hstack([np.tile(shared, (8, 1)), ids[1000:].reshape(8, -1)])
    variables = {"masterordering": order[None].astype(np.uint16), "subjectim": subjectim.astype(np.int32)}
    scipy.io.savemat(tmp_path / "design.mat", variables | {"sharedix": shared[None].astype(np.int32)})
    return tmp_path / "design.mat"


def test_no_space_left_is_one_line_and_leaves_nothing(run, nsd_tree, tmp_path):
    """On a real file system that is too small, where this machine allows to make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        result = run("build", nsd_tree, disk / "release", "--cache", tmp_path / "cache")
        assert_fails(result, "[Nn]o space left", "[Mm]ake room")
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
def test_wrong_usage_ends_with_status_2(run, arguments):
    result = run(*arguments)

    assert result.returncode == 2
    assert "Traceback" not in result.stderr
