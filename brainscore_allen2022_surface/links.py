"""Make the plugin known to the brainscore_vision that is installed, and undo it."""

from __future__ import annotations

import filecmp
import shutil
from importlib.util import find_spec
from pathlib import Path

PLUGIN_NAME = "allen2022_surface"
OWN_PATH = Path(__file__).resolve().parent


def link() -> str:
    """Put the plugin into the `data/` folder of brainscore_vision, wheel or editable; a copy where links are not allowed.

    Returns
    -------
    what was done, for people

    Raises
    ------
    FileNotFoundError, FileExistsError
        If brainscore_vision is not installed, or something else has the place.
    """
    place = _place()
    if place.resolve() == OWN_PATH:
        return f"{place} is linked already."
    if _is_own(place):
        _remove(place)  # a copy, or a link to another copy or to a place that is gone
    elif place.exists() or place.is_symlink():
        raise FileExistsError(f"{place} is there already and is not this plugin: move it away")
    try:
        place.symlink_to(OWN_PATH, target_is_directory=True)
    except (OSError, NotImplementedError):
        shutil.copytree(OWN_PATH, place, ignore=shutil.ignore_patterns("__pycache__"))
        return f"{place} is a copy of {OWN_PATH}, since links are not allowed there."
    return f"{place} links to {OWN_PATH}."


def unlink() -> str:
    """Take the plugin out of brainscore_vision again.

    Raises
    ------
    FileNotFoundError, FileExistsError
        If brainscore_vision is not installed, or something else has the place.
    """
    place = _place()
    if not place.exists() and not place.is_symlink():
        return f"{place} is not there."
    if not place.is_symlink() and place.resolve() == OWN_PATH:  # as in a clone that has taken the plugin in
        raise FileExistsError(f"{place} is the plugin itself, so it stays.")
    if not _is_own(place):
        raise FileExistsError(f"{place} is not this plugin, so it stays.")
    _remove(place)
    return f"{place} is removed."


def is_linked() -> bool:
    """Tell whether brainscore_vision knows the plugin by a link or copy made here."""
    return _is_own(_place())


def _place() -> Path:
    # Found, not imported: importing brainscore_vision takes seconds and needs all that it needs.
    spec = find_spec("brainscore_vision")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("brainscore_vision is not installed here. Install it (pip install brainscore_vision).")
    return Path(spec.origin).parent / "data" / PLUGIN_NAME


def _remove(place: Path) -> None:
    if place.is_symlink():
        place.unlink()
    else:
        shutil.rmtree(place)


def _is_own(place: Path) -> bool:
    """Tell a link to or a copy of this plugin, in whatever folder it is or was, from anything else."""
    if place.is_symlink() and not place.exists():
        return True
    registration = place / "__init__.py"
    return registration.is_file() and filecmp.cmp(registration, OWN_PATH / "__init__.py", shallow=False)
