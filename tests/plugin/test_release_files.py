"""The files of a dataset, found in folders and artifacts files that are written by hand."""

import json
import os
import warnings

import pytest

from brainscore_allen2022_surface import sources
from brainscore_allen2022_surface.files import LocalFile, LocalFolder
from brainscore_allen2022_surface.sources import (
    ARTIFACTS_VARIABLE,
    RELEASE_VARIABLE,
    SHIPPED_PATH,
    SimulatedDataWarning,
    default_artifacts_path,
    default_source,
    describe_release,
    find_files,
    list_releases,
)
from plugin.written_releases import CONTENT, SHA1S, write_manifest, write_release


@pytest.fixture
def release(tmp_path):
    return write_release(tmp_path / "release")


# --- releases ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["release", ".", "text"])
def test_files_of_a_split_are_those_of_the_manifest(release, source):
    source = str(release) if source == "text" else release.parent / source
    train, test = find_files("one", "train", source), find_files("one", "test", source)

    assert train.assembly == LocalFile(release / "one_train.nc", SHA1S["one_train.nc"])
    assert test.assembly == LocalFile(release / "one_test.nc", SHA1S["one_test.nc"])
    assert train.stimulus_table.path == release / "stimulus_metadata_train.csv"
    assert test.stimulus_table == LocalFile(release / "stimulus_metadata_test.csv", SHA1S["stimulus_metadata_test.csv"])
    images = {"a.png": SHA1S["stimuli_train/a.png"], "below/b.png": SHA1S["stimuli_train/below/b.png"]}
    assert train.stimuli == LocalFolder(release / "stimuli_train", images)
    assert test.stimuli == LocalFolder(release / "stimuli_test", {"c.png": SHA1S["stimuli_test/c.png"]})
    assert train.region_assemblies == {} and not train.has_shipped_stimuli


@pytest.mark.parametrize("split", ["", "Train", "all"])
def test_unknown_split_is_named(release, split):
    with pytest.raises(ValueError, match=rf"^The split is '{split}', expected one of train, test\.$"):
        find_files("one", split, release)


@pytest.mark.parametrize("name", ["one_train.nc", "stimulus_metadata_train.csv"])
def test_file_of_another_size_is_named(release, name):
    (release / name).write_bytes(bytes(1234))

    with pytest.raises(ValueError) as raised:
        find_files("one", "train", release)
    assert (
        str(raised.value)
        == f"{release / name} has 1,234 bytes, expected {len(CONTENT[name])}. Build the release again."
    )
    assert find_files("one", "test", release)


@pytest.mark.parametrize("name", ["one_train.nc", "stimulus_metadata_train.csv"])
def test_missing_and_unlisted_files_are_named(release, name):
    (release / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} is missing\. Build the release again\.$"):
        find_files("one", "train", release)

    manifest = json.loads((release / "release.json").read_text())
    del manifest["files"][name]
    write_manifest(release, manifest)
    with pytest.raises(ValueError, match=rf"release\.json does not list {name}\. Build the release again\.$"):
        find_files("one", "train", release)


def test_releases_are_the_folder_and_its_visible_subfolders(release, tmp_path):
    write_release(tmp_path / "other", name="two")
    write_release(tmp_path / ".hidden", name="three")
    (tmp_path / "empty").mkdir()
    write_release(release / "inside", name="four")
    (tmp_path / "file").write_bytes(b"")

    assert list_releases(tmp_path) == [tmp_path / "other", release]
    assert list_releases(release) == [release, release / "inside"]
    with pytest.raises(FileNotFoundError) as raised:
        find_files("three", "train", tmp_path)
    assert str(raised.value) == (
        f"{tmp_path} holds one, two, expected three. Build it (allen2022-surface build), set {RELEASE_VARIABLE} to another "
        "folder, or unset it to load from S3."
    )
    with pytest.raises(FileNotFoundError, match="empty holds no release, expected one"):
        find_files("one", "train", tmp_path / "empty")


def test_two_releases_of_a_name_are_named(release, tmp_path):
    other = write_release(tmp_path / "another")

    message = f"{tmp_path} holds one more than once: {other}, {release}. Load from one of these folders."
    with pytest.raises(ValueError) as raised:
        find_files("one", "train", tmp_path)
    assert str(raised.value) == message
    assert find_files("one", "train", other).assembly.path == other / "one_train.nc"


