"""Regions with S3 objects of their own: only the region is downloaded, and it equals the part of the whole."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from allen2022_surface_packaging.assemble.assembly import create_assembly
from allen2022_surface_packaging.publish.objects import find_regions, write_region
from allen2022_surface_packaging.release import list_presentations
from brainscore_allen2022_surface.loaders import load_assembly, load_stimulus_set, read_artifacts

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


def list_neuroids():
    """List the neuroids of NSD at full size (README.md), with texts of the usual widths."""
    parts = []
    for region, n_vertices in {"V1": 4276, "V2": 3391, "V4": 914, "IT": 19065}.items():
        for subject in range(1, 9):
            numbers = np.arange(n_vertices)
            hemispheres = np.where(numbers < n_vertices // 2, "lh", "rh")
            ids = [f"subj{subject:02d}_{h}_{region}_v{n:05d}" for h, n in zip(hemispheres, numbers, strict=True)]
            columns = {"subject": f"subj{subject:02d}", "hemisphere": hemispheres, "vertex_index": numbers}
            parts.append(pd.DataFrame({"neuroid_id": ids, **columns, "region": region, "nc_testset": 50.0}))
    return pd.concat(parts, ignore_index=True)


def test_v4_of_nsd_moves_less_than_5_percent_of_the_whole(s3, proxy, published, tmp_path):
    """At the shapes of NSD. The values are empty; the bytes are those of files."""
    whole, part = tmp_path / f"assy_{NAME}_test.nc", tmp_path / f"assy_{NAME}_V4_test.nc"
    nsd_ids = load_stimulus_set(NAME, "test", source=published)["nsd_id"].to_numpy()
    presentations = list_presentations("test", np.resize(nsd_ids, 103))
    neuroids = list_neuroids()
    with create_assembly(whole, identifier=f"{NAME}.test", presentations=presentations, neuroids=neuroids):
        pass
    write_region(whole, find_regions(whole)["V4"], part, f"{NAME}.V4.test")
    content, key = part.read_bytes(), f"full/{part.name}"
    version_id = s3.put_object(Bucket="brain", Key=key, Body=content)["VersionId"]
    entries = json.loads(published.read_text())
    stored = {"bucket": "brain", "key": key, "version_id": version_id, "sha1": hashlib.sha1(content).hexdigest()}
    entries[f"{NAME}.V4.test"] = {"assembly": stored}
    (tmp_path / "artifacts.json").write_text(json.dumps(entries))
    proxy.clear()

    assembly = load_assembly(NAME, "test", region="V4", source=tmp_path / "artifacts.json")

    assert assembly.shape == (309, 7312, 1)
    n_moved = sum(request.n_answered_bytes for request in proxy.requests)
    assert len(content) <= n_moved < 0.05 * whole.stat().st_size
