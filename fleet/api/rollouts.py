"""Rollouts: create, start, watch, pause, resume, approve, roll back."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response

from fleet.api.auth import Operator, ServicesDep, Viewer
from fleet.api.models import (
    RolloutRequest,
    RolloutSummary,
    RolloutView,
    VerdictView,
    show_rollout,
    show_summary,
)
from fleet.api.paging import Cursor, Limit, Page, page
from fleet.domain.rollout import RolloutEvent
from fleet.services import Services
from fleet.store.rollouts import RolloutRepository

router = APIRouter(prefix="/rollouts", tags=["rollouts"])


@router.post("", status_code=201)
def create_rollout(
    body: RolloutRequest,
    response: Response,
    services: ServicesDep,
    actor: Operator,
    idempotency_key: Annotated[str | None, Header(max_length=150)] = None,
) -> RolloutView:
    """Plan a rollout without starting it. The same Idempotency-Key and body give the same rollout, with status 200."""
    rollout, is_new = services.control.create(body.plan(), actor, idempotency_key)
    if not is_new:
        response.status_code = 200
    response.headers["location"] = f"/api/v1/rollouts/{rollout}"
    return _view(services, rollout)


@router.get("")
def list_rollouts(services: ServicesDep, _: Viewer, limit: Limit = 100, cursor: Cursor = None) -> Page[RolloutSummary]:
    """Newest first."""
    with services.database.read() as session:
        rows = RolloutRepository(session).page(cursor, limit + 1)
        return page(rows, limit, show_summary, lambda row: row.id)


@router.get("/{rollout}")
def get_rollout(rollout: str, services: ServicesDep, _: Viewer) -> RolloutView:
    return _view(services, rollout)


@router.get("/{rollout}/verdicts")
def list_verdicts(
    rollout: str, services: ServicesDep, _: Viewer, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[VerdictView]:
    """What the gates said, newest evaluation first."""
    with services.database.read() as session:
        repository = RolloutRepository(session)
        repository.get(rollout)
        return [VerdictView.model_validate(row) for row in repository.verdicts(rollout, limit)]


@router.post("/{rollout}/{action}")
def act(
    rollout: str,
    action: Literal["start", "pause", "resume", "approve", "rollback"],
    services: ServicesDep,
    actor: Operator,
) -> RolloutView:
    services.control.act(rollout, RolloutEvent(action), actor)
    return _view(services, rollout)


def _view(services: Services, rollout: str) -> RolloutView:
    with services.database.read() as session:
        repository = RolloutRepository(session)
        return show_rollout(repository.get(rollout), repository.job_rows(rollout), repository.verdicts(rollout))
