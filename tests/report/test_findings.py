"""The top of the report: the verdict of `verify`, and the findings that need attention, each planted here."""

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from allen2022_surface_packaging.release import FilledCounts, Manifest, ReleaseFolder
from allen2022_surface_packaging.report.ceilings import CeilingTables, compare_agreement
from allen2022_surface_packaging.report.findings import list_findings
from allen2022_surface_packaging.report.page import write_report
from allen2022_surface_packaging.report.statistics import read_neuroids
from allen2022_surface_packaging.report.summaries import summarise_invalid, summarise_regions, summarise_repetitions
from allen2022_surface_packaging.report.verification import UNKNOWN, WRONG, read_verdict
from report.conftest import plant_neuroids, plant_release
from report.reading import Page
from support import run_cli

NO_SHARED_NOISE = CeilingTables(
    regions=pd.DataFrame(),
    agreement=pd.DataFrame({"subject": ["subj01"], "is_above": [False]}),
    correlations=pd.DataFrame({"subject": ["subj01"], "is_unequal": [False]}),
)


def findings_of(page: Page) -> str:
    """Return the text between the title of the findings and the tiles."""
    return page.text.partition("Findings")[2].partition("subjects")[0]


def test_finding_leads_to_a_section_of_the_page(page):
    sections = re.findall(r'<a href="#([\w-]+)">See where</a>', page.source)
    assert sections
    assert set(sections) <= set(page.ids)


def test_planted_release_without_faults_needs_no_attention(full_size):
    assert "Nothing needs attention" in findings_of(Page(full_size / "report.html"))


def test_noise_that_repetitions_share_is_found(full_size, tmp_path):
    plant_release(tmp_path / "release", full_size, plant_neuroids(), shared_noise=0.3)

    page = Page(write_report(tmp_path / "release"))

    assert "Test repetitions of subj01 and subj02 agree more than NSD's noise ceilings predict" in findings_of(page)
    for subject, observed, expected, interval, *_, signs in page.rows("shared-noise-table"):
        ncsnr2 = {"subj01": 4 / 3, "subj02": 1 / 12}[subject]  # of noise ceilings of 80 % and 20 %
        assert float(expected) == pytest.approx(ncsnr2 / (ncsnr2 + 1), abs=0.001)
        assert float(observed) == pytest.approx((ncsnr2 + 0.3) / (ncsnr2 + 1), abs=0.05)
        assert float(interval.split(" to ")[0]) > 0
        assert "r above the expected one" in signs


def test_ceilings_that_shared_noise_raises_exceed_those_of_nsd(full_size, tmp_path):
    plant_release(tmp_path / "release", full_size, plant_neuroids(), shared_noise=0.3)
    folder = ReleaseFolder(tmp_path / "release")
    table = read_neuroids(folder, Manifest.read(folder)).table

    raised = table[table.subject == "subj02"]
    # (1/12 + 0.3) of signal and shared noise, and 0.7 / 3 of independent noise
    assert raised.nc_repetitions.median() == pytest.approx(100 * 0.3833 / (0.3833 + 0.2333), abs=6)
    assert raised.nc_testset.median() == 20


def simulate_responses(rng, noise_ceilings, n_images, shared_noise):
    """Return responses with three repetitions, of the same subject, and with noise that all repetitions share."""
    ncsnr = np.sqrt(noise_ceilings / (100 - noise_ceilings) / 3)
    shape = (n_images, len(ncsnr))
    images = ncsnr * rng.standard_normal(shape) + np.sqrt(shared_noise) * rng.standard_normal(shape)
    noise = np.sqrt(1 - shared_noise) * rng.standard_normal((3, *shape))
    coordinates = {
        "stimulus_id": ("presentation", np.tile(np.arange(n_images), 3)),
        "repetition": ("presentation", np.repeat(np.arange(3), n_images)),
        "subject": ("neuroid", np.full(len(ncsnr), "subj01")),
        "nc_testset": ("neuroid", noise_ceilings),
    }
    return xr.DataArray((images + noise).reshape(-1, len(ncsnr)), dims=("presentation", "neuroid"), coords=coordinates)


