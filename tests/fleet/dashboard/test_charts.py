"""Chart geometry against values worked out by hand."""

import re

import pytest

from fleet.dashboard import charts


def numbers(path: str) -> list[float]:
    return [float(part) for part in re.findall(r"-?\d+(?:\.\d+)?", path)]


@pytest.mark.parametrize(("highest", "ticks"), [
    (0.0, [0, 1]),
    (1.0, [0, 0.5, 1]),
    (3.0, [0, 1, 2, 3]),
    (3.1, [0, 2, 4]),
    (7.0, [0, 2.5, 5, 7.5]),
    (0.0123, [0, 0.005, 0.01, 0.015]),
    (980, [0, 500, 1000]),
    (float("inf"), [0, 1]),
])  # fmt: skip
def test_ticks_are_round_and_reach_the_highest_value(highest: float, ticks: list[float]) -> None:
    assert charts.round_ticks(highest) == pytest.approx(ticks)


def test_plot_places_points_between_zero_and_the_top_tick() -> None:
    series = charts.Series("rate", "series-1", [(0, 0), (50, 1), (100, 2)], filled=True)
    plot = charts.plot("Rate", [series], span=(0, 100), label_x=str, label_y=str)
    assert numbers(plot.lines[0].path) == [0, 120, 300, 60, 600, 0]
    assert plot.lines[0].area.endswith("L600.0 120Z")
    assert plot.lines[0].last == "2"
    assert plot.y_ticks == ("2.0", "1.0", "0.0")
    assert plot.grid == (0, 60, 120)
    assert [row[0] for row in plot.readout] == [0, 50, 100]


def test_gap_breaks_the_line_and_a_lone_point_stays_visible() -> None:
    series = charts.Series("x", "", [(0, 1), (10, 1), (20, None), (30, 1), (40, None), (50, 1), (60, 1)])
    path = charts.plot("x", [series], span=(0, 60), label_x=str, label_y=str).lines[0].path
    assert path.count("M") == 3
    assert numbers(path.split("M")[2])[2] - numbers(path.split("M")[2])[0] == 2


def test_plot_without_points_is_an_empty_frame() -> None:
    plot = charts.plot(
        "x", [charts.Series("x", "", [])], span=(0, 10), label_x=str, label_y=str, marks=[(5, "here", "busy"), (11, "no", "ok")]
    )
    assert plot.lines[0].path == ""
    assert plot.lines[0].last == "–"
    assert [(mark.x, mark.label) for mark in plot.marks] == [(300, "here")]


def test_histogram_shares_one_scale_and_names_its_cells() -> None:
    shown = charts.histogram([1, 1, 1, 1], [0, 0, 0, 8], edges=[-1.0, 0.0, 1.0])
    assert [bar.height for bar in shown.bars] == [0, 0, 0, charts.HISTOGRAM_HEIGHT]
    assert numbers(shown.reference)[2] == pytest.approx(charts.HISTOGRAM_HEIGHT * 0.75)
    assert shown.bars[0].label == "−∞ to -1: 0.0% now, 25.0% reference"
    assert shown.bars[3].label.startswith("1 to ∞: 100.0% now")
    assert shown.top == "100.0%"


def test_histogram_of_nothing_draws_nothing() -> None:
    shown = charts.histogram([0] * 32, [0] * 32)
    assert shown.reference == ""
    assert {bar.height for bar in shown.bars} == {0}


def test_gauge_keeps_order_and_leaves_room() -> None:
    placed = charts.gauge(value=0.3, low=0.01, high=0.05, limit=0.06)
    assert 0 < placed.low < placed.high < placed.limit < placed.value < 100
    assert placed.limit / placed.value == pytest.approx(0.2)


def test_segments_fill_the_whole() -> None:
    parts = charts.segments([("a", 3, "series-1"), ("b", 1, "series-2")])
    assert [(part.start, part.width) for part in parts] == [(0, 75), (75, 25)]
    assert charts.segments([]) == ()


def test_intervals_share_an_axis_that_holds_no_difference() -> None:
    slow, fast = charts.intervals([(0.7, 0.75, 0.8), (1.4, 1.5, 1.6)])
    assert 0 < slow.low < slow.value < slow.high < slow.even == fast.even < fast.low < fast.high < 100
    assert charts.intervals([]) == []


def test_sparkline_scales_to_its_own_top() -> None:
    line = charts.sparkline([0, 2, 4])
    assert numbers(line.path) == [0, 22.5, 60, 12, 120, 1.5]
