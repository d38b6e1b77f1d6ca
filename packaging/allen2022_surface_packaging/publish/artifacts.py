"""`artifacts.json`: the S3 objects of every published dataset. `upload` writes it, and the plugin's loaders read it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..errors import PackagingError, one_line
from ..files import locked, read_file, write_whole
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

    @property
    def url(self) -> str:
        """The address of the object."""
        return f"s3://{self.bucket}/{self.key}"


class DatasetRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The objects of a dataset. A region has an assembly only: its stimuli are those of the whole."""

    assembly: ObjectRecord
    stimulus_csv: ObjectRecord | None = None
    stimulus_zip: ObjectRecord | None = None


@dataclass(frozen=True)
class Artifacts:
    """The content of an artifacts file: datasets by their identifier, such as "Allen2022_fmri_surface.train".

    A region of a dataset, such as "Allen2022_fmri_surface.V4.train", has an entry of its own.
    """

    datasets: dict[str, DatasetRecord]

    @classmethod
    def read(cls, path: Path) -> Artifacts:
        """Read an artifacts file. A file that does not exist yet holds no dataset.

        Raises
        ------
        PackagingError
            If the file is damaged.
        """
        if path.exists() and not path.is_file():
            raise PackagingError(f"{path} is not a regular file. Choose another file.")
        try:
            return cls(msgspec.json.decode(read_file(path), type=dict[str, DatasetRecord]))
        except FileNotFoundError:
            return cls({})
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise PackagingError(
                f"{path} is damaged ({one_line(error)}). Repair it, or choose another file."
            ) from error

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        text = json.dumps(msgspec.to_builtins(self.datasets), indent=2)
        write_whole(path, [f"{text}\n".encode()])


def default_artifacts_path() -> Path:
    """Return the artifacts file that the plugin's loaders read.

    Raises
    ------
    PackagingError
        If the plugin is not installed.
    """
    return plugin_path() / "artifacts.json"


def announce_artifacts(path: Path | None, tell: Callable[[str], object]) -> Path:
    """Say which artifacts file will be changed, and return it: `path`, or else that of the installed plugin.

    Raises
    ------
    PackagingError
        If the file cannot be read or could not be written.
    """
    choice = "" if path else ", the file of the installed plugin (--artifacts FILE chooses another)"
    path = path or default_artifacts_path()
    require_writable(path)
    tell(f"The objects will be recorded in {path}{choice}")
    return path


def require_writable(path: Path) -> None:
    """Raise a `PackagingError` if an artifacts file cannot be read or could not be written."""
    if not os.access(path.parent, os.W_OK):
        raise PackagingError(
            f"{path} could not be written: its folder is missing or read-only. Choose another file with --artifacts FILE."
        )
    Artifacts.read(path)


def record_release(path: Path, name: str, datasets: dict[str, DatasetRecord]) -> None:
    """Replace all entries of a release in an artifacts file in one step. Other releases in the file stay as they are.

    Parameters
    ----------
    name : of the release; an entry of a region that the release no longer has would mix two releases, so it is removed

    Raises
    ------
    PackagingError
        If the file is damaged.
    """
    with locked(path.parent):  # another upload may end at the same time
        before = Artifacts.read(path).datasets
        kept = {
            identifier: record
            for identifier, record in before.items()
            if identifier in datasets or not identifier.startswith(f"{name}.")
        }
        Artifacts(kept | datasets).write(path)


def describe_datasets(
    records: Iterable[tuple[BrainioObject, ObjectRecord]],
) -> dict[str, DatasetRecord]:
    """Return the records of objects by the identifier of their dataset."""
    by_identifier: dict[str, dict[str, ObjectRecord]] = {}
    for item, record in records:
        by_identifier.setdefault(item.identifier, {})[item.kind] = record
    return {identifier: DatasetRecord(**of_kind) for identifier, of_kind in by_identifier.items()}
