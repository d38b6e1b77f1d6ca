"""The pictures of the report: what they show, and what their texts say."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from allen2022_surface_packaging.report import sections
from allen2022_surface_packaging.report.figures import (
    cortical_map,
    noise_ceiling_distributions,
    region_colours,
    split_half_against_noise_ceiling,
)
from allen2022_surface_packaging.report.page import write_report
from allen2022_surface_packaging.report.statistics import expected_curve
from report.reading import REGION_NAMES, SPLITS, Page, agrees, decode, has_colour, measure, number

LATERAL, MEDIAL = 0, 1  # numbers of views


def test_alt_texts_equal_the_numbers_of_the_release(page, truth):
    assert all(picture["alt"].strip() for picture in page.pictures)
    for region in REGION_NAMES:
        neuroids = truth[truth.region == region].copy()
        neuroids["split_half"] = neuroids.filter(like="split_").median(axis=1)
        (alt,) = page.alts(f"noise ceilings in {region}, one row per subject")
        medians = dict(re.findall(r"(subj\d\d) (\S+) %", alt))
        assert set(medians) == set(neuroids.subject)
        for subject, text in medians.items():
            assert agrees(text, neuroids.nc_testset[neuroids.subject == subject].median(), 1)
        valid = neuroids[np.isfinite(neuroids.nc_testset) & np.isfinite(neuroids.split_half)]
        (alt,) = page.alts(f"neuroids in {region}, with the expected curve")
        n, correlation = re.search(r"noise ceilings of (\S+) neuroids.*correlation is (.+)\.$", alt).groups()
        assert number(n) == len(valid)
        assert agrees(correlation, valid.nc_testset.rank().corr(valid.split_half.rank()), 2)
        assert f"{region}: {n} neuroids, rank correlation {correlation}" in page.text


def test_contact_sheets_show_the_stimuli_of_each_split_in_order(page, reported):
    stimuli = [picture for picture in page.pictures if re.fullmatch(r"nsd_\d{5}", picture["alt"])]
    tables = [pd.read_csv(reported / f"stimulus_metadata_{split}.csv") for split in SPLITS]

    assert [picture["alt"] for picture in stimuli] == [name for table in tables for name in table.stimulus_id]
    assert f"Train: all {len(tables[0])} images" in page.text
    with Image.open(reported / "stimuli_train" / tables[0].image_file_name[7]) as image:
        expected = np.asarray(image.convert("RGB"), dtype=float)
    pixels = decode(stimuli[7]["src"])
    assert pixels.shape[:2] == expected.shape[:2]  # 64 pixels, smaller than a thumbnail
    assert np.abs(pixels[:, :, :3] - expected).mean() < 5


def test_contact_sheet_of_too_many_images_is_an_even_sample(release_copy, monkeypatch):
    monkeypatch.setattr(sections, "MAX_THUMBNAILS", 10)
    table = pd.read_csv(release_copy / "stimulus_metadata_train.csv")

    page = Page(write_report(release_copy))

    stimuli = page.alts(r"^nsd_\d{5}$")
    assert len(stimuli) == 20
    assert (stimuli[0], stimuli[9]) == (table.stimulus_id.iloc[0], table.stimulus_id.iloc[-1])
    assert f"Train: 10 of {len(table)} images, evenly spaced" in page.text


def test_reduced_release_has_no_maps_and_says_why(page):
    assert not page.alts("Map of")
    assert "There are no maps: this release has 642 vertices per hemisphere" in page.text


@pytest.mark.parametrize("n_neuroids", [0, 1, 2])
def test_plots_can_show_very_few_neuroids(n_neuroids, recwarn):
    values = np.linspace(10, 60, n_neuroids)

    pictures = [
        split_half_against_noise_ceiling(values, values / 100, expected_curve(80.0), highest=80, alt=""),
        noise_ceiling_distributions({"subj01": values, "subj02": values * np.nan}, highest=80, alt=""),
    ]

    assert all(picture.source.startswith("data:image/svg+xml;base64,") for picture in pictures)
    assert not recwarn


@pytest.mark.parametrize(("side", "lateral_pole"), [("left", "right"), ("right", "left")])
def test_v1_is_drawn_at_the_occipital_pole_of_each_hemisphere(full_size, side, lateral_pole):
    page = Page(full_size / "report.html")

    for view, pole in ((LATERAL, lateral_pole), (MEDIAL, side)):  # the front is on opposite sides
        pixels = page.pixels(f"Map of the regions on the inflated {side} hemisphere", view)
        brain = np.flatnonzero((pixels[:, :, 3] > 200).any(axis=0))
        v1 = np.flatnonzero(has_colour(pixels, region_colours(1)[0]).any(axis=0))
        fraction = (v1 - brain[0]) / (brain[-1] - brain[0])
        assert len(v1) > 5
        assert fraction.min() > 0.8 if pole == "right" else fraction.max() < 0.2


def test_shared_vertices_have_a_separate_colour_and_are_counted(full_size):
    page = Page(full_size / "report.html")

    (alt,) = page.alts("regions on the inflated left hemisphere")
    assert "V1 201, V2 101, V4 81, IT 201, more than one region 20." in alt
    assert "subj01 and subj02" in page.text  # one map, because both have the same regions
    assert has_colour(page.pixels("regions on the inflated left hemisphere", LATERAL), "#f0e442").sum() > 5


def test_maps_of_ceilings_show_the_planted_values(full_size):
    page = Page(full_size / "report.html")
    truth = measure(full_size / "planted_test.nc")
    truth["split_half"] = truth.filter(like="split_").median(axis=1)

    for subject, colour in (
        ("subj01", "#fde725"),
        ("subj02", "#3b528b"),
    ):  # viridis at 80 % and 20 % of a scale to 80 %
        for hemisphere, side in (("lh", "left"), ("rh", "right")):
            neuroids = truth[(truth.subject == subject) & (truth.hemisphere == hemisphere)]
            (alt,) = page.alts(f"noise ceiling of {subject} on the inflated {side} hemisphere, in lateral, medial and")
            assert alt.endswith(f"The median over neuroids is {neuroids.nc_testset.median():.1f} %.")
            (alt,) = page.alts(f"split-half ceiling of {subject} on the inflated {side} hemisphere")
            assert agrees(re.search(r"neuroids is (\S+)\.$", alt)[1], neuroids.split_half.median(), 3)
            pixels = page.pixels(f"noise ceiling of {subject} on the inflated {side}", LATERAL)
            assert has_colour(pixels, colour).sum() > 200
    assert len(page.alts("Map of")) == 2 + 2 * 2 * 2
    assert "≥" not in page.text  # no noise ceiling is above the scale


def test_map_colours_only_vertices_with_a_value_on_the_mesh():
    blank = cortical_map(np.array([np.nan, 50.0]), np.array([3, 10_242]), "lh", limits=(0, 80), alt="")
    one = cortical_map(np.array([50.0]), np.array([3]), "lh", limits=(0, 80), alt="")

    def count_coloured(picture):
        pixels = decode(picture.source)
        return int(((np.ptp(pixels[:, :, :3], axis=2) > 30) & (pixels[:, :, 3] > 200)).sum())

    assert count_coloured(blank) == 0
    assert count_coloured(one) > 0


def test_neighbouring_regions_have_different_colours_for_any_number_of_regions():
    assert region_colours(4) == ["#0072b2", "#e69f00", "#009e73", "#cc79a7"]
    colours = region_colours(180)
    assert len(colours) == 180
    assert all(first != second for first, second in zip(colours, colours[1:], strict=False))
