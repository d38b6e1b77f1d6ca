"""The plugin in the installed brainscore_vision: link it there, list what it would load, and examine what is wrong."""

from __future__ import annotations

import difflib
import filecmp
import os
import shutil
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import botocore.session
from botocore.exceptions import BotoCoreError

from .errors import PackagingError, one_line
from .plugin import LIBRARY, LINK_NAME, PLUGIN, import_plugin, plugin_path, registrations
from .progress import format_bytes
from .publish.artifacts import read_artifacts
from .release import Manifest, ReleaseFolder

COMMAND = "allen2022-surface"
CACHE_VARIABLE = "BRAINIO_HOME"
LOADERS = {"data_registry": "load_dataset", "stimulus_set_registry": "load_stimulus_set"}
# What an unusable source raises: RuntimeError is for a home folder that does not exist.
UNUSABLE = (OSError, RuntimeError, ValueError)


def link() -> str:
    """Link the plugin into the folder `data` of brainscore_vision, or copy it to there if links are not allowed.

    Returns
    -------
    one sentence for the user, which says what was done

    Raises
    ------
    PackagingError
        If brainscore_vision or the plugin is not installed, or there is something else with the name of the link.
    """
    link_path, target = data_path() / LINK_NAME, plugin_path().resolve()
    if link_path.resolve() == target:
        return f"{link_path} is linked already."
    if is_linked():
        _remove(link_path)  # a copy, a link to another copy, or a link whose target does not exist
    elif link_path.exists():
        raise PackagingError(f"{link_path} exists already and is not this plugin. Move it to another folder.")
    try:
        link_path.symlink_to(target, target_is_directory=True)
    except OSError:
        shutil.copytree(target, link_path, ignore=shutil.ignore_patterns("__pycache__"))
        return f"{link_path} is a copy of {target}, because links are not allowed there."
    return f"{link_path} links to {target}."


def unlink() -> str:
    """Remove the link to the plugin, or the copy of it, from brainscore_vision.

    Returns
    -------
    one sentence for the user, which says what was done

    Raises
    ------
    PackagingError
        If brainscore_vision or the plugin is not installed, or there is something else with the name of the link.
    """
    link_path = data_path() / LINK_NAME
    if not link_path.exists() and not link_path.is_symlink():
        return f"{link_path} does not exist."
    if not is_linked():
        raise PackagingError(f"{link_path} is not this plugin, so it stays.")
    _remove(link_path)
    return f"{link_path} is removed."


def is_linked() -> bool:
    """Return whether brainscore_vision holds a link to the plugin, or a copy of it. A link without a target counts."""
    link_path = data_path() / LINK_NAME
    if link_path.is_symlink() and not link_path.exists():
        return True
    code_path = link_path / "__init__.py"
    return code_path.is_file() and filecmp.cmp(code_path, plugin_path() / "__init__.py", shallow=False)


def data_path() -> Path:
    """Return the folder of the data plugins of brainscore_vision.

    Raises
    ------
    PackagingError
        If brainscore_vision is not installed.
    """
    # brainscore_vision is only located: importing it takes seconds, and needs all its requirements.
    spec = find_spec(LIBRARY)
    if spec is None or spec.origin is None:
        raise PackagingError("brainscore_vision is not installed here. Install it: pip install brainscore_vision")
    return Path(spec.origin).parent / "data"


def _remove(path: Path) -> None:
    """Remove a link or a copy that `link` made. What `export` wrote for a pull request has no `analysis`, and stays."""
    if path.is_symlink():
        path.unlink()
    elif (path / "analysis").is_dir():
        shutil.rmtree(path)
    else:
        raise PackagingError(f"{path} was written by export and not by link, so it stays. Remove it yourself.")


class Listing(NamedTuple):
    """Where the data of an identifier comes from.

    Attributes
    ----------
    files : what is loaded: a path on this machine or an S3 object each. Empty if it cannot be found.
    problem : why it cannot be found; empty if it can
    """

    identifier: str
    loader: str
    files: tuple[Any, ...] = ()
    problem: str = ""

    def describe(self) -> tuple[str, str, str]:
        """Return for people: the size, whether everything is on this machine, and where it comes from."""
        if self.problem:
            return "", "no", "not found, see below"
        sizes, first = [_size(file) for file in self.files], self.files[0]
        size = "unknown" if None in sizes else format_bytes(sum(size or 0 for size in sizes))
        is_here = all(_local_path(file).exists() for file in self.files)
        return (
            size,
            "yes" if is_here else "no",
            str(first if isinstance(first, Path) else f"s3://{first.bucket}/{first.key}"),
        )


