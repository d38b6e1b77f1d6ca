"""Every test works on a synthetic NSD tree, written with NSD's literal file names::

    nsd/                                                                   the official layout
        nsddata/experiments/nsd/nsd_expdesign.mat                          masterordering, subjectim, sharedix
        nsddata/experiments/nsd/nsd_stim_info_merged.csv                   nsdId, cocoId
        nsddata/freesurfer/fsaverage/label/lh.Kastner2015.mgz              V1v V1d V2v V2d ... hV4
        nsddata/freesurfer/fsaverage/label/lh.streams.mgz                  ... ventral ...
        nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/
            lh.betas_session01.mgh  rh.betas_session01.mgh  ...            (642, 1, 1, 300) big-endian float32
            lh.ncsnr.mgh            rh.ncsnr.mgh
        nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5                       imgBrick

Subjects 1, 2, 5 and 7 have four sessions, the others three, as 40 and 30 in NSD. In every hemisphere a vertex is always
NaN, one in every other session, one in a single trial of session 1, and one is constant.
"""

import logging
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from moto.server import ThreadedMotoServer

from allen2022_surface_packaging.build.pipeline import build_release
from allen2022_surface_packaging.nsd.files import SUBJECTS
from allen2022_surface_packaging.nsd.simulation import Recipe, simulate_tree

SMALL = Recipe()


@pytest.fixture(scope="session")
def nsd_tree(tmp_path_factory) -> Path:
    """A small synthetic NSD tree of eight subjects, to be read only."""
    root = tmp_path_factory.mktemp("raw") / "nsd"
    simulate_tree(root, SMALL)
    return root


@pytest.fixture(scope="session")
def release(nsd_tree, tmp_path_factory) -> Path:
    """The release of all eight subjects of the small tree, to be read only."""
    path = tmp_path_factory.mktemp("releases") / "eight"
    build_release(nsd_tree, path, subjects=SUBJECTS)
    return path


@pytest.fixture(scope="session")
def four_subject_release(nsd_tree, tmp_path_factory) -> Path:
    """The release of subjects 1, 2, 5 and 7 of the small tree, to be read only."""
    path = tmp_path_factory.mktemp("releases") / "four"
    build_release(nsd_tree, path, subjects=(1, 2, 5, 7))
    return path


@pytest.fixture
def own_tree(nsd_tree, tmp_path) -> Path:
    """A copy of the small tree that a test may break."""
    return Path(shutil.copytree(nsd_tree, tmp_path / "nsd"))


@pytest.fixture
def own_release(release, tmp_path) -> Path:
    """A copy of the release that a test may break."""
    return Path(shutil.copytree(release, tmp_path / "release"))


@pytest.fixture(scope="module")
def moto_port():
    """The port of an S3 server of moto's on this machine, empty at first."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch, tmp_path_factory):
    """Keep credentials, HOME, caches and the network (other than this machine's own) away from every test."""
    home = tmp_path_factory.mktemp("home")
    for name in [name for name in os.environ if name.startswith(("AWS_", "BRAINIO", "BRAINSCORE", "RESULTCACHING"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("BRAINIO_HOME", str(home / ".brainio"))
    monkeypatch.setenv("RESULTCACHING_HOME", str(home / ".result_caching"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("BS_INSTALL_DEPENDENCIES", "no")
    connect = socket.socket.connect

    def connect_here_only(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test tried to reach {address[0]}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here_only)
