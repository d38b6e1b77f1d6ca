"""A small release, an S3 server behind a proxy, a file to record objects in, and checkouts of brain-score/vision."""

import http.client
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.plugin import plugin_path
from allen2022_surface_packaging.publish.export import export_plugin
from allen2022_surface_packaging.recipe import make_recipe
from libraries import copy_library
from publish.proxy import Proxy
from publish.uploads import ACCESS_KEY, PREFIX, SECRET_KEY, build_small_release
from support import run_cli


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    """A release smaller than that of other tests, because it is uploaded more than a hundred times."""
    return build_small_release(tmp_path_factory.mktemp("small"))


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
def s3(proxy, moto_port, direct_client, monkeypatch):
    """The direct client, and a new versioned bucket `brain`. All other clients use the proxy."""
    proxy.clear()
    for name, value in {
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_ENDPOINT_URL": proxy.url,
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    connection = http.client.HTTPConnection("127.0.0.1", moto_port)
    connection.request("POST", "/moto-api/reset")
    connection.getresponse().read()
    direct_client.create_bucket(Bucket="brain")
    direct_client.put_bucket_versioning(Bucket="brain", VersioningConfiguration={"Status": "Enabled"})
    return direct_client


@pytest.fixture
def artifacts_path(tmp_path):
    return Path(shutil.copy(plugin_path() / "artifacts.json", tmp_path / "artifacts.json"))


@pytest.fixture
def upload(release, s3, artifacts_path, monkeypatch):
    """Run the command `upload`, and return its output, or its one error line."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")

    def run(*options, bucket=f"brain/{PREFIX}", status=1):
        result = run_cli("upload", release, "--bucket", bucket, "--artifacts", artifacts_path, *options)
        assert result.returncode == status, result.stderr
        assert "Traceback" not in result.stderr
        assert ACCESS_KEY not in result.stderr + result.stdout
        assert SECRET_KEY not in result.stderr + result.stdout
        start = "allen2022-surface upload: error: " if status == 2 else "allen2022-surface: "
        lines = [line for line in result.stderr.splitlines() if line.startswith(start)]
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


UPLOADS = """
import json, os, signal, sys
from pathlib import Path
from allen2022_surface_packaging.publish.upload import publish_release

for line in sys.stdin:
    release, destination, artifacts, fatal = json.loads(line)
    child = os.fork()
    if not child:
        def watch(event, arguments):
            if fatal and event == fatal and any(str(value).endswith(".partial") for value in arguments):
                os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(watch)
        publish_release(Path(release), destination, artifacts_path=Path(artifacts))
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Uploader:
    """A process that uploads in child processes, so that each can be killed and none has to start Python."""

    def __init__(self, release, proxy):
        self.release, self.proxy = release, proxy
        self.process = subprocess.Popen(
            [sys.executable, "-c", UPLOADS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ
        )

    def run(self, prefix, artifacts_path, fatal=None, on_pid=lambda pid: None):
        """Upload the release, and return the status of the child; it kills itself at the audit event `fatal`."""
        arguments = [str(self.release), f"brain/{prefix}", str(artifacts_path), fatal]
        self.process.stdin.write(json.dumps(arguments) + "\n")
        self.process.stdin.flush()
        on_pid(int(self.process.stdout.readline()))
        status = int(self.process.stdout.readline())
        self.proxy.wait()  # a request may still arrive after its sender died
        return status


@pytest.fixture
def uploader(release, s3, proxy):
    uploader = Uploader(release, proxy)
    yield uploader
    uploader.process.stdin.close()
    uploader.process.wait(10)
