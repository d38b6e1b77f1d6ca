"""The cortex of the report: its surface, the values that it holds, and what a reader sees of them in a browser."""

import base64
import itertools
import json
import re

import numpy as np
import pytest
from nilearn.datasets import fetch_surf_fsaverage
from nilearn.surface import load_surf_mesh

from allen2022_surface_packaging.report.page import write_report
from allen2022_surface_packaging.report.surface import has_surface, read_surface
from report.reading import REGION_NAMES, Page, measure, number

COLUMNS = ("nc_testset", "nc_repetitions", "split_half", "repetition_r")
MIDNIGHT, TEAL, YELLOW = "#440154", "#24878e", "#fde725"


def unpack(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype=kind)


@pytest.mark.parametrize("n_vertices", [12, 42, 162, 642, 2562])
def test_vertices_of_fsaverage5_follow_from_subdividing_coarser_meshes(n_vertices):
    faces = load_surf_mesh(fetch_surf_fsaverage("fsaverage5")["infl_left"]).faces
    for n_finer in (2562, 642, 162, 42, 12):
        if n_finer < n_vertices:
            break
        # Each face of a subdivided mesh has an old corner, or lies in the middle of an old face, between three new vertices.
        middles = faces[(faces >= n_finer).all(axis=1)]
        edges = np.concatenate([faces[:, list(pair)] for pair in itertools.permutations(range(3), 2)])
        parents = {}
        for new, old in edges[(edges[:, 0] >= n_finer) & (edges[:, 1] < n_finer)]:
            parents.setdefault(new, set()).add(old)
        assert {len(old) for old in parents.values()} == {2}
        corners = [set.union(*(parents[new] for new in face)) for face in middles]
        assert {len(vertices) for vertices in corners} == {3}
        faces = np.array([sorted(vertices) for vertices in corners])
    assert len(np.unique(faces)) == n_vertices
    assert len(faces) == 2 * n_vertices - 4  # Euler's formula for a closed surface of triangles


@pytest.mark.parametrize("n_vertices", [642, 2562, 10_242, 163_842])
def test_every_vertex_of_a_release_colours_the_surface_around_it(n_vertices):
    surface = read_surface(n_vertices)

    n_known = min(n_vertices, 10_242)
    assert has_surface(n_vertices)
    np.testing.assert_array_equal(surface.nearest[:n_known], np.arange(n_known))
    sizes = np.bincount(surface.nearest, minlength=n_known)
    assert sizes.max() <= 2.5 * sizes.mean()


def test_maps_hold_the_regions_and_values_of_every_vertex(page, truth):
    maps = page.data["cortex-data"]
    truth = truth.assign(split_half=truth.filter(like="split_").median(axis=1))
    assert maps["regions"] == list(REGION_NAMES)
    assert maps["n"] == 642
    for subject in maps["subjects"]:
        neuroids = truth[truth.subject == subject["name"]]
        neuroids = neuroids.assign(place=neuroids.vertex_index + 642 * (neuroids.hemisphere == "rh"))
        codes = unpack(maps["layouts"][subject["layout"]], "<u2")
        assert len(codes) == 2 * 642
        places = np.flatnonzero(codes)
        regions = [[maps["regions"][i] for i in maps["sets"][code - 1]] for code in codes[places]]
        expected = neuroids.groupby("place").region.agg(lambda names: sorted(names, key=REGION_NAMES.index))
        assert dict(zip(places, regions, strict=True)) == expected.to_dict()
        for described, text, column in zip(maps["measures"], subject["values"], COLUMNS, strict=True):
            numbers = unpack(text, "<u2")
            span = described["highest"] - described["lowest"]
            values = np.where(numbers == 65_535, np.nan, described["lowest"] + numbers / 65_534 * span)
            np.testing.assert_allclose(values, neuroids.groupby("place")[column].first(), atol=span / 65_534)


def test_release_whose_vertices_have_no_positions_has_no_maps_and_says_why(release_copy):
    manifest = json.loads((release_copy / "release.json").read_text())
    (release_copy / "release.json").write_text(json.dumps({**manifest, "n_vertices": 700, "simulated": False}))

    page = Page(write_report(release_copy))

    assert "There are no maps: this release has 700 vertices per hemisphere" in page.text
    assert "cortex-data" not in page.data


