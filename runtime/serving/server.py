"""How does the endpoint start, drain and stop? On TCP and, where configured, on a unix socket; in the running event loop."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runtime.errors import ConfigError, DaemonError, ExtraMissingError
from runtime.serving.control import ModelControl, Stored
from runtime.serving.http.app import App
from runtime.serving.http.protocol import SWEEP_S
from runtime.serving.inference import Inference, Joining
from runtime.serving.limits import LimitSettings, ServingSettings
from runtime.serving.metrics import Counts
from runtime.serving.models.repository import Repository
from runtime.serving.regions import NO_REGIONS, Regions

if TYPE_CHECKING:
    from runtime.serving.grpc.server import GrpcServer

log = logging.getLogger(__name__)

_DRAIN_LOOK_S = 0.02
# asyncio accepts, connects and disconnects in separate turns of its loop; only then are all sockets closed.
_CLOSING_TURNS = 4
_SOCKET_MODE = 0o660


class Server:
    """A running endpoint. addresses: (host, port) of each TCP socket, with the real port where 0 was asked for."""

    def __init__(self, app: App, listeners: list[asyncio.Server], settings: ServingSettings, inference: Inference) -> None:
        self._app = app
        self._hub = app.hub
        self._listeners = listeners
        self._settings = settings
        self.inference = inference
        self.grpc: GrpcServer | None = None
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())
        self.addresses = tuple(
            (name[0], name[1])
            for listener in listeners
            for name in (bound.getsockname() for bound in listener.sockets if bound.family != socket.AF_UNIX)
        )
        self.unix_socket = settings.unix_socket

    def show(self, counts: Counts) -> None:
        """Tell another way in's counts at /metrics too."""
        self._app.counts.append(counts)

    @property
    def connections(self) -> int:
        return len(self._hub.connections)

    async def drain(self) -> bool:
        """Take no new connections, answer what is under way, then stop. True when every client got its answer in time."""
        self._app.is_draining = True
        await self._stop_listening()
        self._hub.drain()
        loop = asyncio.get_running_loop()
        grpc_done = loop.create_task(self.grpc.drain(self._settings.drain_s)) if self.grpc else None
        deadline = loop.time() + self._settings.drain_s
        while self._hub.connections and loop.time() < deadline:
            await asyncio.sleep(_DRAIN_LOOK_S)
        is_complete = not self._hub.connections
        if grpc_done is not None:
            is_complete = await grpc_done and is_complete
        await self.close()
        return is_complete

    async def close(self) -> None:
        """Stop at once; open connections are cut. Closing twice is no error."""
        self._app.is_draining = True
        await self._stop_listening()
        self._hub.abort()
        if self.grpc is not None:
            await self.grpc.close()
        await _turns()
        self._app.close()
        self._sweeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._sweeping
        if self.unix_socket:
            Path(self.unix_socket).unlink(missing_ok=True)

    async def _stop_listening(self) -> None:
        """Accept nothing more, but finish what is being accepted: asyncio leaks a socket accepted in the turn of a close."""
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            for bound in listener.sockets:
                loop.remove_reader(bound.fileno())
        await _turns()
        for listener in self._listeners:
            listener.close()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self._hub.sweep()
            self._app.regions.sweep()


def load_grpc() -> "Callable[..., Awaitable[GrpcServer]]":
    """What starts the gRPC endpoint; imported only when it is wanted. Raises ExtraMissingError."""
    try:
        from runtime.serving.grpc.server import serve_grpc
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("grpc", "google"):
            raise
        raise ExtraMissingError('serving.grpc needs an extra: pip install "edgewright[grpc]"') from error
    return serve_grpc


async def _turns() -> None:
    for _ in range(_CLOSING_TURNS):
        await asyncio.sleep(0)


async def serve(
    repository: Repository,
    settings: ServingSettings,
    limits: LimitSettings,
    stored: Stored = Stored(),  # noqa: B008 - a tuple
) -> Server:
    """Offer the repository's models from now on. Returns once connections are accepted. stored: models to load on request.

    Raises ConfigError when an address cannot be bound, ExtraMissingError for gRPC without its extra.
    """
    inference = Inference(
        repository,
        inline_ns=settings.inline_us * 1000,
        alone_ns=settings.alone_us * 1000 if settings.inline_us else 0,
        waiting=limits.waiting,
        inference_s=limits.inference_s,
        joining=Joining(settings.batch_rows, settings.batch_delay_us / 1e6),
    )
    control = ModelControl(stored, is_allowed=settings.model_control)
    regions = Regions(is_offered=settings.shared_memory != "never")
    by_network = settings.offers_shared_memory
    app = App(
        repository,
        inference,
        limits,
        control=control,
        regions=regions,
    )
    loop = asyncio.get_running_loop()
    listeners: list[asyncio.Server] = []
    try:
        listeners.append(
            await loop.create_server(partial(app.hub.connection, shares_memory=by_network), settings.host, settings.port)
        )
        if settings.unix_socket:
            listeners.append(await loop.create_unix_server(partial(app.hub.connection, shares_memory=True), settings.unix_socket))
            Path(settings.unix_socket).chmod(_SOCKET_MODE)
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise ConfigError(f"cannot serve on {settings.host}:{settings.port} {settings.unix_socket}: {error}") from error
    server = Server(app, listeners, settings, inference)
    if settings.grpc:
        try:
            start_grpc = load_grpc()
            shared = regions if by_network else NO_REGIONS
            server.grpc = await start_grpc(repository, inference, settings, limits, control=control, regions=shared, hub=app.hub)
            app.counts.append(("edgewright_grpc_calls_total", "gRPC calls by status.", server.grpc.service.answered))
        except DaemonError:
            await server.close()
            raise
    log.info("serving on %s", ", ".join([f"{host}:{port}" for host, port in server.addresses] + [server.unix_socket]))
    return server
