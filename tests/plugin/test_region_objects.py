"""Regions with S3 objects of their own: only the region is downloaded, and it equals the part of the whole."""

import json
from pathlib import Path

import pytest

from brainscore_allen2022_surface.loaders import load_assembly, read_artifacts

NAME = "Allen2022_fmri_surface"


def test_region_moves_only_its_object_and_the_stimuli(proxy, published, objects):
    load_assembly(NAME, "test", region="V4", source=published)

    region = read_artifacts(published)[f"{NAME}.V4.test"]["assembly"]
    expected = {Path(stored.key).name for stored in (region, objects["stimulus_csv"], objects["stimulus_zip"])}
    assert {request.name for request in proxy.requests} == expected


def test_region_object_that_lacks_the_region_is_refused(s3, published, tmp_path):
    entries = json.loads(published.read_text())
    entries[f"{NAME}.V4.test"] = entries[f"{NAME}.IT.test"]
    (tmp_path / "wrong.json").write_text(json.dumps(entries))

    with pytest.raises(ValueError, match="no neuroid of region V4, only of IT"):
        load_assembly(NAME, "test", region="V4", source=tmp_path / "wrong.json")
