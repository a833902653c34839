"""How do the parts become one running service, and how does it end?

Parts start in the order of `_parts` and stop in reverse: what devices say is taken in before they are let in, and the
database outlives everyone who writes to it. One that cannot start ends the service with its own error.
"""

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Protocol

import uvicorn

from fleet.app import create_app
from fleet.config import Config
from fleet.drift import DriftWatch
from fleet.edge import make_edge
from fleet.errors import ExternalError
from fleet.retention import Retention
from fleet.scheduler import Scheduler
from fleet.services import Services, open_services

log = logging.getLogger(__name__)

GRACE_S = 5
"""How long open requests may take to finish when the service goes down."""


class Part(Protocol):
    """Something that runs while the service runs."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@contextlib.asynccontextmanager
async def running(services: Services) -> AsyncIterator[None]:
    """All parts beside the API, for as long as the block lasts. Raises FleetError when one cannot start."""
    async with contextlib.AsyncExitStack() as started:
        for part in _parts(services):
            await part.start()
            started.push_async_callback(part.stop)
        yield


async def serve(config: Config, on_ready: Callable[[], None]) -> None:
    """Run the whole service until it is told to end. Raises FleetError."""
    with _listen(config.api.host, config.api.port) as listener, contextlib.closing(open_services(config)) as services:
        server = _Server(
            uvicorn.Config(
                create_app(services),
                lifespan="off",
                log_config=None,
                access_log=False,
                ws="none",
                timeout_graceful_shutdown=GRACE_S,
            )
        )

        def end() -> None:
            services.changes.close()  # open event streams would keep the server waiting for its whole grace
            server.should_exit = True

        # From here on a signal lets every part that has started stop: a broker left behind would hold its port.
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, end)
        async with running(services):
            on_ready()
            await server.serve(sockets=[listener])


def _parts(services: Services) -> list[Part]:
    scheduler: Scheduler | None = None

    def wake_scheduler() -> None:
        if scheduler is not None:
            scheduler.wake()

    edge = make_edge(services, wake_scheduler)
    settings = services.config.scheduler
    scheduler = Scheduler(services.database, services.changes, services.now_ms, settings, edge.publisher.wake)
    drift = DriftWatch(services.database, services.changes, services.now_ms, services.blobs.read, settings.drift_ms)
    retention = Retention(services.database, services.now_ms, services.config.retention)
    services.hooks.states.update(scheduler=lambda: scheduler.failure or "ok", drift=lambda: drift.failure or "ok")
    return [edge.recovery, edge.signer, edge.broker, edge.ingest, edge.publisher, scheduler, drift, retention, edge.door]


def _listen(host: str, port: int) -> socket.socket:
    """Bound before anything else starts, so that a second service on the same address touches nothing."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise ExternalError(f"the API cannot listen on {host}:{port}: {error.strerror}") from error


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which would end the process before the parts have stopped."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
