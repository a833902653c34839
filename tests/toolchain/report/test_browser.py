"""Can the report be read by pointing, by keyboard, on a phone and on a wall screen?"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.toolchain.report.sample import result
from toolchain.report.write import write_report

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "no Chromium here: run `sh requirements/system.sh chromium`"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(result(), path)
    return path.as_uri()


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The report on a desk. Whatever it says on the console, or asks of a network, fails the test."""
    opened = browser.new_page(viewport={"width": 1200, "height": 900})
    complaints: list[str] = []
    opened.on("console", lambda message: complaints.append(message.text))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("request", lambda request: complaints.append(request.url) if request.url != address else None)
    opened.goto(address)
    yield opened
    assert complaints == []
    opened.close()


def test_marks_explain_themselves_when_pointed_at(page: Any) -> None:
    page.hover(".plot .wide .mark.chosen[data-key] >> nth=0")
    lines = page.locator("#tip").inner_text().splitlines()
    assert lines[0] == "pruned50-openvino-int8"
    for figure in ("accuracy 0.9819 (0.9681 – 0.9957, validation)", "4.68× float's speed (4.54 – 4.82)"):
        assert figure in lines
    assert "p50 88.0 µs" in page.locator("#tip").inner_text()
    assert page.locator("tr.lit").count() == 1
    page.mouse.move(2, 2)
    assert page.locator("#tip").is_hidden()


def test_the_trade_off_turns_to_size_and_the_page_to_dark(page: Any) -> None:
    page.click("text=accuracy against size")
    assert page.locator(".pane >> nth=1").is_visible()
    assert page.locator(".pane >> nth=0").is_hidden()
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click(".theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before


def test_marks_are_reached_by_keyboard_one_plot_a_stop(page: Any) -> None:
    plot = ".plot .wide >> nth=0"
    assert page.locator(f"{plot} >> [tabindex='0']").count() == 1
    assert page.locator(f"{plot} >> [data-key]").count() == 14
    page.locator(f"{plot} >> [tabindex='0']").focus()
    first = page.locator("#tip").inner_text().splitlines()[0]
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").inner_text().splitlines()[0] != first
    page.keyboard.press("ArrowLeft")
    assert page.locator("#tip").inner_text().splitlines()[0] == first
    page.keyboard.press("Escape")
    assert page.locator("#tip").is_hidden()


def test_a_heading_sorts_the_variants_both_ways(page: Any) -> None:
    names = "table.sortable >> nth=0 >> tbody tr td.what"
    heading = page.locator("th", has_text="float's speed").first
    page.locator("button.sort", has_text="float's speed").focus()
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "ascending"
    assert page.locator(names).first.inner_text().startswith("onnxruntime-int8")
    page.keyboard.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"
    assert page.locator(names).first.inner_text().startswith("pruned50-openvino-int8")


@pytest.mark.parametrize("width", [320, 390, 1024, 2560])
def test_no_screen_has_to_scroll_sideways(browser: Any, address: str, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto(address)
    page.evaluate("document.querySelectorAll('details').forEach((each) => (each.open = true))")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()


def test_all_text_of_the_drawings_stays_inside_its_card(browser: Any, address: str) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(address)
    outside = page.evaluate(
        """[...document.querySelectorAll('.plot text')].filter((each) => {
            const box = each.getBoundingClientRect(), card = each.closest('.card').getBoundingClientRect();
            return box.width && (box.left < card.left - 1 || box.right > card.right + 1);
        }).map((each) => each.textContent)"""
    )
    assert outside == []
    page.close()
