"""What a machine may lack while a command runs: a place for output, memory, file descriptors. One line, and no false blame."""

import errno
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from allen2022_surface_packaging import cli, files
from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import make_recipe
from support import hashes, run_cli

HUGE_BYTES = 2**31
SIZE = ("--subjects", "1", "--sessions", "2", "--trials", "30", "--vertices", "162", "--image-size", "8")


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("small") / "nsd"
    simulate_tree(root, TreeSize((1,), n_sessions=2, n_trials=30, n_vertices=162, image_size=8, betas=(DEFAULT_BETAS,)))
    return root


@pytest.fixture
def tree_copy(small_tree, tmp_path) -> Path:
    return Path(shutil.copytree(small_tree, tmp_path / "nsd"))


@pytest.fixture(scope="module")
def small_release(small_tree, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("small") / "release"
    build_release(small_tree, path, make_recipe((1,), name="one"))
    return path


@pytest.fixture
def release_copy(small_release, tmp_path) -> Path:
    return Path(shutil.copytree(small_release, tmp_path / "release"))


def run(arguments, redirection="", limit=None, **variables):
    """Run the command line in a shell, with Python's own buffers, and return its status and what it writes."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | variables
    command = ["bash", "-c", f'"$@" {redirection}', "bash", sys.executable, "-m", "allen2022_surface_packaging"]
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        preexec_fn=limit and (lambda: resource.setrlimit(*limit)),
    )


@pytest.mark.needs("bash")
@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.parametrize("arguments", [["recipes"], ["recipes", "show", "streams"], ["check", "NSD_ROOT"]])
def test_output_that_cannot_be_written_is_one_line(small_tree, arguments, variables):
    arguments = [small_tree if argument == "NSD_ROOT" else argument for argument in arguments]
    line = (
        "allen2022-surface: The output cannot be written: No space left on device. Free some space and start again.\n"
    )

    result = run(arguments, ">/dev/full", **variables)

    assert (result.returncode, result.stderr) == (1, line)


@pytest.mark.needs("bash")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_that_cannot_be_written_is_one_line(arguments):
    result = run(arguments, ">/dev/full")

    assert result.returncode == 1
    assert result.stderr.startswith("allen2022-surface: The output cannot be written: No space left on device.")
    assert result.stderr.count("\n") == 1


@pytest.mark.needs("bash")
@pytest.mark.parametrize("redirection", ["| true", "| head -1"])
def test_reader_of_output_may_leave(redirection):
    result = run(["recipes", "show", "streams"], redirection)

    assert (result.returncode, result.stderr) == (0, "")  # the status is that of the reader


def test_other_broken_pipe_is_an_error(monkeypatch):
    def lose_worker(options):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe", "worker")

    monkeypatch.setitem(cli.COMMANDS, "recipes", lose_worker)

    result = run_cli("recipes")

    assert (result.returncode, result.stderr) == (1, "allen2022-surface: worker: Broken pipe.\n")


@pytest.mark.needs("bash")
def test_output_may_be_closed():
    result = run(["recipes"], ">&-")

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.needs("bash")
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_error_that_cannot_be_written_leaves_output_and_status_alone(redirection):
    result = run(["recipes", "show", "unknown"], redirection)

    assert (result.returncode, result.stdout) == (1, "")


@pytest.mark.needs("bash")
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_signal_whose_line_cannot_be_written_has_its_status(redirection):
    code = "import signal, allen2022_surface_packaging.signals as s\nwith s.ending_signals(): signal.raise_signal(15)"

    result = subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", sys.executable, "-c", code], capture_output=True, text=True
    )

    assert (result.returncode, result.stdout) == (143, "")


@pytest.mark.needs("bash")
@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-"])
def test_work_is_done_when_progress_cannot_be_shown(small_tree, release_copy, tmp_path, redirection):
    before = hashes(release_copy)

    for command in (
        ["simulate", tmp_path / "nsd", *SIZE],
        ["build", tmp_path / "nsd", tmp_path / "built", "--subjects", 1, "--name", "one"],
        ["verify", release_copy, "--nsd-root", small_tree, "--all"],
        ["report", release_copy],
    ):
        assert run(command, redirection).returncode == 0, command

    assert (tmp_path / "built" / "release.json").is_file()
    assert before.items() <= hashes(release_copy).items()
    assert json.loads((release_copy / "verify.json").read_text())["nsd_root"]["problems"] == []


@pytest.mark.needs("bash")
def test_release_is_not_blamed_for_a_lack_of_descriptors(release_copy):
    """Whatever opens a file when there are too many."""
    (release_copy / "verify.json").write_text("{}")
    failures = 0
    for n_descriptors in range(7, 30):
        result = run(["verify", release_copy], limit=(resource.RLIMIT_NOFILE, (n_descriptors, n_descriptors)))
        if result.returncode == 0:
            break
        failures += 1
        assert result.returncode == 1
        assert "Too many open files. Allow more open files" in result.stderr.splitlines()[-1]
        assert (release_copy / "verify.json").read_text() == "{}"

    assert result.returncode == 0
    assert failures > 0


@pytest.mark.parametrize(
    ("place", "arguments"),
    [
        ("verify.verdicts.check_soundness", ["verify", "RELEASE"]),
    ],
)
def test_release_that_is_replaced_while_it_is_read_is_named(small_release, tmp_path, monkeypatch, place, arguments):
    """As by `build --overwrite`: what is packed, sent, or said of it would be of two releases."""
    release = Path(shutil.copytree(small_release, tmp_path / "release"))
    manifest = json.loads((release / "release.json").read_text())
    (release / "release.json").write_text(json.dumps(manifest | {"simulated": False}))
    module, name = f"allen2022_surface_packaging.{place}".rsplit(".", 1)
    original = getattr(importlib.import_module(module), name)

    def replace_before(*given, **options):
        with files.new_folder(release) as partial:
            shutil.copytree(small_release, partial, dirs_exist_ok=True)
        return original(*given, **options)

    monkeypatch.setattr(f"{module}.{name}", replace_before)

    result = run_cli(*({"RELEASE": release, "PACKED": tmp_path / "packed"}.get(a, a) for a in arguments))

    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert line == f"allen2022-surface: {release} was replaced while it was read. Start again."
    assert [path.name for path in tmp_path.iterdir()] == ["release"]
    assert not (release / "report.html").exists()


class Unreadable:
    """Fails as a library does that opens a file when the system gives no descriptor."""

    def __init__(self, *_, **__):
        raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("verify.assembly_soundness.netCDF4", "Dataset", ["verify", "RELEASE"]),
        ("verify.assemblies.xarray", "open_dataarray", ["verify", "RELEASE", "--nsd-root", "TREE"]),
        ("verify.raw.MGHImage", "from_filename", ["verify", "RELEASE", "--nsd-root", "TREE"]),
        ("verify.stimuli.h5py", "File", ["verify", "RELEASE", "--nsd-root", "TREE"]),
        ("images.Image", "open", ["verify", "RELEASE"]),
        ("report.statistics.xr", "open_dataset", ["report", "RELEASE"]),
        ("report.statistics", "read_file", ["report", "RELEASE"]),
    ],
)
def test_error_of_the_system_is_not_blamed_on_the_release(
    release_copy, small_tree, monkeypatch, module, name, arguments
):
    files = hashes(release_copy)
    monkeypatch.setattr(f"allen2022_surface_packaging.{module}.{name}", Unreadable)

    result = run_cli(*({"RELEASE": release_copy, "TREE": small_tree}.get(argument, argument) for argument in arguments))

    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith("allen2022-surface: /")
    assert line.endswith(": Too many open files. Allow more open files (`ulimit -n`) and start again.")
    assert hashes(release_copy) == files


def test_lack_of_memory_is_one_line(monkeypatch):
    def allocate(options):
        np.empty(2**55)

    monkeypatch.setitem(cli.COMMANDS, "recipes", allocate)

    result = run_cli("recipes")

    assert result.returncode == 1
    start = "allen2022-surface: The memory of this machine is too small (Unable to allocate 256. PiB "
    assert result.stderr.startswith(start)
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seed", -1, "must be from 0 to 4,294,967,295, but got -1"),
        ("--trials", 0, "must be from 1 to 10,000, but got 0"),
        ("--trials", 3 * 10**21, "must be from 1 to 10,000, but got 3000000000000000000000"),
        ("--image-size", 999_999_999, "must be from 1 to 10,000, but got 999999999"),
        ("--vertices", 10**11, "must be from 1 to 1,000,000, but got 100000000000"),
    ],
)
def test_numbers_that_no_machine_has_the_memory_for_are_refused(tmp_path, option, value, message):
    result = run_cli("simulate", tmp_path / "nsd", option, value)

    assert result.returncode == 2
    assert message in result.stderr


def make_huge(path: Path) -> None:
    """Make a file of two gigabytes, of which the disk holds nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, HUGE_BYTES)