def test_simulated_release_of_any_size_has_maps_because_its_vertices_are_the_first_of_fsaverage(release_copy):
    manifest = json.loads((release_copy / "release.json").read_text())
    (release_copy / "release.json").write_text(json.dumps({**manifest, "n_vertices": 700}))

    maps = Page(write_report(release_copy)).data["cortex-data"]

    assert maps["n"] == 700
    np.testing.assert_array_equal(unpack(maps["nearest"], "<u2")[:700], np.arange(700))


def choose(tab, **choices: int) -> None:
    for name, value in choices.items():
        tab.evaluate(
            f"(select => {{ select.value = '{value}'; select.dispatchEvent(new Event('change')) }})"
            f"(document.getElementById('cortex-{name}'))"
        )


def press(tab, name: str) -> None:
    tab.evaluate(
        f"[...document.querySelectorAll('#cortex-buttons button')].find(b => b.textContent === '{name}').click()"
    )


def picture_of(tab, side: str) -> np.ndarray:
    """Return the pixels of a hemisphere, when it is drawn."""
    box = tab.evaluate(
        "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => {"
        f"const box = document.getElementById('cortex-{side}').getBoundingClientRect();"
        "done({x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height})})))"
    )
    return tab.screenshot(box)


def corner_of(tab, side: str) -> tuple[float, float]:
    """Scroll to a hemisphere, and return its upper left corner in the window."""
    box = tab.evaluate(
        f"(canvas => {{ canvas.scrollIntoView({{block: 'center'}}); const {{x, y}} = canvas.getBoundingClientRect(); return {{x, y}} }})"
        f"(document.getElementById('cortex-{side}'))"
    )
    return box["x"], box["y"]


def extent(mask: np.ndarray) -> tuple[int, int]:
    columns = np.flatnonzero(mask.any(axis=0))
    return int(columns.min()), int(columns.max())


def is_coloured(pixels: np.ndarray) -> np.ndarray:
    """Return where a picture of the brain is not grey."""
    return np.ptp(pixels[:, :, :3], axis=2) > 30


@pytest.mark.parametrize(("side", "lateral_pole"), [("left", "right"), ("right", "left")])
def test_v1_is_drawn_at_the_occipital_pole_of_each_hemisphere(tab, full_size, side, lateral_pole):
    tab.open(full_size / "report.html", width=1280)
    choose(tab, measure=-1, region=0)

    for view, pole in (("Lateral", lateral_pole), ("Medial", side)):  # the front is on opposite sides
        press(tab, view)
        pixels = picture_of(tab, side)
        start, end = extent(pixels[:, :, :3].min(axis=2) < 245)
        first, last = ((column - start) / (end - start) for column in extent(is_coloured(pixels)))
        assert first > 0.8 if pole == "right" else last < 0.2


def test_lateral_and_ventral_views_show_the_temporal_lobe_below_and_in_front(tab, full_size):
    tab.open(full_size / "report.html", width=1280)
    heights = {}
    for view in ("Lateral", "Ventral"):
        press(tab, view)
        rows = np.flatnonzero((picture_of(tab, "left")[:, :, :3].min(axis=2) < 245).any(axis=1))
        heights[view] = rows.max() - rows.min()
    assert heights["Ventral"] < 0.8 * heights["Lateral"]  # the inflated cortex is taller than wide


def test_map_shows_the_planted_noise_ceilings_of_the_chosen_subject(tab, full_size):
    tab.open(full_size / "report.html", width=1280)
    press(tab, "Lateral")
    choose(tab, measure=0)
    shares = {}
    for number_, subject in enumerate(("subj01", "subj02")):
        choose(tab, subject=number_)
        pixels = picture_of(tab, "left")
        brightness = pixels[:, :, 1][is_coloured(pixels)]  # the green of viridis rises with the value
        shares[subject] = np.median(brightness)
    # On a scale to 80 %, a noise ceiling of 80 % is yellow, and one of 20 % is dark blue.
    assert shares["subj01"] > 150
    assert shares["subj02"] < 90


def test_choosing_a_region_hides_the_others(tab, full_size):
    tab.open(full_size / "report.html", width=1280)
    choose(tab, measure=0)
    n_all = is_coloured(picture_of(tab, "left")).sum()

    choose(tab, region=0)

    assert 0 < is_coloured(picture_of(tab, "left")).sum() < 0.8 * n_all


