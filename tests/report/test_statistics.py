"""Every number of the report is computed again here from the release."""

import json
import re

import netCDF4
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from brainscore_core.supported_data_standards.brainio.assemblies import NeuroidAssembly

from allen2022_surface_packaging.assemble.pipeline import build_release
from allen2022_surface_packaging.recipe import make_recipe
from allen2022_surface_packaging.release import FilledCounts, Manifest, ReleaseFolder
from allen2022_surface_packaging.report.page import write_report
from allen2022_surface_packaging.report.statistics import expected_curve
from report.reading import (
    REGION_NAMES,
    SPLITS,
    Page,
    agrees,
    measure,
    number,
    size_text,
    split_half_ceiling,
)


@pytest.fixture(scope="session")
def manifest(reported) -> Manifest:
    return Manifest.read(ReleaseFolder(reported))


def test_region_table_equals_the_numbers_of_the_release(page, truth, manifest):
    subjects = sorted(manifest.nan_counts)
    rows = page.rows("region-table")
    assert [row[:2] for row in rows] == [
        *([region, subject] for region in REGION_NAMES for subject in subjects),
        *([region, "all"] for region in REGION_NAMES),
    ]

    for (
        region,
        subject,
        n,
        n_left,
        n_right,
        shared,
        n_invalid,
        noise_ceiling,
        of_repetitions,
        pairs,
        split_half,
    ) in rows:
        selected = subjects if subject == "all" else [subject]
        neuroids = truth[(truth.region == region) & truth.subject.isin(selected)]
        assert [number(n), number(n_left), number(n_right)] == [
            len(neuroids),
            (neuroids.hemisphere == "lh").sum(),
            (neuroids.hemisphere == "rh").sum(),
        ]
        others = truth[(truth.region != region) & truth.subject.isin(selected)]
        overlap = neuroids.merge(others, on=["subject", "hemisphere", "vertex_index"]).region_y.value_counts()
        assert shared == (", ".join(f"{overlap[name]:,} in {name}" for name in REGION_NAMES if name in overlap) or "0")
        assert number(n_invalid) == sum(manifest.nan_counts[name][region].neuroids for name in selected)
        assert agrees(noise_ceiling, neuroids.nc_testset.median(), 1)
        assert agrees(of_repetitions, neuroids.nc_repetitions.median(), 1)
        assert agrees(pairs, neuroids.repetition_r.median(), 3)
        assert agrees(split_half, split_half_ceiling(neuroids), 3)


def test_panels_equal_the_numbers_of_the_release(page, truth, manifest):
    for region in REGION_NAMES:
        rows = page.panel(region)
        assert [row[0] for row in rows] == [*sorted(manifest.nan_counts), "all"]
        for subject, _, noise_ceiling, of_repetitions, interval, split_half, n in rows:
            neuroids = truth[(truth.region == region) & ((truth.subject == subject) | (subject == "all"))]
            assert number(n) == len(neuroids)
            assert agrees(noise_ceiling, neuroids.nc_testset.median(), 1)
            assert agrees(of_repetitions, neuroids.nc_repetitions.median(), 1)
            assert agrees(split_half, split_half_ceiling(neuroids), 3)
            if subject != "all":
                estimate, lower, upper = map(number, re.fullmatch(r"(\S+) \((\S+) to (\S+)\)", interval).groups())
                assert 0 <= lower - 0.5 < estimate < upper + 0.5 <= 100.5