@pytest.mark.parametrize("command", ["verify", "report"])
@pytest.mark.parametrize("name", ["release.json", "verify.json"])
def test_huge_file_of_a_release_is_named(release_copy, name, command):
    make_huge(release_copy / name)

    result = run_cli(command, release_copy)

    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith(f"allen2022-surface: {release_copy / name} has 2,147,483,648 bytes, expected at most")


def test_huge_recipe_is_named(tmp_path):
    make_huge(tmp_path / "recipe.toml")

    result = run_cli("recipes", "check", tmp_path / "recipe.toml")

    assert result.returncode == 1
    assert result.stderr.startswith(f"allen2022-surface: {tmp_path / 'recipe.toml'} has 2,147,483,648 bytes")


@pytest.mark.parametrize(
    "path",
    [
        "nsddata/experiments/nsd/nsd_expdesign.mat",
        "nsddata/freesurfer/fsaverage/label/streams.mgz.ctab",
        "nsddata/freesurfer/fsaverage/label/lh.Kastner2015.mgz",
        "nsddata_betas/ppdata/subj01/fsaverage/betas_fithrf_GLMdenoise_RR/lh.ncsnr.mgh",
    ],
)
def test_huge_raw_file_is_named(tree_copy, path):
    make_huge(tree_copy / path)

    result = run_cli("check", tree_copy)

    assert result.returncode == 1
    assert f"{tree_copy / path} has 2,147,483,648 bytes" in result.stdout + result.stderr


def test_name_that_is_not_text_is_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"x\xffy")
    folder.mkdir()

    result = run_cli("verify", folder)
    assert result.returncode == 2
    assert f"'{tmp_path}/x\\udcffy' is not text in UTF-8, as the NetCDF library needs it" in result.stderr


def test_name_of_a_tree_need_not_be_text(small_tree, small_release, tmp_path):
    root = tmp_path / os.fsdecode(b"x\xffy")
    root.symlink_to(small_tree)

    result = run_cli("build", root, tmp_path / "release", "--subjects", 1, "--name", "one")

    assert result.returncode == 0, result.stderr
    assert hashes(tmp_path / "release") == hashes(small_release)


@pytest.mark.needs("bash")
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8:strict"])
def test_output_in_an_encoding_without_the_letters_of_a_name(tmp_path, encoding, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", encoding)

    folder = tmp_path / "\u0159"
    for arguments in (["simulate", "-q", folder, *SIZE], ["recipes", "show", "streams"]):
        result = run(arguments)
        assert (result.returncode, result.stderr) == (0, "")
    assert run(["check", folder]).stderr.startswith("allen2022-surface: ")  # other subjects are missing
