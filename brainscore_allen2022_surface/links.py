"""Links from the installed brainscore_vision to this plugin, so that Brain-Score finds its datasets."""

from __future__ import annotations

import filecmp
import shutil
from importlib.util import find_spec
from pathlib import Path

LINK_NAME = "allen2022_surface"
PLUGIN_PATH = Path(__file__).resolve().parent


def link() -> str:
    """Link this plugin into the folder `data` of brainscore_vision, or copy it to there if links are not allowed.

    Returns
    -------
    one sentence for the user, which says what was done

    Raises
    ------
    FileNotFoundError
        If brainscore_vision is not installed.
    FileExistsError
        If there is something else with the name of the link.
    """
    link_path = _link_path()
    if link_path.resolve() == PLUGIN_PATH:
        return f"{link_path} is linked already."
    if _is_this_plugin(link_path):
        _remove(link_path)  # a copy, a link to another copy, or a link whose target does not exist
    elif link_path.exists() or link_path.is_symlink():
        raise FileExistsError(f"{link_path} exists already and is not this plugin. Move it to another folder.")
    try:
        link_path.symlink_to(PLUGIN_PATH, target_is_directory=True)
    except (OSError, NotImplementedError):
        shutil.copytree(PLUGIN_PATH, link_path, ignore=shutil.ignore_patterns("__pycache__"))
        return f"{link_path} is a copy of {PLUGIN_PATH}, because links are not allowed there."
    return f"{link_path} links to {PLUGIN_PATH}."


def unlink() -> str:
    """Remove the link to this plugin, or the copy of it, from brainscore_vision.

    Returns
    -------
    one sentence for the user, which says what was done

    Raises
    ------
    FileNotFoundError
        If brainscore_vision is not installed.
    FileExistsError
        If there is something else with the name of the link.
    """
    link_path = _link_path()
    if not link_path.exists() and not link_path.is_symlink():
        return f"{link_path} does not exist."
    if not link_path.is_symlink() and link_path.resolve() == PLUGIN_PATH:  # as in a checkout of brain-score/vision
        raise FileExistsError(f"{link_path} is the plugin itself, so it stays.")
    if not _is_this_plugin(link_path):
        raise FileExistsError(f"{link_path} is not this plugin, so it stays.")
    _remove(link_path)
    return f"{link_path} is removed."


def is_linked() -> bool:
    """Return whether brainscore_vision holds a link to this plugin, or a copy of it."""
    return _is_this_plugin(_link_path())


def _link_path() -> Path:
    # brainscore_vision is only located: importing it takes seconds, and needs all its requirements.
    spec = find_spec("brainscore_vision")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("brainscore_vision is not installed here. Install it: pip install brainscore_vision")
    return Path(spec.origin).parent / "data" / LINK_NAME


def _remove(path: Path) -> None:
    if path.is_symlink():
        path.unlink()
    else:
        shutil.rmtree(path)


def _is_this_plugin(path: Path) -> bool:
    """Return whether a path is a link to this plugin or a copy of it. A link without a target counts as a link to it."""
    if path.is_symlink() and not path.exists():
        return True
    registration_path = path / "__init__.py"
    return registration_path.is_file() and filecmp.cmp(registration_path, PLUGIN_PATH / "__init__.py", shallow=False)
