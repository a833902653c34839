"""Which variant does a target get, and why not the others? Pure: the same evidence gives the same choice.

A variant that misses a limit is out. Of the rest the fastest wins, and where latency intervals overlap with its own, the first in
the profile's order, float before int8. Nothing that is not surely as fast as the float baseline replaces it.
"""

from collections.abc import Sequence

import msgspec

from toolchain.errors import LimitError
from toolchain.pipeline.products import CheckedModel, Choice, Judgement
from toolchain.pipeline.record import LatencyResult

NS_PER_MS = 1_000_000
BYTES_PER_KB = 1000


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A variant before the judge. latency is None where nothing was measured that counts for the target; unlike says why."""

    name: str
    checked: CheckedModel
    size_bytes: int
    latency: LatencyResult | None
    unlike: str = ""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """What the recipe and the flags demand. metric: name of the deciding one, for the reasons."""

    target: str
    metric: str
    max_drop: float
    max_latency_ms: float | None
    metric_limit: float | None = None
    max_size_kb: float | None = None
    allow_unmeasured: bool = False


def choose(candidates: Sequence[Candidate], baseline: str, rules: Rules, *, measured: bool) -> Choice:
    """Judge all candidates, given in the profile's order. Where none is left, `chosen` is "" and `nearest` names one.

    Raises LimitError when a latency limit cannot be checked here.
    """
    if not measured and rules.max_latency_ms is not None and not rules.allow_unmeasured:
        raise LimitError(
            f"target {rules.target}: max_latency_ms = {rules.max_latency_ms:g} cannot be checked, this host is no such device; "
            "build on one, pass --evidence, or accept it with --allow-unmeasured"
        )
    reasons = {candidate.name: _rejection(candidate, rules, measured=measured) for candidate in candidates}
    passing = [candidate for candidate in candidates if not reasons[candidate.name]]
    if not passing:
        return _none(candidates, reasons, rules)
    chosen, reason = (
        _pick(passing, baseline, is_judged=baseline in reasons)
        if measured
        else (passing[0], "not measured: first in the profile's order")
    )
    judgements = tuple(
        Judgement(name=candidate.name, verdict="rejected", reason=reasons[candidate.name])
        if reasons[candidate.name]
        else Judgement(name=candidate.name, verdict="chosen", reason=reason)
        if candidate is chosen
        else Judgement(name=candidate.name, verdict="passed", reason=_why_not(candidate, chosen, baseline))
        for candidate in candidates
    )
    return Choice(chosen=chosen.name, reason=reason, judgements=judgements)


def _rejection(candidate: Candidate, rules: Rules, *, measured: bool) -> str:
    if not candidate.checked.parity.ok:
        parity = candidate.checked.parity
        return (
            f"its outputs differ from the float model's: relative error {parity.relative:.2g}, agreement {parity.agreement:.4f}"
        )
    if candidate.checked.drop.value > rules.max_drop:
        falls = "rises" if candidate.checked.metrics[0].goal == "min" else "drops"
        return f"{rules.metric} {falls} by {candidate.checked.drop.value:.4f} on validation data, more than {rules.max_drop:g}"
    metric = candidate.checked.metrics[0]
    if rules.metric_limit is not None and (metric.value - rules.metric_limit) * (1 if metric.goal == "max" else -1) < 0:
        return f"{rules.metric} is {metric.value:.4f} on validation data, the limit {rules.metric_limit:g}"
    if rules.max_size_kb is not None and candidate.size_bytes > rules.max_size_kb * BYTES_PER_KB:
        return f"size is {candidate.size_bytes / BYTES_PER_KB:.1f} kB, the limit {rules.max_size_kb:g} kB"
    if not measured:
        return ""
    if candidate.latency is None:
        return candidate.unlike
    if rules.max_latency_ms is not None and candidate.latency.p90_ns > rules.max_latency_ms * NS_PER_MS:
        return f"p90 latency is {_ms(candidate.latency)} ms, the limit {rules.max_latency_ms:g} ms"
    return ""


def _pick(passing: Sequence[Candidate], baseline: str, *, is_judged: bool) -> tuple[Candidate, str]:
    """The first in order among those that cannot be told from the fastest; the baseline stays unless surely beaten.

    is_judged: whether the target has the baseline's engine at all.
    """
    fastest = max(passing, key=lambda candidate: _latency(candidate).ratio)
    for candidate in passing:
        tied = _latency(candidate).ratio_high >= _latency(fastest).ratio_low
        if tied and (candidate.name == baseline or _latency(candidate).ratio_low > 1):
            break
    else:
        candidate = next((item for item in passing if item.name == baseline), passing[0])
    if candidate.name == baseline:
        return candidate, "the float baseline, and nothing that passed is surely faster"
    if _latency(candidate).ratio_low <= 1:
        why = "the float baseline missed a limit" if is_judged else "the fastest of this target's engines"
        return candidate, f"{why}; {_times(candidate)} the baseline's speed"
    return candidate, f"{_times(candidate)} the speed of the float baseline" + (
        "" if candidate is fastest else f", not to be told from {fastest.name}, and first in the profile's order"
    )


def _why_not(candidate: Candidate, chosen: Candidate, baseline: str) -> str:
    if candidate.latency is None or chosen.latency is None:
        return "behind in the profile's order"
    if candidate.name == baseline:
        return f"{chosen.name} is surely faster"
    if candidate.latency.ratio_high < chosen.latency.ratio_low:
        return f"slower than {chosen.name}: {_times(candidate)} the speed of the float baseline"
    if candidate.latency.ratio_low <= 1:
        return f"not surely faster than the float baseline: {_times(candidate)} its speed"
    return f"not to be told from {chosen.name}, and behind it in the profile's order"


def _none(candidates: Sequence[Candidate], reasons: dict[str, str], rules: Rules) -> Choice:
    """Which variant came closest: by what it misses, latency before size before the metric, for that is how much is met."""
    slow = [item for item in candidates if reasons[item.name].startswith("p90")]
    large = [item for item in candidates if reasons[item.name].startswith("size")]
    if slow:
        nearest = min(slow, key=lambda item: _latency(item).p90_ns)
        text = f"no variant meets max_latency_ms = {rules.max_latency_ms:g}; nearest is {nearest.name} with p90 {_ms(_latency(nearest))} ms"
    elif large:
        nearest = min(large, key=lambda item: item.size_bytes)
        text = f"no variant meets max_size_kb = {rules.max_size_kb:g}; nearest is {nearest.name} with {nearest.size_bytes / BYTES_PER_KB:.1f} kB"
    else:
        nearest = min(candidates, key=lambda item: (not item.checked.parity.ok, item.checked.drop.value))
        text = f"no variant passed; nearest is {nearest.name}: {reasons[nearest.name]}"
    judgements = tuple(Judgement(name=item.name, verdict="rejected", reason=reasons[item.name]) for item in candidates)
    return Choice(chosen="", reason=f"target {rules.target}: {text}", judgements=judgements, nearest=nearest.name)


def _latency(candidate: Candidate) -> LatencyResult:
    if candidate.latency is None:
        raise AssertionError(f"{candidate.name} passed a measured choice without a latency")
    return candidate.latency


def _ms(latency: LatencyResult) -> str:
    return f"{latency.p90_ns / NS_PER_MS:.3f}"


def _times(candidate: Candidate) -> str:
    latency = _latency(candidate)
    return f"{latency.ratio:.2f}x ({latency.ratio_low:.2f} to {latency.ratio_high:.2f})"
