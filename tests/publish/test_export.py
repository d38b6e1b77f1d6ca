"""The plugin's folder in a fresh copy of the installed brainscore_vision."""

import filecmp
import json
import re
import shutil
import subprocess

import pytest

from allen2022_surface_packaging.cli import main
from allen2022_surface_packaging.errors import PackagingError
from allen2022_surface_packaging.plugin import plugin_path
from allen2022_surface_packaging.publish.export import export_plugin
from publish.checkouts import TARGET_PATH, run_python

IDENTIFIERS = [
    f"Allen2022_fmri_surface{subjects}{region}.{split}"
    for subjects in ("", "_4subj")
    for region in ("", ".V1", ".V2", ".V4", ".IT")
    for split in ("train", "test")
]


def test_exported_plugin_is_unchanged(exported):
    checkout, _ = exported
    source_path = plugin_path()
    names = sorted(path.name for path in source_path.iterdir() if path.is_file() and not path.name.startswith("."))

    assert sorted(path.name for path in (checkout / TARGET_PATH).iterdir()) == sorted(
        [*names, "README.md", "analysis", "data_packaging"]
    )
    assert filecmp.cmpfiles(source_path, checkout / TARGET_PATH, names, shallow=False) == (names, [], [])


def test_export_holds_no_other_tests_or_requirements(exported):
    """Brain-Score runs every test*.py of a plugin, and pip-installs its requirements at every load."""
    checkout, _ = exported
    files = [path for path in (checkout / TARGET_PATH).rglob("*") if path.is_file()]

    assert [path.name for path in files if path.name.startswith("test") or path.stem.endswith("_test")] == ["test.py"]
    assert not {"setup.py", "requirements.txt", "environment.yml", "conftest.py"} & {path.name for path in files}
    assert not [path for path in files if "__pycache__" in path.parts or path.suffix == ".pyc"]


FIND = """
import json
import sys
import brainscore_vision
from brainscore_core.plugin_management.import_plugin import ImportPlugin, import_plugin
from brainscore_core.plugin_management.parse_plugin_changes import get_plugin_ids, get_test_file_paths
from pathlib import Path

root = Path(brainscore_vision.__file__).parent
assert str(root).startswith(sys.argv[1]), root
for identifier in sys.argv[2:]:
    assert ImportPlugin("brainscore_vision", "data", identifier).plugin_dirname == "allen2022_surface"
    import_plugin("brainscore_vision", "data", identifier)
    assert identifier in brainscore_vision.data_registry
    if identifier.count(".") == 1:
        import_plugin("brainscore_vision", "data", identifier, registry_prefix="stimulus_set")
        assert identifier in brainscore_vision.stimulus_set_registry
print(json.dumps(sorted(get_plugin_ids("data", ["allen2022_surface"], str(root)))))
print(json.dumps([Path(path).name for path in get_test_file_paths(root / "data" / "allen2022_surface")]))
"""


def test_brainscore_finds_every_identifier_and_the_tests(exported):
    checkout, _ = exported

    run = run_python(checkout, "-c", FIND, str(checkout), *IDENTIFIERS)

    assert run.returncode == 0, run.stderr
    identifiers, tests = run.stdout.splitlines()[-2:]
    assert json.loads(identifiers) == sorted(IDENTIFIERS)
    assert json.loads(tests) == ["test.py"]


# The sizes of the small tree, instead of those of NSD, before the tests of the plugin run


SMALL = """
import json, os
from pathlib import Path
import xarray

def pytest_collection_modifyitems(items):
    module = items[0].module
    folder = Path(os.environ["BRAINSCORE_ALLEN2022_SURFACE_DIR"])
    manifests = [json.loads(path.read_text()) for path in folder.glob("*/release.json")]
    module.N_IMAGES = {
        m["name"]: {"train": m["shapes"]["train"][0], "test": m["shapes"]["test"][0] // 3} for m in manifests
    }
    with xarray.open_dataarray(next(folder.glob("*/Allen2022_fmri_surface_test.nc"))) as assembly:
        regions = assembly["region"].values
        module.N_NEUROIDS_PER_SUBJECT = {name: int((regions == name).sum()) // 8 for name in module.REGIONS}
"""


