"""The command line as its users type it: help, verbosity, progress, subjects, paths, errors in one line, and the exit status."""

import errno
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from allen2022_surface_packaging import cli
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from support import run_cli

PACKAGE_COMMAND = [sys.executable, "-m", "allen2022_surface_packaging"]
SIZE = TreeSize(subjects=(1, 2), n_sessions=2, n_vertices=162, image_size=8, betas=(DEFAULT_BETAS,))
BUILD_OPTIONS = ("--subjects", "1-2", "--name", "two", "--cache", "none")


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory) -> Path:
    """A tree of two subjects with two sessions. Tests only read it."""
    root = tmp_path_factory.mktemp("small") / "nsd"
    simulate_tree(root, SIZE)
    return root


def run_on_terminal(*arguments: object) -> tuple[int, str]:
    """Run the command line on a terminal, and return its status and output."""
    process_id, terminal = pty.fork()
    if not process_id:
        termios.tcsetwinsize(0, (24, 100))
        os.execv(sys.executable, [*PACKAGE_COMMAND, *map(str, arguments)])
    output, deadline = b"", time.monotonic() + 50
    while time.monotonic() < deadline:
        try:
            output += os.read(terminal, 2**16) if select.select([terminal], [], [], 0.1)[0] else b""
        except OSError:  # the other end is closed
            break
    else:
        os.kill(process_id, 9)
    os.close(terminal)
    _, status = os.waitpid(process_id, 0)
    return os.waitstatus_to_exitcode(status), output.decode()


