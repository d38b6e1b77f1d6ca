"""The programs and files that some tests need beside Python and what `make` installs, and what is said without them."""

import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest

CHROMIUM_PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class Tool:
    """Something that some tests need.

    Attributes
    ----------
    is_there : whether this machine has it
    advice : how to get it
    sign : a text in the reason of every test that is skipped without it
    """

    name: str
    is_there: Callable[[], bool]
    advice: str
    sign: str


def has_program(*names: str) -> Callable[[], bool]:
    return lambda: any(map(shutil.which, names))


@functools.cache
def may_mount() -> bool:
    """Return whether this machine has the command `mount`, and allows this user to mount a file system in memory."""
    if not (shutil.which("mount") and shutil.which("umount")):
        return False
    with tempfile.TemporaryDirectory() as folder:
        command = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", folder]
        if subprocess.run(command, capture_output=True).returncode:
            return False
        subprocess.run(["umount", folder], check=True)
    return True


def has_design() -> bool:
    return bool(os.environ.get("NSD_EXPDESIGN"))


TOOLS = (
    Tool("bash", has_program("bash"), "install bash", "needs bash"),
    Tool("git", has_program("git"), "install git", "needs git"),
    Tool(
        "a C compiler", has_program("cc"), "install gcc; a small library makes system calls fail", "needs a C compiler"
    ),
    Tool(
        "mount",
        may_mount,
        "run the tests as an administrator, so that they may mount a small file system",
        "needs mount",
    ),
    Tool("Chromium", has_program(*CHROMIUM_PROGRAMS), "install chromium; the tests of the report open it", "Chromium"),
    Tool("NSD's design", has_design, "set NSD_EXPDESIGN to the path of NSD's nsd_expdesign.mat", "NSD_EXPDESIGN"),
)


def require_tool(name: str) -> None:
    """Skip the test that runs if a tool is not there."""
    tool = next(tool for tool in TOOLS if tool.name == name)
    if not tool.is_there():
        pytest.skip(f"needs {tool.name} ({tool.advice})")


def describe_tools() -> list[str]:
    """Say at the start of a test run which tools are not there, and what follows."""
    missing = [tool for tool in TOOLS if not tool.is_there()]
    if not missing:
        return [f"all tools that tests need are there: {', '.join(tool.name for tool in TOOLS)}"]
    return [f"{tool.name} is not there, so tests that need it are skipped: {tool.advice}" for tool in missing]


def describe_skipped(reasons: Iterable[str]) -> list[str]:
    """Say at the end of a test run how many tests were skipped for want of each tool.

    Parameters
    ----------
    reasons : of every skipped test
    """
    reasons = list(reasons)
    counts = {tool: sum(tool.sign in reason for reason in reasons) for tool in TOOLS}
    return [
        f"{n} test{'s were' if n > 1 else ' was'} skipped, because {tool.name} is not there: {tool.advice}"
        for tool, n in counts.items()
        if n
    ]
