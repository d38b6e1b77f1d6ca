"""The report in headless Chromium."""

import csv
import re
from itertools import compress

import numpy as np
import pytest
from PIL import Image

from report.reading import REGION_NAMES, Page, measure, number

DESKTOP, PHONE = 1280, 390


@pytest.mark.parametrize(("width", "scheme"), [(DESKTOP, "light"), (PHONE, "dark"), (360, "light")])
def test_page_is_shown_whole_without_errors_or_sideways_scrolling(tab, reported, full_size, width, scheme):
    for path in (reported, full_size):
        tab.open(path / "report.html", width=width, scheme=scheme)

        assert tab.problems(width) == []
        assert tab.evaluate("document.images.length") == len(Page(path / "report.html").pictures) > 100
        brightness = tab.picture(".panel.current .comparison")[:, :, :3].mean(axis=2)
        background, ink = np.median(brightness), (np.max if scheme == "dark" else np.min)(brightness)
        assert (background < 60 and ink > 200) if scheme == "dark" else (background > 230 and ink < 60)


def test_flaws_of_a_page_are_detected(tab, reported, tmp_path):
    text = (reported / "report.html").read_text(encoding="utf-8")
    flaws = (
        "<script>nonsense()</script><img src='data:image/png;base64,AAAA' alt='a broken picture'>"
        "<div style='width: 1500px'>wide</div><img src='http://127.0.0.1:9/picture.png' alt='from afar'>"
    )
    text = re.sub(r'<meta http-equiv="Content-Security-Policy".*>\n', "", text).replace("</main>", f"{flaws}</main>")
    (tmp_path / "flawed.html").write_text(text, encoding="utf-8")

    tab.open(tmp_path / "flawed.html", width=PHONE)

    kinds = {problem.partition(":")[0] for problem in tab.problems(PHONE)}
    assert kinds == {"console", "picture", "scrolls sideways", "network"}


def test_header_sorts_down_up_and_back_with_unknown_values_last(tab, reported, tmp_path):
    text = (reported / "report.html").read_text(encoding="utf-8")
    first = re.search(r'<td class="s\d+">([\d.]+)</td>', text)
    (tmp_path / "report.html").write_text(text.replace(first[0], '<td class="s-1">–</td>', 1), encoding="utf-8")
    tab.open(tmp_path / "report.html", width=DESKTOP)
    column = "#heat td:nth-child(2)"
    original = tab.texts(column)
    known = sorted(original[1:], key=float)

    orders = []
    for _ in range(3):
        tab.evaluate("document.querySelector('#heat th:nth-child(2) button').click()")
        orders.append((tab.evaluate("document.querySelector('#heat th:nth-child(2)').ariaSort"), tab.texts(column)))

    assert original[0] == "–"
    assert orders == [("descending", [*known[::-1], "–"]), ("ascending", [*known, "–"]), (None, original)]


def test_heat_map_shows_the_chosen_measure(tab, reported):
    tab.open(reported / "report.html", width=DESKTOP)
    for number_of_measure, shown in enumerate(Page(reported / "report.html").data["heat-values"]):
        tab.choose("heat-measure", number_of_measure)
        assert tab.texts("#heat td") == [f"{value:,.{shown['digits']}f}" for row in shown["values"] for value in row]
        assert tab.texts("#heat caption")[0].startswith(shown["title"])
        colours = tab.evaluate(
            "[...document.querySelectorAll('#heat td')].map(e => getComputedStyle(e).backgroundColor)"
        )
        greens = [int(re.findall(r"\d+", colour)[1]) for colour in colours]  # the green of viridis rises with the value
        assert greens[int(np.argmax(shown["values"]))] == max(greens)


def test_region_is_chosen_in_the_heat_map_and_shown_on_the_cortex(tab, reported):
    tab.open(reported / "report.html", width=DESKTOP)

    tab.evaluate("[...document.querySelectorAll('#heat a')].find(e => e.textContent === 'V4').click()")
    assert tab.texts(".panel h3") == ["V4"]
    assert tab.evaluate("document.getElementById('region-choice').selectedOptions[0].textContent") == "V4"

    tab.evaluate("[...document.querySelectorAll('[data-region]')].find(e => e.offsetHeight).click()")
    assert tab.evaluate("document.getElementById('cortex-region').selectedOptions[0].textContent") == "V4"


