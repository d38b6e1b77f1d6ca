"""What an inspection finds in a tree, and the plan that it makes. `test_bad_input.py` runs it through the command line."""

import re
import shutil
from collections import Counter
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import scipy.io

import reference
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.nsd.files import BetasShape
from allen2022_surface_packaging.nsd.inspection import find_extracted_images, inspect_tree
from allen2022_surface_packaging.nsd.tree import open_tree
from allen2022_surface_packaging.recipe import Region, make_recipe

BETAS = "nsddata_betas/ppdata/subj{:02d}/fsaverage/betas_fithrf_GLMdenoise_RR"
DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
LABELS = "nsddata/freesurfer/fsaverage/label"
IMAGES = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
TWO = make_recipe((1, 4), name="Two")
OWN = replace(make_recipe((4,), name="own", standardize_on="train"), pool="own")


@pytest.fixture(scope="module")
def plan(tiny_tree):
    return inspect_tree(open_tree(tiny_tree), TWO).require_sound()


@pytest.fixture
def tree_path(tiny_tree, tmp_path):
    """A copy of the tree that a test may change."""
    return shutil.copytree(tiny_tree, tmp_path / "nsd")


def inspect(path, recipe=TWO, **options):
    return inspect_tree(open_tree(path), recipe, **options)


def images_seen_three_times(root, subjects):
    n_trials = {1: 4 * 42, 4: 3 * 42}
    shown = {s: reference.shown_images(root, s, n_trials[s]) for s in subjects}
    return [i for i in reference.shared_images(root) if all(shown[s].count(i) >= 3 for s in subjects)], shown


def test_plan_has_the_images_and_the_split_of_the_reference(tiny_tree, plan):
    complete, _ = images_seen_three_times(tiny_tree, (1, 4))
    splits = reference.split_complete_images(complete, 0.8, 42)

    assert {split: ids.tolist() for split, ids in plan.splits.items()} == splits
    assert plan.images.tolist() == complete
    assert plan.averaged_images.tolist() == plan.single_trial_images.tolist() == complete