@pytest.mark.parametrize("simulated", [True, False, None])
def test_simulated_release_gives_a_warning(tmp_path, simulated):
    changes = {} if simulated is None else {"simulated": simulated}
    path = write_release(tmp_path / "release", **changes)

    def load():
        return find_files("one", "train", path)

    def loader():
        return load()

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loader()  # the warning is for the line that calls a loader, which calls another function
    assert describe_release(path) == ("one", simulated is True)
    assert len(caught) == (simulated is True)
    if caught:
        assert caught[0].category is SimulatedDataWarning
        assert str(caught[0].message).startswith(f"{path} holds simulated data, not the responses of people.")
        assert (caught[0].filename, caught[0].lineno) == (__file__, loader.__code__.co_firstlineno + 1)


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        ("{", "Expecting property name"),
        ("[" * 100_000, "recursion"),
        ([], "it must have a name and files"),
        ({"name": "one"}, "it must have a name and files"),
        ({"files": {}}, "it must have a name and files"),
        ({"name": 1, "files": {}}, "it must have a name and files"),
        ({"name": "one", "files": []}, "it must have a name and files"),
        ({"name": "a/b", "files": {}}, "its name must have letters, digits and _ only, but is 'a/b'"),
        ({"name": "é", "files": {}}, "its name must have letters"),
        ({"name": "", "files": {}}, "its name must have letters"),
        ({"name": "one", "files": {}, "simulated": 1}, "simulated must be true or false, but got 1"),
        ({"name": "one", "files": {"a": 1}}, "each of its files must have a size in bytes and a SHA-1, but got 1"),
        ({"name": "one", "files": {"a": {"size": 1}}}, "each of its files must have a size"),
        ({"name": "one", "files": {"a": {"size": "1", "sha1": "0" * 40}}}, "each of its files must have a size"),
        ({"name": "one", "files": {"a": {"size": 1, "sha1": "0" * 39}}}, "each of its files must have a size"),
        ({"name": "one", "files": {"a": {"size": 1, "sha1": "0" * 41}}}, "each of its files must have a size"),
        ({"name": "one", "files": {"a": {"size": 1, "sha1": "G" * 40}}}, "each of its files must have a size"),
    ],
)
def test_damaged_manifest_is_named(release, manifest, reason):
    write_manifest(release, manifest)

    for function in (lambda: find_files("one", "train", release), lambda: describe_release(release)):
        with pytest.raises(ValueError) as raised:
            function()
        assert str(raised.value).startswith(f"{release / 'release.json'} is damaged (")
        assert reason in str(raised.value)
        assert str(raised.value).endswith("). Build the release again.")


def test_manifest_that_is_not_text_is_named(release):
    (release / "release.json").write_bytes(b"\xff\xfe")

    with pytest.raises(ValueError, match=r"release\.json is damaged \(.*Build the release again\.$"):
        find_files("one", "train", release)


def test_folder_in_place_of_the_manifest_is_named(release):
    (release / "release.json").unlink()
    (release / "release.json").mkdir()

    with pytest.raises(
        ValueError, match=r"release\.json is a folder, expected a regular file\. Build the release again\.$"
    ):
        find_files("one", "train", release)


# --- sources ----------------------------------------------------------------------------------------------------------


def test_source_that_is_neither_a_folder_nor_a_file_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(
        ValueError, match=r"pipe is neither a folder nor a regular file, expected a release or an artifacts"
    ):
        find_files("one", "train", tmp_path / "pipe")
    with pytest.raises(
        FileNotFoundError, match=r"nothing does not exist, expected a release, a folder of releases or an"
    ):
        find_files("one", "train", tmp_path / "nothing")


def test_home_folder_in_a_source_is_expanded(release, monkeypatch):
    monkeypatch.setenv("HOME", str(release.parent))

    assert find_files("one", "train", "~/release").assembly.path == release / "one_train.nc"
    with pytest.raises(ValueError, match="^The source is ~no_such_user"):
        find_files("one", "train", "~no_such_user/release")


