"""The live page of one rollout."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.dashboard.reading.rollouts import JobFacts, RolloutPageFacts
from fleet.dashboard.views import status, wording
from fleet.dashboard.views.actions import Action, actions_of
from fleet.dashboard.views.gates import GateCard, gate_cards
from fleet.dashboard.views.rollouts import progress_text, stage_status, stage_title, stages_of, state_badge
from fleet.dashboard.views.status import Badge
from fleet.dashboard.views.timeline import TimelineEntry, timeline
from fleet.domain.plan import Stage
from fleet.domain.rollout import RolloutState
from fleet.store.tables import Rollout

S = RolloutState


@dataclass(frozen=True)
class DeviceChip:
    device: str
    state: Badge


@dataclass(frozen=True)
class StageColumn:
    """One stage on the track. soak: share of the soak that is over, None when it is not soaking."""

    number: int
    title: str
    status: Badge
    is_current: bool
    rule: str
    devices: tuple[DeviceChip, ...]
    more: int
    counts: str
    soak: float | None
    soak_text: str
    waits: str


@dataclass(frozen=True)
class JobRow:
    device: str
    stage: int
    change: tuple[str, str]
    target: str
    state: Badge
    step: str
    error_code: str
    error_detail: str
    attempt: int
    took: str


@dataclass(frozen=True)
class RolloutPage:
    id: str
    model: str
    version: str
    state: Badge
    state_name: str
    reason: str
    stopped: bool
    lead: str
    stages: tuple[StageColumn, ...]
    actions: tuple[Action, ...]
    gates: tuple[GateCard, ...]
    gates_note: str
    jobs: tuple[JobRow, ...]
    jobs_text: str
    more_jobs: int
    timeline: tuple[TimelineEntry, ...]
    plan: tuple[tuple[str, str], ...]


CHIPS = 48
"""Devices drawn per stage; beyond that the count says the rest."""


def rollout_page(facts: RolloutPageFacts, *, can_operate: bool, now: float) -> RolloutPage:
    rollout = facts.rollout
    stages = stages_of(rollout)
    gates = gate_cards(facts.verdicts, rollout.stage, now)
    return RolloutPage(
        id=rollout.id,
        model=rollout.model,
        version=rollout.version,
        state=state_badge(rollout.state),
        state_name=rollout.state,
        reason=rollout.reason,
        stopped=rollout.state in (S.PAUSED, S.ROLLING_BACK, S.ROLLED_BACK),
        lead=_lead(rollout, len(stages), now),
        stages=tuple(_stage(facts, stage, index, now) for index, stage in enumerate(stages)),
        actions=actions_of(rollout, stages, _told(facts.counts), can_operate=can_operate),
        gates=gates,
        gates_note="" if gates else _no_gates(rollout.state),
        jobs=tuple(_job_row(rollout, one, now) for one in facts.jobs),
        jobs_text=progress_text(_states(facts.counts)),
        more_jobs=sum(facts.counts.values()) - len(facts.jobs),
        timeline=tuple(timeline(facts)),
        plan=tuple(_plan(rollout.plan)),
    )


def _lead(rollout: Rollout, stages: int, now: float) -> str:
    created = rollout.created_ms / 1000
    if rollout.finished_ms is not None:
        return f"created by {rollout.created_by}, took {wording.duration(rollout.finished_ms / 1000 - created)}"
    return f"stage {min(rollout.stage + 1, stages)} of {stages}, created by {rollout.created_by} {wording.ago(created, now)}"


def _stage(facts: RolloutPageFacts, stage: Stage, index: int, now: float) -> StageColumn:
    rollout = facts.rollout
    mine = [one for one in facts.jobs if one.job.stage == index]
    states = _states({key: amount for key, amount in facts.counts.items() if key[0] == index})
    badge = stage_status(rollout.state, rollout.stage, index)
    is_current = index == rollout.stage and rollout.state not in (S.DONE, S.ROLLED_BACK, S.CREATED)
    soak = _soak(rollout, stage, now) if is_current else None
    return StageColumn(
        number=index + 1,
        title=stage_title(stage),
        status=badge,
        is_current=is_current,
        rule=_rule(stage),
        devices=tuple(DeviceChip(one.job.device, _job_state(rollout, one)) for one in mine[:CHIPS]),
        more=states.total() - len(mine[:CHIPS]),
        counts=progress_text(states) if states else "no further device",
        soak=soak[0] if soak else None,
        soak_text=soak[1] if soak else "",
        waits=_waits(rollout, mine, now) if is_current else "",
    )


def _waits(rollout: Rollout, jobs: Sequence[JobFacts], now: float) -> str:
    """Which devices the stage cannot go on without, though nobody hears from them."""
    silent = [one for one in jobs if is_awaited(rollout, one) and one.silent_ms is not None]
    if not silent:
        return ""
    rest = f" and {len(silent) - 1} more" if len(silent) > 1 else ""
    return f"waits for {silent[0].job.device}{rest}: {_silence(silent[0], now)}"


def is_awaited(rollout: Rollout, one: JobFacts) -> bool:
    """Whether the rollout still expects something of this device."""
    if one.job.state == "pending":
        return rollout.state in (S.UPDATING, S.PAUSED)
    return one.job.state in ("dispatched", "returning")


def _silence(one: JobFacts, now: float) -> str:
    if one.silent_ms is None:
        return ""
    return f"offline, last seen {wording.ago(one.silent_ms / 1000 or None, now)}"


def _rule(stage: Stage) -> str:
    soak = f"{wording.duration(stage.soak_s)} soak" if stage.soak_s else "no soak"
    return f"{soak}, then approval" if stage.approval else f"{soak}, then on"


def _soak(rollout: Rollout, stage: Stage, now: float) -> tuple[float, str] | None:
    if rollout.state != S.SOAKING or not stage.soak_s:
        return None
    passed = now - rollout.progress.get("entered_ms", 0) / 1000
    if passed >= stage.soak_s:
        return 1.0, "soak over, waits for the gates"
    return max(passed, 0.0) / stage.soak_s, f"{wording.duration(stage.soak_s - passed)} of soak left"


def _states(counts: Mapping[tuple[int, str], int]) -> Counter[str]:
    """Devices per job state, whatever their stage."""
    states: Counter[str] = Counter()
    for (_, state), amount in counts.items():
        states[state] += amount
    return states


def _told(counts: Mapping[tuple[int, str], int]) -> int:
    states = _states(counts)
    return sum(states[state] for state in ("dispatched", "succeeded", "failed"))


def _no_gates(state: str) -> str:
    if state == S.CREATED:
        return "The gates judge as soon as the first stage has begun."
    return "No verdict yet: the gates judge once the first devices have reported."


def _job_row(rollout: Rollout, one: JobFacts, now: float) -> JobRow:
    job = one.job
    took = wording.duration((job.finished_ms - job.dispatched_ms) / 1000) if job.finished_ms and job.dispatched_ms else ""
    speaks = one.now is not None and (one.now.rollout, one.now.attempt) == (job.rollout, job.attempt) and one.now.state != "idle"
    return JobRow(
        device=job.device,
        stage=(job.stage or 0) + 1,
        change=(one.previous or "nothing", one.artifact.version),
        target=one.artifact.target,
        state=_job_state(rollout, one),
        step=(_silence(one, now) if is_awaited(rollout, one) else "")
        or (status.installed(one.now.state, one.now.outcome).text if speaks and one.now else ""),
        error_code=job.error_code,
        error_detail=job.error_detail,
        attempt=job.attempt,
        took=took,
    )


def _job_state(rollout: Rollout, one: JobFacts) -> Badge:
    is_over = rollout.state in (S.ROLLING_BACK, S.ROLLED_BACK)
    return status.NEVER_TOLD if is_over and one.job.state == "pending" else status.job(one.job.state)


def _plan(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    labels = ", ".join(f"{key} = {value}" for key, value in sorted((plan.get("labels") or {}).items()))
    where = [
        labels,
        plan.get("profile") and f"profile {plan['profile']}",
        plan.get("current_version") and f"on {plan['current_version']}",
    ]
    gates = plan.get("gates") or {}
    return [
        ("Devices", "; ".join(part for part in where if part) or "the whole fleet"),
        ("When a gate fails", "pause" if plan.get("on_failure") == "pause" else "roll back"),
        ("At the same time", wording.plural(plan["concurrency"], "device") if plan.get("concurrency") else "a whole stage"),
        ("Devices without an artifact", "are left out" if plan.get("skip_missing") else "refuse the plan"),
        ("Rows before a gate judges", wording.count(gates["min_rows"]) if "min_rows" in gates else "default"),
    ]
