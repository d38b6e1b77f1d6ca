"""A release: its name, its folder (whole or not there at all) and `release.json`, which says what it is."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import __version__
from .errors import PackagingError

MANIFEST = "release.json"
SPLITS = ("train", "test")
NAMES = {
    (1, 2, 3, 4, 5, 6, 7, 8): "Allen2022_fmri_surface",
    (1, 2, 5, 7): "Allen2022_fmri_surface_4subj",
}
VERSIONED = ("numpy", "scipy", "nibabel", "h5py", "netCDF4", "pandas", "Pillow")  # whose version could change a byte
HASH_BLOCK_BYTES = 2**20


def release_name(subjects: Sequence[int], *, name: str | None, is_published_method: bool) -> str:
    """Return the name of a release: Brain-Score's for its two choices of subjects, `name` for any other.

    Raises
    ------
    ValueError
        If a name is needed but not given, is not made of letters, digits and underscores, or is that of another choice.
    """
    own = NAMES.get(tuple(sorted(subjects))) if is_published_method else None
    if name is None:
        if own is None:
            raise ValueError(
                "A release of other subjects than 1-8 or 1, 2, 5, 7, or of another method than the published one, "
                "needs a --name of its own."
            )
        return own
    if not re.fullmatch(r"[A-Za-z0-9_]+", name):
        raise ValueError(f"--name must be made of letters, digits and underscores, but got {name!r}.")
    if name in NAMES.values() and name != own:
        raise ValueError(f"--name {name} belongs to another choice of subjects or method. Choose one of its own.")
    return name


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a folder to write into; it takes the place `path` when all went well, and else is removed.

    What stands at `path` by then is replaced, so ask `refuse_existing` before.

    Raises
    ------
    PackagingError
        If another process is writing `path`.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, replaced = (path.with_name(f".{path.name}.{state}") for state in ("partial", "replaced"))
    partial.mkdir(exist_ok=True)
    handle = os.open(partial, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released by the kernel, however the writer ends
    except OSError as error:
        os.close(handle)
        raise PackagingError(
            f"Another process is writing {path} at this moment. Wait for it, or choose another folder."
        ) from error
    try:
        _empty(partial)  # what a killed writer may have left
        yield partial
        shutil.rmtree(replaced, ignore_errors=True)
        if path.exists():
            path.rename(replaced)
        partial.rename(path)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    finally:
        os.close(handle)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Raise a `PackagingError` if something at `path` would be lost."""
    if not path.exists():
        return
    if not overwrite:
        raise PackagingError(f"{path} exists already. Remove it, choose another folder, or add --overwrite.")
    if not (path / MANIFEST).is_file():
        raise PackagingError(f"{path} is not a release: --overwrite replaces only a folder that holds a {MANIFEST}.")


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Write `release.json`: the facts given, and size and SHA-1 of every other file of the release."""
    files = {
        str(path.relative_to(folder)): {"size": path.stat().st_size, "sha1": sha1_of(path)}
        for path in release_files(folder)
    }
    manifest = facts | {"versions": versions(), "files": files}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def read_manifest(release_path: Path) -> dict[str, Any]:
    """Read `release.json`.

    Raises
    ------
    PackagingError
        If the folder is not a release.
    """
    path = release_path / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        return {key: manifest[key] for key in manifest} | {
            "files": dict(manifest["files"]),
            "name": str(manifest["name"]),
        }
    except FileNotFoundError as error:
        raise PackagingError(f"{release_path} is not a release: it holds no {MANIFEST}. Build one first.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise PackagingError(
            f"{path} is damaged ({type(error).__name__}: {error}). Build the release again."
        ) from error


def release_files(folder: Path) -> list[Path]:
    """Return the files that belong to a release, sorted; not its manifest and not what is later made from it."""
    made_later = {MANIFEST, "verify.json", "report.html"}
    return sorted(
        path for path in folder.rglob("*") if path.is_file() and str(path.relative_to(folder)) not in made_later
    )


def assembly_file(name: str, split: str) -> str:
    """Return the name of the assembly file of a split."""
    return f"{name}_{split}.nc"


def sha1_of(path: Path) -> str:
    """Return the SHA-1 of a file, in hexadecimal."""
    digest = hashlib.sha1()
    with path.open("rb", buffering=0) as file:
        while block := file.read(HASH_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of this package and of those that could change a byte of a release."""
    return {"brainscore_allen2022_surface": __version__} | {package: version(package) for package in VERSIONED}


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
