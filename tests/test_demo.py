"""The first command of a newcomer: it says what it does, and leaves nothing outside its folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def run_demo(*arguments, **environment):
    command = [sys.executable, "-m", "allen2022_surface_packaging", "demo", *map(str, arguments)]
    usual = {name: value for name, value in os.environ.items() if not name.endswith("_HOME")}  # those of other tests
    return subprocess.run(command, capture_output=True, text=True, env=usual | environment)


@pytest.mark.slow
def test_demo_measures_the_simulated_ceilings(tmp_path):
    unusable = {"AWS_PROFILE": "nobody", "http_proxy": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    result = run_demo(tmp_path / "demo", **unusable)

    assert result.returncode == 0, result.stderr
    rows = re.findall(r"^ *(V1|V2|V4|IT) +(\d+) +(\d\.\d\d) +(\d\.\d\d)$", result.stdout, re.MULTILINE)
    assert [row[0] for row in rows] == ["V1", "V2", "V4", "IT"]
    for _, n_neuroids, measured, simulated in rows:
        assert int(n_neuroids) > 50
        assert abs(float(measured) - float(simulated)) < 0.1
        assert 0.3 < float(measured) < 0.9
    assert "identical to the release" in result.stdout
    assert result.stderr == ""  # no warning, bar or log of a library
    lines = result.stdout.splitlines()
    assert len(lines) < 30  # one screen
    assert max(len(line.replace(str(tmp_path), "").replace(sys.prefix, "")) for line in lines) < 120
    steps = ["simulate", "build", "verify", "load", "upload", "load", "ceiling"]
    assert re.findall(r"^(\d)  (\w+) .* [\d.]+ s$", result.stdout, re.MULTILINE) == [
        (str(number), step) for number, step in enumerate(steps, start=1)
    ]
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["artifacts.json", "nsd", "release"]
    assert list(Path(os.environ["HOME"]).iterdir()) == []
    assert (tmp_path / "demo" / "release" / "verify.json").is_file()  # so that a report shows the verdict
    program, report = lines[-3].split()[:2]
    assert report == "report" and Path(program).is_file()  # a shell does not find it by its name in this environment


def test_demo_says_what_to_install_when_brainscore_vision_is_missing(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['brainscore_vision'] = None")

    result = run_demo(PYTHONPATH=str(tmp_path))

    assert result.returncode == 1
    assert "brainscore_vision not installed" in result.stderr
    assert "Traceback" not in result.stderr
