"""Which plots does the report show, and what does each mark say when pointed at?"""

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from toolchain.pipeline.record import EpochResult, StageRun, TargetResult, TrainingResult, VariantResult
from toolchain.report import wording
from toolchain.report.svg import (
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
    rectangle,
    responsive,
    text,
)

SERIES = {"onnxruntime": "s1", "openvino": "s2", "tensorrt": "s3"}
LARGEST_RADIUS, SMALLEST_RADIUS = 17.0, 6.0
ROW = 34
MOST_CLASSES = 32
NAME_LETTER, BOLD_LETTER = 6.8, 7.6
"""Width of a letter of a name at 12 units, on the wide side for the common fonts."""


def variant_tip(variant: VariantResult) -> list[str]:
    """The lines shown when a variant is pointed at, wherever it is drawn."""
    metric = variant.metrics[0] if variant.metrics else None
    lines = [variant.name]
    if metric:
        lines.append(f"{metric.name} {wording.quality(metric.value)} ({wording.quality_interval(metric)}, {metric.split})")
    if variant.latency:
        found = variant.latency
        lines.append(
            f"p50 {wording.latency(found.p50_ns)} · p90 {wording.latency(found.p90_ns)} · p99 {wording.latency(found.p99_ns)}"
        )
        lines.append(f"{wording.speed(found)} float's speed ({wording.speed_interval(found)})")
    lines.append(f"{wording.size(variant.size_bytes)} · {variant.engine} {variant.precision}")
    lines.append(f"{variant.verdict}: {variant.reason}")
    return lines


def mark_key(target: TargetResult, variant: VariantResult) -> str:
    """What a variant's marks and its row in the table share, so that pointing at one lights the others."""
    return f"{target.target}/{variant.name}"


def trade_off(target: TargetResult, across: str) -> Markup | None:
    """Metric against latency or size, the other one as the area of the mark. None when nothing was measured.

    across: "latency" or "size". A dashed line is the recipe's latency limit.
    """
    places: dict[str, Callable[[VariantResult], float | None]] = {
        "latency": lambda variant: float(variant.latency.p50_ns) if variant.latency else None,
        "size": lambda variant: float(variant.size_bytes),
    }
    place = places[across]
    shown = [variant for variant in target.variants if variant.metrics and place(variant)]
    if not shown:
        return None
    limit = target.max_latency_ms * 1e6 if across == "latency" and target.max_latency_ms else None
    values = [float(place(variant) or 0) for variant in shown]
    in_sight = limit if limit and limit < 2.5 * max(values) else None

    def draw(width: float) -> str:
        frame = Frame(width, 380 if width > NARROW else 320, left=58)
        metrics = [bound for variant in shown for bound in (variant.metrics[0].low, variant.metrics[0].high)]
        x = Scale(*padded([0, *values, *([in_sight] if in_sight else [])], 0.06), *frame.x)
        x = Scale(0, x.high, *frame.x)
        y = Scale(*padded(metrics), *frame.y)
        x_text = wording.latency_tick if across == "latency" else wording.size_tick
        parts = axes(frame, x, y, x_text, wording.plain_tick)
        if in_sight:
            parts += [
                line(x(in_sight), frame.y[0], x(in_sight), frame.y[1], "limit"),
                text(x(in_sight) - 6, frame.y[1] + 12, "limit", "note", "end"),
            ]
        areas = [
            variant.size_bytes if across == "latency" else (variant.latency.p50_ns if variant.latency else 0) for variant in shown
        ]
        parts += _marks(target, shown, [(x(value), y) for value in values], [area / (max(areas) or 1) for area in areas], frame)
        caption = "latency, median of one inference" if across == "latency" else "size of the model file"
        parts.append(text(sum(frame.x) / 2, frame.height - 6, caption, "caption", "middle"))
        return drawing(frame, parts)

    return responsive(draw, f"{shown[0].metrics[0].name} against {across} of {len(shown)} variants for {target.target}", WIDE)


def _marks(
    target: TargetResult, variants: Sequence[VariantResult], places: list[tuple[float, Scale]], areas: list[float], frame: Frame
) -> list[str]:
    """Whiskers, then bubbles from the largest to the smallest so that none hides another, then names beside them."""
    parts, labels = [], []
    order = sorted(range(len(variants)), key=lambda index: -areas[index])
    for index in order:
        variant, (at, y) = variants[index], places[index]
        metric = variant.metrics[0]
        radius = max(SMALLEST_RADIUS, LARGEST_RADIUS * areas[index] ** 0.5)
        css = SERIES.get(variant.engine, "s4")
        parts.append(line(at, y(metric.low), at, y(metric.high), f"whisker {css}"))
        if variant.verdict == "chosen":
            parts.append(circle(at, y(metric.value), radius + 4.5, f"halo {css}"))
        parts.append(
            circle(
                at,
                y(metric.value),
                radius,
                f"mark {css} {variant.verdict}",
                tip=variant_tip(variant),
                key=mark_key(target, variant),
            )
        )
        labels.append((at, y(metric.value), radius, variant))
    return parts + _names(labels, frame)


