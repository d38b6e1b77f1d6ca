"""No path of the machine that built and published a release is in anything that is published."""

import shutil
import zipfile

import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.publish.export import PACKAGING_NAME, export_plugin
from allen2022_surface_packaging.recipe_file import read_recipe
from publish.uploads import PREFIX, RECIPE, build_small_release, publish
from support import recipe_lines, run_cli

MARKER = "the_folder_of_the_builder"


@pytest.fixture
def builder(tmp_path, monkeypatch):
    """A folder whose name would show in a path. All that is done here is done inside it."""
    folder = tmp_path / MARKER
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder / "home"))
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def built(builder):
    """A release that was built there."""
    return build_small_release(builder, cache_path=builder / "cache")


def assert_no_marker(folder):
    """Search every name and every byte below a folder, also inside ZIP files."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        content = path.read_bytes()
        assert MARKER not in str(path.relative_to(folder))
        assert MARKER.encode() not in content, path
        assert MARKER.encode("utf-16-le") not in content, path
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                assert not any(MARKER.encode() in archive.read(name) for name in archive.namelist())
                assert MARKER.encode() not in archive.comment


def test_release_report_and_packed_files_hold_no_path(built, builder):
    pytest.importorskip("nilearn")
    for command in (
        ("verify", built, "--nsd-root", builder / "nsd"),
        ("report", built),
        ("pack", built, builder / "packed"),
    ):
        assert run_cli(*command).returncode == 0, command

    assert (built / "report.html").is_file()
    (
        built / "verify.json"
    ).unlink()  # it says against which folder the release was verified, and is not part of the release
    assert_no_marker(built)
    assert_no_marker(builder / "packed")


def test_release_of_a_recipe_file_holds_no_path(built, builder):
    (builder / "mine.toml").write_text(recipe_lines("mine", RECIPE.subjects, RECIPE.regions))

    build_release(builder / "nsd", builder / "mine", read_recipe(str(builder / "mine.toml")))

    assert_no_marker(builder / "mine")


def test_artifacts_and_objects_hold_no_path(built, builder, s3):
    publish(built, builder / "artifacts.json")

    assert MARKER not in (builder / "artifacts.json").read_text()
    for version in s3.list_object_versions(Bucket="brain", Prefix=PREFIX)["Versions"]:
        found = s3.get_object(Bucket="brain", Key=version["Key"], VersionId=version["VersionId"])
        assert MARKER not in str(found["Metadata"])
        assert MARKER.encode() not in found["Body"].read()


def test_exported_folder_and_pull_request_hold_no_path(built, builder, small_checkout, artifacts_path, monkeypatch):
    monkeypatch.setattr("allen2022_surface_packaging.publish.export.find_spec", lambda name: None)  # runs no tests
    checkout = shutil.copytree(small_checkout, builder / "vision")

    output = export_plugin(checkout, artifacts_path=artifacts_path)

    exported = checkout / "brainscore_vision" / "data" / "allen2022_surface"
    assert (exported / PACKAGING_NAME).is_dir()
    assert_no_marker(exported)
    commands, _, text = output.partition("\n\n")
    assert MARKER in commands  # they are run here, and not published
    assert MARKER not in text


def test_search_finds_a_path_wherever_it_is(tmp_path):
    """Otherwise the tests above could not fail."""
    for name, content in {
        "text": f"see /home/{MARKER}".encode(),
        "utf16": f"see /home/{MARKER}".encode("utf-16"),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "file").write_bytes(content)
        with pytest.raises(AssertionError):
            assert_no_marker(folder)
    (tmp_path / "zip").mkdir()
    with zipfile.ZipFile(tmp_path / "zip" / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("compressed", MARKER * 20)
    with pytest.raises(AssertionError):
        assert_no_marker(tmp_path / "zip")
