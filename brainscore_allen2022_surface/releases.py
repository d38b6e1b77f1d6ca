"""Releases on disk: the folder in `BRAINSCORE_ALLEN2022_SURFACE_DIR`, a release or a folder of releases."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_DIR"
MANIFEST = "release.json"


@dataclass(frozen=True)
class SplitFiles:
    """The files that one split is loaded from.

    Attributes
    ----------
    table_path : path
        The stimulus table. Its file names are in the column `filename` or, in a release, `image_file_name`.
    """

    assembly_path: Path
    table_path: Path
    stimuli_path: Path


def find_release(name: str) -> Path | None:
    """Find the release of a name in the folder that the environment names; None if it names no folder.

    Raises
    ------
    FileNotFoundError, ValueError
        If the folder is not there, or holds no release of that name, or more than one.
    """
    setting = os.environ.get(VARIABLE)
    if not setting:
        return None
    folder = Path(setting).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{VARIABLE} is {setting}, which is not a folder. Set it to a release, or unset it to load from S3."
        )
    candidates = [folder, *sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))]
    found: dict[str, list[Path]] = {}
    for path in candidates:
        if (path / MANIFEST).is_file():
            found.setdefault(_read_manifest(path)["name"], []).append(path)
    if name not in found:
        raise FileNotFoundError(
            f"{VARIABLE} is {setting}, which holds {', '.join(sorted(found)) or 'no release'}, expected {name}. "
            f"Build it (allen2022-surface build), or unset {VARIABLE} to load from S3."
        )
    if len(found[name]) > 1:
        raise ValueError(
            f"{VARIABLE} is {setting}, which holds {name} more than once: {', '.join(map(str, found[name]))}. "
            "Set it to the one that is meant."
        )
    return found[name][0]


def release_split(release_path: Path, split: str) -> SplitFiles:
    """Return the files of a split of a release, after a look at their sizes.

    Raises
    ------
    FileNotFoundError, ValueError
        If a file is missing, or not of the size that was written.
    """
    manifest = _read_manifest(release_path)
    files = SplitFiles(
        assembly_path=release_path / f"{manifest['name']}_{split}.nc",
        table_path=release_path / f"stimulus_metadata_{split}.csv",
        stimuli_path=release_path / f"stimuli_{split}",
    )
    for path in (files.assembly_path, files.table_path):
        expected = manifest["files"][path.name]["size"]
        if not path.is_file():
            raise FileNotFoundError(f"{path} is missing. Build the release again.")
        if path.stat().st_size != expected:
            raise ValueError(
                f"{path} has {path.stat().st_size:,} bytes, expected {expected:,}. Build the release again."
            )
    return files


def _read_manifest(release_path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((release_path / MANIFEST).read_text(encoding="utf-8"))
        return {"name": manifest["name"], "files": manifest["files"]}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{release_path / MANIFEST} is damaged ({error!r}). Build the release again.") from error