def test_everything_has_a_label_and_is_reached_by_keyboard(tab, reported):
    tab.open(reported / "report.html", width=DESKTOP)
    controls = "[...document.querySelectorAll('select, input, button, canvas, a, summary, .scroll, .sheet')]"
    named = "(e.labels?.length || e.textContent.trim() || e.ariaLabel)"

    assert tab.evaluate(f"{controls}.filter(e => e.tabIndex < 0 || !{named}).map(e => e.outerHTML)") == []
    assert tab.evaluate("[...document.querySelectorAll('th')].every(e => e.scope)")


def test_paper_shows_all_of_a_few_regions_and_both_maps(tab, full_size):
    tab.open(full_size / "report.html", width=720)  # about a page of US Letter without its margins
    tab.choose("cortex-measure", 2)
    tab.call("Emulation.setEmulatedMedia", media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    panels, rows, hidden = tab.texts(".panel h3"), tab.texts("#region-table tbody tr"), tab.texts("nav, select")
    captions = tab.texts("#cortex-print figcaption")
    n_canvases = tab.evaluate("[...document.querySelectorAll('.prints')].map(e => e.querySelectorAll('canvas').length)")
    tab.call("Emulation.setEmulatedMedia", media="")

    assert panels == ["All regions", "V1", "V2", "V4", "IT"]
    assert len(rows) == 4 * 2
    assert hidden == []
    assert captions == ["Regions", "Split-half ceiling"]
    assert n_canvases == [6, 18]  # both subjects have the same regions; and their mean


def test_page_without_scripts_is_whole(tab, reported):
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(reported / "report.html", width=DESKTOP)
        assert tab.texts(".panel h3") == ["All regions", "V1", "V2", "V4", "IT"]
        assert tab.texts("#cortex-view") == []
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize(("width", "medium"), [(DESKTOP, "print"), (PHONE, "screen")])
def test_banner_of_simulated_data_spans_the_top(tab, reported, full_size, width, medium):
    tab.open(reported / "report.html", width=width)
    tab.call("Emulation.setEmulatedMedia", media=medium)
    top, banner_width, page_width = tab.evaluate(
        "(({top, width}) => [top, width, document.documentElement.clientWidth])"
        "(document.querySelector('#simulated').getBoundingClientRect())"
    )
    banner = tab.picture("#simulated")
    tab.call("Emulation.setEmulatedMedia", media="")

    red, green, blue = (np.median(banner[:, :, channel]) for channel in range(3))
    assert red > 100 > 60 > max(green, blue)
    assert (top, banner_width) == (0, page_width)
    assert "These are no measurements." in tab.texts("#simulated")[0]
    assert "Simulated" not in (full_size / "report.html").read_text(encoding="utf-8")


def press(tab, name: str) -> None:
    buttons = "[...document.querySelectorAll('#cortex-buttons button')]"
    tab.evaluate(f"{buttons}.find(b => b.textContent === '{name}').click()")


def is_coloured(pixels: np.ndarray) -> np.ndarray:
    """Return where a picture of the brain is not grey."""
    return np.ptp(pixels[:, :, :3], axis=2) > 30


def extent(mask: np.ndarray) -> tuple[int, int]:
    columns = np.flatnonzero(mask.any(axis=0))
    return int(columns.min()), int(columns.max())


@pytest.mark.parametrize(("side", "lateral_pole"), [("left", "right"), ("right", "left")])
def test_v1_is_drawn_at_the_occipital_pole_of_each_hemisphere(tab, full_size, side, lateral_pole):
    tab.open(full_size / "report.html", width=DESKTOP)
    tab.choose("cortex-measure", -1)
    tab.choose("cortex-region", 0)

    for view, pole in (("Lateral", lateral_pole), ("Medial", side)):  # the front is on opposite sides
        press(tab, view)
        pixels = tab.picture(f"#cortex-{side}")
        start, end = extent(pixels[:, :, :3].min(axis=2) < 245)
        first, last = ((column - start) / (end - start) for column in extent(is_coloured(pixels)))
        assert first > 0.8 if pole == "right" else last < 0.2
    tab.evaluate("document.getElementById('cortex-names').click()")
    without_names = is_coloured(tab.picture(f"#cortex-{side}"))
    assert 10 < (without_names & (pixels[:, :, :3].min(axis=2) > 200)).sum() < 300  # its name in white letters


def test_map_shows_the_planted_noise_ceilings_of_the_chosen_subject_and_region(tab, full_size):
    tab.open(full_size / "report.html", width=DESKTOP)
    press(tab, "Lateral")
    greens, sizes = {}, {}
    for subject, region in ((0, -1), (1, -1), (1, 0)):
        tab.choose("cortex-subject", subject)
        tab.choose("cortex-region", region)
        pixels = tab.picture("#cortex-left")
        greens[subject] = np.median(pixels[:, :, 1][is_coloured(pixels)])
        sizes[region] = is_coloured(pixels).sum()
    # On a scale to 80 %, a noise ceiling of 80 % is yellow, and one of 20 % is dark blue.
    assert greens[0] > 150 > 90 > greens[1]
    assert 0 < sizes[0] < 0.8 * sizes[-1]


def test_pointing_at_a_vertex_names_its_subject_region_and_value(tab, full_size):
    truth = measure(full_size / "planted_test.nc")
    tab.open(full_size / "report.html", width=DESKTOP)
    tab.choose("cortex-measure", 1)
    tab.choose("cortex-subject", 1)
    row, column = (int(np.median(axis)) for axis in np.nonzero(is_coloured(tab.picture("#cortex-right"))))

    point_at(tab, "right", column, row)

    subject, vertex, regions, value = tab.texts("#cortex-readout")[0].split(" · ")
    vertex_index = int(number(re.fullmatch(r"vertex ([\d,]+) of the right hemisphere", vertex)[1]))
    neuroids = truth[(truth.subject == subject) & (truth.hemisphere == "rh") & (truth.vertex_index == vertex_index)]
    assert subject == "subj02"
    assert set(regions.split(" and ")) == set(neuroids.region) != set()
    assert value == f"noise ceiling from test repetitions {neuroids.nc_repetitions.iloc[0]:.1f} %"


def point_at(tab, side: str, column: int, row: int, *, drag: int = 0) -> None:
    """Move the mouse to a point of a hemisphere, and drag it to the right if asked."""
    canvas = f"document.getElementById('cortex-{side}')"
    tab.evaluate(f"{canvas}.scrollIntoView({{block: 'center'}})")
    x, y = tab.evaluate(f"(({{x, y}}) => [x, y])({canvas}.getBoundingClientRect())")
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + column, y=y + row)
    if drag:
        tab.call("Input.dispatchMouseEvent", type="mousePressed", x=x + column, y=y + row, button="left", clickCount=1)
        for type in ("mouseMoved", "mouseReleased"):
            tab.call("Input.dispatchMouseEvent", type=type, x=x + column + drag, y=y + row, button="left", buttons=1)


