"""Names and helpers of the tests of an export."""

import os
import subprocess
import sys
from pathlib import Path

TARGET_PATH = Path("brainscore_vision/data/allen2022_surface")


def run_python(checkout, *arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=checkout,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | environment,
        capture_output=True,
        text=True,
    )
