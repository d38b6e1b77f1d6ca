"""The folder that a pull request holds: its own tests, and the script that makes the data again."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import xarray as xr

import brainscore_allen2022_surface as plugin
from libraries import copy_library

PLUGIN_PATH = Path(plugin.__path__[0])
NAME = "Allen2022_fmri_surface"


@pytest.fixture
def run_plugin_tests(tmp_path):
    """A function that runs `test.py` of the plugin inside a brainscore_vision, with an artifacts file."""

    def run(artifacts_path: Path, *options: str) -> str:
        folder = copy_library(tmp_path) / "data" / "allen2022_surface"
        shutil.copytree(PLUGIN_PATH, folder, ignore=shutil.ignore_patterns("analysis", "__pycache__"))
        shutil.copy(artifacts_path, folder / "artifacts.json")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(folder / "test.py")]
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        environment.pop("BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS", None)  # it shall find the file in its folder
        result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout.splitlines()[-1]

    return run


def test_tests_of_the_plugin_pass_with_the_objects_that_ship(run_plugin_tests):
    assert "6 passed" in run_plugin_tests(PLUGIN_PATH / "artifacts.json", "-m", "not private_access")


def test_tests_of_the_plugin_follow_the_objects_of_a_small_release(s3, published, run_plugin_tests):
    assert "34 passed" in run_plugin_tests(published)


def test_rebuild_compares_the_values_of_objects_with_other_bytes(s3, release, nsd_tree, published, tmp_path):
    """As those of Brain-Score's maintainers, which another program wrote. The other SHA-1 are as published."""
    compressed_path = tmp_path / "compressed.nc"
    xr.open_dataarray(release / f"{NAME}_test.nc").to_netcdf(compressed_path, encoding={"data": {"zlib": True}})
    content = compressed_path.read_bytes()
    stored = {"bucket": "brain", "key": "other/compressed.nc", "sha1": hashlib.sha1(content).hexdigest()}
    stored["version_id"] = s3.put_object(Bucket="brain", Key=stored["key"], Body=content)["VersionId"]
    entries = json.loads(published.read_text())
    entries[f"{NAME}.test"]["assembly"] = stored
    (tmp_path / "other.json").write_text(json.dumps(entries))
    script = PLUGIN_PATH / "data_packaging" / "rebuild.py"
    command = [sys.executable, script, nsd_tree, tmp_path / "rebuilt", "--artifacts", tmp_path / "other.json"]

    result = subprocess.run(command, capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    lines = [line for line in result.stdout.splitlines() if ": SHA-1 " in line]
    identifiers = [f"{name}.{split}" for name in (NAME, f"{NAME}_4subj") for split in ("train", "test")]
    assert [line.partition(":")[0] for line in lines] == identifiers
    assert [line.endswith("as published") for line in lines] == [True, False, True, True]
    assert lines[1].endswith(f"but published is {stored['sha1']}")
