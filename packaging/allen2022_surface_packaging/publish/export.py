"""The plugin as a pull request to brain-score/vision: its folder in a checkout, and the text for the maintainers."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from .. import __version__
from ..errors import PackagingError, one_line
from ..facts import TERMS_URL
from ..files import new_folder, read_file
from ..plugin import LIBRARY, LINK_NAME, import_plugin, plugin_path, registrations
from ..release import Manifest, ReleaseFolder
from .artifacts import Artifacts, ObjectRecord
from .objects import NAME_PARTS, find_regions, open_release

EXISTING_PLUGINS = ("allen2022_fmri_surface", "allen2022_fmri")  # the second one has the images
# What makes no sense inside brain-score/vision; `artifacts.json` may be another one.
LEFT_OUT = shutil.ignore_patterns("analysis", "artifacts.json", "py.typed", "__pycache__", ".*")
TEMPLATES = files(__package__) / "templates"
NO_CEILINGS = "Not measured for this text: `export --release RELEASE` computes them from a release on disk."


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
    data_path, source_path = find_data_folder(checkout), plugin_path()
    identifiers, target_path = registrations(source_path), data_path / LINK_NAME
    refuse_registered(data_path, identifiers)
    refuse_target(target_path, identifiers, overwrite=overwrite)
    artifacts_path = artifacts_path or source_path / "artifacts.json"
    objects = list_objects(artifacts_path, identifiers)
    ceilings = "\n\n".join(describe_ceilings(path, objects) for path in release_paths)
    with new_folder(target_path) as folder:
        shutil.copytree(source_path, folder, ignore=LEFT_OUT, dirs_exist_ok=True)
        shutil.copyfile(artifacts_path, folder / "artifacts.json")
    folder_name = target_path.relative_to(checkout)
    checks = (f"no other plugin registers any of the {len(identifiers)} identifiers", run_tests(checkout, folder_name))
    text = (TEMPLATES / "pull_request.md").read_text(encoding="utf-8")
    return (
        "\n".join(describe_commands(checkout, folder_name))
        + "\n\n"
        + text.rstrip().format(
            plugin_name=LINK_NAME,
            version=__version__,
            terms_url=TERMS_URL,
            comparison=(TEMPLATES / "comparison.md").read_text(encoding="utf-8").rstrip(),
            n_objects=len(objects),
            n_shared=count_shared(data_path, objects),
            n_regions=sum(identifier.count(".") > 1 for identifier, _ in objects),
            objects="\n".join(_object_row(*item, record) for item, record in objects.items()),
            ceilings=ceilings or NO_CEILINGS,
            checks="\n".join(f"* {check}" for check in checks),
            test_path=folder_name / "test.py",
        )
    )


def find_data_folder(checkout: Path) -> Path:
    """Return the `data` folder of a brain-score/vision checkout.

    Raises
    ------
    PackagingError
        If the folder is not a checkout.
    """
    registration, data_path = checkout / LIBRARY / "__init__.py", checkout / LIBRARY / "data"
    is_library = registration.is_file() and b"data_registry" in read_file(registration)
    if not is_library or not data_path.is_dir():
        raise PackagingError(
            f"{checkout} is not a checkout of brain-score/vision: expected {LIBRARY}/__init__.py with a data_registry, and "
            f"{LIBRARY}/data/. Clone https://github.com/brain-score/vision and name that folder."
        )
    return data_path


def refuse_registered(data_path: Path, identifiers: Sequence[tuple[str, str]]) -> None:
    """Raise a `PackagingError` if another plugin registers one of the identifiers: Brain-Score could load neither."""
    for folder in sorted(data_path.glob("[!._]*")):  # Brain-Score ignores the others too
        taken = sorted(set(identifiers) & set(registrations(folder)))
        if taken and folder.name != LINK_NAME:
            registry, identifier = taken[0]
            raise PackagingError(
                f"{folder} registers {registry}['{identifier}'] already ({len(taken)} such in all), and Brain-Score takes "
                "an identifier from one plugin only. Remove that plugin, or rename."
            )


def refuse_target(target_path: Path, identifiers: Sequence[tuple[str, str]], *, overwrite: bool) -> None:
    """Raise a `PackagingError` if the export would replace something else, or an earlier export without `overwrite`."""
    if target_path.is_symlink():
        raise PackagingError(
            f"{target_path} is a link to {target_path.resolve()}. Remove it first: allen2022-surface unlink, or rm."
        )
    if target_path.exists() and not set(registrations(target_path)) & set(identifiers):
        raise PackagingError(f"{target_path} is there already and is another plugin. Move it away.")
    if target_path.exists() and not overwrite:
        raise PackagingError(f"{target_path} is there already. Add --overwrite to replace it; git shows what changes.")


def list_objects(path: Path, identifiers: Sequence[tuple[str, str]]) -> dict[tuple[str, str], ObjectRecord]:
    """List the objects of an artifacts file, by identifier and kind: of each dataset, then of its regions.

    Raises
    ------
    PackagingError
        If the file is missing or damaged, lists simulated data, or lacks an object that the plugin needs.
    """
    if not path.is_file():
        raise PackagingError(f"{path} is missing, expected an artifacts file that `upload` or `record` wrote.")
    datasets = Artifacts.read(path).datasets
    registered = [identifier for registry, identifier in identifiers if registry == "data_registry"]
    objects: dict[tuple[str, str], ObjectRecord] = {
        (identifier, kind): record
        for identifier in registered
        if identifier in datasets
        for kind in NAME_PARTS
        if (record := getattr(datasets[identifier], kind)) is not None
    }
    for identifier in registered:
        if identifier.count(".") == 1 and not {(identifier, kind) for kind in NAME_PARTS} <= set(objects):
            raise PackagingError(f"{path} lists no objects for {identifier}. Upload that release first.")
    for (identifier, kind), record in objects.items():
        if record.simulated:
            raise PackagingError(
                f"{path} lists simulated data ({identifier}), which is not published. Upload a release of measurements, or "
                "name another file with --artifacts."
            )
        if kind == "assembly" and record.shape is None:
            raise PackagingError(f"{path} lists no shape for {identifier}. Upload that release again.")
    return objects


def count_shared(data_path: Path, objects: dict[tuple[str, str], ObjectRecord]) -> int:
    """Count the objects whose version and SHA-1 the plugins name that Brain-Score has for NSD."""
    paths = [data_path / name / "__init__.py" for name in EXISTING_PLUGINS]
    text = "\n".join(read_file(path).decode(errors="replace") for path in paths if path.is_file())
    return sum(record.version_id in text and record.sha1 in text for record in objects.values())


def describe_ceilings(release_path: Path, objects: dict[tuple[str, str], ObjectRecord]) -> str:
    """Compute the ceilings of each region of a release that was published, in a table.

    Raises
    ------
    PackagingError
        If the folder is not a release of measurements, or has another shape than its object.
    """
    release, manifest = open_release(release_path)
    identifier, shape = f"{manifest.name}.test", manifest.shapes["test"]
    record = objects.get((identifier, "assembly"))
    if record is None or record.shape != shape:
        found = f"an object of shape {_format_shape(record.shape)}" if record else "no such object"
        raise PackagingError(
            f"The release of {identifier} has the shape {_format_shape(shape)}, but artifacts.json lists {found}. Name the "
            "release that was uploaded."
        )
    is_object = record.sha1 == manifest.files[f"{manifest.name}_test.nc"].sha1
    origin = "the object above" if is_object else "a release of the same shape, with other bytes than the object above"
    return "\n".join(
        [
            f"`{identifier}`, computed from {origin}:",
            "",
            "| region | neuroids | noise ceiling (%) | split-half |",
            "|---|---|---|---|",
            *_ceiling_rows(release, manifest),
        ]
    )


def _ceiling_rows(release: ReleaseFolder, manifest: Manifest) -> Iterator[str]:
    load_assembly = import_plugin("loaders").load_assembly
    internal_consistency = import_plugin("analysis.ceiling").internal_consistency
    for region in find_regions(release.assembly_path(manifest.name, "test")):
        try:
            assembly = load_assembly(manifest.name, "test", region, source=release.path)
            split_half = float(internal_consistency(assembly))
        except (KeyError, OSError, ValueError) as error:
            raise PackagingError(
                f"{release} has no ceilings ({one_line(error)}). Verify it: verify {release}."
            ) from error
        noise_ceiling = float(np.nanmedian(assembly["nc_testset"].values))
        yield f"| {region} | {assembly.sizes['neuroid']:,} | {noise_ceiling:.1f} | {split_half:.3f} |"


def run_tests(checkout: Path, folder_name: Path) -> str:
    """Run those of the plugin's tests in the checkout that need no access to the data, and return the outcome.

    Raises
    ------
    PackagingError
        If a test fails.
    """
    test_path = str(folder_name / "test.py")
    shown = f"`python -m pytest -m 'not private_access' {test_path}`"
    if find_spec("pytest") is None or find_spec(LIBRARY) is None:
        return f"{shown}: not run, because pytest or {LIBRARY} is not installed here"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not private_access", test_path]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "BS_INSTALL_DEPENDENCIES": "no"}
    run = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    outcome = (run.stdout.strip() or run.stderr.strip() or "no output").splitlines()[-1].strip("= ")
    if run.returncode:
        raise PackagingError(
            f"{checkout / folder_name} is written, but its tests fail there ({outcome}). "
            f"See: cd {checkout} && python {shlex.join(command[1:])}"
        )
    return f"{shown}: {outcome}"


def describe_commands(checkout: Path, folder_name: Path) -> Iterator[str]:
    """Yield the git commands that make the pull request."""
    yield f"cd {shlex.quote(str(checkout))}"
    yield f"git switch -c {LINK_NAME}"
    yield f"git add {folder_name}"
    yield f"git commit -m 'Add the data plugin {LINK_NAME}: NSD surface fMRI'"
    yield f"git push -u origin {LINK_NAME}"
    yield (
        f"gh pr create --repo brain-score/vision --title 'Add {LINK_NAME}: NSD surface fMRI' --body-file -   # the text below"
    )


def _object_row(identifier: str, kind: str, record: ObjectRecord) -> str:
    shape = _format_shape(record.shape)
    return f"| `{identifier}` | {kind} | {shape} | `{record.sha1}` | `{record.url}` |"


def _format_shape(shape: Sequence[int] | None) -> str:
    return " x ".join(str(n) for n in shape or ())