def test_plan_lists_every_trial_of_shared_images_in_its_sessions(tiny_tree, plan):
    complete, shown = images_seen_three_times(tiny_tree, (1, 4))
    shared = reference.shared_images(tiny_tree)
    expected = []
    for subject, images in shown.items():
        seen = Counter()
        rows = {}
        for t, image in enumerate(images):
            rows.setdefault(t // 42 + 1, []).append((t % 42, image, seen[image]))
            seen[image] += 1
        for number, trials in rows.items():
            if any(image in complete for _, image, _ in trials):
                expected.append((subject, number, [row for row in trials if row[1] in shared]))

    actual = [
        (s.subject, s.number, list(zip(s.trials.tolist(), s.nsd_ids.tolist(), s.repetitions.tolist(), strict=True)))
        for s in plan.sessions
    ]
    assert actual == expected
    assert {session.shape for session in plan.sessions} == {BetasShape(1300, 42)}
    files = {h: str(file) for h, file in plan.sessions[4].betas.items()}
    assert files == {h: f"{tiny_tree}/{BETAS.format(4)}/{h}.betas_session02.mgh" for h in ("lh", "rh")}
    assert str(plan.sessions[4]) == "subj04 session 02"


def test_plan_holds_what_the_headers_tell(tiny_tree, plan):
    complete, shown = images_seen_three_times(tiny_tree, (1, 4))

    assert (plan.n_sessions, plan.n_trials_per_session) == ({1: 4, 4: 3}, 42)
    fewest = {i: min(images.count(i) for images in shown.values()) for i in reference.shared_images(tiny_tree)}
    assert plan.fewest_repetitions.to_dict() == fewest
    assert (plan.image_format, plan.extracted_images, plan.from_region_assemblies) == ("png", {}, False)
    masks = reference.region_masks(tiny_tree)
    for subject in (1, 4):
        expected = []
        for h in ("lh", "rh"):
            in_any = np.any([masks[region, h] for region in ("V1", "V2", "V4", "IT")], axis=0)
            expected += reference.read_mgh(tiny_tree / BETAS.format(subject) / f"{h}.ncsnr.mgh")[in_any].tolist()
        assert plan.ncsnr[subject].tolist() == expected
        assert plan.ncsnr[subject].dtype == np.float64


def test_plan_of_own_images_lists_every_trial(tiny_tree):
    plan = inspect(tiny_tree, OWN).require_sound()

    assert [len(session.trials) for session in plan.sessions] == [42] * 3
    own = set(reference.shown_images(tiny_tree, 4, 126)) - set(reference.shared_images(tiny_tree))
    assert plan.splits["train"].tolist() == sorted(own - reference.shared_with_others(tiny_tree, 4))
    assert plan.averaged_images.tolist() == plan.splits["train"].tolist()


def test_plan_from_prepared_averages_needs_only_single_trials_of_test_images(tiny_tree, plan):
    prepared = inspect(tiny_tree, from_region_assemblies=True).require_sound()

    assert prepared.from_region_assemblies is True
    assert prepared.single_trial_images.tolist() == plan.splits["test"].tolist()
    for session in prepared.sessions:
        assert set(session.nsd_ids) & set(plan.splits["test"])
    assert len(prepared.sessions) <= len(plan.sessions)


@pytest.mark.parametrize(("asked", "image_format"), [(None, "png"), ("png", "png"), ("jpg", "jpg")])
def test_plan_has_the_image_format_that_was_asked_for(tiny_tree, asked, image_format):
    assert inspect(tiny_tree, image_format=asked).require_sound().image_format == image_format


def extract_images(tree_path, nsd_ids, name="{}.jpg", folder="train"):
    for nsd_id in nsd_ids:
        path = tree_path / f"brainscore/stimuli_{folder}" / name.format(f"nsd_{nsd_id:05d}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"an image")


@pytest.mark.parametrize("name", ["{}.jpg", "stimulus_{}.jpg", "{}.png", "stimulus_{}.png"])
def test_extracted_images_are_used_when_all_are_there(tree_path, plan, name):
    extract_images(tree_path, plan.images, name)
    (tree_path / IMAGES).unlink()
    found = inspect(tree_path).require_sound()

    assert list(found.extracted_images) == plan.images.tolist()
    assert found.image_format == name[-3:]
    first = f"nsd_{plan.images[0]:05d}"
    assert found.extracted_images[plan.images[0]].path == f"brainscore/stimuli_train/{name.format(first)}"


def test_empty_extracted_image_is_a_problem(tree_path, plan):
    extract_images(tree_path, plan.images)
    paths = [tree_path / f"brainscore/stimuli_train/nsd_{nsd_id:05d}.jpg" for nsd_id in plan.images[1:3]]
    for path, more in zip(paths, ("", " (and 1 more)"), strict=True):
        path.write_bytes(b"")

        assert inspect(tree_path).problems == [f"{paths[0]} is empty{more}, expected an image. Extract it again."]


def test_extracted_images_of_another_format_are_not_used(tree_path, plan):
    extract_images(tree_path, plan.images, "{}.jpg")

    found = inspect(tree_path, image_format="png").require_sound()
    assert (found.extracted_images, found.image_format) == ({}, "png")
    assert inspect(tree_path, image_format="jpg").require_sound().extracted_images


def test_extracted_images_are_not_used_when_one_is_missing(tree_path, plan):
    extract_images(tree_path, plan.images[:-1])

    assert inspect(tree_path).require_sound().extracted_images == {}


def test_png_and_the_train_folder_go_before_others(tree_path):
    extract_images(tree_path, [3], "{}.png", "test")
    extract_images(tree_path, [3], "{}.jpg", "train")
    extract_images(tree_path, [5], "{}.jpg", "test")
    extract_images(tree_path, [5], "{}.jpg", "train")
    files = find_extracted_images(open_tree(tree_path), np.array([3, 5]))

    assert {i: file.path for i, file in files.items()} == {
        3: "brainscore/stimuli_test/nsd_00003.png",
        5: "brainscore/stimuli_train/nsd_00005.jpg",
    }


def test_inspection_counts_for_people(tiny_tree, plan):
    inspection = inspect(tiny_tree)
    _, shown = images_seen_three_times(tiny_tree, (1, 4))

    assert inspection.problems == []
    assert inspection.n_vertices == 1300
    assert inspection.n_complete_images == len(plan.images)
    assert inspection.n_images == {split: len(ids) for split, ids in plan.splits.items()}
    counts = []
    for subject in (1, 4):
        n_seen = [min(3, shown[subject].count(i)) for i in reference.shared_images(tiny_tree)]
        counts.append("/".join(str(n_seen.count(n)) for n in range(4)))
    assert inspection.subjects.to_dict("list") == {
        "subject": ["subj01", "subj04"],
        "sessions expected": [4, 3],
        "sessions found": [4, 3],
        "betas files": ["8/8", "6/6"],
        "vertices x trials": ["1300 x 42", "1300 x 42"],
        "shared images seen 0/1/2/3 times": counts,
    }


def write_betas(path, n_vertices, n_trials):
    image = nibabel.freesurfer.MGHImage(np.zeros((n_vertices, 1, 1, n_trials), np.float32), np.eye(4))
    nibabel.save(image, path)


def test_every_betas_file_of_another_shape_is_a_problem(tree_path):
    write_betas(tree_path / BETAS.format(1) / "lh.betas_session02.mgh", 1299, 42)
    write_betas(tree_path / BETAS.format(4) / "rh.betas_session03.mgh", 1300, 41)
    inspection = inspect(tree_path)

    assert [line.split("_RR/")[-1] for line in inspection.problems] == [
        "lh.betas_session02.mgh holds 1,299 vertices x 42 trials, expected 1,300 vertices (as the labels) x 42 trials (as the "
        "other sessions). Was it downloaded from fsaverage/?",
        "rh.betas_session03.mgh holds 1,300 vertices x 41 trials, expected 1,300 vertices (as the labels) x 42 trials (as the "
        "other sessions). Was it downloaded from fsaverage/?",
    ]
    assert inspection.plan is None
    assert inspection.subjects["vertices x trials"].tolist() == ["1299 x 42, 1300 x 42", "1300 x 41, 1300 x 42"]
    with pytest.raises(PackagingError, match=r"session02\.mgh holds .* \(2 problems in all: `allen2022-surface check`"):
        inspection.require_sound()


def test_missing_and_damaged_files_are_all_problems(tree_path):
    (tree_path / BETAS.format(1) / "lh.betas_session02.mgh").unlink()
    (tree_path / BETAS.format(1) / "rh.betas_session02.mgh").write_bytes(b"")
    (tree_path / BETAS.format(4) / "rh.ncsnr.mgh").unlink()
    (tree_path / IMAGES).write_bytes(b"")
    inspection = inspect(tree_path)

    names = [re.findall(r"[\w.]+\.(?:mgh|hdf5)", line)[0] for line in inspection.problems]
    assert names == ["lh.betas_session02.mgh", "rh.betas_session02.mgh", "rh.ncsnr.mgh", "nsd_stimuli.hdf5"]
    assert inspection.subjects["betas files"].tolist() == ["6/8", "6/6"]
    assert inspection.subjects["sessions found"].tolist() == [4, 3]
    assert inspection.n_vertices == 1300


def test_single_problem_is_the_whole_message(tree_path):
    (tree_path / IMAGES).unlink()
    inspection = inspect(tree_path)

    with pytest.raises(PackagingError) as raised:
        inspection.require_sound()
    assert [str(raised.value)] == inspection.problems


def test_damaged_labels_of_each_hemisphere_are_problems(tree_path):
    for name in ("lh.streams.mgz", "rh.streams.mgz", "lh.Kastner2015.mgz"):
        (tree_path / LABELS / name).write_bytes(b"damaged")
    inspection = inspect(tree_path)

    names = [re.findall(r"[\w.]+\.mgz", line)[0] for line in inspection.problems]
    assert sorted(names) == ["lh.Kastner2015.mgz", "lh.streams.mgz", "rh.streams.mgz"]
    assert (inspection.plan, inspection.subjects) == (None, None)


def test_missing_region_is_a_problem_beside_others(tree_path):
    (tree_path / BETAS.format(1) / "lh.betas_session02.mgh").unlink()
    recipe = replace(TWO, regions=(*TWO.regions, Region("x", "Kastner2015", ("nowhere",))))
    problems = inspect(tree_path, recipe).problems

    assert len(problems) == 2
    assert "nowhere" in problems[0]
    assert "lh.betas_session02.mgh is missing" in problems[1]


def test_tree_of_which_nothing_can_be_read_has_no_vertices(tree_path):
    shutil.rmtree(tree_path / LABELS)
    for subject in (1, 4):
        shutil.rmtree(tree_path / BETAS.format(subject))

    assert inspect(tree_path).n_vertices == 0


def change_design(tree_path, **changes):
    variables = {k: v for k, v in scipy.io.loadmat(tree_path / DESIGN).items() if not k.startswith("__")}
    scipy.io.savemat(tree_path / DESIGN, variables | changes)


def test_design_with_fewer_trials_than_betas_is_a_problem(tree_path):
    order = scipy.io.loadmat(tree_path / DESIGN)["masterordering"]
    change_design(tree_path, masterordering=order[:, : 4 * 42 - 1])
    inspection = inspect(tree_path)

    message = r"orders 167 trials, but 4 sessions of 42 trials are there\. Do design and betas belong together\?"
    with pytest.raises(PackagingError, match=message):
        inspection.require_sound()
    assert inspect(tree_path, make_recipe((4,), name="Four")).problems == []


def test_design_with_exactly_the_trials_of_the_betas_is_sound(tree_path):
    order = scipy.io.loadmat(tree_path / DESIGN)["masterordering"]
    change_design(tree_path, masterordering=order[:, : 4 * 42])

    assert inspect(tree_path).problems == []


@pytest.mark.parametrize(("n_subjects", "is_sound"), [(4, True), (3, False)])
def test_design_has_as_many_subjects_as_are_chosen(tree_path, n_subjects, is_sound):
    subjectim = scipy.io.loadmat(tree_path / DESIGN)["subjectim"]
    change_design(tree_path, subjectim=subjectim[:n_subjects])

    problems = inspect(tree_path).problems
    assert (problems == []) is is_sound
    if not is_sound:
        assert "has 3 subjects, expected at least 4. Choose other subjects." in problems[0]


def test_subject_without_betas_is_a_problem(tree_path):
    shutil.rmtree(tree_path / BETAS.format(4))
    problems = inspect(tree_path).problems

    assert problems[0] == (
        f"{tree_path}/{BETAS.format(4)} holds no betas, expected lh.betas_session01.mgh and so on. Download them."
    )


def test_sessions_up_to_the_last_one_are_required(tree_path):
    for h in ("lh", "rh"):
        (tree_path / BETAS.format(1) / f"{h}.betas_session01.mgh").unlink()
    (tree_path / BETAS.format(1) / "rh.betas_session04.mgh").unlink()
    problems = inspect(tree_path).problems

    names = [re.findall(r"[\w.]+\.mgh", line)[0] for line in problems]
    assert names == ["lh.betas_session01.mgh", "rh.betas_session01.mgh", "rh.betas_session04.mgh"]


def test_full_size_design_requires_the_sessions_and_trials_of_nsd(tree_path):
    change_design(tree_path, masterordering=np.ones((1, 30_000), np.uint16))
    problems = inspect(tree_path, make_recipe((4,), name="Four")).problems

    missing = [line for line in problems if "is missing" in line]
    assert len(missing) == 2 * (30 - 3)
    assert "session04.mgh is missing" in missing[0]
    assert sum("expected 1,300 vertices (as the labels) x 750 trials" in line for line in problems) == 6


@pytest.mark.parametrize(("is_simulated", "n_missing"), [(True, 0), (False, 2 * (40 - 4) + 2 * (30 - 3))])
def test_without_a_design_only_a_simulated_tree_may_have_fewer_sessions(tree_path, is_simulated, n_missing):
    (tree_path / DESIGN).write_bytes(b"damaged")
    if not is_simulated:
        (tree_path / "SIMULATED.txt").unlink()

    assert sum("session" in line and "is missing" in line for line in inspect(tree_path).problems) == n_missing


def test_problem_of_the_images_is_found_before_the_build(tree_path):
    (tree_path / IMAGES).unlink()

    assert [re.search(r"\S+ is missing", line)[0] for line in inspect(tree_path).problems] == [
        f"{tree_path}/{IMAGES} is missing"
    ]


def test_inputs_are_every_file_of_the_tree_that_the_recipe_names(plan):
    betas = [
        f"{BETAS.format(subject)}/{h}.{name}.mgh"
        for subject, sessions in ((1, {1, 2, 3}), (4, {1, 2, 3}))  # session 4 of subject 1 shows none of the images
        for h in ("lh", "rh")
        for name in ["ncsnr", *(f"betas_session{number:02d}" for number in sorted(sessions))]
    ]
    labels = [f"{LABELS}/{h}.{atlas}.mgz" for h in ("lh", "rh") for atlas in ("Kastner2015", "streams")]
    tables = [DESIGN, "nsddata/experiments/nsd/nsd_stim_info_merged.csv", IMAGES]

    assert [file.path for file in plan.inputs if not file.path.endswith(".ctab")] == sorted(betas + labels + tables)


def test_inputs_of_other_recipes_are_the_files_that_they_need(tiny_tree):
    regions = (Region("", "streams", each=True), Region("a", "Kastner2015", ("V1v",)), Region("c", "cortex"))
    plan = inspect(tiny_tree, replace(make_recipe((4,), name="x"), regions=regions)).require_sound()

    names = [file.path.split("/")[-1] for file in plan.inputs]
    assert sorted(name for name in names if "betas" not in name and "ncsnr" not in name) == [
        *("Kastner2015.mgz.ctab", "lh.Kastner2015.mgz", "lh.streams.mgz"),
        *("nsd_expdesign.mat", "nsd_stim_info_merged.csv", "nsd_stimuli.hdf5"),
        *("rh.Kastner2015.mgz", "rh.streams.mgz", "streams.mgz.ctab"),
    ]
    paths = [file.official_path for file in plan.inputs]
    assert paths == sorted(set(paths))


def test_inputs_leave_out_missing_tables_and_names(tree_path):
    (tree_path / "nsddata/experiments/nsd/nsd_stim_info_merged.csv").unlink()
    (tree_path / LABELS / "streams.mgz.ctab").unlink()
    plan = inspect(tree_path, replace(TWO, regions=(Region("", "streams", each=True),))).require_sound()

    assert not [file for file in plan.inputs if file.path.endswith((".csv", ".ctab"))]


def test_inputs_hold_extracted_images_in_place_of_the_brick(tree_path, plan):
    extract_images(tree_path, plan.images)
    paths = [file.path for file in inspect(tree_path).require_sound().inputs]

    assert sum(path.startswith("brainscore/") for path in paths) == len(plan.images)
    assert IMAGES not in paths


def test_inputs_hold_prepared_assemblies_when_they_are_used(tiny_tree):
    paths = [file.path for file in inspect(tiny_tree, from_region_assemblies=True).require_sound().inputs]

    assert [path for path in paths if path.endswith(".nc")] == [
        f"assemblies/Allen2022_surface.{region}.nc" for region in ("IT", "V1", "V2", "V4")
    ]
