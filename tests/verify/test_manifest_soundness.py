"""What `verify` finds in release.json alone: keys, and inputs that cannot be those of the recipe."""

import json

import pytest

from allen2022_surface_packaging.nsd.tree import EXTRACTED_FOLDERS
from allen2022_surface_packaging.release import Manifest, ReleaseFolder
from allen2022_surface_packaging.verify.manifest_soundness import find_manifest_problems, list_extracted_images
from verify.planted import BETAS, DESIGN, IMAGES, STIMULUS_INFO, manifest

NCSNR = "nsddata_betas/ppdata/subj02/fsaverage/betas_fithrf_GLMdenoise_RR/rh.ncsnr.mgh"
LABELS = "nsddata/freesurfer/fsaverage/label/rh.streams.mgz"
LABEL_NAMES = "nsddata/freesurfer/fsaverage/label/streams.mgz.ctab"
HEADER = 284


@pytest.fixture
def find(tiny_copy):
    """A function that changes release.json, and returns the problems without the file's name."""

    def find_problems(change=None):
        if change:
            manifest(change)(tiny_copy)
        folder = ReleaseFolder(tiny_copy)
        problems = list(find_manifest_problems(folder, Manifest.read(folder)))
        assert all(problem.startswith("release.json") for problem in problems)
        return [problem.removeprefix("release.json").removeprefix(": ") for problem in problems]

    return find_problems


def set_input(path, size):
    return lambda content: content["inputs"].update({path: size})


def test_sound_manifest_has_no_problem(find):
    assert find() == []


@pytest.mark.parametrize("n_filled", [0, 1])
@pytest.mark.parametrize("kind", range(3))
def test_recipe_that_drops_has_no_filled_values(find, kind, n_filled):
    def drop(content):
        content["recipe"]["nan_policy"] = "drop"
        for by_region in content["nan_counts"].values():
            for counts in by_region.values():
                counts.update(dict.fromkeys(counts, 0))
        counts = content["nan_counts"]["subj01"]["V1"]
        counts[list(counts)[kind]] = n_filled

    expected = [" counts filled values, but its recipe drops every neuroid with a value to fill."]
    assert find(drop) == expected * n_filled


def test_keys_in_lists_are_compared(find):
    def change(content):
        region = content["recipe"]["regions"][1]
        region["colour"] = "red"

    assert find(change) == [" has an unknown value under the key recipe.regions[1].colour."]


@pytest.mark.parametrize("path", [DESIGN, LABELS, STIMULUS_INFO, LABEL_NAMES])
@pytest.mark.parametrize("size", [0, 1])
def test_input_of_no_bytes_is_a_problem_unless_it_only_names_labels(find, path, size):
    expected = [f"the size of the input {path} is 0."] if size == 0 and path != LABEL_NAMES else []

    assert find(set_input(path, size)) == expected


@pytest.mark.parametrize("path", [NCSNR, BETAS.format("lh"), BETAS.format("rh")])
@pytest.mark.parametrize("n_missing_bytes", [0, 1])
def test_surface_is_at_least_as_long_as_its_header_and_values(find, tiny_copy, path, n_missing_bytes):
    content = json.loads((tiny_copy / "release.json").read_text())
    n_trials = 1 if path == NCSNR else content["n_trials_per_session"]
    size = HEADER + 4 * content["n_vertices"] * n_trials - n_missing_bytes

    problems = find(set_input(path, size))

    assert len(problems) == n_missing_bytes
    assert all(path in problem and "too small for" in problem for problem in problems)


def test_missing_ncsnr_is_a_problem(find):
    problems = find(lambda content: content["inputs"].pop(NCSNR))

    assert problems == [f"inputs lack {NCSNR}, or it is too small for 642 vertices."]


def test_subject_without_betas_is_a_problem(find):
    def remove_betas(content):
        for path in [path for path in content["inputs"] if "subj02" in path and "betas_session" in path]:
            del content["inputs"][path]

    assert find(remove_betas) == ["inputs hold lh betas of the sessions [] of subj02, but rh betas of []."]


def extract(tiny_copy, *, with_brick=False, without=()):
    """Return a change of release.json: its images were read from files that an earlier packaging extracted."""
    nsd_ids = [int(line.split(",")[0]) for line in (tiny_copy / "train_test_split.csv").read_text().splitlines()[1:]]

    def change(content):
        inputs = content["inputs"]
        for nsd_id in nsd_ids[len(without) :]:
            inputs[f"{EXTRACTED_FOLDERS[0]}/nsd_{nsd_id:05d}.png"] = 5
        if not with_brick:
            del inputs[IMAGES]

    return change


def test_extracted_images_take_the_place_of_the_brick(find, tiny_copy):
    assert find(extract(tiny_copy)) == []


@pytest.mark.parametrize("options", [{"with_brick": True}, {"without": ["one"]}])
def test_images_come_either_from_the_brick_or_all_from_extracted_files(find, tiny_copy, options):
    problems = find(extract(tiny_copy, **options))

    assert len(problems) == 1
    assert "expected either that file or every image of the release" in problems[0]
    assert ("no nsddata" in problems[0]) is ("without" in options)


def test_only_names_and_folders_of_an_earlier_packaging_are_extracted_images():
    folder = EXTRACTED_FOLDERS[0]
    paths = [
        *(f"{folder}/nsd_00005.png", f"{folder}/stimulus_nsd_00006.jpg", f"{folder}/nsd_7.png"),
        *(f"{folder}/other.png", "elsewhere/nsd_00008.png", f"{folder}/nsd_00009.png.txt"),
    ]

    assert list_extracted_images(dict.fromkeys(paths, 1)) == {5: paths[0], 6: paths[1]}


def test_key_that_is_there_twice_is_a_problem(find, tiny_copy):
    path = tiny_copy / "release.json"
    path.write_text(path.read_text().replace('"numpy":', '"numpy": "1.0", "numpy":'))
    folder = ReleaseFolder(tiny_copy)

    problems = list(find_manifest_problems(folder, Manifest.read(folder)))

    assert problems == ["release.json has the key numpy more than once."]
