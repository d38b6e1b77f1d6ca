"""The plugin as a pull request to brain-score/vision: its folder in a checkout, and what to write to the maintainers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import PackagingError
from ..nsd.trials import N_REPETITIONS
from ..release import NAMES, SPLITS, new_folder
from ..verify.soundness import N_IMAGES_OF_SPLIT, N_NEUROIDS_OF_REGION
from .upload import PLUGIN, plugin_artifacts_path, read_artifacts

LIBRARY = "brainscore_vision"
PLUGIN_NAME = "allen2022_surface"
REGISTRATION = re.compile(r"""(data_registry|stimulus_set_registry)\[['"]([^'"]+)['"]\]""")
LEFT_OUT = shutil.ignore_patterns("__pycache__", ".*")
README = """\
# How the data of `allen2022_surface` was made

`allen2022_surface_packaging` builds the assemblies and stimulus sets of this plugin from the raw files of the Natural Scenes
Dataset, and publishes them. It is a copy of the package in version {version}, and runs from this folder:

```
pip install {requirements}
python -m allen2022_surface_packaging check NSD_ROOT                 # what is there, what is missing or malformed
python -m allen2022_surface_packaging build NSD_ROOT RELEASE         # --subjects 1 2 5 7 for the four-subject release
python -m allen2022_surface_packaging verify RELEASE
python -m allen2022_surface_packaging upload RELEASE --bucket BUCKET/PREFIX --artifacts ../artifacts.json --accept-nsd-terms
```

`upload` writes keys, version ids and SHA-1s to `artifacts.json`, which the plugin loads from; none is copied by hand.
"""


def export_plugin(checkout: Path, *, overwrite: bool = False) -> str:
    """Write the plugin's folder into a brain-score/vision checkout, and run its tests there.

    Returns
    -------
    the git commands and the text of the pull request

    Raises
    ------
    PackagingError
        If the folder is not such a checkout, an identifier is registered there already, something else has the place, or
        a test fails.
    """
    plugin_path = plugin_artifacts_path().parent
    data_path = find_data_folder(checkout)
    identifiers = registered_identifiers(plugin_path)
    refuse_registered(data_path, identifiers)
    place = data_path / PLUGIN_NAME
    refuse_place(place, identifiers, overwrite=overwrite)
    with new_folder(place) as folder:
        shutil.copytree(plugin_path, folder, ignore=LEFT_OUT, dirs_exist_ok=True)
        packaging_path = folder / "data_packaging"
        shutil.copytree(Path(__file__).parents[1], packaging_path / Path(__file__).parents[1].name, ignore=LEFT_OUT)
        (packaging_path / "README.md").write_text(_readme(), encoding="utf-8")
    checks = [
        f"no other plugin registers any of the {len(identifiers)} identifiers",
        run_tests(checkout, place),
    ]
    artifacts = read_artifacts(place / "artifacts.json")
    return f"{_git_commands(checkout, place)}\n\n{_pull_request(artifacts, checks)}"


def find_data_folder(checkout: Path) -> Path:
    """Return the `data` folder of a brain-score/vision checkout.

    Raises
    ------
    PackagingError
        If the folder is none.
    """
    registration, data_path = checkout / LIBRARY / "__init__.py", checkout / LIBRARY / "data"
    is_library = registration.is_file() and "data_registry" in registration.read_text(encoding="utf-8")
    if not is_library or not data_path.is_dir():
        raise PackagingError(
            f"{checkout} is not a checkout of brain-score/vision: expected {LIBRARY}/__init__.py with a data_registry, and "
            f"{LIBRARY}/data/. Clone https://github.com/brain-score/vision and name that folder."
        )
    return data_path


def registered_identifiers(plugin_path: Path) -> set[tuple[str, str]]:
    """Return the registry and identifier of everything that a plugin registers, from its text as Brain-Score does."""
    path = plugin_path / "__init__.py"
    return set(REGISTRATION.findall(path.read_text(encoding="utf-8"))) if path.is_file() else set()


def refuse_registered(data_path: Path, identifiers: set[tuple[str, str]]) -> None:
    """Raise a `PackagingError` if another plugin registers one of the identifiers: Brain-Score could load neither."""
    for other in sorted(path for path in data_path.iterdir() if path.is_dir() and path.name != PLUGIN_NAME):
        if other.name.startswith((".", "_")):
            continue  # which Brain-Score passes over as well
        taken = sorted(identifiers & registered_identifiers(other))
        if taken:
            registry, identifier = taken[0]
            raise PackagingError(
                f"{other} registers {registry}['{identifier}'] already ({len(taken)} such in all), and Brain-Score takes "
                "an identifier from one plugin only. Remove that plugin, or rename."
            )


def refuse_place(place: Path, identifiers: set[tuple[str, str]], *, overwrite: bool) -> None:
    """Raise a `PackagingError` if something in the plugin's place would be lost."""
    if place.is_symlink():
        raise PackagingError(
            f"{place} is a link to {place.resolve()}. Take it away first: python -m {PLUGIN} unlink, or rm."
        )
    if not place.exists():
        return
    if not registered_identifiers(place) & identifiers:
        raise PackagingError(f"{place} is there already and is another plugin. Move it away.")
    if not overwrite:
        raise PackagingError(f"{place} is there already. Add --overwrite to replace it; git shows what changes.")


