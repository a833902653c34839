"""How does a build's result become one self-contained page, and the same numbers as JSON?"""

import shlex
from pathlib import Path

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from toolchain.files import write_durably
from toolchain.pipeline.record import BuildResult, TargetResult, VariantResult
from toolchain.report import plots, why, wording
from toolchain.report.confusion import Confusion, summarise

JSON_NAME = "report.json"
_FILTERS = (
    "latency", "size", "seconds", "quality", "quality_interval", "speed", "speed_interval", "short", "sentence", "moment", "splits",
)  # fmt: skip


class TargetView(msgspec.Struct, frozen=True, kw_only=True):
    """One target's section: its result beside everything drawn from it."""

    result: TargetResult
    chosen: VariantResult
    points: list[str]
    by_latency: Markup | None
    by_size: Markup | None
    latencies: Markup | None
    speeds: Markup | None
    is_baseline: bool
    confusion: Confusion | None


def write_report(result: BuildResult, path: Path) -> None:
    """Write the page to `path` (report.html) and the result as report.json beside it, each replaced whole."""
    write_durably(path, render(result).encode())
    raw = msgspec.json.format(msgspec.json.encode(result, order="deterministic"), indent=1)
    write_durably(path.with_name(JSON_NAME), raw + b"\n")


def render(result: BuildResult) -> str:
    """The page: style, script and drawings inside it, so that it needs neither network nor other files."""
    loader = PackageLoader("toolchain.report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update({name: getattr(wording, name) for name in _FILTERS})
    asset = loader.get_source
    return environment.get_template("report.html.j2").render(
        result=result,
        targets=[_view(target, result) for target in result.targets],
        training=plots.training(result.training, result.recipe.metrics[0].name) if result.training else None,
        balance=plots.balance(result.data.classes, result.data.class_counts),
        stages=plots.stages(result.stages) if result.stages else None,
        series=plots.SERIES,
        mark_key=plots.mark_key,
        recipe=msgspec.json.format(msgspec.json.encode(result.recipe), indent=2).decode(),
        command=shlex.join(["toolchain", "build", Path(result.recipe_path).name]),
        style=Markup(asset(environment, "report.css")[0]),
        script=Markup(asset(environment, "report.js")[0]),
    )


def _view(target: TargetResult, result: BuildResult) -> TargetView:
    return TargetView(
        result=target,
        chosen=why.chosen_variant(target),
        points=why.points(target, result.recipe.metrics[0].max_drop),
        by_latency=plots.trade_off(target, "latency"),
        by_size=plots.trade_off(target, "size"),
        latencies=plots.latencies(target),
        speeds=plots.speeds(target),
        is_baseline=why.baseline(target) is why.chosen_variant(target),
        confusion=summarise(target.confusion, result.data.classes),
    )
