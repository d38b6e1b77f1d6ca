"""Names and helpers of the upload tests."""

import json

from allen2022_surface_packaging.publish.upload import publish_release
from allen2022_surface_packaging.recipe import PUBLISHED_REGIONS, Recipe

PREFIX = "some/where/deep"
NAME = "Small"
REGIONS = ("V1", "V4")
RECIPE = Recipe(NAME, subjects=(1, 4), regions=PUBLISHED_REGIONS[::2])
OBJECTS = [
    f"stimulus_{NAME}_train.csv",
    f"stimulus_{NAME}_train.zip",
    f"stimulus_{NAME}_test.csv",
    f"stimulus_{NAME}_test.zip",
    f"assy_{NAME}_train.nc",
    f"assy_{NAME}_test.nc",
    *(f"assy_{NAME}_{region}_{split}.nc" for split in ("train", "test") for region in REGIONS),
]
ONE_VERSION_EACH = dict.fromkeys(OBJECTS, 1)


def publish(release, artifacts_path, prefix=PREFIX, **options):
    """Publish a release, and return what is printed for the user."""
    return publish_release(release, f"brain/{prefix}", artifacts_path=artifacts_path, **options)


def list_versions(s3, prefix=PREFIX):
    """Return the versions of every object under a prefix, newest first."""
    versions = {}
    for version in s3.list_object_versions(Bucket="brain", Prefix=prefix).get("Versions", ()):
        versions.setdefault(version["Key"].rpartition("/")[2], []).append(version["VersionId"])
    return versions


def count_versions(s3, prefix=PREFIX):
    """Return the number of versions of every object under a prefix."""
    return {name: len(versions) for name, versions in list_versions(s3, prefix).items()}


def list_recorded(artifacts_path):
    """Return the objects of the small release that an artifacts file records."""
    artifacts = json.loads(artifacts_path.read_text())
    entries = [entry for identifier, entry in artifacts.items() if identifier.startswith(f"{NAME}.")]
    return [stored for entry in entries for stored in entry.values()]


def mark_simulated(release, simulated=True):
    """Set or remove the mark that `build` leaves in a release of a simulated tree."""
    path = release / "release.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"simulated": simulated}))
    return release