@pytest.mark.parametrize("most_are_noise", [False, True])
def test_interval_of_the_agreement_holds_in_nearly_all_simulations_of_independent_noise(rng, most_are_noise):
    """The whole cortex is mostly noise, which must not look like shared noise."""
    noise_ceilings = rng.uniform(0, 4 if most_are_noise else 80, 200)
    noise_ceilings[:20] = 70
    tables = [
        compare_agreement(simulate_responses(rng, noise_ceilings, 60, 0.0), confidence=0.95).iloc[0] for _ in range(300)
    ]

    n_holding = sum(table.lower <= 0 <= table.upper for table in tables)
    assert 272 <= n_holding <= 296  # of 300; 285 are expected, and 3 standard deviations are 11


def test_agreement_finds_a_little_shared_noise(rng):
    responses = simulate_responses(rng, rng.uniform(0, 80, 300), 100, 0.1)
    assert compare_agreement(responses, confidence=0.99).is_above.all()


def test_agreement_without_valid_neuroids_is_unknown(rng):
    responses = simulate_responses(rng, np.full(5, np.nan), 20, 0.0)

    table = compare_agreement(responses, confidence=0.95)

    assert np.isnan(table.observed).all()
    assert not table.is_above.any()


@pytest.fixture
def summaries(full_size):
    """The summaries of the planted release, from which findings are made, and its manifest."""
    folder = ReleaseFolder(full_size)
    manifest = Manifest.read(folder)
    neuroids = read_neuroids(folder, manifest)
    return manifest, neuroids, summarise_regions(neuroids, manifest), summarise_repetitions(neuroids, manifest)


def test_subject_far_below_the_others_is_found(summaries):
    manifest, neuroids, regions, repetitions = summaries
    template = next(summary for summary in regions if summary.subject == "subj01")
    values = {"subj01": 50.0, "subj02": 48.0, "subj03": 52.0, "subj04": 20.0}
    planted = [replace(template, subject=name, medians={"nc_testset": value}) for name, value in values.items()]

    (finding,) = list_findings(planted, summarise_invalid(neuroids, manifest), repetitions, NO_SHARED_NOISE)

    assert finding.section == "regions"
    assert finding.text == "subj04 is far below the others: its median noise ceilings are 41 % of the typical ones."


def test_repetition_that_was_mixed_up_is_found(summaries):
    manifest, neuroids, regions, repetitions = summaries
    mixed = [replace(repetitions[0], correlations=(0.31, 0.02, -0.01)), *repetitions[1:]]

    (finding,) = list_findings(regions, summarise_invalid(neuroids, manifest), mixed, NO_SHARED_NOISE)

    assert finding.section == "repetitions"
    assert finding.text.startswith("Repetitions of subj01 do not agree: their correlations range from −0.010 to 0.310.")


def test_much_filled_is_found_with_the_worst_places_first(summaries):
    manifest, neuroids, regions, repetitions = summaries
    counts = {
        "subj01": {**manifest.nan_counts["subj01"], "V2": FilledCounts(800, 800, 90)},
        "subj02": {**manifest.nan_counts["subj02"], "IT": FilledCounts(1400, 1400, 90), "V1": FilledCounts(9, 9, 1)},
    }
    invalid = summarise_invalid(neuroids, replace(manifest, nan_counts=counts))

    (finding,) = list_findings(regions, invalid, repetitions, NO_SHARED_NOISE)

    n_presentations = sum(manifest.shapes[split][0] for split in manifest.shapes)
    sizes = {summary.region: summary.n_neuroids for summary in regions if summary.subject == "subj01"}
    shares = [100 * 1600 / (n_presentations * sizes["V2"]), 100 * 2800 / (n_presentations * sizes["IT"])]
    assert finding.section == "invalid"
    assert f"in V2 of subj01 ({shares[0]:.1f} %) and IT of subj02 ({shares[1]:.1f} %)." in finding.text


def test_release_that_was_not_verified_says_how_to(page):
    assert "Not verified yet" in page.text
    assert "allen2022-surface verify RELEASE --nsd-root NSD_ROOT" in page.text


