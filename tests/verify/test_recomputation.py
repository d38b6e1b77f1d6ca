"""A sound release equals its recomputation; a release of a faulty builder does not."""

import ast
import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path

import boto3
import netCDF4
import nibabel
import numpy as np
import pandas as pd
import pytest
import scipy.io
import xarray

import reference
from allen2022_surface_packaging.assemble import neuroids, subjects
from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.facts import SUBJECTS
from allen2022_surface_packaging.nsd import trials
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import Region, make_recipe
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from allen2022_surface_packaging.verify import expectation, provenance, raw, recomputation, values
from allen2022_surface_packaging.verify.expectation import find_published_problems
from allen2022_surface_packaging.verify.recomputation import recompute_release
from allen2022_surface_packaging.verify.soundness import verify_release
from verify import planted
from verify.damages import TEST, TRAIN, change_values, read_coordinates

SUBJECT_NAMES = [f"subj{subject:02d}" for subject in SUBJECTS]
BETAS = "nsddata_betas/ppdata/{}/fsaverage/betas_fithrf_GLMdenoise_RR"


def two_subjects(name, **options):
    return make_recipe((1, 3), name=name, **options)


def test_release_as_built_equals_its_recomputation(release, four_subject_release, nsd_tree, tmp_path, run_verify):
    for path in (release, four_subject_release):
        copy_path = Path(shutil.copytree(path, tmp_path / path.name))

        result = run_verify(copy_path, "--nsd-root", nsd_tree, "--all")

        assert result.status == 0
        findings = json.loads((copy_path / "verify.json").read_text())["nsd_root"]
        assert findings["problems"] == []
        assert sum(row["values"] for row in findings["differences"]) == sum(
            np.prod(shape) for shape in json.loads((copy_path / "release.json").read_text())["shapes"].values()
        )
        assert 0 < max(row["largest difference"] for row in findings["differences"]) < 1e-5
        assert "largest difference" in result.out
        assert run_verify(copy_path).status == 0  # verify.json is not part of the release


def test_release_from_a_flat_tree_equals_its_recomputation(tmp_path):
    simulate_tree(tmp_path / "nsd", TreeSize(subjects=(7,), layout="flat", seed=3))
    build_release(tmp_path / "nsd", tmp_path / "r", make_recipe((7,), name="flat"))

    result = recompute_release(tmp_path / "r", tmp_path / "nsd", every_vertex=True)

    assert result.problems == []
    assert result.differences["vertices"].sum() == 115


