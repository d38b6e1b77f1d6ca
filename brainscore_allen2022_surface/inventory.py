"""All identifiers of this plugin, and where the data of each comes from now. Nothing is downloaded."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .artifacts import StoredObject
from .cache import is_cached
from .environment import cache_path
from .files import LocalFile, LocalFolder
from .loaders import assembly_file
from .sources import default_source, find_files

REGISTRATION = re.compile(r"^(data_registry|stimulus_set_registry)\['([^']+)'\]", re.MULTILINE)
LOADERS = {"data_registry": "load_dataset", "stimulus_set_registry": "load_stimulus_set"}


@dataclass(frozen=True)
class Listing:
    """Where the data of an identifier comes from.

    Attributes
    ----------
    location : a path or the address of an S3 object; empty if there is none
    n_bytes : size of the files; None if it is not known
    is_here : whether everything is on this machine
    problem : why the data cannot be found; empty if it can
    """

    identifier: str
    location: str
    n_bytes: int | None
    is_here: bool
    problem: str = ""


def registered_identifiers(registry: str) -> list[str]:
    """List the identifiers of a registry in the text of this plugin, as Brain-Score finds them.

    Parameters
    ----------
    registry : "data_registry" or "stimulus_set_registry"
    """
    text = Path(__file__).with_name("__init__.py").read_text(encoding="utf-8")
    return [identifier for found, identifier in REGISTRATION.findall(text) if found == registry]


def list_identifiers(registry: str, source: Path) -> list[Listing]:
    """List the identifiers of a registry with the files that they would load.

    Parameters
    ----------
    source : a release, a folder of releases, or an artifacts file
    """
    return [list_identifier(registry, identifier, source) for identifier in registered_identifiers(registry)]


def list_identifier(registry: str, identifier: str, source: Path) -> Listing:
    """Find the files that an identifier would load. What a file is lacks is the `problem` of the listing."""
    name, *region, split = identifier.split(".")
    try:
        files = find_files(name, split, source)
        if registry == "data_registry":
            return _list_files(identifier, [assembly_file(files, region[0] if region else None)])
        return _list_files(identifier, [files.stimuli, files.stimulus_table])
    except (OSError, ValueError) as error:
        return Listing(identifier, "", None, False, " ".join(str(error).split()))


def describe_inventory() -> str:
    """Describe every identifier in a table for people.

    Raises
    ------
    FileNotFoundError, ValueError
        If the source that the environment names is missing or damaged.
    """
    source = default_source()
    lines = [f"Source: {source}" + ("" if source.is_dir() else f"; downloads stay in {cache_path()}")]
    problems: dict[str, None] = {}
    for registry, loader in LOADERS.items():
        listings = list_identifiers(registry, source)
        problems |= dict.fromkeys(listing.problem for listing in listings if listing.problem)
        rows = [(loader, "size", "on this machine", "from"), *(_row(listing) for listing in listings)]
        lines += ["", *format_rows(rows)]
    return "\n".join([*lines, *(["", *problems] if problems else [])])


def format_rows(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the lines of a table whose columns are as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def format_bytes(n_bytes: int | None) -> str:
    """Return a size for people, in decimal units."""
    if n_bytes is None:
        return "unknown"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= factor:
            return f"{n_bytes / factor:.1f} {unit}"
    return f"{n_bytes} bytes"


def _row(listing: Listing) -> tuple[str, str, str, str]:
    if listing.problem:
        return listing.identifier, "", "no", "not found, see below"
    return listing.identifier, format_bytes(listing.n_bytes), "yes" if listing.is_here else "no", listing.location


def _list_files(identifier: str, files: Sequence[LocalFile | LocalFolder | StoredObject]) -> Listing:
    sizes = [_size(file) for file in files]
    n_bytes = None if None in sizes else sum(size or 0 for size in sizes)
    is_here = all(not isinstance(file, StoredObject) or is_cached(file) for file in files)
    first = files[0]
    location = f"s3://{first.bucket}/{first.key}" if isinstance(first, StoredObject) else str(first.path)
    return Listing(identifier, location, n_bytes, is_here)


def _size(file: LocalFile | LocalFolder | StoredObject) -> int | None:
    """Return the size of a file; of an S3 object if it is known or the object is in the cache."""
    if isinstance(file, LocalFolder):
        return sum((file.path / name).stat().st_size for name in file.sha1s)
    return file.path.stat().st_size if isinstance(file, LocalFile) else file.size