def run_tests(checkout: Path, place: Path) -> str:
    """Run the plugin's tests in the checkout, those that need no access to the data, and say what came of it.

    Raises
    ------
    PackagingError
        If one fails.
    """
    test_path = place.relative_to(checkout) / "test.py"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-m",
        "not private_access",
        str(test_path),
    ]
    shown = f"`python -m pytest -m 'not private_access' {test_path}`"
    if find_spec("pytest") is None or find_spec(LIBRARY) is None:
        return f"{shown}: not run, since pytest or {LIBRARY}'s own requirements are not installed here"
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "BS_INSTALL_DEPENDENCIES": "no"}
    run = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    outcome = (run.stdout.strip() or run.stderr.strip() or "no output").splitlines()[-1].strip("= ")
    if run.returncode:
        raise PackagingError(
            f"{place} is written, but its tests fail there ({outcome}). See: cd {checkout} && python {shlex.join(command[1:])}"
        )
    return f"{shown}: {outcome}"


def _readme() -> str:
    own = [requirement for requirement in requires(PLUGIN) or () if "extra ==" not in requirement]
    return README.format(version=__version__, requirements=" ".join(f"'{name}'" for name in sorted(own)))


def _git_commands(checkout: Path, place: Path) -> str:
    return "\n".join(
        [
            f"cd {shlex.quote(str(checkout))}",
            f"git switch -c {PLUGIN_NAME}",
            f"git add {place.relative_to(checkout)}",
            f"git commit -m 'Add the data plugin {PLUGIN_NAME}: NSD surface fMRI'",
            f"git push -u origin {PLUGIN_NAME}",
            f"gh pr create --repo brain-score/vision --title 'Add {PLUGIN_NAME}: NSD surface fMRI' --body-file -   # the text below",
        ]
    )


def _pull_request(artifacts: dict[str, Any], checks: list[str]) -> str:
    rows = []
    for subjects, name in NAMES.items():
        n_neuroids = len(subjects) * sum(N_NEUROIDS_OF_REGION.values())
        for split, n_images in zip(SPLITS, N_IMAGES_OF_SPLIT[name], strict=True):
            n_presentations = n_images * (N_REPETITIONS if split == "test" else 1)
            stored = artifacts.get(f"{name}.{split}")
            if stored is None:
                raise PackagingError(f"artifacts.json lists no objects for {name}.{split}. Upload that release first.")
            for kind, shape in (
                ("assembly", f"{n_presentations} x {n_neuroids} x 1"),
                ("stimulus_csv", f"{n_images} images"),
                ("stimulus_zip", f"{n_images} images"),
            ):
                place = f"s3://{stored[kind]['bucket']}/{stored[kind]['key']}"
                rows.append(f"| `{name}.{split}` | {kind} | {shape} | `{stored[kind]['sha1']}` | `{place}` |")
    table = ["| identifier | object | shape | SHA-1 | place |", "|---|---|---|---|---|", *rows]
    return "\n".join(
        [
            f"# Add `{PLUGIN_NAME}`: the Natural Scenes Dataset on the cortical surface",
            "",
            "fMRI responses of Allen et al. (2022, doi:10.1038/s41593-021-00962-x) on fsaverage, V1, V2, V4 and IT, for eight "
            "subjects and for the four who finished all sessions; train averaged over repetitions, test with three apart. "
            "Every region can also be loaded by itself, as `Allen2022_fmri_surface.V1.train` and so on, at a fraction of the "
            "time. How the data was made, from the raw files on, is in `data_packaging/`.",
            "",
            *table,
            "",
            "Shapes are those that the tests marked `private_access` hold the data against.",
            "",
            "Checks run:",
            "",
            *[f"* {check}" for check in checks],
        ]
    )
