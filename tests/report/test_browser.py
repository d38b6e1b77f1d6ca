"""The report in headless Chromium."""

import re

import numpy as np
import pytest

from report.reading import Page

WIDTHS = {"desktop": 1280, "phone": 360}


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
        "(document.querySelector('#noise-ceilings ~ .plots img').getBoundingClientRect())"
    )

    brightness = tab.screenshot(box)[:, :, :3].mean(axis=2)

    page, ink = np.median(brightness), brightness.min() if not is_dark else brightness.max()
    assert (page < 60 and ink > 200) if is_dark else (page > 230 and ink < 60)


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
