"""How long does one inference take with each variant, and how much do the calls differ?"""

from markupsafe import Markup

from toolchain.pipeline.record import LatencyResult, TargetResult, VariantResult
from toolchain.report import wording
from toolchain.report.intervals import FIGURE, ROW, Interval, interval_rows, row_label
from toolchain.report.marks import mark_key, series, sides_of
from toolchain.report.svg import Frame, Scale, axes, circle, drawing, line, rectangle, responsive, text


def timed(target: TargetResult) -> list[tuple[VariantResult, LatencyResult]]:
    """Variants that were measured, the fastest first."""
    found = [(variant, variant.latency) for variant in target.variants if variant.latency]
    return sorted(found, key=lambda each: each[1].p50_ns)


def distributions(target: TargetResult) -> Markup | None:
    """One row a variant on a common log axis: 5 to 95 % of its calls, the middle half, median and 99th percentile.

    None: nothing was measured. A dashed line is the limit, which the 90th percentile has to keep.
    """
    shown = timed(target)
    if not shown:
        return None
    sides = sides_of([variant.form for variant in target.variants])
    limit = target.max_latency_ms * 1e6 if target.max_latency_ms else None
    low, high = min(bounds(found)[0] for _, found in shown), max(found.p99_ns for _, found in shown)
    in_sight = limit if limit and low / 2 < limit < 2.5 * high else None
    highest = max(float(high), in_sight or 0)

    def draw(width: float) -> str:
        frame = Frame(width, 36 + ROW * len(shown), left=12, right=FIGURE, top=6, bottom=28)
        x = Scale(low / 1.06, highest * 1.06, *frame.x, is_log=True)
        parts = axes(frame, x, None, wording.latency_tick)
        if in_sight:
            parts.append(line(x(in_sight), frame.y[0], x(in_sight), frame.y[1], "limit"))
        for row, (variant, found) in enumerate(shown):
            top, css = frame.top + row * ROW, series(variant.engine)
            parts += row_label(frame, top + 12, variant.name, sides[variant.form], f"{css} {variant.verdict}")
            parts.append(text(frame.width - 4, top + 22, wording.latency(found.p50_ns), "tick", "end"))
            parts += _body(x, top + 22, found, css)
            middle = x(found.p50_ns)
            key = mark_key(target, variant)
            parts.append(rectangle(middle - 1.25, top + 15.5, 2.5, 13, css=f"median {css}", key=key, name=variant.name))
        return drawing(frame, parts)

    return responsive(draw, f"latency of {len(shown)} variants for {target.target}")


def bounds(found: LatencyResult) -> tuple[int, int, int, int]:
    """ns at 5, 25, 75 and 95 % of the calls; without quantiles what median and 90th percentile allow to say."""
    if len(found.quantiles) == 21:  # one each 5 %
        return found.quantiles[1], found.quantiles[5], found.quantiles[15], found.quantiles[19]
    return found.p50_ns, found.p50_ns, found.p90_ns, found.p90_ns


def _body(x: Scale, middle: float, found: LatencyResult, css: str) -> list[str]:
    low, lower, upper, high = map(x, bounds(found))
    far = x(max(found.p99_ns, found.p90_ns))
    return [
        line(low, middle, far, middle, f"reach {css}"),
        rectangle(low, middle - 5, high - low, 10, css=f"bar faint {css}"),
        rectangle(lower, middle - 5, upper - lower, 10, css=f"bar half {css}"),
        circle(far, middle, 2.6, f"far {css}"),
    ]


def speeds(target: TargetResult) -> Markup | None:
    """Speed against the float baseline with its interval, on a log scale so that twice and half are equally far from 1."""
    sides = sides_of([variant.form for variant in target.variants])
    rows = [
        Interval(
            label=variant.name,
            figure="baseline" if found.ratio == 1.0 else wording.speed(found),
            value=found.ratio,
            low=found.ratio_low,
            high=found.ratio_high,
            css=f"{series(variant.engine)} {variant.verdict}",
            sides=sides[variant.form],
            key=mark_key(target, variant),
        )
        for variant, found in timed(target)
    ]
    label = f"speed against float of {len(rows)} variants for {target.target}"
    return interval_rows(rows, label, marks=((1.0, "one", ""),), is_log=True, tick=lambda value: f"{value:g}×") if rows else None
