"""The command line as its users type it: verbosity, progress, subjects, paths, help, and completion by the shell."""

import logging
import os
import pty
import re
import select
import shutil
import socket
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest

from allen2022_surface_packaging import arguments
from allen2022_surface_packaging.facts import DEFAULT_BETAS
from allen2022_surface_packaging.nsd.simulation import TreeSize, simulate_tree
from allen2022_surface_packaging.recipe import list_recipes
from support import run_cli

PACKAGE_COMMAND = [sys.executable, "-m", "allen2022_surface_packaging"]
COMMANDS = [[name] for name in arguments.COMMANDS] + [["recipes", name] for name in ("list", "show", "check")]
SCHEDULER_PORT = 8787  # the usual one of a scheduler's pages, which another build may have taken
SIZE = TreeSize(subjects=(1, 2), n_sessions=2, n_vertices=162, image_size=8, betas=(DEFAULT_BETAS,))


@pytest.fixture(scope="module")
def small_tree(tmp_path_factory) -> Path:
    """A tree of two subjects with two sessions. Tests only read it."""
    root = tmp_path_factory.mktemp("small") / "nsd"
    simulate_tree(root, SIZE)
    return root


@pytest.mark.parametrize("address", ["s3://nsd/x  y", "s3://nsd/x\ty@z"])
def test_address_without_credentials_is_not_refused_for_its_spaces(address):
    assert arguments.parse(["check", address]).nsd_root == address


def run_on_terminal(*arguments: object, interrupt_after: str | None = None) -> tuple[int, str]:
    """Run the command line on a terminal, press Ctrl-C once it has written some text, and return its status and output."""
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
        if interrupt_after is not None and interrupt_after.encode() in output:
            os.write(terminal, b"\x03")
            interrupt_after = None
    else:
        os.kill(process_id, 9)
        pytest.fail(f"the command does not end: {output.decode()}")
    os.close(terminal)
    _, status = os.waitpid(process_id, 0)
    return os.waitstatus_to_exitcode(status), output.decode()


def read_lines(output: str) -> list[str]:
    """Return what a terminal shows in the end: of each line what stands after its last carriage return."""
    return [line.rstrip("\r").rpartition("\r")[2].rstrip() for line in output.split("\n")]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("option", "level"), [("-v", "DEBUG"), ("-q", "WARNING"), ("--quiet", "WARNING"), (None, "INFO")]
)
def test_verbosity_is_understood_before_and_after_the_command(command, option, level):
    needed = {
        "simulate": ["a"],
        "check": ["a"],
        "build": ["a", "b"],
        "verify": ["a"],
        "report": ["a"],
        "upload": ["a", "--bucket", "b"],
        "pack": ["a", "b"],
        "record": ["a", "b"],
        "export": ["a"],
    }
    needed_arguments = ["a"] if command[-1] in ("show", "check") else needed.get(command[-1], [])
    before = [option] if option else []
    for line in ([*before, *command, *needed_arguments], [*command, *before, *needed_arguments]):
        assert arguments.parse(line).log_level == getattr(logging, level), line


def test_verbosity_changes_what_is_logged_but_not_the_results(small_tree, tmp_path):
    options = ["--subjects", "1,2", "--name", "two", "--cache", "none"]
    results = {
        level: run_cli("build", *level, small_tree, tmp_path / "".join(["release", *level]), *options)
        for level in ((), ("-q",), ("-v",))
    }

    for result in results.values():
        assert result.returncode == 0
        assert "two" in result.stdout
    usual, quiet, verbose = (result.stderr for result in results.values())
    assert "sessions standardised: 4 in " in usual
    assert "subj01 session 01 is standardised" not in usual
    assert quiet == ""
    assert re.search(r"^\d\d:\d\d:\d\d subj01 session 01 is standardised$", verbose, re.MULTILINE)


