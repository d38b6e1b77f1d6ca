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
from importlib.metadata import requires, version
from pathlib import Path
from typing import NamedTuple

from .errors import PackagingError, describe_os_error, one_line
from .link import data_path, is_linked
from .plugin import (
    ARTIFACTS_VARIABLE,
    LIBRARY,
    LINK_NAME,
    PLUGIN,
    RELEASE_VARIABLE,
    import_plugin,
    plugin_path,
    registrations,
)
from .progress import format_bytes

COMMAND = "allen2022-surface"
CACHE_VARIABLE = "BRAINIO_HOME"
OTHER_VARIABLES = ("BRAINIO_CHUNKS", "BRAINSCORE_HOME", "RESULTCACHING_HOME", "RESULTCACHING_DISABLE")  # of Brain-Score
MEANT_FOR_LOADING = re.compile("ALLEN2022|BRAINIO|BRAIN.*SURFACE")  # in the name of a variable
LOADERS = {"data_registry": "load_dataset", "stimulus_set_registry": "load_stimulus_set"}
BOTH_OF_TORCH = "Install both from one index, such as: pip install --index-url https://download.pytorch.org/whl/cpu torch torchvision"
# What an unusable source raises: RuntimeError is for a home folder that does not exist.
UNUSABLE = (OSError, RuntimeError, ValueError)


class Loaded(NamedTuple):
    """What an identifier loads: the size of each file by its path, None if unknown; or no files, and why it is not found.

    The path of an S3 object is where it is once it is downloaded. `address` is for people: of the first file.
    """

    loader: str
    identifier: str
    sizes: dict[Path, int | None]
    address: str = "not found, see below"
    problem: str = ""

    def describe(self) -> tuple[str, str, str]:
        """Return for people: the size, whether everything is on this machine, and where it comes from."""
        if self.problem:
            return "", "no", self.address
        return _total(self.sizes.values()), "yes" if all(path.exists() for path in self.sizes) else "no", self.address


def _total(sizes: Iterable[int | None]) -> str:
    known = list(sizes)
    return "unknown" if None in known else format_bytes(sum(size or 0 for size in known))


def list_loaded(source: Path) -> Iterator[Loaded]:
    """Yield for each identifier of the plugin what it would load from a release, a folder of releases, or an artifacts file."""
    loaders = import_plugin("loaders")
    for registry, identifier in registrations(plugin_path()):
        name, *region, split = identifier.split(".")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", loaders.SimulatedDataWarning)  # `doctor` says it
                dataset = loaders.find_dataset(name, split, *region, source=source)
        except UNUSABLE as error:
            yield Loaded(LOADERS[registry], identifier, {}, problem=one_line(error))
            continue
        sizes: dict[Path, int | None] = {}
        files = (dataset.assembly,) if registry == "data_registry" else (dataset.stimuli, dataset.stimulus_table)
        for file in files:
            path = file if isinstance(file, Path) else file.cached_path
            found = [one.stat().st_size for one in (path.iterdir() if path.is_dir() else [path]) if path.exists()]
            sizes[path] = sum(found) if found else getattr(file, "size", None)
        address = str(files[0]) if isinstance(files[0], Path) else f"s3://{files[0].bucket}/{files[0].key}"
        yield Loaded(LOADERS[registry], identifier, sizes, address)


def describe_inventory() -> str:
    """Describe every identifier in a table for people: where its data comes from, its size, whether it is here.

    Raises
    ------
    PackagingError
        If the source that the environment names is missing.
    """
    source, cache = _default_source(), import_plugin("loaders").get_local_data_path()
    loaded = list(list_loaded(source))
    lines = [f"Source: {source}" + ("" if source.is_dir() else f"; downloads stay in {cache}")]
    for loader in LOADERS.values():
        rows = [(one.identifier, *one.describe()) for one in loaded if one.loader == loader]
        columns = zip((loader, "size", "on this machine", "from"), *rows, strict=True)
        padded = [[f"{cell:{max(map(len, column))}}" for cell in column] for column in columns]
        lines += ["", *("  ".join(row).rstrip() for row in zip(*padded, strict=True))]
    problems = dict.fromkeys(one.problem for one in loaded if one.problem)
    return "\n".join([*lines, *(["", *problems] if problems else [])])


def _default_source() -> Path:
    """Return what the environment names, or else the shipped artifacts file. A source that is missing is an error."""
    try:
        source: Path = import_plugin("loaders").default_source()
        found = source.exists()
    except (RuntimeError, ValueError) as error:
        raise PackagingError(one_line(error)) from error
    if not found:
        names = f"{RELEASE_VARIABLE} or {ARTIFACTS_VARIABLE}"
        raise PackagingError(f"{source} does not exist. Set {names} to a release or an artifacts file, or unset it.")
    return source


