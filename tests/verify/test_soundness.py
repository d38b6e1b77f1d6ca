"""A release as built is sound. A release with one thing wrong is not, even if its manifest lists the new hash."""

import re
import shutil
from pathlib import Path

import netCDF4
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.verify import assembly_soundness
from allen2022_surface_packaging.verify.recomputation import recompute_release
from allen2022_surface_packaging.verify.soundness import verify_release
from support import accept
from verify.damages import TEST, TRAIN, change_values, read_coordinates, rewrite_assembly


def test_release_as_built_is_sound(release, four_subject_release):
    assert verify_release(release) == []
    assert verify_release(four_subject_release) == []


def test_flipped_bit_is_reported_by_its_hash(release_copy):
    content = bytearray((release_copy / TRAIN).read_bytes())
    content[-1000] ^= 1
    (release_copy / TRAIN).write_bytes(content)

    (problem,) = verify_release(release_copy)
    assert f"{TRAIN} has the SHA-1" in problem


@pytest.mark.parametrize("name", [TEST, "train_test_split.csv", "stimulus_metadata_train.csv"])
def test_missing_file_is_reported(release_copy, name):
    (release_copy / name).unlink()

    assert any(f"{name} is missing" in problem for problem in verify_release(release_copy))


def test_file_that_the_manifest_does_not_list_is_reported(release_copy):
    (release_copy / "stimuli_test" / "cat.png").write_bytes(b"x")

    assert any("cat.png is in the release, but" in problem for problem in verify_release(release_copy))


def test_truncated_file_is_reported_by_its_size(release_copy):
    with (release_copy / TEST).open("r+b") as file:
        file.truncate(1000)

    assert any(f"{TEST} has 1,000 bytes" in problem for problem in verify_release(release_copy))


def change_variable(release, name, variable, index, value) -> None:
    with netCDF4.Dataset(release / name, "r+") as file:
        file[variable].set_auto_chartostring(False)
        file[variable][index] = value
    accept(release, name)


@pytest.mark.parametrize(
    ("name", "variable", "index", "value", "message"),
    [
        (TRAIN, "data", (3, 5, 0), np.nan, "presentation 3, neuroid subj01_lh_V1_v00005 is nan"),
        (TRAIN, "nsd_id", 0, 1, "nsd_id of presentation 0 is 1, expected"),
        (TEST, "repetition", 4, 2, "repetition of presentation 4 is 2, expected 1"),
        (TEST, "time_bin_start", 0, 0, "time_bin_start of time_bin 0 is 0, expected 70"),
        (TRAIN, "vertex_index", 0, 641, "out of order"),
        (TRAIN, "nc_testset", 0, 101.0, "outside 0 to 100"),
        (TEST, "nc_testset", 0, 50.0, "Allen2022_fmri_surface_test.nc: nc_testset of neuroid 0 is 50.0, but train has"),
        (TRAIN, "hemisphere", (0, 0), b"x", "unknown region, subject or hemisphere"),
        (
            TRAIN,
            "neuroid_id",
            (7, 18),
            b"9",
            "neuroid_id of neuroid 7 is subj01_lh_V1_v00009, expected subj01_lh_V1_v00007",
        ),
    ],
)
def test_wrong_value_is_reported_when_the_hash_is_right(release_copy, name, variable, index, value, message):
    change_variable(release_copy, name, variable, index, value)

    assert any(message in problem for problem in verify_release(release_copy)), verify_release(release_copy)


def test_train_image_among_the_test_images_is_reported(release_copy):
    path = release_copy / "train_test_split.csv"
    table = pd.read_csv(path)
    table.loc[len(table)] = table.iloc[-1]
    table.to_csv(path, index=False)
    accept(release_copy, path.name)

    assert any("train and test may overlap" in problem for problem in verify_release(release_copy))


def test_file_that_is_not_an_image_is_reported(release_copy):
    path = next((release_copy / "stimuli_test").iterdir())
    path.write_bytes(b"not an image")
    accept(release_copy, f"stimuli_test/{path.name}")

    assert any(f"{path} is not an image" in problem for problem in verify_release(release_copy))


def test_grey_image_is_reported(release_copy):
    path = next((release_copy / "stimuli_test").iterdir())
    Image.open(path).convert("L").save(path)
    accept(release_copy, f"stimuli_test/{path.name}")

    assert any(f"{path} is L, expected RGB" in problem for problem in verify_release(release_copy))


def test_table_with_an_empty_cell_is_reported(release_copy):
    path = release_copy / "stimulus_metadata_test.csv"
    table = pd.read_csv(path, dtype=str)
    table.loc[2, "coco_id"] = ""
    table.to_csv(path, index=False)
    accept(release_copy, path.name)

    (problem,) = verify_release(release_copy)
    assert problem == f"{path}: coco_id of row 2 is '', expected a whole number. Build the release again."


