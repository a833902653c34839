"""Does the comparison of two versions say what changed, and call nothing better that its intervals do not carry?"""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runtime.contract.artifact import LatencyEvidence, Lineage, Manifest, Metric, VariantEvidence
from runtime.contract.canonical import sha256_hex, write_json
from tests.toolchain.package.conftest import make_artifact
from tests.toolchain.report.sample import result, target
from toolchain.package.compare import Comparison, Figure, compare, judge, unmatched
from toolchain.package.read import read_artifact, read_release
from toolchain.report.versions import change_text, figure_text, render_comparison


def version(
    folder: Path, name: str, *, accuracy: str = "0.98", ratio: str = "1.50", report: dict[str, Any] | None = None
) -> Path:
    """A whole artifact with one metric and one measured variant; accuracy +- 0.01, ratio +- 0.05; report: changes to its recipe."""
    path = make_artifact(folder, version=name, content=b"m" * (100 if name == "1.0.0" else 80))
    metric = Metric(
        name="accuracy", goal="max", value=Decimal(accuracy), split="test", n=400,
        interval=(Decimal(accuracy) - Decimal("0.01"), Decimal(accuracy) + Decimal("0.01")),
    )  # fmt: skip
    lineage = Lineage(recipe=sha256_hex(name.encode()), data="2" * 64, code="3" * 64, lock="4" * 64, seeds=(7,))
    raw = change(path / "manifest.json", metrics=[metric], lineage=lineage, variant="onnxruntime-int8")
    msgspec.json.decode(raw, type=Manifest)
    latency = LatencyEvidence(
        p50_ns=100_000, p90_ns=120_000, p99_ns=150_000, mean_ns=101_000, samples=500, threads=1, batch=1, ratio=Decimal(ratio),
        ratio_interval=(Decimal(ratio) - Decimal("0.05"), Decimal(ratio) + Decimal("0.05")),
    )  # fmt: skip
    variant = VariantEvidence(
        name="onnxruntime-int8", engine="onnxruntime", size_bytes=5, latency=latency, verdict="chosen", reason="x"
    )
    change(path / "evidence.json", manifest_sha256=sha256_hex(raw), variants=[variant])
    if report is not None:
        write_report_of(path, raw, report)
    return path


def change(path: Path, **fields: Any) -> bytes:
    document = json.loads(path.read_bytes()) | {
        name: json.loads(write_json(value))
        if isinstance(value, msgspec.Struct)
        else [json.loads(write_json(each)) for each in value]
        if isinstance(value, list)
        else value
        for name, value in fields.items()
    }
    path.write_text(json.dumps(document, sort_keys=True))
    return path.read_bytes()


def write_report_of(artifact: Path, manifest: bytes, changes: dict[str, Any]) -> None:
    """The report.json a build leaves in the release directory, with some keys of its recipe changed."""
    own = msgspec.structs.replace(target(), manifest_sha256=sha256_hex(manifest))
    document = json.loads(msgspec.json.encode(result(targets=(own,))))
    document["recipe"]["train"] |= changes
    document["environment"]["torch"] = f"2.15.{len(changes)}"
    document["targets"][0]["variants"][3]["scheme"] = "int8" if not changes else "int8-percentile"
    for stage in document["stages"][1:9] if changes else []:
        stage["key"] = "f" * 64
    (artifact.parent / "report.json").write_text(json.dumps(document))


def compared(before: Path, after: Path) -> Comparison:
    return compare(read_artifact(before), read_artifact(after))


def figure(found: Comparison, name: str) -> Figure:
    return next(each for each in found.figures if each.name == name)


@pytest.mark.parametrize(
    ("accuracy", "verdict"), [("0.98", "same"), ("0.99", "not resolvable"), ("0.995", "better"), ("0.96", "worse")]
)
def test_a_metric_is_better_only_beyond_both_intervals(tmp_path: Path, accuracy: str, verdict: str) -> None:
    found = compared(version(tmp_path, "1.0.0"), version(tmp_path, "1.1.0", accuracy=accuracy))
    assert figure(found, "test accuracy").verdict == verdict


