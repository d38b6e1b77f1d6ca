"""The commands of the plugin, in this process and on a stub of brainscore_vision."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import brainscore_allen2022_surface as plugin
from brainscore_allen2022_surface import links
from brainscore_allen2022_surface.__main__ import main
from brainscore_allen2022_surface.artifacts import SHIPPED_PATH
from brainscore_allen2022_surface.inventory import registered_identifiers
from brainscore_allen2022_surface.loaders import load_assembly

NAME = "Allen2022_fmri_surface"
RELEASE_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_DIR"
ARTIFACTS_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS"
PLUGIN_PATH = Path(plugin.__path__[0]).resolve()


@pytest.fixture(autouse=True)
def data_path(tmp_path, monkeypatch) -> Path:
    """The folder of data plugins of a stub of brainscore_vision."""
    path = tmp_path / "site" / "brainscore_vision" / "data"
    (path / "other").mkdir(parents=True)
    (path / "other" / "__init__.py").write_text("data_registry['Other2000'] = None")
    monkeypatch.setattr(links, "data_path", lambda: path)
    return path


@pytest.fixture
def run(capsys):
    """Run a command, and return its status and what it printed."""

    def run_command(*arguments, status=0):
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        assert leaving.value.code == status, output
        assert "Traceback" not in output.err
        return output.out if status == 0 or output.out else output.err

    return run_command


def finding(output, subject):
    """Return the state and the advice of one thing that `doctor` examined."""
    (match,) = re.findall(rf"^([! ]) {re.escape(subject)} +(.*)\n(?:      -> (.*)\n)?", output, re.MULTILINE)
    mark, state, advice = match
    assert (mark == "!") == bool(advice)
    return state, advice


# --- list ------------------------------------------------------------------------------------------------------------------


def test_list_has_every_identifier_with_its_s3_object(run):
    output = run("list")

    assert f"Source: {SHIPPED_PATH}; downloads stay in {os.environ['BRAINIO_HOME']}" in output
    rows = [line.split() for line in output.splitlines() if line.startswith(NAME)]
    assert [row[0] for row in rows] == [
        *registered_identifiers("data_registry"),
        *registered_identifiers("stimulus_set_registry"),
    ]
    assert len(rows) == 24
    assert all(row[1:3] == ["unknown", "no"] and row[3].startswith("s3://brainscore-storage/") for row in rows)


def test_list_names_the_release_of_each_identifier(run, release, tmp_path, monkeypatch):
    (tmp_path / "releases").mkdir()
    (tmp_path / "releases" / "eight").symlink_to(release)
    monkeypatch.setenv(RELEASE_VARIABLE, str(tmp_path / "releases"))

    lines = run("list").splitlines()

    size = f"{(release / f'{NAME}_test.nc').stat().st_size / 1e3:.1f} kB"
    path = tmp_path / "releases" / "eight" / f"{NAME}_test.nc"
    assert re.split("  +", lines[lines.index("") + 3]) == [f"{NAME}.test", size, "yes", str(path)]
    assert sum(line.endswith("not found, see below") for line in lines) == 12
    (reason,) = [line for line in lines if "expected" in line]
    assert reason.startswith(f"{tmp_path / 'releases'} holds {NAME}, expected {NAME}_4subj. Build it")


def test_list_says_what_is_in_the_cache(run, s3, published):
    before = run("list")
    load_assembly(NAME, "test", region="V4")
    after = run("list")

    changed = [line.split()[0] for line in set(after.splitlines()) - set(before.splitlines())]
    assert sorted(changed) == sorted([f"{NAME}.V4.test", f"{NAME}.test"])  # the second one is the stimulus set
    row = next(line for line in after.splitlines() if line.startswith(f"{NAME}.V4.test"))
    assert re.split("  +", row)[2:] == ["yes", f"s3://brain/benchmarks/Allen2022/surface/assy_{NAME}_V4_test.nc"]


@pytest.mark.parametrize("variable", [RELEASE_VARIABLE, ARTIFACTS_VARIABLE])
def test_list_without_a_source_fails_in_one_line(run, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))

    line = run("list", status=1)

    assert re.fullmatch(f"brainscore_allen2022_surface: {variable} is {tmp_path}/nowhere, which is not a .*\n", line)


@pytest.mark.needs("bash")
def test_output_that_nobody_reads_is_no_error():
    command = f"{sys.executable} -m brainscore_allen2022_surface list | true"

    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True)

    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr


FULL = "brainscore_allen2022_surface: The output cannot be written (No space left on device).\n"


@pytest.mark.needs("bash")
@pytest.mark.parametrize(
    ("command", "redirection", "status", "line"),
    [("list", ">/dev/full", 1, FULL), ("--help", ">/dev/full", 1, FULL), ("list", ">&-", 0, "")],
)
def test_output_that_cannot_be_written_is_one_line(command, redirection, status, line):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = f"{sys.executable} -m brainscore_allen2022_surface {command} {redirection}"

    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)

    assert (result.returncode, result.stderr) == (status, line)


@pytest.mark.needs("bash")
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full"])
def test_error_that_cannot_be_written_leaves_output_and_status_alone(redirection):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment[RELEASE_VARIABLE] = "/nowhere"
    command = f"{sys.executable} -m brainscore_allen2022_surface list {redirection}"

    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=environment)

    assert (result.returncode, result.stdout) == (1, "")


# --- doctor ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def linked(data_path) -> Path:
    links.link()
    return data_path / "allen2022_surface"


def test_doctor_finds_nothing_wrong(run, linked, release, monkeypatch):
    monkeypatch.setenv(RELEASE_VARIABLE, str(release))

    output = run("doctor", f"{NAME}.V4.test")

    assert finding(output, "link") == (f"{linked} -> {PLUGIN_PATH}", "")
    assert finding(output, "release") == (f"{release}: {NAME}, simulated", "")
    assert finding(output, RELEASE_VARIABLE) == (str(release), "")
    assert finding(output, "load_dataset")[0].endswith("kB, on this machine")
    assert output.endswith("\nNo problems found.\n")


def test_doctor_expands_home_folders(run, linked, release, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "releases").symlink_to(release)
    monkeypatch.setenv(RELEASE_VARIABLE, "~/releases")
    monkeypatch.setenv("BRAINIO_HOME", "~/cache")

    output = run("doctor")

    assert finding(output, RELEASE_VARIABLE) == (f"{tmp_path}/releases", "")
    assert finding(output, "BRAINIO_HOME") == (f"{tmp_path}/cache", "")
    assert finding(output, "cache")[0].startswith(f"{tmp_path}/cache: 0 of 12 objects")
    assert finding(output, ARTIFACTS_VARIABLE) == ("not set", "")


def test_doctor_says_what_would_be_downloaded(run, linked, s3, published):
    before = finding(run("doctor"), "cache")[0]
    load_assembly(NAME, "test", region="V4")
    after = finding(run("doctor"), "cache")[0]

    assert re.fullmatch(r".*: 0 of 28 objects, \d+\.\d MB would be downloaded", before)
    assert re.fullmatch(r".*: 3 of 28 objects, \d+\.\d MB would be downloaded", after)


def damage_manifest(tmp_path, monkeypatch):
    (tmp_path / "release.json").write_text("{")
    monkeypatch.setenv(RELEASE_VARIABLE, str(tmp_path))


def set_variable(variable, value):
    return lambda tmp_path, monkeypatch: monkeypatch.setenv(variable, value.format(tmp_path))


def use_file_as_cache(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BRAINIO_HOME", str(tmp_path / "file"))


def use_empty_folder(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv(RELEASE_VARIABLE, str(tmp_path / "empty"))


def damage_artifacts(tmp_path, monkeypatch):
    (tmp_path / "artifacts.json").write_text("[]")
    monkeypatch.setenv(ARTIFACTS_VARIABLE, str(tmp_path / "artifacts.json"))


def have_two_releases(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / "two" / name).mkdir(parents=True)
        (tmp_path / "two" / name / "release.json").write_text('{"name": "X", "files": {}}')
    monkeypatch.setenv(RELEASE_VARIABLE, str(tmp_path / "two"))


def register_twice(tmp_path, monkeypatch):
    folder = tmp_path / "site" / "brainscore_vision" / "data" / "copy_of_it"
    folder.mkdir()
    shutil.copy(PLUGIN_PATH / "__init__.py", folder)


WRONG = {
    "manifest": (damage_manifest, "release", "release.json is damaged .*Build the release again"),
    "no release": (use_empty_folder, "release", "Build one"),
    "two releases": (have_two_releases, "release", "a has the same name"),
    "release variable": (set_variable(RELEASE_VARIABLE, "{}/nowhere"), "source", "nowhere, which is not a folder"),
    "home folder": (set_variable(RELEASE_VARIABLE, "~nobody_here"), RELEASE_VARIABLE, "there is no such home folder"),
    "artifacts": (damage_artifacts, "artifacts", "artifacts.json is damaged"),
    "artifacts variable": (set_variable(ARTIFACTS_VARIABLE, "{}/nowhere"), "artifacts", "nowhere, which is not a file"),
    "cache": (use_file_as_cache, "cache", "is not a folder. Remove it"),
    "registered twice": (register_twice, f"{NAME}.V4.test", "Brain-Score takes it from one only"),
    "profile": (set_variable("AWS_PROFILE", "nobody"), "credentials", "Correct AWS_PROFILE"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_doctor_advises_about_what_is_wrong(run, linked, tmp_path, monkeypatch, wrong):
    spoil, subject, advice = WRONG[wrong]
    spoil(tmp_path, monkeypatch)

    output = run("doctor", status=1)

    marked = re.findall(rf"^! {re.escape(subject)} .*\n      -> (.*)$", output, re.MULTILINE)
    assert len(marked) == 1
    assert re.search(advice, marked[0])


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.symlink_to("/nowhere"), "-> /nowhere leads nowhere"),
        (lambda path: (path.mkdir(), (path / "__init__.py").write_text("another")), "is another plugin"),
        (lambda path: path.symlink_to(shutil.copytree(PLUGIN_PATH, path.parents[2] / "copy")), "is another copy"),
    ],
    ids=["missing", "dangling", "another plugin", "another copy"],
)
def test_doctor_advises_about_the_link(run, data_path, make, state):
    make(data_path / "allen2022_surface")

    actual_state, advice = finding(run("doctor", status=1), "link")

    assert state in actual_state
    assert "python -m brainscore_allen2022_surface link" in advice


def test_doctor_runs_without_brainscore_vision(run, monkeypatch):
    def raise_missing():
        raise FileNotFoundError("brainscore_vision is not installed here. Install it: pip install brainscore_vision")

    monkeypatch.setattr(links, "data_path", raise_missing)

    state, advice = finding(run("doctor", status=1), "brainscore_vision")

    assert state == "not installed"
    assert "pip install brainscore_vision" in advice


@pytest.mark.parametrize(
    ("identifier", "meant"),
    [(f"{NAME}.v4.test", f"{NAME}.V4.test"), (f"{NAME}_test", f"{NAME}.test"), (f"{NAME}.V4.tset", f"{NAME}.V4.test")],
)
def test_doctor_names_close_identifiers(run, linked, identifier, meant):
    state, advice = finding(run("doctor", identifier, status=1), identifier)

    assert "Brain-Score says: No registrations found" in state
    assert advice.startswith("Did you mean ")
    assert meant in advice


def test_doctor_says_why_an_identifier_does_not_load(run, linked, release, monkeypatch):
    monkeypatch.setenv(RELEASE_VARIABLE, str(release))

    state, advice = finding(run("doctor", f"{NAME}_4subj.V4.test", status=1), "load_dataset")

    assert state == "not found"
    assert f"expected {NAME}_4subj. Build it" in advice


def test_credentials_are_present_and_never_shown(run, linked, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAQUITESECRET00000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "quiteSecretToo")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "andThisToken")

    output = run("doctor")

    assert finding(output, "credentials") == ("present", "")
    assert not re.search("QUITESECRET|quiteSecret|andThisToken", output)


def test_credentials_are_asked_for_when_something_must_be_downloaded(run, linked, release, monkeypatch):
    state, advice = finding(run("doctor", status=1), "credentials")
    assert state == "none"
    assert "set AWS_PROFILE" in advice

    monkeypatch.setenv(RELEASE_VARIABLE, str(release))
    assert finding(run("doctor"), "credentials") == ("none", "")


# --- usage -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["link", "unlink", "list", "doctor"])
def test_help_has_an_example(run, command):
    assert f"example: python -m brainscore_allen2022_surface {command}\n" in run(command, "--help")


@pytest.mark.parametrize("arguments", [[], ["lnik"], ["list", "more"]])
def test_wrong_usage_has_status_2(run, arguments):
    assert "usage: python -m brainscore_allen2022_surface" in run(*arguments, status=2)


# --- link ------------------------------------------------------------------------------------------------------------------


def test_link_says_what_it_linked(run, data_path):
    assert run("link") == f"{data_path}/allen2022_surface links to {PLUGIN_PATH}.\n"


def test_link_fails_in_one_line(run, data_path):
    (data_path / "allen2022_surface").mkdir()

    line = run("link", status=1)

    assert re.fullmatch("brainscore_allen2022_surface: .* exists already and is not this plugin. Move it to .*\n", line)