def test_heat_map_equals_the_numbers_of_the_release(page, truth, manifest):
    header, *rows = page.tables["heat"]
    assert header == ["Region", *sorted(manifest.nan_counts), "all"]
    assert [row[0] for row in rows] == list(REGION_NAMES)
    measures = {measure["title"]: measure for measure in page.data["heat-values"]}
    for i, region in enumerate(REGION_NAMES):
        for j, subject in enumerate(header[1:]):
            neuroids = truth[(truth.region == region) & ((truth.subject == subject) | (subject == "all"))]
            counts = [c[region] for name, c in manifest.nan_counts.items() if subject in (name, "all")]
            n_values = len(neuroids) * sum(manifest.shapes[split][0] for split in SPLITS)
            expected = {
                "Noise ceiling (median)": neuroids.nc_testset.median(),
                "Noise ceiling from test repetitions (median)": neuroids.nc_repetitions.median(),
                "Split-half ceiling": split_half_ceiling(neuroids),
                "Correlation of repetitions (median)": neuroids.repetition_r.median(),
                "Neuroids": len(neuroids),
                "Filled values": 100 * sum(count.train + count.test for count in counts) / n_values,
            }
            assert agrees(rows[i][1 + j], expected["Noise ceiling (median)"], 1)
            assert list(measures) == list(expected)
            for title, shown in measures.items():
                assert agrees(f"{shown['values'][i][j]:.{shown['digits']}f}", expected[title], shown["digits"])


def test_region_table_counts_vertices_that_v4_and_it_share(page):
    assert {row[5] for row in page.rows("region-table") if row[0] in ("V1", "V2")} == {"0"}
    assert all(re.fullmatch(r"\d+ in IT", row[5]) for row in page.rows("region-table") if row[0] == "V4")


def test_split_half_ceiling_equals_that_of_brain_score(page, reported):
    from brainscore_vision import load_ceiling

    with xr.open_dataarray(reported / "Allen2022_fmri_surface_test.nc") as assembly:
        is_selected = (assembly["region"] == "V2") & (assembly["subject"] == "subj05")
        responses = NeuroidAssembly(assembly.isel(neuroid=np.flatnonzero(is_selected), time_bin=0).load())
    expected = load_ceiling("internal_consistency")(responses)

    (ceiling,) = [row[-1] for row in page.rows("region-table") if row[:2] == ["V2", "subj05"]]
    assert agrees(ceiling, float(expected), 3)


def test_repetition_table_equals_the_numbers_of_the_release(page, truth, manifest):
    rows = page.rows("repetition-table")
    assert [row[0] for row in rows] == [*manifest.sessions, "all"]

    for subject, n_sessions, n_trials, *correlations in rows:
        is_total = subject == "all"
        neuroids = truth if is_total else truth[truth.subject == subject]
        assert number(n_sessions) == (sum(manifest.sessions.values()) if is_total else manifest.sessions[subject])
        assert number(n_trials) == manifest.n_trials_per_session
        for text, pair in zip(correlations, ("pair_01", "pair_02", "pair_12"), strict=True):
            assert agrees(text, neuroids[pair].median(), 3)


def test_split_table_equals_the_numbers_of_the_release(page, reported):
    table = pd.read_csv(reported / "train_test_split.csv")
    rows = page.rows("split-table")
    assert [row[0] for row in rows] == list(SPLITS)

    for split, n_images, n_per_image, n_presentations, repetitions, nsd_ids, size in rows:
        images = table[table.split == split]
        path = reported / f"Allen2022_fmri_surface_{split}.nc"
        with xr.open_dataarray(path) as assembly:
            assert number(n_presentations) == assembly.sizes["presentation"]
            assert {int(n_per_image)} == set(pd.Series(assembly["nsd_id"].values).value_counts())
        assert number(n_images) == len(images)
        assert repetitions == {"train": "averaged", "test": "separate"}[split]
        assert nsd_ids == f"{images.nsd_id.min()} to {images.nsd_id.max()}"
        assert size == size_text(path.stat().st_size)
    n_train, n_test = (len(table[table.split == split]) for split in SPLITS)
    assert page.alts(f"{n_train} train and {n_test} test images")


