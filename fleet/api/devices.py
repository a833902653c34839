"""Devices: who they are, what they serve, and who may become one."""

import secrets
from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.concurrency import run_in_threadpool

from fleet.api.auth import Admin, Operator, ServicesDep, Viewer, hash_token
from fleet.api.enrolment import enrolment_token
from fleet.api.models import (
    DeviceDrift,
    DeviceView,
    DriftView,
    EnrolmentAnswer,
    EnrolmentRequest,
    EventView,
    WindowView,
    show_device,
)
from fleet.api.paging import Cursor, Limit, Page, number, page
from fleet.control import Actor
from fleet.services import Services
from fleet.store.access import AccessRepository
from fleet.store.devices import DeviceRepository
from fleet.store.drift import DriftRepository
from fleet.store.tables import Enrolment
from fleet.store.telemetry import TelemetryRepository

router = APIRouter(tags=["devices"])

DeviceId = Annotated[str, Path(max_length=200)]
"""Wider than the grammar of ids, so that a wrong one is 404 like any other that does not exist."""


@router.get("/devices")
def list_devices(services: ServicesDep, _: Viewer, limit: Limit = 100, cursor: Cursor = None) -> Page[DeviceView]:
    with services.database.read() as session:
        rows = DeviceRepository(session).page(cursor or "", limit + 1)
        return page(rows, limit, lambda row: show_device(session, row), lambda row: row.id)


@router.get("/devices/{device}")
def get_device(device: DeviceId, services: ServicesDep, _: Viewer) -> DeviceView:
    with services.database.read() as session:
        return show_device(session, DeviceRepository(session).get(device))


@router.delete("/devices/{device}", status_code=204)
async def revoke_device(device: DeviceId, services: ServicesDep, actor: Admin) -> None:
    """Bar a device: from the broker, the door and every rollout. Its id stays taken and its history stays readable."""
    await run_in_threadpool(_revoke, services, device, actor)
    for tell in services.hooks.on_revoked:
        await tell()


@router.get("/devices/{device}/windows")
def list_windows(
    device: DeviceId,
    services: ServicesDep,
    _: Viewer,
    *,
    model: Annotated[str | None, Query(max_length=200)] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[WindowView]:
    """Newest first."""
    with services.database.read() as session:
        DeviceRepository(session).get(device)
        rows = TelemetryRepository(session).window_page(device, model, number(cursor), limit + 1)
        return page(rows, limit, WindowView.model_validate, lambda row: row.id)


@router.get("/devices/{device}/events")
def list_events(device: DeviceId, services: ServicesDep, _: Viewer, limit: Limit = 100, cursor: Cursor = None) -> Page[EventView]:
    """Newest first."""
    with services.database.read() as session:
        DeviceRepository(session).get(device)
        rows = TelemetryRepository(session).event_page(device, number(cursor), limit + 1)
        return page(rows, limit, EventView.model_validate, lambda row: row.id)


@router.get("/devices/{device}/drift")
def get_drift(device: DeviceId, services: ServicesDep, _: Viewer) -> DeviceDrift:
    """The newest judgement of each model on the device, streams that changed most first."""
    with services.database.read() as session:
        DeviceRepository(session).get(device)
        rows = DriftRepository(session).of_device(device)
        return DeviceDrift(device=device, models=[DriftView.model_validate(row) for row in rows])


@router.post("/enrolments", status_code=201)
def create_enrolment(body: EnrolmentRequest, services: ServicesDep, actor: Operator) -> EnrolmentAnswer:
    """A one-time token that lets a device in; only its digest is kept, so it is shown this once.

    Repeating the call makes another token; the one that was lost expires unused.
    """
    secret = secrets.token_urlsafe(32)
    now_ms = services.now_ms()
    expires_ms = now_ms + body.ttl_s * 1000
    with services.database.write() as session:
        row = DeviceRepository(session).add_enrolment(
            Enrolment(
                secret_sha256=hash_token(secret),
                device=body.device,
                labels=body.labels,
                created_ms=now_ms,
                created_by=actor.name,
                expires_ms=expires_ms,
            )
        )
        detail = {"device": body.device, "labels": body.labels, "ttl_s": body.ttl_s}
        AccessRepository(session).record(actor.name, actor.role, "enrolment.create", str(row.id), detail=detail, now_ms=now_ms)
    return EnrolmentAnswer(token=enrolment_token(services, secret), expires_ms=expires_ms)


def _revoke(services: Services, device: str, actor: Actor) -> None:
    now_ms = services.now_ms()
    with services.database.write() as session:
        DeviceRepository(session).revoke(device, now_ms)
        AccessRepository(session).record(actor.name, actor.role, "device.revoke", device, detail={}, now_ms=now_ms)
    services.changes.publish("device", device)