def test_pointing_at_a_vertex_names_its_subject_region_and_value(tab, full_size):
    truth = measure(full_size / "planted_test.nc")
    tab.open(full_size / "report.html", width=1280)
    choose(tab, measure=1, subject=1)
    pixels = picture_of(tab, "right")
    row, column = (int(np.median(places)) for places in np.nonzero(is_coloured(pixels)))

    x, y = corner_of(tab, "right")
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + column, y=y + row)
    text = tab.evaluate("document.getElementById('cortex-readout').textContent")

    subject, vertex, regions, value = text.split(" · ")
    vertex_index = int(number(re.fullmatch(r"vertex ([\d,]+) of the right hemisphere", vertex)[1]))
    neuroids = truth[(truth.subject == subject) & (truth.hemisphere == "rh") & (truth.vertex_index == vertex_index)]
    assert subject == "subj02"
    assert set(regions.split(" and ")) == set(neuroids.region) != set()
    assert value == f"noise ceiling from test repetitions {neuroids.nc_repetitions.iloc[0]:.1f} %"


def test_dragging_turns_both_hemispheres(tab, full_size):
    tab.open(full_size / "report.html", width=1280)
    before = {side: picture_of(tab, side) for side in ("left", "right")}
    x, y = (corner + 150 for corner in corner_of(tab, "left"))

    tab.call("Input.dispatchMouseEvent", type="mousePressed", x=x, y=y, button="left", clickCount=1)
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + 120, y=y, button="left", buttons=1)
    tab.call("Input.dispatchMouseEvent", type="mouseReleased", x=x + 120, y=y, button="left")

    for side, pixels in before.items():
        assert np.abs(picture_of(tab, side) - pixels).mean() > 2


def test_arrow_keys_turn_the_cortex_and_say_what_is_at_its_centre(tab, full_size):
    tab.open(full_size / "report.html", width=1280)
    before = picture_of(tab, "left")
    tab.evaluate("document.getElementById('cortex-left').focus()")

    for _ in range(4):
        tab.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    after = picture_of(tab, "left")

    assert np.abs(after - before).mean() > 2
    readout = tab.evaluate("document.getElementById('cortex-readout').textContent")
    assert re.match(r"subj01 · vertex [\d,]+ of the left hemisphere · ", readout)


def test_map_has_a_text_alternative(tab, full_size):
    truth = measure(full_size / "planted_test.nc")
    tab.open(full_size / "report.html", width=390)
    choose(tab, measure=1, subject=1, region=1)
    described_by = tab.evaluate("document.getElementById('cortex-left').getAttribute('aria-describedby')")
    text = tab.evaluate(f"document.getElementById('{described_by.split()[0]}').textContent")

    shown = truth[(truth.subject == "subj02") & (truth.region == "V2") & (truth.vertex_index < 10_242)]
    values = shown.nc_repetitions.sort_values()
    n_vertices, middle, highest, vertex, side = re.fullmatch(
        r"Noise ceiling from test repetitions of subj02, V2: (\S+) vertices in the map. The median is (\S+) %. "
        r"The highest value is (\S+) %, at vertex (\S+) of the (left|right) hemisphere, in V2.",
        text,
    ).groups()
    assert number(n_vertices) == len(shown)
    assert number(middle) == pytest.approx(values.iloc[len(values) // 2], abs=0.06)
    assert number(highest) == pytest.approx(values.iloc[-1], abs=0.06)
    best = shown.loc[values.index[-1]]
    assert (number(vertex), side[0] + "h") == (best.vertex_index, best.hemisphere)


def test_paper_shows_the_chosen_measure_of_each_subject_with_its_legend(tab, full_size):
    tab.open(full_size / "report.html", width=760)
    choose(tab, measure=2)
    tab.call("Emulation.setEmulatedMedia", media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")

    captions = tab.evaluate("[...document.querySelectorAll('#cortex-print figcaption')].map(e => e.textContent)")
    n_canvases = tab.evaluate(
        "[...document.querySelectorAll('#cortex-print figure')].map(f => f.querySelectorAll('canvas').length)"
    )
    legends = tab.evaluate("[...document.querySelectorAll('#cortex-print .legend')].map(e => e.textContent)")

    assert captions == ["Regions", "Split-half ceiling"]
    assert n_canvases == [6, 12]  # both subjects have the same regions
    assert "more than one" in legends[0]
    assert legends[1].startswith("Split-half ceiling (r)")
    tab.call("Emulation.setEmulatedMedia", media="")
