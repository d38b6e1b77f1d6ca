"""What each identifier would load here, and what is wrong with this installation. Nothing is downloaded.

Packages that may be broken are imported where they are needed, because `doctor` looks for that.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import redirect_stderr, suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, NamedTuple

from .errors import PackagingError, describe_os_error, one_line
from .files import read_file
from .link import data_path, is_linked
from .plugin import LIBRARY, LINK_NAME, PLUGIN, import_plugin, plugin_path, registrations
from .progress import format_bytes

COMMAND = "allen2022-surface"
CACHE_VARIABLE = "BRAINIO_HOME"
OTHER_VARIABLES = ("BRAINIO_CHUNKS", "BRAINSCORE_HOME", "RESULTCACHING_HOME", "RESULTCACHING_DISABLE")  # of Brain-Score
PARTS_OF_NAMES = ("ALLEN2022", "BRAINIO")  # a variable with one of these in its name is meant for loading
LOADERS = {"data_registry": "load_dataset", "stimulus_set_registry": "load_stimulus_set"}
BOTH_OF_TORCH = "Install both from one index, such as: pip install --index-url https://download.pytorch.org/whl/cpu torch torchvision"
# What an unusable source raises: RuntimeError is for a home folder that does not exist.
UNUSABLE = (OSError, RuntimeError, ValueError)


class File(NamedTuple):
    """A file that would be loaded.

    Attributes
    ----------
    path : where it is; of an S3 object, where it is once it is downloaded
    size : in bytes, of all files if it is a folder; None if it is unknown
    address : for people
    """

    path: Path
    size: int | None
    address: str


class Listing(NamedTuple):
    """What an identifier loads: some files; or why it cannot be found, and no files."""

    identifier: str
    loader: str
    files: tuple[File, ...] = ()
    problem: str = ""

    def describe(self) -> tuple[str, str, str]:
        """Return for people: the size, whether everything is on this machine, and where it comes from."""
        if self.problem:
            return "", "no", "not found, see below"
        is_here = all(file.path.exists() for file in self.files)
        return _total(file.size for file in self.files), "yes" if is_here else "no", self.files[0].address


def _total(sizes: Iterable[int | None]) -> str:
    known = list(sizes)
    return "unknown" if None in known else format_bytes(sum(size or 0 for size in known))


def list_identifiers(source: Path) -> list[Listing]:
    """List all identifiers of the plugin with the files that they would load.

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
        files = (dataset.assembly,) if registry == "data_registry" else (dataset.stimuli, dataset.stimulus_table)
        listings.append(Listing(identifier, LOADERS[registry], tuple(map(_locate, files))))
    return listings


def _locate(file: Any) -> File:
    """Find a path or an S3 object on this machine."""
    path, address = (
        (file, str(file)) if isinstance(file, Path) else (file.cached_path, f"s3://{file.bucket}/{file.key}")
    )
    if path.is_dir():
        return File(path, sum(one.stat().st_size for one in path.iterdir()), address)
    return File(path, path.stat().st_size if path.exists() else getattr(file, "size", None), address)


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
    """A fact about this machine; and advice, which is empty if nothing is wrong."""

    subject: str
    state: str
    advice: str = ""


def examine(identifier: str | None = None) -> list[Finding]:
    """Examine everything that loading needs: what is installed, linked, set, found and cached.

    Credentials are looked for, but never shown.

    Parameters
    ----------
    identifier : one that Brain-Score does not find or load
    """
    findings = [Finding("plugin", f"{plugin_path()}, version {_version(PLUGIN)}")]
    for part in (_examine_library, _examine_packages, _examine_variables, partial(_examine_data, identifier)):
        try:
            with redirect_stderr(io.StringIO()):  # NumPy 2 writes pages about packages that were compiled for NumPy 1
                findings += part()
        except Exception as error:  # whatever a package raises that does not fit to others
            advice = "A package is missing, damaged, or does not fit to the others."
            advice = describe_os_error(error) if isinstance(error, OSError) else advice
            findings.append(Finding("error", f"{type(error).__name__}: {one_line(error)}", advice))
    return findings


def describe_findings(findings: list[Finding]) -> Iterator[str]:
    """Yield a line about each finding and about each advice, and at last the number of problems."""
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        yield f"{'!' if finding.advice else ' '} {finding.subject:{width}}  {finding.state}"
        if finding.advice:
            yield f"      -> {finding.advice}"
    n_problems = sum(bool(finding.advice) for finding in findings)
    yield f"\n{n_problems or 'No'} problem{'' if n_problems == 1 else 's'} found."


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _identifiers(folder: Path) -> dict[str, None]:
    """Return the identifiers that a plugin registers, each once, in order."""
    return dict.fromkeys(identifier for _, identifier in registrations(folder))


def _library_plugins() -> dict[Path, dict[str, None]]:
    """Return the identifiers of every data plugin in brainscore_vision, if that is installed."""
    with suppress(PackagingError):
        return {folder: _identifiers(folder) for folder in sorted(data_path().glob("[!._]*"))}
    return {}


