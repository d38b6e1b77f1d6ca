"""`verify --nsd-root`: a sound release equals what the raw files give; the planted errors are in `test_planted.py`."""

import shutil
from dataclasses import replace
from pathlib import Path

import boto3
import netCDF4
import nibabel
import numpy as np
import pytest
from PIL import Image

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.verify import reference
from reference import prepare_regions
from support import run_cli, upload_public, verify
from verify.planted import NAME

BETAS = "nsddata_betas/ppdata/{}/fsaverage/betas_fithrf_GLMdenoise_RR"
NO_PIXELS = "pixels, because nsd_stimuli.hdf5 is missing"


def recompute(release, tree, *options) -> dict:
    """Return what `verify --nsd-root` keeps of a release that is sound."""
    answers = verify(release, "--nsd-root", tree, *options)
    assert answers["release"]["problems"] == []
    return answers["nsd_root"]


def find_largest(result) -> float:
    return max(row["largest"] for row in result["differences"])


@pytest.mark.parametrize(
    ("standardize_on", "nan_policy", "copies"),
    [("train", "zero", "keep"), ("all", "drop", "keep"), ("train", "drop", "drop"), ("all", "zero", "drop")],
)
def test_other_methods_equal_their_recomputation(tiny_tree, tmp_path, standardize_on, nan_policy, copies):
    recipe = make_recipe((1, 2), name="other", standardize_on=standardize_on, nan_policy=nan_policy)
    build_release(tiny_tree, tmp_path / "r", replace(recipe, copies=copies))

    for options in ((), ("--all",)):
        result = recompute(tmp_path / "r", tiny_tree, *options)

        assert result["problems"] == []
        assert 0 < find_largest(result) < 1e-5


def test_tree_in_a_bucket_gives_the_same(empty_s3, tiny_copy, tiny_tree):
    boto3.client("s3").create_bucket(Bucket="raw")
    upload_public(empty_s3, "raw", tiny_tree, prefix="some/where/")

    result = recompute(tiny_copy, "s3://raw/some/where")

    assert result["problems"] == []
    assert result == recompute(tiny_copy, tiny_tree)


def test_sample_has_every_group_and_every_filled_neuroid_and_follows_the_seed(tiny_copy, tiny_tree):
    with (
        netCDF4.Dataset(tiny_copy / f"{NAME}_train.nc") as train,
        netCDF4.Dataset(tiny_copy / f"{NAME}_test.nc") as test,
    ):
        has_zero = (train["data"][:] == 0).any(axis=(0, 2)) | (test["data"][:] == 0).any(axis=(0, 2))
        n_images, n_neuroids, _ = train["data"].shape

    first, second = (recompute(tiny_copy, tiny_tree, "--seed", seed)["differences"] for seed in (0, 1))

    assert len(first) == 2 * 2 * 4
    n_sampled = [row["of"] / n_images for row in first if row["split"] == "train"]
    assert min(n_sampled) >= 10
    assert has_zero.sum() < sum(n_sampled) < n_neuroids
    assert [row["largest"] for row in first] != [row["largest"] for row in second]
    assert first == recompute(tiny_copy, tiny_tree)["differences"]


def test_small_blocks_give_the_same(tiny_copy, tiny_tree, monkeypatch):
    whole = recompute(tiny_copy, tiny_tree, "--all")
    monkeypatch.setattr(reference, "VERTICES_AT_A_TIME", 7)

    parts = recompute(tiny_copy, tiny_tree, "--all")

    assert whole["problems"] == parts["problems"] == []
    for part, row in zip(parts["differences"], whole["differences"], strict=True):
        assert part == row | {"mean": pytest.approx(row["mean"])}


def change_betas(path, change) -> None:
    betas = np.array(nibabel.load(path).dataobj, dtype=np.float32)
    change(betas)
    nibabel.save(nibabel.freesurfer.MGHImage(betas, np.eye(4)), path)


def test_neuroids_that_were_wrongly_dropped_or_kept_are_named(tiny_tree_copy, tmp_path):
    build_release(tiny_tree_copy, tmp_path / "r", make_recipe((1, 2), name="dropped", nan_policy="drop"))
    with netCDF4.Dataset(tmp_path / "r/dropped_test.nc") as file:
        ids = file["neuroid_id"][:].tolist()
        kept_row = next(i for i, name in enumerate(ids) if name.startswith("subj01_rh"))
        kept = ids[kept_row], int(file["vertex_index"][kept_row])

    def change(betas):
        betas[np.isnan(betas)] = 1
        betas[kept[1], 0, 0, 0] = np.nan

    for path in (tiny_tree_copy / BETAS.format("subj01")).glob("rh.betas_session*.mgh"):
        change_betas(path, change)

    problems = recompute(tmp_path / "r", tiny_tree_copy)["problems"]

    assert f"{kept[0]} is in the release, but a trial that it needs is NaN." in problems
    assert any("is not in the release, but the recipe does not drop it." in problem for problem in problems)


