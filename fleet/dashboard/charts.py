"""Where on the canvas does each number of a chart lie?

Pure geometry: these functions turn numbers into coordinates and path strings, and `templates/charts.html` draws them as
inline SVG. The server draws, so a chart is right without scripts, prints, scales, and follows the page's colours.

Plots stretch to the width of their box (`preserveAspectRatio="none"` with non-scaling strokes); text never stands inside
a stretched SVG, so axis labels are returned as plain text, evenly spaced by the page.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Points = Sequence[tuple[float, float | None]]
"""(x, y) in rising x; a y of None is a gap, drawn as one."""

PLOT_WIDTH = 600.0
PLOT_HEIGHT = 120.0
X_PARTS = 4
SPARK_WIDTH = 120.0
SPARK_HEIGHT = 24.0


@dataclass(frozen=True)
class Line:
    """One drawn series. area: the same outline closed to the base line, or "" where a fill would mislead."""

    name: str
    tone: str
    path: str
    area: str
    last: str


@dataclass(frozen=True)
class Mark:
    """A vertical line at a moment: a version switch, a rollback."""

    x: float
    label: str
    tone: str


@dataclass(frozen=True)
class Plot:
    """A time chart. x_ticks left to right, y_ticks top to bottom, both evenly spaced; grid: where the latter stand.

    readout: the values under the pointer, one row per sample: x in percent, its label, one text per line.
    """

    title: str
    width: float
    height: float
    lines: tuple[Line, ...]
    x_ticks: tuple[str, ...]
    y_ticks: tuple[str, ...]
    grid: tuple[float, ...]
    marks: tuple[Mark, ...]
    readout: tuple[tuple[float, str, tuple[str, ...]], ...]


@dataclass(frozen=True)
class Series:
    name: str
    tone: str
    points: Points
    filled: bool = False


def sparkline(values: Sequence[float | None], width: float = SPARK_WIDTH, height: float = SPARK_HEIGHT) -> Line:
    """A word-sized line of evenly spaced values from zero to their own maximum."""
    top = max((value for value in values if value is not None), default=0.0) or 1.0
    step = width / max(len(values) - 1, 1)
    spots = [
        (index * step, None if value is None else _flip(value / top, height, inset=1.5)) for index, value in enumerate(values)
    ]
    path = _path(spots)
    return Line(name="", tone="", path=path, area=_area(spots, height), last="")


def plot(
    title: str,
    series: Sequence[Series],
    *,
    span: tuple[float, float],
    label_x: Callable[[float], str],
    label_y: Callable[[float], str],
    tick_x: Callable[[float], str] | None = None,
    tick_y: Callable[[float], str] | None = None,
    marks: Sequence[tuple[float, str, str]] = (),
    floor_top: float = 0.0,
) -> Plot:
    """A chart of several series over the same span of x, from zero up to a round maximum.

    tick_x, tick_y: how to write round positions, where that may be shorter than a value. floor_top: the axis reaches at least this far, so that noise around zero is not blown up to full height.
    """
    start, end = span
    width_x = max(end - start, 1e-9)
    highest = max((y for one in series for _, y in one.points if y is not None), default=0.0)
    ticks = round_ticks(max(highest, floor_top))
    top = ticks[-1] or 1.0

    def place(points: Points) -> list[tuple[float, float | None]]:
        return [((x - start) / width_x * PLOT_WIDTH, None if y is None else _flip(y / top, PLOT_HEIGHT)) for x, y in points]

    lines = []
    for one in series:
        spots = place(one.points)
        latest = next((y for _, y in reversed(one.points) if y is not None), None)
        area = _area(spots, PLOT_HEIGHT) if one.filled else ""
        lines.append(Line(one.name, one.tone, _path(spots), area, "–" if latest is None else label_y(latest)))
    return Plot(
        title=title,
        width=PLOT_WIDTH,
        height=PLOT_HEIGHT,
        lines=tuple(lines),
        x_ticks=tuple((tick_x or label_x)(start + width_x * part / X_PARTS) for part in range(X_PARTS + 1)),
        y_ticks=tuple((tick_y or label_y)(value) for value in reversed(ticks)),
        grid=tuple(PLOT_HEIGHT * (1 - value / top) for value in reversed(ticks)),
        marks=tuple(Mark((x - start) / width_x * PLOT_WIDTH, text, tone) for x, text, tone in marks if start <= x <= end),
        readout=_readout(series, start, width_x, label_x, label_y),
    )


def round_ticks(highest: float, wanted: int = 3) -> list[float]:
    """Ticks from 0 to the first round step (1, 2, 2.5 or 5 times a power of ten) at or above `highest`."""
    if highest <= 0 or not math.isfinite(highest):
        return [0.0, 1.0]
    raw = highest / wanted
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    steps = max(1, math.ceil(highest / step - 1e-9))
    return [step * index for index in range(steps + 1)]


@dataclass(frozen=True)
class Bar:
    """One cell of a histogram: x and width of the slot, height of the current bar, top of the reference outline."""

    x: float
    width: float
    y: float
    height: float
    label: str
    tail: bool


@dataclass(frozen=True)
class Histogram:
    width: float
    height: float
    bars: tuple[Bar, ...]
    reference: str
    top: str


HISTOGRAM_WIDTH = 320.0
HISTOGRAM_HEIGHT = 72.0
TAIL_CELLS = 3


def histogram(reference: Sequence[int], current: Sequence[int], edges: Sequence[float] = ()) -> Histogram:
    """The current share of rows per cell as bars, the reference share as a stepped outline, on one common scale.

    reference, current: counts per cell, same length. edges: the boundaries between cells, for the labels; may be empty.
    The cells are of equal width on screen, not on the feature's axis: the quantile cells of the reference are then level,
    and drift shows as bars leaving the outline whatever the feature's units.
    """
    cells = len(current)
    was = _shares(reference)
    now = _shares(current)
    top = max([*was, *now, 1e-9])
    slot = HISTOGRAM_WIDTH / cells
    bars = tuple(
        Bar(
            x=index * slot,
            width=slot,
            y=HISTOGRAM_HEIGHT * (1 - now[index] / top),
            height=HISTOGRAM_HEIGHT * now[index] / top,
            label=f"{_cell_name(index, edges)}: {now[index]:.1%} now, {was[index]:.1%} reference",
            tail=index < TAIL_CELLS or index >= cells - TAIL_CELLS,
        )
        for index in range(cells)
    )
    heights = [HISTOGRAM_HEIGHT * (1 - share / top) for share in was]
    outline = (
        f"M0 {HISTOGRAM_HEIGHT:g}"
        + "".join(f"V{y:.1f}H{(i + 1) * slot:.1f}" for i, y in enumerate(heights))
        + f"V{HISTOGRAM_HEIGHT:g}"
    )
    return Histogram(HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT, bars, outline if sum(reference) else "", f"{top:.1%}")


@dataclass(frozen=True)
class Gauge:
    """A value beside the range it has without drift, on one axis, all in percent of its width."""

    low: float
    high: float
    limit: float
    value: float


def gauge(value: float, low: float, high: float, limit: float) -> Gauge:
    """Place a distance beside its null: [low, high] is where clean windows lie, limit where the alarm begins."""
    reach = max(value, high, limit, 1e-12) * 1.08
    return Gauge(*(100 * max(part, 0.0) / reach for part in (low, high, limit, value)))


@dataclass(frozen=True)
class Segment:
    """A part of a whole, in percent of its width."""

    start: float
    width: float
    label: str
    count: int
    tone: str


def segments(parts: Sequence[tuple[str, int, str]]) -> tuple[Segment, ...]:
    """A stacked bar of (label, count, tone), left to right."""
    total = sum(amount for _, amount, _ in parts) or 1
    done = 0
    out = []
    for label, amount, tone in parts:
        out.append(Segment(100 * done / total, 100 * amount / total, label, amount, tone))
        done += amount
    return tuple(out)


@dataclass(frozen=True)
class Interval:
    """A dot with its confidence interval and the line of no difference, in percent of the axis."""

    low: float
    high: float
    value: float
    even: float


def intervals(rows: Sequence[tuple[float, float, float]], even: float = 1.0) -> list[Interval]:
    """Place (low, value, high) rows on one shared axis that holds all of them and `even`."""
    if not rows:
        return []
    least = min(even, *(low for low, _, _ in rows))
    most = max(even, *(high for _, _, high in rows))
    margin = (most - least or 1.0) * 0.06
    base, reach = least - margin, most - least + 2 * margin

    def at(value: float) -> float:
        return 100 * (value - base) / reach

    return [Interval(at(low), at(high), at(value), at(even)) for low, value, high in rows]


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts)
    return [value / total if total else 0.0 for value in counts]


def _cell_name(index: int, edges: Sequence[float]) -> str:
    if not edges:
        return f"cell {index + 1}"
    low = f"{edges[index - 1]:.4g}" if index > 0 else "−∞"
    high = f"{edges[index]:.4g}" if index < len(edges) else "∞"
    return f"{low} to {high}"


def _flip(share: float, height: float, inset: float = 0.0) -> float:
    return inset + (height - 2 * inset) * (1 - min(max(share, 0.0), 1.0))


def _runs(spots: Sequence[tuple[float, float | None]]) -> list[list[tuple[float, float]]]:
    """Split at the gaps."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in spots:
        if y is None:
            runs.append([])
        else:
            runs[-1].append((x, y))
    return [run for run in runs if run]


