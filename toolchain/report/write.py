"""How does a build's result become one self-contained page, and the same numbers as JSON?"""

from functools import partial
from pathlib import Path

import msgspec
from markupsafe import Markup

from toolchain.files import write_durably
from toolchain.pipeline.choose import BYTES_PER_KB, NS_PER_MS
from toolchain.pipeline.record import BuildResult, TargetResult, VariantResult
from toolchain.recipe import TargetSection
from toolchain.report import intervals, layers, making, marks, pareto, search, timing, why
from toolchain.report.confusion import Confusion, summarise
from toolchain.report.page import render_page
from toolchain.report.reproduce import commands
from toolchain.report.svg import HALF, WIDE

JSON_NAME = "report.json"


class Blame(msgspec.Struct, frozen=True):
    """Why one int8 variant does not pay."""

    name: str
    sentence: str


class LayerView(msgspec.Struct, frozen=True, kw_only=True):
    """Where time goes. bars: the chosen variant's and the float baseline's, by name."""

    kinds: dict[str, str]
    operators: Markup
    bars: dict[str, Markup]
    blames: list[Blame]


class TargetView(msgspec.Struct, frozen=True, kw_only=True):
    """One target's section: its result beside everything drawn from it. sides: corners of each form's mark."""

    result: TargetResult
    section: TargetSection
    chosen: VariantResult
    baseline: VariantResult | None
    points: list[str]
    sides: dict[str, int]
    legend: Markup
    by_latency: Markup | None
    by_size: Markup | None
    latencies: Markup | None
    speeds: Markup | None
    layers: LayerView | None
    drops: Markup | None
    resolution: str
    slices: list[tuple[str, int, Markup]]
    confusion: Confusion | None

    @property
    def is_baseline(self) -> bool:
        return self.baseline is self.chosen


def write_report(result: BuildResult, path: Path) -> None:
    """Write the page to `path` (report.html) and the result as report.json beside it, each replaced whole."""
    write_durably(path, render(result).encode())
    raw = msgspec.json.format(msgspec.json.encode(result, order="deterministic"), indent=1)
    write_durably(path.with_name(JSON_NAME), raw + b"\n")


def render(result: BuildResult) -> str:
    """The page: style, script and drawings inside it, so that it needs neither network nor other files."""
    return render_page(
        "report.html.j2",
        result=result,
        targets=[_view(target, result) for target in result.targets],
        training=making.training(result.training, result.recipe.metrics[0].name) if result.training else None,
        balance=making.balance(result.data.classes, result.data.class_counts),
        stages=making.stages(result.stages) if result.stages else None,
        search=search.view(result.tuning, result.recipe.metrics[0].name),
        recipe=msgspec.json.format(msgspec.json.encode(result.recipe), indent=2).decode(),
        commands=commands(result),
    )


def _view(target: TargetResult, result: BuildResult) -> TargetView:
    metric, section, baseline = result.recipe.metrics[0], why.section_of(target, result.recipe), why.baseline(target)
    floor = _metric_limit(baseline, metric.max_drop)
    trade_off = partial(pareto.trade_off, target)
    latency, size = section.max_latency_ms, section.max_size_kb
    return TargetView(
        result=target,
        section=section,
        chosen=why.chosen_variant(target),
        baseline=baseline,
        points=why.points(target, result.recipe, result.forms),
        sides=marks.sides_of([variant.form for variant in target.variants]),
        legend=marks.legend(target, marks.sides_of([variant.form for variant in target.variants])),
        by_latency=trade_off("latency", (latency * NS_PER_MS if latency else None, floor)),
        by_size=trade_off("size", (size * BYTES_PER_KB if size else None, floor)),
        latencies=timing.distributions(target),
        speeds=timing.speeds(target),
        layers=_layers(target, baseline),
        drops=None if why.chosen_variant(target) is baseline else intervals.drops(target, metric.max_drop, metric.name),
        resolution=why.resolution(target, metric.name),
        slices=intervals.slice_columns(target),
        confusion=summarise(target.confusion, result.data.classes),
    )


def _metric_limit(baseline: VariantResult | None, max_drop: float) -> float | None:
    """The metric's value at which the recipe's drop is used up."""
    if baseline is None or not baseline.metrics:
        return None
    metric = baseline.metrics[0]
    return metric.value - max_drop if metric.goal == "max" else metric.value + max_drop


def _layers(target: TargetResult, baseline: VariantResult | None) -> LayerView | None:
    operators = layers.operators(target)
    if operators is None:
        return None
    colours = layers.kinds(target)
    shown = [variant for variant in dict.fromkeys((target.chosen, baseline.name if baseline else "")) if variant]
    pair = [variant for name in shown for variant in target.variants if variant.name == name]
    longest = layers.longest_bar(pair)
    wide = HALF if len(pair) > 1 else WIDE
    bars = {variant.name: layers.bars(variant, colours, longest, wide) for variant in pair}
    return LayerView(
        kinds=colours,
        operators=operators,
        bars={name: drawn for name, drawn in bars.items() if drawn is not None},
        blames=[Blame(each.name, each.profile.blame) for each in target.variants if each.profile and each.profile.blame],
    )
