"""Damaged input of every kind, at random. Run more cases by hand: ``python tests/fuzz.py --cases 5000 --workers 2``."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZER = Path(__file__).with_name("fuzz.py")


@pytest.mark.timeout(1200)  # on a busy machine
def test_damaged_input_gives_one_line_or_the_sound_result():
    command = [sys.executable, FUZZER, "--cases", "300", "--seed", "200", "--workers", str(os.cpu_count())]

    result = subprocess.run(command, capture_output=True, text=True)

    assert result.returncode == 0, result.stdout
