"""The archives that `python -m build` makes, and the files that hosts of the repository read."""

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
YAML_PATHS = [*(ROOT / ".github").rglob("*.yml"), ROOT / "CITATION.cff"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def leave_out(folder, names):
    """Return the names that git ignores: a pattern that begins with a slash counts from the root."""
    patterns = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    paths = {name: (Path(folder) / name).relative_to(ROOT).as_posix() for name in names}
    return {".git"} | {
        name
        for pattern in patterns
        for name, path in paths.items()
        if fnmatch.fnmatch(path if pattern.startswith("/") else name, pattern.strip("/"))
    }


@pytest.mark.slow
def test_archives_hold_every_file_and_the_wheel_runs(tmp_path):
    """They are built without a network, from a copy of the repository without what tools leave in it."""
    checkout = Path(shutil.copytree(ROOT, tmp_path / "checkout", ignore=leave_out))
    files = {path.relative_to(checkout).as_posix() for path in checkout.rglob("*") if path.is_file()}
    for command in (("build", "--no-isolation", "--outdir", tmp_path / "dist"), ("twine", "check", "--strict")):
        archives = sorted((tmp_path / "dist").glob("*"))
        run = subprocess.run([sys.executable, "-m", *command, *archives], cwd=checkout, capture_output=True, text=True)
        assert run.returncode == 0, run.stdout + run.stderr
    wheel_path, source_path = sorted(archives, key=lambda path: path.suffix, reverse=True)

    with tarfile.open(source_path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert len(files) > 150
    assert files - names == set()
    assert not [name for name in names if re.search(r"__pycache__|\.pyc$|_cache/|docs/api/|docs/_build/", name)]
    with zipfile.ZipFile(wheel_path) as archive:
        archive.extractall(tmp_path / "installed")
        installed = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {name for name in files if name.startswith(("packaging/", "brainscore_allen2022_surface/"))}
    assert installed == {name.removeprefix("packaging/") for name in expected}
    code = "import allen2022_surface_packaging.cli as cli; print(cli.__file__); cli.main(['--version'])"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    run = subprocess.run([sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert run.stdout.startswith(str(tmp_path / "installed")), run.stderr


@pytest.mark.parametrize("path", YAML_PATHS, ids=lambda path: path.name)
def test_yaml_files_can_be_read(path):
    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_what_is_in_the_repository(path):
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    commands = "\n".join(step.get("run", "") for job in workflow["jobs"].values() for step in job["steps"])
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    assert workflow["permissions"] == {"contents": "read"}
    assert set(re.findall(r"^make (\w+)", commands, re.MULTILINE)) <= set(targets)
    for name in re.findall(r"(?:^|python )(\.\w\S+)", commands, re.MULTILINE):
        assert name.startswith(".venv/") or (ROOT / name).is_file()


def test_version_is_the_same_everywhere():
    version = re.search(r'version="(.+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))[1]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    package = (ROOT / "packaging" / "allen2022_surface_packaging" / "__init__.py").read_text(encoding="utf-8")

    assert citation["version"] == version
    assert f'__version__ = "{version}"' in package
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_installed_packages_fit_together():
    check = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)

    assert check.returncode == 0, check.stdout
