"""Is the report whole by itself, true to the result, safe with hostile names, and usable by hand and on a phone?"""

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.toolchain.report.sample import VARIANTS, metric, result, target, variant
from toolchain.pipeline.record import BuildResult
from toolchain.report.write import render, write_report

LIMIT = 1_000_000


class Page(HTMLParser):
    """The attributes and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_needs_nothing_but_itself() -> None:
    html = render(result())
    page = Page(html)
    assert not [(tag, name) for tag, name, _ in page.attributes if name in ("src", "href", "action", "srcset")]
    assert not re.findall(r"url\(|@import|fetch\(|XMLHttpRequest", html)
    assert "default-src 'none'" in html


def test_many_classes_and_targets_stay_below_a_megabyte() -> None:
    size = 300
    matrix = tuple(tuple(40 if row == column else int((row + column) % 50 == 0) for column in range(size)) for row in range(size))
    data = msgspec.structs.replace(result().data, classes=tuple(f"class {index}" for index in range(size)), class_counts={})
    targets = tuple(msgspec.structs.replace(target(f"profile-{index}"), confusion=matrix) for index in range(6))
    assert len(render(result(data=data, targets=targets)).encode()) < LIMIT


def test_the_numbers_of_the_result_are_on_the_page() -> None:
    text = Page(render(result())).text
    for shown in (
        "digits",
        "1.0.0",
        "onnxruntime-int8",
        "0.9889",
        "262 µs",
        "1.57×",
        "104 kB",
        "356 of 360 right",
        "8 read as 1",
    ):
        assert shown in text
    for each in VARIANTS:
        assert each.reason in text


def test_the_json_beside_it_holds_the_same_result(tmp_path: Path) -> None:
    built = result()
    write_report(built, tmp_path / "report.html")
    assert msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=BuildResult) == built
    assert {file.name for file in tmp_path.iterdir()} == {"report.html", "report.json"}


def test_hostile_names_stay_text() -> None:
    evil = '"><script>alert(1)</script>'
    data = msgspec.structs.replace(result().data, classes=(evil, *map(str, range(9))), class_counts={})
    bad = variant(evil, "onnxruntime", "int8", (0.9, 10.0, 1.2, 10), "chosen", evil)
    html = render(result(data=data, targets=(target(variants=(VARIANTS[0], bad)),)))
    assert "<script>alert" not in html
    assert html.count("<script>") == 1


def test_an_unmeasured_target_says_so_and_shows_no_latency() -> None:
    silent = tuple(msgspec.structs.replace(each, latency=None) for each in VARIANTS)
    html = render(result(targets=(target("raspberry-pi-5", silent, measured=False),)))
    text = Page(html).text
    assert "Not measured on a device of this profile" in text
    assert "Its latency was not measured on this host" in text
    assert "Speed against float" not in text
    assert "against latency" not in text


def test_outputs_that_cannot_be_compared_are_not_given_a_number() -> None:
    broken = msgspec.structs.replace(VARIANTS[4].parity, max_abs=-1.0, relative=-1.0, agreement=0.0, ok=False)
    variants = (*VARIANTS[:4], msgspec.structs.replace(VARIANTS[4], parity=broken))
    assert "not comparable" in Page(render(result(targets=(target(variants=variants),)))).text


def test_a_model_that_classifies_nothing_and_was_not_trained() -> None:
    data = msgspec.structs.replace(result().data, classes=(), class_counts={})
    bare = msgspec.structs.replace(target(), confusion=())
    text = Page(render(result(data=data, targets=(bare,), training=None))).text
    assert "Where it errs" not in text
    assert "Loss" not in text


def test_a_single_variant_and_a_single_epoch_can_be_drawn() -> None:
    only = variant("onnxruntime-float32", "onnxruntime", "float32", (1.0, 50.0, 1.0, 1000), "chosen", "the only one")
    training = result().training
    assert training is not None
    short = msgspec.structs.replace(training, history=training.history[:1], best_epoch=0)
    html = render(result(targets=(target(variants=(only,)),), training=short))
    assert "nan" not in re.findall(r'(?:cx|cy|x|y|r)="([^"]*)"', html)


def test_a_metric_where_less_is_better_is_compared_the_right_way_round() -> None:
    worse = msgspec.structs.replace(metric(0.30), name="mae", goal="min")
    better = msgspec.structs.replace(metric(0.25), name="mae", goal="min")
    variants = (
        msgspec.structs.replace(VARIANTS[0], metrics=(better,)),
        msgspec.structs.replace(VARIANTS[3], metrics=(worse,)),
    )
    text = Page(render(result(targets=(target(variants=variants),)))).text
    assert "0.0500 worse than the float model's 0.2500" in text


@pytest.mark.parametrize(
    ("ratio", "claim"),
    [
        (1.5, "1.50× as fast as float"),
        (1.02, "no faster than float, as far as this run can tell"),
        (0.5, "2.00× slower than float"),
    ],
)
def test_no_claim_goes_beyond_its_interval(ratio: float, claim: str) -> None:
    chosen = variant("onnxruntime-int8", "onnxruntime", "int8", (0.98, 100.0, ratio, 1000), "chosen", "x")
    assert claim in Page(render(result(targets=(target(variants=(VARIANTS[0], chosen)),)))).text


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert chromium, "no Chromium here: run `sh requirements/system.sh chromium`"
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.mark.browser
def test_marks_explain_themselves_when_pointed_at(browser: Any, tmp_path: Path) -> None:
    write_report(result(), tmp_path / "report.html")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto((tmp_path / "report.html").as_uri())
    page.hover(".plot .wide circle.mark.chosen >> nth=0")
    tip = page.locator("#tip").inner_text()
    assert tip.splitlines()[0] == "onnxruntime-int8"
    assert "p50 262 µs" in tip
    assert page.locator("tr.lit").count() == 1
    page.click("text=accuracy against size")
    assert page.locator(".pane.second").is_visible()
    page.click(".theme")
    assert page.evaluate("document.documentElement.dataset.theme") in ("light", "dark")
    assert complaints == []
    page.close()


@pytest.mark.browser
@pytest.mark.parametrize("width", [320, 390, 1024])
def test_no_screen_has_to_scroll_sideways(browser: Any, tmp_path: Path, width: int) -> None:
    write_report(result(), tmp_path / "report.html")
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.goto((tmp_path / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.close()
