"""The script of the workflow that reads NSD's bucket, on a simulated tree in a local bucket."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from allen2022_surface_packaging.publish.upload import publish_release
from support import create_versioned_bucket

SCRIPT_PATH = Path(__file__).resolve().parents[1] / ".github" / "compare_first_session.py"
BETAS = "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR"
READ = (
    "nsddata/experiments/nsd/nsd_expdesign.mat",
    "nsddata/freesurfer/fsaverage/label/*",
    f"{BETAS}/?h.betas_session01.mgh",
)


@pytest.fixture
def bucket(empty_s3, nsd_tree):
    """The bucket of NSD, which anybody can read."""
    empty_s3.create_bucket(Bucket="nsd", ACL="public-read")
    for pattern in READ:
        for path in nsd_tree.glob(pattern):
            key = path.relative_to(nsd_tree).as_posix()
            empty_s3.upload_file(str(path), "nsd", key, ExtraArgs={"ACL": "public-read"})
    return empty_s3


@pytest.fixture
def artifacts_path(empty_s3, release, tmp_path):
    """The artifacts file of the published release."""
    create_versioned_bucket(empty_s3, "brain")
    path = tmp_path / "artifacts.json"
    publish_release(release, "brain/here", artifacts_path=path, allow_simulated=True)
    return path


def compare(artifacts_path, *, without=()):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(without or "\0")}
    return subprocess.run(
        [sys.executable, "-W", "ignore", SCRIPT_PATH, "s3://nsd"],
        env=environment | {"BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS": str(artifacts_path)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_first_session_agrees_with_the_published_release(bucket, artifacts_path):
    run = compare(artifacts_path)

    assert run.returncode == 0, run.stderr
    assert "s3://nsd: 300 trials, " in run.stdout
    assert "vertices agree: the largest difference is" in run.stdout


def test_published_data_of_another_session_is_reported(bucket, nsd_tree, artifacts_path):
    bucket.upload_file(str(nsd_tree / BETAS / "lh.betas_session02.mgh"), "nsd", f"{BETAS}/lh.betas_session01.mgh")

    run = compare(artifacts_path)

    assert run.returncode == 1
    last_line = run.stderr.splitlines()[-1]  # after the bars of downloads
    assert re.match("compare_first_session: (published values differ by|a published response is not 0)", last_line)


def test_session_is_read_but_not_compared_without_credentials(bucket, artifacts_path):
    run = compare(artifacts_path, without=("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))

    assert run.returncode == 0, run.stderr
    assert "s3://nsd: 300 trials, " in run.stdout
    assert "not compared: " in run.stdout