@pytest.fixture
def run_plugin_tests(exported, eight_subject_release, four_subject_release, tmp_path):
    """Run the exported tests on the data of the small releases, and return pytest's last line."""
    checkout, _ = exported
    (tmp_path / "small_sizes.py").write_text(SMALL)
    releases = tmp_path / "releases"
    releases.mkdir()
    for folder in (eight_subject_release, four_subject_release):
        (releases / folder.name).symlink_to(folder)

    def run(*options):
        run = run_python(
            checkout,
            *("-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(TARGET_PATH / "test.py")),
            BRAINSCORE_ALLEN2022_SURFACE_DIR=str(releases),
            PYTHONPATH=str(tmp_path),
        )
        return run.stdout

    return run


@pytest.mark.slow
def test_the_plugins_own_tests_pass_on_data_of_the_right_size_and_only_on_such(run_plugin_tests):
    output = run_plugin_tests("-p", "small_sizes")
    assert re.search(r"^77 passed", output.splitlines()[-1].strip("= ")), output

    output = run_plugin_tests("-k", "test_shape or test_images")
    assert re.search(r"^8 failed", output.splitlines()[-1].strip("= ")), output


@pytest.mark.needs("git", "bash")
def test_git_commands_commit_only_the_plugin(exported, tmp_path):
    checkout, text = exported
    repository = tmp_path / "clone"
    (repository / "brainscore_vision" / "data").mkdir(parents=True)
    shutil.copytree(checkout / TARGET_PATH, repository / TARGET_PATH)
    commands = text.partition("\n\n")[0].splitlines()[1:4]
    identity = ["git", "-c", "user.name=A", "-c", "user.email=a@b.c"]
    script = "\n".join(["set -e", "git init -q .", *commands]).replace("git commit", f"{' '.join(identity)} commit -q")

    subprocess.run(["bash", "-c", script], cwd=repository, check=True, capture_output=True)

    listed = subprocess.run(["git", "ls-files"], cwd=repository, check=True, capture_output=True, text=True)
    files = {str(path.relative_to(repository)) for path in (repository / TARGET_PATH).rglob("*") if path.is_file()}
    assert set(listed.stdout.splitlines()) == files


def test_second_export_needs_overwrite(exported, capsys):
    checkout, _ = exported
    (checkout / TARGET_PATH / "loaders.py").write_text("changed")

    with pytest.raises(PackagingError, match="allen2022_surface is there already. Add --overwrite"):
        export_plugin(checkout)
    with pytest.raises(SystemExit) as exit:
        main(["export", str(checkout), "--overwrite"])

    assert exit.value.code == 0
    assert "gh pr create" in capsys.readouterr().out
    assert "changed" not in (checkout / TARGET_PATH / "loaders.py").read_text()


@pytest.mark.parametrize("content", [{}, {"brainscore_vision/__init__.py": ""}, {"README.md": "vision"}])
def test_folder_that_is_not_a_checkout_is_refused(tmp_path, content):
    for name, text in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    with pytest.raises(PackagingError, match="is not a checkout of brain-score/vision: expected"):
        export_plugin(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "data_registry['Allen2022_fmri_surface.V1.test'] = lambda: None",
        'stimulus_set_registry["Allen2022_fmri_surface.test"] = lambda: None',
    ],
)
def test_identifier_of_another_plugin_is_refused(small_checkout, line):
    (small_checkout / "brainscore_vision" / "data" / "other" / "__init__.py").write_text(line)

    with pytest.raises(PackagingError, match=r"data/other registers .*\['Allen2022_fmri_surface\..*test'\] already"):
        export_plugin(small_checkout)
    assert not (small_checkout / TARGET_PATH).exists()


def test_another_plugin_is_never_overwritten(small_checkout):
    (small_checkout / TARGET_PATH).mkdir()
    (small_checkout / TARGET_PATH / "__init__.py").write_text("data_registry['Else'] = lambda: None")

    with pytest.raises(PackagingError, match="is another plugin. Move it away"):
        export_plugin(small_checkout, overwrite=True)


def test_link_in_the_checkout_is_refused(small_checkout, tmp_path):
    (tmp_path / "linked").mkdir()
    (small_checkout / TARGET_PATH).symlink_to(tmp_path / "linked")

    with pytest.raises(PackagingError, match="is a link to .*unlink"):
        export_plugin(small_checkout, overwrite=True)
    assert not list((tmp_path / "linked").iterdir())


def test_failing_test_in_the_checkout_is_reported(small_checkout):
    """This checkout has no code of Brain-Score, so the tests cannot be imported there."""
    with pytest.raises(PackagingError, match="is written, but its tests fail there .*See: cd"):
        export_plugin(small_checkout)
