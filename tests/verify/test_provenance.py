"""What the raw files say about release.json: the extent of the data, the mark of a simulated tree, and the inputs."""

from dataclasses import replace

import numpy as np
import pytest

from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import Region
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from allen2022_surface_packaging.verify.expectation import read_expectation
from allen2022_surface_packaging.verify.provenance import find_extent_problems, find_input_problems
from allen2022_surface_packaging.verify.raw import read_design
from verify.planted import BETAS, IMAGES


@pytest.fixture
def tree(tiny_tree):
    return open_tree(tiny_tree)


@pytest.fixture
def design(tree):
    return read_design(tree.design)


@pytest.fixture
def manifest(tiny_release):
    return Manifest.read(ReleaseFolder(tiny_release))


def test_extent_of_a_sound_release_has_no_problem(tree, manifest, design):
    assert list(find_extent_problems(tree, manifest, design)) == []


def test_tree_with_the_trials_of_nsd_has_its_sessions(nsd_tree, release):
    """NSD Data Manual: 40, 40, 32, 30, 40, 32, 40 and 30 sessions were acquired."""
    tree, manifest = open_tree(nsd_tree), Manifest.read(ReleaseFolder(release))
    design = replace(read_design(tree.design), masterordering=np.ones(30_000, dtype=np.int64))

    assert [problem for problem in find_extent_problems(tree, manifest, design) if "sessions of" in problem] == [
        f"The manifest has {3 + (subject in (1, 2, 5, 7))} sessions of subj{subject:02d}, but the raw files give {n}."
        for subject, n in zip(range(1, 9), (40, 40, 32, 30, 40, 32, 40, 30), strict=True)
    ]


@pytest.mark.parametrize("n_trials", [29_999, 30_001])
def test_tree_with_another_number_of_trials_has_the_sessions_that_are_there(tree, manifest, design, n_trials):
    design = replace(design, masterordering=np.ones(n_trials, dtype=np.int64))

    assert list(find_extent_problems(tree, manifest, design)) == []


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        ({"n_vertices": 641}, "641 vertices, but the raw files give 642 of subj0"),
        ({"n_trials_per_session": 61}, "61 trials in a session, but the raw files give 60 of subj0"),
        ({"sessions": {"subj01": 5, "subj02": 5}}, "5 sessions of subj0"),
    ],
)
def test_other_extent_is_a_problem_of_each_subject(tree, manifest, design, change, sign):
    problems = list(find_extent_problems(tree, replace(manifest, **change), design))

    assert len(problems) == 2
    assert all(sign in problem for problem in problems)


@pytest.mark.parametrize(("simulated", "marked"), [(True, "lacks"), (False, "has")])
def test_mark_of_a_simulated_tree_agrees_with_the_manifest(tiny_copy_of_tree, manifest, design, simulated, marked):
    if simulated:
        (tiny_copy_of_tree / "SIMULATED.txt").unlink()
    tree = open_tree(tiny_copy_of_tree)

    problems = list(find_extent_problems(tree, replace(manifest, simulated=simulated), design))

    assert problems == [f"The manifest has simulated = {simulated}, but {tree} {marked} the mark of a simulated tree."]


def test_design_of_one_subject_less_is_a_problem(tree, manifest, design):
    problems = list(find_extent_problems(tree, manifest, replace(design, subjectim=design.subjectim[:1])))

    assert problems == [f"The recipe has subj02, but {tree.design} has 1 subjects."]


@pytest.mark.parametrize("n_missing", [0, 1])
def test_design_of_fewer_trials_than_betas_is_a_problem(tree, manifest, design, n_missing):
    n_trials = max(manifest.sessions.values()) * manifest.n_trials_per_session - n_missing
    design = replace(design, masterordering=design.masterordering[:n_trials])

    problems = list(find_extent_problems(tree, manifest, design))

    assert (problems != []) is (n_missing == 1)
    assert all(f"orders {n_trials:,} trials, but subj0" in problem for problem in problems)


@pytest.fixture
def find_inputs(tree, manifest, design):
    """A function that changes the inputs of the manifest, and returns the problems."""

    def find(change=None):
        inputs = dict(manifest.inputs)
        if change:
            change(inputs)
        expected = read_expectation(tree, replace(manifest, inputs=inputs), design)
        return list(find_input_problems(expected))

    return find


def test_inputs_of_a_sound_release_have_no_problem(find_inputs):
    assert find_inputs() == []


def test_input_that_is_not_listed_is_a_problem(find_inputs, tiny_tree):
    path = BETAS.format("lh")

    assert find_inputs(lambda inputs: inputs.pop(path)) == [
        f"The manifest lacks the input {path}, but the release is made from {tiny_tree / path}."
    ]


def test_input_that_is_not_used_is_a_problem(find_inputs):
    assert find_inputs(lambda inputs: inputs.update({"nsddata/other.mat": 1})) == [
        "The manifest has the input nsddata/other.mat, but the release is not made from it."
    ]


def test_input_of_another_size_is_a_problem(find_inputs, tiny_tree):
    size = (tiny_tree / IMAGES).stat().st_size

    assert find_inputs(lambda inputs: inputs.update({IMAGES: size + 1})) == [
        f"The manifest says that the input {IMAGES} has {size + 1:,} bytes, but {tiny_tree / IMAGES} has {size:,}."
    ]


def test_input_that_is_missing_now_is_a_problem(tiny_copy_of_tree, manifest, design):
    expected = read_expectation(open_tree(tiny_copy_of_tree), manifest, design)
    (tiny_copy_of_tree / IMAGES).unlink()

    problems = list(find_input_problems(expected))

    assert len(problems) == 1
    assert f"the input {IMAGES} has {manifest.inputs[IMAGES]:,} bytes, but it is missing." in problems[0]


@pytest.mark.parametrize(
    ("region", "is_read"),
    [
        (Region("V1", "Kastner2015", ("V1v", "V1d")), True),
        (Region("V1", "Kastner2015", (1, "V1d")), True),
        (Region("V1", "Kastner2015", (1, 2)), False),
        (Region("", "streams", each=True), True),
    ],
)
def test_names_of_labels_are_an_input_where_the_recipe_has_names(tree, manifest, design, region, is_read):
    recipe = replace(manifest.recipe, regions=(region,))
    expected = read_expectation(tree, replace(manifest, recipe=recipe), design)

    lacking = [line.split()[5] for line in find_input_problems(expected) if "lacks the input" in line]

    label_names = f"nsddata/freesurfer/fsaverage/label/{region.atlas}.mgz.ctab,"
    assert [path for path in lacking if path.endswith(".ctab,")] == [label_names] * is_read


def test_subject_without_betas_has_no_sessions(tiny_copy_of_tree, manifest, design):
    for path in tiny_copy_of_tree.glob("nsddata_betas/ppdata/subj01/fsaverage/*/*.betas_session0[2-9].mgh"):
        path.unlink()

    problems = list(find_extent_problems(open_tree(tiny_copy_of_tree), manifest, design))

    assert problems == [f"The manifest has {manifest.sessions['subj01']} sessions of subj01, but the raw files give 1."]
