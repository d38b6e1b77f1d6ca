"""Which file is read for a region: its own object, the whole assembly, or the file of a release."""

from pathlib import Path

import pytest

from brainscore_allen2022_surface import loaders
from brainscore_allen2022_surface.artifacts import StoredObject
from brainscore_allen2022_surface.files import LocalFile, LocalFolder
from brainscore_allen2022_surface.loaders import assembly_file
from brainscore_allen2022_surface.sources import DatasetFiles

WHOLE, V4, IT = (StoredObject("brain", f"{name}.nc", "v", name * 40) for name in "012")
TABLE = LocalFile(Path("table.csv"), "")
IMAGES = LocalFolder(Path("images"), {})


@pytest.mark.parametrize(
    ("region", "cached", "expected"),
    [
        ("V4", set(), V4),
        ("V4", {V4}, V4),
        ("V4", {WHOLE}, WHOLE),
        ("V4", {WHOLE, V4}, V4),
        ("V4", {WHOLE, IT}, WHOLE),
        ("IT", {V4}, IT),
        (None, {V4}, WHOLE),
        (None, set(), WHOLE),
        ("V1", {V4}, WHOLE),
    ],
)
def test_smallest_object_is_taken_unless_only_the_whole_is_cached(monkeypatch, region, cached, expected):
    monkeypatch.setattr(loaders, "is_cached", cached.__contains__)

    assert assembly_file(DatasetFiles(WHOLE, TABLE, IMAGES, {"V4": V4, "IT": IT}), region) == expected


@pytest.mark.parametrize("region", [None, "V4"])
def test_release_has_one_file(monkeypatch, region):
    monkeypatch.setattr(loaders, "is_cached", None)
    whole = LocalFile(Path("whole.nc"), "")

    assert assembly_file(DatasetFiles(whole, TABLE, IMAGES), region) == whole
    assert assembly_file(DatasetFiles(whole, TABLE, IMAGES, {"V4": V4}), "V4") == V4
