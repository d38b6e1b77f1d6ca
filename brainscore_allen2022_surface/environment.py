"""The environment variables of this plugin that name a folder or a file. A leading `~` is the home folder."""

from __future__ import annotations

import os
from pathlib import Path

RELEASE_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_DIR"
ARTIFACTS_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS"
CACHE_VARIABLE = "BRAINIO_HOME"
DEFAULT_CACHE = "~/.brainio"  # as in brainscore_core


def named_path(variable: str) -> Path | None:
    """Return the path that an environment variable names, or None if the variable is empty or not set.

    Raises
    ------
    ValueError
        If the path starts with the home folder of a user who does not exist.
    """
    setting = os.environ.get(variable)
    return expanded(setting, variable) if setting else None


def cache_path() -> Path:
    """Return the folder of downloaded files.

    Raises
    ------
    ValueError
        As `named_path`.
    """
    return named_path(CACHE_VARIABLE) or expanded(DEFAULT_CACHE, "The default cache")


def expanded(path: str | os.PathLike[str], title: str) -> Path:
    """Return a path with its leading `~` replaced by the home folder.

    Parameters
    ----------
    title : what the path is, for the message

    Raises
    ------
    ValueError
        If there is no such home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(
            f"{title} is {os.fspath(path)}, but there is no such home folder. Write a full path."
        ) from error
