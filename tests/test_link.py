"""The commands `link`, `unlink`, `list` and `doctor`, on a stub of brainscore_vision, so that the installed one stays as it is."""

import json
import os
import re
import shutil
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import pytest

import brainscore_allen2022_surface as plugin
from allen2022_surface_packaging.progress import format_bytes
from support import install, install_fitting_torch, run_cli

NAME = "Allen2022_fmri_surface"
RELEASE_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_DIR"
ARTIFACTS_VARIABLE = "BRAINSCORE_ALLEN2022_SURFACE_ARTIFACTS"
PLUGIN_PATH = Path(plugin.__path__[0]).resolve()


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """Where the link belongs: in the folder of data plugins of a stub of brainscore_vision, which holds another plugin."""
    library = tmp_path / "site" / "brainscore_vision"
    (library / "data" / "other").mkdir(parents=True)
    (library / "data" / "other" / "__init__.py").write_text("data_registry['Other2000'] = None")
    stub = ModuleType("brainscore_vision")
    stub.__spec__ = ModuleSpec("brainscore_vision", None, origin=str(library / "__init__.py"))
    monkeypatch.setitem(sys.modules, "brainscore_vision", stub)
    monkeypatch.syspath_prepend(tmp_path / "site")
    install_fitting_torch(tmp_path / "site")
    return library / "data" / "allen2022_surface"


def run(*arguments, status=0):
    """Run a command, and return what it printed, or the error without its prefix."""
    result = run_cli(*arguments)
    assert result.returncode == status, result
    if result.stdout:
        return result.stdout
    (line,) = result.stderr.splitlines()
    return line.removeprefix("allen2022-surface: ")


# --- link and unlink -------------------------------------------------------------------------------------------------------


def test_link_is_made_once_and_removed_once(place):
    advice = "Brain-Score does not find this plugin. Link it: allen2022-surface link"
    assert finding(run("doctor", status=1), "link") == (f"{place} does not exist", advice)
    assert run("link") == f"{place} links to {PLUGIN_PATH}.\n"
    assert place.is_symlink() and place.resolve() == PLUGIN_PATH
    assert run("link") == f"{place} is linked already.\n"
    assert run("unlink") == f"{place} is removed.\n"
    assert [path.name for path in place.parent.iterdir()] == ["other"]
    assert run("unlink") == f"{place} does not exist.\n"


def link_to_nothing(place):
    place.symlink_to("/nowhere")


def link_to_copy(place):
    place.symlink_to(copy_plugin(place.parents[3] / "checkout"))


