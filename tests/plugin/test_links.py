"""`link` and `unlink` against a stand-in for an installed brainscore_vision, so that the real one stays as it is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import brainscore_allen2022_surface as plugin

OWN = Path(plugin.__path__[0]).resolve()


@pytest.fixture
def brainscore(tmp_path) -> Path:
    (tmp_path / "site" / "brainscore_vision" / "data" / "other").mkdir(parents=True)
    (tmp_path / "site" / "brainscore_vision" / "__init__.py").write_text("data_registry = stimulus_set_registry = {}")
    return tmp_path / "site"


def run(site: Path, command: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(site)}
    arguments = [sys.executable, "-m", "brainscore_allen2022_surface", command]
    return subprocess.run(arguments, capture_output=True, text=True, env=environment)


def test_link_and_unlink_leave_nothing_behind(brainscore):
    data = brainscore / "brainscore_vision" / "data"

    assert "links to" in run(brainscore, "link").stdout
    assert (data / "allen2022_surface").resolve() == OWN
    assert "linked already" in run(brainscore, "link").stdout
    assert "is removed" in run(brainscore, "unlink").stdout
    assert [path.name for path in data.iterdir()] == ["other"]
    result = run(brainscore, "unlink")
    assert result.returncode == 0
    assert "is not there" in result.stdout


def test_a_copy_is_made_where_links_are_not_allowed(brainscore, monkeypatch):
    from brainscore_allen2022_surface import links

    def refuse(*arguments, **options):
        raise OSError("links are not allowed here")

    place = brainscore / "brainscore_vision" / "data" / "allen2022_surface"
    monkeypatch.setattr(links, "_place", lambda: place)
    monkeypatch.setattr(Path, "symlink_to", refuse)

    assert "is a copy of" in links.link()
    assert (place / "__init__.py").read_bytes() == (OWN / "__init__.py").read_bytes()
    assert links.is_linked()
    assert "is a copy of" in links.link()
    assert "is removed" in links.unlink()
    assert not place.exists()


@pytest.mark.parametrize("command", ["link", "unlink"])
def test_what_somebody_else_put_there_stays(brainscore, command):
    place = brainscore / "brainscore_vision" / "data" / "allen2022_surface"
    place.mkdir()
    (place / "__init__.py").write_text("somebody else's")
    result = run(brainscore, command)

    assert result.returncode == 1
    assert "is not this plugin" in result.stderr
    assert (place / "__init__.py").read_text() == "somebody else's"


def test_a_link_whose_target_is_gone_is_replaced_and_removed(brainscore, tmp_path):
    place = brainscore / "brainscore_vision" / "data" / "allen2022_surface"
    place.symlink_to(tmp_path / "gone")

    assert run(brainscore, "link").returncode == 0
    assert place.resolve() == OWN
    place.unlink()
    place.symlink_to(tmp_path / "gone")
    assert run(brainscore, "unlink").returncode == 0
    assert not place.is_symlink()


def test_a_link_to_another_copy_of_the_plugin_is_replaced_and_removed(brainscore, tmp_path):
    other = shutil.copytree(OWN, tmp_path / "other_checkout")
    place = brainscore / "brainscore_vision" / "data" / "allen2022_surface"
    place.symlink_to(other)

    assert run(brainscore, "link").returncode == 0
    assert place.resolve() == OWN
    place.unlink()
    place.symlink_to(other)
    assert run(brainscore, "unlink").returncode == 0
    assert not place.is_symlink()
    assert (other / "__init__.py").is_file()


def test_without_brainscore_vision_the_error_says_what_to_install(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['brainscore_vision'] = None")
    result = run(tmp_path, "link")

    assert result.returncode == 1
    assert "brainscore_vision is not installed here" in result.stderr
    assert "Traceback" not in result.stderr
