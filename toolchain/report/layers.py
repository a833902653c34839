"""Where does an inference spend its time, operator by operator, beside the float baseline?"""

from collections.abc import Sequence

from markupsafe import Markup

from toolchain.pipeline.record import LayerResult, TargetResult, VariantResult
from toolchain.report import wording
from toolchain.report.intervals import FIGURE, ROW, row_label
from toolchain.report.marks import series, sides_of
from toolchain.report.svg import NARROW, WIDE, Frame, Scale, axes, clipped, drawing, rectangle, responsive, text

MOST_LAYERS = 14
"""Bars a variant gets; what is left is one more, so that the bars add up."""
KINDS = ("o1", "o2", "o3", "o4", "o5")
"""Colours of the operators that take most time; all others share one."""
OTHERS = "others"


def kinds(target: TargetResult) -> dict[str, str]:
    """Operator -> colour, those that take most time over all variants first. Empty: nothing was profiled."""
    spent: dict[str, float] = {}
    for variant in target.variants:
        for layer in variant.profile.layers if variant.profile else ():
            spent[layer.operator] = spent.get(layer.operator, 0) + layer.share
    ranked = sorted(spent, key=lambda name: -spent[name])
    return dict(zip(ranked, KINDS, strict=False)) | ({OTHERS: "o6"} if len(ranked) > len(KINDS) else {})


def operators(target: TargetResult) -> Markup | None:
    """One bar a profiled variant: its time by operator, all on one axis, the fastest first. None: nothing was profiled."""
    shown = [variant for variant in target.variants if variant.profile and variant.profile.layers]
    shown.sort(key=_total)
    if not shown:
        return None
    colours = kinds(target)
    sides = sides_of([variant.form for variant in target.variants])
    longest = max(map(_total, shown))

    def draw(width: float) -> str:
        frame = Frame(width, 36 + ROW * len(shown), left=12, right=FIGURE, top=6, bottom=28)
        x = Scale(0, longest * 1.02 or 1, *frame.x)
        parts = axes(frame, x, None, wording.latency_tick)
        for row, variant in enumerate(shown):
            top = frame.top + row * ROW
            parts += row_label(frame, top + 12, variant.name, sides[variant.form], f"{series(variant.engine)} {variant.verdict}")
            parts.append(text(frame.width - 4, top + 26, wording.latency(_total(variant)), "tick", "end"))
            start = 0.0
            for name, spent in by_operator(variant.profile.layers if variant.profile else (), colours).items():
                share = spent / (_total(variant) or 1)
                tip = [variant.name, f"{name}: {wording.latency(spent)}, {100 * share:.0f} % of its operators' time"]
                css = f"bar {colours.get(name, 'o6')}"
                parts.append(rectangle(x(start), top + 17, x(start + spent) - x(start), 10, css=css, tip=tip))
                start += spent
        return drawing(frame, parts)

    return responsive(draw, f"time by operator of {len(shown)} variants for {target.target}", WIDE)


def by_operator(layers: Sequence[LayerResult], colours: dict[str, str]) -> dict[str, float]:
    """ns per operator in the order of the colours; operators without one are summed as others."""
    spent = dict.fromkeys(colours, 0.0)
    for layer in layers:
        name = layer.operator if layer.operator in colours else OTHERS
        spent[name] = spent.get(name, 0.0) + layer.ns
    return {name: value for name, value in spent.items() if value}


def bars(variant: VariantResult, colours: dict[str, str], longest: float, wide: float) -> Markup | None:
    """One bar an operator of the graph, the slowest first, on an axis that ends at `longest` ns so that two can be compared."""
    if variant.profile is None or not variant.profile.layers:
        return None
    layers = sorted(variant.profile.layers, key=lambda layer: -layer.ns)
    shown, rest = layers[:MOST_LAYERS], layers[MOST_LAYERS:]
    if rest:
        name = f"{len(rest)} more"
        shown.append(
            LayerResult(name=name, operator=OTHERS, ns=sum(each.ns for each in rest), share=sum(each.share for each in rest))
        )
    row = 22

    def draw(width: float) -> str:
        frame = Frame(width, 34 + row * len(shown), left=208 if width > NARROW else 138, right=96, top=4, bottom=28)
        x = Scale(0, longest or 1, *frame.x)
        parts = axes(frame, x, None, wording.latency_tick)
        for index, layer in enumerate(shown):
            middle = frame.top + index * row + 11
            tip = [layer.name, f"{layer.operator}: {wording.latency(layer.ns)}, {100 * layer.share:.1f} % of all operators' time"]
            css = f"bar {colours.get(layer.operator, 'o6')}"
            parts += [
                text(frame.left - 8, middle + 4, clipped(layer.name, frame.left - 14, from_start=True), "name", "end"),
                rectangle(x(0), middle - 5.5, x(layer.ns) - x(0), 11, css=css, tip=tip),
                text(x(layer.ns) + 6, middle + 4, f"{wording.latency(layer.ns)} · {100 * layer.share:.0f} %", "tick"),
            ]
        return drawing(frame, parts)

    return responsive(draw, f"time of {len(shown)} operators of {variant.name}", wide)


def longest_bar(variants: Sequence[VariantResult]) -> float:
    """The longest bar `bars` would draw for any of the variants, ns."""
    found = [0.0]
    for variant in variants:
        times = sorted((layer.ns for layer in variant.profile.layers), reverse=True) if variant.profile else []
        found += [float(max(times[:1], default=0)), float(sum(times[MOST_LAYERS:]))]
    return max(found)


def _total(variant: VariantResult) -> float:
    return float(sum(layer.ns for layer in variant.profile.layers)) if variant.profile else 0.0