def _names(marks: list[tuple[float, float, float, VariantResult]], frame: Frame) -> list[str]:
    """One name per mark: right of it, left, below or above, wherever it covers no mark and no other name."""
    parts: list[str] = []
    taken = [(at - radius, at + radius, middle, radius) for at, middle, radius, _ in marks]
    for at, middle, radius, variant in sorted(marks, key=lambda mark: mark[1]):
        width = (BOLD_LETTER if variant.verdict == "chosen" else NAME_LETTER) * len(variant.name)
        centred = min(max(at - width / 2, 0), frame.width - width)
        places = [
            (at + radius + 7, middle),
            (at - radius - 7 - width, middle),
            (centred, middle + radius + 13),
            (centred, middle - radius - 11),
            *((centred, middle + radius + 13 * step) for step in range(2, 8)),
        ]
        start, y = next((place for place in places if _is_free(place, width, taken, frame)), places[0])
        taken.append((start, start + width, y, 7))
        css = "name chosen" if variant.verdict == "chosen" else "name"
        parts.append(text(start, y + 4, variant.name, css))
    return parts


def _is_free(place: tuple[float, float], width: float, taken: list[tuple[float, float, float, float]], frame: Frame) -> bool:
    """taken: boxes as (left, right, middle, half their height)."""
    start, y = place
    inside = start >= 0 and start + width <= frame.width and 0 < y < frame.y[0]
    return inside and not any(
        abs(y - other) < half + 7 and start < end and begin < start + width for begin, end, other, half in taken
    )


def latencies(target: TargetResult) -> Markup | None:
    """One row a variant: its distribution from median to 99th percentile, and the limit on the 90th. None: not measured."""
    shown = [(variant, variant.latency) for variant in target.variants if variant.latency]
    if not shown:
        return None
    limit = target.max_latency_ms * 1e6 if target.max_latency_ms else None
    longest = max(found.p99_ns for _, found in shown)
    in_sight = limit if limit and limit < 2.5 * longest else None

    def draw(width: float) -> str:
        frame = Frame(width, 46 + ROW * len(shown), left=10, top=6)
        x = Scale(0, max(longest, in_sight or 0) * 1.05, *frame.x)
        parts = axes(frame, x, None, wording.latency_tick)
        for row, (variant, found) in enumerate(shown):
            top = frame.top + row * ROW
            css, chosen = SERIES.get(variant.engine, "s4"), " chosen" if variant.verdict == "chosen" else ""
            tip = variant_tip(variant)
            label = f"{variant.name}  {wording.latency(found.p50_ns)}"
            parts += [
                text(frame.left + 2, top + 12, label, f"name{chosen}"),
                rectangle(x(0), top + 17, x(found.p99_ns) - x(0), 9, css=f"bar faint {css}", tip=tip),
                rectangle(x(0), top + 17, x(found.p90_ns) - x(0), 9, css=f"bar half {css}", tip=tip),
                rectangle(x(0), top + 17, x(found.p50_ns) - x(0), 9, css=f"bar {css}", tip=tip),
            ]
        if in_sight:
            parts.append(line(x(in_sight), frame.y[0], x(in_sight), frame.y[1], "limit"))
        return drawing(frame, parts)

    return responsive(draw, f"latency of {len(shown)} variants for {target.target}")


def speeds(target: TargetResult) -> Markup | None:
    """Speed against the float baseline with its interval, on a log scale so that twice and half are equally far from 1."""
    shown = [(variant, variant.latency) for variant in target.variants if variant.latency]
    if not shown:
        return None
    low = min(0.8, *(found.ratio_low for _, found in shown)) * 0.93
    high = max(1.25, *(found.ratio_high for _, found in shown)) * 1.07

    def draw(width: float) -> str:
        frame = Frame(width, 46 + ROW * len(shown), left=10, top=6)
        x = Scale(low, high, *frame.x, is_log=True)
        parts = [*axes(frame, x, None, lambda value: f"{value:g}×"), line(x(1), frame.y[0], x(1), frame.y[1], "one")]
        for row, (variant, found) in enumerate(shown):
            middle = frame.top + row * ROW + 21
            css, chosen = SERIES.get(variant.engine, "s4"), " chosen" if variant.verdict == "chosen" else ""
            label = f"{variant.name}  {wording.speed(found)}"
            parts += [
                text(frame.left + 2, middle - 9, label, f"name{chosen}"),
                line(x(found.ratio_low), middle, x(found.ratio_high), middle, f"interval {css}"),
                circle(
                    x(found.ratio), middle, 4.5, f"mark {css} passed", tip=variant_tip(variant), key=mark_key(target, variant)
                ),
            ]
        return drawing(frame, parts)

    return responsive(draw, f"speed against float of {len(shown)} variants for {target.target}")


