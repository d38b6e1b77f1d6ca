"""The tour of docs/, run as a reader would run it: every block in order, in a new process."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

TOUR_PATH = Path(__file__).parents[2] / "docs" / "tour.md"

BEFORE = """
import warnings; warnings.simplefilter("ignore")
from allen2022_surface_packaging.link import link
link()
"""

AFTER = """
assert dict(test.sizes) == {"presentation": 78, "neuroid": 920, "time_bin": 1}
assert subject_v1.shape == (78, 16) and set(subject_v1["region"].values) == {"V1"}
for region in ("V1", "V2", "V4", "IT"):  # the simulated ceilings of regions differ much
    of_region = test["region"].values == region
    assert abs(np.nanmedian(noise_ceilings[of_region]) - np.nanmedian(test["nc_testset"].values[of_region])) < 4
truth = v1_ceilings["nc_testset"]
assert ((v1_ceilings["lower"] < truth) & (truth < v1_ceilings["upper"])).sum() >= 6
cortex = ceiling_maps["lh"]
assert cortex[vertex] == np.nanmax(cortex) == subject["nc_testset"].values[best]
red, _, blue = np.moveaxis(np.asarray(Image.open("neuroid.png").convert("RGB")), 2, 0)
assert ((red > 200) & (blue < 120)).sum() > 10  # the vertex is in sight
first = v1_test["stimulus_id"].values[3]
np.testing.assert_allclose(v1_test.values[3], v1.values[v1["stimulus_id"].values == first, :, 0].mean(axis=0), atol=1e-6)
assert correlations.shape == (128,) and abs(np.nanmedian(correlations)) < 0.2  # random features predict nothing

# the same lines find the signal when the features hold it
from allen2022_surface_packaging.nsd.simulation import image_latents
features_of = lambda path: image_latents(np.asarray(Image.open(path)))
regression.fit(features(v1_train), v1_train.values)
correlations = correlate(regression.predict(features(v1_test)), v1_test.values)
assert abs(np.nanmedian(correlations) - np.sqrt(np.median(v1_test["nc_testset"].values) / 100)) < 0.1
print("the tour ends")
"""


@pytest.mark.slow
def test_every_block_of_the_tour_runs(release, tmp_path):
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```$", TOUR_PATH.read_text(encoding="utf-8"))
    assert len(blocks) > 10
    (tmp_path / "tour.py").write_text("\n".join([BEFORE, *blocks, AFTER]), encoding="utf-8")
    environment = os.environ | {"BRAINSCORE_ALLEN2022_SURFACE_DIR": str(release), "MPLBACKEND": "Agg"}

    run = subprocess.run([sys.executable, "tour.py"], cwd=tmp_path, env=environment, capture_output=True, text=True)

    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "the tour ends"
    assert "noise ceiling of subj01's V1: " in run.stdout
    for name in ("noise_ceiling.png", "neuroid.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    assert re.search(r"median correlation: [+-]0\.\d{3}; of a perfect model: \+0\.\d{3}", run.stdout)  # with its sign
