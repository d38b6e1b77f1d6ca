"""The plugin as a pull request to brain-score/vision: its folder in a checkout, and the text for the maintainers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import PackagingError
from ..facts import TERMS_URL
from ..files import copy_folder, new_folder, read_file
from ..plugin import LIBRARY, LINK_NAME, import_plugin, plugin_path, registrations
from .artifacts import ObjectRecord, read_artifacts
from .objects import NAME_PARTS, find_regions, open_release

EXISTING_PLUGINS = ("allen2022_fmri_surface", "allen2022_fmri")  # the second one has the images
# What makes no sense inside brain-score/vision; `artifacts.json` may be another one.
LEFT_OUT = shutil.ignore_patterns("analysis", "artifacts.json", "py.typed", "__pycache__", ".*")
TEMPLATES = files(__package__) / "templates"
NO_CEILINGS = "Not measured for this text: `export --release RELEASE` computes them from a release on disk."
TESTS = ("python", "-m", "pytest", "-m", "not private_access", f"{LIBRARY}/data/{LINK_NAME}/test.py")


def export_plugin(
    checkout: Path,
    *,
    artifacts_path: Path | None = None,
    release_paths: Sequence[Path] = (),
    overwrite: bool = False,
) -> str:
    """Write the plugin's folder into a brain-score/vision checkout, and run its tests there.

    Parameters
    ----------
    artifacts_path : path, optional
        The artifacts file that the exported plugin gets; by default that of the plugin.
    release_paths : releases whose ceilings the text states

    Returns
    -------
    the git commands and the text of the pull request

    Raises
    ------
    PackagingError
        If the folder is not such a checkout, an identifier is registered there already, another folder would be lost, an
        object or a release is simulated or missing, or a test fails.
    """
    source_path = plugin_path()
    identifiers = registrations(source_path)
    target_path = _find_target(checkout, identifiers, overwrite=overwrite)
    artifacts_path = artifacts_path or source_path / "artifacts.json"
    objects = _list_published(artifacts_path, [name for registry, name in identifiers if registry == "data_registry"])
    ceilings = "\n\n".join(_describe_ceilings(path, objects) for path in release_paths)
    with new_folder(target_path) as folder:
        copy_folder(source_path, folder, LEFT_OUT)
        shutil.copyfile(artifacts_path, folder / "artifacts.json")
    rows = []
    for (identifier, kind), stored in objects.items():
        shape, address = " x ".join(map(str, stored.shape or ())), f"s3://{stored.bucket}/{stored.key}"
        rows.append(f"| `{identifier}` | {kind} | {shape} | `{stored.sha1}` | `{address}` |")
    existing = [target_path.with_name(name) / "__init__.py" for name in EXISTING_PLUGINS]
    known = "\n".join(path.read_text(errors="replace") for path in existing if path.is_file())
    text = (TEMPLATES / "pull_request.md").read_text(encoding="utf-8")
    return text.rstrip().format(
        checkout=shlex.quote(str(checkout)),
        folder_name=target_path.relative_to(checkout),
        plugin_name=LINK_NAME,
        version=__version__,
        terms_url=TERMS_URL,
        comparison=(TEMPLATES / "comparison.md").read_text(encoding="utf-8").rstrip(),
        n_objects=len(objects),
        n_shared=sum(stored.version_id in known and stored.sha1 in known for stored in objects.values()),
        n_regions=sum(identifier.count(".") > 1 for identifier, _ in objects),
        objects="\n".join(rows),
        ceilings=ceilings or NO_CEILINGS,
        n_identifiers=len(identifiers),
        tests=_run_tests(checkout),
    )


def _find_target(checkout: Path, identifiers: Sequence[tuple[str, str]], *, overwrite: bool) -> Path:
    """Return where the plugin's folder belongs in a checkout, if nothing there would be lost, and Brain-Score could load it."""
    registration, data_path = checkout / LIBRARY / "__init__.py", checkout / LIBRARY / "data"
    is_library = registration.is_file() and b"data_registry" in read_file(registration)
    if not is_library or not data_path.is_dir():
        raise PackagingError(
            f"{checkout} is not a checkout of brain-score/vision: expected {LIBRARY}/__init__.py with a data_registry, and "
            f"{LIBRARY}/data/. Clone https://github.com/brain-score/vision and name that folder."
        )
    for folder in sorted(data_path.glob("[!._]*")):  # Brain-Score ignores the others too
        taken = sorted(set(identifiers) & set(registrations(folder)))
        if taken and folder.name != LINK_NAME:
            registry, identifier = taken[0]
            raise PackagingError(
                f"{folder} registers {registry}['{identifier}'] already ({len(taken)} such in all), and Brain-Score takes "
                "an identifier from one plugin only. Remove that plugin, or rename."
            )
    target_path = data_path / LINK_NAME
    if target_path.is_symlink():
        raise PackagingError(
            f"{target_path} is a link to {target_path.resolve()}. Remove it first: allen2022-surface unlink, or rm."
        )
    if target_path.exists() and not set(registrations(target_path)) & set(identifiers):
        raise PackagingError(f"{target_path} is there already and is another plugin. Move it away.")
    if target_path.exists() and not overwrite:
        raise PackagingError(f"{target_path} is there already. Add --overwrite to replace it; git shows what changes.")
    return target_path


