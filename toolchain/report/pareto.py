"""Which variants give the best quality for their latency or size?"""

from collections.abc import Sequence

import msgspec
from markupsafe import Markup

from toolchain.pipeline.record import MetricResult, TargetResult, VariantResult
from toolchain.report import wording
from toolchain.report.marks import series, sides_of, variant_mark
from toolchain.report.svg import (
    BOLD_LETTER,
    NAME_LETTER,
    NARROW,
    WIDE,
    Frame,
    Scale,
    axes,
    circle,
    drawing,
    line,
    padded,
    polyline,
    responsive,
    text,
)

LOG_FROM = 4.0
"""Values that differ more than this go on a log axis: halving is then as far everywhere."""
RADIUS = 7.0


class Point(msgspec.Struct, frozen=True):
    """A variant's place. cost: what the horizontal axis shows, ns or bytes."""

    variant: VariantResult
    cost: float

    @property
    def metric(self) -> MetricResult:
        return self.variant.metrics[0]


def trade_off(target: TargetResult, across: str, limits: tuple[float | None, float | None]) -> Markup | None:
    """Metric against latency or size with the front of what passed. None where nothing was measured.

    across: "latency" or "size"; limits: the recipe's, on the cost and on the metric's value, drawn where they are in sight.
    """
    points = [Point(variant, cost) for variant in target.variants if variant.metrics and (cost := _cost(variant, across))]
    if not points:
        return None
    costs = [point.cost for point in points]
    most, least_metric = limits
    if most and min(costs) / LOG_FROM < most < max(costs) * LOG_FROM:
        costs.append(most)
    bounds = metric_bounds(points, least_metric)
    best = {point.variant.name for point in front(points)}

    def draw(width: float) -> str:
        frame = Frame(width, 440 if width > NARROW else 380, left=52)
        x, y = _cost_scale(costs, frame), Scale(*bounds, *frame.y)
        parts = axes(frame, x, y, wording.latency_tick if across == "latency" else wording.size_tick, wording.plain_tick)
        named = f"limit of the {wording.worsening(points[0].variant.metrics)}"
        parts += _limits(frame, x, y, most if most in costs else None, (least_metric, named))
        parts += _front(points, frame, x, y)
        parts += _marks(target, points, frame, (x, y), best)
        caption = "latency, median of one inference" if across == "latency" else "size of the model file"
        parts.append(text(sum(frame.x) / 2, frame.height - 6, caption + (", log scale" if x.is_log else ""), "caption", "middle"))
        return drawing(frame, parts)

    return responsive(draw, f"{points[0].metric.name} against {across} of {len(points)} variants for {target.target}", WIDE)


def front(points: Sequence[Point]) -> list[Point]:
    """Those that passed and that no other one beats at both, cheapest first. Equal ones are all on it."""
    passed = [point for point in points if point.variant.verdict != "rejected"]
    found: list[Point] = []
    for point in sorted(passed, key=lambda each: (each.cost, -_goodness(each))):
        if not found or _goodness(point) > _goodness(found[-1]) or _same(point, found[-1]):
            found.append(point)
    return found


def metric_bounds(points: Sequence[Point], limit: float | None) -> tuple[float, float]:
    """Range of the metric's axis: all that passed with their intervals, and rejected ones unless they would flatten the rest."""
    passed = [point.metric for point in points if point.variant.verdict != "rejected"] or [point.metric for point in points]
    low, high = min(each.low for each in passed), max(each.high for each in passed)
    room = (high - low) or abs(high) * 0.1 or 1.0
    values = [low, high, *(point.metric.value for point in points if low - room <= point.metric.value <= high + room)]
    if limit is not None and low - room <= limit <= high + room:
        values.append(limit)
    return padded(values, 0.06)


def _cost(variant: VariantResult, across: str) -> float:
    if across == "size":
        return float(variant.size_bytes)
    return float(variant.latency.p50_ns) if variant.latency else 0.0


def _goodness(point: Point) -> float:
    return point.metric.value * (1 if point.metric.goal == "max" else -1)


def _same(one: Point, other: Point) -> bool:
    return one.cost == other.cost and one.metric.value == other.metric.value


def _cost_scale(costs: Sequence[float], frame: Frame) -> Scale:
    if max(costs) / min(costs) > LOG_FROM:
        return Scale(min(costs) / 1.2, max(costs) * 1.2, *frame.x, is_log=True)
    return Scale(0, max(costs) * 1.08, *frame.x)