def training(result: TrainingResult, metric: str) -> tuple[Markup, Markup] | None:
    """Loss and validation metric by epoch, the kept epoch marked. None when there is no history."""
    history = result.history
    if not history:
        return None
    losses = [
        ("training", "s4", [each.train_loss for each in history]),
        ("validation", "s1", [each.validation_loss for each in history]),
    ]
    quality = [(metric, "s2", [each.metric for each in history])]
    return (
        responsive(lambda width: _curves(width, history, losses, result.best_epoch), "loss by epoch"),
        responsive(lambda width: _curves(width, history, quality, result.best_epoch), f"validation {metric} by epoch"),
    )


def _curves(width: float, history: Sequence[EpochResult], series: list[tuple[str, str, list[float]]], best: int) -> str:
    frame = Frame(width, 260, left=58, top=26)
    epochs = [each.epoch + 1 for each in history]  # counted from 0 by the loop, from 1 by people
    best += 1
    x = Scale(*padded(epochs, 0.03), *frame.x)
    y = Scale(*padded(value for _, _, values in series for value in values), *frame.y)
    parts = axes(frame, x, y, wording.plain_tick, wording.plain_tick)
    if best in epochs:
        parts += [
            line(x(best), frame.y[0], x(best), frame.y[1], "best"),
            text(x(best) - 5, frame.y[0] - 7, "kept", "note", "end"),
        ]
    for position, (name, css, values) in enumerate(series):
        parts.append(polyline(((x(epoch), y(value)) for epoch, value in zip(epochs, values, strict=True)), f"curve {css}"))
        for epoch, value in zip(epochs, values, strict=True):
            parts.append(circle(x(epoch), y(value), 3, f"mark {css} passed", tip=[f"epoch {epoch}", f"{name} {value:.4g}"]))
        parts += [
            circle(frame.left + 6 + 96 * position, 11, 4, f"mark {css} passed"),
            text(frame.left + 15 + 96 * position, 15, name, "name"),
        ]
    return drawing(frame, parts)


def stages(runs: Sequence[StageRun]) -> Markup:
    """Seconds of each stage; those that came from the cache are hollow, at the length they took when they ran."""
    row = 21

    def draw(width: float) -> str:
        frame = Frame(width, 46 + row * len(runs), left=218 if width > NARROW else 178, right=58, top=4)
        x = Scale(0, max(run.seconds for run in runs) or 1, *frame.x)
        parts = axes(frame, x, None, wording.seconds_tick)
        for index, run in enumerate(runs):
            middle = frame.top + index * row + 11
            spent = wording.seconds(run.seconds)
            tip = [run.name, f"{spent}, {'ran' if run.ran else 'from the cache'}", run.why]
            parts += [
                text(frame.left - 8, middle + 4, _clipped(run.name, int(frame.left / 6.2)), "name", "end"),
                rectangle(x(0), middle - 5, x(run.seconds) - x(0), 10, css="bar s1" if run.ran else "bar hollow", tip=tip),
                text(x(run.seconds) + 6, middle + 4, spent if run.ran else "cached", "tick"),
            ]
        return drawing(frame, parts)

    return responsive(draw, f"seconds of {len(runs)} stages")


def balance(classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Markup | None:
    """Examples of each class, split by split. None without classes, or with more than can be told apart."""
    if not classes or not counts or len(classes) > MOST_CLASSES:
        return None
    row = 21
    totals = [sum(counts[split][index] for split in counts) for index in range(len(classes))]

    def draw(width: float) -> str:
        frame = Frame(width, 46 + row * len(classes), left=min(16 + 6.6 * max(map(len, classes)), width * 0.4), right=40, top=4)
        x = Scale(0, max(totals) or 1, *frame.x)
        parts = axes(frame, x, None, wording.plain_tick)
        for index, label in enumerate(classes):
            middle, start = frame.top + index * row + 11, 0
            parts.append(text(frame.left - 8, middle + 4, _clipped(label, int(frame.left / 6.2)), "name", "end"))
            for split, css in zip(wording.in_order(counts), ("bar s1", "bar half s1", "bar faint s1"), strict=False):
                count = counts[split][index]
                tip = [f"class {label}", f"{count:,} of {totals[index]:,} in {split}"]
                parts.append(rectangle(x(start), middle - 5, x(start + count) - x(start), 10, css=css, tip=tip))
                start += count
            parts.append(text(x(start) + 6, middle + 4, f"{totals[index]:,}", "tick"))
        return drawing(frame, parts)

    return responsive(draw, f"examples of {len(classes)} classes")


def _clipped(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"
