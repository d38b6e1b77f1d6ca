"""The charts, colours and thumbnails of the report: what they show, and what their texts say."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from allen2022_surface_packaging.report import sections
from allen2022_surface_packaging.report.charts import GRID, comparison, distribution, thumbnail
from allen2022_surface_packaging.report.colours import ink_on, region_colours, scale_colours, scale_steps
from allen2022_surface_packaging.report.measures import highest_on_scale
from allen2022_surface_packaging.report.page import write_report
from allen2022_surface_packaging.report.statistics import CeilingComparison, expected_curve
from report.reading import REGION_NAMES, SPLITS, Page, agrees, decode, number


def test_texts_of_comparisons_equal_the_numbers_of_the_release(page, truth):
    assert all(picture["alt"].strip() for picture in page.pictures)
    for region in REGION_NAMES:
        neuroids = truth[truth.region == region].copy()
        neuroids["split_half"] = neuroids.filter(like="split_").median(axis=1)
        valid = neuroids[np.isfinite(neuroids.nc_testset) & np.isfinite(neuroids.split_half)]
        (alt,) = page.alts(f"neuroids in {region}, with the expected curve")
        n, correlation = re.search(r"noise ceilings of (\S+) neuroids.*correlation is (.+)\.$", alt).groups()
        assert number(n) == len(valid)
        assert agrees(correlation, valid.nc_testset.rank().corr(valid.split_half.rank()), 2)
        assert f"{region}: {n} neuroids, rank correlation {correlation}" in page.text


def heights_of(drawing: str) -> list[int]:
    return [20 - int(height) for height in re.findall(r"V(\d+)h2", drawing)]


def test_distribution_shows_where_the_values_are_and_their_median(rng):
    values = 70 + 5 * rng.standard_normal(4000)

    drawing = distribution(np.append(values, np.nan), highest=100)

    counts = np.histogram(values, np.arange(0, 102, 2))[0]
    np.testing.assert_allclose(heights_of(drawing), 20 * counts / counts.max(), atol=0.51)
    assert float(re.search(r'class="mark" d="M([\d.]+) ', drawing)[1]) == pytest.approx(np.median(values), abs=0.01)


def test_axis_of_noise_ceilings_ends_above_the_highest_one():
    values = np.concatenate([np.full(990, 40.0), np.linspace(85, 97, 10)])  # 1 % of them far above the others

    end = highest_on_scale(values)
    heights = heights_of(distribution(values, highest=end))

    assert end == 100
    assert heights[20] == 20
    assert max(heights[42:]) <= 1  # nothing is piled up at the end


@pytest.mark.parametrize(
    ("highest", "end"), [(0.0, 1), (0.07, 0.07), (0.71, 0.8), (9.3, 10), (62, 70), (100, 100), (417, 500), (1821, 2000)]
)
def test_scale_ends_at_a_round_number(highest, end):
    assert highest_on_scale(np.array([np.nan, 0, highest])) == end


def test_scale_of_no_values_ends_at_1():
    assert highest_on_scale(np.array([np.nan])) == 1


def counts_shown(drawing: str) -> np.ndarray:
    """Return which cells of a comparison are coloured, the largest split-half ceilings first."""
    source = re.search(r'href="(data:image/png;base64,[^"]+)"', drawing)[1]
    return decode(source)[:, :, 3] > 0


def test_comparison_colours_the_cells_of_the_neuroids():
    curve = expected_curve(100.0)
    ceilings = CeilingComparison(np.array([2.0, 98.0]), np.array([-0.9, 0.99]), 1.0)

    shown = counts_shown(comparison(ceilings, curve, highest=100, alt=""))

    assert shown.shape == GRID[::-1]
    assert np.argwhere(shown).tolist() == [[0, GRID[0] - 1], [GRID[1] - 1, 0]]  # a value below -0.5 is drawn at -0.5


@pytest.mark.parametrize("n_neuroids", [0, 1, 2])
def test_charts_can_show_very_few_neuroids(n_neuroids, recwarn):
    values = np.linspace(10, 60, n_neuroids)

    drawing = comparison(CeilingComparison(values, values / 100, np.nan), expected_curve(80.0), highest=80, alt="few")

    assert counts_shown(drawing).sum() == n_neuroids
    assert sum(height > 0 for height in heights_of(distribution(values, highest=80))) == n_neuroids
    assert not recwarn


def luminance(colour: str) -> float:
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return float(
        np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    )


def test_numbers_can_be_read_on_every_colour_of_the_scale():
    colours = scale_colours()
    assert (colours[0], colours[-1], len(colours)) == ("#440154", "#fde725", 64)  # viridis
    for colour in colours:
        ink = {"#000": 0.0, "#fff": 1.0}[ink_on(colour)]
        lighter, darker = sorted([ink, luminance(colour)], reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5  # WCAG 2.2, AA


def test_steps_of_the_scale_are_even_and_clipped():
    values = np.array([-3, 0, 0.49, 0.5, 0.999, 1, 7, np.nan])

    assert scale_steps(values, (0, 1)).tolist() == [0, 0, 31, 32, 63, 63, 63, -1]


@pytest.mark.parametrize("n_regions", [7, 25, 180, 360])
def test_neighbouring_regions_have_clearly_different_colours(n_regions):
    colours = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in region_colours(n_regions)])

    assert len(np.unique(colours, axis=0)) == n_regions
    assert np.linalg.norm(np.diff(colours, axis=0), axis=1).min() > 60


def test_few_regions_have_the_colours_for_colour_blind_people():
    assert region_colours(4) == ["#0072b2", "#e69f00", "#009e73", "#cc79a7"]


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


@pytest.mark.parametrize(
    "damage", [lambda content: b"", lambda content: content[:60], lambda content: content[:33] + bytes(9)]
)
def test_stimulus_that_is_not_an_image_is_named(release, tmp_path, damage):
    path = tmp_path / "nsd_00001.png"
    path.write_bytes(damage(min((release / "stimuli_train").iterdir()).read_bytes()))

    with pytest.raises(ValueError, match=r"nsd_00001\.png is not an image \(") as raised:
        thumbnail(path, name="nsd_00001")
    assert "\n" not in str(raised.value)


def test_positions_of_images_have_a_line_for_each_image(page, reported):
    table = pd.read_csv(reported / "train_test_split.csv")
    for split in SPLITS:
        path = re.search(rf'<path class="{split}" d="([^"]+)"', page.source)[1]
        lines = [int(x) for x in re.findall(r"M(\d+)\.5", path)]
        expected = sorted(set(table.nsd_id[table.split == split] * 730 // (table.nsd_id.max() + 1)))
        assert lines == expected
