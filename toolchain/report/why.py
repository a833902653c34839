"""Why was this variant chosen and not another, in sentences that the measured numbers carry?"""

from collections.abc import Mapping, Sequence

import msgspec

from toolchain.pipeline.choose import BYTES_PER_KB, NS_PER_MS
from toolchain.pipeline.record import FormResult, TargetResult, VariantResult
from toolchain.recipe import Recipe, TargetSection
from toolchain.report import wording

MOST_NAMES = 4
"""Names a sentence lists; the table has all."""


def chosen_variant(target: TargetResult) -> VariantResult:
    return next(variant for variant in target.variants if variant.name == target.chosen)


def baseline(target: TargetResult) -> VariantResult | None:
    """The float model the others are compared with: the one measured at exactly its own speed, else the first float one."""
    floats = [variant for variant in target.variants if variant.precision == "float32"]
    same = [variant for variant in floats if variant.latency and variant.latency.ratio == 1.0]
    return next(iter(same or floats), None)


def section_of(target: TargetResult, recipe: Recipe) -> TargetSection:
    """The recipe's table of this target; one that the command line added has no limits."""
    return next((each for each in recipe.targets if each.profile == target.profile), TargetSection(profile=target.profile))


def points(target: TargetResult, recipe: Recipe, forms: Sequence[FormResult]) -> list[str]:
    """Facts behind the choice, each one sentence; nothing is claimed that its interval does not exclude."""
    chosen, section = chosen_variant(target), section_of(target, recipe)
    found = [
        _on_field(target, forms),
        *_on_cuts(target, recipe, section),
        _on_quality(target, chosen, recipe.metrics[0].max_drop),
        _on_speed(target, chosen),
        _on_rivals(target, chosen),
        _on_limits(chosen, section),
        _on_form(chosen, forms),
        _on_size(target, chosen),
    ]
    return [point for point in found if point]


def resolution(target: TargetResult, name: str) -> str:
    """What the test split cannot tell, and where the drop on it lies against that."""
    if not target.metrics or target.resolution <= 0:
        return ""
    n = target.metrics[0].n
    found = f"With its {n:,} examples the test split cannot tell differences of {name} below {wording.quality(target.resolution)} from none"
    if chosen_variant(target) is baseline(target):
        return f"{found}. The chosen variant is the float model itself."
    seen = "above" if abs(target.drop.value) >= target.resolution else "below"
    return f"{found}; the chosen variant's {wording.worsening(target.metrics)} of {wording.drop(target.drop)} is {seen} that."


def cuts(target: TargetResult, recipe: Recipe) -> dict[str, list[str]]:
    """Rejected variants by the limit that cut them ("outputs", "metric", "size", "latency") or else by their reason, in the order a variant is judged."""
    section, limit = section_of(target, recipe), recipe.metrics[0].max_drop
    if not target.measured:
        section = msgspec.structs.replace(section, max_latency_ms=None)
    found: dict[str, list[str]] = {}
    for variant in target.variants:
        if variant.verdict == "rejected":
            found.setdefault(_cut(variant, section, limit), []).append(variant.name)
    return found


def _cut(variant: VariantResult, section: TargetSection, max_drop: float) -> str:
    if not variant.parity.ok:
        return "outputs"
    if variant.drop.value > max_drop:
        return "metric"
    if section.max_size_kb and variant.size_bytes > section.max_size_kb * BYTES_PER_KB:
        return "size"
    if variant.latency and section.max_latency_ms and variant.latency.p90_ns > section.max_latency_ms * NS_PER_MS:
        return "latency"
    return variant.reason


def _on_field(target: TargetResult, forms: Sequence[FormResult]) -> str:
    """How much was tried."""
    if len(target.variants) == 1:
        return ""
    used = list(dict.fromkeys(variant.form for variant in target.variants))
    of = f" of {wording.several(len(used), 'form')} ({wording.listed(used)})" if len(used) > 1 else ""
    dropped = [form.name for form in forms if not form.kept]
    left = f"; {wording.listed(dropped)} helped too little to become any" if dropped else ""
    return f"{wording.several(len(target.variants), 'variant')}{of} were judged{left}."


def _on_cuts(target: TargetResult, recipe: Recipe, section: TargetSection) -> list[str]:
    metric = recipe.metrics[0]
    words: Mapping[str, str] = {
        "outputs": "give outputs too unlike the float model's",
        "metric": f"raise {metric.name} by more than {metric.max_drop:g}"
        if wording.worsening(target.metrics) == "rise"
        else f"lose more than {metric.max_drop:g} {metric.name}",
        "latency": f"miss the latency limit of {section.max_latency_ms or 0:g} ms",
        "size": f"are larger than {section.max_size_kb or 0:g} kB",
    }
    found = []
    for limit, names in cuts(target, recipe).items():
        if limit not in words:
            found.append(f"{_names(names)} {'are' if len(names) > 1 else 'is'} out: {limit.rstrip('.')}.")
            continue
        verb, _, rest = words[limit].partition(" ")
        text = words[limit] if len(names) > 1 else f"{_SINGULAR[verb]} {rest}"
        found.append(f"{_names(names)} {text}.")
    return found