def test_verdict_of_verify_is_at_the_top(release_copy, nsd_tree):
    assert run_cli("verify", release_copy, "--nsd-root", nsd_tree).returncode == 0

    text = findings_of(Page(write_report(release_copy)))

    findings = json.loads((release_copy / "verify.json").read_text())["nsd_root"]["differences"]
    n_values = sum(row["values"] for row in findings)
    largest = max(row["largest difference"] for row in findings)
    assert "Verified against the raw files" in text
    assert f"{n_values:,} values were recomputed (a random sample). The largest difference is {largest:.1e}." in text


def test_problems_that_verify_found_are_at_the_top(release_copy, four_subject_release):
    assert run_cli("verify", release_copy, "--against", four_subject_release).returncode == 1

    page = Page(write_report(release_copy))

    n_problems = int(re.search(r"✗ ([\d,]+) problems? found", page.text)[1])
    assert n_problems == len(re.findall(r"<li>(?:train|test|both), ", page.source)) > 0
    assert f"different, compared with {four_subject_release.name}." in page.text
    assert str(four_subject_release) not in page.source  # no path of this machine


@pytest.mark.parametrize("content", ["", "[1]", '{"release": 3}', '{"nsd_root": {"differences": [{}]}}', "[" * 100_000])
def test_damaged_verification_gives_no_verdict(release_copy, content):
    (release_copy / "verify.json").write_text(content)

    text = findings_of(Page(write_report(release_copy)))

    assert "No verdict" in text
    assert "verify.json: It cannot be read" in text


def test_check_of_another_name_is_shown_with_its_problems(release_copy):
    (release_copy / "verify.json").write_text('{"images": {"problems": ["nsd_00001 is <black>"]}}')

    page = Page(write_report(release_copy))

    assert "1 problem found" in findings_of(page)
    assert "nsd_00001 is <black>" in page.text
    assert "<black>" not in page.source


def test_verdict_about_an_earlier_build_is_not_shown(release_copy, nsd_tree):
    assert run_cli("verify", release_copy, "--nsd-root", nsd_tree).returncode == 0
    folder = ReleaseFolder(release_copy)
    assert read_verdict(folder).title == "Verified against the raw files"
    path = release_copy / "release.json"
    path.write_text(path.read_text() + "\n")

    verdict = read_verdict(folder)

    assert (verdict.state, verdict.title, verdict.checks) == (UNKNOWN, "Not verified since it was built again", ())


def test_every_comparison_is_shown_with_what_is_allowed(release_copy):
    path = release_copy / "verify.json"
    same = {"verdict": "identical", "differences": [], "filled": {}}
    row = {"split": "test", "what": "values", "beyond tolerance": 2, "of": 9, "where": "here"}
    recomputed = {"values": 7, "largest difference": 3e-7}
    content = {
        "release": {"problems": []},
        "nsd_root": {"every_vertex": True, "tolerance": 1e-5, "differences": [recomputed], "problems": []},
        "against": {"/data/a": same, "/data/b": same | {"verdict": "different", "differences": [row]}},
    }
    path.write_text(json.dumps(content))

    verdict = read_verdict(ReleaseFolder(release_copy))

    assert (verdict.state, verdict.title) == (WRONG, "1 problem found")
    assert [check.result for check in verdict.checks] == [
        "No file is missing or damaged.",
        "7 values were recomputed (every value). The largest difference is 3.0e-07. Up to 1e-05 is allowed.",
        "identical, compared with a.",
        "different, compared with b.",
    ]
    assert verdict.checks[-1].problems == ("test, values: 2 of 9 differ, here",)


def test_raw_files_that_contradict_the_release_are_said_to_have_stopped_the_recomputation(release_copy):
    findings = {"every_vertex": False, "differences": [], "problems": ["The manifest has 5 sessions of subj01."]}
    (release_copy / "verify.json").write_text(json.dumps({"nsd_root": findings}))

    (check,) = read_verdict(ReleaseFolder(release_copy)).checks

    assert check.result == "No value was recomputed, because the raw files contradict the release."
    assert check.problems == ("The manifest has 5 sessions of subj01.",)
