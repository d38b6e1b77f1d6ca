"""The top of the report: the verdict of `verify`, and the findings that need attention, each planted here."""

import json
import os
import re
import shutil
import time
from collections import Counter
from pathlib import Path

import netCDF4
import numpy as np
import pytest

from allen2022_surface_packaging.files import sha1_of
from allen2022_surface_packaging.report.page import write_report
from report.conftest import PLANTED_CEILINGS, plant_ceilings
from report.reading import Page, change_manifest
from support import accept, run_cli


@pytest.fixture
def planted_copy(planted, tmp_path) -> Path:
    return Path(shutil.copytree(planted, tmp_path / "release"))


def test_release_without_faults_needs_no_attention(full_size):
    assert "Nothing needs attention" in Page(full_size / "report.html").findings


def true_ceiling(percent, *, shared_noise):
    """Return a noise ceiling that shared noise raises, because it counts as signal: a fraction of that of each repetition."""
    signal = percent / (100 - percent) / 3 + shared_noise
    return 100 * signal / (signal + (1 - shared_noise) / 3)


def test_noise_that_repetitions_share_is_found(planted_copy):
    plant_ceilings(planted_copy, PLANTED_CEILINGS, shared_noise=0.3)

    page = Page(write_report(planted_copy))

    assert "Test repetitions of subj01 and subj02 agree more than NSD's noise ceilings predict" in page.findings
    for subject, ceiling, of_nsd, *_, signs in page.rows("shared-noise-table"):
        planted = PLANTED_CEILINGS[subject]
        estimate, lower = map(float, re.match(r"(\S+) \((\S+) to", ceiling).groups())
        assert estimate == pytest.approx(true_ceiling(planted, shared_noise=0.3), abs=6)
        assert lower > float(of_nsd) == pytest.approx(planted, abs=0.1)
        assert "ceiling above NSD's" in signs
    assert float(page.panel("V1")[1][3]) == pytest.approx(true_ceiling(20, shared_noise=0.3), abs=6)


def test_subject_far_below_the_others_is_found(four_subject_release, tmp_path):
    path = Path(shutil.copytree(four_subject_release, tmp_path / "release"))
    plant_ceilings(path, {"subj01": 50, "subj02": 48, "subj05": 52, "subj07": 20})

    page = Page(write_report(path))

    text = "subj07 is far below the others: its median noise ceilings are 41 % of the typical ones."
    assert re.search(r"1 finding needs attention\s+" + re.escape(text), page.findings)
    assert re.findall(r'<a href="#([\w-]+)">See where</a>', page.source) == ["regions"]
    assert 'id="regions"' in page.source


def test_repetition_that_was_mixed_up_is_found(planted_copy):
    with netCDF4.Dataset(planted_copy / "planted_test.nc", "a") as file:
        is_first = file["subject"][:] == "subj01"
        values = file["data"][:]
        values[2::3, is_first] = np.roll(values[2::3, is_first], 1, axis=0)
        file["data"][:] = values
    accept(planted_copy, "planted_test.nc")

    findings = Page(write_report(planted_copy)).findings
    assert "Repetitions of subj01 do not agree: their correlations range from" in findings


def test_much_filled_is_found_with_the_worst_regions_first(planted_copy):
    manifest = json.loads((planted_copy / "release.json").read_text())
    for subject, region, n in (("subj01", "V2", 400), ("subj02", "IT", 4000), ("subj02", "V1", 9)):
        manifest["nan_counts"][subject][region] = {"train": n, "test": n, "neuroids": 9}
    change_manifest(planted_copy, nan_counts=manifest["nan_counts"])
    with netCDF4.Dataset(planted_copy / "planted_test.nc") as file:
        n_neuroids = Counter(zip(file["region"][:], file["subject"][:], strict=True))
    n_presentations = sum(shape[0] for shape in manifest["shapes"].values())
    it, v2 = (800_000 / n_neuroids["IT", "subj02"], 80_000 / n_neuroids["V2", "subj01"])

    findings = Page(write_report(planted_copy)).findings

    assert (
        f"in IT of subj02 ({it / n_presentations:.1f} %) and V2 of subj01 ({v2 / n_presentations:.1f} %)." in findings
    )


def test_release_that_was_not_verified_says_how_to(page):
    assert "Not verified yet" in page.findings
    assert "allen2022-surface verify RELEASE --nsd-root NSD_ROOT" in page.findings


def test_verdict_of_verify_is_shown_until_the_release_changes(release_copy, nsd_tree):
    picture_path, later = min((release_copy / "stimuli_train").iterdir()), time.time() + 3600
    os.utime(picture_path, (later, later))  # as on a disk that keeps the hour of another zone
    assert run_cli("verify", release_copy).returncode == 0
    plain = Page(write_report(release_copy)).findings
    assert run_cli("verify", release_copy, "--nsd-root", nsd_tree).returncode == 0
    recomputed = Page(write_report(release_copy)).findings
    os.utime(picture_path, (later + 1, later + 1))
    written = Page(write_report(release_copy)).findings
    path = release_copy / "release.json"
    path.write_text(path.read_text() + "\n")
    changed = Page(write_report(release_copy)).findings

    assert re.search(r"✓ Files verified\s+Files: No file is missing or damaged\.", plain)
    assert "Raw files: Values, pixels, noise ceilings and the choice of images and vertices were not compared" in plain
    assert "Verified against the raw files" in recomputed and "not compared" not in recomputed
    rows = json.loads((release_copy / "verify.json").read_text())["nsd_root"]["differences"]
    n_values, largest = sum(row["of"] for row in rows), max(row["largest"] for row in rows)
    assert (
        f"{n_values:,} values were recomputed (a random sample). The largest difference is {largest:.1e}." in recomputed
    )
    assert "Not verified since a file was written" in written
    assert "Not verified since it was built again" in changed
    assert "There is no verify.json" not in changed


def test_problems_that_verify_found_are_shown_without_paths(release_copy, four_subject_release):
    assert run_cli("verify", release_copy, "--against", four_subject_release).returncode == 1

    page = Page(write_report(release_copy))

    n_problems = int(re.search(r"✗ ([\d,]+) problems? found", page.findings)[1])
    top = page.source.partition("<body>")[2].partition("<nav")[0]
    assert n_problems == top.count("<li>") - top.count("See where") > 0
    assert str(four_subject_release) not in page.source


@pytest.mark.parametrize("damage", ["", "[" * 100_000, {"release": {"problems": 3}}], ids=["empty", "deep", "wrong"])
def test_damaged_verification_gives_no_verdict(release_copy, damage):
    verdict = {"manifest_sha1": sha1_of(release_copy / "release.json"), "last_written": 2**63}
    text = damage if isinstance(damage, str) else json.dumps(verdict | damage)
    (release_copy / "verify.json").write_text(text)

    findings = Page(write_report(release_copy)).findings

    assert "No verdict" in findings
    assert "verify.json: It cannot be read" in findings
