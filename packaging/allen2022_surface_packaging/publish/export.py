"""The plugin as a pull request to brain-score/vision: its folder in a checkout, and the text for the maintainers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path

from .. import __version__
from ..errors import PackagingError
from ..facts import TERMS_URL
from ..files import new_folder, read_file
from ..plugin import PLUGIN, plugin_path
from .artifacts import Artifacts
from .ceilings import measure_ceilings
from .pull_request import ListedObject, check_ceilings, list_objects, read_template, write_text

LIBRARY = "brainscore_vision"
PLUGIN_NAME = "allen2022_surface"
PACKAGE_PATH = Path(__file__).parents[1]
REGISTRATION = re.compile(r"""(data_registry|stimulus_set_registry)\[['"]([^'"]+)['"]\]""")
EXISTING_PLUGINS = ("allen2022_fmri_surface", "allen2022_fmri")  # the second one has the images
PACKAGING_NAME = "data_packaging"
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")
HOLDS = {"train": "averages over repetitions", "test": "three repetitions of each image"}


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
        object or a release is simulated, or a test fails.
    """
    source_path = plugin_path()
    data_path = find_data_folder(checkout)
    identifiers = registered_identifiers(source_path)
    refuse_registered(data_path, identifiers)
    target_path = data_path / PLUGIN_NAME
    refuse_target(target_path, identifiers, overwrite=overwrite)
    artifacts_path = artifacts_path or source_path / "artifacts.json"
    objects = list_objects(read_measured(artifacts_path))
    ceilings = [measure_ceilings(path) for path in release_paths]
    for measured in ceilings:
        check_ceilings(measured, objects)
    requirements = _find_requirements(source_path)
    with new_folder(target_path) as folder:
        _copy_plugin(source_path, artifacts_path, folder)
        (folder / "README.md").write_text(_plugin_readme(objects, requirements), encoding="utf-8")
        (folder / PACKAGING_NAME / "README.md").write_text(_packaging_readme(requirements), encoding="utf-8")
    checks = [
        f"no other plugin registers any of the {len(identifiers)} identifiers",
        run_tests(checkout, target_path),
    ]
    test_path = target_path.relative_to(checkout) / "test.py"
    shares_objects = is_shared(data_path, objects)
    text = write_text(PLUGIN_NAME, str(test_path), objects, ceilings, checks, shares_objects=shares_objects)
    return f"{_git_commands(checkout, target_path)}\n\n{text}"


def read_measured(artifacts_path: Path) -> Artifacts:
    """Read an artifacts file.

    Raises
    ------
    PackagingError
        If the file is missing or damaged, or lists simulated data.
    """
    if not artifacts_path.is_file():
        raise PackagingError(
            f"{artifacts_path} is missing, expected an artifacts file that `upload` or `record` wrote."
        )
    artifacts = Artifacts.read(artifacts_path)
    simulated = [name for name, record in artifacts.datasets.items() if record.assembly.simulated]
    if simulated:
        raise PackagingError(
            f"{artifacts_path} lists simulated data ({simulated[0]}), which is not published. Upload a release of "
            "measurements, or name another file with --artifacts."
        )
    return artifacts


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


def registered_identifiers(folder: Path) -> set[tuple[str, str]]:
    """Return the registry and identifier of everything that a plugin registers, from its text as Brain-Score does."""
    path = folder / "__init__.py"
    return set(REGISTRATION.findall(_read_code(path))) if path.is_file() else set()


def _read_code(path: Path) -> str:
    return read_file(path).decode(errors="replace")  # Python allows other encodings


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


def is_shared(data_path: Path, objects: Sequence[ListedObject]) -> bool:
    """Return whether the plugins that Brain-Score has for NSD name the version and the SHA-1 of every object."""
    paths = [data_path / name / "__init__.py" for name in EXISTING_PLUGINS]
    text = "\n".join(_read_code(path) for path in paths if path.is_file())
    return all(one.record.version_id in text and one.record.sha1 in text for one in objects)


def refuse_target(target_path: Path, identifiers: set[tuple[str, str]], *, overwrite: bool) -> None:
    """Raise a `PackagingError` if the export would replace something else, or an earlier export without `overwrite`."""
    if target_path.is_symlink():
        raise PackagingError(
            f"{target_path} is a link to {target_path.resolve()}. Remove it first: allen2022-surface unlink, or rm."
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


def _copy_plugin(source_path: Path, artifacts_path: Path, folder: Path) -> None:
    """Copy the plugin without what an earlier export added, its artifacts file, and this package."""
    added = [source_path / PACKAGING_NAME, source_path / "README.md"]
    for path in source_path.iterdir():
        if path not in added and not LEFT_OUT(str(source_path), [path.name]):
            shutil.copytree(path, folder / path.name, ignore=LEFT_OUT) if path.is_dir() else shutil.copy2(path, folder)
    shutil.copyfile(artifacts_path, folder / "artifacts.json")
    shutil.copytree(PACKAGE_PATH, folder / PACKAGING_NAME / PACKAGE_PATH.name, ignore=LEFT_OUT)


def _find_requirements(source_path: Path) -> str:
    """Return what to pip-install: as the installed package says or, in an exported copy, as its text says."""
    try:
        found = [requirement for requirement in requires(PLUGIN) or () if "extra ==" not in requirement]
        return " ".join(f"'{requirement}'" for requirement in sorted(found))
    except PackageNotFoundError:
        text = (source_path / PACKAGING_NAME / "README.md").read_text(encoding="utf-8")
        return text.partition("pip install ")[2].partition("\n")[0]


def _plugin_readme(objects: Sequence[ListedObject], requirements: str) -> str:
    rows = [
        f"| `{one.identifier}` | {HOLDS[one.identifier.rpartition('.')[2]]} | {one.shape} |"
        for one in objects
        if one.kind == "assembly" and one.identifier.count(".") == 1
    ]
    return read_template("plugin.md").format(
        plugin_name=PLUGIN_NAME, terms_url=TERMS_URL, datasets="\n".join(rows), requirements=requirements
    )


def _packaging_readme(requirements: str) -> str:
    return read_template("data_packaging.md").format(version=__version__, requirements=requirements)


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
