"""Which files a plan takes. Releases are compared with the reference, and `tests/test_bad_input.py` has damaged trees."""

import pytest

from allen2022_surface_packaging.nsd.inspection import inspect_tree
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import make_recipe

BETAS = "nsddata_betas/ppdata/subj{:02d}/fsaverage/betas_fithrf_GLMdenoise_RR"
LABELS = "nsddata/freesurfer/fsaverage/label"
IMAGES = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
TWO = make_recipe((1, 4), name="Two")


def plan_of(path, recipe=TWO, **options):
    return inspect_tree(open_tree(path), recipe, **options).require_sound()


def test_plan_from_prepared_averages_needs_only_sessions_of_test_images(tiny_tree_copy):
    paths = [tiny_tree_copy / f"assemblies/Allen2022_surface.{region}.nc" for region in ("IT", "V1", "V2", "V4")]
    paths[0].parent.mkdir()
    for path in paths[1:]:
        path.touch()
    problems = inspect_tree(open_tree(tiny_tree_copy), TWO, from_region_assemblies=True).problems
    assert problems == [
        f"{paths[0]} is missing. Add the assemblies of all regions, or build without --from-region-assemblies."
    ]

    paths[0].touch()
    plan = plan_of(tiny_tree_copy, from_region_assemblies=True)
    assert plan.single_trial_images.tolist() == plan.splits["test"].tolist()
    assert all(set(session.nsd_ids) & set(plan.splits["test"]) for session in plan.sessions)
    assert [str(file) for file in plan.inputs if file.path.endswith(".nc")] == list(map(str, paths))


def extract_images(tiny_tree_copy, nsd_ids, name="{}.jpg", folder="train"):
    for nsd_id in nsd_ids:
        path = tiny_tree_copy / f"brainscore/stimuli_{folder}" / name.format(f"nsd_{nsd_id:05d}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"an image")


@pytest.mark.parametrize("name", ["{}.jpg", "stimulus_{}.jpg", "{}.png", "stimulus_{}.png"])
def test_extracted_images_are_used_when_all_are_there(tiny_tree_copy, name):
    images = plan_of(tiny_tree_copy).images
    extract_images(tiny_tree_copy, images, name)
    (tiny_tree_copy / IMAGES).unlink()
    plan = plan_of(tiny_tree_copy)

    paths = [f"brainscore/stimuli_train/{name.format(f'nsd_{nsd_id:05d}')}" for nsd_id in images]
    assert [plan.extracted_images[nsd_id].path for nsd_id in images] == paths
    assert (plan.image_format, plan.image_bytes) == (name[-3:], 8 * len(images))
    assert {file.path for file in plan.inputs} >= set(paths)
    assert IMAGES not in {file.path for file in plan.inputs}


def test_extracted_images_are_used_only_if_all_have_the_format_that_was_asked_for(tiny_tree_copy):
    images = plan_of(tiny_tree_copy).images
    extract_images(tiny_tree_copy, images[:-1])
    assert plan_of(tiny_tree_copy).extracted_images == {}

    extract_images(tiny_tree_copy, images[-1:], folder="test")
    assert plan_of(tiny_tree_copy, image_format="jpg").extracted_images
    plan = plan_of(tiny_tree_copy, image_format="png")
    assert (plan.extracted_images, plan.image_format, plan.image_bytes) == ({}, "png", len(images) * 8 * 8 * 3)


def test_sessions_up_to_the_last_one_are_required(tiny_tree_copy):
    gone = [tiny_tree_copy / BETAS.format(1) / f"{name}.mgh" for name in ("lh.betas_session01", "rh.betas_session04")]
    for path in gone:
        path.unlink()

    problems = inspect_tree(open_tree(tiny_tree_copy), TWO).problems
    assert [line.split(" ")[0] for line in problems] == list(map(str, gone))
