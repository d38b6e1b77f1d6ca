"""Where the files of an NSD tree lie: a folder, read through one small set of methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .errors import PackagingError


@dataclass(frozen=True)
class Folder:
    """A folder on a local or network disk."""

    root: Path

    def __str__(self) -> str:
        return str(self.root)

    def locate(self, path: str) -> str:
        """Return where `path` lies, for messages."""
        return str(self.root / path)

    def exists(self, path: str) -> bool:
        """Tell whether there is a file at `path`."""
        return (self.root / path).is_file()

    def names(self, folder: str) -> list[str]:
        """Return the names of the files in `folder`, sorted; none where there is no such folder."""
        directory = self.root / folder
        return sorted(entry.name for entry in directory.iterdir()) if directory.is_dir() else []

    def size(self, path: str) -> int:
        """Return the size of the file at `path`, in bytes."""
        return (self.root / path).stat().st_size

    def stamp(self, path: str) -> str:
        """Return what changes when the file at `path` does: its place, size and modification time."""
        status = (self.root / path).stat()
        return f"{(self.root / path).resolve()}:{status.st_size}:{status.st_mtime_ns}"

    def open(self, path: str) -> BinaryIO:
        """Open the file at `path` for reading."""
        # Unbuffered: every reader here asks for whole blocks, and a second copy would only cost time.
        return (self.root / path).open("rb", buffering=0)


def open_storage(root: str | Path) -> Folder:
    """Return the storage at `root`.

    Raises
    ------
    PackagingError
        If there is nothing at `root`.
    """
    folder = Path(root)
    if not folder.is_dir():
        raise PackagingError(f"{root} is not a folder. Expected an NSD tree: a folder in the official or flat layout.")
    return Folder(folder)
