"""How much less a region object moves than the whole, at the shapes of NSD. The values are empty; the bytes are those of files."""

import time
import urllib.request

import boto3
import numpy as np
import pandas as pd
import pytest

from allen2022_surface_packaging.assemble.assembly import create_assembly, encode_columns
from allen2022_surface_packaging.publish.objects import find_regions, write_region
from allen2022_surface_packaging.release import list_presentations
from brainscore_allen2022_surface.artifacts import StoredObject
from brainscore_allen2022_surface.cache import fetch
from brainscore_allen2022_surface.files import sha1_of
from plugin.conftest import use_server
from plugin.relay import CountingRelay

NAME = "Allen2022_fmri_surface"
# NSD at full size: README.md
N_TEST_IMAGES, N_SUBJECTS = 103, 8
N_NEUROIDS = {"V1": 4276, "V2": 3391, "V4": 914, "IT": 19065}  # of a subject
BYTES_PER_SECOND = 50e6


def list_neuroids():
    """List the neuroids of NSD, with texts of the usual widths."""
    parts = []
    for region, n_vertices in N_NEUROIDS.items():
        for subject in range(1, N_SUBJECTS + 1):
            numbers = np.arange(n_vertices)
            hemispheres = np.where(numbers < n_vertices // 2, "lh", "rh")
            parts.append(
                pd.DataFrame(
                    {
                        "neuroid_id": [
                            f"subj{subject:02d}_{h}_{region}_v{n:05d}"
                            for h, n in zip(hemispheres, numbers, strict=True)
                        ],
                        "subject": f"subj{subject:02d}",
                        "hemisphere": hemispheres,
                        "vertex_index": numbers,
                        "region": region,
                        "nc_testset": 50.0,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The assembly of the test split at the size of NSD, and its region V4 as `upload` writes it."""
    folder = tmp_path_factory.mktemp("full")
    whole, part = folder / f"assy_{NAME}_test.nc", folder / f"assy_{NAME}_V4_test.nc"
    presentations = list_presentations("test", np.arange(N_TEST_IMAGES))
    with create_assembly(
        whole, identifier=f"{NAME}.test", presentations=presentations, neuroids=encode_columns(list_neuroids())
    ):
        pass
    write_region(whole, find_regions(whole)["V4"], part, f"{NAME}.V4.test", f"{NAME}.test")
    yield whole, part
    for path in (whole, part):
        path.unlink()


@pytest.mark.slow
def test_v4_of_nsd_moves_less_than_5_percent_of_the_whole(files):
    whole, part = (path.stat().st_size for path in files)

    assert whole > 309 * 221_168 * 4
    assert part < 0.05 * whole
    assert part > 309 * 7312 * 4


def test_v4_of_nsd_takes_less_than_a_fifth_of_the_time_at_50_mb_per_second(files, moto_port, monkeypatch, tmp_path):
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{moto_port}/moto-api/reset", method="POST"))
    use_server(monkeypatch, moto_port)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    client = boto3.client("s3")
    client.create_bucket(Bucket="full")
    client.put_bucket_versioning(Bucket="full", VersioningConfiguration={"Status": "Enabled"})
    objects = []
    for path in files:
        with path.open("rb") as body:
            version_id = client.put_object(Bucket="full", Key=path.name, Body=body)["VersionId"]
        objects.append(StoredObject("full", path.name, version_id, sha1_of(path), path.stat().st_size))
    relay = CountingRelay(moto_port, bytes_per_second=BYTES_PER_SECOND)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{relay.port}")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)

    seconds, n_bytes = [], []
    for stored in objects:
        before, start = relay.n_bytes, time.monotonic()
        fetch(stored)
        seconds.append(time.monotonic() - start)
        n_bytes.append(relay.n_bytes - before)
    relay.close()
    client.delete_object(Bucket="full", Key=files[0].name, VersionId=objects[0].version_id)

    print(f"whole {n_bytes[0]:,} bytes in {seconds[0]:.2f} s, V4 {n_bytes[1]:,} bytes in {seconds[1]:.2f} s")
    assert n_bytes[1] < 0.05 * n_bytes[0]
    assert seconds[0] > n_bytes[0] / BYTES_PER_SECOND * 0.9  # the relay is as slow as it should be
    assert seconds[1] < seconds[0] / 5