def test_folder_that_is_not_a_release_is_refused(tmp_path):
    with pytest.raises(PackagingError, match="is not a release: it holds no release.json"):
        verify_release(tmp_path)
    (tmp_path / "release.json").write_text("{}")
    with pytest.raises(PackagingError, match="release.json is damaged"):
        verify_release(tmp_path)


def test_command_ends_with_status_1_and_names_the_problem(release_copy, run_verify):
    (release_copy / TEST).unlink()

    result = run_verify(release_copy)

    assert result.status == 1
    assert f"{TEST} is missing" in result.out
    assert "is not sound: 1 problem." in result.err


def test_wrong_neuroid_id_is_reported_when_some_were_dropped(nsd_tree, tmp_path):
    build_release(nsd_tree, tmp_path / "r", make_recipe((1, 3), name="dropped", nan_policy="drop"))
    assert verify_release(tmp_path / "r") == []
    for wrong_id in ("subj01_lh_V1_v00001", "subj01_rh_V1_v00000", "somebody"):
        for name in ("dropped_train.nc", "dropped_test.nc"):
            ids = list(read_coordinates(tmp_path / "r", name)["neuroid_id"])
            ids[4] = wrong_id
            rewrite_assembly(
                tmp_path / "r", name, lambda assembly, ids=ids: assembly.assign_coords(neuroid_id=("neuroid", ids))
            )

        assert any("neuroid 4 " in problem for problem in verify_release(tmp_path / "r")), wrong_id


def test_full_size_release_must_have_the_sizes_of_nsd(release, monkeypatch):
    sessions = {subject: 4 if subject in (1, 2, 5, 7) else 3 for subject in range(1, 9)}
    monkeypatch.setattr(assembly_soundness, "N_VERTICES_OF_FSAVERAGE", 642)
    monkeypatch.setattr(assembly_soundness, "N_SESSIONS", sessions)

    problems = verify_release(release)

    assert any("subj01 V1 has" in problem and "neuroids, expected 4276" in problem for problem in problems)
    assert f"{TRAIN}: 102 images, expected 412." in problems
    assert f"{TEST}: 26 images, expected 103." in problems


def scale_train(release) -> None:
    def change(values):
        values *= 1.01

    change_values(release, "planted_train.nc", change)


def test_responses_must_be_standardised_over_train_images_if_the_recipe_says_so(tiny_tree, tmp_path):
    build_release(tiny_tree, tmp_path / "r", make_recipe((1, 2), name="planted", standardize_on="train"))
    assert verify_release(tmp_path / "r") == []
    scale_train(tmp_path / "r")

    (problem,) = verify_release(tmp_path / "r")
    assert re.match(
        r"subj01_lh_V1_v00000 has mean -?\d\S* and deviation 1\.01 over the train images, expected 0 and 1", problem
    )


def test_responses_of_whole_sessions_must_be_standardised_over_all_images(tiny_copy, monkeypatch):
    monkeypatch.setattr(assembly_soundness, "N_TRIALS_PER_SESSION", 60)
    assert verify_release(tiny_copy) == []
    scale_train(tiny_copy)

    (problem,) = verify_release(tiny_copy)
    assert "over the train and test images, expected 0 and 1" in problem


def test_filled_values_contradict_a_recipe_that_drops_them(tiny_copy):
    path = tiny_copy / "release.json"
    path.write_text(path.read_text().replace('"nan_policy": "zero"', '"nan_policy": "drop"'))

    (problem,) = verify_release(tiny_copy)
    assert problem == "release.json counts filled values, but its recipe drops every neuroid with a value to fill."


def test_images_of_mixed_formats_that_were_copied_are_sound(tiny_tree, tmp_path):
    tree = Path(shutil.copytree(tiny_tree, tmp_path / "nsd"))
    build_release(tree, tmp_path / "first", make_recipe((1, 2), name="first"))
    for split in ("train", "test"):
        folder = tree / "brainscore" / f"stimuli_{split}"
        folder.mkdir(parents=True)
        for number, path in enumerate(sorted((tmp_path / "first" / f"stimuli_{split}").iterdir())):
            with Image.open(path) as image:
                image.save(folder / (f"{path.stem}.png" if number % 2 else f"stimulus_{path.stem}.jpg"))

    build_release(tree, tmp_path / "r", make_recipe((1, 2), name="copied"))

    assert len({path.suffix for path in (tmp_path / "r/stimuli_test").iterdir()}) == 2
    assert verify_release(tmp_path / "r") == []
    assert recompute_release(tmp_path / "r", tree).problems == []
