"""What needs attention, what was done, what is in order: alerts, audit log, health and API tokens."""

from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel

from fleet.api.auth import Admin, ServicesDep, Viewer, hash_token, new_token
from fleet.api.models import AlertView, AuditView, TokenAnswer, TokenRequest, TokenView
from fleet.api.paging import Cursor, Limit, Page, number, page
from fleet.errors import StoreError
from fleet.store.access import AccessRepository
from fleet.store.alerts import AlertRepository

router = APIRouter()


class HealthAnswer(BaseModel):
    """status: "ok", or "failing" when a part is not; parts: what each says of itself."""

    status: str
    fleet: str
    parts: dict[str, str]


@router.get("/health", tags=["service"])
def health(services: ServicesDep, response: Response) -> HealthAnswer:
    """Open to all: says whether the service works, nothing about the fleet's devices. 503 while a part fails."""
    parts = {"database": "ok", **{name: state() for name, state in services.hooks.states.items()}}
    try:
        with services.database.read() as session:
            AlertRepository(session).page(None, 1)
    except StoreError as error:
        parts["database"] = str(error)
    is_ok = all(state == "ok" for state in parts.values())
    response.status_code = 200 if is_ok else 503
    return HealthAnswer(status="ok" if is_ok else "failing", fleet=services.config.fleet.name, parts=parts)


@router.get("/alerts", tags=["oversight"])
def list_alerts(
    services: ServicesDep,
    _: Viewer,
    *,
    only_open: Annotated[bool, Query(alias="open")] = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[AlertView]:
    """Newest first."""
    with services.database.read() as session:
        rows = AlertRepository(session).page(number(cursor), limit + 1, only_open=only_open)
        return page(rows, limit, AlertView.model_validate, lambda row: row.id)


@router.get("/audit", tags=["oversight"])
def list_audit(services: ServicesDep, _: Admin, limit: Limit = 100, cursor: Cursor = None) -> Page[AuditView]:
    """Who changed what, newest first."""
    with services.database.read() as session:
        rows = AccessRepository(session).audit_page(number(cursor), limit + 1)
        return page(rows, limit, AuditView.model_validate, lambda row: row.id)


@router.get("/tokens", tags=["access"])
def list_tokens(services: ServicesDep, _: Admin) -> list[TokenView]:
    with services.database.read() as session:
        return [TokenView.model_validate(row) for row in AccessRepository(session).tokens()]


@router.post("/tokens", tags=["access"], status_code=201)
def create_token(body: TokenRequest, services: ServicesDep, actor: Admin) -> TokenAnswer:
    """A credential for a person or a program; only its digest is kept, so it is shown this once."""
    token = new_token()
    now_ms = services.now_ms()
    expires_ms = now_ms + body.ttl_s * 1000 if body.ttl_s else None
    with services.database.write() as session:
        access = AccessRepository(session)
        access.add_token(body.name, hash_token(token), body.role, now_ms, expires_ms)
        access.record(actor.name, actor.role, "token.create", body.name, detail={"role": body.role}, now_ms=now_ms)
    return TokenAnswer(name=body.name, role=body.role, token=token, expires_ms=expires_ms)


@router.delete("/tokens/{name}", tags=["access"], status_code=204)
def revoke_token(name: str, services: ServicesDep, actor: Admin) -> None:
    now_ms = services.now_ms()
    with services.database.write() as session:
        access = AccessRepository(session)
        access.revoke_token(name, now_ms)
        access.record(actor.name, actor.role, "token.revoke", name, detail={}, now_ms=now_ms)
