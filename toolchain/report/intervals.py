"""How sure is a figure? One row each: a mark at the value and a line over its 95 % interval, on a common axis."""

from collections.abc import Callable, Sequence

import msgspec
from markupsafe import Markup

from toolchain.pipeline.record import MetricResult, SliceResult, TargetResult
from toolchain.report import wording
from toolchain.report.svg import (
    HALF,
    WIDE,
    Frame,
    Scale,
    axes,
    clipped,
    drawing,
    line,
    padded,
    rectangle,
    responsive,
    shape,
    text,
)

ROW = 34
FIGURE = 66.0
"""Room for a row's figure at the right, beside the plot and not over it."""
MOST_SLICES = 24


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """One row. figure: the value in words, at the right; key: of the table row that explains it, else tip does."""

    label: str
    figure: str
    value: float
    low: float
    high: float
    css: str = "s1"
    sides: int = 0
    key: str = ""
    tip: tuple[str, ...] = ()


Line = tuple[float, str, str]
"""A value every row is compared with: where, CSS class, name."""


def interval_rows(
    rows: Sequence[Interval],
    label: str,
    *,
    marks: Sequence[Line] = (),
    band: tuple[float, float] | None = None,
    is_log: bool = False,
    tick: Callable[[float], str] = wording.plain_tick,
    wide: float = HALF,
) -> Markup:
    """band: values between which nothing can be told apart, shaded. Lines of `marks` are drawn through all rows."""
    values = [each for row in rows for each in (row.low, row.high)] + [value for value, *_ in marks] + list(band or ())
    low, high = padded(values, 0.04)
    if is_log:
        low, high = min(values) * 0.93, max(values) * 1.07
    named = any(name for *_, name in marks)

    def draw(width: float) -> str:
        frame = Frame(width, (52 if named else 36) + ROW * len(rows), left=12, right=FIGURE, top=22 if named else 6, bottom=28)
        x = Scale(low, high, *frame.x, is_log=is_log)
        bottom, top = frame.y
        parts = [rectangle(x(band[0]), top, x(band[1]) - x(band[0]), bottom - top, css="band")] if band else []
        parts += axes(frame, x, None, tick)
        for value, css, name in marks:
            anchor = "end" if x(value) > frame.width * 0.7 else "start" if x(value) < frame.width * 0.3 else "middle"
            parts += [line(x(value), bottom, x(value), top, css), text(x(value), 13, name, "note", anchor)]
        for row, each in enumerate(rows):
            parts += _row(frame, x, frame.top + row * ROW + 12, each)
        return drawing(frame, parts)

    return responsive(draw, label, wide)


def row_label(frame: Frame, y: float, label: str, sides: int, css: str) -> list[str]:
    """The name of a row with the mark of its form before it, above what is drawn for it."""
    name = clipped(label, frame.width - frame.left - FIGURE - 20)
    return [shape(sides, frame.left + 5, y - 4, 4, f"mark {css}"), text(frame.left + 15, y, name, f"name {css}")]


def _row(frame: Frame, x: Scale, y: float, row: Interval) -> list[str]:
    middle = y + 10
    return [
        *row_label(frame, y, row.label, row.sides, row.css),
        text(frame.width - 4, y + 10, row.figure, "tick", "end"),
        line(x(row.low), middle, x(row.high), middle, f"interval {row.css}"),
        shape(row.sides, x(row.value), middle, 5, f"mark {row.css}", key=row.key, name=row.label, tip=row.tip),
    ]


def drops(target: TargetResult, max_drop: float, name: str) -> Markup:
    """The chosen variant's drop on both splits beside the limit and what the test split cannot resolve (shaded)."""
    chosen = next(variant for variant in target.variants if variant.name == target.chosen)
    worsening = wording.worsening(target.metrics)
    rows = [
        Interval(
            label=f"{split}, n = {drop.n:,}",
            figure=wording.drop(drop),
            value=drop.value,
            low=drop.low,
            high=drop.high,
            css="s1" if split == "test" else "s4",
            tip=(f"{worsening} of {name} on {split} data", f"{wording.drop(drop)} ({wording.drop_interval(drop)})"),
        )
        for split, drop in (("validation", chosen.drop), ("test", target.drop))
    ]
    marks: list[Line] = [(0.0, "one", "as good as float"), (max_drop, "limit", "limit")]
    band = (-target.resolution, target.resolution) if target.resolution > 0 else None
    wide = HALF if target.slices else WIDE  # with slices it has a neighbour
    return interval_rows(rows, f"{worsening} of {name} for {target.target}", marks=marks, band=band, wide=wide)


def slice_columns(target: TargetResult) -> list[tuple[str, int, Markup]]:
    """Per column its name, how many of its slices are surely worse than the whole, and the drawing, worst slices first."""
    if not target.slices or not target.metrics:
        return []
    whole = target.metrics[0]
    found = []
    columns = {name: [each for each in target.slices if each.column == name] for name in (each.column for each in target.slices)}
    for column, members in sorted(columns.items(), key=lambda item: len(item[1])):  # short cards first: they fill the page best
        sign = 1 if whole.goal == "max" else -1
        members.sort(key=lambda each: sign * each.metric.value)
        worse = sum(is_worse(each.metric, whole) for each in members)
        rows = [_slice(each, whole) for each in members[:MOST_SLICES]]
        marks: list[Line] = [(whole.value, "one", f"all: {wording.quality(whole.value)}")]
        found.append((column, worse, interval_rows(rows, f"{whole.name} by {column} for {target.target}", marks=marks)))
    return found


def is_worse(part: MetricResult, whole: MetricResult) -> bool:
    """Whether the part's interval lies wholly on the bad side of the whole's value."""
    return part.high < whole.value if whole.goal == "max" else part.low > whole.value


def _slice(each: SliceResult, whole: MetricResult) -> Interval:
    metric, worse = each.metric, is_worse(each.metric, whole)
    return Interval(
        label=f"{each.value}, n = {metric.n:,}",
        figure=wording.quality(metric.value),
        value=metric.value,
        low=metric.low,
        high=metric.high,
        css="worse" if worse else "s1",
        tip=(
            f"{each.column} {each.value}",
            f"{metric.name} {wording.quality(metric.value)} ({wording.quality_interval(metric)}), n = {metric.n:,}",
            f"surely worse than the whole's {wording.quality(whole.value)}" if worse else "not to be told from the whole",
        ),
    )
