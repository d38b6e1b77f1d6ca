"""Invalid raw files of every kind: `check` and `build` name the file in one line that says what to do, and leave nothing."""

import gzip
import os
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse

from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from support import hashes, make_mgh, run_cli

BETAS = "nsddata_betas/ppdata/subj04/fsaverage/betas_fithrf_GLMdenoise_RR"
SESSION = f"{BETAS}/rh.betas_session02.mgh"
NCSNR = f"{BETAS}/lh.ncsnr.mgh"
LABELS = "nsddata/freesurfer/fsaverage/label"
KASTNER = f"{LABELS}/rh.Kastner2015.mgz"
COLOURS = f"{LABELS}/streams.mgz.ctab"
DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
ORIGINS = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
IMAGES = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
TRIALS, MAP = (1300, 1, 1, 42), (1300, 1, 1, 1)  # of the tree
RECIPE = """
name = "Two"
subjects = [1, 4]
[[region]]
name = "IT"
atlas = "streams"
labels = ["ventral"]
[[region]]
name = "V1"
atlas = "Kastner2015"
labels = [1, 2]
"""


@pytest.fixture
def recipe(tmp_path) -> Path:
    (tmp_path / "two.toml").write_text(RECIPE)
    return tmp_path / "two.toml"


def assert_fails(result, *patterns: str) -> None:
    assert result.returncode == 1, result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("allen2022-surface: ")]
    assert len(lines) == 1, result.stderr
    for pattern in patterns:
        assert re.search(pattern, lines[0]), f"{pattern!r} does not match {lines[0]!r}"


def remove(*names: str):
    return lambda tree: [(tree / name).unlink() for name in names]


def write(name: str, content: bytes):
    return lambda tree: (tree / name).write_bytes(content)


def cut(name: str):
    return lambda tree: os.truncate(tree / name, (tree / name).stat().st_size - 50)


def design(**changes):
    """Change variables of the design; None removes one."""

    def change(tree: Path) -> None:
        variables = {k: v for k, v in scipy.io.loadmat(tree / DESIGN).items() if not k.startswith("__")}
        for name, value in changes.items():
            variables[name] = value(variables[name]) if callable(value) else value
        scipy.io.savemat(tree / DESIGN, {name: value for name, value in variables.items() if value is not None})

    return change


def mgh(name: str, shape: tuple[int, ...], kind: str = "f4", fill: float = 0, count: int | None = None):
    """Write an MGH file of one value; `count` is what its header gives as the number of vertices, if not that of the shape."""

    def change(tree: Path) -> None:
        content = make_mgh(np.full(shape, fill, kind), count)
        (tree / name).write_bytes(gzip.compress(content, 1) if name.endswith(".mgz") else content)

    return change


def brick(write):
    """Write the images in another way, with what they refer to in `source.hdf5`."""

    def change(tree: Path) -> None:
        (tree / IMAGES).rename((tree / IMAGES).with_name("source.hdf5"))
        with h5py.File((tree / IMAGES).with_name("source.hdf5")) as source, h5py.File(tree / IMAGES, "w") as file:
            write(file, source["imgBrick"])

    return change


def plain(shape: tuple[int, ...], kind: str = "u1", name: str = "imgBrick"):
    return brick(lambda file, source: file.create_dataset(name, data=np.ones(shape, kind)))


def virtual(file, source, name: str = "source.hdf5") -> None:
    layout = h5py.VirtualLayout(source.shape, "u1")
    layout[:] = h5py.VirtualSource(name, "imgBrick", source.shape)
    file.create_virtual_dataset("imgBrick", layout)


def virtual_of_itself(file, source) -> None:
    virtual(file, source, Path(file.filename).name)


def virtual_without_source(file, source) -> None:
    virtual(file, source)
    Path(source.file.filename).unlink()


def half_written(file, source) -> None:
    chunks = (1, *source.shape[1:])
    half = len(source) // 2
    file.create_dataset("imgBrick", source.shape, "u1", chunks=chunks)[:half] = source[:half]


def external_storage(file, source) -> None:
    file.create_dataset("imgBrick", source.shape, "u1", external=[(b"gone.raw", 0, h5py.h5f.UNLIMITED)])


def huge(file, source) -> None:
    file.create_dataset("imgBrick", (200, 10**5, 10**5, 3), "u1", chunks=(1, 99, 99, 3))