def test_a_goal_of_less_turns_the_verdict_round() -> None:
    before, after = (1.0, (0.9, 1.1)), (0.5, (0.4, 0.6))
    assert judge(before, after, is_more_better=False) == "better"
    assert judge(before, after, is_more_better=True) == "worse"
    assert judge((1.0, None), (9.0, None), is_more_better=True) == "not resolvable"


def test_latencies_of_two_builds_are_shown_and_not_judged(tmp_path: Path) -> None:
    before, after = version(tmp_path, "1.0.0"), version(tmp_path, "1.1.0", ratio="1.80")
    evidence = json.loads((after / "evidence.json").read_bytes())
    evidence["variants"][0]["latency"]["p50_ns"] = 60_000
    (after / "evidence.json").write_text(json.dumps(evidence))
    found = compared(before, after)
    assert figure(found, "p50").verdict == "not resolvable"
    assert "measure side by side with `toolchain bench`" in figure(found, "p50").note
    assert change_text(figure(found, "p50")) == "-40.0 %, not resolvable"
    assert figure(found, "speed against float").verdict == "better"
    assert figure_text(figure(found, "speed against float"), 1.8, (1.75, 1.85)) == "1.80× (1.75× to 1.85×)"


def test_size_needs_no_interval(tmp_path: Path) -> None:
    found = compared(version(tmp_path, "1.0.0"), version(tmp_path, "1.1.0"))
    assert figure(found, "model file").verdict == "better"
    assert change_text(figure(found, "model file")) == "-20.0 %, better"


def test_the_recipe_is_compared_key_by_key_where_the_reports_have_it(tmp_path: Path) -> None:
    found = compared(
        version(tmp_path, "1.0.0", report={}), version(tmp_path, "1.1.0", report={"epochs": 20, "augment": "f.py:f"})
    )
    rows = {each.field: (each.section, each.before, each.after) for each in found.differences}
    (stages,) = [each for each in found.differences if each.field == "stages"]
    assert rows["train.epochs"] == ("recipe", "15", "20")
    assert rows["train.augment"] == ("recipe", "", "f.py:f")
    assert "train.seed" not in rows
    assert rows["torch"] == ("lineage", "2.15.0", "2.15.2")
    assert rows["scheme"] == ("model", "int8", "int8-percentile")
    assert stages.after == "8 with another key"
    assert stages.change.startswith("train, convert to onnx, make pruned50")
    assert stages.change.endswith("and 2 more")
    assert figure(found, "drop against float, test").verdict == "same"
    assert found.notes == ()


@pytest.mark.parametrize("damage", ["absent", "broken", "of another build"])
def test_a_report_that_does_not_fit_is_not_believed(tmp_path: Path, damage: str) -> None:
    before, after = version(tmp_path, "1.0.0", report={}), version(tmp_path, "1.1.0", report={"epochs": 20})
    path = after.parent / "report.json"
    if damage == "absent":
        path.unlink()
    elif damage == "broken":
        path.write_text("{")
    else:
        path.write_text((before.parent / "report.json").read_text())
    found = compared(before, after)
    assert not [each for each in found.differences if each.section == "recipe"]
    assert [note for note in found.notes if str(path) in note]


def test_targets_only_one_release_has_are_named(tmp_path: Path) -> None:
    version(tmp_path, "1.0.0")
    make_artifact(tmp_path, target="raspberrypi5")
    version(tmp_path, "1.1.0")
    releases = (read_release(tmp_path / "digits" / name) for name in ("1.0.0", "1.1.0"))
    assert unmatched(*releases) == ["only digits 1.0.0 has raspberrypi5"]


def test_the_page_holds_every_difference_and_needs_nothing_else(tmp_path: Path) -> None:
    evil = '<script>alert("x")</script>'
    found = compared(
        version(tmp_path, "1.0.0", report={}), version(tmp_path, "1.1.0", accuracy="0.995", report={"augment": evil})
    )
    html = render_comparison([found], ["only digits 1.0.0 has raspberrypi5"])
    assert "default-src 'none'" in html
    assert "<script>alert" not in html
    for shown in ("digits 1.0.0", "digits 1.1.0", "train.augment", "+0.0150, better", "Only digits 1.0.0 has raspberrypi5."):
        assert shown in html
    assert html.count("<svg") == 2 * 3  # accuracy, drop and speed have intervals; each drawn for wide and for narrow screens
    assert len(html.encode()) < 200_000