class Finding(NamedTuple):
    """A fact about this machine; and advice, which is empty if nothing is wrong."""

    subject: str
    state: str
    advice: str = ""


def examine(identifier: str | None = None) -> Iterator[Finding]:
    """Examine everything that loading needs: what is installed, linked, set, found and cached.

    Credentials are looked for, but never shown.

    Parameters
    ----------
    identifier : one that Brain-Score does not find or load
    """
    yield Finding("plugin", f"{plugin_path()}, version {_version(PLUGIN)}")
    for subject, findings in (
        (LIBRARY, _examine_library()),
        ("packages", _examine_packages()),
        ("variables", _examine_variables()),
        ("identifier", _examine_identifier(identifier)),
        ("source", _examine_source(identifier)),
    ):
        try:
            with redirect_stderr(io.StringIO()):  # NumPy 2 writes pages about packages that were compiled for NumPy 1
                yield from findings
        except PackagingError as error:
            yield Finding(subject, "not usable", str(error))
        except (Exception, SystemExit) as error:  # whatever a package raises that does not fit to others
            advice = "A package is missing, damaged, or does not fit to the others."
            advice = describe_os_error(error) if isinstance(error, OSError) else advice
            yield Finding("error", f"{type(error).__name__}: {one_line(error)}", advice)


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
    """Return the version of a distribution; None if it is not installed, or its METADATA cannot be read."""
    with suppress(Exception):
        return version(distribution)
    return None


def _registering(identifier: str) -> list[str]:
    """List the data plugins of brainscore_vision that register an identifier."""
    with suppress(PackagingError):
        folders = sorted(data_path().glob("[!._]*"))
        return [str(folder) for folder in folders if identifier in (name for _, name in registrations(folder))]
    return []


def _examine_library() -> Iterator[Finding]:
    """Examine brainscore_vision, and whether it finds the plugin."""
    path = data_path() / LINK_NAME
    yield Finding(LIBRARY, f"{path.parents[1]}, version {_version(LIBRARY)}")
    shown = f"{path} -> {path.resolve()}" if path.is_symlink() else str(path)
    state, advice = shown if path.is_symlink() else f"{path} is a copy", ""
    if not path.exists():
        state = f"{shown} leads nowhere" if path.is_symlink() else f"{path} does not exist"
        advice = f"Brain-Score does not find this plugin. Link it: {COMMAND} link"
    elif not is_linked():
        state, advice = f"{shown} is another plugin", f"Move it to another folder. Link this one: {COMMAND} link"
    elif path.is_symlink() and path.resolve() != plugin_path().resolve():
        state, advice = f"{shown} is another copy of this plugin", f"Link this one: {COMMAND} link"
    yield Finding("link", state, advice)
    for identifier in dict.fromkeys(name for _, name in registrations(plugin_path())):
        folders = _registering(identifier)
        if len(folders) > 1:
            advice = "Brain-Score takes it from one only. Remove the others."
            yield Finding(identifier, f"is registered in {' and '.join(folders)}", advice)


def _examine_packages() -> Iterator[Finding]:
    """Compare the versions of packages with those that this package, Brain-Score and torchvision ask for."""
    from packaging.requirements import InvalidRequirement, Requirement

    wrong: dict[str, set[str]] = {}
    for distribution in (PLUGIN, "brainscore_core", LIBRARY, "torchvision"):
        for text in requires(distribution) or () if _version(distribution) else ():
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                again = f"Install it again: pip install --force-reinstall --no-deps {distribution}"
                yield Finding(distribution, f"is damaged: it asks for {text!r}", again)
                continue
            found, expected = _version(requirement.name), requirement.specifier
            # Brain-Score's own requirements may be installed under another name, such as opencv-python-headless.
            is_wrong = not expected.contains(found, prereleases=True) if found else distribution == PLUGIN
            if is_wrong and (requirement.marker is None or requirement.marker.evaluate({"extra": ""})):
                wrong.setdefault(requirement.name, set()).add(str(expected))
    for name, ranges in wrong.items():
        found, expected_range = _version(name), ",".join(sorted(ranges))
        state = f"{found}, expected {expected_range}" if found else "not installed, or its METADATA is damaged"
        yield Finding(name, state, f"Install it: pip install '{name}{expected_range}'")
    torch, torchvision = ((_version(name) or "").partition("+")[2] for name in ("torch", "torchvision"))
    if torch != torchvision and (torch and torchvision or "cpu" in (torch, torchvision)):  # no label is CUDA, as a rule
        state = f"built for {torchvision or 'another device'}, but torch for {torch or 'another device'}"
        yield Finding("torchvision", state, f"Loading works, but models that need torchvision do not. {BOTH_OF_TORCH}")


