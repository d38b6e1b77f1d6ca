"""`upload` on a terminal: the progress bar and the log lines do not write over each other."""

import os
import pty
import re
import subprocess
import sys
import termios

from publish.uploads import NAME, OBJECTS, PREFIX


def show(text):
    """Return the lines that a terminal shows: a carriage return goes back to the start of a line, and text replaces text."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;]*[A-Za-z]|.|\n", text):
        if token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            column = 0
        elif token == "\x1b[A":
            row = max(0, row - 1)
        elif token == "\x1b[K":
            lines[row] = lines[row][:column]
        elif not token.startswith("\x1b"):
            lines[row] = lines[row][:column].ljust(column) + token + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def run_on_terminal(*arguments):
    """Run the command line with its error output on a terminal, and return what that shows."""
    terminal, error_output = pty.openpty()
    termios.tcsetwinsize(error_output, (40, 150))
    command = [sys.executable, "-m", "allen2022_surface_packaging", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=error_output) as process:
        os.close(error_output)
        content = b""
        while True:
            try:
                block = os.read(terminal, 2**16)
            except OSError:  # Linux reports the end so
                break
            if not block:
                break
            content += block
    os.close(terminal)
    return process.returncode, show(content.decode())


def test_terminal_shows_every_log_line_whole(release, s3, artifacts_path):
    status, lines = run_on_terminal(
        *("upload", release, "--bucket", f"brain/{PREFIX}", "--artifacts", artifacts_path, "--accept-nsd-terms")
    )

    assert status == 0
    sent = [line for line in lines if "sent, version" in line]
    for name, line in zip(OBJECTS, sent, strict=True):
        assert re.fullmatch(rf"s3://brain/{PREFIX}/{name}: sent, version [\w-]+", line)
    bars = [line for line in lines if line.startswith("upload:")]
    assert len(bars) == 1
    assert "100%" in bars[0]
    assert NAME not in bars[0]
