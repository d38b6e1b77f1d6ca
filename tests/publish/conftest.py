"""A small release, an S3 server behind a proxy, a file to record objects in, and checkouts of brain-score/vision."""

import json
import shutil
from pathlib import Path

import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.plugin import plugin_path
from allen2022_surface_packaging.publish.export import export_plugin
from allen2022_surface_packaging.recipe import make_recipe
from libraries import copy_library
from publish.proxy import Proxy
from publish.uploads import PREFIX, RECIPE
from support import run_cli


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
    proxy.server.shutdown()


@pytest.fixture
def s3(proxy, empty_s3, direct_client, monkeypatch):
    """The direct client, and a new versioned bucket `brain`. All other clients use the proxy."""
    proxy.clear()
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    direct_client.create_bucket(Bucket="brain")
    direct_client.put_bucket_versioning(Bucket="brain", VersioningConfiguration={"Status": "Enabled"})
    return direct_client


@pytest.fixture
def artifacts_path(tmp_path):
    return Path(shutil.copy(plugin_path() / "artifacts.json", tmp_path / "artifacts.json"))


@pytest.fixture
def upload(release, s3, artifacts_path):
    """Run the command `upload`, and return its output, or its one error line."""

    def run(*options, bucket=f"brain/{PREFIX}", path=release, status=1):
        result = run_cli("upload", path, "--bucket", bucket, "--artifacts", artifacts_path, *options)
        assert result.returncode == status, result.stderr
        assert "Traceback" not in result.stderr
        lines = [line for line in result.stderr.splitlines() if line.startswith("allen2022-surface")]
        assert len(lines) == (status > 0)
        return lines[0] if lines else result.stdout

    return run


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A copy of the installed library without the plugin."""
    return copy_library(tmp_path_factory.mktemp("vision") / "my vision").parent


@pytest.fixture
def another_checkout(checkout, tmp_path):
    """A checkout of its own for a test that exports other objects."""
    copy = tmp_path / "another"
    shutil.copytree(checkout, copy, symlinks=True, ignore=shutil.ignore_patterns("allen2022_surface"))
    return copy


@pytest.fixture(scope="session")
def eight_subject_release(nsd_tree, tmp_path_factory):
    """The release of the same tree as `four_subject_release`."""
    path = tmp_path_factory.mktemp("exported") / "eight"
    build_release(nsd_tree, path, make_recipe())
    return path


@pytest.fixture(scope="session")
def exported(checkout):
    """The checkout with the plugin in it, and what the command printed."""
    return checkout, export_plugin(checkout)


@pytest.fixture
def small_checkout(tmp_path):
    """The smallest folder that counts as a checkout."""
    data_path = tmp_path / "vision" / "brainscore_vision" / "data"
    (data_path / "other").mkdir(parents=True)
    (data_path.parent / "__init__.py").write_text("data_registry = {}\nstimulus_set_registry = {}\n")
    (data_path / "other" / "__init__.py").write_text("data_registry['Other2000'] = lambda: None\n")
    return tmp_path / "vision"


@pytest.fixture
def measured_copy(eight_subject_release, tmp_path):
    """A copy of the release of eight subjects without the mark of simulation."""
    copy = Path(shutil.copytree(eight_subject_release, tmp_path / "measured"))
    manifest = json.loads((copy / "release.json").read_text())
    (copy / "release.json").write_text(json.dumps(manifest | {"simulated": False}))
    return copy
