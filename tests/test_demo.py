import logging
import os
import re
import subprocess
import sys
import warnings

import pytest

from allen2022_surface_packaging import demo
from allen2022_surface_packaging.errors import PackagingError


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
    assert result.stderr == ""  # no warning, bar or log of a library
    lines = result.stdout.splitlines()
    assert len(lines) < 30
    assert max(len(line.replace(str(tmp_path), "")) for line in lines) < 120
    assert re.findall(r"^(\d)  (\w+) .* [\d.]+ s$", result.stdout, re.MULTILINE) == [
        (str(number), step)
        for number, step in enumerate(["simulate", "build", "verify", "load", "upload", "load", "ceiling"], start=1)
    ]
    assert f"allen2022-surface report {tmp_path / 'demo'}/release" in result.stdout.partition("next:")[2]
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["artifacts.json", "nsd", "release"]


def test_demo_says_what_to_install_when_brainscore_vision_is_missing(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['brainscore_vision'] = None")
    command = [sys.executable, "-m", "allen2022_surface_packaging", "demo"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)

    assert result.returncode == 1
    assert "brainscore_vision not installed" in result.stderr
    assert "Traceback" not in result.stderr


def test_verbose_demo_hides_nothing_of_the_libraries(monkeypatch, tmp_path):
    """Up to the load: what follows takes long."""
    monkeypatch.setattr(demo, "load_from_release", stop)

    with pytest.warns(FutureWarning, match="holds"), pytest.raises(PackagingError, match="stopped"):
        demo.run_demo(tmp_path / "verbose", log_level=logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught, pytest.raises(PackagingError, match="stopped"):
        demo.run_demo(tmp_path / "usual")
    assert not caught


def test_a_failed_step_ends_its_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demo, "simulate_tree", stop)

    with pytest.raises(PackagingError, match="stopped"):
        demo.run_demo(tmp_path / "demo")
    assert re.search(r"^1  simulate .*\n$", capsys.readouterr().out, re.MULTILINE)


def stop(*_: object) -> None:
    warnings.warn("the tree holds simulated data", FutureWarning, stacklevel=1)
    raise PackagingError("stopped")
