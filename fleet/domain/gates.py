"""May a stage go on, given how its devices behave?

A gate judges devices, each against its own past under the previous artifact; one bad device fails it. These are fixed
rules with a minimum number of rows. They fail closed: too little, missing or unreadable evidence holds. Every rule asks
for a change that is both large enough to matter and far outside chance, so that a gate may be asked again and again.
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, Protocol

import msgspec
from msgspec import Meta

from fleet.domain.evidence import Behaviour, DeviceEvidence, Evidence
from fleet.domain.jobs import JobState

Decision = Literal["pass", "fail", "hold"]
Ratio = Annotated[float, Meta(ge=0, le=1)]

CHANCE_Z = 4.0
"""Standard errors a shift must exceed: one look in 16,000 by chance, so a soak of some hundred looks stays quiet."""
ROUNDING = 1e-9
"""A change of exactly the limit passes, whatever binary fractions make of it."""
FINDINGS_KEPT = 20
"""Devices listed in a verdict, worst first; the counts cover all."""


class GateLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rollout tolerates. Ratios are 0..1.

    min_rows: requests, and monitored rows, a device needs on each side before it is judged; 0 switches the gates that
    look at windows off. max_failed_updates: devices that may fail to update. max_error_ratio: how far the share of failed
    requests may rise. max_latency_ratio: how far the median latency may grow. max_class_shift, max_confidence_shift: how
    far a class's share, or the mean confidence, may move.
    """

    min_rows: Annotated[int, Meta(ge=0, le=10_000_000)] = 100
    max_failed_updates: Annotated[int, Meta(ge=0)] = 0
    max_error_ratio: Ratio = 0.01
    max_latency_ratio: Annotated[float, Meta(ge=1)] = 1.5
    max_class_shift: Ratio = 0.05
    max_confidence_shift: Ratio = 0.05


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate found on one device. subject: which class, for instance; rows: on the smaller side."""

    device: str
    decision: Decision
    reason: str
    subject: str = ""
    before: float | None = None
    after: float | None = None
    rows: int = 0
    severity: float = 0.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What a gate says of a stage. limit: the threshold in force; passed, failed, held: devices by finding."""

    gate: str
    decision: Decision
    reason: str
    limit: float
    passed: int = 0
    failed: int = 0
    held: int = 0
    findings: tuple[Finding, ...] = ()


class Gate(Protocol):
    @property
    def name(self) -> str: ...

    def judge(self, evidence: Evidence) -> Verdict: ...


class FailedUpdates:
    """Fails when more devices than allowed report that their update did not work."""

    name = "failed_updates"

    def __init__(self, limits: GateLimits) -> None:
        self._limit = limits.max_failed_updates

    def judge(self, evidence: Evidence) -> Verdict:
        failed = [device.job for device in evidence.devices if device.job.state is JobState.FAILED]
        findings = tuple(
            Finding(device=job.device, decision="fail", reason=f"its update ended with {job.error_code}", subject=job.error_code)
            for job in failed[:FINDINGS_KEPT]
        )
        succeeded = sum(device.job.state is JobState.SUCCEEDED for device in evidence.devices)
        decision: Decision = "fail" if len(failed) > self._limit else "pass"
        reason = f"{len(failed)} of {len(failed) + succeeded} updates failed, {self._limit} tolerated"
        return Verdict(
            gate=self.name,
            decision=decision,
            reason=reason,
            limit=float(self._limit),
            passed=succeeded,
            failed=len(failed),
            findings=findings,
        )


Judge = Callable[[Behaviour, Behaviour], Finding]
"""Compares one device's two sides (before, after), both with rows enough; leaves `device` and `rows` to its caller."""


class AgainstOwnPast:
    """Any rule that compares a device with itself: fails if one device fails, holds while one is not known well enough."""

    def __init__(self, name: str, limit: float, min_rows: int, counted: Callable[[Behaviour], int], judge: Judge) -> None:
        """counted: the number of observations the rule rests on, compared with min_rows on both sides."""
        self.name = name
        self._limit = limit
        self._min_rows = min_rows
        self._counted = counted
        self._judge = judge

    def judge(self, evidence: Evidence) -> Verdict:
        updated = [device for device in evidence.devices if device.job.state is JobState.SUCCEEDED]
        if not self._min_rows:
            return Verdict(gate=self.name, decision="pass", reason="switched off by min_rows = 0", limit=self._limit)
        findings = sorted((self._look(device) for device in updated), key=_worst_first)
        return _summary(self.name, self._limit, findings)

    def _look(self, device: DeviceEvidence) -> Finding:
        name = device.job.device
        if device.unreadable:
            return Finding(device=name, decision="hold", reason=f"unreadable evidence: {device.unreadable}")
        before = Behaviour() if device.before is None else device.before
        rows = self._counted(device.after)
        if rows < self._min_rows:
            reason = f"{rows} of {self._min_rows} rows since the update"
            return Finding(device=name, decision="hold", reason=reason, rows=rows)
        if device.before is not None and self._counted(before) < self._min_rows:
            reason = f"{self._counted(before)} of {self._min_rows} rows before the update"
            return Finding(device=name, decision="hold", reason=reason, rows=self._counted(before))
        found = self._judge(before, device.after)
        return msgspec.structs.replace(found, device=name, rows=rows)


