"""A small release, an S3 server behind a proxy, a file to record objects in, and checkouts of brain-score/vision."""

import shutil
from pathlib import Path

import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.plugin import plugin_path
from publish.proxy import Proxy
from publish.uploads import PREFIX, RECIPE
from support import create_versioned_bucket, run_cli


@pytest.fixture(scope="session")
def release(tmp_path_factory):
    """A release smaller than that of other tests, because it is uploaded many times. It has no mark of simulation."""
    folder = tmp_path_factory.mktemp("small")
    simulate_tree(folder / "nsd", TreeSize(subjects=RECIPE.subjects, n_trials=60, n_vertices=160, image_size=24))
    (folder / "nsd" / "SIMULATED.txt").unlink()
    build_release(folder / "nsd", folder / "release", RECIPE)
    return folder / "release"


@pytest.fixture
def release_copy(release, tmp_path):
    """A copy of the small release that a test may change."""
    return Path(shutil.copytree(release, tmp_path / "release"))


@pytest.fixture(scope="module")
def proxy(moto_port):
    proxy = Proxy(moto_port)
    yield proxy
    proxy.close()


@pytest.fixture
def s3(proxy, empty_s3, direct_client, monkeypatch):
    """The direct client, and a new versioned bucket `brain`. All other clients use the proxy."""
    proxy.clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    create_versioned_bucket(direct_client, "brain")
    return direct_client


@pytest.fixture
def artifacts_path(tmp_path):
    return Path(shutil.copy(plugin_path() / "artifacts.json", tmp_path / "artifacts.json"))


@pytest.fixture
def upload(release, s3, artifacts_path):
    """Run the command `upload`, and return its output, or its one error line."""

    def run(*options, bucket=f"brain/{PREFIX}", path=release, artifacts=artifacts_path, status=1):
        result = run_cli("upload", path, "--bucket", bucket, "--artifacts", artifacts, *options)
        assert result.returncode == status, result.stderr
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("allen2022-surface")]
        assert len(lines) == (status > 0)
        return lines[0] if lines else result.stdout

    return run
