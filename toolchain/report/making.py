"""How did weights and stages come about: training, the time it took, the data it had?"""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from toolchain.pipeline.record import EpochResult, StageRun, TrainingResult
from toolchain.report import wording
from toolchain.report.svg import (
    NARROW,
    Frame,
    Scale,
    axes,
    circle,
    clipped,
    drawing,
    line,
    padded,
    polyline,
    rectangle,
    responsive,
    text,
)

MOST_CLASSES = 32
MOST_STAGES = 16


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
            text(x(best), frame.top - 5, "kept", "note", "end"),
        ]
    for position, (name, css, values) in enumerate(series):
        parts.append(polyline(((x(epoch), y(value)) for epoch, value in zip(epochs, values, strict=True)), f"curve {css}"))
        for epoch, value in zip(epochs, values, strict=True):
            parts.append(circle(x(epoch), y(value), 3, f"mark {css} passed", tip=[f"epoch {epoch}", f"{name} {value:.4g}"]))
        parts += [
            circle(frame.left + 6 + 96 * position, 11, 4, f"mark {css} passed"),
            text(frame.left + 15 + 96 * position, 15, name, "name"),
        ]
    parts.append(text(sum(frame.x) / 2, frame.height - 6, "epoch", "caption", "middle"))
    return drawing(frame, parts)


def stages(runs: Sequence[StageRun]) -> Markup:
    """Seconds of each stage; those that came from the cache are hollow, at the length they took when they ran.

    Of many only the longest are drawn, in the order they ran, and what is left is one bar more.
    """
    row = 21
    kept = sorted(runs, key=lambda run: -run.seconds)[:MOST_STAGES]
    shown = [run for run in runs if run in kept]
    rest = [run for run in runs if run not in kept]
    longest = max(*(run.seconds for run in shown), sum(run.seconds for run in rest))

    def draw(width: float) -> str:
        frame = Frame(
            width, 34 + row * (len(shown) + bool(rest)), left=232 if width > NARROW else 160, right=58, top=4, bottom=28
        )
        x = Scale(0, longest or 1, *frame.x)
        parts = axes(frame, x, None, wording.seconds_tick)
        for index, run in enumerate(shown):
            spent = wording.seconds(run.seconds)
            tip = [run.name, f"{spent}, {'ran' if run.ran else 'from the cache'}", run.why]
            css = "bar s1" if run.ran else "bar hollow"
            parts += _bar(frame, x, index * row, (run.name, run.seconds, spent if run.ran else "cached", css), tip)
        if rest:
            spent_s = sum(run.seconds for run in rest)
            label = f"{len(rest)} shorter ones"
            tip = [label, f"{wording.seconds(spent_s)} together; {sum(run.ran for run in rest)} of them ran"]
            parts += _bar(frame, x, len(shown) * row, (label, spent_s, wording.seconds(spent_s), "bar half s1"), tip)
        return drawing(frame, parts)

    return responsive(draw, f"seconds of {len(runs)} stages")


def _bar(frame: Frame, x: Scale, top: float, bar: tuple[str, float, str, str], tip: Sequence[str]) -> list[str]:
    """bar: its name, its value, the value in words, its CSS class."""
    name, value, words, css = bar
    middle = frame.top + top + 11
    return [
        text(frame.left - 8, middle + 4, clipped(name, frame.left - 12), "name", "end"),
        rectangle(x(0), middle - 5, x(value) - x(0), 10, css=css, tip=tip),
        text(x(value) + 6, middle + 4, words, "tick"),
    ]


def balance(classes: Sequence[str], counts: Mapping[str, Sequence[int]]) -> Markup | None:
    """Examples of each class, split by split. None without classes, or with more than can be told apart."""
    if not classes or not counts or len(classes) > MOST_CLASSES:
        return None
    row = 21
    totals = [sum(counts[split][index] for split in counts) for index in range(len(classes))]

    def draw(width: float) -> str:
        frame = Frame(
            width, 34 + row * len(classes), left=min(16 + 6.6 * max(map(len, classes)), width * 0.4), right=40, top=4, bottom=28
        )
        x = Scale(0, max(totals) or 1, *frame.x)
        parts = axes(frame, x, None, wording.plain_tick)
        for index, label in enumerate(classes):
            middle, start = frame.top + index * row + 11, 0
            parts.append(text(frame.left - 8, middle + 4, clipped(label, frame.left - 12), "name", "end"))
            for split, css in zip(wording.in_order(counts), ("bar s1", "bar half s1", "bar faint s1"), strict=False):
                count = counts[split][index]
                tip = [f"class {label}", f"{count:,} of {totals[index]:,} in {split}"]
                parts.append(rectangle(x(start), middle - 5, x(start + count) - x(start), 10, css=css, tip=tip))
                start += count
            parts.append(text(x(start) + 6, middle + 4, f"{totals[index]:,}", "tick"))
        return drawing(frame, parts)

    return responsive(draw, f"examples of {len(classes)} classes")
