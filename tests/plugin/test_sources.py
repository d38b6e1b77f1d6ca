"""The source of a dataset: the argument `source`, the environment variables, and the files that a release lists."""

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest

from brainscore_allen2022_surface import loaders, sources
from brainscore_allen2022_surface.artifacts import SHIPPED_PATH
from brainscore_allen2022_surface.files import LocalFile, LocalFolder, sha1_of
from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set
from brainscore_allen2022_surface.sources import DatasetFiles, SimulatedDataWarning, default_source, find_files

NAME = "Allen2022_fmri_surface"
RELEASE_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_DIR"
ARTIFACTS_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS"


def test_default_source_is_shipped_artifacts_file():
    assert default_source() == SHIPPED_PATH


def test_default_source_is_named_by_environment(tmp_path, monkeypatch):
    (tmp_path / "artifacts.json").write_text("{}")

    monkeypatch.setenv(ARTIFACTS_VARIABLE, str(tmp_path / "artifacts.json"))
    assert default_source() == tmp_path / "artifacts.json"

    monkeypatch.setenv(RELEASE_VARIABLE, str(tmp_path))
    assert default_source() == tmp_path

    monkeypatch.setenv(RELEASE_VARIABLE, "")  # counts as unset
    assert default_source() == tmp_path / "artifacts.json"


def test_home_folder_in_environment_is_expanded(monkeypatch):
    monkeypatch.setenv(RELEASE_VARIABLE, "~")

    assert default_source() == Path.home()


def test_files_are_found_in_release_and_in_folder_of_releases(release, releases_path):
    for source, folder in ((release, release), (str(release), release), (releases_path, releases_path / "a")):
        assembly_path, table_path = folder / f"{NAME}_test.nc", folder / "stimulus_metadata_test.csv"
        image_paths = (folder / "stimuli_test").iterdir()
        assert find_files(NAME, "test", source) == DatasetFiles(
            LocalFile(assembly_path, sha1_of(assembly_path)),
            LocalFile(table_path, sha1_of(table_path)),
            LocalFolder(folder / "stimuli_test", {path.name: sha1_of(path) for path in image_paths}),
        )


def test_source_argument_wins_over_environment(releases_path, tmp_path, monkeypatch):
    monkeypatch.setenv(RELEASE_VARIABLE, str(tmp_path / "nowhere"))

    assembly = load_assembly(NAME, "test", region="V4", source=releases_path)
    stimulus_set = load_stimulus_set(NAME, "test", source=str(releases_path))

    assert set(stimulus_set["stimulus_id"]) == set(assembly["stimulus_id"].values)


@pytest.mark.parametrize("load", [load_assembly, load_stimulus_set])
def test_files_are_looked_up_once_per_load(release, monkeypatch, load):
    calls = []
    monkeypatch.setattr(loaders, "find_files", lambda *arguments: calls.append(arguments) or find_files(*arguments))
    manifests = []
    read_release = sources._read_release
    monkeypatch.setattr(sources, "_read_release", lambda path: manifests.append(path) or read_release(path))

    load(NAME, "test", source=release)

    assert calls == [(NAME, "test", release)]
    assert manifests == [release]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("nowhere", "nowhere, which is not a folder"),
        ("empty", "holds no release, expected Allen2022_fmri_surface"),
        ("four", "holds Allen2022_fmri_surface_4subj, expected Allen2022_fmri_surface. Build it"),
    ],
)
def test_error_says_what_to_do_when_folder_lacks_release(four_subject_release, tmp_path, monkeypatch, setting, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "four").symlink_to(four_subject_release)
    monkeypatch.setenv(RELEASE_VARIABLE, str(tmp_path / setting))

    with pytest.raises(FileNotFoundError, match=message) as error:
        load_assembly(NAME, "train")
    assert RELEASE_VARIABLE in str(error.value)


def test_artifacts_variable_that_names_no_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(ARTIFACTS_VARIABLE, str(tmp_path))

    with pytest.raises(FileNotFoundError, match=f"{ARTIFACTS_VARIABLE} is .*, which is not a file. Set it to"):
        load_assembly(NAME, "train")


def test_source_argument_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist, expected a release, a folder of releases or"):
        load_assembly(NAME, "train", source=tmp_path / "nowhere")