def test_copies_that_were_wrongly_dropped_or_kept_are_named(tiny_tree_copy, tmp_path):
    vertices = {}
    for copies in ("keep", "drop"):
        build_release(tiny_tree_copy, tmp_path / copies, replace(make_recipe((1, 2), name="two"), copies=copies))
        with netCDF4.Dataset(tmp_path / copies / "two_test.nc") as file:
            rows = zip(file["neuroid_id"][:].tolist(), file["vertex_index"][:].tolist(), strict=True)
            vertices[copies] = {name: vertex for name, vertex in rows if name.startswith("subj01_rh")}
    dropped = next(name for name in vertices["keep"] if name not in vertices["drop"])
    first, *_, last = (name for name in vertices["drop"] if "_V1_" in name)

    def change(betas):
        betas[vertices["keep"][dropped]] += np.arange(betas.shape[-1]) % 5
        betas[vertices["drop"][last]] = betas[vertices["drop"][first]]

    for path in (tiny_tree_copy / BETAS.format("subj01")).glob("rh.betas_session*.mgh"):
        change_betas(path, change)

    problems = recompute(tmp_path / "drop", tiny_tree_copy, "--all")["problems"]

    assert f"{dropped} is not in the release, but the recipe does not drop it." in problems
    assert f"{last} is in the release, but it is a copy of another neuroid." in problems


def test_release_from_prepared_averages_is_recomputed_from_them(tiny_tree_copy, tmp_path):
    prepare_regions(tiny_tree_copy, (1, 2))
    recipe = make_recipe((1, 2), name="prepared")
    build_release(tiny_tree_copy, tmp_path / "r", recipe, from_region_assemblies=True)
    assert recompute(tmp_path / "r", tiny_tree_copy, "--all")["problems"] == []

    with netCDF4.Dataset(tiny_tree_copy / "assemblies/Allen2022_surface.V2.nc", "r+") as file:
        averages = next(
            variable for variable in file.variables.values() if variable.ndim == 2 and variable.dtype == "f4"
        )
        averages[:, 5] = averages[:, 5][::-1]

    (problem,) = recompute(tmp_path / "r", tiny_tree_copy, "--all")["problems"]
    assert "subj01_lh_V2_v00005" in problem


def exchange(first, second) -> None:
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def rewrite(change=lambda image: image, **options):
    """Return a change of the first of two image files."""

    def change_file(path, _):
        with Image.open(path) as image:
            changed = change(image.convert("RGB"))
        changed.save(path, **options)

    return change_file


EXTRACTED = {
    "as NSD's": ("png", lambda *_: None, ""),
    "JPEG of quality 95": ("jpg", lambda *_: None, ""),
    "JPEG of the same quality by another program": ("jpg", rewrite(quality=95, subsampling=0), ""),
    "JPEG of low quality": ("jpg", rewrite(quality=20), "pixels differ"),
    "exchanged": ("png", exchange, "pixels differ"),
    "JPEG exchanged": ("jpg", exchange, "pixels differ"),
    "a little brighter": (
        "png",
        rewrite(lambda image: image.point(lambda value: value + 1)),
        "pixels differ by up to 1 ",
    ),
    "resized": ("png", rewrite(lambda image: image.resize((4, 6))), "has the shape (6, 4, 3) here, not (8, 8, 3)"),
}


@pytest.mark.parametrize("name", EXTRACTED)
def test_images_that_were_extracted_before_are_compared_with_those_of_nsd(tiny_tree_copy, tmp_path, name):
    image_format, change, fault = EXTRACTED[name]
    recipe = make_recipe((1, 2), name="extracted")
    build_release(tiny_tree_copy, tmp_path / "r", recipe, image_format=image_format)
    assert recompute(tmp_path / "r", tiny_tree_copy)["problems"] == []
    for split in ("train", "test"):
        shutil.copytree(tmp_path / f"r/stimuli_{split}", tiny_tree_copy / f"brainscore/stimuli_{split}")
    change(*sorted((tiny_tree_copy / "brainscore/stimuli_test").iterdir())[:2])
    build_release(tiny_tree_copy, tmp_path / "r", recipe, overwrite=True)

    result = recompute(tmp_path / "r", tiny_tree_copy, "--all")
    assert [fault in problem for problem in result["problems"]] == [True] * bool(fault)
    assert NO_PIXELS not in run_cli("verify", tmp_path / "r", "--nsd-root", tiny_tree_copy).stdout

    (tiny_tree_copy / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5").unlink()
    result = recompute(tmp_path / "r", tiny_tree_copy, "--all")
    assert result["problems"] == []
    assert NO_PIXELS in run_cli("verify", tmp_path / "r", "--nsd-root", tiny_tree_copy).stdout


@pytest.mark.parametrize("damage", ["cut", "missing"])
@pytest.mark.parametrize(
    "name",
    [
        "nsddata/freesurfer/fsaverage/label/lh.streams.mgz",
        f"{BETAS.format('subj01')}/lh.betas_session02.mgh",
        f"{BETAS.format('subj01')}/rh.ncsnr.mgh",
        "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",
    ],
)
def test_damaged_raw_file_is_one_line_that_names_it(tiny_copy, tiny_tree_copy, name, damage):
    path = tiny_tree_copy / name
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 3])

    result = run_cli("verify", tiny_copy, "--nsd-root", tiny_tree_copy)

    assert result.returncode == 1
    (problem,) = [line for line in result.stdout.splitlines() if line.startswith("problem: ")]
    assert Path(name).name in problem
    assert "Download it" in problem
    assert f"{tiny_copy} was not compared with {tiny_tree_copy}" in result.stdout.splitlines()