def list_identifiers(source: Path) -> list[Listing]:
    """List all identifiers of the plugin with the files that they would load. Nothing is downloaded.

    Parameters
    ----------
    source : a release, a folder of releases, or an artifacts file
    """
    loaders, listings = import_plugin("loaders"), []
    for registry, identifier in registrations(plugin_path()):
        name, *region, split = identifier.split(".")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", loaders.SimulatedDataWarning)  # `doctor` says it
                dataset = loaders.find_dataset(name, split, region[0] if region else None, source)
        except UNUSABLE as error:
            listings.append(Listing(identifier, LOADERS[registry], problem=one_line(error)))
            continue
        is_assembly = registry == "data_registry"
        files = (dataset.assembly,) if is_assembly else (dataset.stimuli, dataset.stimulus_table)
        listings.append(Listing(identifier, LOADERS[registry], files))
    return listings


def describe_inventory() -> str:
    """Describe every identifier in a table for people: where its data comes from, its size, whether it is here.

    Raises
    ------
    PackagingError
        If the source that the environment names is missing.
    """
    source, cache = _default_source(), import_plugin("loaders").get_local_data_path()
    listings = list_identifiers(source)
    lines = [f"Source: {source}" + ("" if source.is_dir() else f"; downloads stay in {cache}")]
    for loader in LOADERS.values():
        rows = [(one.identifier, *one.describe()) for one in listings if one.loader == loader]
        columns = zip((loader, "size", "on this machine", "from"), *rows, strict=True)
        padded = [[f"{cell:{max(map(len, column))}}" for cell in column] for column in columns]
        lines += ["", *("  ".join(row).rstrip() for row in zip(*padded, strict=True))]
    problems = dict.fromkeys(one.problem for one in listings if one.problem)
    return "\n".join([*lines, *(["", *problems] if problems else [])])


def _local_path(file: Any) -> Path:
    """Return where a file is, or where an S3 object is once it is downloaded."""
    path: Path = file if isinstance(file, Path) else file.cached_path
    return path


def _size(file: Any) -> int | None:
    """Return the size of a file or of the files in a folder; of an S3 object if it is known."""
    path = _local_path(file)
    if path.is_dir():
        return sum(one.stat().st_size for one in path.iterdir())
    size: int | None = path.stat().st_size if path is file or path.exists() else file.size
    return size


def _default_source() -> Path:
    """Return what the environment names, or else the shipped artifacts file."""
    loaders = import_plugin("loaders")
    try:
        source: Path = loaders.default_source()
    except UNUSABLE as error:
        raise PackagingError(one_line(error)) from error
    if not source.exists():
        names = f"{loaders.RELEASE_VARIABLE} or {loaders.ARTIFACTS_VARIABLE}"
        raise PackagingError(f"{source} does not exist. Set {names} to a release or an artifacts file, or unset it.")
    return source


class Finding(NamedTuple):
    """A fact about this machine.

    Attributes
    ----------
    advice : what to do; empty if nothing is wrong
    """

    subject: str
    state: str
    advice: str = ""


def examine(identifier: str | None = None) -> list[Finding]:
    """Examine everything that loading needs: what is installed, linked, set, found and cached. Nothing is downloaded.

    Credentials are looked for, but never shown.

    Parameters
    ----------
    identifier : one that Brain-Score does not find or load
    """
    loaders = import_plugin("loaders")
    findings = [Finding("plugin", f"{plugin_path()}{_version(PLUGIN)}"), *_examine_library()]
    for variable in (loaders.RELEASE_VARIABLE, loaders.ARTIFACTS_VARIABLE, CACHE_VARIABLE):
        findings.append(Finding(variable, os.environ.get(variable) or "not set"))
    try:
        source = _default_source()
    except PackagingError as error:
        return [*findings, Finding("source", "none", str(error))]
    findings += _examine_releases(source) if source.is_dir() else _examine_objects(source)
    return [*findings, *(_examine_identifier(identifier, source) if identifier else ())]


def describe_findings(findings: list[Finding]) -> Iterator[str]:
    """Yield a line about each finding and about each advice, and at last the number of problems."""
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        yield f"{'!' if finding.advice else ' '} {finding.subject:{width}}  {finding.state}"
        if finding.advice:
            yield f"      -> {finding.advice}"
    n_problems = sum(bool(finding.advice) for finding in findings)
    yield f"\n{n_problems or 'No'} problem{'' if n_problems == 1 else 's'} found."


def _version(distribution: str) -> str:
    try:
        return f", version {version(distribution)}"
    except PackageNotFoundError:
        return ""