def compressed(file, source) -> None:
    file.create_dataset("imgBrick", data=source, compression="gzip", chunks=(7, 3, 3, 3), maxshape=(None,) * 4)


def origins(old: str, new: str):
    """Replace text in the table of images."""

    def change(tree: Path) -> None:
        text = (tree / ORIGINS).read_text()
        assert old in text
        (tree / ORIGINS).write_text(text.replace(old, new))

    return change


def show_once(order: np.ndarray) -> np.ndarray:
    """Show each image at most once, so that none is complete."""
    return np.arange(1, order.size + 1, dtype=np.uint16)[None]


def wide(order: np.ndarray) -> np.ndarray:
    """Give every subject as many images as there are trials."""
    return np.tile(np.arange(1, 169, dtype=np.int32), (8, 1))


FAULTS = {
    "design missing": (remove(DESIGN), DESIGN, "is missing"),
    "design no MATLAB file": (write(DESIGN, b"no"), DESIGN, r"is not NSD's experiment design \(.*Download it again"),
    "design of version 7.3": (write(DESIGN, b"MATLAB 7.3 MAT-file"), DESIGN, "of version 7.3, .* Save it with"),
    "design cut short": (cut(DESIGN), DESIGN, "is not NSD's experiment design"),
    "variable missing": (design(sharedix=None), DESIGN, "sharedix is missing or no matrix of numbers"),
    "variable sparse": (design(sharedix=scipy.sparse.csc_matrix([[1, 2]])), DESIGN, "sharedix is missing or no matrix"),
    "variable of fractions": (design(sharedix=np.array([[1.5, 2]])), DESIGN, "sharedix holds 1.5 to 2.0, expected"),
    "index of zero": (design(masterordering=lambda v: v * 0), DESIGN, "masterordering holds 0 to 0, expected whole"),
    "index too large": (design(masterordering=lambda v: v + 999), DESIGN, "masterordering holds 1000 to .* from 1 to"),
    "image beyond 73k": (design(subjectim=lambda v: v + 72_999), DESIGN, "subjectim holds .* numbers from 1 to 73000"),
    "shared not ascending": (design(sharedix=lambda v: v[:, ::-1]), DESIGN, "sharedix is not ascending"),
    "no complete image": (design(masterordering=show_once, subjectim=wide), DESIGN, "no image was seen 3 times by"),
    "too few trials": (design(masterordering=lambda v: v[:, :167]), DESIGN, "orders 167 trials, but 4 sessions of 42"),
    "too few subjects": (design(subjectim=lambda v: v[:3]), DESIGN, "has 3 subjects, expected at least 4"),
    "session missing": (remove(SESSION), SESSION, r"is missing"),
    "betas a folder": (lambda t: ((t / SESSION).unlink(), (t / SESSION).mkdir()), SESSION, "is missing"),
    "all betas missing": (lambda t: shutil.rmtree(t / BETAS), f"{BETAS}/lh.betas_session01.mgh", "is missing"),
    "betas empty": (write(SESSION, b""), SESSION, "it ends early: 0 bytes, expected at least 284"),
    "betas cut short": (cut(SESSION), SESSION, r"is not a betas file .*it ends early: .*Download it again"),
    "betas not MGH": (write(SESSION, b"other content" * 100), SESSION, "its version of MGH is .*, expected 1"),
    "betas of int32": (mgh(SESSION, TRIALS, "i4"), SESSION, r"it holds int32 of shape .*, expected float32"),
    "betas of a volume": (mgh(SESSION, (13, 10, 10, 42)), SESSION, r"of shape \(13, 10, 10, 42\), expected float32"),
    "betas without trials": (mgh(SESSION, (1300, 1, 1, 0)), SESSION, r"type 3 of shape \(1300, 1, 1, 0\), expected"),
    "betas of other vertices": (mgh(SESSION, (9, 1, 1, 42)), SESSION, "holds 9 vertices, .* as most files do. Was it"),
    "betas of other trials": (mgh(SESSION, (1300, 1, 1, 41)), SESSION, "holds 41 trials, expected 42, as most files"),
    "betas of a damaged count": (mgh(SESSION, TRIALS, count=2**31 - 1), SESSION, r"at least 360,7"),
    "betas of a negative count": (mgh(SESSION, TRIALS, count=-5), SESSION, r"of shape \(-5, 1, 1, 42\)"),
    "ncsnr of a negative count": (mgh(NCSNR, MAP, count=-1), NCSNR, r"it holds type 3 of shape \(-1, 1, 1, 1\)"),
    "ncsnr missing": (remove(NCSNR), NCSNR, "is missing"),
    "ncsnr of other vertices": (mgh(NCSNR, (600, 1, 1, 1)), NCSNR, "holds 600 vertices, expected 1,300"),
    "ncsnr of another shape": (mgh(NCSNR, (1, 1300, 1, 1)), NCSNR, r"its shape is \(1, 1300, 1, 1\), expected \(n_v"),
    "labels missing": (remove(KASTNER), KASTNER, "is missing"),
    "labels not gzip": (write(KASTNER, b"x"), KASTNER, "is not an MGH file of one value per vertex"),
    "labels cut short": (cut(KASTNER), KASTNER, "is not an MGH file"),
    "labels of a damaged count": (mgh(KASTNER, MAP, count=2**30), KASTNER, "at least 4,294,967,580"),
    "labels of other vertices": (mgh(KASTNER, (3, 1, 1, 1)), KASTNER, "holds 3 vertices, expected 1,300"),
    "labels of fractions": (mgh(KASTNER, MAP, fill=0.5), KASTNER, "holds 0.5 at vertex 0, expected"),
    "labels too large": (mgh(KASTNER, MAP, fill=-1e30), KASTNER, r"holds -1\S+ at vertex 0, expec"),
    "label names missing": (remove(COLOURS), COLOURS, "is missing"),
    "label name unknown": (write(COLOURS, b"5 other\n"), "two.toml", r"1, labels is 'ventral', expected .*5 \(other\)"),
    "images missing": (remove(IMAGES), IMAGES, "is missing"),
    "images cut short": (cut(IMAGES), IMAGES, r"is not NSD's images \(.*Download it again"),
    "images never written": (brick(half_written), IMAGES, r"all pixels of image \d+ \(0-based\) are 0"),
    "images without source": (brick(virtual_without_source), IMAGES, r"all pixels of image \d+ \(0-based\) are"),
    "images of themselves": (brick(virtual_of_itself), IMAGES, "imgBrick refers to itself, for which HDF5 would"),
    "images without storage": (brick(external_storage), IMAGES, "is not NSD's images .*external raw data file"),
    "images of a damaged count": (brick(huge), IMAGES, "imgBrick is .*expected uint8 of shape"),
    "images a group": (brick(lambda file, source: file.create_group("imgBrick")), IMAGES, "imgBrick is <HDF5 gr"),
    "images of another name": (plain((2, 2, 2, 3), name="other"), IMAGES, "is not NSD's images"),
    "images of int16": (plain((2, 2, 2, 3), "i2"), IMAGES, r"imgBrick is .*expected uint8 of shape"),
    "images of two channels": (plain((2, 2, 2, 2)), IMAGES, r"imgBrick is .*expected uint8"),
    "too few images": (plain((2, 2, 2, 3)), IMAGES, "imgBrick holds 2 images, but the design asks"),
    "origins empty": (write(ORIGINS, b""), ORIGINS, r"is not NSD's table of images \(No columns.*Download it again"),
    "origins without ids": (origins("nsdId", "id"), ORIGINS, "it lacks the column nsdId"),
    "origins with a row twice": (write(ORIGINS, b"nsdId,cocoId\n1,2\n1,2\n"), ORIGINS, "an nsdId occurs twice"),
    "origins with half an id": (write(ORIGINS, b"nsdId,cocoId\n1.5,2\n"), ORIGINS, "it holds the id '1.5', expected"),
    "origins with other ids": (write(ORIGINS, b"nsdId,cocoId\nx,2\n"), ORIGINS, "is not NSD's table of images .*'x'"),
    "origins with other crops": (origins("(0, 0", "(0, nan"), ORIGINS, r"cropBox is '\(0, nan.*, expected four frac"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_a_file_is_named_by_check(tiny_tree_copy, recipe, fault):
    break_tree, name, pattern = FAULTS[fault]
    break_tree(tiny_tree_copy)
    before = {path: path.stat().st_mtime_ns for path in tiny_tree_copy.rglob("*")}

    result = run_cli("check", tiny_tree_copy, "--recipe", recipe)

    assert_fails(result, rf"problems? in {tiny_tree_copy}, listed above\.")
    lines = [line for line in result.stdout.splitlines() if line.startswith("problem: ") and name in line]
    assert len(lines) == 1, result.stdout
    assert re.search(pattern, lines[0]), lines[0]
    assert {path: path.stat().st_mtime_ns for path in tiny_tree_copy.rglob("*")} == before


@pytest.mark.parametrize("fault", ["session missing", "design cut short", "labels of fractions"])
def test_fault_of_a_file_ends_a_build(tiny_tree_copy, recipe, tmp_path, fault):
    break_tree, name, pattern = FAULTS[fault]
    break_tree(tiny_tree_copy)

    result = run_cli("build", tiny_tree_copy, tmp_path / "out" / "release", "--recipe", recipe)
    assert_fails(result, name, pattern)
    assert "problems in all" not in result.stderr
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize("way", [virtual, compressed])
def test_images_are_read_however_they_are_stored(tiny_tree_copy, tiny_tree, recipe, tmp_path, way):
    brick(way)(tiny_tree_copy)
    pictures = []
    for number, root in enumerate((tiny_tree_copy, tiny_tree)):
        assert run_cli("build", root, tmp_path / f"{number}", "--recipe", recipe, "--cache", "none").returncode == 0
        pictures.append(hashes(tmp_path / f"{number}" / "stimuli_test"))
    assert pictures[0] == pictures[1]


def test_odd_values_and_versions_are_read_without_a_word(tiny_tree_copy, recipe, tmp_path):
    """FreeSurfer 7 writes the version 513. NumPy would warn of an infinite signal-to-noise ratio."""
    for name in (SESSION, NCSNR):
        content = (tiny_tree_copy / name).read_bytes()
        (tiny_tree_copy / name).write_bytes(
            struct.pack(">i", 513) + content[4:284] + struct.pack(">f", np.inf) + content[288:]
        )
    recipe.write_text(RECIPE.partition("[[region]]")[0] + '[[region]]\nname = "all"\natlas = "cortex"\n')
    command = ["-q", "build", tiny_tree_copy, tmp_path / "release", "--recipe", recipe]

    result = subprocess.run(
        [sys.executable, "-m", "allen2022_surface_packaging", *command], capture_output=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert run_cli("verify", tmp_path / "release", "--nsd-root", tiny_tree_copy, "--all").returncode == 0


def test_check_lists_every_problem_of_all_recipes_once(tiny_tree_copy, recipe, tmp_path):
    text = RECIPE.replace("Two", "Other").replace('name = "IT"', "each = true").replace('labels = ["ventral"]', "")
    (tmp_path / "other.toml").write_text(text)
    faults = ("session missing", "labels not gzip", "images cut short", "label names missing", "design cut short")
    for fault in faults:
        FAULTS[fault][0](tiny_tree_copy)

    result = run_cli("check", tiny_tree_copy, "--recipe", recipe, "--recipe", tmp_path / "other.toml")

    assert_fails(result, "5 problems in")
    assert [fault for fault in faults if f"problem: {tiny_tree_copy / FAULTS[fault][1]} " not in result.stdout] == []
    assert "optional" not in result.stdout
    built = run_cli("build", tiny_tree_copy, tmp_path / "release", "--recipe", recipe)
    assert_fails(built, r"\(5 problems in all: `allen2022-surface check`")


def test_every_session_is_required_when_the_design_is_full_size(tmp_path, rng):
    """The tree has two sessions, but its design is as large as NSD's."""
    simulate_tree(tmp_path / "nsd", TreeSize(subjects=(4,), n_sessions=2, n_trials=750, n_vertices=40, image_size=8))
    ids = rng.permutation(73_000) + 1
    shared = np.sort(ids[:1000])
    change = design(
        masterordering=rng.permutation(np.repeat(np.arange(1, 10_001), 3))[None].astype(np.uint16),
        subjectim=np.hstack([np.tile(shared, (8, 1)), ids[1000:].reshape(8, -1)]).astype(np.int32),
        sharedix=shared[None].astype(np.int32),
    )
    change(tmp_path / "nsd")

    result = run_cli("build", tmp_path / "nsd", tmp_path / "release", "--subjects", 4, "--name", "one")
    # 28 sessions of two hemispheres, and the images
    assert_fails(result, "subj04.*session03.mgh is missing", "57 problems in all")


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


def test_error_escapes_what_cannot_be_printed(tmp_path):
    result = run_cli("check", tmp_path, "--recipe", f"{tmp_path}/a\x1b[2J.toml")

    assert_fails(result, r"a\\x1b\[2J\.toml is neither")
