"""The report in headless Chromium."""

import re

import numpy as np
import pytest

from report.reading import Page

WIDTHS = {"desktop": 1280, "phone": 390, "small phone": 360}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", WIDTHS)
def test_browser_shows_the_whole_page_without_errors_or_sideways_scrolling(tab, reported, full_size, device, scheme):
    for path in (reported, full_size):
        tab.open(path / "report.html", width=WIDTHS[device], scheme=scheme)

        assert tab.problems(WIDTHS[device]) == []
        assert tab.evaluate("document.images.length") == len(Page(path / "report.html").pictures) > 100


def test_wide_table_scrolls_inside_its_frame_on_a_phone(tab, reported):
    tab.open(reported / "report.html", width=WIDTHS["phone"])

    frame = "document.querySelector('#region-table').parentElement"
    assert tab.evaluate(f"{frame}.scrollWidth > {frame}.clientWidth")
    assert tab.evaluate(f"getComputedStyle({frame}).overflowX") == "auto"


@pytest.mark.parametrize(
    ("flaw", "expected"),
    [
        ("<script>console.error('oh')</script>", "console: "),
        ("<script>nonsense()</script>", "console: "),
        ("<img src='data:image/png;base64,AAAA' alt='a broken picture'>", "picture: a broken picture"),
        ("<img src='gone.png' alt='a lost picture'>", "picture: a lost picture"),
        ("<div style='width: 1500px'>wide</div>", "scrolls sideways: "),
        ("<img src='http://127.0.0.1:9/picture.png' alt='from afar'>", "network: http://127.0.0.1:9/picture.png"),
    ],
)
def test_browser_check_detects_a_flaw_in_the_page(tab, reported, tmp_path, flaw, expected):
    text = (reported / "report.html").read_text(encoding="utf-8")
    policy = re.search(r'<meta http-equiv="Content-Security-Policy".*>\n', text)[0]
    (tmp_path / "flawed.html").write_text(
        text.replace(policy, "").replace("</main>", f"{flaw}</main>"), encoding="utf-8"
    )

    for width in WIDTHS.values():
        tab.open(tmp_path / "flawed.html", width=width)
        assert any(problem.startswith(expected) for problem in tab.problems(width))


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_page_and_pictures_follow_the_colour_scheme_of_the_reader(tab, reported, scheme, is_dark):
    tab.open(reported / "report.html", width=WIDTHS["desktop"], scheme=scheme)
    box = tab.evaluate(
        "(({x, y, width, height}) => ({x: x + scrollX, y: y + scrollY, width, height}))"
        "(document.querySelector('.panel.current .comparison').getBoundingClientRect())"
    )

    brightness = tab.screenshot(box)[:, :, :3].mean(axis=2)

    page, ink = np.median(brightness), brightness.min() if not is_dark else brightness.max()
    assert (page < 60 and ink > 200) if is_dark else (page > 230 and ink < 60)


def texts_of(tab, selector: str) -> list[str]:
    return tab.evaluate(
        f"[...document.querySelectorAll('{selector}')].filter(e => e.checkVisibility()).map(e => e.textContent)"
    )


def test_header_sorts_a_table_down_up_and_back(tab, reported):
    tab.open(reported / "report.html", width=WIDTHS["desktop"])
    column, header = "#heat td:nth-child(4)", "document.querySelector('#heat th:nth-child(4)')"
    original = texts_of(tab, column)
    orders = []
    for _ in range(3):
        tab.evaluate(f"{header}.querySelector('button').click()")
        orders.append((tab.evaluate(f"{header}.getAttribute('aria-sort')"), texts_of(tab, column)))

    assert orders == [
        ("descending", sorted(original, key=float, reverse=True)),
        ("ascending", sorted(original, key=float)),
        (None, original),
    ]


def test_unknown_values_are_sorted_behind_all_others(tab, reported, tmp_path):
    text = (reported / "report.html").read_text(encoding="utf-8")
    first = re.search(r'<td class="s\d+">([\d.]+)</td>', text)
    (tmp_path / "report.html").write_text(text.replace(first[0], '<td class="s-1">–</td>', 1), encoding="utf-8")
    tab.open(tmp_path / "report.html", width=WIDTHS["desktop"])
    for _ in range(2):
        tab.evaluate("document.querySelector('#heat th:nth-child(2) button').click()")
        assert texts_of(tab, "#heat td:nth-child(2)")[-1] == "–"


def test_filter_keeps_the_rows_with_all_words(tab, reported):
    tab.open(reported / "report.html", width=WIDTHS["desktop"])
    tab.evaluate("document.querySelectorAll('details').forEach(e => (e.open = true))")

    tab.evaluate(
        "(input => { input.value = 'v1 SUBJ0'; input.dispatchEvent(new Event('input')) })"
        "(document.getElementById('region-table-filter'))"
    )

    assert texts_of(tab, "#region-table tbody th:first-child") == ["V1"] * 8
    assert texts_of(tab, "output[for=region-table-filter]") == ["8 of 32 rows"]


def test_heat_map_shows_the_chosen_measure(tab, reported):
    measures = Page(reported / "report.html").data["heat-values"]
    tab.open(reported / "report.html", width=WIDTHS["desktop"])
    for number, measure in enumerate(measures):
        tab.evaluate(
            f"(select => {{ select.value = {number}; select.dispatchEvent(new Event('change')) }})"
            "(document.getElementById('heat-measure'))"
        )
        cells = texts_of(tab, "#heat td")
        assert cells == [f"{value:,.{measure['digits']}f}" for row in measure["values"] for value in row]
        colours = tab.evaluate(
            "[...document.querySelectorAll('#heat td')].map(e => getComputedStyle(e).backgroundColor)"
        )
        largest = int(np.argmax(measure["values"]))
        assert luminance(colours[largest]) == max(map(luminance, colours))
        assert texts_of(tab, "#heat caption")[0].startswith(measure["title"])


