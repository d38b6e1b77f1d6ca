"""What may stand in the place of the link, and what `link`, `unlink` and the registrations make of it, in this process."""

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from brainscore_allen2022_surface import links

PLUGIN_PATH = links.PLUGIN_PATH


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """Where the link belongs, in a folder of data plugins."""
    monkeypatch.setattr(links, "data_path", lambda: tmp_path)
    return tmp_path / "allen2022_surface"


def refuse_links(monkeypatch, error=OSError):
    """Behave as a file system without links."""

    def refuse(*arguments, **options):
        raise error

    monkeypatch.setattr(Path, "symlink_to", refuse)


def test_link_is_made_once_and_removed_once(place):
    assert not links.is_linked()
    assert links.link() == f"{place} links to {PLUGIN_PATH}."
    assert place.is_symlink() and place.resolve() == PLUGIN_PATH
    assert links.is_linked()
    assert links.link() == f"{place} is linked already."
    assert links.unlink() == f"{place} is removed."
    assert not place.is_symlink()
    assert links.unlink() == f"{place} does not exist."


def test_link_without_a_target_is_replaced_and_removed(place):
    place.symlink_to("nowhere")
    assert links.is_linked()
    assert links.link() == f"{place} links to {PLUGIN_PATH}."

    place.unlink()
    place.symlink_to("nowhere")
    assert links.unlink() == f"{place} is removed."
    assert not place.is_symlink()


def test_link_to_another_copy_is_replaced(place, tmp_path):
    other = tmp_path / "copy"
    other.mkdir()
    shutil.copy(PLUGIN_PATH / "__init__.py", other)
    place.symlink_to(other)

    assert links.is_linked()
    links.link()
    assert place.resolve() == PLUGIN_PATH
    assert other.is_dir()


@pytest.mark.parametrize("error", [OSError, NotImplementedError])
def test_plugin_is_copied_where_links_are_not_allowed(place, monkeypatch, tmp_path, error):
    plugin_path = shutil.copytree(PLUGIN_PATH, tmp_path / "installed")
    (plugin_path / "__pycache__").mkdir(exist_ok=True)
    monkeypatch.setattr(links, "PLUGIN_PATH", plugin_path)

    refuse_links(monkeypatch, error)

    assert links.link() == f"{place} is a copy of {plugin_path}, because links are not allowed there."
    assert not place.is_symlink()
    assert {path.name for path in place.glob("*.py")} == {path.name for path in PLUGIN_PATH.glob("*.py")}
    assert (place / "__init__.py").read_bytes() == (PLUGIN_PATH / "__init__.py").read_bytes()
    assert not list(place.rglob("__pycache__"))
    assert links.is_linked()


def test_old_copy_is_replaced_and_removed(place, monkeypatch):
    refuse_links(monkeypatch)
    links.link()
    (place / "old.py").write_text("")
    assert "is a copy of" in links.link()
    assert not (place / "old.py").exists()

    assert links.unlink() == f"{place} is removed."
    assert not place.exists()


def make_file(place):
    place.write_text("")


def make_other_plugin(place):
    """Of the same size and time as this one."""
    place.mkdir()
    own = PLUGIN_PATH / "__init__.py"
    (place / "__init__.py").write_bytes(own.read_bytes()[::-1])
    os.utime(place / "__init__.py", ns=(own.stat().st_atime_ns, own.stat().st_mtime_ns))


def make_folder(place):
    place.mkdir()


def make_link_to_other(place):
    make_other_plugin(place.with_name("other"))
    place.symlink_to("other")


@pytest.mark.parametrize("make", [make_file, make_other_plugin, make_folder, make_link_to_other])
def test_something_else_stays(place, make):
    make(place)

    assert not links.is_linked()
    with pytest.raises(FileExistsError) as raised:
        links.link()
    assert str(raised.value) == f"{place} exists already and is not this plugin. Move it to another folder."
    with pytest.raises(FileExistsError) as raised:
        links.unlink()
    assert str(raised.value) == f"{place} is not this plugin, so it stays."
    assert place.exists()


def test_plugin_itself_stays(place, monkeypatch):
    """As in a checkout of brain-score/vision."""
    shutil.copytree(PLUGIN_PATH, place)
    monkeypatch.setattr(links, "PLUGIN_PATH", place)

    assert links.link() == f"{place} is linked already."
    with pytest.raises(FileExistsError) as raised:
        links.unlink()
    assert str(raised.value) == f"{place} is the plugin itself, so it stays."
    assert (place / "__init__.py").exists()
    assert links.find_copy_problem() is None


# --- registrations ----------------------------------------------------------------------------------------------------


def test_registrations_are_found_in_the_way_of_brainscore(place, tmp_path):
    texts = {
        "b": "data_registry['one'] = 1",
        "a": 'data_registry["one"] = 1',
        "other": "data_registry['two'] = 1",
        "stimuli": "stimulus_set_registry['one'] = 1",
        ".hidden": "data_registry['one'] = 1",
        "_private": "data_registry['one'] = 1",
    }
    for name, text in texts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    (tmp_path / "latin").mkdir()
    (tmp_path / "latin" / "__init__.py").write_bytes(b"# \xe9\ndata_registry['one'] = 1")
    (tmp_path / "folder" / "__init__.py").mkdir(parents=True)
    (tmp_path / "no_plugin").mkdir()

    assert [path.name for path in links.find_registrations("one")] == ["a", "b", "latin"]
    assert [path.name for path in links.find_registrations("two")] == ["other"]
    assert links.find_registrations("on") == []


# --- where things are installed ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [None, SimpleNamespace(origin=None)])
def test_library_that_is_not_installed_is_named(monkeypatch, spec):
    monkeypatch.setattr(links, "find_spec", lambda name: spec)

    for function in (links.data_path, links.link, links.unlink, links.is_linked):
        with pytest.raises(FileNotFoundError) as raised:
            function()
        assert str(raised.value) == "brainscore_vision is not installed here. Install it: pip install brainscore_vision"


def test_folder_of_data_plugins_is_that_of_the_installed_library():
    assert links.data_path() == Path(importlib.util.find_spec("brainscore_vision").origin).parent / "data"


@pytest.mark.parametrize("printed", ["", "other"])
def test_copy_that_is_not_installed_is_named(place, tmp_path, monkeypatch, printed):
    commands = []

    def run(command, *, capture_output, text):
        commands.append(command)
        origin = str(tmp_path / "site" / "__init__.py") if printed else ""
        return subprocess.CompletedProcess(command, 0, f"{origin}\n" if text and capture_output else None)

    monkeypatch.setattr(links.subprocess, "run", run)

    if printed:
        expected = (
            f"{PLUGIN_PATH} is linked, which is not the installed copy, {tmp_path / 'site'}: Python found the first one in the "
            "current folder. To link the installed one, run this command in another folder: python -m "
            "brainscore_allen2022_surface link"
        )
    else:
        expected = (
            f"{PLUGIN_PATH} is linked, which is not installed: Python found it in the current folder. The link breaks if you "
            "move it. Install it: pip install ."
        )
    assert links.find_copy_problem() == expected
    assert "-P" in commands[0]


def test_installed_copy_has_no_problem(place):
    """The tests run with the installed plugin, which a new Python process finds in any folder."""
    assert links._installed_path() == PLUGIN_PATH
    assert links.find_copy_problem() is None
