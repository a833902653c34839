"""Numbers and times as people read them."""

import pytest

from fleet.dashboard.views import wording

THIN = "\u2009"


@pytest.mark.parametrize(("seconds", "text"), [
    (None, "–"), (0, "0 s"), (-3, "0 s"), (59.9, "59 s"), (60, "1 min"), (61, "1 min 1 s"), (3600, "1 h"),
    (7_500, "2 h 5 min"), (3_601, "1 h"), (90_061, "1 d 1 h"),
])  # fmt: skip
def test_duration(seconds: float | None, text: str) -> None:
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("age", "text"), [(0, "just now"), (-5, "just now"), (59, "59 s ago"), (119, "1 min ago"), (172_800, "2 d ago")]
)
def test_ago(age: float, text: str) -> None:
    assert wording.ago(1000.0 - age, 1000.0) == text


@pytest.mark.parametrize(("ratio", "text"), [(None, "–"), (0, "0.0 %"), (0.0004, "< 0.1 %"), (0.5, "50.0 %"), (1, "100.0 %")])
def test_percent(ratio: float | None, text: str) -> None:
    assert wording.percent(ratio) == text


@pytest.mark.parametrize(("ns", "text"), [
    (None, "–"), (300, "300 ns"), (16_000, "16.0 µs"), (944_000, "944 µs"), (5_000_000, "5.00 ms"), (2.5e9, "2.50 s"),
])  # fmt: skip
def test_latency(ns: float | None, text: str) -> None:
    assert wording.latency(ns) == text


@pytest.mark.parametrize(("value", "text"), [
    (0, "0"), (0.0389, "0.039"), (0.5, "0.500"), (1.54, "1.54"), (12.34, "12.3"), (1234.5, f"1{THIN}230"), (-2.0, "-2.00"), (4e-6, "4.0e-06"),
])  # fmt: skip
def test_significant(value: float, text: str) -> None:
    assert wording.significant(value) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "–"),
        (0, "0 B"),
        (1023, f"1{THIN}020 B"),
        (2048, "2.00 KiB"),
        (3 * 2**30, "3.00 GiB"),
        (5 * 2**50, f"5{THIN}120 TiB"),
    ],
)
def test_size(size: float | None, text: str) -> None:
    assert wording.size(size) == text


@pytest.mark.parametrize(
    ("text", "short"),
    [("4.00/s", "4/s"), ("2.50 ms", "2.5 ms"), ("0.05 %", "0.05 %"), ("100 %", "100 %"), ("0.500", "0.5"), ("10.01", "10.01")],
)
def test_ticks_lose_their_zeros(text: str, short: str) -> None:
    assert wording.without_zeros(text) == short


def test_counts_are_grouped_and_agree_with_their_noun() -> None:
    assert wording.count(300_000) == f"300{THIN}000"
    assert wording.plural(1, "device") == "1 device"
    assert wording.plural(0, "device") == "0 devices"
    assert wording.plural(2, "entry", "entries") == "2 entries"
