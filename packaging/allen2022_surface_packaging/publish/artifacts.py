"""`artifacts.json`: the S3 objects of every published dataset. `upload` writes it, and the plugin's loaders read it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from ..atomic import locked, write_whole
from ..errors import PackagingError, one_line


class ObjectRecord(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """One version of an S3 object, and the SHA-1 of its content. Objects published by others have no size."""

    bucket: str
    key: str
    version_id: str
    sha1: str
    size: int | None = None


class DatasetRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The three objects of a dataset."""

    assembly: ObjectRecord
    stimulus_csv: ObjectRecord
    stimulus_zip: ObjectRecord


@dataclass(frozen=True)
class Artifacts:
    """The content of an artifacts file: datasets by their identifier, such as "Allen2022_fmri_surface.train"."""

    datasets: dict[str, DatasetRecord]

    @classmethod
    def read(cls, path: Path) -> Artifacts:
        """Read an artifacts file. A file that does not exist yet holds no dataset.

        Raises
        ------
        PackagingError
            If the file is damaged.
        """
        try:
            return cls(msgspec.json.decode(path.read_bytes(), type=dict[str, DatasetRecord]))
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


def require_writable(path: Path) -> None:
    """Raise a `PackagingError` if an artifacts file cannot be read or could not be written."""
    if not os.access(path.parent, os.W_OK):
        raise PackagingError(
            f"{path} could not be written: its folder is missing or read-only. Choose another file with --artifacts FILE."
        )
    Artifacts.read(path)


def record_datasets(path: Path, datasets: dict[str, DatasetRecord]) -> None:
    """Add datasets to an artifacts file in one step. Other datasets in the file stay as they are.

    Raises
    ------
    PackagingError
        If the file is damaged.
    """
    with locked(path.parent):  # another upload may end at the same time
        Artifacts(Artifacts.read(path).datasets | datasets).write(path)