def test_default_source_is_named_by_variables(release, tmp_path, monkeypatch):
    for variable in (RELEASE_VARIABLE, ARTIFACTS_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    assert default_source() == default_artifacts_path() == SHIPPED_PATH

    file = tmp_path / "artifacts.json"
    file.write_text("{}")
    monkeypatch.setenv(ARTIFACTS_VARIABLE, str(file))
    assert default_source() == default_artifacts_path() == file

    monkeypatch.setenv(RELEASE_VARIABLE, str(release))
    assert default_source() == release
    assert default_artifacts_path() == file


def test_variables_that_name_something_else_are_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("{}")
    monkeypatch.setenv(RELEASE_VARIABLE, str(tmp_path / "file"))
    message = (
        rf"^{RELEASE_VARIABLE} is .*file, which is not a folder\. Set it to a release, or unset it to load from S3\.$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        default_source()

    monkeypatch.delenv(RELEASE_VARIABLE)
    monkeypatch.setenv(ARTIFACTS_VARIABLE, str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=rf"^{ARTIFACTS_VARIABLE} is {tmp_path}, which is not a file\. Set it to a file"
    ):
        default_source()


# --- artifacts --------------------------------------------------------------------------------------------------------


def make_entry(number=0, **changes):
    def stored(kind):
        place = {"bucket": "brain", "key": f"{kind}", "version_id": "v", "sha1": f"{number:040x}"}
        return place | changes.get(kind, {})

    kinds = ("assembly", "stimulus_csv", "stimulus_zip")
    return {kind: stored(kind) for kind in kinds}


def write_artifacts(path, **entries):
    path.write_text(json.dumps({name.replace("__", "."): entry for name, entry in entries.items()}))
    return path


def test_objects_of_a_dataset_are_those_of_the_artifacts_file(tmp_path):
    path = write_artifacts(
        tmp_path / "a.json",
        one__train=make_entry(1),
        one__test=make_entry(2),
        one__V4__train={"assembly": make_entry(3)["assembly"]},
    )

    train = find_files("one", "train", path)

    assert [stored.sha1[-1] for stored in (train.assembly, train.stimulus_table, train.stimuli)] == ["1"] * 3
    assert [stored.key for stored in (train.assembly, train.stimulus_table, train.stimuli)] == list(make_entry())
    assert {region: stored.sha1[-1] for region, stored in train.region_assemblies.items()} == {"V4": "3"}
    assert find_files("one", "test", path).region_assemblies == {}
    with pytest.raises(FileNotFoundError) as raised:
        find_files("two", "train", path)
    assert str(raised.value) == (
        f"{path} lists one.test, one.train, expected two.train. Upload it (allen2022-surface upload), or set "
        f"{RELEASE_VARIABLE} to a release."
    )
    with pytest.raises(FileNotFoundError, match=r"b\.json lists nothing, expected one\.train"):
        find_files("one", "train", write_artifacts(tmp_path / "b.json"))


@pytest.mark.parametrize(
    ("shipped", "is_shipped"),
    [
        ({}, False),
        ({"one__train": make_entry(1)}, True),
        ({"one__test": make_entry(1)}, False),
        ({"one__train": make_entry(1, assembly={"sha1": "f" * 40})}, True),
        ({"one__train": make_entry(1, stimulus_csv={"sha1": "f" * 40})}, False),
        ({"one__train": make_entry(1, stimulus_zip={"sha1": "f" * 40})}, False),
    ],
)
def test_stimuli_of_the_shipped_file_are_recognised(tmp_path, monkeypatch, shipped, is_shipped):
    monkeypatch.setattr(sources, "SHIPPED_PATH", write_artifacts(tmp_path / "shipped.json", **shipped))
    path = write_artifacts(tmp_path / "a.json", one__train=make_entry(1))

    assert find_files("one", "train", path).has_shipped_stimuli is is_shipped


def test_simulated_objects_give_a_warning(tmp_path):
    entry = {kind: stored | {"simulated": True} for kind, stored in make_entry(1).items()}
    path = write_artifacts(tmp_path / "a.json", one__train=entry, one__test=make_entry(2))

    with pytest.warns(SimulatedDataWarning, match=r"^s3://brain/assembly \(version v\) holds simulated data"):
        find_files("one", "train", path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_files("one", "test", path)
