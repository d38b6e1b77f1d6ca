"""Make the data of this plugin again, and compare it with the objects that `artifacts.json` lists.

    pip install 'brainscore_allen2022_surface==0.1.0'
    python rebuild.py s3://natural-scenes-dataset FOLDER

The code that makes the data is the package `allen2022_surface_packaging`, which that line installs. If a file has other bytes
than its object, as those that Brain-Score's maintainers wrote, its values are compared, which needs access to the object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

PACKAGE, VERSION = "brainscore_allen2022_surface", "0.1.0"
RECIPES = ("Allen2022_fmri_surface", "Allen2022_fmri_surface_4subj")
ARTIFACTS_PATH = Path(__file__).parents[1] / "artifacts.json"


def main() -> None:
    """Build both releases, verify them, and compare them with the objects. The exit status is 1 if anything differs."""
    parser = argparse.ArgumentParser(description="Make the data again, and compare it with the published objects.")
    parser.add_argument("nsd_root", metavar="NSD_ROOT", help="a folder of NSD's files, or s3://natural-scenes-dataset")
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="for both releases, 2 GB")
    parser.add_argument("--artifacts", metavar="FILE", type=Path, default=ARTIFACTS_PATH)
    options = parser.parse_args()
    if version(PACKAGE) != VERSION:
        sys.exit(f"{PACKAGE} {version(PACKAGE)} is installed. Install the version that made the data: {VERSION}")
    run("build", options.nsd_root, options.folder, *(word for name in RECIPES for word in ("--recipe", name)))
    differing = []
    for release in (options.folder / name for name in RECIPES):
        run("verify", release)
        differing += compare(release, json.loads(options.artifacts.read_text(encoding="utf-8")))
    os.environ["BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS"] = str(options.artifacts)
    for identifier in differing:
        run("verify", options.folder / identifier.partition(".")[0], "--against", identifier)


def compare(release: Path, artifacts: dict[str, dict[str, dict[str, str]]]) -> list[str]:
    """Print which assemblies of a release have the SHA-1 of their object, and return the identifiers of the others."""
    manifest = json.loads((release / "release.json").read_text(encoding="utf-8"))
    differing = []
    for split in ("train", "test"):
        identifier, file_name = f"{manifest['name']}.{split}", f"{manifest['name']}_{split}.nc"
        found, expected = manifest["files"][file_name]["sha1"], artifacts[identifier]["assembly"]["sha1"]
        print(f"{identifier}: SHA-1 {found}, {'as published' if found == expected else f'but published is {expected}'}")
        differing += [identifier] * (found != expected)
    return differing


def run(*arguments: object) -> None:
    """Run a command of the package. If it fails, exit with its status."""
    command = [sys.executable, "-m", "allen2022_surface_packaging", *map(str, arguments)]
    if status := subprocess.run(command).returncode:
        sys.exit(status)


if __name__ == "__main__":
    main()