def copy_plugin(place):
    return shutil.copytree(PLUGIN_PATH, place, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.mark.parametrize(
    ("make", "state"),
    [(link_to_nothing, "-> /nowhere leads nowhere"), (link_to_copy, "is another copy"), (copy_plugin, "is a copy")],
)
def test_what_an_earlier_link_left_is_replaced_and_removed(place, make, state, tmp_path):
    make(place)
    actual_state, advice = finding(run("doctor", status=1), "link")
    assert state in actual_state
    assert make is copy_plugin or advice.endswith("allen2022-surface link")
    assert run("link") == f"{place} links to {PLUGIN_PATH}.\n"
    place.unlink()
    shutil.rmtree(tmp_path / "checkout", ignore_errors=True)

    make(place)
    assert run("unlink") == f"{place} is removed.\n"
    assert not place.is_symlink() and not place.exists()
    assert make is not link_to_copy or (tmp_path / "checkout" / "__init__.py").is_file()


def make_other_plugin(place):
    place.mkdir()
    (place / "__init__.py").write_text("another plugin")


def export_plugin(place):
    copy_plugin(place)
    shutil.rmtree(place / "analysis")


@pytest.mark.parametrize("make", [Path.touch, make_other_plugin, export_plugin])
def test_something_else_stays(place, make):
    make(place)

    for command in ("link", "unlink"):
        assert f"{place} is no link to this plugin, and no copy that `link` made. Move" in run(command, status=1)
    assert place.exists()
    assert make is export_plugin or "is another plugin" in finding(run("doctor", status=1), "link")[0]


def test_plugin_is_copied_where_links_are_not_allowed(place, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError("as on exFAT")

    monkeypatch.setattr(Path, "symlink_to", refuse)

    for _ in range(2):  # the second one replaces the first
        assert run("link") == f"{place} is a copy of {PLUGIN_PATH}, because links are not allowed there.\n"
        assert (place / "loaders.py").read_bytes() == (PLUGIN_PATH / "loaders.py").read_bytes()
        assert not place.is_symlink() and not (place / "old.py").exists()
        (place / "old.py").write_text("")
    assert finding(run("doctor", status=1), "link") == (f"{place} is a copy", "")
    assert run("unlink") == f"{place} is removed.\n"


def test_library_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "brainscore_vision", None)

    line = run("link", status=1)

    assert line == "brainscore_vision is not installed here. Install it: pip install brainscore_vision"
    assert run("unlink", status=1) == line
    assert finding(run("doctor", status=1), "brainscore_vision") == ("not usable", line)


# --- list ------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache_path(tmp_path, monkeypatch) -> Path:
    """The folder of downloads. Brain-Score keeps the first one that it reads."""
    monkeypatch.setenv("BRAINIO_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("brainscore_core.supported_data_standards.brainio.fetch._local_data_path", None)
    return tmp_path / "cache"


def rows(output):
    """Return the cells of each identifier in the table of `list`, by loader and identifier."""
    tables = [table.splitlines() for table in output.split("\n\n") if table.startswith("load_")]
    cells = [(table[0].split()[0], re.split("  +", line)) for table in tables for line in table[1:]]
    return {(loader, identifier): tuple(row) for loader, (identifier, *row) in cells}


def test_list_has_every_identifier_with_its_s3_object(cache_path):
    output = run("list")

    assert output.startswith(f"Source: {PLUGIN_PATH}/artifacts.json; downloads stay in {cache_path}\n")
    whole = [f"{name}.{split}" for name in (NAME, f"{NAME}_4subj") for split in ("train", "test")]
    regions = [one.replace(".", f".{region}.") for one in whole for region in ("V1", "V2", "V4", "IT")]
    assert {one for loader, one in rows(output) if loader == "load_dataset"} == {*whole, *regions}
    assert {one for loader, one in rows(output) if loader == "load_stimulus_set"} == set(whole)
    assert all(row[:2] == ("unknown", "no") for row in rows(output).values())
    assert all(row[2].startswith("s3://brainscore-storage/") for row in rows(output).values())


def test_list_and_doctor_say_what_is_in_the_cache_and_what_is_missing(place, tmp_path, cache_path, monkeypatch):
    """With an artifacts file of one test split and its region V4."""
    objects = {
        name: {"bucket": "b", "key": f"p/{name}", "version_id": "v", "sha1": sha1, "size": n_bytes}
        for name, sha1, n_bytes in [("nc", "1", 1000), ("csv", "2", 2000), ("zip", "3", 3000), ("V4.nc", "4", 4000)]
    }
    kinds = dict(zip(("assembly", "stimulus_csv", "stimulus_zip"), objects.values(), strict=False))
    artifacts_path = tmp_path / "artifacts.json"
    artifacts_path.write_text(json.dumps({f"{NAME}.test": kinds, f"{NAME}.V4.test": {"assembly": objects["V4.nc"]}}))
    monkeypatch.setenv(ARTIFACTS_VARIABLE, str(artifacts_path))
    assert rows(run("list"))["load_dataset", f"{NAME}.V4.test"] == ("4.0 kB", "no", "s3://b/p/V4.nc")
    output = run("doctor", status=1)
    assert finding(output, "artifacts") == (f"{artifacts_path}: {NAME}.test", "")
    assert finding(output, "cache") == (f"{cache_path}: 0 of 4 objects; to be downloaded: 10.0 kB", "")
    assert "set AWS_PROFILE" in finding(output, "credentials")[1]

    for stored in kinds.values():
        path = cache_path / stored["sha1"] / Path(stored["key"]).name
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(stored["size"]))
    output = run("list")

    for region in ("", ".V4"):  # the whole serves the region
        assert rows(output)["load_dataset", f"{NAME}{region}.test"] == ("1.0 kB", "yes", "s3://b/p/nc")
    assert rows(output)["load_stimulus_set", f"{NAME}.test"] == ("5.0 kB", "yes", "s3://b/p/zip")
    assert rows(output)["load_dataset", f"{NAME}.train"] == ("no", "not found, see below")
    (problem,) = [line for line in output.splitlines() if f"expected {NAME}.train." in line]
    assert problem.startswith(f"{artifacts_path} lists ")


def test_list_names_the_release_of_each_identifier(release, tmp_path, monkeypatch):
    (tmp_path / "releases").mkdir()
    folder = tmp_path / "releases" / "eight"
    folder.symlink_to(release)
    monkeypatch.setenv(RELEASE_VARIABLE, str(folder.parent))

    output = run("list")

    assert output.startswith(f"Source: {folder.parent}\n")
    size = format_bytes((release / f"{NAME}_test.nc").stat().st_size)
    assert rows(output)["load_dataset", f"{NAME}.test"] == (size, "yes", str(folder / f"{NAME}_test.nc"))
    assert rows(output)["load_stimulus_set", f"{NAME}.test"][1:] == ("yes", str(folder / "stimuli_test"))
    assert sum(row[-1] == "not found, see below" for row in rows(output).values()) == 12
    assert f"{folder.parent} holds {NAME}" in output and f"expected {NAME}_4subj" in output


@pytest.mark.parametrize("variable", [RELEASE_VARIABLE, ARTIFACTS_VARIABLE])
def test_source_that_is_not_there_is_named(tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, str(tmp_path / "nowhere"))

    line = run("list", status=1)

    assert f"{tmp_path}/nowhere" in line and variable in line
    assert finding(run("doctor", status=1), "source") == ("not usable", line)


# --- doctor ----------------------------------------------------------------------------------------------------------------


def finding(output, subject):
    """Return the state and the advice of one thing that `doctor` examined."""
    (match,) = re.findall(rf"^([! ]) {re.escape(subject)} +(.*)\n(?:      -> (.*)\n)?", output, re.MULTILINE)
    mark, state, advice = match
    assert (mark == "!") == bool(advice)
    return state, advice


@pytest.fixture
def linked(place) -> Path:
    run("link")
    return place


def test_doctor_finds_nothing_wrong(linked, release, monkeypatch):
    monkeypatch.setenv(RELEASE_VARIABLE, str(release))

    output = run("doctor", f"{NAME}.V4.test")

    assert finding(output, "link") == (f"{linked} -> {PLUGIN_PATH}", "")
    assert finding(output, "release") == (f"{release}: {NAME}, simulated", "")
    assert finding(output, RELEASE_VARIABLE) == (str(release), "")
    assert finding(output, "load_dataset")[0].endswith("kB, on this machine")
    assert output.endswith("\nNo problems found.\n")


SPOILED = [  # a file or folder to make, and its content; the variable that names a source; what `doctor` says about what
    ("release.json", "{", RELEASE_VARIABLE, "{}", "release", r"release\.json is damaged .* Build the release again"),
    ("empty/a", "", RELEASE_VARIABLE, "{}/empty", "release", r"Build one \(allen2022-surface build\), or unset"),
    ("a", "", RELEASE_VARIABLE, "~nobody_here", "source", "home"),
    ("artifacts.json", "[]", ARTIFACTS_VARIABLE, "{}/artifacts.json", "source", "artifacts.json is damaged"),
    ("file", "", "BRAINIO_HOME", "{}/file", "cache", "is no folder that you may write"),
    (
        *("site/brainscore_vision/data/a_copy/__init__.py", f"data_registry['{NAME}.V4.test'] = 1"),
        *("BRAINIO_HOME", "{}/cache", f"{NAME}.V4.test", "Brain-Score takes it from one only"),
    ),
    ("a", "", "AWS_PROFILE", "nobody", "credentials", "Correct AWS_PROFILE"),
    ("a", "", RELEASE_VARIABLE, f"{{}}/{300 * 'x'}", "error", "xxx: File name too long"),
]


@pytest.mark.parametrize(("path", "content", "variable", "value", "subject", "advice"), SPOILED)
def test_doctor_advises_about_what_is_wrong(
    linked, cache_path, tmp_path, monkeypatch, path, content, variable, value, subject, advice
):
    (tmp_path / path).parent.mkdir(exist_ok=True)
    (tmp_path / path).write_text(content)
    monkeypatch.setenv(variable, value.format(tmp_path))

    assert re.search(advice, finding(run("doctor", status=1), subject)[1])


def test_doctor_advises_about_two_releases_of_a_name(linked, release, tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(release)
    monkeypatch.setenv(RELEASE_VARIABLE, str(tmp_path))

    assert re.search("\n! release .*\n      -> .*/a has the same name", run("doctor", status=1))


def test_doctor_says_why_an_identifier_does_not_load(linked, release, monkeypatch):
    monkeypatch.setenv(RELEASE_VARIABLE, str(release))

    state, advice = finding(run("doctor", f"{NAME}_V4.test", status=1), f"{NAME}_V4.test")
    assert "Brain-Score says: No registrations found" in state
    assert advice.startswith(f"Did you mean {NAME}.V4.test")
    state, advice = finding(run("doctor", "Other2000", status=1), "Other2000")
    assert state.endswith(f"It is one of {linked.parent}/other")
    state, advice = finding(run("doctor", f"{NAME}_4subj.V4.test", status=1), "load_dataset")
    assert state == "not found"
    assert f"expected {NAME}_4subj" in advice


def test_credentials_are_present_and_never_shown(linked, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAQUITESECRET00000")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "quiteSecretToo")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "andThisToken")

    output = run("doctor")

    assert finding(output, "credentials") == ("present", "")
    assert not re.search("QUITESECRET|quiteSecret|andThisToken", output)


UNFIT = [  # what is installed in place of the real version; what `doctor` says about what
    (("numpy", "2.2.6"), "numpy", "2.2.6, expected <2", "pip install 'numpy<2"),
    (("brainscore_vision", "2.4.2", "pandas<2"), "pandas", "expected <2", "pip install 'pandas<2'"),
    (("brainscore_core", "2.4", "pandas<"), "brainscore_core", "it asks for 'pandas<'", "--force-reinstall"),
    (("msgspec", ""), "msgspec", "not installed, or its METADATA is damaged", "pip install 'msgspec>=0.19'"),
    (("torch", "2.12.0"), "torch", "2.12.0, expected ==2.13.0", "pip install 'torch==2.13.0'"),
    (("torchvision", "0.28.0+cu1"), "torchvision", "built for cu1, but torch for cpu", "Install both from one index"),
]


@pytest.mark.parametrize(("distribution", "subject", "state", "advice"), UNFIT, ids=lambda value: str(value)[:30])
def test_doctor_names_packages_that_do_not_fit(linked, tmp_path, distribution, subject, state, advice):
    install(tmp_path / "site", *distribution)

    found = finding(run("doctor", status=1), subject)

    assert state in found[0] and advice in found[1]


BROKEN = {  # what a module of that name raises, which is imported in place of the real one; what the user reads
    "botocore": (
        "ModuleNotFoundError('', name='urllib3')",
        "urllib3 is not installed. Install it: pip install urllib3",
    ),
    "msgspec": ("RuntimeError('compiled for another Python')", "RuntimeError: compiled for another Python"),
    "pandas": ("SystemExit('no pandas here')", "SystemExit: no pandas here"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_doctor_prints_its_findings_where_a_package_cannot_be_imported(tmp_path, release, name):
    error, message = BROKEN[name]
    (tmp_path / f"{name}.py").write_text(f"raise {error}")
    command = [sys.executable, "-m", "allen2022_surface_packaging", "doctor", f"{NAME}.v4.test"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    if name == "msgspec":
        environment[RELEASE_VARIABLE] = str(release)

    result = subprocess.run(command, env=environment, capture_output=True, text=True)

    assert (result.returncode, result.stderr) == (1, "")
    assert message in result.stdout
    assert f"Did you mean {NAME}.V4.test" in finding(result.stdout, f"{NAME}.v4.test")[1]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("BRAINSCORE_SURFACE_DIR", RELEASE_VARIABLE),
        ("BRAINSCORE_ALLEN2022_SURFACE_DIRS", RELEASE_VARIABLE),
        ("brainscore_allen2022_surface_dir", RELEASE_VARIABLE),
        ("ALLEN2022_SURFACE_ARTIFACTS", ARTIFACTS_VARIABLE),
        ("BRAINIO_HOM", "BRAINIO_HOME"),
    ],
)
def test_doctor_names_variables_that_are_nearly_right(linked, monkeypatch, name, meant):
    monkeypatch.setenv(name, "/somewhere")
    monkeypatch.setenv("BRAINSCORE_DATA_PLUGIN_SHA", "a1")  # Brain-Score's own
    output = run("doctor", status=1)

    assert finding(output, name) == ("is set, but nothing reads it", f"Did you mean {meant}?")
    assert "PLUGIN_SHA" not in output
