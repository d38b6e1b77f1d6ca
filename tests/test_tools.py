"""A machine without git, mount, bash, a C compiler and Chromium passes the tests, and the first and last lines say what is not there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tools

TESTS = Path(__file__).parent
NEEDING_TOOLS = [
    "publish/test_export.py::test_git_commands_commit_only_the_plugin",
    "test_bad_input.py",
    "test_tools.py",
]


def test_run_without_tools_names_them_in_its_first_and_last_lines(tmp_path):
    environment = os.environ | {"PATH": str(tmp_path)}
    environment.pop("NSD_EXPDESIGN", None)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", "git_commands or disk_is_full"]
    run = subprocess.run([*command, *NEEDING_TOOLS], cwd=TESTS, env=environment, capture_output=True, text=True)

    assert run.returncode == 0, run.stdout + run.stderr
    lines = run.stdout.splitlines()
    first, last = "\n".join(lines[:12]), "\n".join(lines[-4:])
    for name in ("bash", "git", "a C compiler", "mount", "Chromium", "NSD's design"):
        assert f"{name} is not there, so tests that need it are skipped: " in first
    assert re.search("^1 test was skipped, because (git|bash) is not there: install (git|bash)$", last, re.MULTILINE)
    assert "1 test was skipped, because mount is not there: run the tests as an administrator" in last
    assert re.search(r"2 skipped, \d+ deselected", last)


def test_nothing_is_said_at_the_end_when_nothing_was_skipped():
    assert tools.describe_skipped([]) == []
    assert tools.describe_skipped(["Skipped: for another reason"]) == []


@pytest.mark.parametrize("tool", tools.TOOLS, ids=lambda tool: tool.name)
def test_every_tool_is_counted_by_its_own_reason(tool, monkeypatch):
    monkeypatch.setattr(tools, "TOOLS", tuple(tools.Tool(t.name, lambda: False, t.advice, t.sign) for t in tools.TOOLS))
    reasons = [
        "set NSD_EXPDESIGN to NSD's file",
        "needs Chromium (x)",
        "needs git (x)",
        "needs bash (x)",
        "needs mount (x)",
        "needs a C compiler (x)",
    ]

    lines = tools.describe_skipped(reasons)
    assert [line for line in lines if f"because {tool.name} is not there" in line] == [
        f"1 test was skipped, because {tool.name} is not there: {tool.advice}"
    ]
    assert [line for line in tools.describe_tools() if line.startswith(f"{tool.name} is not there")]


def test_sign_is_the_reason_that_tests_give():
    """NSD's design is looked for by the tests themselves, whose words must hold the sign."""
    sources = "".join(path.read_text(encoding="utf-8") for path in TESTS.rglob("*.py") if path != Path(__file__))
    assert re.search(r"(message = |skip\().{,60}NSD_EXPDESIGN", sources)


def test_make_clean_removes_everything_that_git_ignores(tmp_path):
    shutil.copy(TESTS.parent / "Makefile", tmp_path)
    patterns = (TESTS.parent / ".gitignore").read_text(encoding="utf-8").split()
    for pattern in patterns:
        for folder in ("", "tests/nsd") if pattern == "__pycache__/" else ("",):
            made = tmp_path / folder / pattern.strip("/").replace("*", "package")
            made.mkdir(parents=True)
            (made / "file").touch()

    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)

    assert len(patterns) > 5
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["Makefile"]
