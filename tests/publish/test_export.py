"""The command `export`: the plugin's folder in a checkout made of the installed brainscore_vision, and the pull request."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.plugin import plugin_path
from allen2022_surface_packaging.recipe import make_recipe
from brainscore_allen2022_surface.analysis.ceiling import internal_consistency
from brainscore_allen2022_surface.loaders import load_assembly
from libraries import copy_library
from support import run_cli

NAME = "Allen2022_fmri_surface"
FOLDER = Path("brainscore_vision/data/allen2022_surface")
FILES = [
    *("README.md", "__init__.py", "artifacts.json", "data_packaging/README.md", "data_packaging/rebuild.py"),
    *("loaders.py", "test.py"),
]
IDENTIFIERS = [
    f"{name}{region}.{split}"
    for name in (NAME, f"{NAME}_4subj")
    for region in ("", ".V1", ".V2", ".V4", ".IT")
    for split in ("train", "test")
]
# of brain-score/vision, at its commit 08a3dc1
GITIGNORE = """*.swp
*.pyc
*__pycache__*
*AWSCLIV2.pkg
*.egg-info/
venv
.venv
build
.DS_Store
.pytest_cache

# Model Weights
*.pt
"""


def export(checkout, *options, status=0):
    """Run the command, and return what it printed, or its one error line."""
    result = run_cli("export", checkout, *options)
    assert result.returncode == status, result
    return result.stderr.splitlines()[-1] if status else result.stdout


def list_files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A checkout with the plugin in it, whose path has a space, and what the command printed."""
    checkout = copy_library(tmp_path_factory.mktemp("vision") / "my vision").parent
    return checkout, export(checkout)


@pytest.fixture
def small_checkout(tmp_path):
    """The smallest folder that counts as a checkout. The plugin's tests cannot be imported there."""
    data_path = tmp_path / "vision" / "brainscore_vision" / "data"
    (data_path / "other").mkdir(parents=True)
    (data_path.parent / "__init__.py").write_text("data_registry = {}\nstimulus_set_registry = {}\n")
    (data_path / "other" / "__init__.py").write_text("data_registry['Other2000'] = lambda: None\n")
    return tmp_path / "vision"


# --- the folder ------------------------------------------------------------------------------------------------------------


def test_export_holds_the_plugin_and_nothing_else(exported):
    checkout, _ = exported

    assert list_files(checkout / FOLDER) == FILES
    for name in FILES:
        assert (checkout / FOLDER / name).read_bytes() == (plugin_path() / name).read_bytes()
    texts = [checkout / FOLDER / name for name in FILES if name != "artifacts.json"]
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in texts) <= 700  # a reviewer can read them


FIND = """
import json, sys
from pathlib import Path
import brainscore_vision
from brainscore_core.plugin_management.import_plugin import ImportPlugin, import_plugin
from brainscore_core.plugin_management.parse_plugin_changes import get_plugin_ids, get_test_file_paths

root = Path(brainscore_vision.__file__).parent
for identifier in sys.argv[1:]:
    assert ImportPlugin("brainscore_vision", "data", identifier).plugin_dirname == "allen2022_surface"
    import_plugin("brainscore_vision", "data", identifier)
    assert identifier in brainscore_vision.data_registry
    assert identifier.count(".") > 1 or identifier in brainscore_vision.stimulus_set_registry
print(json.dumps([
    str(root.parent),
    sorted(get_plugin_ids("data", ["allen2022_surface"], str(root))),
    [Path(path).name for path in get_test_file_paths(root / "data" / "allen2022_surface")],
]))
"""


def test_brainscore_finds_every_identifier_and_the_tests(exported):
    checkout, _ = exported

    command = [sys.executable, "-c", FIND, *IDENTIFIERS]
    run = subprocess.run(command, cwd=checkout, capture_output=True, text=True)

    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == [str(checkout), sorted(IDENTIFIERS), ["test.py"]]