def _limits(frame: Frame, x: Scale, y: Scale, most: float | None, of_metric: tuple[float | None, str]) -> list[str]:
    """The recipe's limits, dashed and named. of_metric: the value with its name."""
    metric, named = of_metric
    bottom, top = frame.y
    left, right = frame.x
    parts = []
    if most:
        parts += [line(x(most), bottom, x(most), top, "limit"), text(x(most) - 6, top + 11, "limit", "note", "end")]
    if metric is not None and y.low <= metric <= y.high:
        parts += [
            line(left, y(metric), right, y(metric), "limit"),
            text(right, y(metric) + 15, named, "note", "end"),
        ]
    return parts


def _front(points: Sequence[Point], frame: Frame, x: Scale, y: Scale) -> list[str]:
    """Steps: what quality is to be had at a cost. They run on to the right, where more cost buys nothing."""
    found = front(points)
    if len(found) < 2:
        return []
    corners = [(x(found[0].cost), y(found[0].metric.value))]
    for point in found[1:]:
        corners += [(x(point.cost), corners[-1][1]), (x(point.cost), y(point.metric.value))]
    corners.append((frame.x[1], corners[-1][1]))
    return [polyline(corners, "front")]


def _marks(target: TargetResult, points: Sequence[Point], frame: Frame, scales: tuple[Scale, Scale], best: set[str]) -> list[str]:
    """Whiskers, then marks from left to right (the order of the keyboard), then names beside them."""
    x, y = scales
    sides = sides_of([variant.form for variant in target.variants])
    whiskers, marks, labels = [], [], []
    for point in sorted(points, key=lambda each: each.cost):
        variant, metric, at = point.variant, point.metric, x(point.cost)
        inside = y.low <= metric.value <= y.high
        height = y(metric.value) if inside else frame.y[0] - RADIUS - 3 if metric.value < y.low else frame.y[1] + RADIUS
        if inside:
            ends = max(metric.low, y.low), min(metric.high, y.high)
            whiskers.append(line(at, y(ends[0]), at, y(ends[1]), f"whisker {series(variant.engine)}"))
        if variant.verdict == "chosen":
            marks.append(circle(at, height, RADIUS + 6, f"halo {series(variant.engine)}"))
        marks.append(variant_mark(target, variant, (at, height), RADIUS, sides[variant.form]))
        note = "" if inside else f" {wording.quality(metric.value)} {'↓' if metric.value < y.low else '↑'}"
        labels.append((at, height, variant, note))
    wanted = [
        label for label in labels if frame.width > NARROW or label[2].verdict == "chosen" or label[3] or label[2].name in best
    ]
    return whiskers + marks + _names(wanted, [(at, height) for at, height, *_ in labels], frame)


def _names(marks: list[tuple[float, float, VariantResult, str]], places: list[tuple[float, float]], frame: Frame) -> list[str]:
    """A name beside its mark wherever it covers no mark and no other name; else none: the table and the tip have it."""
    parts: list[str] = []
    taken = [(at - RADIUS, at + RADIUS, middle, RADIUS) for at, middle in places]
    rank = {"chosen": 0, "passed": 1, "rejected": 2}
    for at, middle, variant, note in sorted(marks, key=lambda mark: rank[mark[2].verdict]):
        label, is_chosen = variant.name + note, variant.verdict == "chosen"
        width = (BOLD_LETTER if is_chosen else NAME_LETTER) * len(label)
        gap = RADIUS + (9 if is_chosen else 5)
        centred = min(max(at - width / 2, frame.left), frame.width - width - 2)
        near = [
            (at + gap, middle),
            (at - gap - width, middle),
            (centred, middle - gap - 7),
            (centred, middle + gap + 7),
            (at + 8, middle - gap - 7),
            (at + 8, middle + gap + 7),
            (at - 8 - width, middle - gap - 7),
            (at - 8 - width, middle + gap + 7),
        ]
        if is_chosen:  # never without its name, however crowded
            near += [(centred, middle + way * (gap + 7 + 14 * step)) for step in range(1, 6) for way in (1, -1)]
        free = next((place for place in near if _is_free(place, width, taken, frame)), None)
        if free is None:
            continue
        taken.append((free[0], free[0] + width, free[1], 7))
        parts.append(text(free[0], free[1] + 4, label, f"name {variant.verdict}"))
    return parts


def _is_free(place: tuple[float, float], width: float, taken: list[tuple[float, float, float, float]], frame: Frame) -> bool:
    """taken: boxes as (left, right, middle, half their height)."""
    start, y = place
    inside = start >= frame.left - 2 and start + width <= frame.width and 6 < y <= frame.y[0]
    return inside and not any(
        abs(y - other) < half + 7 and start < end + 3 and begin - 3 < start + width for begin, end, other, half in taken
    )
