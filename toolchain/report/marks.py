"""How does a variant look and what does it say, wherever on the page it is drawn?

Colour tells its engine, shape the network it was made from, the fill its verdict.
"""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from toolchain.pipeline.record import TargetResult, VariantResult
from toolchain.report import wording
from toolchain.report.svg import shape

SERIES = {"onnxruntime": "s1", "openvino": "s2", "tensorrt": "s3"}
SIDES = (0, 4, 3, 6, 5)
"""Corners of the marks of the first, second, ... form; further ones share the last."""


def series(engine: str) -> str:
    """CSS class of an engine's colour; engines of plug-ins share one."""
    return SERIES.get(engine, "s4")


def sides_of(forms: Sequence[str]) -> dict[str, int]:
    """Corners of each form's mark, in the order the forms first appear."""
    unique = list(dict.fromkeys(forms))
    return {form: SIDES[min(index, len(SIDES) - 1)] for index, form in enumerate(unique)}


def glyph(sides: int, css: str) -> Markup:
    """A mark in a line of text."""
    drawn = shape(sides, 7, 7, 4.6, f"mark {css}")
    return Markup(f'<svg class="glyph" viewBox="0 0 14 14" width="14" height="14" aria-hidden="true">{drawn}</svg>')


def variant_mark(target: TargetResult, variant: VariantResult, at: tuple[float, float], radius: float, sides: int) -> str:
    css = f"mark {series(variant.engine)} {variant.verdict}"
    return shape(sides, *at, radius, css, key=mark_key(target, variant), name=f"{variant.name}, {variant.verdict}")


def mark_key(target: TargetResult, variant: VariantResult) -> str:
    """What a variant's marks and its row in the table share, so that pointing at one lights the others."""
    return f"{target.target}/{variant.name}"


def tip(variant: VariantResult, *, classifies: bool) -> str:
    """Every figure of a variant, one line each; the first is its name. classifies: whether outputs can agree on a class."""
    return "\n".join(
        [variant.name, *_quality(variant, classifies), *_speed(variant), *_cost(variant), f"{variant.verdict}: {variant.reason}"]
    )


def _quality(variant: VariantResult, classifies: bool) -> list[str]:
    lines = [
        f"{each.name} {wording.quality(each.value)} ({wording.quality_interval(each)}, {each.split})" for each in variant.metrics
    ]
    worsening = wording.worsening(variant.metrics)
    lines.append(
        f"{worsening} {wording.drop(variant.drop)} ({wording.drop_interval(variant.drop)}, paired, n = {variant.drop.n:,})"
    )
    if variant.parity.relative >= 0:
        agreement = f", {100 * variant.parity.agreement:.1f} % agree" if classifies else ""
        lines.append(f"parity {variant.parity.relative:.3g}{agreement}")
    return lines


def _speed(variant: VariantResult) -> list[str]:
    found = variant.latency
    if found is None:
        return ["latency not measured for this target"]
    times = f"p50 {wording.latency(found.p50_ns)} · p90 {wording.latency(found.p90_ns)} · p99 {wording.latency(found.p99_ns)}"
    return [times, f"{wording.speed(found)} float's speed ({wording.speed_interval(found)})"]


def _cost(variant: VariantResult) -> list[str]:
    parts = [wording.size(variant.size_bytes), f"{variant.engine} {variant.precision}"]
    if variant.profile and variant.profile.peak_bytes is not None:
        parts.append(f"peak memory {wording.size(variant.profile.peak_bytes)}")
    if variant.profile and variant.profile.energy_uj is not None:
        parts.append(f"{wording.energy(variant.profile.energy_uj)} an inference")
    return [" · ".join(parts)]


def legend(target: TargetResult, sides: Mapping[str, int]) -> Markup:
    """What colours, shapes and fills mean, for those that occur."""
    engines = dict.fromkeys(variant.engine for variant in target.variants)
    items = [Markup("<span>{}<i>{}</i></span>").format(glyph(0, series(engine)), engine) for engine in engines]
    if len(sides) > 1:
        items += [Markup("<span>{}<i>{}</i></span>").format(glyph(count, "plain"), form) for form, count in sides.items()]
    found = {variant.verdict for variant in target.variants}
    if "rejected" in found:
        items.append(Markup("<span>{}<i>rejected</i></span>").format(glyph(0, "plain rejected")))
    return Markup("").join(items)
