"""The link to the plugin in the installed brainscore_vision, which lets Brain-Score find it."""

from __future__ import annotations

import filecmp
import shutil
from importlib.util import find_spec
from pathlib import Path

from .errors import PackagingError
from .files import copy_folder
from .plugin import LIBRARY, LINK_NAME, plugin_path


def link() -> str:
    """Link the plugin into the folder `data` of brainscore_vision, or copy it to there if links are not allowed.

    Returns
    -------
    one sentence for the user, which says what was done

    Raises
    ------
    PackagingError
        If brainscore_vision or the plugin is not installed, or there is something else with the name of the link.
    """
    link_path, target = data_path() / LINK_NAME, plugin_path().resolve()
    if link_path.resolve() == target:
        return f"{link_path} is linked already."
    unlink()  # a copy, a link to another copy, or a link whose target does not exist
    try:
        link_path.symlink_to(target, target_is_directory=True)
    except OSError:
        copy_folder(target, link_path, shutil.ignore_patterns("__pycache__"))
        return f"{link_path} is a copy of {target}, because links are not allowed there."
    return f"{link_path} links to {target}."


def unlink() -> str:
    """Remove the link to the plugin, or the copy that `link` made, from brainscore_vision. Returns and errors are as above."""
    link_path = data_path() / LINK_NAME
    if not link_path.exists() and not link_path.is_symlink():
        return f"{link_path} does not exist."
    if link_path.is_symlink() and is_linked():
        link_path.unlink()
    elif is_linked() and (link_path / "analysis").is_dir():  # `export` leaves it out
        shutil.rmtree(link_path)
    else:
        raise PackagingError(f"{link_path} is no link to this plugin, and no copy that `link` made. Move it away.")
    return f"{link_path} is removed."


def is_linked() -> bool:
    """Return whether brainscore_vision holds a link to the plugin, or a copy of it. A link without a target counts."""
    link_path = data_path() / LINK_NAME
    if link_path.is_symlink() and not link_path.exists():
        return True
    code_path = link_path / "__init__.py"
    return code_path.is_file() and filecmp.cmp(code_path, plugin_path() / "__init__.py", shallow=False)


def data_path() -> Path:
    """Return the folder of the data plugins of brainscore_vision.

    Raises
    ------
    PackagingError
        If brainscore_vision is not installed.
    """
    # brainscore_vision is only located: importing it takes seconds, and needs all its requirements.
    spec = find_spec(LIBRARY)
    if spec is None or spec.origin is None:
        raise PackagingError("brainscore_vision is not installed here. Install it: pip install brainscore_vision")
    return Path(spec.origin).parent / "data"
