"""Every test works on a synthetic NSD tree, with NSD's literal file names::

    nsd/                                                                   the official layout
        nsddata/experiments/nsd/nsd_expdesign.mat                          masterordering, subjectim, sharedix
        nsddata/experiments/nsd/nsd_stim_info_merged.csv                   nsdId, cocoId
        nsddata/freesurfer/fsaverage/label/lh.Kastner2015.mgz              V1v V1d V2v V2d ... hV4
        nsddata/freesurfer/fsaverage/label/lh.streams.mgz                  ... ventral ...
        nsddata/freesurfer/fsaverage/label/streams.mgz.ctab                0 Unknown, 1 early, ... 5 ventral ...
        nsddata/freesurfer/fsaverage/label/lh.HCP_MMP1.mgz, lh.nsdgeneral.mgz
        nsddata/freesurfer/subj01/label/lh.floc-faces.mgz                  OFA FFA-1 ..., on the surface of subject 1
        nsddata/freesurfer/subj01/label/floc-faces.mgz.ctab                1 OFA, 2 FFA-1 ...
        nsddata/ppdata/subj01/transforms/lh.white-to-fsaverage.mgz         which of its vertices each vertex of fsaverage copies
        nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/
            lh.betas_session01.mgh  rh.betas_session01.mgh  ...            (642, 1, 1, 300) big-endian float32
            lh.ncsnr.mgh            rh.ncsnr.mgh
        nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5                       imgBrick

Subjects 1, 2, 5 and 7 have four sessions, and the others have three, in proportion to 40 and 30 in NSD. Every hemisphere
has four broken vertices: one is NaN in all trials, one is NaN in every second session, one is NaN in a single trial of
session 1, and one is constant.
"""

import functools
import gc
import logging
import os
import shutil
import signal
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.loaders import JSONFileLoader
from hypothesis import settings
from moto.server import ThreadedMotoServer

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import make_recipe
from libraries import use_own_library
from support import is_there, leave_out, use_s3_server

use_own_library()  # before another conftest.py or a test imports brainscore_vision

# Property tests try the same examples in every run. HYPOTHESIS_PROFILE=thorough tries many others.
settings.register_profile("suite", derandomize=True, max_examples=60, deadline=None)
settings.register_profile("thorough", max_examples=3000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))


def pytest_configure(config: pytest.Config) -> None:
    config.add_cleanup(use_own_library().cleanup)
    config.addinivalue_line("markers", "needs(tool, ...): is skipped where one of these programs is not there")


def pytest_sessionstart() -> None:
    """Handle signals as in a terminal, also where `nohup` or a shell in the background let this process ignore them."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_finish() -> None:
    """Leave the libraries out of garbage collection, which took a tenth of the time of all tests."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for name in marker.args:
            if not is_there(name):
                leave_out(f"needs {name}")


@pytest.fixture(scope="session")
def nsd_tree(tmp_path_factory) -> Path:
    """A small synthetic NSD tree of eight subjects. Tests only read it."""
    root = tmp_path_factory.mktemp("raw") / "nsd"
    simulate_tree(root, TreeSize(betas=(DEFAULT_BETAS,)))
    return root


@pytest.fixture(scope="session")
def tiny_tree(tmp_path_factory) -> Path:
    """A tree of subjects 1 and 4 that takes a tenth of a second. Its cortex has more vertices than are computed at once."""
    root = tmp_path_factory.mktemp("tiny") / "nsd"
    simulate_tree(root, TreeSize(subjects=(1, 4), n_trials=42, n_vertices=1300, image_size=8, betas=(DEFAULT_BETAS,)))
    return root


@pytest.fixture(scope="session")
def release(nsd_tree, tmp_path_factory) -> Path:
    """The release of all eight subjects of the small tree. Tests only read it."""
    path = tmp_path_factory.mktemp("releases") / "eight"
    build_release(nsd_tree, path, make_recipe())
    return path


@pytest.fixture(scope="session")
def four_subject_release(nsd_tree, tmp_path_factory) -> Path:
    """The release of subjects 1, 2, 5 and 7 of the small tree. Tests only read it."""
    path = tmp_path_factory.mktemp("releases") / "four"
    build_release(nsd_tree, path, make_recipe((1, 2, 5, 7)))
    return path


@pytest.fixture
def releases_path(release, four_subject_release, tmp_path) -> Path:
    """A folder of both releases."""
    folder = tmp_path / "releases"
    folder.mkdir()
    (folder / "a").symlink_to(release)
    (folder / "b").symlink_to(four_subject_release)
    return folder


@pytest.fixture(scope="module")
def brainscore() -> Iterator[Any]:
    """brainscore_vision, with the plugin linked into it. It is a copy that only this process uses."""
    import brainscore_vision

    from allen2022_surface_packaging.link import link, unlink

    link()
    yield brainscore_vision
    unlink()


@pytest.fixture
def tree_copy(nsd_tree, tmp_path) -> Path:
    """A copy of the small tree that a test may change."""
    return Path(shutil.copytree(nsd_tree, tmp_path / "nsd"))


@pytest.fixture
def tiny_tree_copy(tiny_tree, tmp_path) -> Path:
    """A copy of the tree of subjects 1 and 4 that a test may change."""
    return Path(shutil.copytree(tiny_tree, tmp_path / "nsd"))


@pytest.fixture
def release_copy(release, tmp_path) -> Path:
    """A copy of the release of eight subjects that a test may change."""
    return Path(shutil.copytree(release, tmp_path / "release"))


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    """The port of the one S3 server (moto) of the test run.

    All modules share it, and a test may reset it. A fixture that fills it therefore has module scope at most.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # otherwise it logs a line per request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture(scope="session")
def direct_client(moto_port):
    """A client of the local S3 server, wherever boto3 is directed."""
    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{moto_port}",
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )


@pytest.fixture(scope="session", autouse=True)
def botocore_data() -> Iterator[None]:
    """Read botocore's descriptions of AWS once. Every session reads them again, megabytes of JSON, and tests open hundreds."""
    read = functools.cache(functools.partial(JSONFileLoader.load_file, JSONFileLoader()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JSONFileLoader, "load_file", lambda self, path: read(path))
        yield


@pytest.fixture
def empty_s3(moto_port, monkeypatch):
    """A client of the local S3 server, which is empty and to which boto3 is directed."""
    use_s3_server(monkeypatch, moto_port)
    urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{moto_port}/moto-api/reset", method="POST"))
    return boto3.client("s3")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def isolated_environment(monkeypatch, tmp_path_factory) -> None:
    """Hide credentials, HOME and caches of this machine from every test, and block connections to other machines."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith(("AWS_", "BRAINIO", "BRAINSCORE", "RESULTCACHING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("BRAINIO_HOME", str(home / ".brainio"))
    monkeypatch.setenv("RESULTCACHING_HOME", str(home / ".result_caching"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("BS_INSTALL_DEPENDENCIES", "no")
    connect = socket.socket.connect

    def connect_to_this_machine_only(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_to_this_machine_only)
