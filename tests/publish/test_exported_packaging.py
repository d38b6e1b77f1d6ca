"""The packaging in an exported folder: its README, and its commands without the installed plugin."""

import re
from pathlib import Path

import pytest

from allen2022_surface_packaging import __version__
from allen2022_surface_packaging.publish.export import export_plugin
from publish.checkouts import TARGET_PATH, run_python


def test_exported_folder_says_what_it_is_and_how_to_load_without_credentials(exported):
    checkout, _ = exported
    readme = (checkout / TARGET_PATH / "README.md").read_text(encoding="utf-8")

    assert "## Load without credentials" in readme
    assert "export BRAINSCORE_ALLEN2022_SURFACE_DIR=$PWD/RELEASE" in readme
    assert "| `Allen2022_fmri_surface.test` | three repetitions of each image | 309 x 221168 x 1 |" in readme
    commands = re.findall(r"^python -m (.*)$", readme, re.MULTILINE)
    assert commands == ["allen2022_surface_packaging build s3://natural-scenes-dataset RELEASE"]
    for name in re.findall(r"`(\w+\.py|data_packaging/)`", readme):
        assert (checkout / TARGET_PATH / name).exists()


def test_exported_packaging_runs_from_its_folder(exported):
    checkout, _ = exported

    run = run_python(checkout / TARGET_PATH / "data_packaging", "-m", "allen2022_surface_packaging", "build", "--help")

    assert run.returncode == 0, run.stderr
    readme = (checkout / TARGET_PATH / "data_packaging" / "README.md").read_text()
    assert "'nibabel>=5.2'" in readme
    assert "extra ==" not in readme


def test_exported_packaging_runs_without_being_installed(exported):
    checkout, _ = exported
    script = (
        "from importlib import metadata\n"
        "installed = metadata.version\n"
        "def version(name):\n"
        "    if name.startswith('brainscore_allen'):\n"
        "        raise metadata.PackageNotFoundError(name)\n"
        "    return installed(name)\n"
        "metadata.version = version\n"
        "from allen2022_surface_packaging.release import __file__, installed_versions\n"
        "print(installed_versions()['brainscore_allen2022_surface'], __file__)\n"
    )

    run = run_python(checkout / TARGET_PATH / "data_packaging", "-c", script)

    assert run.returncode == 0, run.stderr
    version, path = run.stdout.split(maxsplit=1)
    assert version == __version__
    assert Path(path.strip()).is_relative_to(checkout)


HIDE_PLUGIN = """
import sys

class Hidden:
    \"\"\"Lets Python find no installed copy of the plugin.\"\"\"

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] == "brainscore_allen2022_surface" and path is None
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Hidden(finder) for finder in sys.meta_path]

from importlib import metadata

def hide(function):
    def hidden(name):
        if name.startswith("brainscore_allen2022"):
            raise metadata.PackageNotFoundError(name)
        return function(name)
    return hidden

metadata.version, metadata.requires = hide(metadata.version), hide(metadata.requires)
"""
RUN = f"{HIDE_PLUGIN}\nsys.modules.update(dict.fromkeys(HIDDEN))\nfrom allen2022_surface_packaging.__main__ import main\nmain()"


def run_exported(folder, *arguments, hidden=()):
    """Run a command of an exported copy from its folder, without the installed plugin and without hidden packages."""
    return run_python(folder, "-c", f"HIDDEN = {hidden!r}\n{RUN}", *map(str, arguments))


@pytest.mark.slow
def test_commands_of_the_exported_packaging_run_there(another_checkout, measured_copy, tmp_path):
    export_plugin(another_checkout)
    folder = another_checkout / TARGET_PATH / "data_packaging"
    nsd, built = tmp_path / "nsd", tmp_path / "built"
    readme = (another_checkout / TARGET_PATH / "README.md").read_text()

    for arguments in (
        ["simulate", nsd, "--subjects", 1, 2, "--trials", 60, "--vertices", 160, "--image-size", 8],
        ["check", nsd, "--subjects", 1, 2],
        ["build", nsd, built, "--subjects", 1, 2, "--name", "Two", "--workers", 2, "--cache", "none"],
        ["verify", built, "--nsd-root", nsd],
        ["pack", measured_copy, tmp_path / "packed"],
        ["upload", "--help"],
        ["record", "--help"],
        ["export", another_checkout, "--overwrite"],
    ):
        run = run_exported(folder, *arguments)
        assert run.returncode == 0, run.stderr

    assert (tmp_path / "packed" / "version_ids.csv").is_file()
    assert (another_checkout / TARGET_PATH / "README.md").read_text() == readme


@pytest.mark.parametrize(
    ("hidden", "arguments", "message"),
    [
        ("h5py", ["check", "NSD"], "h5py is not installed. Install it: pip install h5py"),
        ("PIL", ["build", "NSD", "RELEASE"], "PIL is not installed. Install it: pip install Pillow"),
        (
            "boto3",
            ["upload", "R", "--bucket", "b", "--dry-run"],
            "boto3 is not installed. Install it: pip install boto3",
        ),
        ("nilearn", ["report", "R"], "nilearn is not installed. Install it: pip install nilearn"),
        ("moto", ["demo"], r"moto not installed: .* Install: pip install brainscore_vision 'moto\[server\]'"),
    ],
)
def test_exported_packaging_says_in_one_line_what_to_install(exported, hidden, arguments, message):
    checkout, _ = exported

    run = run_exported(checkout / TARGET_PATH / "data_packaging", *arguments, hidden=(hidden,))

    assert run.returncode == 1
    line = run.stderr.splitlines()[-1]
    assert re.fullmatch(f"allen2022-surface: {message}", line), run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.slow
def test_exported_packaging_reports_without_the_installed_plugin(exported, release_copy, tmp_path):
    checkout, _ = exported
    script = f"""{HIDE_PLUGIN}
from importlib.util import find_spec
assert find_spec("brainscore_allen2022_surface") is None
from allen2022_surface_packaging.cli import main
try:
    main(["report", sys.argv[1]])
finally:
    print(sys.modules["brainscore_allen2022_surface"].__file__)
"""

    run = run_python(checkout / TARGET_PATH / "data_packaging", "-c", script, str(release_copy))

    assert run.returncode == 0, run.stderr
    assert (release_copy / "report.html").stat().st_size > 100_000
    assert Path(run.stdout.splitlines()[-1]) == checkout / TARGET_PATH / "__init__.py"