_SINGULAR = {"give": "gives", "lose": "loses", "raise": "raises", "miss": "misses", "are": "is"}


def _names(names: Sequence[str]) -> str:
    if len(names) <= MOST_NAMES:
        return wording.listed(names)
    return f"{', '.join(names[: MOST_NAMES - 1])} and {len(names) - MOST_NAMES + 1} more"


def _on_quality(target: TargetResult, chosen: VariantResult, max_drop: float) -> str:
    start = baseline(target)
    if not chosen.metrics or start is None or not start.metrics or start is chosen:
        return ""
    split, name, worsening = chosen.metrics[0].split, chosen.metrics[0].name, wording.worsening(chosen.metrics)
    return f"On {split} data its {name} is {wording.drop_claim(chosen.drop)}; the recipe allows a {worsening} of {max_drop:g}."


def _on_speed(target: TargetResult, chosen: VariantResult) -> str:
    if chosen.latency is None:
        return "Its latency was not measured on this host." if not target.measured else "It was not measured for this target."
    if chosen.latency.ratio == 1.0:
        return f"It is the float baseline itself: {wording.latency(chosen.latency.p50_ns)} an inference."
    interval = wording.speed_interval(chosen.latency)
    return f"Measured side by side it is {wording.speed_claim(chosen.latency)} (95 % interval of the ratio: {interval})."


def _on_rivals(target: TargetResult, chosen: VariantResult) -> str:
    """The best of those that lost: why float stayed, or what a faster one was missing."""
    others = [
        variant for variant in target.variants if variant is not chosen and variant.latency and variant.latency.ratio != 1.0
    ]
    if not others or chosen.latency is None:
        return ""
    fastest = max(others, key=lambda variant: variant.latency.ratio if variant.latency else 0)
    passed = [variant for variant in others if variant.verdict == "passed"]
    said = []
    if chosen.latency.ratio == 1.0:
        said.append(_why_float(passed))
    if fastest.verdict == "rejected" and fastest.latency and fastest.latency.ratio_low > max(chosen.latency.ratio_high, 1):
        said.append(f"{fastest.name} is faster, {wording.speed(fastest.latency)}, and out: {fastest.reason.rstrip('.')}.")
    return " ".join(text for text in said if text)


def _why_float(passed: Sequence[VariantResult]) -> str:
    """Float won because nothing that passed is surely faster; the nearest is named with its interval."""
    if not passed:
        return "No other variant kept within the limits."
    nearest = max(passed, key=lambda variant: variant.latency.ratio_low if variant.latency else 0)
    if nearest.latency is None:
        return ""
    found = nearest.latency
    reach = (
        "which includes 1" if found.ratio_low <= 1 <= found.ratio_high else "which ends below 1" if found.ratio_high < 1 else ""
    )
    if not reach:
        return ""  # something was surely faster, so speed is not why float was chosen
    blamed = nearest.profile.blame if nearest.profile else ""
    return (
        f"Nothing that passed is surely faster: the nearest, {nearest.name}, is at {wording.speed(found)} with an interval of "
        f"{wording.speed_interval(found)}, {reach}{f' ({blamed})' if blamed else ''}."
    )


def _on_limits(chosen: VariantResult, section: TargetSection) -> str:
    said = []
    if section.max_latency_ms is not None and chosen.latency is not None:
        within = chosen.latency.p90_ns <= section.max_latency_ms * NS_PER_MS
        p90 = wording.latency(chosen.latency.p90_ns)
        said.append(f"its 90th percentile, {p90}, is {'within' if within else 'over'} the limit of {section.max_latency_ms:g} ms")
    if section.max_size_kb is not None:
        within = chosen.size_bytes <= section.max_size_kb * BYTES_PER_KB
        said.append(f"its file is {'within' if within else 'over'} {section.max_size_kb:g} kB")
    return wording.sentence(", and ".join(said))


def _on_form(chosen: VariantResult, forms: Sequence[FormResult]) -> str:
    base = next((form for form in forms if form.control is None), None)
    own = next((form for form in forms if form.name == chosen.form), None)
    if own is None or base is None or own is base or not base.macs or not base.parameters:
        return ""
    macs, parameters = wording.share(own.macs, base.macs), wording.share(own.parameters, base.parameters)
    return f"Its form, {own.name}, needs {macs} of the base's multiplications and {parameters} of its parameters."


def _on_size(target: TargetResult, chosen: VariantResult) -> str:
    start = baseline(target)
    if start is None or start is chosen or not start.size_bytes:
        return ""
    share = wording.share(chosen.size_bytes, start.size_bytes)
    return f"Its model file takes {wording.size(chosen.size_bytes)}, {share} of the float model's."
