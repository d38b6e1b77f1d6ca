"""The plan that an inspection makes of a sound tree. `tests/test_bad_input.py` has the trees that are not sound."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.inspection import inspect_tree
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import Region, make_recipe
from allen2022_surface_packaging.verify.reference import read_reference

BETAS = "nsddata_betas/ppdata/subj{:02d}/fsaverage/betas_fithrf_GLMdenoise_RR"
LABELS = "nsddata/freesurfer/fsaverage/label"
IMAGES = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
TWO = make_recipe((1, 4), name="Two")
RECIPES = {
    "published regions": TWO,
    "own images": replace(make_recipe((4,), name="own", standardize_on="train"), pool="own"),
    "other split": replace(make_recipe((1,), name="one"), train_fraction=0.5, split_seed=7),
    "named labels": replace(
        make_recipe((4,), name="x"),
        regions=(Region("", "streams", each=True), Region("a", "Kastner2015", ("V1v",)), Region("c", "cortex")),
    ),
}


@pytest.fixture(scope="module")
def trees(tiny_tree, tmp_path_factory) -> dict[str, Path]:
    """A tree of subjects 1 and 4 in each layout."""
    flat = tmp_path_factory.mktemp("flat") / "nsd"
    size = TreeSize((1, 4), n_trials=42, n_vertices=1300, image_size=8, layout="flat", betas=(DEFAULT_BETAS,))
    simulate_tree(flat, size)
    return {"official": tiny_tree, "flat": flat}


@pytest.fixture
def tree_path(tiny_tree, tmp_path) -> Path:
    """A copy of the tree that a test may change."""
    return Path(shutil.copytree(tiny_tree, tmp_path / "nsd"))


def plan_of(path, recipe=TWO, **options):
    return inspect_tree(open_tree(path), recipe, **options).require_sound()


@pytest.mark.parametrize("layout", ["official", "flat"])
@pytest.mark.parametrize("name", RECIPES)
def test_plan_agrees_with_the_reference(trees, layout, name):
    recipe = RECIPES[name]
    plan, reference = plan_of(trees[layout], recipe), read_reference(open_tree(trees[layout]), recipe)

    assert {split: ids.tolist() for split, ids in plan.splits.items()} == {
        split: ids.tolist() for split, ids in reference.splits.items()
    }
    assert plan.n_sessions == {s: len(shown) // 42 for s, shown in reference.shown.items()}
    assert (plan.region_map.n_vertices, plan.n_trials_per_session) == (reference.n_vertices, 42)
    assert [(r.name, r.labels, r.n_vertices) for r in plan.region_map.regions] == [
        (r.name, r.labels, r.n_vertices) for r in reference.regions
    ]
    assert [file.official_path for file in plan.inputs] == sorted(file.official_path for file in reference.inputs())
    trials = [
        (session.subject, (session.number - 1) * 42 + trial, nsd_id, repetition)
        for session in plan.sessions
        for trial, nsd_id, repetition in zip(session.trials, session.nsd_ids, session.repetitions, strict=True)
    ]
    assert trials == [trial for trial in list_pool_trials(reference) if trial[:3] in {known[:3] for known in trials}]
    assert {trial for trial in trials if trial[2] in plan.images} == {
        trial for trial in list_pool_trials(reference) if trial[2] in plan.images
    }
    assert plan.is_simulated


def list_pool_trials(reference):
    """List every trial: its subject, its number, its image and which repetition of the image it is."""
    return [
        (subject, t, image, shown[:t].tolist().count(image))
        for subject, shown in reference.shown.items()
        for t, image in enumerate(shown.tolist())
    ]


def test_plan_from_prepared_averages_needs_only_sessions_of_test_images(tree_path):
    paths = [tree_path / f"assemblies/Allen2022_surface.{region}.nc" for region in ("IT", "V1", "V2", "V4")]
    paths[0].parent.mkdir()
    for path in paths[1:]:
        path.touch()
    problems = inspect_tree(open_tree(tree_path), TWO, from_region_assemblies=True).problems
    assert problems == [
        f"{paths[0]} is missing. Add the assemblies of all regions, or build without --from-region-assemblies."
    ]

    paths[0].touch()
    plan = plan_of(tree_path, from_region_assemblies=True)
    assert plan.single_trial_images.tolist() == plan.splits["test"].tolist()
    assert all(set(session.nsd_ids) & set(plan.splits["test"]) for session in plan.sessions)
    assert [str(file) for file in plan.inputs if file.path.endswith(".nc")] == list(map(str, paths))


def extract_images(tree_path, nsd_ids, name="{}.jpg", folder="train"):
    for nsd_id in nsd_ids:
        path = tree_path / f"brainscore/stimuli_{folder}" / name.format(f"nsd_{nsd_id:05d}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"an image")


@pytest.mark.parametrize("name", ["{}.jpg", "stimulus_{}.jpg", "{}.png", "stimulus_{}.png"])
def test_extracted_images_are_used_when_all_are_there(tree_path, name):
    images = plan_of(tree_path).images
    extract_images(tree_path, images, name)
    (tree_path / IMAGES).unlink()
    plan = plan_of(tree_path)

    paths = [f"brainscore/stimuli_train/{name.format(f'nsd_{nsd_id:05d}')}" for nsd_id in images]
    assert [plan.extracted_images[nsd_id].path for nsd_id in images] == paths
    assert (plan.image_format, plan.image_bytes) == (name[-3:], 8 * len(images))
    assert {file.path for file in plan.inputs} >= set(paths)
    assert IMAGES not in {file.path for file in plan.inputs}


def test_extracted_images_are_used_only_if_all_have_the_format_that_was_asked_for(tree_path):
    images = plan_of(tree_path).images
    extract_images(tree_path, images[:-1])
    assert plan_of(tree_path).extracted_images == {}

    extract_images(tree_path, images[-1:], folder="test")
    assert plan_of(tree_path, image_format="jpg").extracted_images
    plan = plan_of(tree_path, image_format="png")
    assert (plan.extracted_images, plan.image_format, plan.image_bytes) == ({}, "png", len(images) * 8 * 8 * 3)


def test_optional_files_may_be_missing(tree_path):
    (tree_path / "nsddata/experiments/nsd/nsd_stim_info_merged.csv").unlink()
    (tree_path / LABELS / "streams.mgz.ctab").unlink()
    plan = plan_of(tree_path, replace(TWO, regions=(Region("", "streams", each=True),)))

    assert plan.origins == {}
    assert "streams_5" in [region.name for region in plan.region_map.regions]
    assert not [file for file in plan.inputs if file.path.endswith((".csv", ".ctab"))]


@pytest.mark.parametrize(("is_simulated", "n_missing"), [(True, 0), (False, 2 * (40 - 4) + 2 * (30 - 3))])
def test_without_a_design_only_a_simulated_tree_may_have_fewer_sessions(tree_path, is_simulated, n_missing):
    next(tree_path.rglob("nsd_expdesign.mat")).write_bytes(b"damaged")
    if not is_simulated:
        (tree_path / "SIMULATED.txt").unlink()

    assert sum("session" in line for line in inspect_tree(open_tree(tree_path), TWO).problems) == n_missing


def test_sessions_up_to_the_last_one_are_required(tree_path):
    gone = [tree_path / BETAS.format(1) / f"{name}.mgh" for name in ("lh.betas_session01", "rh.betas_session04")]
    for path in gone:
        path.unlink()

    problems = inspect_tree(open_tree(tree_path), TWO).problems
    assert [line.split(" ")[0] for line in problems] == list(map(str, gone))
