"""A simulated release is published only by code that asks for it, and then its objects say so."""

import json

import pytest

from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.plugin import plugin_path
from allen2022_surface_packaging.publish.export import export_plugin
from allen2022_surface_packaging.publish.upload import publish_release
from publish.uploads import NAME, OBJECTS, REGIONS, publish
from support import run_cli


@pytest.fixture
def simulated(release_copy):
    """A release with the mark that `build` leaves in a release of a simulated tree."""
    path = release_copy / "release.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"simulated": True}))
    return release_copy


@pytest.mark.parametrize(
    "command",
    [
        lambda release, folder: ["upload", release, "--bucket", "brain/x", "--accept-nsd-terms"],
        lambda release, folder: ["upload", release, "--bucket", "brain/x", "--dry-run"],
        lambda release, folder: ["pack", release, folder / "packed"],
        lambda release, folder: ["record", release, folder / "version_ids.csv"],
    ],
)
def test_command_refuses_a_simulated_release_before_it_does_anything(simulated, s3, proxy, tmp_path, command):
    before = (plugin_path() / "artifacts.json").read_bytes()

    result = run_cli(*command(simulated, tmp_path))

    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        f"allen2022-surface: {simulated} was built from a simulated tree, so it is not published. Build a release from "
        "NSD's files."
    ]
    assert proxy.requests == []
    assert not (tmp_path / "packed").exists()
    assert (plugin_path() / "artifacts.json").read_bytes() == before


def test_no_command_offers_the_way_round():
    for command in ("upload", "pack", "record", "export", "demo"):
        assert "simulated" not in run_cli(command, "--help").stdout


def test_objects_of_a_demonstration_are_marked_and_not_exported(simulated, s3, proxy, artifacts_path, tmp_path):
    publish_release(simulated, "brain/demo", artifacts_path=artifacts_path, allow_simulated=True)

    assert proxy.contents_sent() == OBJECTS
    artifacts = json.loads(artifacts_path.read_text())
    marked = [identifier for identifier, entry in artifacts.items() if entry["assembly"].get("simulated")]
    assert sorted(marked) == sorted(
        f"{NAME}{region}.{split}" for region in ("", *(f".{name}" for name in REGIONS)) for split in ("train", "test")
    )
    data_path = tmp_path / "vision" / "brainscore_vision" / "data"
    data_path.mkdir(parents=True)
    (data_path.parent / "__init__.py").write_text("data_registry = {}\n")
    with pytest.raises(PackagingError, match=rf"artifacts.json lists simulated data \({NAME}.train\)"):
        export_plugin(tmp_path / "vision", artifacts_path=artifacts_path)
    with pytest.raises(PackagingError, match="was built from a simulated tree, so it is not published"):
        export_plugin(tmp_path / "vision", release_paths=[simulated])
    assert list(data_path.iterdir()) == []


def test_objects_of_measurements_have_no_mark(release, s3, artifacts_path):
    publish(release, artifacts_path)

    assert "simulated" not in artifacts_path.read_text()
