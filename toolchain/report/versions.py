"""How do the differences of two versions read, on a terminal and as a page of its own?"""

from collections.abc import Sequence
from pathlib import Path

import msgspec
from markupsafe import Markup

from toolchain.files import write_durably
from toolchain.package.compare import Comparison, Difference, Figure, Interval
from toolchain.report import intervals, wording
from toolchain.report.svg import NARROW

TITLES = {"model": "Model", "recipe": "Recipe", "lineage": "Made from"}


class FigureView(msgspec.Struct, frozen=True):
    """A figure in words, and drawn where it has intervals."""

    figure: Figure
    before: str
    after: str
    change: str
    drawing: Markup | None


class ComparisonView(msgspec.Struct, frozen=True):
    comparison: Comparison
    figures: list[FigureView]
    sections: dict[str, list[Difference]]


def write_comparison(comparisons: Sequence[Comparison], notes: Sequence[str], path: Path) -> None:
    """Write the page, replaced whole. Raises OSError."""
    write_durably(path, render_comparison(comparisons, notes).encode())


def render_comparison(comparisons: Sequence[Comparison], notes: Sequence[str] = ()) -> str:
    from toolchain.report.page import render_page  # the terminal needs no templates

    views = [
        ComparisonView(
            each,
            sorted((_view(figure) for figure in each.figures), key=lambda view: view.drawing is None),
            {
                title: [row for row in each.differences if row.section == section]
                for section, title in TITLES.items()
                if any(row.section == section for row in each.differences)
            },
        )
        for each in comparisons
    ]
    return render_page("compare.html.j2", views=views, notes=notes)


def value_text(figure: Figure, value: float) -> str:
    match figure.unit:
        case "ns":
            return wording.latency(value)
        case "bytes":
            return wording.size(round(value))
        case "ratio":
            return f"{value:.2f}×"
    return wording.quality(value)


def figure_text(figure: Figure, value: float, interval: Interval | None) -> str:
    """ "0.9889 (0.9781 to 0.9997)"."""
    shown = value_text(figure, value)
    if interval is None:
        return shown
    low, high = (value_text(figure, bound) for bound in interval)
    return f"{shown} ({low} to {high})"


def change_text(figure: Figure) -> str:
    """The difference in the unit that suits it, then the verdict: "+12.0 %, not resolvable"."""
    if figure.verdict == "same":
        return "same"
    if figure.unit == "metric":
        difference = f"{figure.after - figure.before:+.4f}"
    else:
        difference = f"{100 * (figure.after - figure.before) / figure.before:+.1f} %" if figure.before else ""
    return ", ".join(part for part in (difference, figure.verdict) if part)


def _view(figure: Figure) -> FigureView:
    drawing = None
    if figure.before_interval and figure.after_interval:
        rows = [
            _row("before", figure, figure.before, figure.before_interval),
            _row("after", figure, figure.after, figure.after_interval),
        ]
        if figure.unit == "ratio":
            drawing = intervals.interval_rows(
                rows, figure.name, marks=((1.0, "one", ""),), tick=lambda value: f"{value:g}×", wide=NARROW
            )
        else:
            drawing = intervals.interval_rows(rows, figure.name, wide=NARROW)
    return FigureView(figure, value_text(figure, figure.before), value_text(figure, figure.after), change_text(figure), drawing)


def _row(label: str, figure: Figure, value: float, interval: Interval) -> intervals.Interval:
    return intervals.Interval(
        label=label,
        figure=value_text(figure, value),
        value=value,
        low=min(interval[0], value),
        high=max(interval[1], value),
        css="s1" if label == "after" else "plain",
        tip=(f"{figure.name}, {label}", figure_text(figure, value, interval)),
    )
