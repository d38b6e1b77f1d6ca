"""Links from the installed brainscore_vision to this plugin, so that Brain-Score finds its datasets."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

PLUGIN = "brainscore_allen2022_surface"
COMMAND = f"python -m {PLUGIN}"
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


def find_copy_problem() -> str | None:
    """Return what is wrong with linking this copy of the plugin, or None if it is the installed one.

    Python looks into the current folder before it looks for what is installed, so that a command that is run in a checkout uses
    the copy in the checkout.
    """
    installed_path = _installed_path()
    if installed_path == PLUGIN_PATH or PLUGIN_PATH.parent == data_path().resolve():
        return None
    if installed_path is None:
        return (
            f"{PLUGIN_PATH} is linked, which is not installed: Python found it in the current folder. The link breaks if you "
            "move it. Install it: pip install ."
        )
    return (
        f"{PLUGIN_PATH} is linked, which is not the installed copy, {installed_path}: Python found the first one in the current "
        f"folder. To link the installed one, run this command in another folder: {COMMAND} link"
    )


def find_registrations(identifier: str) -> list[Path]:
    """List the folders of the data plugins whose text registers an identifier, in the way of Brain-Score.

    Raises
    ------
    FileNotFoundError
        If brainscore_vision is not installed.
    """
    line = f"data_registry['{identifier}']"
    texts = {
        path.parent: path.read_text(encoding="utf-8", errors="replace").replace('"', "'")
        for path in sorted(data_path().glob("*/__init__.py"))
        if path.is_file() and not path.parent.name.startswith((".", "_"))
    }
    return [folder for folder, text in texts.items() if line in text]


def data_path() -> Path:
    """Return the folder of the data plugins of brainscore_vision.

    Raises
    ------
    FileNotFoundError
        If brainscore_vision is not installed.
    """
    # brainscore_vision is only located: importing it takes seconds, and needs all its requirements.
    spec = find_spec("brainscore_vision")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("brainscore_vision is not installed here. Install it: pip install brainscore_vision")
    return Path(spec.origin).parent / "data"


def _link_path() -> Path:
    return data_path() / LINK_NAME


def _installed_path() -> Path | None:
    """Return the folder of the plugin that another Python process would import, started in any folder."""
    code = f"from importlib.util import find_spec; spec = find_spec({PLUGIN!r}); print(spec.origin if spec else '')"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    origin = run.stdout.strip()
    return Path(origin).resolve().parent if origin else None


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