def build_gates(limits: GateLimits) -> tuple[Gate, ...]:
    """All gates of a rollout, in the order their verdicts are shown."""
    rows = limits.min_rows
    return (
        FailedUpdates(limits),
        AgainstOwnPast("error_share", limits.max_error_ratio, rows, _requests, _error_rule(limits.max_error_ratio)),
        AgainstOwnPast("latency", limits.max_latency_ratio, rows, _timed, _latency_rule(limits.max_latency_ratio)),
        AgainstOwnPast("class_mix", limits.max_class_shift, rows, _classified, _class_rule(limits.max_class_shift)),
        AgainstOwnPast("confidence", limits.max_confidence_shift, rows, _rated, _confidence_rule(limits.max_confidence_shift)),
    )


def _requests(behaviour: Behaviour) -> int:
    return behaviour.requests


def _timed(behaviour: Behaviour) -> int:
    return sum(behaviour.latency.values())


def _classified(behaviour: Behaviour) -> int:
    """A model without classes has nothing to compare; its rows stand in, so that it is judged (and passes)."""
    return sum(behaviour.classes) or behaviour.rows


def _rated(behaviour: Behaviour) -> int:
    return sum(behaviour.confidence) or behaviour.rows


def _error_rule(limit: float) -> Judge:
    def judge(before: Behaviour, after: Behaviour) -> Finding:
        past, present = before.error_share or 0.0, after.error_share or 0.0
        # A first version has no past: then only its own share is uncertain, and zero is what it is held against.
        error = _share_error(past, before.requests, present, after.requests) if before.requests else 0.0
        reason = f"{present:.1%} of requests fail, {past:.1%} before"
        found = _shift(reason, past, present, error=error, limit=limit)
        return found if present > past else msgspec.structs.replace(found, decision="pass", severity=0.0)

    return judge


def _latency_rule(limit: float) -> Judge:
    def judge(before: Behaviour, after: Behaviour) -> Finding:
        past, present = before.median_latency_ns, after.median_latency_ns
        if past is None or present is None:
            return _finding(False, "nothing ran here before to compare with", None, _milliseconds(present))
        reason = f"median {present / 1e6:.3g} ms, {past / 1e6:.3g} ms before"
        return _finding(
            present > limit * past, reason, _milliseconds(past), _milliseconds(present), severity=present / (limit * past)
        )

    return judge


def _class_rule(limit: float) -> Judge:
    def judge(before: Behaviour, after: Behaviour) -> Finding:
        n_before, n_after = sum(before.classes), sum(after.classes)
        if not n_before or not n_after:
            return _finding(False, "no classes on both sides to compare", None, None)
        findings = []
        for index in range(max(len(before.classes), len(after.classes))):
            past, present = before.class_share(index), after.class_share(index)
            error = _share_error(past, n_before, present, n_after)
            reason = f"class {index}: {present:.1%} of predictions, {past:.1%} before"
            findings.append(_shift(reason, past, present, error=error, limit=limit, subject=str(index)))
        return min(findings, key=_worst_first)

    return judge


def _confidence_rule(limit: float) -> Judge:
    def judge(before: Behaviour, after: Behaviour) -> Finding:
        past, present = before.confidence_moments, after.confidence_moments
        if past is None or present is None:
            return _finding(False, "no confidence on both sides to compare", None, None)
        error = math.sqrt(past[1] / past[2] + present[1] / present[2])
        reason = f"mean confidence {present[0]:.3f}, {past[0]:.3f} before"
        return _shift(reason, past[0], present[0], error=error, limit=limit)

    return judge


def _shift(reason: str, past: float, present: float, *, error: float, limit: float, subject: str = "") -> Finding:
    """Fails a move that is beyond the limit and beyond chance alike."""
    moved = abs(present - past)
    is_worse = moved > limit + ROUNDING and moved > CHANCE_Z * error
    severity = moved / max(limit, CHANCE_Z * error, 1e-9)
    return _finding(is_worse, reason, past, present, severity=severity, subject=subject)


def _share_error(past: float, n_past: int, present: float, n_present: int) -> float:
    """Standard error of the difference of two shares under their pooled share. Source: two-proportion z-test."""
    pooled = (past * n_past + present * n_present) / (n_past + n_present)
    return math.sqrt(pooled * (1 - pooled) * (1 / n_past + 1 / n_present))


def _finding(
    is_worse: bool, reason: str, before: float | None, after: float | None, *, severity: float = 0.0, subject: str = ""
) -> Finding:
    decision: Decision = "fail" if is_worse else "pass"
    return Finding(device="", decision=decision, reason=reason, subject=subject, before=before, after=after, severity=severity)


def _milliseconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e6


_ORDER: dict[Decision, int] = {"fail": 0, "hold": 1, "pass": 2}


def _worst_first(finding: Finding) -> tuple[int, float, str]:
    return _ORDER[finding.decision], -finding.severity, finding.device


def _summary(gate: str, limit: float, findings: Sequence[Finding]) -> Verdict:
    """One verdict from its devices' findings, which are in order, worst first."""
    counts = {decision: sum(found.decision == decision for found in findings) for decision in _ORDER}
    if not findings:
        decision: Decision = "hold"
        reason = "no device has finished its update"
    else:
        decision = findings[0].decision
        reason = f"{findings[0].device}: {findings[0].reason}"
    return Verdict(
        gate=gate,
        decision=decision,
        reason=reason,
        limit=limit,
        passed=counts["pass"],
        failed=counts["fail"],
        held=counts["hold"],
        findings=tuple(findings[:FINDINGS_KEPT]),
    )
