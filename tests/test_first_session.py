"""The script of the workflow that reads NSD's bucket, on a simulated tree in a local bucket."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from allen2022_surface_packaging.publish.upload import publish_release
from support import create_versioned_bucket, upload_public

SCRIPT_PATH = Path(__file__).resolve().parents[1] / ".github" / "compare_first_session.py"
BETAS = "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR"
READ = (
    "nsddata/experiments/nsd/nsd_expdesign.mat",
    "nsddata/freesurfer/fsaverage/label/*",
    f"{BETAS}/?h.betas_session01.mgh",
)


@pytest.fixture
def s3(empty_s3, nsd_tree):
    """A client of a server with the bucket of NSD, which anybody can read."""
    empty_s3.create_bucket(Bucket="nsd", ACL="public-read")
    for pattern in READ:
        upload_public(empty_s3, "nsd", nsd_tree, pattern)
    return empty_s3


@pytest.fixture
def artifacts_path(s3, release, tmp_path):
    """The artifacts file of the published release."""
    create_versioned_bucket(s3, "brain")
    path = tmp_path / "artifacts.json"
    publish_release(release, "brain/here", artifacts_path=path, allow_simulated=True)
    return path


def compare(artifacts_path, *, without=()):
    environment = {name: value for name, value in os.environ.items() if name not in without}
    environment["BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS"] = str(artifacts_path)
    command = [sys.executable, "-W", "ignore", SCRIPT_PATH, "s3://nsd"]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_first_session_agrees_with_the_published_release_with_credentials(artifacts_path):
    for without, last_words in (
        (("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "not compared: "),
        ((), "vertices agree: "),
    ):
        run = compare(artifacts_path, without=without)

        assert run.returncode == 0, run.stderr
        assert "s3://nsd: 300 trials, " in run.stdout and last_words in run.stdout


def test_published_data_of_another_session_is_reported(s3, nsd_tree, artifacts_path):
    s3.upload_file(str(nsd_tree / BETAS / "lh.betas_session02.mgh"), "nsd", f"{BETAS}/lh.betas_session01.mgh")

    run = compare(artifacts_path)

    assert run.returncode == 1
    last_line = run.stderr.splitlines()[-1]  # after the bars of downloads
    assert re.match("compare_first_session: (published values differ by|a published response is not 0)", last_line)
