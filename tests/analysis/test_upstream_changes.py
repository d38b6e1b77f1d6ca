"""The changes of brain-score/vision that the documentation proposes, in a checkout made of the installed brainscore_vision."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from brainscore_vision import load_benchmark

from analysis.models import signal_model
from brainscore_allen2022_surface.analysis.benchmarks import local_benchmarks
from libraries import copy_library, link_all

NAME = "Allen2022_fmri_surface"
PAGE = Path(__file__).parents[2] / "docs" / "upstream-benchmarks.md"
DIFF = re.compile("^```diff\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with both changes."""
    checkout = copy_library(tmp_path_factory.mktemp("vision")).parent
    benchmarks_path = checkout / "brainscore_vision" / "benchmarks"
    installed = benchmarks_path.resolve()
    benchmarks_path.unlink()
    benchmarks_path.mkdir()
    link_all(installed, benchmarks_path, without=("__pycache__",))
    for kind in ("benchmarks", "data"):  # git changes no file behind a link
        path = checkout / "brainscore_vision" / kind / "allen2022_fmri_surface"
        original = path.resolve()
        path.unlink()
        shutil.copytree(original, path)
    diffs = DIFF.findall(PAGE.read_text(encoding="utf-8"))
    assert len(diffs) == 2
    for diff in diffs:
        subprocess.run(["git", "apply", "-"], input=diff, cwd=checkout, check=True, text=True)
    return checkout


CODE = f"""
import json, re, sys, warnings; warnings.simplefilter("ignore")
import numpy as np
from brainscore_vision import load_benchmark, load_dataset
from analysis.models import signal_model
from brainscore_allen2022_surface.loaders import load_assembly

assembly, expected = load_dataset("{NAME}.V4.test"), load_assembly("{NAME}", "test", "V4", source=sys.argv[1])
np.testing.assert_array_equal(assembly.values, expected.values)
for name in ("neuroid_id", "stimulus_id", "repetition"):
    np.testing.assert_array_equal(assembly[name].values, expected[name].values)
stimulus_set = assembly.attrs["stimulus_set"]
assert str(stimulus_set.get_stimulus(assembly["stimulus_id"].values[0])).startswith(sys.argv[1])
assert re.fullmatch("Allen2022_fmri_stim_test--[0-9a-f]{{8}}", stimulus_set.identifier), stimulus_set.identifier
print(json.dumps([float(load_benchmark(f"{NAME}.V4-{{metric}}")(signal_model())) for metric in ("ridge", "rdm")]))
"""


@pytest.mark.slow
@pytest.mark.needs("git")
def test_changes_load_a_region_from_disk_and_give_the_same_scores(checkout, release):
    environment = os.environ | {
        "BRAINSCORE_ALLEN2022_SURFACE_DIR": str(release),
        "RESULTCACHING_DISABLE": "brainscore_vision.benchmarks",
        "PYTHONPATH": os.pathsep.join([str(checkout), *sys.path]),
    }

    command = [sys.executable, "-c", CODE, str(release)]
    run = subprocess.run(command, env=environment, cwd=checkout, capture_output=True, text=True)

    assert run.returncode == 0, run.stderr
    with local_benchmarks(release):
        benchmarks = [load_benchmark(f"{NAME}.V4-{metric}") for metric in ("ridge", "rdm")]
    scores = [float(benchmark(signal_model())) for benchmark in benchmarks]
    assert json.loads(run.stdout.splitlines()[-1]) == pytest.approx(scores, rel=1e-9)  # as BLAS rounds with threads
