"""Every number of the report is computed again here from the release."""

import base64
import json
import re
import shutil

import netCDF4
import numpy as np
import pandas as pd
import pytest

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.report.page import write_report
from report.reading import REGION_NAMES, SPLITS, Page, agrees, measure, number, split_half_ceiling
from support import accept


@pytest.fixture(scope="session")
def manifest(reported) -> dict:
    return json.loads((reported / "release.json").read_text())


def select(truth: pd.DataFrame, region: str, subject: str) -> pd.DataFrame:
    is_subject = (truth.subject == subject) | (subject == "all")
    return truth[is_subject & ((truth.region == region) | (region == "all"))]


def counts_of(manifest: dict, region: str, subject: str, name: str) -> int:
    counts = {who: regions for who, regions in manifest["nan_counts"].items() if subject in (who, "all")}
    return sum(c[name] for regions in counts.values() for where, c in regions.items() if region in (where, "all"))


def test_numbers_of_every_region_and_subject_equal_the_release(page, truth, manifest):
    """They are in the table of regions, in the panel of the region, and in the heat map."""
    subjects = [*sorted(manifest["nan_counts"]), "all"]
    table = {(row[0], row[1]): row[2:] for row in page.rows("region-table")}
    groups = [(region, subject) for region in REGION_NAMES for subject in subjects]
    assert list(table) == sorted(groups, key=lambda group: group[1] == "all")
    heat = page.tables["heat"]
    assert (heat[0], [row[0] for row in heat[1:]]) == (["Region", *subjects], list(REGION_NAMES))
    n_presentations = sum(manifest["shapes"][split][0] for split in SPLITS)
    for i, region in enumerate(REGION_NAMES):
        panel = page.panel(region)
        assert [row[0] for row in panel] == subjects
        for j, subject in enumerate(subjects):
            neuroids = select(truth, region, subject)
            n, n_left, n_right, shared, n_copies, n_invalid, *numbers = table[region, subject]
            is_left = neuroids.hemisphere == "lh"
            assert [number(n), number(n_left), number(n_right)] == [len(neuroids), is_left.sum(), (~is_left).sum()]
            others = select(truth[truth.region != region], "all", subject)
            overlap = neuroids.merge(others, on=["subject", "hemisphere", "vertex_index"]).region_y.value_counts()
            names = [name for name in REGION_NAMES if name in overlap]
            assert shared == (", ".join(f"{overlap[name]:,} in {name}" for name in names) or "0")
            assert ("in IT" in shared) == (region == "V4")
            assert number(n_copies) == neuroids.is_copy.sum()
            assert number(n_invalid) == counts_of(manifest, region, subject, "neuroids")
            ceiling, of_repetitions, r, split_half = numbers
            n_filled = sum(counts_of(manifest, region, subject, split) for split in SPLITS)
            expected = {
                "Noise ceiling (median)": (ceiling, neuroids.nc_testset.median()),
                "Noise ceiling from test repetitions (median)": (of_repetitions, neuroids.nc_repetitions.median()),
                "Split-half ceiling": (split_half, split_half_ceiling(neuroids)),
                "Correlation of repetitions (median)": (r, neuroids.repetition_r.median()),
                "Neuroids": (n, len(neuroids)),
                "Filled values": (None, 100 * n_filled / (len(neuroids) * n_presentations)),
            }
            assert heat[1 + i][1 + j] == ceiling
            assert [measure["title"] for measure in page.data["heat-values"]] == list(expected)
            for shown, (text, value) in zip(page.data["heat-values"], expected.values(), strict=True):
                assert agrees(f"{shown['values'][i][j]:.{shown['digits']}f}", value, shown["digits"])
                assert text in (n, None) or agrees(text, value, {"%": 1, "r": 3}[shown["unit"]])
            assert [*panel[j][2:4], *panel[j][-2:]] == [ceiling, of_repetitions, split_half, n]
            if subject != "all":
                estimate, lower, upper = map(number, re.fullmatch(r"(\S+) \((\S+) to (\S+)\)", panel[j][4]).groups())
                assert 0 <= lower - 0.5 < estimate < upper + 0.5 <= 100.5


def test_panels_show_all_regions_and_correlate_both_ceilings(page, truth):
    for subject, _, ceiling, of_repetitions, split_half, n in page.panel("All regions"):
        neuroids = select(truth, "all", subject)
        medians = neuroids.nc_testset.median(), neuroids.nc_repetitions.median(), split_half_ceiling(neuroids)
        assert all(map(agrees, (ceiling, of_repetitions, split_half), medians, (1, 1, 3)))
        assert number(n) == len(neuroids)
    for region in ("All regions", *REGION_NAMES):
        valid = select(truth, region.replace("All regions", "all"), "all").dropna(subset=["nc_testset", "split_half"])
        text = re.search(rf"{region}: (\S+) neuroids, rank correlation ([\d.]+)", page.text)
        assert number(text[1]) == len(valid)
        assert agrees(text[2], valid.nc_testset.rank().corr(valid.split_half.rank()), 2)


