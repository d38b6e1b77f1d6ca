import json


def test_a_release_holds_what_the_design_lists(release):
    manifest = json.loads((release / "release.json").read_text())

    assert manifest["name"] == "Allen2022_fmri_surface"
    assert {path.name for path in release.iterdir()} == {
        "Allen2022_fmri_surface_train.nc",
        "Allen2022_fmri_surface_test.nc",
        "stimuli_train",
        "stimuli_test",
        "stimulus_metadata_train.csv",
        "stimulus_metadata_test.csv",
        "train_test_split.csv",
        "release.json",
    }