def luminance(colour: str) -> float:
    return float(np.array([int(n) for n in re.findall(r"\d+", colour)[:3]]) @ [0.2126, 0.7152, 0.0722])


def test_region_can_be_chosen_by_its_name_in_the_heat_map_and_shown_on_the_cortex(tab, reported):
    tab.open(reported / "report.html", width=WIDTHS["desktop"])

    tab.evaluate("[...document.querySelectorAll('#heat a')].find(e => e.textContent === 'V4').click()")
    assert texts_of(tab, ".panel h3") == ["V4"]
    assert tab.evaluate("document.getElementById('region-choice').selectedOptions[0].textContent") == "V4"

    tab.evaluate("[...document.querySelectorAll('[data-region]')].find(e => e.offsetHeight).click()")
    assert tab.evaluate("document.getElementById('cortex-region').selectedOptions[0].textContent") == "V4"


def test_navigation_stays_in_sight_and_marks_the_section(tab, reported):
    tab.open(reported / "report.html", width=WIDTHS["desktop"])
    for link in ("repetitions", "made", "regions"):
        tab.evaluate(f"document.querySelector('nav a[href=\"#{link}\"]').click()")
        tab.evaluate("new Promise(done => setTimeout(() => done(0), 200))")
        assert tab.evaluate("document.querySelector('nav').getBoundingClientRect().top") == 0
        assert tab.evaluate("document.querySelector('nav [aria-current]').hash") == f"#{link}"


def test_everything_that_works_by_mouse_works_by_keyboard(tab, reported):
    tab.open(reported / "report.html", width=WIDTHS["desktop"])
    unlabelled = tab.evaluate(
        "[...document.querySelectorAll('select, input, button, canvas, a, summary, [role=region]')]"
        ".filter(e => !(e.labels?.length || e.textContent.trim() || e.ariaLabel)).map(e => e.outerHTML)"
    )
    unreachable = tab.evaluate(
        "[...document.querySelectorAll('select, input, button, canvas, a, summary, .scroll, .sheet')].filter(e => e.tabIndex < 0)"
        ".map(e => e.outerHTML)"
    )
    assert unlabelled == unreachable == []
    assert tab.evaluate("[...document.querySelectorAll('th')].every(e => e.scope)")
    tab.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert tab.evaluate("document.activeElement.className") == "skip"


def test_paper_shows_folded_tables_and_all_of_a_few_regions(tab, reported):
    tab.open(reported / "report.html", width=760)
    tab.call("Emulation.setEmulatedMedia", media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")

    assert texts_of(tab, ".panel h3") == ["All regions", "V1", "V2", "V4", "IT"]
    assert len(texts_of(tab, "#region-table tbody tr")) == 32
    assert texts_of(tab, "nav") == texts_of(tab, "select") == []
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    tab.call("Emulation.setEmulatedMedia", media="")
    assert texts_of(tab, "#region-table tbody tr") == []


def test_paper_has_charts_beside_tables_and_headers_that_repeat(tab, reported):
    tab.open(reported / "report.html", width=720)  # about a page of US Letter without its margins
    tab.call("Emulation.setEmulatedMedia", media="print")
    boxes = tab.evaluate(
        "[...document.querySelectorAll('.plots')].map(plot => [plot.querySelector('table'), plot.querySelector('svg.comparison')]"
        ".map(e => { const {left, right} = e.getBoundingClientRect(); return [left, right] }))"
    )
    # Chromium repeats a header on each page only if it does not break, and leaves buttons out.
    headers = tab.evaluate(
        "[...document.querySelectorAll('thead')].map(e => [getComputedStyle(e).display, getComputedStyle(e).breakInside])"
    )
    buttons = tab.evaluate("[...document.querySelectorAll('.sort')].map(e => getComputedStyle(e).display)")
    tab.call("Emulation.setEmulatedMedia", media="")

    assert len(boxes) == 5
    for (_, table_end), (chart_start, chart_end) in boxes:
        assert table_end < chart_start < chart_end - 100
        assert chart_end <= 720
    assert set(map(tuple, headers)) == {("table-header-group", "avoid")}
    assert set(buttons) == {"contents"}


def test_page_without_scripts_is_whole(tab, reported, tmp_path):
    text = (reported / "report.html").read_text(encoding="utf-8")
    (tmp_path / "report.html").write_text(re.sub(r"script-src '[^']+'", "script-src 'none'", text), encoding="utf-8")
    tab.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        tab.open(tmp_path / "report.html", width=WIDTHS["desktop"])
        assert texts_of(tab, ".panel h3") == ["All regions", "V1", "V2", "V4", "IT"]
        assert texts_of(tab, "#cortex-view") == []
    finally:
        tab.call("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("medium", ["screen", "print"])
@pytest.mark.parametrize("device", WIDTHS)
def test_banner_of_simulated_data_spans_the_top_on_screen_and_on_paper(tab, reported, device, medium):
    tab.open(reported / "report.html", width=WIDTHS[device])
    tab.call("Emulation.setEmulatedMedia", media=medium)
    box = tab.evaluate(
        "(({x, y, width, height}) => ({x, y, width, height, page: document.documentElement.clientWidth}))"
        "(document.querySelector('#simulated').getBoundingClientRect())"
    )
    page_width = box.pop("page")

    red, green, blue = (np.median(tab.screenshot(box)[:, :, channel]) for channel in range(3))

    tab.call("Emulation.setEmulatedMedia", media="")
    assert (box["x"], box["y"]) == (0, 0)
    assert box["width"] == page_width
    assert red > 100 > 60 > max(green, blue)
