"""A few of the cases of the fuzzer. It runs with thousands every week: ``python tests/tools/fuzz.py --cases 2000``."""

import subprocess
import sys
from pathlib import Path

FUZZER = Path(__file__).parent / "tools" / "fuzz.py"


def test_damaged_input_gives_one_line_or_the_sound_result():
    command = [sys.executable, FUZZER, "--cases", "24", "--seed", "200", "--workers", "2"]

    result = subprocess.run(command, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout + result.stderr
