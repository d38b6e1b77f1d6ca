"""A temporary folder for objects that are made from a release. They hold NSD's photographs, so none may be left behind."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..files import locked, remove_folder
from ..signals import postponed_signals

PREFIX = "allen2022_surface_objects_"


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield an empty folder that only this user can read, and remove it at the end.

    The folders of processes that were killed are removed first. A process locks its folder, and the kernel releases the lock
    however the process ends.
    """
    _remove_abandoned()
    folders: list[Path] = []
    try:
        with postponed_signals():  # so that the folder is known when it is there
            unlocked_path = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
            path = unlocked_path.with_name(unlocked_path.name.removeprefix("."))
            folders += [path, unlocked_path]
        with locked(unlocked_path):
            unlocked_path.rename(path)  # only now it has the name by which another process looks for abandoned folders
            yield path
    finally:
        for folder in folders:  # whichever name it has
            remove_folder(folder)


def _remove_abandoned() -> None:
    """Remove the folders of this user whose process has ended."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another process may remove the folder at the same time
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            with locked(path, wait=False):
                remove_folder(path)