def test_saved_picture_shows_both_hemispheres_and_the_legend_on_white(tab, full_size, tmp_path):
    tab.open(full_size / "report.html", width=PHONE, scheme="dark")
    press(tab, "Lateral")
    tab.choose("cortex-subject", 2)

    path = tab.download(tmp_path, "#cortex-save")

    assert path.name == "planted_Noise_ceiling_of_all_2_subjects_mean_.png"
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=int)
    assert pixels.shape == (1044, 2400, 3)
    left, right = pixels[60:900, :1200], pixels[60:900, 1200:]
    for hemisphere, other in ((left, right), (right, left)):
        assert 0.1 < (hemisphere.min(axis=2) < 250).mean() < 0.9
        assert is_coloured(hemisphere).sum() == pytest.approx(is_coloured(other).sum(), rel=0.3)
        # On a scale to 80 %, the mean of noise ceilings of 80 % and 20 % is green.
        red, green, blue = np.median(hemisphere[is_coloured(hemisphere)], axis=0)
        assert green > 1.2 * blue > 1.2 * red
    title, legend = pixels[:50], pixels[960:]
    assert all((strip == 255).mean() > 0.8 and (strip == 0).any() for strip in (title, legend))
    assert is_coloured(legend).sum() > 10_000


def test_saved_table_holds_what_is_shown(tab, reported, tmp_path):
    tab.open(reported / "report.html", width=DESKTOP)
    tab.choose("heat-measure", 4)
    tab.choose("region-table-filter", "v1 SUBJ0")
    page = Page(reported / "report.html")
    heat = page.data["heat-values"][4]["values"]
    header, *rows = page.tables["region-table"]
    is_shown = [row[0] == "V1" or row[1] == "all" for row in rows]  # the totals are not filtered
    tab.evaluate("document.querySelectorAll('details').forEach(e => (e.open = true))")
    assert tab.texts("output[for=region-table-filter]") == ["8 of 32 rows"]
    shown = {
        "region-table": [header, *([cell.replace(",", "") for cell in row] for row in compress(rows, is_shown))],
        "heat": [
            page.tables["heat"][0],
            *([name, *(f"{n:.0f}" for n in row)] for name, row in zip(REGION_NAMES, heat, strict=True)),
        ],
        "option-table": page.tables["option-table"],
        "shared-noise-table": [[cell.replace("−", "-") for cell in row] for row in page.tables["shared-noise-table"]],
    }
    for name, expected in shown.items():
        (tmp_path / name).mkdir()
        number_of_table = tab.evaluate(f"[...document.querySelectorAll('table')].findIndex(e => e.id === '{name}')")
        tab.evaluate(f"document.querySelectorAll('.save button')[{number_of_table}].id = 'save-{name}'")

        path = tab.download(tmp_path / name, f"#save-{name}")

        assert path.name == f"Allen2022_fmri_surface_{name}.csv"
        with path.open(newline="", encoding="utf-8") as file:
            assert list(csv.reader(file)) == expected
    assert tab.evaluate("document.querySelectorAll('.save button').length") == len(page.tables)


