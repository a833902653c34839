"""Is the report whole by itself, true to the result, and safe with hostile names?"""

import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from tests.toolchain.report.sample import VARIANTS, metric, result, target, tuning, variant
from toolchain.pipeline.record import BuildResult, MetricResult, SliceResult, TuningResult
from toolchain.recipe import MetricSection
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


def test_a_regression_is_told_in_its_own_words() -> None:
    """Less is better, and there are no classes to agree on or to mix up."""

    def turned(found: MetricResult) -> MetricResult:
        return msgspec.structs.replace(found, name="rmse", goal="min")

    variants = tuple(msgspec.structs.replace(each, metrics=tuple(map(turned, each.metrics))) for each in VARIANTS)
    one = target(variants=variants)
    one = msgspec.structs.replace(one, metrics=tuple(map(turned, one.metrics)), confusion=(), slices=())
    data = msgspec.structs.replace(result().data, classes=(), class_counts={})
    recipe = msgspec.structs.replace(result().recipe, metrics=(MetricSection(name="rmse"),))
    html = render(result(data=data, recipe=recipe, targets=(one,)))
    for shown in ("less is better", "limit of the rise", "Rise: paired", "rise against float, test"):
        assert shown in html
    for hidden in ("% agree", "limit of the drop", "drop against", "Where it errs", ">recall<"):
        assert hidden not in html


def test_a_full_report_stays_below_a_megabyte() -> None:
    full = result()
    assert len(full.forms) == 3
    assert len(full.targets[0].variants) == 14
    assert full.tuning is not None
    assert len(full.tuning.trials) == 20
    assert len(render(full).encode()) < LIMIT
    three = tuple(target(f"profile-{index}") for index in range(3))
    assert len(render(result(targets=three)).encode()) < LIMIT


def test_many_classes_and_targets_stay_below_a_megabyte() -> None:
    size = 300
    matrix = tuple(tuple(40 if row == column else int((row + column) % 50 == 0) for column in range(size)) for row in range(size))
    data = msgspec.structs.replace(result().data, classes=tuple(f"class {index}" for index in range(size)), class_counts={})
    slices = tuple(SliceResult(column="class", value=f"class {index}", metric=metric(0.9, "test", 40)) for index in range(size))
    bare = tuple(msgspec.structs.replace(each, profile=None) for each in VARIANTS)
    targets = tuple(
        msgspec.structs.replace(target(f"profile-{index}", bare), confusion=matrix, slices=slices) for index in range(6)
    )
    assert len(render(result(data=data, targets=targets)).encode()) < LIMIT


def test_the_numbers_of_the_result_are_on_the_page() -> None:
    text = Page(render(result())).text
    for shown in (
        "digits",
        "1.0.0",
        "pruned50-openvino-int8",
        "0.9889",
        "88.0 µs",
        "4.68×",
        "34.0 kB",
        "356 of 360 right",
        "8 read as 1",
        "0.0070 worse than the float model (95 % interval 0.0008 – 0.0132, paired over 359 examples)",
        "cannot tell differences of accuracy below 0.0108",
        "1 slice is surely worse than the whole",
        "an equally trained control without the teacher reaches 0.9610",
        "20 trials by tpe for accuracy and latency",
        "2 examples of the test split are also in the training split",
        "--evidence out/digits/1.0.0/x86-64-cpu/evidence.json",
        "12" * 32,
        "34" * 32,
    ):
        assert shown in text
    for each in VARIANTS:
        assert each.reason in text
        assert f"{each.form} · {each.engine} · {each.scheme}" in text
        if each.profile and each.profile.blame:
            assert each.profile.blame in text


def test_the_json_beside_it_holds_the_same_result(tmp_path: Path) -> None:
    built = result()
    write_report(built, tmp_path / "report.html")
    assert msgspec.json.decode((tmp_path / "report.json").read_bytes(), type=BuildResult) == built
    assert {file.name for file in tmp_path.iterdir()} == {"report.html", "report.json"}


def test_hostile_names_stay_text() -> None:
    evil = '"><script>alert(1)</script>'
    data = msgspec.structs.replace(result().data, classes=(evil, *map(str, range(9))), class_counts={})
    bad = variant(evil, "onnxruntime", "int8", (0.9, 10.0, 1.2, 10), "chosen", evil)
    html = render(result(data=data, targets=(target(variants=(VARIANTS[0], bad)),), tuning=hostile_search(evil)))
    assert "<script>alert" not in html
    assert html.count("<script>") == 1
    assert not [value for _, name, value in Page(html).attributes if name.startswith("on")]


def hostile_search(evil: str) -> TuningResult:
    trials = tuple(msgspec.structs.replace(each, settings={evil: evil, "x": 1}) for each in tuning().trials)
    return msgspec.structs.replace(tuning(), trials=trials, sampler=evil, reason=evil)


def test_an_unmeasured_target_says_so_and_shows_no_latency() -> None:
    silent = tuple(msgspec.structs.replace(each, latency=None) for each in VARIANTS)
    html = render(result(targets=(target("raspberrypi5", silent, measured=False),)))
    text = Page(html).text
    assert "Not measured on a device of this profile" in text
    assert "Its latency was not measured on this host" in text
    assert "Speed against float" not in text
    assert "against latency" not in text


def test_outputs_that_cannot_be_compared_are_not_given_a_number() -> None:
    broken = msgspec.structs.replace(VARIANTS[13].parity, max_abs=-1.0, relative=-1.0, agreement=0.0, ok=False)
    variants = (*VARIANTS[:13], msgspec.structs.replace(VARIANTS[13], parity=broken))
    text = Page(render(result(targets=(target(variants=variants),)))).text
    assert "not comparable" in text
    assert "pruned50-onnxruntime-int8-entropy gives outputs too unlike the float model's" in text


def test_a_model_that_classifies_nothing_and_was_not_trained() -> None:
    data = msgspec.structs.replace(result().data, classes=(), class_counts={})
    bare = msgspec.structs.replace(target(), confusion=(), slices=())
    text = Page(render(result(data=data, targets=(bare,), training=None, forms=(), tuning=None))).text
    for absent in ("Where it errs", "Loss", "accuracy by", "Search", "Forms"):
        assert absent not in text


def test_a_single_variant_and_a_single_epoch_can_be_drawn() -> None:
    only = variant("onnxruntime-float32", "onnxruntime", "float32", (1.0, 50.0, 1.0, 1000), "chosen", "the only one")
    training = result().training
    assert training is not None
    short = msgspec.structs.replace(training, history=training.history[:1], best_epoch=0)
    html = render(result(targets=(target(variants=(only,)),), training=short))
    assert "nan" not in re.findall(r'(?:cx|cy|x|y|r)="([^"]*)"', html)


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