def test_only_the_package_logs_below_warning(tmp_path, monkeypatch):
    def look_at_loggers(*_: object, **__: object) -> None:
        assert logging.getLogger("allen2022_surface_packaging").isEnabledFor(logging.INFO)
        assert not logging.getLogger("botocore.credentials").isEnabledFor(logging.INFO)
        assert logging.getLogger().level == logging.WARNING

    monkeypatch.setattr("allen2022_surface_packaging.nsd.simulation.simulate_tree", look_at_loggers)

    assert run_cli("simulate", tmp_path / "nsd").returncode == 0
    assert not logging.getLogger("allen2022_surface_packaging").handlers


def test_a_terminal_shows_a_bar_below_whole_log_lines(small_tree, tmp_path):
    options = ["--subjects", "1-2", "--name", "two", "--cache", "none"]
    status, output = run_on_terminal("build", "-v", small_tree, tmp_path / "release", *options)

    assert status == 0, output
    assert re.search(r"sessions standardised: +\d+% \|.*\| \d of 4, [\d:?]+ left \(", output)
    lines = read_lines(output)
    for session in ("subj01 session 01", "subj01 session 02", "subj02 session 01", "subj02 session 02"):
        assert [line for line in lines if re.fullmatch(rf"[\d:]+ {session} is standardised", line)], output


def test_a_quiet_terminal_shows_no_bar(small_tree, tmp_path):
    options = ["--subjects", "1-2", "--name", "two", "--cache", "none"]
    status, output = run_on_terminal("-q", "build", small_tree, tmp_path / "release", *options)

    assert status == 0, output
    assert output.startswith("Built 1 release")  # a bar would stand before


@pytest.mark.slow
def test_two_workers_say_nothing_of_their_scheduler_and_stop_at_ctrl_c(small_tree, tmp_path):
    options = ["--subjects", "1-2", "--name", "two", "--cache", "none", "--workers", "2"]
    command = [*PACKAGE_COMMAND, "build", str(small_tree), str(tmp_path / "one"), *options]
    with socket.socket() as taken:
        with suppress(OSError):  # somebody else has it already, which serves as well
            taken.bind(("", SCHEDULER_PORT))
        result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not re.search("distributed|scheduler|tcp://|Traceback", result.stderr), result.stderr

    begin = time.monotonic()
    status, output = run_on_terminal("build", small_tree, tmp_path / "two", *options, interrupt_after="standardised:")
    assert status == 130, output
    assert "Traceback" not in output
    assert "allen2022-surface: Interrupted." in output
    assert time.monotonic() - begin < 30  # it does not wait for workers that are gone
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one"]


@pytest.mark.parametrize(
    ("words", "subjects"),
    [
        (["1", "2"], (1, 2)),
        (["1,2"], (1, 2)),
        (["1,", "2"], (1, 2)),
        (["2", "1"], (1, 2)),
        (["1-8"], tuple(range(1, 9))),
        (["1-3,7"], (1, 2, 3, 7)),
        (["subj01", "subj02"], (1, 2)),
        (["subj01-subj03"], (1, 2, 3)),
        (["Subj05,07"], (5, 7)),
        (["8"], (8,)),
    ],
)
@pytest.mark.parametrize("command", [["simulate", "a"], ["check", "a"], ["build", "a", "b"]], ids=lambda c: c[0])
def test_subjects_are_understood_in_every_usual_way(command, words, subjects):
    assert arguments.parse([*command, "--subjects", *words]).subjects == subjects


@pytest.mark.parametrize(
    "words", [["9"], ["0"], ["3-1"], ["1-9"], ["subj"], ["1;2"], ["1", "1-2"], ["12"], [","], ["-1"], []]
)
def test_other_subjects_are_wrong_usage(words):
    result = run_cli("check", "a", "--subjects", *words)

    assert result.returncode == 2
    assert "--subjects" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", COMMANDS[:-3], ids=" ".join)
def test_the_example_of_every_help_text_can_be_parsed(command):
    help_text = run_cli(*command, "--help").stdout
    examples = help_text.partition("examples:\n")[2].strip().splitlines()

    assert examples
    for example in examples:
        words = example.partition(" > ")[0].split()
        assert words[0] == "allen2022-surface"
        options = arguments.parse(words[1:])
        assert options.command == command[0]


