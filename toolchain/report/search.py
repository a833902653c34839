"""What did the search try, and why did it go on with this trial?"""

from collections.abc import Callable, Sequence

import msgspec
from markupsafe import Markup

from toolchain.pipeline.record import TrialResult, TuningResult
from toolchain.report import wording
from toolchain.report.svg import (
    NARROW,
    Frame,
    Scale,
    axes,
    circle,
    drawing,
    line,
    padded,
    polyline,
    responsive,
    shape,
    text,
)

MOST_TRIALS = 200
"""Rows the table has at most: the best and the latest of more."""


class Search(msgspec.Struct, frozen=True, kw_only=True):
    """A search as the page shows it. hidden: trials the table leaves out; counts: trials by what became of them."""

    result: TuningResult
    scatter: Markup | None
    settings: Markup | None
    trials: tuple[TrialResult, ...]
    keys: tuple[str, ...]
    hidden: int
    counts: dict[str, int]


def view(result: TuningResult | None, metric: str) -> Search | None:
    """metric: name of the deciding one, which the recipe calls just "metric" among its objectives."""
    if result is None:
        return None
    named = tuple(metric if name == "metric" else name for name in result.objectives)
    result = msgspec.structs.replace(result, objectives=named)
    best = [trial for trial in result.trials if trial.number == result.best]
    others = [trial for trial in result.trials if trial.number != result.best]
    shown = sorted([*best, *others[-(MOST_TRIALS - len(best)) :]], key=lambda trial: trial.number)
    counts = {
        "within all limits": sum(trial.state == "complete" and not trial.violated for trial in result.trials),
        "over a limit": sum(trial.state == "complete" and bool(trial.violated) for trial in result.trials),
        "stopped early": sum(trial.state == "pruned" for trial in result.trials),
        "failed": sum(trial.state == "failed" for trial in result.trials),
    }
    return Search(
        result=result,
        scatter=scatter(result),
        settings=parallel(result),
        trials=tuple(shown),
        keys=tuple(dict.fromkeys(key for trial in result.trials for key in trial.settings)),
        hidden=len(result.trials) - len(shown),
        counts={name: count for name, count in counts.items() if count},
    )


def value_text(objective: str, value: float) -> str:
    if objective == "latency":
        return wording.latency(value)
    return wording.size(round(value)) if objective == "size" else wording.quality(value)


def tip(result: TuningResult, trial: TrialResult) -> list[str]:
    lines = [f"trial {trial.number}{', the best' if trial.number == result.best else ''}"]
    lines += [f"{name} {value_text(name, value)}" for name, value in zip(result.objectives, trial.values, strict=False)]
    lines += [f"{key} = {setting_text(value)}" for key, value in trial.settings.items()]
    if trial.violated:
        lines.append(f"over the limit: {', '.join(trial.violated)}")
    return [*lines, f"{trial.state} after {wording.seconds(trial.seconds)}"]


def setting_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def scatter(result: TuningResult) -> Markup | None:
    """The first objective against the second, or against the trial's number where there is one. None: no trial finished."""
    finished = [trial for trial in result.trials if trial.state == "complete" and len(trial.values) == len(result.objectives)]
    if not finished:
        return None
    two = len(result.objectives) > 1
    across = result.objectives[1] if two else "trial"

    def draw(width: float) -> str:
        frame = Frame(width, 330 if width > NARROW else 300, left=58, top=18)
        xs = [trial.values[1] if two else float(trial.number) for trial in finished]
        x, y = Scale(*padded(xs), *frame.x), Scale(*padded(trial.values[0] for trial in finished), *frame.y)
        parts = axes(frame, x, y, _ticks(across), _ticks(result.objectives[0]))
        for trial, value in sorted(zip(finished, xs, strict=True), key=lambda each: each[1]):
            at = x(value), y(trial.values[0])
            if trial.number == result.best:
                parts += [circle(*at, 12, "halo s1"), text(at[0] + 16, at[1] + 4, f"trial {trial.number}", "name chosen")]
            css = "mark s4 rejected" if trial.violated else "mark s1 passed"
            parts.append(shape(0, *at, 6, css, tip=tip(result, trial)))
        return drawing(
            frame,
            [
                *parts,
                text(frame.left - 44, 10, result.objectives[0], "caption"),
                text(sum(frame.x) / 2, frame.height - 6, across, "caption", "middle"),
            ],
        )

    return responsive(draw, f"{len(finished)} finished trials by {' and '.join(result.objectives)}")


def parallel(result: TuningResult) -> Markup | None:
    """One axis a setting and one for the first objective, one line a finished trial. None with fewer than two settings."""
    finished = [trial for trial in result.trials if trial.state == "complete" and trial.values]
    keys = list(dict.fromkeys(key for trial in finished for key in trial.settings))
    if len(keys) < 2 or len(keys) > 8:
        return None
    columns = [*keys, result.objectives[0]]
    rows = {trial.number: [*(trial.settings.get(key) for key in keys), trial.values[0]] for trial in finished}
    heights = [_heights([row[index] for row in rows.values()]) for index in range(len(columns))]

    def draw(width: float) -> str:
        frame = Frame(width, 330 if width > NARROW else 310, left=44, right=44, top=34 if width > NARROW else 50, bottom=26)
        bottom, top = frame.y
        places = [
            frame.left + index * (frame.width - frame.left - frame.right) / (len(columns) - 1) for index in range(len(columns))
        ]
        parts = []
        for trial in sorted(finished, key=lambda each: (each.number == result.best, not each.violated)):
            css = "best" if trial.number == result.best else "over" if trial.violated else "within"
            corners = [
                (place, bottom + (top - bottom) * heights[index][1][_plain(rows[trial.number][index])])
                for index, place in enumerate(places)
            ]
            parts.append(polyline(corners, f"trial {css}"))
        for index, (place, name) in enumerate(zip(places, columns, strict=True)):
            anchor = "start" if index == 0 else "end" if index == len(columns) - 1 else "middle"
            shift = -40 if index == 0 else 40 if index == len(columns) - 1 else 0
            low, high = heights[index][0]
            parts += [
                line(place, bottom, place, top, "axis strong"),
                text(place + shift, 12 if index % 2 == 0 or width > NARROW else 28, _last(name), "name", anchor),
                text(place, bottom + 16, low, "tick", "middle"),
                text(place, top - 6, high, "tick", "middle"),
            ]
        return drawing(frame, parts)

    return responsive(draw, f"settings of {len(finished)} finished trials")


def _heights(values: Sequence[object]) -> tuple[tuple[str, str], dict[str, float]]:
    """The lowest and the highest value in words, and each value's height in 0..1: numbers by rank or size, others by name."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) != len(values):
        names = sorted({_plain(value) for value in values})
        room = max(len(names) - 1, 1)
        return (names[0], names[-1]), {name: index / room for index, name in enumerate(names)}
    low, high = min(numbers), max(numbers)
    is_log = low > 0 and high / low > 10
    scale = Scale(low, high, 0, 1, is_log=is_log) if high > low else None
    places = {_plain(value): scale(value) if scale else 0.5 for value in numbers}
    return (f"{low:.4g}", f"{high:.4g}"), places


def _plain(value: object) -> str:
    return setting_text(value)


def _last(key: str) -> str:
    """The end of a dotted key: enough to know it by, with its parent where it is a number."""
    parts = key.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]


def _ticks(objective: str) -> Callable[[float], str]:
    return {"latency": wording.latency_tick, "size": wording.size_tick}.get(objective, wording.plain_tick)
