"""`artifacts.json`: the S3 objects of every published dataset. `upload` writes it, and the plugin's loaders read it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import msgspec

from ..errors import PackagingError, one_line
from ..files import read_file, write_whole
from ..plugin import plugin_path
from .objects import BrainioObject, Kind


class ObjectRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One version of an S3 object, and the SHA-1 of its content.

    Attributes
    ----------
    size : in bytes; objects published by others have none
    shape : of an assembly; objects published by others have none
    simulated : whether an assembly holds simulated responses; only a demonstration publishes such
    """

    bucket: str
    key: str
    version_id: str
    sha1: str
    size: int | None = None
    shape: tuple[int, int, int] | None = None
    simulated: bool = False


Artifacts: TypeAlias = dict[str, dict[Kind, ObjectRecord]]  # the objects of each identifier


def read_artifacts(path: Path) -> Artifacts:
    """Read an artifacts file: the objects by identifier and kind. A file that does not exist yet holds none.

    A region of a dataset, such as "Allen2022_fmri_surface.V4.train", has an entry of its own, with an assembly only: its
    stimuli are those of the whole.

    Raises
    ------
    PackagingError
        If the file is damaged.
    """
    try:
        return msgspec.json.decode(read_file(path), type=Artifacts)
    except FileNotFoundError:
        return {}
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise PackagingError(f"{path} is damaged ({one_line(error)}). Repair it, or choose another file.") from error


def choose_artifacts(path: Path | None) -> Path:
    """Return the artifacts file that will be changed: `path`, or else that of the installed plugin.

    Raises
    ------
    PackagingError
        If the file cannot be read or could not be written.
    """
    path = path or plugin_path() / "artifacts.json"
    if not os.access(path.parent, os.W_OK):
        raise PackagingError(
            f"{path} could not be written: its folder is missing or read-only. Choose another file with --artifacts FILE."
        )
    read_artifacts(path)
    return path


def record_release(path: Path, name: str, records: Iterable[tuple[BrainioObject, ObjectRecord]]) -> str:
    """Replace all entries of a release in an artifacts file in one step. Entries of other releases stay as they are.

    An entry of a region that the release no longer has would mix two releases, so it is removed.

    Returns
    -------
    one sentence for the user, which says what was done
    """
    recorded: Artifacts = {}
    for item, record in sorted(records, key=lambda pair: pair[0].kind):
        recorded.setdefault(item.identifier, {})[item.kind] = record
    kept = {
        identifier: objects
        for identifier, objects in read_artifacts(path).items()
        if identifier in recorded or not identifier.startswith(f"{name}.")
    }
    text = json.dumps(msgspec.to_builtins(kept | recorded), indent=2)
    write_whole(path, [f"{text}\n".encode()])
    return f"{path} now lists {', '.join(recorded)}"
