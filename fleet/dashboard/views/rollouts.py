"""A rollout: in brief for lists, and whole, as a track of stages with gates, devices and a timeline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fleet.dashboard.reading.overview import RolloutFacts
from fleet.dashboard.views import status, wording
from fleet.dashboard.views.status import Badge
from fleet.domain.plan import Stage
from fleet.domain.rollout import RolloutState
from fleet.store.tables import Rollout

S = RolloutState

_STATES: dict[str, Badge] = {
    S.CREATED: Badge("Not started", "idle", "planned; no device was told"),
    S.UPDATING: Badge("Updating", "busy", "devices of this stage are told and report"),
    S.SOAKING: Badge("Soaking", "busy", "all have reported, the gates watch"),
    S.AWAITING_APPROVAL: Badge("Needs approval", "warn", "gates pass, a person decides"),
    S.PAUSED: Badge("Paused", "warn", "nobody new is told"),
    S.ROLLING_BACK: Badge("Rolling back", "bad", "every device that was told goes back"),
    S.DONE: Badge("Done", "ok"),
    S.ROLLED_BACK: Badge("Rolled back", "bad"),
}


@dataclass(frozen=True)
class StageMark:
    number: int
    title: str
    status: Badge


@dataclass(frozen=True)
class RolloutCard:
    id: str
    href: str
    model: str
    version: str
    state: Badge
    reason: str
    stages: tuple[StageMark, ...]
    progress: float
    progress_text: str
    since: str
    created: str
    created_at: str
    by: str


def rollout_card(facts: RolloutFacts, now: float) -> RolloutCard:
    rollout = facts.rollout
    done, total = facts.jobs.get("succeeded", 0), sum(facts.jobs.values())
    end = (rollout.finished_ms or now * 1000) / 1000
    created = rollout.created_ms / 1000
    return RolloutCard(
        id=rollout.id,
        href=f"/rollouts/{rollout.id}",
        model=rollout.model,
        version=rollout.version,
        state=state_badge(rollout.state),
        reason=rollout.reason,
        stages=tuple(stage_marks(rollout, stages_of(rollout))),
        progress=done / total if total else 0.0,
        progress_text=progress_text(facts.jobs),
        since=f"took {wording.duration(end - created)}"
        if rollout.finished_ms
        else f"running for {wording.duration(end - created)}",
        created=wording.ago(created, now),
        created_at=wording.clock(created),
        by=rollout.created_by,
    )


def progress_text(by_state: Mapping[str, int]) -> str:
    """ "3 of 8 devices updated, 1 failed": what moved, and what did not go well. by_state: devices per job state."""
    total = sum(by_state.values())
    if not total:
        return "no device yet"
    parts = [f"{by_state.get('succeeded', 0)} of {wording.plural(total, 'device')} updated"]
    parts += [f"{by_state[state]} {word}" for state, word in _ASIDE if by_state.get(state)]
    return ", ".join(parts)


_ASIDE = (
    ("dispatched", "updating"),
    ("failed", "failed"),
    ("returning", "going back"),
    ("returned", "went back"),
    ("return_failed", "cannot go back"),
    ("withdrawn", "withdrawn"),
)


def state_badge(state: str) -> Badge:
    return _STATES.get(state) or status.unknown(state)


def stages_of(rollout: Rollout) -> list[Stage]:
    """The plan's stages; read leniently, so that a plan of a newer service still has a page."""
    return [
        Stage(
            percent=stage.get("percent"),
            count=stage.get("count"),
            soak_s=stage.get("soak_s", Stage().soak_s),
            approval=stage.get("approval", False),
        )
        for stage in rollout.plan.get("stages", ())
    ] or [Stage(percent=100)]


def stage_title(stage: Stage) -> str:
    return wording.plural(stage.count, "device") if stage.count is not None else f"{stage.percent or 100} %"


def stage_marks(rollout: Rollout, stages: Sequence[Stage]) -> list[StageMark]:
    return [
        StageMark(index + 1, stage_title(stage), stage_status(rollout.state, rollout.stage, index))
        for index, stage in enumerate(stages)
    ]


def stage_status(state: str, current: int, index: int) -> Badge:
    """What the track says of one stage: behind us, now, or ahead."""
    if state == S.DONE or (index < current and state != S.CREATED):
        return Badge("Passed", "ok")
    if state == S.CREATED:
        return Badge("Waiting", "idle")
    if index > current:
        return Badge("Not reached", "idle") if state in (S.ROLLING_BACK, S.ROLLED_BACK) else Badge("Waiting", "idle")
    if state in (S.ROLLING_BACK, S.ROLLED_BACK):
        return Badge("Stopped here", "bad")
    return state_badge(state)