def test_methods_are_copied_with_their_references(tab, reported):
    tab.open(reported / "report.html", width=DESKTOP)
    tab.evaluate("document.getElementById('methods').closest('details').open = true")
    tab.click("#methods-copy")

    copied = tab.evaluate("getSelection().toString()")
    assert copied.startswith("These data are simulated") and copied.rstrip().endswith("10.1093/cercor/bhu277")
    assert tab.texts("output[for=methods-copy]") == ["copied"]


def test_mouse_and_arrow_keys_turn_the_cortex(tab, full_size):
    tab.open(full_size / "report.html", width=DESKTOP)
    before = {side: tab.picture(f"#cortex-{side}") for side in ("left", "right")}

    point_at(tab, "left", 150, 150, drag=120)
    dragged = {side: tab.picture(f"#cortex-{side}") for side in before}
    tab.evaluate("document.getElementById('cortex-left').focus()")
    for _ in range(4):
        tab.call("Input.dispatchKeyEvent", type="keyDown", key="ArrowRight")
    turned = tab.picture("#cortex-left")

    assert all(np.abs(dragged[side] - before[side]).mean() > 2 for side in before)
    assert np.abs(turned - dragged["left"]).mean() > 2
    assert re.match(r"subj01 · vertex [\d,]+ of the left hemisphere · ", tab.texts("#cortex-readout")[0])


def test_map_has_a_text_alternative(tab, full_size):
    truth = measure(full_size / "planted_test.nc")
    tab.open(full_size / "report.html", width=PHONE)
    for name in ("measure", "subject", "region"):
        tab.choose(f"cortex-{name}", 1)

    shown = truth[(truth.subject == "subj02") & (truth.region == "V2") & (truth.vertex_index < 10_242)]
    values = shown.nc_repetitions.sort_values()
    n_vertices, middle, highest, vertex, side = re.fullmatch(
        r"Noise ceiling from test repetitions of subj02, V2: (\S+) vertices in the map. The median is (\S+) %. "
        r"The highest value is (\S+) %, at vertex (\S+) of the (left|right) hemisphere, in V2.",
        tab.texts("#cortex-summary")[0],
    ).groups()
    assert number(n_vertices) == len(shown)
    assert number(middle) == pytest.approx(values.iloc[len(values) // 2], abs=0.06)
    assert number(highest) == pytest.approx(values.iloc[-1], abs=0.06)
    best = shown.loc[values.index[-1]]
    assert (number(vertex), side[0] + "h") == (best.vertex_index, best.hemisphere)