def run_in_shell(words: str, redirection: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a shell, with Python's own buffers."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = ["bash", "-c", f'"$@" {words} {redirection}', "bash", *PACKAGE_COMMAND]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


# --- help and arguments --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_help_text_of_a_command_has_examples_that_can_be_parsed(command):
    help_text = run_cli(command, "--help").stdout
    examples = help_text.partition("examples:\n")[2].strip().splitlines()

    assert examples
    for example in examples:
        words = example.partition(" > ")[0].split()
        assert words[0] == "allen2022-surface"
        for before, after in (([], []), (["-v"], []), ([], ["-v"]), (["-q"], []), ([], ["--quiet"])):
            options = cli.parse([*before, *words[1:2], *after, *words[2:]])
            assert options.command == command
            assert options.log_level == {"-v": 10, "-q": 30, "--quiet": 30}.get("".join(before + after), 20)


def test_help_text_does_not_wait_for_large_packages():
    code = "import sys, allen2022_surface_packaging.cli as cli\ntry: cli.main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not set(result.stderr.split()) & {"pandas", "scipy", "h5py", "nibabel", "boto3", "distributed", "xarray"}


@pytest.mark.parametrize(
    ("words", "subjects"),
    [
        (["2", "1"], (1, 2)),
        (["1,", "2"], (1, 2)),
        (["1-3,7"], (1, 2, 3, 7)),
        (["subj01-subj03"], (1, 2, 3)),
        (["Subj05,07"], (5, 7)),
    ],
)
def test_subjects_are_understood_in_every_usual_way(words, subjects):
    for command in (["simulate", "a"], ["check", "a"], ["build", "a", "b"]):
        assert cli.parse([*command, "--subjects", *words]).subjects == subjects


@pytest.mark.parametrize(
    ("words", "named"),
    [
        *((f"check a --subjects {words}", "--subjects") for words in ("9", "3-1", "subj", "1 1-2", ",", "")),
        ("", "COMMAND"),
        ("unknown", "unknown"),
        ("check", "NSD_ROOT"),
        ("build a b --workers 0", "--workers"),
        ("build a b --workers 2 --scheduler tcp://c:1", "--scheduler"),
        ("build a b --recipe streams --recipe kastner --name x", "--name"),
        ("build a b --subjects 1 2", "--name"),
        ("recipes show", "recipes show NAME|FILE"),
        ("recipes labels streams", "recipes labels ATLAS NSD_ROOT"),
        ("verify a --all", "--nsd-root"),
        ("simulate a --seed -1", "--seed"),
        ("simulate a --vertices 100000000000", "must be from 1 to 1,000,000, but got 100000000000"),
        ("simulate a --trials many", "--trials"),
        ("upload a --bucket b", "--accept-nsd-terms"),
        ("report a b", "unrecognized arguments: b"),
    ],
)
def test_wrong_usage_ends_with_status_2_and_one_line(tmp_path, monkeypatch, words, named):
    monkeypatch.chdir(tmp_path)

    result = run_cli(*words.split())

    assert result.returncode == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("allen2022-surface") and named in line and line.endswith(" --help")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address", ["https://user:marker@host/nsd", "https://host/nsd?X-Amz-Signature=marker"])
def test_address_with_a_secret_is_wrong_usage_and_not_shown(address):
    for words in (["check", address], ["build", "a", "b", "--scheduler", address], ["unknown", address]):
        result = run_cli(*words)

        assert result.returncode == 2
        assert "an address holds a password, a signature or a token" in result.stderr
        assert "marker" not in result.stderr


def test_tilde_is_the_home_folder_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for command_line in (
        "simulate ~/x --expdesign=~/x",
        "check ~/x --recipe=~/x",
        "build ~/x ~/x --cache=~/x",
        "recipes show ~/x",
        "recipes labels a ~/x",
        "verify ~/x --nsd-root=~/x --against=~/x",
        "report ~/x",
        "upload ~/x --bucket b --artifacts=~/x",
        "pack ~/x ~/x",
        "record ~/x ~/x",
        "export ~/x --release ~/x",
        "demo ~/x",
    ):
        given = vars(cli.parse(command_line.split())).values()
        values = [str(value) for values in given for value in (values if isinstance(values, list) else [values])]
        assert values.count(str(tmp_path / "x")) == command_line.count("~"), command_line


@pytest.mark.parametrize(
    "command_line",
    [
        "simulate {0}/nsd --expdesign {0}/missing",
        "check {0}/missing",
        "check {0}/nsd --recipe {0}/missing",
        "build {0}/missing {0}/release",
        "recipes show {0}/missing",
        "verify {0}/missing",
        "report {0}/missing",
        "upload {0}/missing --bucket b --dry-run",
        "pack {0}/missing {0}/out",
        "record {0}/missing {0}/missing.csv",
        "export {0}/missing",
    ],
    ids=lambda line: line.split()[0],
)
def test_missing_path_is_one_line_that_names_it(tmp_path, command_line):
    result = run_cli(*command_line.format(tmp_path).split())

    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert str(tmp_path / "missing") in result.stderr
    assert not list(tmp_path.iterdir())


# --- the log and the output ----------------------------------------------------------------------------------------------


def test_verbosity_changes_what_is_logged_but_not_the_results(small_tree, tmp_path):
    results = {
        level: run_cli("build", *level, small_tree, tmp_path / "".join(["release", *level]), *BUILD_OPTIONS)
        for level in ((), ("-q",), ("-v",))
    }

    for result in results.values():
        assert result.returncode == 0
        assert "two" in result.stdout
    usual, quiet, verbose = (result.stderr for result in results.values())
    assert "sessions standardised: 4 in " in usual
    assert "subj01 session 01 is standardised" not in usual
    assert quiet == "" and "next:" not in results["-q",].stdout
    assert re.search(r"^\d\d:\d\d:\d\d subj01 session 01 is standardised$", verbose, re.MULTILINE)


def test_terminal_shows_a_bar_below_whole_log_lines_unless_it_is_quiet(small_tree, tmp_path):
    status, output = run_on_terminal("-q", "build", small_tree, tmp_path / "quiet", *BUILD_OPTIONS)
    assert status == 0, output
    assert output.startswith("Built 1 release")  # a bar would stand before

    status, output = run_on_terminal("build", "-v", small_tree, tmp_path / "release", *BUILD_OPTIONS)

    assert status == 0, output
    assert re.search(r"sessions standardised: +\d+% \|.*\| \d of 4, [\d:?]+ left \(", output)
    lines = [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in output.split("\n")]
    for session in ("subj01 session 01", "subj01 session 02", "subj02 session 01", "subj02 session 02"):
        assert [line for line in lines if re.fullmatch(rf"[\d:]+ {session} is standardised", line)], output


@pytest.mark.needs("bash")
@pytest.mark.parametrize("words", ["recipes", "--help"])
def test_output_that_cannot_be_written_is_one_line(words):
    result = run_in_shell(words, ">/dev/full")

    assert result.returncode == 1
    assert result.stderr.startswith("allen2022-surface: The output cannot be written: No space left on device.")
    assert result.stderr.count("\n") == 1


@pytest.mark.needs("bash")
@pytest.mark.parametrize("redirection", ["| true", ">&-"])
def test_output_that_nobody_reads_is_no_error(redirection):
    result = run_in_shell("recipes show streams", redirection)

    assert (result.returncode, result.stderr) == (0, "")  # the status of a pipe is that of the reader


@pytest.mark.needs("bash")
def test_build_is_done_when_progress_cannot_be_shown(small_tree, tmp_path):
    run_in_shell(f"build {small_tree} {tmp_path}/release {' '.join(BUILD_OPTIONS)}", "2>/dev/full")

    assert (tmp_path / "release" / "release.json").is_file()


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.EMFILE, "Too many open files", "/a"), "/a: Too many open files. Allow more open files "),
        (OSError(errno.ENOSPC, "No space left on device", "/a"), "/a: No space left on device. Free some space "),
        (MemoryError("Unable to allocate 1 PiB"), "The memory of this machine is too small (Unable to allocate 1 PiB"),
        (ModuleNotFoundError("No module", name="PIL.Image"), "PIL is not installed. Install it: pip install Pillow"),
        (KeyboardInterrupt(), "Interrupted."),
        (KeyboardInterrupt(15), "Stopped by SIGTERM."),
    ],
)
def test_error_of_the_machine_is_one_line(monkeypatch, error, line):
    def fail(options):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "recipes", (fail, *cli.COMMANDS["recipes"][1:]))

    result = run_cli("recipes")

    assert result.returncode == {"Interrupted.": 130, "Stopped by SIGTERM.": 143}.get(line, 1)
    assert result.stderr.startswith(f"allen2022-surface: {line}")
    assert result.stderr.count("\n") == 1
