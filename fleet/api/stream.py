"""What changes, as it changes: server-sent events {kind, id}, so that nobody has to poll."""

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from fleet.api.auth import ServicesDep, Viewer
from fleet.changes import Change, Changes
from fleet.errors import BusyError

router = APIRouter(tags=["service"])

HEARTBEAT_S = 15.0
"""Shows both ends that the other lives; below the idle limits of common proxies (60 s)."""


@router.get("/stream", response_class=StreamingResponse)
async def stream(services: ServicesDep, _: Viewer) -> StreamingResponse:
    """Notices only: what changed is read through the other endpoints."""
    if services.changes.listeners >= services.config.limits.stream_clients:
        raise BusyError(f"{services.changes.listeners} streams are open already, which is the limit")
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(change_events(services.changes), media_type="text/event-stream", headers=headers)


async def change_events(changes: Changes) -> AsyncIterator[str]:
    """Changes as server-sent events, with a comment when nothing has changed for a while."""
    with changes.listen() as notices:
        yield ": listening\n\n"
        waiting = asyncio.ensure_future(_next(notices))
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=HEARTBEAT_S)
                if not done:
                    yield ": still here\n\n"
                    continue
                change = waiting.result()
                if change is None:
                    return
                yield f"event: change\ndata: {json.dumps(change._asdict())}\n\n"
                waiting = asyncio.ensure_future(_next(notices))
        finally:
            waiting.cancel()


async def _next(notices: AsyncIterator[Change]) -> Change | None:
    return await anext(notices, None)