def _path(spots: Sequence[tuple[float, float | None]]) -> str:
    """A lone sample between two gaps becomes a short dash, else it would be invisible."""
    parts = []
    for run in _runs(spots):
        drawn = [(run[0][0] - 1, run[0][1]), (run[0][0] + 1, run[0][1])] if len(run) == 1 else run
        parts.append("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in drawn))
    return "".join(parts)


def _area(spots: Sequence[tuple[float, float | None]], base: float) -> str:
    return "".join(
        f"M{run[0][0]:.1f} {base:g}" + "".join(f"L{x:.1f} {y:.1f}" for x, y in run) + f"L{run[-1][0]:.1f} {base:g}Z"
        for run in _runs(spots)
        if len(run) > 1
    )


def _readout(
    series: Sequence[Series], start: float, width_x: float, label_x: Callable[[float], str], label_y: Callable[[float], str]
) -> tuple[tuple[float, str, tuple[str, ...]], ...]:
    """Rows for the pointer readout; series share their x values, so the first one's decide."""
    if not series:
        return ()
    columns = [dict(one.points) for one in series]
    rows = []
    for x, _ in series[0].points:
        values = [column.get(x) for column in columns]
        texts = tuple("–" if value is None else label_y(value) for value in values)
        rows.append((round(100 * (x - start) / width_x, 2), label_x(x), texts))
    return tuple(rows)