def _examine_packages() -> Iterator[Finding]:
    """Compare the versions of packages with those that this package, Brain-Score and torchvision ask for."""
    from packaging.requirements import Requirement

    wrong: dict[str, set[str]] = {}
    for distribution in (PLUGIN, "brainscore_core", LIBRARY, "torchvision"):
        for text in requires(distribution) or () if _version(distribution) else ():
            requirement = Requirement(text)
            found, expected = _version(requirement.name), requirement.specifier
            # Brain-Score's own requirements may be installed under another name, such as opencv-python-headless.
            is_wrong = not expected.contains(found, prereleases=True) if found else distribution == PLUGIN
            if is_wrong and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                wrong.setdefault(requirement.name, set()).add(str(expected))
    for name, ranges in wrong.items():
        found, expected_range = _version(name), ",".join(sorted(ranges))
        state = f"{found}, expected {expected_range}" if found else "not installed"
        yield Finding(name, state, f"Install it: pip install '{name}{expected_range}'")
    torch, torchvision = ((_version(name) or "").partition("+")[2] for name in ("torch", "torchvision"))
    if torch != torchvision and (torch and torchvision or "cpu" in (torch, torchvision)):  # no label is CUDA, as a rule
        state = f"built for {torchvision or 'another device'}, but torch for {torch or 'another device'}"
        yield Finding("torchvision", state, f"Loading works, but models that need torchvision do not. {BOTH_OF_TORCH}")


def _examine_variables() -> Iterator[Finding]:
    """List the variables that choose the source, and those whose name is nearly right."""
    text = read_file(plugin_path() / "loaders.py").decode()
    names = [*re.findall(r'^\w+_VARIABLE = "(\w+)"', text, re.MULTILINE), CACHE_VARIABLE]
    for name in names:
        yield Finding(name, os.environ.get(name) or "not set")
    names += OTHER_VARIABLES
    for name in sorted(set(os.environ) - set(names)):
        is_meant = any(part in name.upper() for part in PARTS_OF_NAMES)
        close = difflib.get_close_matches(name.upper(), names, n=1, cutoff=0.4 if is_meant else 0.85)
        if close:
            yield Finding(name, "is set, but nothing reads it", f"Did you mean {close[0]}?")


def _examine_library() -> Iterator[Finding]:
    """Examine brainscore_vision, and whether it finds the plugin."""
    try:
        path = data_path() / LINK_NAME
    except PackagingError as error:
        yield Finding(LIBRARY, "not installed", str(error))
        return
    yield Finding(LIBRARY, f"{path.parents[1]}, version {_version(LIBRARY)}")
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
    plugins = _library_plugins()
    for identifier in _identifiers(plugin_path()):
        found = [str(folder) for folder, identifiers in plugins.items() if identifier in identifiers]
        if len(found) > 1:
            advice = "Brain-Score takes it from one only. Remove the others."
            yield Finding(identifier, f"is registered in {' and '.join(found)}", advice)


def _examine_data(identifier: str | None) -> Iterator[Finding]:
    """Examine the source of the data, and what an identifier loads from it."""
    known = _identifiers(plugin_path())
    if identifier and identifier not in known:
        close = difflib.get_close_matches(identifier, known, n=3, cutoff=0.5)
        meant = f"Did you mean {' or '.join(close)}? " if close else ""
        others = [folder for folder, identifiers in _library_plugins().items() if identifier in identifiers]
        answer = f"It is one of {others[0]}" if others else "Brain-Score says: No registrations found"
        state = f"is no identifier of this plugin. {answer}"
        yield Finding(identifier, state, f"{meant}All identifiers: {COMMAND} list")
    try:
        source = _default_source()
    except PackagingError as error:
        yield Finding("source", "none", str(error))
        return
    listings = list_identifiers(source)
    yield from _examine_releases(source) if source.is_dir() else _examine_objects(source, listings)
    for listing in listings:
        if listing.identifier == identifier:
            size, is_here, location = listing.describe()
            state = f"{location}, {size}, {'on this machine' if is_here == 'yes' else 'to be downloaded'}"
            yield Finding(listing.loader, "not found" if listing.problem else state, listing.problem)


def _examine_releases(folder: Path) -> Iterator[Finding]:
    """Examine a release, or a folder of releases."""
    from .release import Manifest, ReleaseFolder

    paths: dict[str, Path] = {}
    releases = [path for path in (folder, *sorted(folder.glob("[!.]*"))) if (path / "release.json").is_file()]
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


def _examine_objects(artifacts_path: Path, listings: list[Listing]) -> Iterator[Finding]:
    """Examine an artifacts file, the cache of its objects, and whether there are credentials."""
    from .publish.artifacts import read_artifacts

    try:
        names = [identifier for identifier in read_artifacts(artifacts_path) if identifier.count(".") == 1]
    except PackagingError as error:
        yield Finding("artifacts", "none", str(error))
        return
    yield Finding("artifacts", f"{artifacts_path}: {', '.join(names) or 'no dataset'}")
    sizes = {file.path: file.size for listing in listings for file in listing.files}
    missing = [size for path, size in sizes.items() if not path.exists()]
    folder = Path(import_plugin("loaders").get_local_data_path())
    state = f"{folder}: {len(sizes) - len(missing)} of {len(sizes)} objects"
    state += f"; to be downloaded: {_total(missing)}" if missing else ""
    advice = ""
    if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
        advice = f"{folder} is no folder that you may write. Set {CACHE_VARIABLE} to one."
    yield Finding("cache", state, advice)
    yield _examine_credentials(is_needed=len(missing) > 0)


def _examine_credentials(*, is_needed: bool) -> Finding:
    """Say whether there are AWS credentials. Messages of boto3 may hold parts of them, so none is shown."""
    import botocore.session
    from botocore.exceptions import BotoCoreError

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