@pytest.mark.needs("git", "bash")
def test_printed_git_commands_commit_and_push_what_was_written(exported, tmp_path):
    """In a repository with the .gitignore of brain-score/vision, which leaves out some names of files."""
    checkout, text = exported
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "origin"], check=True)
    start = "git init -q . && git remote add origin {} && git add .gitignore && git commit -qm 'Start'"
    (checkout / ".gitignore").write_text(GITIGNORE)
    commands = text.partition("\n\n")[0].splitlines()
    assert commands[-1].startswith("gh pr create --repo brain-score/vision ")
    identity = {f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    script = "\n".join(["set -e", commands[0], start.format(tmp_path / "origin"), *commands[1:-1]])

    subprocess.run(["bash", "-c", script], check=True, capture_output=True, env=os.environ | identity)

    command = ["git", "clone", "-q", "--branch", "allen2022_surface", tmp_path / "origin", tmp_path / "clone"]
    subprocess.run(command, check=True)
    assert list_files(tmp_path / "clone" / FOLDER.parts[0]) == [str(Path(*FOLDER.parts[1:], name)) for name in FILES]
    for name in FILES:  # an import has left __pycache__ in the checkout
        assert (tmp_path / "clone" / FOLDER / name).read_bytes() == (checkout / FOLDER / name).read_bytes()


def test_second_export_needs_overwrite(exported):
    checkout, _ = exported
    (checkout / FOLDER / "loaders.py").write_text("changed")

    assert "allen2022_surface is there already. Add --overwrite" in export(checkout, status=1)
    assert "gh pr create" in export(checkout, "--overwrite")
    assert (checkout / FOLDER / "loaders.py").read_bytes() == (plugin_path() / "loaders.py").read_bytes()


# --- what is refused -------------------------------------------------------------------------------------------------------


def write(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


LIBRARY, OTHER = "brainscore_vision", "brainscore_vision/data/other/__init__.py"
IN_TWO = 'stimulus_set_registry["Allen2022_fmri_surface.test"] = lambda: None'
REFUSED = {  # what is spoiled in the checkout, or of the artifacts file; what the user reads
    "no registry": (lambda c, e: write(c / LIBRARY / "__init__.py", ""), "is not a checkout of brain-score/vision: expected"),
    "no library": (lambda c, e: shutil.rmtree(c / LIBRARY), "is not a checkout of brain-score/vision: expected"),
    "identifier in two plugins": (
        *(lambda c, e: write(c / OTHER, IN_TWO), "registers stimulus_set_registry['Allen2022_fmri_surface.test'] already"),
    ),
    "another plugin": (lambda c, e: write(c / FOLDER / "__init__.py", "x = 1"), "is another plugin. Move it away"),
    "link": (lambda c, e: (c / FOLDER).symlink_to("other"), "Remove it first: allen2022-surface unlink"),
    "no dataset": (lambda c, e: e.pop(f"{NAME}_4subj.train"), f"lists no objects for {NAME}_4subj.train. Upload that"),
    "simulated": (lambda c, e: e[f"{NAME}.test"]["assembly"].update(simulated=True), f"simulated data ({NAME}.test), which"),
    "no shape": (lambda c, e: e[f"{NAME}.test"]["assembly"].pop("shape"), f"no shape for {NAME}.test. Upload that"),
}  # fmt: skip


@pytest.mark.parametrize(("spoil", "message"), REFUSED.values(), ids=REFUSED)
def test_export_is_refused_and_the_checkout_stays(small_checkout, tmp_path, spoil, message):
    entries = json.loads((plugin_path() / "artifacts.json").read_text())
    spoil(small_checkout, entries)
    (tmp_path / "artifacts.json").write_text(json.dumps(entries))
    before = list_files(small_checkout)

    line = export(small_checkout, "--overwrite", "--artifacts", tmp_path / "artifacts.json", status=1)

    assert message in line
    assert list_files(small_checkout) == before


def test_missing_artifacts_file_and_failing_test_in_the_checkout_are_reported(small_checkout):
    line = export(small_checkout, "--artifacts", "nowhere.json", status=1)

    assert "nowhere.json is missing, expected an artifacts file that `upload` or `record` wrote" in line
    assert re.search("is written, but fails there .*See: cd", export(small_checkout, status=1))


# --- the text --------------------------------------------------------------------------------------------------------------


def list_rows(text):
    """Return identifier, kind and shape of each row of the table of objects."""
    table = text.partition("## Data")[2].partition("## Ceilings")[0]
    return [tuple(cell.strip(" `") for cell in line.split("|")[1:4]) for line in table.splitlines() if "`s3://" in line]


def test_pull_request_lists_objects_and_checks(exported):
    checkout, text = exported

    rows = list_rows(text)
    assert len(rows) == 2 * 2 * 3
    assert rows[0] == (f"{NAME}.train", "assembly", "412 x 221168 x 1")
    assert "`67241ed5a84d8e7ae77f8c8d72e7219508fb9d7e`" in text
    assert (
        "Of the 12 objects below, 12 are those that the existing plugins load, by version and SHA-1, and 0 are" in text
    )
    assert "* no other plugin registers any of the 24 identifiers" in text
    assert re.search(r"^\* `python -m pytest .*`: \d+ passed, \d+ deselected", text, re.MULTILINE)
    assert text.startswith(f"cd '{checkout}'\n")
    assert "Measured by `python benchmarks/comparison.py FOLDER`" in text.partition("cannot do")[2]
    assert "**Alternative.**" in text


@pytest.fixture(scope="module")
def measured(nsd_tree, tmp_path_factory):
    """Releases of both published datasets, as of measurements, and an artifacts file of them and of a region."""
    folder = tmp_path_factory.mktemp("measured")
    entries = {}
    for recipe in (make_recipe(), make_recipe((1, 2, 5, 7))):
        build_release(nsd_tree, folder / recipe.name, recipe)
        path = folder / recipe.name / "release.json"
        manifest = json.loads(path.read_text()) | {"simulated": False}
        path.write_text(json.dumps(manifest))
        for split, shape in manifest["shapes"].items():
            stored = {"bucket": "b", "key": "k", "version_id": "v", "sha1": "0" * 40}
            assembly = stored | {"shape": shape, "sha1": manifest["files"][f"{recipe.name}_{split}.nc"]["sha1"]}
            entries[f"{recipe.name}.{split}"] = {"assembly": assembly, "stimulus_csv": stored, "stimulus_zip": stored}
            entries[f"{recipe.name}.V4.{split}"] = {"assembly": stored | {"shape": [shape[0], 7, 1]}}
    (folder / "artifacts.json").write_text(json.dumps(entries))
    return folder


def test_pull_request_follows_the_objects_and_states_ceilings_of_the_release(measured, tmp_path):
    checkout = copy_library(tmp_path / "vision").parent

    text = export(checkout, "--artifacts", measured / "artifacts.json", "--release", measured / NAME)

    assert (checkout / FOLDER / "artifacts.json").read_bytes() == (measured / "artifacts.json").read_bytes()
    assert len(list_rows(text)) == 2 * 2 * (3 + 1)
    assert (f"{NAME}.test", "assembly", "78 x 920 x 1") in list_rows(text)
    assert (f"{NAME}.V4.test", "assembly", "78 x 7 x 1") in list_rows(text)
    assert (
        "Of the 16 objects below, 0 are those that the existing plugins load, by version and SHA-1, and 4 are" in text
    )
    table = text.partition("## Ceilings")[2].partition("## Privacy")[0]
    assert f"`{NAME}.test`, computed from the object above:" in table
    rows = re.findall(r"^\| (V1|V2|V4|IT) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", table, re.MULTILINE)
    assert [row[0] for row in rows] == ["V1", "V2", "V4", "IT"]
    for region, n_neuroids, noise_ceiling, split_half in rows:
        assembly = load_assembly(NAME, "test", region, source=measured / NAME)
        assert int(n_neuroids) == assembly.sizes["neuroid"]
        assert float(noise_ceiling) == pytest.approx(np.median(assembly["nc_testset"].values), abs=0.05)
        assert float(split_half) == pytest.approx(float(internal_consistency(assembly)), abs=0.0005)


def test_ceilings_of_a_release_that_is_not_listed_are_refused(measured, small_checkout):
    """The shipped objects have the shapes of NSD."""
    line = export(small_checkout, "--release", measured / NAME, status=1)

    assert "has the shape (78, 920, 1), but artifacts.json lists (309, 221168, 1)" in line
    assert not (small_checkout / FOLDER).exists()