def _examine_library() -> Iterator[Finding]:
    """Examine brainscore_vision, and whether it finds the plugin."""
    try:
        path = data_path() / LINK_NAME
    except PackagingError as error:
        yield Finding(LIBRARY, "not installed", str(error))
        return
    yield Finding(LIBRARY, f"{path.parents[1]}{_version(LIBRARY)}")
    target = f" -> {path.resolve()}" if path.is_symlink() else ""
    again = f"Link this one: {COMMAND} link"
    if not path.exists():
        state = f"{path}{target} leads nowhere" if target else f"{path} does not exist"
        yield Finding("link", state, f"Brain-Score does not find this plugin. Link it: {COMMAND} link")
    elif not is_linked():
        yield Finding("link", f"{path}{target} is another plugin", f"Move it to another folder. {again}")
    elif target and path.resolve() != plugin_path().resolve():
        yield Finding("link", f"{path}{target} is another copy of this plugin", again)
    else:
        yield Finding("link", f"{path}{target or ' is a copy'}")
    plugins = {folder: {one for _, one in registrations(folder)} for folder in sorted(path.parent.glob("[!._]*"))}
    for identifier in dict.fromkeys(one for _, one in registrations(plugin_path())):
        found = [str(folder) for folder, identifiers in plugins.items() if identifier in identifiers]
        if len(found) > 1:
            advice = "Brain-Score takes it from one only. Remove the others."
            yield Finding(identifier, f"is registered in {' and '.join(found)}", advice)


def _examine_releases(folder: Path) -> Iterator[Finding]:
    """Examine a release, or a folder of releases."""
    paths: dict[str, Path] = {}
    releases = [folder, *sorted(path.parent for path in folder.glob("[!.]*/release.json"))]
    releases = [path for path in releases if (path / "release.json").is_file()]
    for path in releases:
        try:
            manifest = Manifest.read(ReleaseFolder(path))
        except PackagingError as error:
            yield Finding("release", str(path), str(error))
            continue
        other = paths.setdefault(manifest.name, path)
        advice = f"{other} has the same name. Load from one of these folders, or remove one."
        state = f"{path}: {manifest.name}{', simulated' if manifest.simulated else ''}"
        yield Finding("release", state, "" if other == path else advice)
    if not releases:
        variable = import_plugin("loaders").RELEASE_VARIABLE
        yield Finding("release", f"none in {folder}", f"Build one ({COMMAND} build), or unset {variable}.")


def _examine_objects(artifacts_path: Path) -> Iterator[Finding]:
    """Examine an artifacts file, the cache of its objects, and whether there are credentials."""
    try:
        names = [identifier for identifier in read_artifacts(artifacts_path) if identifier.count(".") == 1]
    except PackagingError as error:
        yield Finding("artifacts", "none", str(error))
        return
    yield Finding("artifacts", f"{artifacts_path}: {', '.join(names) or 'no dataset'}")
    objects = {file.cached_path: file for one in list_identifiers(artifacts_path) for file in one.files}
    sizes = [file.size for path, file in objects.items() if not path.exists()]  # of what is not in the cache
    known = [size for size in sizes if size is not None]
    folder = Path(import_plugin("loaders").get_local_data_path())
    parts = [f"{len(objects) - len(sizes)} of {len(objects)} objects"]
    if known:
        parts.append(f"{format_bytes(sum(known))} would be downloaded")
    if len(known) < len(sizes):
        parts.append(f"{len(sizes) - len(known)} objects of unknown size would be downloaded")
    advice = ""
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
        advice = f"{folder} is no folder that you may write. Set {CACHE_VARIABLE} to one."
    yield Finding("cache", f"{folder}: {', '.join(parts)}", advice)
    yield _examine_credentials(is_needed=len(sizes) > 0)


def _examine_credentials(*, is_needed: bool) -> Finding:
    """Say whether there are AWS credentials. Messages of boto3 may hold parts of them, so none is shown."""
    try:
        credentials = botocore.session.Session().get_credentials()
    except BotoCoreError as error:
        advice = "Correct AWS_PROFILE, the AWS_ variables or ~/.aws/credentials."
        return Finding("credentials", f"damaged ({type(error).__name__})", advice)
    if credentials is not None or not is_needed:
        return Finding("credentials", "none" if credentials is None else "present")
    return Finding(
        "credentials",
        "none",
        "The bucket may ask for credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Without any, set "
        f"{import_plugin('loaders').RELEASE_VARIABLE} to a release on disk.",
    )


def _examine_identifier(identifier: str, source: Path) -> Iterator[Finding]:
    """Examine why Brain-Score does not find or load an identifier."""
    listings = list_identifiers(source)
    found = [one for one in listings if one.identifier == identifier]
    for one in found:
        size, is_here, location = one.describe()
        state = f"{location}, {size}, {'on this machine' if is_here == 'yes' else 'to be downloaded'}"
        yield Finding(one.loader, "not found" if one.problem else state, one.problem)
    if not found:
        close = difflib.get_close_matches(identifier, {one.identifier for one in listings}, n=3, cutoff=0.5)
        meant = f"Did you mean {' or '.join(close)}? " if close else ""
        state = "is no identifier of this plugin, so Brain-Score says: No registrations found"
        yield Finding(identifier, state, f"{meant}All identifiers: {COMMAND} list")