def _list_published(path: Path, identifiers: Sequence[str]) -> dict[tuple[str, str], ObjectRecord]:
    """List the objects that an artifacts file has of identifiers, by identifier and kind. All must be there and measured."""
    if not path.is_file():
        raise PackagingError(f"{path} is missing, expected an artifacts file that `upload` or `record` wrote.")
    artifacts = read_artifacts(path)
    objects = {(name, str(kind)): one for name in identifiers for kind, one in artifacts.get(name, {}).items()}
    for name in identifiers:
        if name.count(".") == 1 and len(artifacts.get(name, {})) < len(NAME_PARTS):
            raise PackagingError(f"{path} lists no objects for {name}. Upload that release first.")
    for (name, kind), stored in objects.items():
        if stored.simulated:
            raise PackagingError(
                f"{path} lists simulated data ({name}), which is not published. Upload a release of measurements, or name "
                "another file with --artifacts."
            )
        if kind == "assembly" and stored.shape is None:
            raise PackagingError(f"{path} lists no shape for {name}. Upload that release again.")
    return objects


def _describe_ceilings(release_path: Path, objects: dict[tuple[str, str], ObjectRecord]) -> str:
    """Compute the ceilings of each region of a release that was published, in a table."""
    release, manifest = open_release(release_path)
    identifier, path = f"{manifest.name}.test", release.assembly_path(manifest.name, "test")
    stored = objects.get((identifier, "assembly"))
    if stored is None or stored.shape != manifest.shapes["test"]:
        raise PackagingError(
            f"The release of {identifier} has the shape {manifest.shapes['test']}, but artifacts.json lists "
            f"{stored.shape if stored else 'no such object'}. Name the release that was uploaded."
        )
    is_object = stored.sha1 == manifest.files[path.name].sha1
    origin = "the object above" if is_object else "a release of the same shape, with other bytes than the object above"
    rows = [
        f"`{identifier}`, computed from {origin}:\n",
        "| region | neuroids | noise ceiling (%) | split-half |",
        "|---|---|---|---|",
    ]
    for region in find_regions(path):
        assembly = import_plugin("loaders").load_assembly(manifest.name, "test", region, source=release.path)
        split_half = float(import_plugin("analysis.ceiling").internal_consistency(assembly))
        noise_ceiling = float(np.nanmedian(assembly["nc_testset"].values))
        rows.append(f"| {region} | {assembly.sizes['neuroid']:,} | {noise_ceiling:.1f} | {split_half:.3f} |")
    return "\n".join(rows)


def _run_tests(checkout: Path) -> str:
    """Run those of the plugin's tests in the checkout that need no access to the data, and return the outcome."""
    if find_spec("pytest") is None or find_spec(LIBRARY) is None:
        return f"`{shlex.join(TESTS)}`: not run, because pytest or {LIBRARY} is not installed here"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "BS_INSTALL_DEPENDENCIES": "no"}
    command = [sys.executable, *TESTS[1:], "-q", "-p", "no:cacheprovider"]
    run = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    outcome = (run.stdout.strip() or run.stderr.strip() or "no output").splitlines()[-1].strip("= ")
    if run.returncode:
        raise PackagingError(
            f"{checkout / TESTS[-1]} is written, but fails there ({outcome}). See: cd {checkout} && {shlex.join(TESTS)}"
        )
    return f"`{shlex.join(TESTS)}`: {outcome}"
