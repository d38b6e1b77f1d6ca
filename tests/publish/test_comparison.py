"""The measurements in the text of the pull request can be made again."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "comparison.py"


@pytest.mark.slow
def test_comparison_with_the_existing_plugin_is_measured(tmp_path):
    """With a small release, of which the images are most."""
    command = [sys.executable, SCRIPT, tmp_path, "--small", "--output", tmp_path / "comparison.md"]
    run = subprocess.run(command, capture_output=True, text=True)

    assert run.returncode == 0, run.stderr
    lines = (tmp_path / "comparison.md").read_text().splitlines()
    rows = {
        cells[1].strip(): [cell.strip() for cell in cells[2:4]] for line in lines[2:-2] if (cells := line.split("|"))
    }
    existing, own = (float(cell.split()[0]) for cell in rows["responses moved"])
    assert own < 0.6 * existing
    existing, own = rows["images and their table moved"]
    assert existing == own
    existing, own = rows["score of one model on `Allen2022_fmri_surface.V4-rdm`"]
    assert existing == own and 0 < float(own) < 1
    existing, own = rows["seconds, from a release on disk, where S3 refuses"]
    assert existing == "cannot" and 0 < float(own) < 10
