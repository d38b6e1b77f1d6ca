"""What is installed, linked, set, found and cached, with advice about each thing that is wrong. Nothing is downloaded."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import botocore.session
from botocore.exceptions import BotoCoreError

from . import links
from .artifacts import StoredObject, read_artifacts
from .cache import is_cached
from .environment import ARTIFACTS_VARIABLE, CACHE_VARIABLE, RELEASE_VARIABLE, cache_path, named_path
from .inventory import LOADERS, format_bytes, list_identifier, registered_identifiers
from .sources import default_artifacts_path, default_source, describe_release, list_releases

ADVICE_INDENT = "      -> "
VARIABLES = (RELEASE_VARIABLE, ARTIFACTS_VARIABLE, CACHE_VARIABLE)
LIBRARY = "brainscore_vision"


@dataclass(frozen=True)
class Finding:
    """A fact about this machine.

    Attributes
    ----------
    advice : what to do; empty if nothing is wrong
    """

    subject: str
    state: str
    advice: str = ""


def examine(identifier: str | None = None) -> list[Finding]:
    """Examine everything that loading needs, and, if there is one, an identifier that Brain-Score does not find or load.

    Credentials are looked for, but never shown.
    """
    findings = [
        Finding("plugin", f"{links.PLUGIN_PATH}{_version(links.PLUGIN)}"),
        *_examine_library(),
        *_examine_variables(),
        *_examine_sources(),
    ]
    return [*findings, *_examine_identifier(identifier)] if identifier else findings


def _version(distribution: str) -> str:
    try:
        return f", version {version(distribution)}"
    except PackageNotFoundError:
        return ""


def _examine_library() -> Iterator[Finding]:
    """Examine brainscore_vision, and whether it finds this plugin."""
    try:
        data_path = links.data_path()
    except FileNotFoundError as error:
        yield Finding(LIBRARY, "not installed", str(error))
        return
    yield Finding(LIBRARY, f"{data_path.parent}{_version(LIBRARY)}")
    path = data_path / links.LINK_NAME
    target = f" -> {path.resolve()}" if path.is_symlink() else ""
    if not path.exists():
        state = f"{path}{target} leads nowhere" if path.is_symlink() else f"{path} does not exist"
        yield Finding("link", state, f"Brain-Score does not find this plugin. Link it: {links.COMMAND} link")
    elif not links.is_linked():
        yield Finding(
            "link", f"{path}{target} is another plugin", f"Move it to another folder, then: {links.COMMAND} link"
        )
    elif path.is_symlink() and path.resolve() != links.PLUGIN_PATH:
        yield Finding("link", f"{path}{target} is another copy of this plugin", f"Link this one: {links.COMMAND} link")
    else:
        yield Finding("link", f"{path}{target or ' is a copy'}", links.find_copy_problem() or "")
    for identifier in registered_identifiers("data_registry"):
        folders = links.find_registrations(identifier)
        if len(folders) > 1:
            names = " and ".join(str(folder) for folder in folders)
            yield Finding(
                identifier, f"is registered in {names}", "Brain-Score takes it from one only. Remove the others."
            )


def _examine_variables() -> Iterator[Finding]:
    """Examine the environment variables in effect."""
    for variable in VARIABLES:
        setting = os.environ.get(variable)
        try:
            path = named_path(variable)
        except ValueError as error:
            yield Finding(variable, str(setting), str(error))
            continue
        yield Finding(variable, "not set" if path is None else str(path))


def _examine_sources() -> Iterator[Finding]:
    """Examine the releases on disk, the artifacts file, the cache, and whether there are credentials."""
    try:
        source = default_source()
    except (OSError, ValueError) as error:
        yield Finding("source", "none", str(error))
        source = None
    if source is not None and source.is_dir():
        yield from _examine_releases(source)
    try:
        artifacts_path = default_artifacts_path()
        datasets = read_artifacts(artifacts_path)
    except (OSError, ValueError) as error:
        yield Finding("artifacts", "none", str(error))
        return
    yield Finding("artifacts", f"{artifacts_path}: {', '.join(datasets) or 'no dataset'}")
    objects = {
        stored
        for dataset in datasets.values()
        for stored in (
            dataset.assembly,
            dataset.stimulus_csv,
            dataset.stimulus_zip,
            *dataset.region_assemblies.values(),
        )
    }
    is_needed = source is not None and not source.is_dir()
    yield _examine_cache(objects)
    yield _examine_credentials(is_needed=is_needed and not all(map(is_cached, objects)))


def _examine_releases(folder: Path) -> Iterator[Finding]:
    paths = list_releases(folder)
    if not paths:
        yield Finding(
            "release", f"none in {folder}", f"Build one (allen2022-surface build), or unset {RELEASE_VARIABLE}."
        )
    names: dict[str, Path] = {}
    for path in paths:
        try:
            name, is_simulated = describe_release(path)
        except (OSError, ValueError) as error:
            yield Finding("release", str(path), " ".join(str(error).split()))
            continue
        advice = ""
        if name in names:
            advice = f"{names[name]} has the same name. Load from one of these folders, or remove one."
        names.setdefault(name, path)
        yield Finding("release", f"{path}: {name}{', simulated' if is_simulated else ''}", advice)


def _examine_cache(objects: set[StoredObject]) -> Finding:
    try:
        folder = cache_path()
        cached = {stored for stored in objects if is_cached(stored)}
    except (OSError, ValueError) as error:
        return Finding("cache", "none", str(error))
    missing = objects - cached
    sizes = [stored.size for stored in missing if stored.size is not None]
    parts = [f"{len(cached)} of {len(objects)} objects"]
    if sizes:
        parts.append(f"{format_bytes(sum(sizes))} would be downloaded")
    if len(sizes) < len(missing):
        parts.append(f"{len(missing) - len(sizes)} objects of unknown size would be downloaded")
    state = f"{folder}: {', '.join(parts)}"
    if folder.exists() and not folder.is_dir():
        return Finding(
            "cache", state, f"{folder} is not a folder. Remove it, or set {CACHE_VARIABLE} to another folder."
        )
    if folder.exists() and not os.access(folder, os.W_OK):
        return Finding("cache", state, f"{folder} is read-only. Set {CACHE_VARIABLE} to a folder that you may write.")
    return Finding("cache", state)


def _examine_credentials(*, is_needed: bool) -> Finding:
    """Say whether there are AWS credentials. Messages of boto3 may hold parts of them, so none is shown."""
    try:
        credentials = botocore.session.Session().get_credentials()
    except BotoCoreError as error:
        return Finding(
            "credentials",
            f"damaged ({type(error).__name__})",
            "Correct AWS_PROFILE, the AWS_ variables or ~/.aws/credentials.",
        )
    if credentials is not None:
        return Finding("credentials", "present")
    advice = (
        "The bucket may ask for credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Without any, set "
        f"{RELEASE_VARIABLE} to a release on disk."
    )
    return Finding("credentials", "none", advice if is_needed else "")


def _examine_identifier(identifier: str) -> Iterator[Finding]:
    """Examine why Brain-Score does not find or load an identifier."""
    by_registry = {registry: registered_identifiers(registry) for registry in LOADERS}
    known = [registry for registry, identifiers in by_registry.items() if identifier in identifiers]
    if not known:
        close = difflib.get_close_matches(identifier, by_registry["data_registry"], n=3, cutoff=0.5)
        meant = f"Did you mean {' or '.join(close)}? " if close else ""
        yield Finding(
            identifier,
            "is no identifier of this plugin, so Brain-Score says: No registrations found",
            f"{meant}All identifiers: {links.COMMAND} list",
        )
        return
    try:
        source = default_source()
    except (OSError, ValueError):
        return  # it is among the findings already
    for registry in known:
        listing = list_identifier(registry, identifier, source)
        place = "on this machine" if listing.is_here else "to be downloaded"
        state = "not found" if listing.problem else f"{listing.location}, {format_bytes(listing.n_bytes)}, {place}"
        yield Finding(LOADERS[registry], state, listing.problem)
