"""The plugin as a pull request to brain-score/vision: its folder in a checkout, and the text for the maintainers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import requires
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from .. import __version__
from ..atomic import new_folder
from ..errors import PackagingError
from ..nsd.facts import N_REPETITIONS
from ..plugin import PLUGIN, plugin_path
from ..recipe import N_NEUROIDS_OF_PUBLISHED_REGIONS, PUBLISHED_DATASETS
from ..release import SPLITS
from .artifacts import Artifacts, DatasetRecord

LIBRARY = "brainscore_vision"
PLUGIN_NAME = "allen2022_surface"
PACKAGE_PATH = Path(__file__).parents[1]
REGISTRATION = re.compile(r"""(data_registry|stimulus_set_registry)\[['"]([^'"]+)['"]\]""")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")
TEMPLATES = files(__package__) / "templates"


def export_plugin(checkout: Path, *, overwrite: bool = False) -> str:
    """Write the plugin's folder into a brain-score/vision checkout, and run its tests there.

    Returns
    -------
    the git commands and the text of the pull request

    Raises
    ------
    PackagingError
        If the folder is not such a checkout, an identifier is registered there already, another folder would be lost, or
        a test fails.
    """
    source_path = plugin_path()
    data_path = find_data_folder(checkout)
    identifiers = registered_identifiers(source_path)
    refuse_registered(data_path, identifiers)
    target_path = data_path / PLUGIN_NAME
    refuse_target(target_path, identifiers, overwrite=overwrite)
    with new_folder(target_path) as folder:
        shutil.copytree(source_path, folder, ignore=LEFT_OUT, dirs_exist_ok=True)
        packaging_path = folder / "data_packaging"
        shutil.copytree(PACKAGE_PATH, packaging_path / PACKAGE_PATH.name, ignore=LEFT_OUT)
        (packaging_path / "README.md").write_text(_packaging_readme(), encoding="utf-8")
    checks = [
        f"no other plugin registers any of the {len(identifiers)} identifiers",
        run_tests(checkout, target_path),
    ]
    artifacts = Artifacts.read(target_path / "artifacts.json")
    return f"{_git_commands(checkout, target_path)}\n\n{_pull_request(artifacts, checks)}"


def find_data_folder(checkout: Path) -> Path:
    """Return the `data` folder of a brain-score/vision checkout.

    Raises
    ------
    PackagingError
        If the folder is not a checkout.
    """
    registration, data_path = checkout / LIBRARY / "__init__.py", checkout / LIBRARY / "data"
    is_library = registration.is_file() and "data_registry" in registration.read_text(encoding="utf-8")
    if not is_library or not data_path.is_dir():
        raise PackagingError(
            f"{checkout} is not a checkout of brain-score/vision: expected {LIBRARY}/__init__.py with a data_registry, and "
            f"{LIBRARY}/data/. Clone https://github.com/brain-score/vision and name that folder."
        )
    return data_path


def registered_identifiers(folder: Path) -> set[tuple[str, str]]:
    """Return the registry and identifier of everything that a plugin registers, from its text as Brain-Score does."""
    path = folder / "__init__.py"
    return set(REGISTRATION.findall(path.read_text(encoding="utf-8"))) if path.is_file() else set()


def refuse_registered(data_path: Path, identifiers: set[tuple[str, str]]) -> None:
    """Raise a `PackagingError` if another plugin registers one of the identifiers: Brain-Score could load neither."""
    for folder in sorted(path for path in data_path.iterdir() if path.is_dir() and path.name != PLUGIN_NAME):
        if folder.name.startswith((".", "_")):
            continue  # Brain-Score ignores such folders too
        taken = sorted(identifiers & registered_identifiers(folder))
        if taken:
            registry, identifier = taken[0]
            raise PackagingError(
                f"{folder} registers {registry}['{identifier}'] already ({len(taken)} such in all), and Brain-Score takes "
                "an identifier from one plugin only. Remove that plugin, or rename."
            )


def refuse_target(target_path: Path, identifiers: set[tuple[str, str]], *, overwrite: bool) -> None:
    """Raise a `PackagingError` if the export would replace something else, or an earlier export without `overwrite`."""
    if target_path.is_symlink():
        raise PackagingError(
            f"{target_path} is a link to {target_path.resolve()}. Remove it first: python -m {PLUGIN} unlink, or rm."
        )
    if not target_path.exists():
        return
    if not registered_identifiers(target_path) & identifiers:
        raise PackagingError(f"{target_path} is there already and is another plugin. Move it away.")
    if not overwrite:
        raise PackagingError(f"{target_path} is there already. Add --overwrite to replace it; git shows what changes.")


def run_tests(checkout: Path, target_path: Path) -> str:
    """Run those of the plugin's tests in the checkout that need no access to the data, and return the outcome.

    Raises
    ------
    PackagingError
        If a test fails.
    """
    test_path = str(target_path.relative_to(checkout) / "test.py")
    shown = f"`python -m pytest -m 'not private_access' {test_path}`"
    if find_spec("pytest") is None or find_spec(LIBRARY) is None:
        return f"{shown}: not run, because pytest or the requirements of {LIBRARY} are not installed here"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not private_access", test_path]
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "BS_INSTALL_DEPENDENCIES": "no"}
    run = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    outcome = (run.stdout.strip() or run.stderr.strip() or "no output").splitlines()[-1].strip("= ")
    if run.returncode:
        raise PackagingError(
            f"{target_path} is written, but its tests fail there ({outcome}). "
            f"See: cd {checkout} && python {shlex.join(command[1:])}"
        )
    return f"{shown}: {outcome}"


def _packaging_readme() -> str:
    requirements = [requirement for requirement in requires(PLUGIN) or () if "extra ==" not in requirement]
    quoted = " ".join(f"'{requirement}'" for requirement in sorted(requirements))
    return _template("data_packaging.md").format(version=__version__, requirements=quoted)


def _git_commands(checkout: Path, target_path: Path) -> str:
    return "\n".join(
        [
            f"cd {shlex.quote(str(checkout))}",
            f"git switch -c {PLUGIN_NAME}",
            f"git add {target_path.relative_to(checkout)}",
            f"git commit -m 'Add the data plugin {PLUGIN_NAME}: NSD surface fMRI'",
            f"git push -u origin {PLUGIN_NAME}",
            f"gh pr create --repo brain-score/vision --title 'Add {PLUGIN_NAME}: NSD surface fMRI' --body-file -   # the text below",
        ]
    )


def _pull_request(artifacts: Artifacts, checks: list[str]) -> str:
    rows = "\n".join(_object_rows(artifacts))
    listed = "\n".join(f"* {check}" for check in checks)
    return _template("pull_request.md").format(plugin_name=PLUGIN_NAME, objects=rows, checks=listed).rstrip("\n")


def _object_rows(artifacts: Artifacts) -> Iterator[str]:
    """Yield a row of the pull request's table for every object of the published datasets."""
    for dataset in PUBLISHED_DATASETS:
        n_neuroids = len(dataset.subjects) * sum(N_NEUROIDS_OF_PUBLISHED_REGIONS.values())
        for split in SPLITS:
            identifier, n_images = f"{dataset.name}.{split}", dataset.n_images[split]
            record = artifacts.datasets.get(identifier)
            if record is None:
                raise PackagingError(f"artifacts.json lists no objects for {identifier}. Upload that release first.")
            n_presentations = n_images * (N_REPETITIONS if split == "test" else 1)
            yield from _dataset_rows(identifier, record, f"{n_presentations} x {n_neuroids} x 1", f"{n_images} images")


def _dataset_rows(identifier: str, record: DatasetRecord, assembly_shape: str, n_images: str) -> Iterator[str]:
    for kind, stored, shape in (
        ("assembly", record.assembly, assembly_shape),
        ("stimulus_csv", record.stimulus_csv, n_images),
        ("stimulus_zip", record.stimulus_zip, n_images),
    ):
        yield f"| `{identifier}` | {kind} | {shape} | `{stored.sha1}` | `s3://{stored.bucket}/{stored.key}` |"


def _template(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")
