import json

import netCDF4
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from allen2022_surface_packaging.cli import main
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.release import sha1_of
from allen2022_surface_packaging.verify.soundness import verify_release

TRAIN, TEST = "Allen2022_fmri_surface_train.nc", "Allen2022_fmri_surface_test.nc"


def test_a_release_as_built_is_sound(release, four_subject_release):
    assert verify_release(release) == []
    assert verify_release(four_subject_release) == []


def test_a_flipped_bit_is_found_by_its_hash(own_release):
    content = bytearray((own_release / TRAIN).read_bytes())
    content[-1000] ^= 1
    (own_release / TRAIN).write_bytes(content)

    (problem,) = verify_release(own_release)
    assert f"{TRAIN} has the SHA-1" in problem


@pytest.mark.parametrize("name", [TEST, "train_test_split.csv", "stimulus_metadata_train.csv"])
def test_a_missing_file_is_found(own_release, name):
    (own_release / name).unlink()

    assert any(f"{name} is missing" in problem for problem in verify_release(own_release))


def test_a_file_that_does_not_belong_is_found(own_release):
    (own_release / "stimuli_test" / "cat.png").write_bytes(b"x")

    assert any("cat.png is there, but" in problem for problem in verify_release(own_release))


def test_a_cut_file_is_found_by_its_size(own_release):
    with (own_release / TEST).open("r+b") as file:
        file.truncate(1000)

    assert any(f"{TEST} has 1,000 bytes" in problem for problem in verify_release(own_release))


def accept(release, name) -> None:
    """Make the manifest agree with a file, so that something else than the hash must notice."""
    manifest = json.loads((release / "release.json").read_text())
    manifest["files"][name] = {"size": (release / name).stat().st_size, "sha1": sha1_of(release / name)}
    (release / "release.json").write_text(json.dumps(manifest))


def change(release, name, variable, index, value) -> None:
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
        (TEST, "nc_testset", 0, 50.0, "The nc_testset of train and test differ"),
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
def test_a_wrong_value_is_found_whatever_its_hash(own_release, name, variable, index, value, message):
    change(own_release, name, variable, index, value)

    assert any(message in problem for problem in verify_release(own_release)), verify_release(own_release)


def test_a_train_image_among_the_test_images_is_found(own_release):
    path = own_release / "train_test_split.csv"
    table = pd.read_csv(path)
    table.loc[len(table)] = table.iloc[-1]
    table.to_csv(path, index=False)
    accept(own_release, path.name)

    assert any("train and test may overlap" in problem for problem in verify_release(own_release))


def test_an_image_that_is_none_is_found(own_release):
    path = next((own_release / "stimuli_test").iterdir())
    path.write_bytes(b"not an image")
    accept(own_release, f"stimuli_test/{path.name}")

    assert any(f"{path} is not an image" in problem for problem in verify_release(own_release))


def test_a_grey_image_is_found(own_release):
    path = next((own_release / "stimuli_test").iterdir())
    Image.open(path).convert("L").save(path)
    accept(own_release, f"stimuli_test/{path.name}")

    assert any(f"{path} is L, expected RGB" in problem for problem in verify_release(own_release))


def test_a_table_with_an_empty_cell_is_found(own_release):
    path = own_release / "stimulus_metadata_test.csv"
    table = pd.read_csv(path)
    table.loc[2, "coco_id"] = np.nan
    table.to_csv(path, index=False)
    accept(own_release, path.name)

    assert any("holds empty cells" in problem for problem in verify_release(own_release))


def test_what_is_not_a_release_is_refused(tmp_path):
    with pytest.raises(PackagingError, match="is not a release: it holds no release.json"):
        verify_release(tmp_path)
    (tmp_path / "release.json").write_text("{}")
    with pytest.raises(PackagingError, match="release.json is damaged"):
        verify_release(tmp_path)


def test_the_command_line_ends_with_status_1_and_names_the_problem(own_release, capsys):
    (own_release / TEST).unlink()

    with pytest.raises(SystemExit, match="1"):
        main(["verify", str(own_release)])
    captured = capsys.readouterr()
    assert f"{TEST} is missing" in captured.out
    assert "is not sound: 1 problem." in captured.err
