"""Why was this variant chosen, in sentences that the measured numbers carry?"""

from toolchain.pipeline.record import TargetResult, VariantResult
from toolchain.report import wording


def chosen_variant(target: TargetResult) -> VariantResult:
    return next(variant for variant in target.variants if variant.name == target.chosen)


def points(target: TargetResult, max_drop: float) -> list[str]:
    """Facts behind the choice, each one sentence; nothing is claimed that its interval does not exclude."""
    chosen = chosen_variant(target)
    found = [_on_quality(target, chosen, max_drop), _on_speed(chosen), _on_limit(target, chosen), _on_size(target, chosen)]
    rejected = [variant.name for variant in target.variants if variant.verdict == "rejected"]
    if rejected:
        found.append(f"Rejected: {', '.join(rejected)}; the table says why.")
    return [point for point in found if point]


def baseline(target: TargetResult) -> VariantResult | None:
    """The float model the others are compared with: the one measured at exactly its own speed, else the first float one."""
    floats = [variant for variant in target.variants if variant.precision == "float32"]
    same = [variant for variant in floats if variant.latency and variant.latency.ratio == 1.0]
    return next(iter(same or floats), None)


def _on_quality(target: TargetResult, chosen: VariantResult, max_drop: float) -> str:
    start = baseline(target)
    if not chosen.metrics or start is None or not start.metrics or start is chosen:
        return ""
    mine, other = chosen.metrics[0], start.metrics[0]
    drop = (other.value - mine.value) * (1 if mine.goal == "max" else -1)
    change = f"{wording.quality(abs(drop))} {'worse' if drop > 0 else 'better'} than" if drop else "exactly"
    return f"Its {mine.split} {mine.name} is {change} the float model's {wording.quality(other.value)}; the recipe allows a drop of {max_drop:g}."


def _on_speed(chosen: VariantResult) -> str:
    if chosen.latency is None:
        return "Its latency was not measured on this host."
    if chosen.latency.ratio == 1.0:
        return f"It is the float baseline itself: {wording.latency(chosen.latency.p50_ns)} an inference."
    interval = wording.speed_interval(chosen.latency)
    return f"Measured side by side it is {wording.speed_claim(chosen.latency)} (95 % interval of the ratio: {interval})."


def _on_limit(target: TargetResult, chosen: VariantResult) -> str:
    if target.max_latency_ms is None or chosen.latency is None:
        return ""
    within = chosen.latency.p90_ns <= target.max_latency_ms * 1e6
    return f"Its 90th percentile, {wording.latency(chosen.latency.p90_ns)}, is {'within' if within else 'over'} the limit of {target.max_latency_ms:g} ms."


def _on_size(target: TargetResult, chosen: VariantResult) -> str:
    start = baseline(target)
    if start is None or start is chosen or not start.size_bytes:
        return ""
    share = 100 * chosen.size_bytes / start.size_bytes
    return f"Its model file takes {wording.size(chosen.size_bytes)}, {share:.0f} % of the float model's."
