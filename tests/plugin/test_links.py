"""The commands `link` and `unlink`, on a stub of brainscore_vision, so that the installed package does not change."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import brainscore_allen2022_surface as plugin

PLUGIN_PATH = Path(plugin.__path__[0]).resolve()


@pytest.fixture
def site_path(tmp_path) -> Path:
    """A folder for PYTHONPATH that holds a stub of brainscore_vision, with one other data plugin."""
    (tmp_path / "site" / "brainscore_vision" / "data" / "other").mkdir(parents=True)
    (tmp_path / "site" / "brainscore_vision" / "__init__.py").write_text("data_registry = stimulus_set_registry = {}")
    return tmp_path / "site"


@pytest.fixture
def link_path(site_path) -> Path:
    """Where `link` puts the link."""
    return site_path / "brainscore_vision" / "data" / "allen2022_surface"


def run(site_path: Path, command: str, folder: Path | None = None) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(site_path)}
    arguments = [sys.executable, "-m", "brainscore_allen2022_surface", command]
    return subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=folder)


def test_link_and_unlink_leave_nothing_behind(site_path, link_path):
    assert "links to" in run(site_path, "link").stdout
    assert link_path.resolve() == PLUGIN_PATH
    assert "linked already" in run(site_path, "link").stdout
    assert "is removed" in run(site_path, "unlink").stdout
    assert [path.name for path in link_path.parent.iterdir()] == ["other"]
    result = run(site_path, "unlink")
    assert result.returncode == 0
    assert "does not exist" in result.stdout


@pytest.mark.parametrize("command", ["link", "unlink"])
def test_another_plugin_with_the_same_name_stays(site_path, link_path, command):
    link_path.mkdir()
    (link_path / "__init__.py").write_text("another plugin")
    result = run(site_path, command)

    assert result.returncode == 1
    assert "is not this plugin" in result.stderr
    assert (link_path / "__init__.py").read_text() == "another plugin"


def test_link_without_target_is_replaced_and_removed(site_path, link_path, tmp_path):
    link_path.symlink_to(tmp_path / "missing")

    assert run(site_path, "link").returncode == 0
    assert link_path.resolve() == PLUGIN_PATH
    link_path.unlink()
    link_path.symlink_to(tmp_path / "missing")
    assert run(site_path, "unlink").returncode == 0
    assert not link_path.is_symlink()


def test_link_to_another_copy_of_the_plugin_is_replaced_and_removed(site_path, link_path, tmp_path):
    copy_path = shutil.copytree(PLUGIN_PATH, tmp_path / "another_checkout")
    link_path.symlink_to(copy_path)

    assert run(site_path, "link").returncode == 0
    assert link_path.resolve() == PLUGIN_PATH
    link_path.unlink()
    link_path.symlink_to(copy_path)
    assert run(site_path, "unlink").returncode == 0
    assert not link_path.is_symlink()
    assert (copy_path / "__init__.py").is_file()


def test_error_without_brainscore_vision_says_what_to_install(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['brainscore_vision'] = None")
    result = run(tmp_path, "link")

    assert result.returncode == 1
    assert "brainscore_vision is not installed here" in result.stderr
    assert "Traceback" not in result.stderr


def test_link_in_a_checkout_warns_that_it_is_not_the_installed_copy(site_path, link_path, tmp_path):
    copy = tmp_path / "checkout" / PLUGIN_PATH.name
    shutil.copytree(PLUGIN_PATH, copy, ignore=shutil.ignore_patterns("__pycache__"))

    result = run(site_path, "link", copy.parent)

    assert result.returncode == 0
    assert result.stdout == f"{link_path} links to {copy}.\n"
    assert f"warning: {copy} is linked, which is not the installed copy, {PLUGIN_PATH}" in result.stderr
    assert "run this command in another folder: python -m brainscore_allen2022_surface link" in result.stderr


def test_link_elsewhere_links_the_installed_copy_without_a_warning(site_path, link_path, tmp_path):
    result = run(site_path, "link", tmp_path)

    assert result.stdout == f"{link_path} links to {PLUGIN_PATH}.\n"
    assert result.stderr == ""
