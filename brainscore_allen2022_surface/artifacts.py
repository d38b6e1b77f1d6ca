"""The artifacts file: the S3 objects that hold each dataset. `upload` writes this file, and the loaders read it."""

from __future__ import annotations

import json
import re
import reprlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from .environment import cache_path
from .files import read_small_file

SHIPPED_PATH = Path(__file__).with_name("artifacts.json")
ADVICE = "Install the plugin again, or upload the release."
LONGEST_NAME_BYTES = 200  # a file system takes 255, and the cache adds to the name while a file is downloaded
SHA1 = re.compile("[0-9a-f]{40}")
IDENTIFIER = re.compile(r"\w+(\.\w+){1,2}", re.ASCII)


@dataclass(frozen=True)
class StoredObject:
    """One version of an S3 object.

    Attributes
    ----------
    sha1 : of the content, in hexadecimal
    size : in bytes, if known
    simulated : whether it holds simulated responses; only a demonstration publishes such
    """

    bucket: str
    key: str
    version_id: str
    sha1: str
    size: int | None = None
    simulated: bool = False

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key} (version {self.version_id})"

    @property
    def cached_path(self) -> Path:
        """Where the object is kept once it is downloaded."""
        return cache_path() / self.sha1 / PurePosixPath(self.key).name


@dataclass(frozen=True)
class StoredDataset:
    """The S3 objects of one split of a dataset: its responses, its stimulus table and its images.

    Attributes
    ----------
    region_assemblies : the responses of single regions, by region. It is empty where only the whole was uploaded.
    """

    assembly: StoredObject
    stimulus_csv: StoredObject
    stimulus_zip: StoredObject
    region_assemblies: dict[str, StoredObject] = field(default_factory=dict)


def read_artifacts(path: Path) -> dict[str, StoredDataset]:
    """Read an artifacts file.

    An entry such as "Allen2022_fmri_surface.V4.train" holds only the object `assembly`, with the responses of one region. It
    belongs to the dataset "Allen2022_fmri_surface.train", which has the stimulus table and the images.

    Returns
    -------
    the objects of each dataset, by identifiers such as "Allen2022_fmri_surface.train"

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is damaged.
    """
    content = read_small_file(path, ADVICE)
    try:
        return _parse_artifacts(json.loads(content.decode()))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}). {ADVICE}") from error


def _parse_artifacts(content: object) -> dict[str, StoredDataset]:
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}, expected an object of datasets")
    for identifier in content:
        if not IDENTIFIER.fullmatch(identifier):
            raise ValueError(f"{reprlib.repr(identifier)} is no identifier such as Allen2022_fmri_surface.train")
    datasets = {
        identifier: _parse_dataset(identifier, entry)
        for identifier, entry in content.items()
        if not _is_region(identifier, entry)
    }
    for identifier, entry in content.items():
        if _is_region(identifier, entry):
            _add_region(datasets, identifier, entry["assembly"])
    return datasets


def _is_region(identifier: str, entry: object) -> bool:
    """Return whether an entry has the name of a region, such as "Allen2022_fmri_surface.V4.train", and only an assembly."""
    return identifier.count(".") == 2 and isinstance(entry, dict) and entry.keys() == {"assembly"}


def _add_region(datasets: dict[str, StoredDataset], identifier: str, assembly: object) -> None:
    name, region, split = identifier.split(".")
    if f"{name}.{split}" not in datasets:
        raise ValueError(f"{identifier} is a region of {name}.{split}, which is missing")
    datasets[f"{name}.{split}"].region_assemblies[region] = _parse_object(f"{identifier}, assembly", assembly)


def _parse_dataset(identifier: str, entry: object) -> StoredDataset:
    match entry:
        case {"assembly": assembly, "stimulus_csv": table, "stimulus_zip": images}:
            return StoredDataset(
                _parse_object(f"{identifier}, assembly", assembly),
                _parse_object(f"{identifier}, stimulus_csv", table),
                _parse_object(f"{identifier}, stimulus_zip", images),
            )
    raise ValueError(f"{identifier} lacks one of the objects assembly, stimulus_csv and stimulus_zip")


def _parse_object(title: str, entry: object) -> StoredObject:
    match entry:
        case {"bucket": str(bucket), "key": str(key), "version_id": str(version_id), "sha1": str(sha1), **optional}:
            size, simulated = optional.pop("size", None), optional.pop("simulated", False)
            optional.pop("shape", None)  # for people
            is_located = all(text and text.isprintable() for text in (bucket, key, version_id)) and _is_file_key(key)
            is_checked = bool(SHA1.fullmatch(sha1)) and not isinstance(size, bool) and not optional
            if is_located and is_checked and isinstance(size, int | None) and isinstance(simulated, bool):
                return StoredObject(bucket, key, version_id, sha1, size, simulated)
    raise ValueError(
        f"{title} must have the texts bucket, key, version_id and sha1 (40 hexadecimal digits), and may have the number size, "
        f"a shape and the flag simulated, but got {_shortened(entry)}"
    )


def _is_file_key(key: str) -> bool:
    """Return whether a key ends in a name that a file in the cache can have."""
    name = PurePosixPath(key).name
    return name not in ("", "..") and key.endswith(name) and len(name.encode("utf-8", "replace")) <= LONGEST_NAME_BYTES


def _shortened(entry: object) -> str:
    """Return a text of one line for any content of a JSON file, however long or deep."""
    short = reprlib.Repr()
    short.maxdict = short.maxlist = 8
    return short.repr(entry)
