"""Rollouts as an operator makes them, without the API in between."""

from fleet.control import Actor
from fleet.domain.gates import GateLimits
from fleet.domain.plan import Plan, Stage
from fleet.domain.rollout import RolloutEvent
from fleet.services import Services
from fleet.store.releases import ReleaseRepository
from fleet.store.twins import TwinRepository

STAGES = (Stage(count=1, soak_s=10), Stage(percent=50, soak_s=10), Stage(percent=100, soak_s=10))


def operator() -> Actor:
    return Actor("olga", "operator")


def start_rollout(
    services: Services,
    version: str,
    *,
    stages: tuple[Stage, ...] = STAGES,
    gates: GateLimits | None = None,
    start: bool = True,
    want_now: bool = False,
    **changes: object,
) -> str:
    """A rollout of `digits`, started unless told otherwise. want_now: tell every device at once, past the scheduler."""
    plan = Plan(model="digits", version=version, stages=stages, gates=gates or GateLimits(), **changes)  # type: ignore[arg-type]
    rollout, _ = services.control.create(plan, operator())
    if start:
        services.control.act(rollout, RolloutEvent.START, operator())
    if want_now:
        with services.database.write() as session:
            artifact = ReleaseRepository(session).artifacts("digits", version)[0]
            TwinRepository(session).want("gw-1", "digits", artifact.id, rollout, 1)
    return rollout