def _examine_variables() -> Iterator[Finding]:
    """List the variables that choose the source, and those whose name is nearly right."""
    names = [RELEASE_VARIABLE, ARTIFACTS_VARIABLE, CACHE_VARIABLE]
    for name in names:
        yield Finding(name, os.environ.get(name) or "not set")
    names += OTHER_VARIABLES
    for name in sorted(set(os.environ) - set(names)):
        cutoff = 0.4 if MEANT_FOR_LOADING.search(name.upper()) else 0.85
        for close in difflib.get_close_matches(name.upper(), names, n=1, cutoff=cutoff):
            yield Finding(name, "is set, but nothing reads it", f"Did you mean {close}?")


def _examine_identifier(identifier: str | None) -> Iterator[Finding]:
    """Say what is meant by an identifier that the plugin does not register."""
    known = [name for _, name in registrations(plugin_path())]
    if identifier and identifier not in known:
        close = difflib.get_close_matches(identifier, dict.fromkeys(known), n=3, cutoff=0.5)
        meant = f"Did you mean {' or '.join(close)}? " if close else ""
        others = _registering(identifier)
        answer = f"It is one of {others[0]}" if others else "Brain-Score says: No registrations found"
        state = f"is no identifier of this plugin. {answer}"
        yield Finding(identifier, state, f"{meant}All identifiers: {COMMAND} list")


def _examine_source(identifier: str | None) -> Iterator[Finding]:
    """Examine the source of the data, and what an identifier loads from it."""
    source = _default_source()
    loaded = list(list_loaded(source))
    yield from _examine_releases(source) if source.is_dir() else _examine_objects(source, loaded)
    for one in loaded:
        if one.identifier == identifier:
            size, is_here, address = one.describe()
            state = f"{address}, {size}, {'on this machine' if is_here == 'yes' else 'to be downloaded'}"
            yield Finding(one.loader, "not found" if one.problem else state, one.problem)


def _examine_releases(folder: Path) -> Iterator[Finding]:
    """Examine a release, or a folder of releases."""
    from .release import Manifest, ReleaseFolder

    first: dict[str, Path] = {}
    paths = [path for path in (folder, *sorted(folder.glob("[!.]*"))) if (path / "release.json").is_file()]
    for path in paths:
        try:
            manifest = Manifest.read(ReleaseFolder(path))
        except PackagingError as error:
            yield Finding("release", str(path), str(error))
            continue
        other = first.setdefault(manifest.name, path)
        advice = f"{other} has the same name. Load from one of these folders, or remove one."
        state = f"{path}: {manifest.name}{', simulated' if manifest.simulated else ''}"
        yield Finding("release", state, "" if other == path else advice)
    if not paths:
        yield Finding("release", f"none in {folder}", f"Build one ({COMMAND} build), or unset {RELEASE_VARIABLE}.")


def _examine_objects(artifacts_path: Path, loaded: list[Loaded]) -> Iterator[Finding]:
    """Examine an artifacts file, the cache of its objects, and whether there are credentials."""
    import botocore.session
    from botocore.exceptions import BotoCoreError

    from .publish.artifacts import read_artifacts

    names = [identifier for identifier in read_artifacts(artifacts_path) if identifier.count(".") == 1]
    yield Finding("artifacts", f"{artifacts_path}: {', '.join(names) or 'no dataset'}")
    sizes = {path: size for one in loaded for path, size in one.sizes.items()}
    missing = [size for path, size in sizes.items() if not path.exists()]
    folder = Path(import_plugin("loaders").get_local_data_path())
    state = f"{folder}: {len(sizes) - len(missing)} of {len(sizes)} objects"
    state += f"; to be downloaded: {_total(missing)}" if missing else ""
    is_usable = not folder.exists() or (folder.is_dir() and os.access(folder, os.W_OK))
    advice = f"{folder} is no folder that you may write. Set {CACHE_VARIABLE} to one."
    yield Finding("cache", state, "" if is_usable else advice)
    advice = (
        "The bucket may ask for credentials: set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. Without any, "
        f"set {RELEASE_VARIABLE} to a release on disk."
    )
    try:
        is_present = botocore.session.Session().get_credentials() is not None
    except BotoCoreError as error:  # its message may hold a part of them
        advice = "Correct AWS_PROFILE, the AWS_ variables or ~/.aws/credentials."
        yield Finding("credentials", f"damaged ({type(error).__name__})", advice)
    else:
        yield Finding("credentials", "present" if is_present else "none", "" if is_present or not missing else advice)