def test_invalid_table_equals_the_counts_of_the_manifest(page, truth, manifest):
    n_presentations = {split: manifest.shapes[split][0] for split in SPLITS}
    *rows, total = page.rows("invalid-table")
    counts = {
        (region, subject): count
        for subject, regions in manifest.nan_counts.items()
        for region, count in regions.items()
        if count != FilledCounts(0, 0, 0)
    }
    n_without_ceiling = truth[truth.nc_testset.isna()].groupby(["region", "subject"]).size()
    assert {tuple(row[:2]) for row in rows} == set(counts) | set(n_without_ceiling.index)

    for region, subject, n, train, test, n_dropped, n_without in rows:
        n_neuroids = len(truth[(truth.region == region) & (truth.subject == subject)])
        assert number(n) == counts[region, subject].neuroids
        assert (n_dropped, n_without) == ("0", str(n_without_ceiling.get((region, subject), 0)))
        for text, split in ((train, "train"), (test, "test")):
            count = getattr(counts[region, subject], split)
            percent = 100 * count / (n_neuroids * n_presentations[split])
            assert text == (f"{count:,} ({percent:.2f} %)" if count else "0")
    assert total[:2] == ["all", "all"]
    assert number(total[2]) == sum(count.neuroids for count in counts.values()) > 0
    for text, split in zip(total[3:5], SPLITS, strict=True):
        count = sum(getattr(count, split) for count in counts.values())
        assert text == f"{count:,} ({100 * count / np.prod(manifest.shapes[split]):.2f} %)"


def test_invalid_table_counts_dropped_neuroids_of_the_release(nsd_tree, tmp_path):
    for policy in ("zero", "drop"):
        recipe = make_recipe((1, 2), name=f"of_{policy}", nan_policy=policy)
        build_release(nsd_tree, tmp_path / policy, recipe)
    whole, kept = (measure(tmp_path / policy / f"of_{policy}_test.nc") for policy in ("zero", "drop"))
    n_dropped = whole[~whole.neuroid_id.isin(kept.neuroid_id)].groupby(["region", "subject"]).size()

    page = Page(write_report(tmp_path / "drop"))

    *rows, total = page.rows("invalid-table")
    assert {(row[0], row[1]): number(row[5]) for row in rows} == n_dropped.to_dict()
    assert number(total[5]) == len(whole) - len(kept) > 0
    assert {cell for row in rows for cell in row[2:5]} == {"0"}
    meaning = "A vertex is left out if any trial that the release needs is not a number."
    assert ["nan_policy", "drop", meaning] in page.rows("option-table")


def test_expected_curve_fits_repetitions_with_independent_noise(rng):
    ncsnr = np.array([0.2, 0.5, 1.0, 2.0])
    responses = rng.standard_normal((200_000, 1, 4)) * ncsnr + rng.standard_normal((200_000, 3, 4))
    r = [np.corrcoef(responses[:, 0, k], responses[:, 1:, k].mean(axis=1))[0, 1] for k in range(4)]
    noise_ceilings = 100 * ncsnr**2 / (ncsnr**2 + 1 / 3)

    expected = np.interp(noise_ceilings, *expected_curve(100.0))

    np.testing.assert_allclose(expected, 2 * np.array(r) / (1 + np.array(r)), atol=0.01)


def test_unknown_ceilings_of_a_region_are_shown_as_dashes(release_copy):
    path = release_copy / "Allen2022_fmri_surface_test.nc"
    with netCDF4.Dataset(path, "a") as file:
        regions = xr.open_dataarray(path)["region"].values
        file["nc_testset"][regions == "V2"] = np.nan
        file["data"][:, regions == "V2"] = 0
    manifest = json.loads((release_copy / "release.json").read_text())
    manifest["files"][path.name]["size"] = path.stat().st_size
    (release_copy / "release.json").write_text(json.dumps(manifest))

    page = Page(write_report(release_copy))

    assert {tuple(row[-4:]) for row in page.rows("region-table") if row[0] == "V2"} == {("–",) * 4}
    assert {row[4] for row in page.panel("V2")} == {"–", ""}
    assert "V2: 0 neuroids, rank correlation –" in page.text
    assert {row[-1] for row in page.rows("invalid-table") if row[0] == "V2"} == {"13"}
