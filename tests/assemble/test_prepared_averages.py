"""Prepared averages of a tiny tree. `test_prepared.py` builds releases from them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray

import reference
from allen2022_surface_packaging.assemble.prepared import read_prepared_averages
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.inspection import inspect_tree
from allen2022_surface_packaging.nsd.storage import open_storage
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import make_recipe

TWO = make_recipe((1, 4), name="Two")
REGIONS = ("V1", "V2", "V4", "IT")


@pytest.fixture(scope="module")
def prepared_tree(tiny_tree, tmp_path_factory):
    root = tmp_path_factory.mktemp("prepared") / "nsd"
    root.mkdir()
    for entry in tiny_tree.iterdir():
        (root / entry.name).symlink_to(entry)
    reference.prepare_regions(root, (1, 4))
    return root


@pytest.fixture(scope="module")
def plan(prepared_tree):
    return inspect_tree(open_tree(prepared_tree), TWO, from_region_assemblies=True).require_sound()


@pytest.fixture
def changed_plan(prepared_tree, plan, tmp_path):
    """The plan with a copy of the assemblies, which a test may change."""
    shutil.copytree(prepared_tree / "assemblies", tmp_path / "assemblies")
    return replace(plan, tree=replace(plan.tree, storage=open_storage(tmp_path)))


def path_of(plan, region):
    return Path(str(plan.tree.prepared_assembly(region)))


def change_assembly(plan, region, change):
    with xarray.open_dataarray(path_of(plan, region)) as opened:
        assembly = opened.load()
    path_of(plan, region).unlink()
    changed = change(assembly)
    changed.encoding = {}  # otherwise it still names a removed coordinate
    changed.to_netcdf(path_of(plan, region))


@pytest.mark.parametrize("subject", [1, 4])
def test_averages_are_those_of_the_vertex_in_its_region(plan, subject):
    images = plan.images[1::2]
    averages = read_prepared_averages(plan).read(subject, plan.region_map, images)

    expected = {}
    for region in REGIONS:
        with xarray.open_dataarray(path_of(plan, region)) as assembly:
            rows = [assembly["nsd_id"].values.tolist().index(image) for image in images]
            for column in np.flatnonzero(assembly["subject"].values == f"subj{subject:02d}"):
                key = assembly["hemisphere"].values[column], int(assembly["vertex_index"].values[column])
                expected[key] = assembly.values[rows, column]
    vertices = [(h, v) for h in ("lh", "rh") for v in plan.region_map.vertices[h].tolist()]
    assert averages.dtype == np.float32
    np.testing.assert_array_equal(averages, np.array([expected[vertex] for vertex in vertices]).T)


def shared_vertex(plan):
    """Return a vertex of lh that V4 and IT share."""
    v4, it = (region.vertices["lh"] for region in plan.region_map.regions[2:])
    return int(np.intersect1d(v4, it)[0])


def is_vertex(assembly, vertex):
    return (
        (assembly["vertex_index"].values == vertex)
        & (assembly["hemisphere"].values == "lh")
        & (assembly["subject"].values == "subj04")
    )


def test_other_averages_of_a_shared_vertex_are_refused(changed_plan):
    chosen = shared_vertex(changed_plan)
    change_assembly(changed_plan, "IT", lambda a: a.where(~is_vertex(a, chosen), a + np.float32(1)).astype(np.float32))
    averages = read_prepared_averages(changed_plan)

    averages.read(1, changed_plan.region_map, changed_plan.images)
    with pytest.raises(
        PackagingError, match="Allen2022_surface.IT.nc gives subj04 other averages than the assembly of another region"
    ):
        averages.read(4, changed_plan.region_map, changed_plan.images)


def test_shared_vertex_may_be_nan_in_both_regions(changed_plan):
    chosen = shared_vertex(changed_plan)
    for region in ("V4", "IT"):
        change_assembly(changed_plan, region, lambda a: a.where(~is_vertex(a, chosen)).astype(np.float32))
    averages = read_prepared_averages(changed_plan).read(4, changed_plan.region_map, changed_plan.images)

    column = changed_plan.region_map.vertices["lh"].tolist().index(chosen)
    assert np.isnan(averages[:, column]).all()


def swap_hemispheres(assembly):
    names = assembly["hemisphere"].values
    return assembly.assign_coords(hemisphere=("neuroid", np.where(names == "lh", "rh", "lh")))


FAULTS = {
    "subjects": (
        lambda a: a.assign_coords(subject=("neuroid", a.subject.values[::-1])),
        "subject number 0 is subj04, exp",
    ),
    "neuroids": (lambda a: a.isel(neuroid=slice(3, None)), r"values of vertex_index, expected \d+ as in the labels"),
    "vertices": (
        lambda a: a.assign_coords(vertex_index=a.vertex_index + 1),
        "vertex_index number 0 is .* in the labels",
    ),
    "hemispheres": (swap_hemispheres, "hemisphere number 0 is rh, expected lh as in the labels"),
    "images": (lambda a: a.assign_coords(nsd_id=a.nsd_id + 1), "nsd_id number 0 is .* as in the design"),
    "names of images": (
        lambda a: a.assign_coords(stimulus_id=("presentation", a.stimulus_id.values[::-1])),
        "stimulus_id number 0 is nsd_.* as in the design",
    ),
    "number of images": (
        lambda a: a.isel(presentation=slice(1, None)),
        r"values of nsd_id, expected \d+ as in the design",
    ),
    "counts": (
        lambda a: a.assign_coords(min_reps_across_subjects=a.min_reps_across_subjects + 1),
        "min_reps_across_subjects number 0 is .* as counted in the design",
    ),
    "coordinate": (lambda a: a.drop_vars("hemisphere"), r"lacks the coordinate hemisphere\. Is it a prepared region"),
    "precision": (
        lambda a: a.astype(np.float64),
        r"holds float64 of dimensions \('presentation', 'neuroid'\), expected",
    ),
    "dimensions": (
        lambda a: a.transpose("neuroid", "presentation"),
        r"of dimensions \('neuroid', 'presentation'\), exp",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_prepared_assembly_that_contradicts_the_tree_is_refused(changed_plan, fault):
    change, message = FAULTS[fault]
    change_assembly(changed_plan, "V2", change)

    with pytest.raises(PackagingError, match=rf"Allen2022_surface\.V2\.nc.* {message}"):
        read_prepared_averages(changed_plan)


def test_last_value_of_a_coordinate_is_compared(changed_plan):
    def change_the_last(assembly):
        vertices = assembly["vertex_index"].values.copy()
        vertices[-1] += 1
        return assembly.assign_coords(vertex_index=("neuroid", vertices))

    change_assembly(changed_plan, "IT", change_the_last)
    n = 2 * changed_plan.region_map.regions[3].n_vertices
    with pytest.raises(PackagingError, match=rf"V?IT\.nc: vertex_index number {n - 1} is"):
        read_prepared_averages(changed_plan)


def test_missing_and_damaged_assemblies_are_named(changed_plan):
    path_of(changed_plan, "V4").write_bytes(b"damaged")
    with pytest.raises(PackagingError, match=r"V4\.nc cannot be read as an assembly \(.*\)\. Prepare it again"):
        read_prepared_averages(changed_plan)

    path_of(changed_plan, "V4").unlink()
    with pytest.raises(PackagingError, match=r"V4\.nc is missing\. Build without --from-region-assemblies, or add"):
        read_prepared_averages(changed_plan)


@pytest.mark.parametrize("changes", [{"betas": "betas_fithrf"}, {"pool": "own"}])
def test_other_betas_or_images_than_the_prepared_ones_are_refused(plan, changes):
    other = replace(plan, recipe=replace(TWO, **changes))

    message = "asks for {betas} and the images of the pool '{pool}', but prepared assemblies hold betas_fithrf_GLM"
    names = {"betas": "betas_fithrf_GLMdenoise_RR", "pool": "shared"} | changes
    with pytest.raises(PackagingError, match=message.format(**names)):
        read_prepared_averages(other)