def test_release_from_a_tree_in_a_bucket_equals_its_recomputation(moto_port, nsd_tree, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{moto_port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    build_release(nsd_tree, tmp_path / "r", make_recipe((3,), name="one"))
    client = boto3.client("s3")
    client.create_bucket(Bucket="raw-recomputed")
    for path in nsd_tree.rglob("*"):
        if path.is_file() and ("ppdata" not in str(path) or "subj03" in str(path)):
            client.upload_file(str(path), "raw-recomputed", f"some/where/{path.relative_to(nsd_tree)}")

    result = recompute_release(tmp_path / "r", "s3://raw-recomputed/some/where", every_vertex=True)

    assert result.problems == []
    pd.testing.assert_frame_equal(
        result.differences, recompute_release(tmp_path / "r", nsd_tree, every_vertex=True).differences
    )


def test_sample_covers_every_group_and_every_vertex_with_a_nan(release, nsd_tree):
    with xarray.open_dataarray(release / TEST) as test, xarray.open_dataarray(release / TRAIN) as train:
        has_zero = (test.values == 0).any(axis=(0, 2)) | (train.values == 0).any(axis=(0, 2))
    coordinates = read_coordinates(release)

    sample = recompute_release(release, nsd_tree).differences

    assert sorted(zip(sample.subject, sample.region, strict=True)) == sorted(
        {(subject, region) for subject in SUBJECT_NAMES for region in ("V1", "V2", "V4", "IT")}
    )
    for row in sample.itertuples():
        is_in_group = (coordinates["subject"] == row.subject) & (coordinates["region"] == row.region)
        assert row.vertices >= max(10, (has_zero & is_in_group).sum())
    assert sample["values"].sum() == 180 * sample.vertices.sum()  # all 102 + 78 presentations of each
    assert sample.vertices.sum() < 920


@pytest.mark.parametrize("hemisphere", ["lh", "rh"])
def test_sample_shows_a_group_that_is_wrong_in_one_repetition(release_copy, nsd_tree, hemisphere):
    coordinates = read_coordinates(release_copy)
    group = (coordinates["subject"] == "subj05") & (coordinates["region"] == "V4")
    group &= coordinates["hemisphere"] == hemisphere

    def change(values):
        values[47, group] += 1e-3

    change_values(release_copy, TEST, change)

    (problem,) = recompute_release(release_copy, nsd_tree).problems
    assert f"{coordinates['stimulus_id'][47]} repetition {coordinates['repetition'][47]}" in problem
    assert f"subj05_{hemisphere}_V4" in problem


def test_sample_shows_a_filled_value_that_is_not_zero(release_copy, nsd_tree):
    coordinates = read_coordinates(release_copy)
    changed = []

    def change(values):
        row, column, _ = np.argwhere((values == 0) & (np.abs(values).max(axis=0) > 0))[0]
        values[row, column] = 0.5
        changed.extend([row, column])

    change_values(release_copy, TEST, change)
    row, column = changed

    (problem,) = recompute_release(release_copy, nsd_tree).problems
    assert coordinates["neuroid_id"][column] in problem
    assert f"{coordinates['stimulus_id'][row]} repetition {coordinates['repetition'][row]}" in problem
    assert "is 0.5, but the raw files give 0:" in problem


def test_wrong_count_of_filled_values_is_reported(release_copy, nsd_tree):
    manifest = json.loads((release_copy / "release.json").read_text())
    manifest["nan_counts"]["subj03"]["IT"]["test"] += 1
    (release_copy / "release.json").write_text(json.dumps(manifest))

    (problem,) = recompute_release(release_copy, nsd_tree).problems
    assert problem.startswith("The manifest counts ")
    assert "neuroids of subj03 IT, but the raw files give " in problem


def wrong_split(monkeypatch):
    correct = trials.split_images
    monkeypatch.setattr(trials, "split_images", lambda ids, *, train_fraction, seed: correct(ids, seed=seed + 1))
    return "stimulus_id of presentation"


def wrong_average(monkeypatch):
    correct = subjects.average_repetitions
    monkeypatch.setattr(subjects, "average_repetitions", lambda responses: correct(responses[:, :2]))
    return "differ by more than 1e-05"


def wrong_noise_ceiling(monkeypatch):
    correct = neuroids.noise_ceiling
    monkeypatch.setattr(neuroids, "noise_ceiling", lambda ncsnr: correct(ncsnr, 2))
    return "nc_testset of neuroid 0 is"


@pytest.mark.parametrize(
    ("fault", "is_contradiction"),
    [(wrong_split, True), (wrong_average, False), (wrong_noise_ceiling, False)],  # the recipe gives the split
    ids=["wrong_split", "wrong_average", "wrong_noise_ceiling"],
)
def test_recomputation_does_not_repeat_a_fault_of_the_builder(nsd_tree, tmp_path, monkeypatch, fault, is_contradiction):
    message = fault(monkeypatch)
    build_release(nsd_tree, tmp_path / "r", two_subjects("faulty"))

    assert bool(verify_release(tmp_path / "r")) is is_contradiction
    assert any(message in problem for problem in recompute_release(tmp_path / "r", nsd_tree).problems)


def test_wrong_regions_under_a_published_name_are_refused(nsd_tree, tmp_path):
    published = make_recipe((1, 2, 5, 7))
    wrong = (Region("V1", "Kastner2015", (1, 2, 3)), *published.regions[1:])
    build_release(nsd_tree, tmp_path / "r", replace(published, regions=wrong))

    for refuse in (verify_release, lambda path: recompute_release(path, nsd_tree)):
        with pytest.raises(PackagingError, match="this one belongs to a published dataset of other content"):
            refuse(tmp_path / "r")


def test_published_names_are_compared_with_what_was_written_down_again(release):
    manifest = Manifest.read(ReleaseFolder(release))
    wrong = (Region("V1", "Kastner2015", (1, 2, 3)), *manifest.recipe.regions[1:])

    (problem,) = find_published_problems(replace(manifest, recipe=replace(manifest.recipe, regions=wrong)))

    assert find_published_problems(manifest) == []
    assert "('V1', 'Kastner2015', (1, 2, 3))" in problem
    assert "Allen2022_fmri_surface was published with" in problem


def test_other_regions_under_another_name_equal_their_recomputation(nsd_tree, tmp_path):
    chosen = (Region("ventral", "streams", (5,)), Region("early", "Kastner2015", (1, 2, 3, 4)))
    build_release(nsd_tree, tmp_path / "r", replace(two_subjects("other_regions"), regions=chosen))

    result = recompute_release(tmp_path / "r", nsd_tree, every_vertex=True)

    assert verify_release(tmp_path / "r") == []
    assert result.problems == []
    assert result.differences.region.tolist() == ["ventral", "early", "ventral", "early"]


def test_recomputation_imports_no_arithmetic_of_the_builder():
    imported = set()
    for module in (recomputation, expectation, provenance, values, raw):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.ImportFrom) and node.level == 2:
                imported.add(node.module)

    paths_records_and_processes = {
        "arrays",
        "errors",
        "nsd.storage",
        "nsd.tree",
        "progress",
        "recipe",
        "release",
    }
    assert imported <= paths_records_and_processes


@pytest.mark.parametrize(("standardize_on", "nan_policy"), [("train", "zero"), ("all", "drop"), ("train", "drop")])
def test_other_methods_equal_their_recomputation(nsd_tree, tmp_path, standardize_on, nan_policy):
    recipe = two_subjects("of_another_method", standardize_on=standardize_on, nan_policy=nan_policy)
    build_release(nsd_tree, tmp_path / "r", recipe)

    for every_vertex in (False, True):
        result = recompute_release(tmp_path / "r", nsd_tree, every_vertex=every_vertex)

        assert result.problems == []
        assert 0 < result.differences["largest difference"].max() < 1e-5


def test_release_of_another_method_than_its_manifest_says_is_reported(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", two_subjects("of_another_method", standardize_on="train"))
    manifest = json.loads((tmp_path / "r/release.json").read_text())
    manifest["recipe"]["standardize_on"] = "all"
    (tmp_path / "r/release.json").write_text(json.dumps(manifest))

    problems = recompute_release(tmp_path / "r", nsd_tree).problems

    assert len(problems) == 8  # each region of both subjects
    assert "differ by more than 1e-05" in problems[0]


def test_wrongly_dropped_and_wrongly_kept_vertices_are_named(tree_copy, tmp_path):
    build_release(tree_copy, tmp_path / "r", two_subjects("dropped", nan_policy="drop"))
    with xarray.open_dataarray(tmp_path / "r/dropped_test.nc") as assembly:
        kept = assembly["vertex_index"].values[(assembly["subject"] == "subj01") & (assembly["hemisphere"] == "rh")]
    for session in range(1, 5):
        path = tree_copy / BETAS.format("subj01") / f"rh.betas_session{session:02d}.mgh"
        betas = np.nan_to_num(np.asarray(nibabel.load(path).dataobj), nan=1)
        betas[kept[0], 0, 0, 0] = np.nan
        nibabel.save(nibabel.freesurfer.MGHImage(betas.astype(np.float32), np.eye(4)), path)

    problems = recompute_release(tmp_path / "r", tree_copy, every_vertex=True).problems

    assert any("was dropped, but all its needed trials are valid" in problem for problem in problems)
    assert any(
        "subj01_rh" in problem and "is in the release, but one of its needed trials is NaN" in problem
        for problem in problems
    )


def test_region_without_valid_vertices_in_a_hemisphere_is_recomputed(tiny_tree, tmp_path):
    tree = Path(shutil.copytree(tiny_tree, tmp_path / "nsd"))
    labels = np.asarray(nibabel.load(tree / "nsddata/freesurfer/fsaverage/label/lh.Kastner2015.mgz").dataobj).ravel()
    path = tree / BETAS.format("subj01") / "lh.betas_session01.mgh"
    betas = np.array(nibabel.load(path).dataobj, dtype=np.float32)
    betas[labels == 7] = np.nan
    nibabel.save(nibabel.freesurfer.MGHImage(betas, np.eye(4)), path)
    build_release(tree, tmp_path / "r", make_recipe((1, 2), name="dropped", nan_policy="drop"))

    for every_vertex in (False, True):
        result = recompute_release(tmp_path / "r", tree, every_vertex=every_vertex)

        assert result.problems == []
    assert not any("lh_V4" in where for where in result.differences["where"][result.differences.subject == "subj01"])


def averages_of(file: netCDF4.Dataset) -> netCDF4.Variable:
    """Return the averages of a prepared assembly, whatever their name."""
    return next(variable for variable in file.variables.values() if variable.ndim == 2 and variable.dtype == "f4")


def test_release_from_prepared_averages_is_recomputed_from_them(tree_copy, tmp_path):
    reference.prepare_regions(tree_copy, (1, 3))
    build_release(tree_copy, tmp_path / "r", two_subjects("prepared"), from_region_assemblies=True)
    assert recompute_release(tmp_path / "r", tree_copy, every_vertex=True).problems == []
    path = tree_copy / "assemblies/Allen2022_surface.V2.nc"
    with netCDF4.Dataset(path, "r+") as file:
        values = averages_of(file)
        values[:, 5] = values[:, 5][::-1]

    problems = recompute_release(tmp_path / "r", tree_copy, every_vertex=True).problems

    assert len(problems) == 1
    assert "subj01_lh_V2_v00005" in problems[0]


def test_vertex_with_an_invalid_prepared_average_is_rightly_dropped(tree_copy, tmp_path):
    reference.prepare_regions(tree_copy, (1, 3))
    with netCDF4.Dataset(tree_copy / "assemblies/Allen2022_surface.V2.nc", "r+") as file:
        values = averages_of(file)
        column = int(np.flatnonzero(np.isfinite(values[:].filled(np.nan)).all(axis=0))[0])
        values[:, column] = np.where(np.arange(values.shape[0]) == 0, np.nan, values[:, column])
    recipe = two_subjects("prepared", nan_policy="drop")
    build_release(tree_copy, tmp_path / "r", recipe, from_region_assemblies=True)

    assert recompute_release(tmp_path / "r", tree_copy, every_vertex=True).problems == []


def test_jpeg_images_are_compared_with_compressed_raw_images(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", two_subjects("jpeg"), image_format="jpg")
    assert recompute_release(tmp_path / "r", nsd_tree).problems == []
    first, second = sorted((tmp_path / "r/stimuli_test").iterdir())[:2]
    shutil.copyfile(first, second)

    (problem,) = recompute_release(tmp_path / "r", nsd_tree).problems
    assert f"{second}: pixel" in problem


def test_copied_images_are_compared_with_the_extracted_ones(tree_copy, tmp_path):
    build_release(tree_copy, tmp_path / "first", two_subjects("first"), image_format="jpg")
    for split in ("train", "test"):
        shutil.copytree(tmp_path / f"first/stimuli_{split}", tree_copy / f"brainscore/stimuli_{split}")
    (tree_copy / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5").unlink()
    build_release(tree_copy, tmp_path / "r", two_subjects("copied"))
    assert recompute_release(tmp_path / "r", tree_copy).problems == []
    path = min((tmp_path / "r/stimuli_train").iterdir())
    path.write_bytes(path.read_bytes() + b"x")

    (problem,) = recompute_release(tmp_path / "r", tree_copy).problems
    assert f"{path} equals no extracted image of" in problem


@pytest.mark.parametrize(
    "name",
    [
        "nsddata/freesurfer/fsaverage/label/lh.streams.mgz",
        "nsddata/experiments/nsd/nsd_expdesign.mat",
        f"{BETAS.format('subj01')}/lh.betas_session01.mgh",
        f"{BETAS.format('subj01')}/rh.ncsnr.mgh",
        "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5",
    ],
)
def test_damaged_raw_file_is_one_line(release, tree_copy, name):
    content = (tree_copy / name).read_bytes()
    (tree_copy / name).write_bytes(content[: len(content) // 3])

    with pytest.raises(PackagingError, match=rf"{name} cannot be read as .*\. Download it again") as raised:
        recompute_release(release, tree_copy)
    assert "\n" not in str(raised.value)


def test_missing_raw_file_is_named(release, tree_copy):
    (tree_copy / BETAS.format("subj02") / "rh.betas_session02.mgh").unlink()

    with pytest.raises(PackagingError, match=r"rh.betas_session02.mgh is missing, but the release was made from it"):
        recompute_release(release, tree_copy)


def test_tree_with_another_design_is_reported(release, tree_copy):
    path = tree_copy / "nsddata/experiments/nsd/nsd_expdesign.mat"
    design = {name: value for name, value in scipy.io.loadmat(path).items() if not name.startswith("__")}
    design["masterordering"] = design["masterordering"][:, ::-1]
    scipy.io.savemat(path, design)

    problems = recompute_release(release, tree_copy).problems

    assert any("stimulus_id of presentation" in problem for problem in problems)


@pytest.mark.parametrize("limit", ["NEUROIDS_AT_A_TIME", "RESPONSES_AT_A_TIME"])
def test_recomputation_in_small_blocks_equals_that_of_the_whole(tiny_release, tiny_tree, monkeypatch, limit):
    whole = recompute_release(tiny_release, tiny_tree, every_vertex=True)
    shapes = Manifest.read(ReleaseFolder(tiny_release)).shapes
    n_images = shapes["train"][0] + shapes["test"][0] // 3
    sizes = []

    def list_blocks(neuroids, n_vertices):
        blocks = _list_blocks(neuroids, n_vertices)
        sizes.extend(len(block.vertices) for block in blocks)
        return blocks

    _list_blocks = recomputation._list_blocks
    monkeypatch.setattr(recomputation, "_list_blocks", list_blocks)
    monkeypatch.setattr(recomputation, limit, 7 if limit == "NEUROIDS_AT_A_TIME" else 7 * 3 * n_images)
    parts = recompute_release(tiny_release, tiny_tree, every_vertex=True)

    assert max(sizes) == 7
    assert parts.problems == whole.problems == []
    pd.testing.assert_frame_equal(parts.differences, whole.differences)


def test_unexpected_exception_of_a_library_is_one_line(tiny_release, tiny_tree, monkeypatch):
    def fail(*_):
        raise RuntimeError("NetCDF:\nHDF error")

    monkeypatch.setattr(recomputation, "find_coordinate_problems", fail)
    message = rf"^{tiny_release} cannot be recomputed from {tiny_tree} \(NetCDF: HDF error\)\. Do they belong together"
    with pytest.raises(PackagingError, match=message):
        recompute_release(tiny_release, tiny_tree)


def test_assembly_without_a_coordinate_is_named(tiny_copy, tiny_tree):
    planted.rewritten(lambda assembly: assembly.drop_vars("vertex_index"))(tiny_copy)

    with pytest.raises(PackagingError, match=f"{tiny_copy / planted.TEST} has no coordinate vertex_index of neuroid"):
        recompute_release(tiny_copy, tiny_tree)


def test_incomplete_release_is_refused(release_copy, nsd_tree):
    (release_copy / TEST).unlink()

    with pytest.raises(PackagingError, match=f"{TEST} is missing. Build the release again"):
        recompute_release(release_copy, nsd_tree)


@pytest.mark.parametrize("option", [["--all"], ["--seed", "3"]])
def test_options_of_recomputation_need_raw_files(release, option, run_verify):
    result = run_verify(release, *option)

    assert result.status == 2
    assert "--all and --seed choose the values to recompute, so they need --nsd-root" in result.err