def test_two_releases_of_one_name_are_refused(release, tmp_path, monkeypatch):
    for folder in ("old", "new"):
        (tmp_path / folder).symlink_to(release)
    monkeypatch.setenv(RELEASE_VARIABLE, str(tmp_path))

    with pytest.raises(
        ValueError, match="holds Allen2022_fmri_surface more than once: .*new, .*old. Load from one of these folders"
    ):
        load_assembly(NAME, "train")


def test_hidden_folder_is_not_searched(release, tmp_path):
    (tmp_path / "release").symlink_to(release)
    (tmp_path / ".release.partial").symlink_to(release)

    assert find_files(NAME, "test", tmp_path).stimuli.path == tmp_path / "release" / "stimuli_test"


def test_assembly_of_wrong_size_is_refused(release_copy):
    os.truncate(release_copy / f"{NAME}_test.nc", 100)

    with pytest.raises(ValueError, match="test.nc has 100 bytes, expected"):
        load_assembly(NAME, "test", source=release_copy)


def test_missing_stimulus_table_is_refused(release_copy):
    (release_copy / "stimulus_metadata_test.csv").unlink()

    with pytest.raises(FileNotFoundError, match="stimulus_metadata_test.csv is missing. Build the release again"):
        load_stimulus_set(NAME, "test", source=release_copy)


def test_missing_image_is_refused(release_copy):
    next((release_copy / "stimuli_train").iterdir()).unlink()

    with pytest.raises(
        FileNotFoundError, match=r"nsd_\d{5}.png and 0 more images of Allen2022_fmri_surface.train are missing"
    ):
        load_stimulus_set(NAME, "train", source=release_copy)


def test_missing_folder_of_images_is_refused(release_copy):
    shutil.rmtree(release_copy / "stimuli_train")

    with pytest.raises(FileNotFoundError, match=r"nsd_\d{5}.png and 101 more images"):
        load_stimulus_set(NAME, "train", source=release_copy)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "maximum recursion depth exceeded"),
        ("[]", "it must have a name and files"),
        (json.dumps({"name": NAME}), "it must have a name and files"),
        (json.dumps({"name": 1, "files": {}}), "it must have a name and files"),
        (json.dumps({"name": NAME, "files": {"a": {"size": "5"}}}), "each of its files must have a size.*'5'"),
        (
            json.dumps({"name": NAME, "files": {"a": {"size": 5}}}),
            "each of its files must have a size in bytes and a SHA-1",
        ),
        (json.dumps({"name": f"../{NAME}", "files": {}}), "its name must have letters, digits and _ only"),
        (json.dumps({"name": NAME, "files": {}, "simulated": "no"}), "simulated must be true or false, but got 'no'"),
    ],
    ids=lambda text: text[:30],
)
def test_damaged_manifest_is_refused(tmp_path, content, reason):
    (tmp_path / "release.json").write_text(content)

    with pytest.raises(ValueError, match=rf"release.json is damaged \({reason}.*Build the release again"):
        load_assembly(NAME, "test", source=tmp_path)


def test_manifest_that_lacks_the_assembly_is_refused(tmp_path):
    (tmp_path / "release.json").write_text(json.dumps({"name": NAME, "files": {}}))

    with pytest.raises(ValueError, match=f"release.json does not list {NAME}_test.nc. Build the release again"):
        load_assembly(NAME, "test", source=tmp_path)


@pytest.fixture
def mark_simulated(release_copy):
    """A function that writes whether the release is simulated into its manifest."""

    def mark(is_simulated):
        path = release_copy / "release.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"simulated": is_simulated}))
        return release_copy

    return mark


@pytest.mark.parametrize("load", [load_assembly, load_stimulus_set])
def test_simulated_release_gives_one_warning_per_load(mark_simulated, load):
    path = mark_simulated(True)

    for _ in range(2):
        with pytest.warns(SimulatedDataWarning) as caught:
            load(NAME, "test", source=path)
        (warning,) = [warning for warning in caught if warning.category is SimulatedDataWarning]
        message = str(warning.message)
        assert message.startswith(f"{path} holds simulated data") and "\n" not in message
        assert warning.filename == __file__


def test_release_of_measured_data_gives_no_warning(mark_simulated):
    path = mark_simulated(False)

    with warnings.catch_warnings():
        warnings.simplefilter("error", SimulatedDataWarning)
        load_assembly(NAME, "test", source=path)
