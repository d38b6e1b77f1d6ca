"""`artifacts.json`: the S3 objects of every published dataset. `upload` writes it, and the plugin's loaders read it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from ..errors import PackagingError, one_line
from ..files import read_file, write_whole
from ..plugin import plugin_path
from .objects import BrainioObject


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


class DatasetRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The objects of a dataset. A region has an assembly only: its stimuli are those of the whole."""

    assembly: ObjectRecord
    stimulus_csv: ObjectRecord | None = None
    stimulus_zip: ObjectRecord | None = None


def read_artifacts(path: Path) -> dict[str, DatasetRecord]:
    """Read an artifacts file: datasets by their identifier, such as "Allen2022_fmri_surface.train".

    A region of a dataset, such as "Allen2022_fmri_surface.V4.train", has an entry of its own. A file that does not exist yet
    holds no dataset.

    Raises
    ------
    PackagingError
        If the file is damaged.
    """
    try:
        return msgspec.json.decode(read_file(path), type=dict[str, DatasetRecord])
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
    by_identifier: dict[str, dict[str, ObjectRecord]] = {}
    for item, record in records:
        by_identifier.setdefault(item.identifier, {})[item.kind] = record
    datasets = {identifier: DatasetRecord(**of_kind) for identifier, of_kind in by_identifier.items()}
    kept = {
        identifier: dataset
        for identifier, dataset in read_artifacts(path).items()
        if identifier in datasets or not identifier.startswith(f"{name}.")
    }
    text = json.dumps(msgspec.to_builtins(kept | datasets), indent=2)
    write_whole(path, [f"{text}\n".encode()])
    return f"{path} now lists {', '.join(datasets)}"