def test_repetition_and_split_tables_equal_the_release(page, truth, manifest, reported):
    sessions = manifest["sessions"] | {"all": sum(manifest["sessions"].values())}
    rows = page.rows("repetition-table")
    assert [row[0] for row in rows] == list(sessions)
    for subject, n_sessions, n_trials, *correlations in rows:
        assert (number(n_sessions), number(n_trials)) == (sessions[subject], manifest["n_trials_per_session"])
        for text, pair in zip(correlations, ("pair_01", "pair_02", "pair_12"), strict=True):
            assert agrees(text, select(truth, "all", subject)[pair].median(), 3)
    table = pd.read_csv(reported / "train_test_split.csv")
    for split, n_images, n_per_image, n_presentations, _, nsd_ids, _ in page.rows("split-table"):
        images = table[table.split == split]
        assert [number(n) for n in (n_images, n_per_image)] == [len(images), {"train": 1, "test": 3}[split]]
        assert number(n_presentations) == manifest["shapes"][split][0]
        assert nsd_ids == f"{images.nsd_id.min()} to {images.nsd_id.max()}"
        lines = re.search(rf'<path class="{split}" d="([^"]+)"', page.source)[1].count("M")
        assert lines == len(set(images.nsd_id * 730 // (table.nsd_id.max() + 1)))


def test_invalid_table_equals_the_manifest(page, truth, manifest):
    without_ceiling = truth[truth.nc_testset.isna()]
    *rows, total = page.rows("invalid-table")
    for region, subject, n, *filled, n_dropped, n_without in (*rows, total):
        assert number(n) == counts_of(manifest, region, subject, "neuroids")
        assert (n_dropped, number(n_without)) == ("0", len(select(without_ceiling, region, subject)))
        for text, split in zip(filled, SPLITS, strict=True):
            count = counts_of(manifest, region, subject, split)
            percent = 100 * count / (len(select(truth, region, subject)) * manifest["shapes"][split][0])
            assert text == (f"{count:,} ({percent:.2f} %)" if count else "0")
    assert total[:2] == ["all", "all"]
    assert sum(number(row[2]) for row in rows) == number(total[2]) > 0


def test_invalid_table_counts_dropped_neuroids(nsd_tree, tmp_path):
    for policy in ("zero", "drop"):
        build_release(nsd_tree, tmp_path / policy, make_recipe((1,), name=f"of_{policy}", nan_policy=policy))
    whole, kept = (measure(tmp_path / policy / f"of_{policy}_test.nc") for policy in ("zero", "drop"))
    n_dropped = whole[~whole.neuroid_id.isin(kept.neuroid_id)].groupby(["region", "subject"]).size()

    page = Page(write_report(tmp_path / "drop"))

    *rows, total = page.rows("invalid-table")
    assert {(row[0], row[1]): number(row[5]) for row in rows} == n_dropped.to_dict()
    assert number(total[5]) == len(whole) - len(kept) > 0
    assert {cell for row in rows for cell in row[2:5]} == {"0"}
    meaning = "A vertex is left out if any trial that the release needs is not a number."
    assert ["nan_policy", "drop", meaning] in page.rows("option-table")


def test_unknown_ceilings_of_a_region_are_dashes(reported, tmp_path):
    copy = shutil.copytree(reported, tmp_path / "release")
    path = copy / "Allen2022_fmri_surface_test.nc"
    with netCDF4.Dataset(path, "a") as file:
        regions = file["region"][:]
        file["nc_testset"][regions == "V2"] = np.nan
        file["data"][:, regions == "V2"] = 0
    accept(copy, path.name)

    page = Page(write_report(copy))

    assert {tuple(row[-4:]) for row in page.rows("region-table") if row[0] == "V2"} == {("–",) * 4}
    assert {row[4] for row in page.panel("V2")} == {"–", ""}
    assert "V2: 0 neuroids, rank correlation –" in page.text
    assert {row[-1] for row in page.rows("invalid-table") if row[0] == "V2"} == {"13"}


def test_maps_hold_the_regions_and_values_of_every_vertex(page, truth):
    maps = page.data["cortex-data"]
    columns = ("nc_testset", "nc_repetitions", "split_half", "repetition_r", "between_subjects")
    assert (maps["regions"], maps["n"]) == (list(REGION_NAMES), 642)
    assert len(maps["subjects"]) == 9
    for subject in maps["subjects"]:
        is_mean = subject["name"] == "all 8 subjects (mean)"
        neuroids = select(truth, "all", "all" if is_mean else subject["name"])
        assert len(neuroids) > 0
        neuroids = neuroids.assign(place=neuroids.vertex_index + 642 * (neuroids.hemisphere == "rh"))
        codes = unpack(maps["layouts"][subject["layout"]])
        assert len(codes) == 2 * 642
        places = np.flatnonzero(codes)
        regions = [[maps["regions"][i] for i in maps["sets"][code - 1]] for code in codes[places]]
        expected = neuroids.groupby("place").region.agg(lambda names: sorted(set(names), key=REGION_NAMES.index))
        assert dict(zip(places, regions, strict=True)) == expected.to_dict()
        for described, text, column in zip(maps["measures"], subject["values"], columns, strict=True):
            codes, span = unpack(text), described["highest"] - described["lowest"]
            values = np.where(codes == 65_535, np.nan, described["lowest"] + codes / 65_534 * span)
            expected_values = neuroids.groupby("place")[column].mean()
            np.testing.assert_allclose(values, expected_values, atol=span / 65_534)


def unpack(text: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype="<u2")


def test_subjects_without_a_common_vertex_have_no_correlation_with_each_other(planted, tmp_path):
    assert "Correlation with other subjects" in list_measures(write_report(planted, tmp_path / "common.html"))
    copy = shutil.copytree(planted, tmp_path / "release")
    with netCDF4.Dataset(copy / "planted_test.nc", "a") as file:
        is_first = file["subject"][:] == "subj01"
        file["vertex_index"][is_first] = file["vertex_index"][is_first] + 20_000
    accept(copy, "planted_test.nc")

    assert "Correlation with other subjects" not in list_measures(write_report(copy))


def list_measures(path):
    return [measure["title"] for measure in Page(path).data["cortex-data"]["measures"]]