def test_the_help_text_shows_the_usual_order_of_commands():
    help_text = run_cli("--help").stdout.partition("the usual order:\n")[2]

    assert re.findall(r"^  (\w+)", help_text, re.MULTILINE) == ["demo", "check", "build", "verify", "report", "upload"]


def test_a_tilde_is_the_home_folder_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    command_lines = [
        ["simulate", "~/x", "--expdesign=~/x"],
        ["check", "~/x", "--recipe=~/x"],
        ["build", "~/x", "~/x", "--cache=~/x"],
        ["recipes", "show", "~/x"],
        ["verify", "~/x", "--nsd-root=~/x", "--against=~/x"],
        ["report", "~/x"],
        ["upload", "~/x", "--bucket", "b", "--artifacts=~/x"],
        ["pack", "~/x", "~/x"],
        ["record", "~/x", "~/x"],
        ["export", "~/x", "--release", "~/x"],
        ["demo", "~/x"],
    ]
    for command_line in command_lines:
        options = arguments.parse(command_line)
        values = [
            value for given in vars(options).values() for value in (given if isinstance(given, list) else [given])
        ]
        n_expanded = [str(value) for value in values].count(str(tmp_path / "x"))
        assert n_expanded == sum("~" in word for word in command_line), command_line


@pytest.mark.parametrize(
    "command_line",
    [
        ["simulate", "{0}/nsd", "--expdesign", "{0}/missing"],
        ["check", "{0}/nsd", "--recipe", "{0}/missing"],
        ["build", "{0}/missing", "{0}/release"],
        ["recipes", "show", "{0}/missing"],
        ["verify", "{0}/missing"],
        ["report", "{0}/missing"],
        ["upload", "{0}/missing", "--bucket", "b", "--dry-run"],
        ["pack", "{0}/missing", "{0}/out"],
        ["record", "{0}/missing", "{0}/missing.csv"],
        ["export", "{0}/missing"],
    ],
    ids=lambda line: line[0],
)
def test_a_missing_path_gives_one_line_that_names_it(tmp_path, command_line):
    result = run_cli(*(word.format(tmp_path) for word in command_line))

    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert str(tmp_path / "missing") in result.stderr
    assert not list(tmp_path.iterdir())


def complete(line: str) -> set[str]:
    """Return what a shell offers at the end of a line, as argcomplete's shell code asks for it."""
    environment = os.environ | {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": "/dev/stdout",
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
    }
    command = shutil.which("allen2022-surface", path=str(Path(sys.executable).parent))
    assert command is not None
    result = subprocess.run([command], env=environment, capture_output=True, text=True, check=True)
    return {word.strip() for word in result.stdout.split("\n") if word}


def test_the_shell_completes_commands_recipes_and_subjects():
    assert complete("allen2022-surface ") >= set(arguments.COMMANDS)
    assert complete("allen2022-surface build a b --recipe ") >= set(list_recipes())
    assert complete("allen2022-surface build a b --recipe ka") == {"kastner"}
    assert complete("allen2022-surface recipes show str") == {"streams"}
    assert complete("allen2022-surface check a --subjects ") >= set("12345678")
    assert "--workers" in complete("allen2022-surface build a b --w")


def test_the_shell_finds_the_mark_of_completion():
    """The shell asks only programs with this mark in their first 1,024 bytes."""
    folder = Path(arguments.__file__).parent
    for name in ("cli.py", "__main__.py"):
        assert b"PYTHON_ARGCOMPLETE_OK" in (folder / name).read_bytes()[:1024]


def test_a_help_text_does_not_wait_for_large_packages():
    code = "import sys, allen2022_surface_packaging.cli as cli\ntry: cli.main(['--help'])\nfinally: print(*sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not set(result.stderr.split()) & {"pandas", "scipy", "h5py", "nibabel", "boto3", "distributed", "xarray"}
