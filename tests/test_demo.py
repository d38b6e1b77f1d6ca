import os
import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_demo_measures_the_simulated_ceilings(tmp_path):
    command = [sys.executable, "-m", "allen2022_surface_packaging", "demo", str(tmp_path / "demo")]
    result = subprocess.run(command, capture_output=True, text=True)

    assert result.returncode == 0, result.stderr
    rows = re.findall(r"^ *(V1|V2|V4|IT) +(\d+) +(\d\.\d\d) +(\d\.\d\d)$", result.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ["V1", "V2", "V4", "IT"]
    for _, n_neuroids, measured, simulated in rows:
        assert int(n_neuroids) > 50
        assert abs(float(measured) - float(simulated)) < 0.1
        assert 0.3 < float(measured) < 0.9
    assert "identical to the release" in result.stdout
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["artifacts.json", "nsd", "release"]


def test_demo_says_what_to_install_when_brainscore_vision_is_missing(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['brainscore_vision'] = None")
    command = [sys.executable, "-m", "allen2022_surface_packaging", "demo"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)

    assert result.returncode == 1
    assert "brainscore_vision not installed" in result.stderr
    assert "Traceback" not in result.stderr
