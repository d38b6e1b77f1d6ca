"""Regions with S3 objects of their own: only the region is downloaded, and it equals the part of the whole."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from allen2022_surface_packaging.publish.objects import find_regions, write_region
from brainscore_allen2022_surface.artifacts import read_artifacts
from brainscore_allen2022_surface.loaders import load_assembly
from plugin.relay import CountingRelay

NAME = "Allen2022_fmri_surface"
REGIONS = ("V1", "V2", "V4", "IT")
PRESENTATIONS = {"train": ["stimulus_id", "nsd_id"], "test": ["stimulus_id", "nsd_id", "repetition"]}
SPLITS = tuple(PRESENTATIONS)


@pytest.fixture(scope="module")
def region_files(release, tmp_path_factory) -> dict[tuple[str, str], Path]:
    """The file of every region and split, as `upload` writes it."""
    folder = tmp_path_factory.mktemp("regions")
    paths = {}
    for split in SPLITS:
        whole_path = release / f"{NAME}_{split}.nc"
        for region, neuroids in find_regions(whole_path).items():
            path = paths[split, region] = folder / f"assy_{NAME}_{region}_{split}.nc"
            write_region(whole_path, neuroids, path, f"{NAME}.{region}.{split}", f"{NAME}.{split}")
    return paths


@pytest.fixture
def entries(published) -> dict[str, dict]:
    """The entries of eight subjects in an artifacts file that lists no regions."""
    listed = json.loads(published.read_text())
    return {f"{NAME}.{split}": listed[f"{NAME}.{split}"] for split in SPLITS}


@pytest.fixture
def whole(s3, entries, tmp_path) -> Path:
    """An artifacts file that lists no regions."""
    path = tmp_path / "whole.json"
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture
def regions(s3, entries, region_files, tmp_path) -> Path:
    """An artifacts file that lists every region, too."""
    for (split, region), file_path in region_files.items():
        content, key = file_path.read_bytes(), f"regions/{file_path.name}"
        stored = {"bucket": "brain", "key": key, "sha1": hashlib.sha1(content).hexdigest(), "size": len(content)}
        stored["version_id"] = s3.put_object(Bucket="brain", Key=key, Body=content)["VersionId"]
        entries[f"{NAME}.{region}.{split}"] = {"assembly": stored}
    path = tmp_path / "regions.json"
    path.write_text(json.dumps(entries))
    return path


@pytest.fixture
def relay(s3, moto_port, monkeypatch) -> Iterator[CountingRelay]:
    """The way to the S3 server, which counts bytes."""
    relay = CountingRelay(moto_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{relay.port}")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    yield relay
    relay.close()


def use_empty_cache(monkeypatch, path: Path) -> Path:
    monkeypatch.setenv("BRAINIO_HOME", str(path))
    return path


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("split", SPLITS)
def test_region_object_equals_part_of_whole(regions, whole, assert_same_assembly, monkeypatch, tmp_path, split, region):
    from_region = load_assembly(NAME, split, region=region, source=regions)
    use_empty_cache(monkeypatch, tmp_path / "another_cache")
    from_whole = load_assembly(NAME, split, region=region, source=whole)

    assert_same_assembly(from_region, from_whole)
    plain_attributes = [assembly.attrs | {"stimulus_set": None} for assembly in (from_region, from_whole)]
    assert plain_attributes[0] == plain_attributes[1]
    assert from_region.name == from_whole.name
    assert [level.dtype for level in from_region.indexes["neuroid"].levels] == [
        level.dtype for level in from_whole.indexes["neuroid"].levels
    ]


def test_region_moves_only_the_bytes_of_its_object_and_stimuli(regions, relay, entries):
    load_assembly(NAME, "test", region="V4", source=regions)

    kinds = [*entries[f"{NAME}.V4.test"].values(), *list(entries[f"{NAME}.test"].values())[1:]]
    expected = sum(stored["size"] for stored in kinds)
    headers = 2_000 * len(kinds)  # of the answers to a HEAD and a GET of each object
    assert expected < relay.n_bytes < expected + headers
    assert expected + headers < entries[f"{NAME}.test"]["assembly"]["size"]


def test_region_without_object_moves_the_whole(whole, relay, entries):
    load_assembly(NAME, "test", region="V4", source=whole)

    assert relay.n_bytes > sum(stored["size"] for stored in entries[f"{NAME}.test"].values())


def test_cached_region_is_not_downloaded_again(regions, downloads):
    load_assembly(NAME, "test", region="V4", source=regions)
    assert [Path(key).name for key in downloads][2:] == [f"assy_{NAME}_V4_test.nc"]
    downloads.clear()

    load_assembly(NAME, "test", region="V4", source=regions)

    assert downloads == []


def test_region_is_read_from_whole_that_is_in_the_cache(
    regions, downloads, assert_same_assembly, monkeypatch, tmp_path
):
    load_assembly(NAME, "test", source=regions)
    downloads.clear()

    from_whole = load_assembly(NAME, "test", region="V4", source=regions)

    assert downloads == []
    use_empty_cache(monkeypatch, tmp_path / "another_cache")
    assert_same_assembly(load_assembly(NAME, "test", region="V4", source=regions), from_whole)


def test_region_is_downloaded_when_whole_in_the_cache_is_damaged(regions, cache_path, downloads):
    load_assembly(NAME, "test", source=regions)
    stored = read_artifacts(regions)[f"{NAME}.test"].assembly
    os.truncate(cache_path / stored.sha1 / Path(stored.key).name, 1000)
    downloads.clear()

    load_assembly(NAME, "test", region="V4", source=regions)

    assert [Path(key).name for key in downloads] == [f"assy_{NAME}_V4_test.nc"]


def test_damaged_region_in_the_cache_is_downloaded_again(regions, cache_path, downloads, assert_same_assembly):
    before = load_assembly(NAME, "test", region="V4", source=regions)
    stored = read_artifacts(regions)[f"{NAME}.test"].region_assemblies["V4"]
    path = cache_path / stored.sha1 / f"assy_{NAME}_V4_test.nc"
    os.truncate(path, 1000)
    downloads.clear()

    assert_same_assembly(load_assembly(NAME, "test", region="V4", source=regions), before)

    assert [Path(key).name for key in downloads] == [path.name]


def test_region_object_that_lacks_the_region_is_refused(regions, entries, tmp_path):
    entries[f"{NAME}.V4.test"] = entries[f"{NAME}.IT.test"]
    (tmp_path / "wrong.json").write_text(json.dumps(entries))

    with pytest.raises(ValueError, match="no neuroid of region V4, only of IT. Choose one of these"):
        load_assembly(NAME, "test", region="V4", source=tmp_path / "wrong.json")
