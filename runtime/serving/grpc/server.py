"""How does the gRPC endpoint start, drain and stop? In the event loop of the HTTP one, with the same limits."""

import asyncio
import logging

import grpc

from runtime.errors import ConfigError
from runtime.serving.control import ModelControl
from runtime.serving.grpc.service import Service
from runtime.serving.grpc.telling import Telling
from runtime.serving.http.protocol import SWEEP_S, Hub
from runtime.serving.inference import Inference
from runtime.serving.limits import LimitSettings, ServingSettings
from runtime.serving.models.repository import Repository
from runtime.serving.regions import Regions

log = logging.getLogger(__name__)

_DRAIN_LOOK_S = 0.02


class GrpcServer:
    """A running endpoint. address: (host, port), with the real port where 0 was asked for."""

    def __init__(self, server: grpc.aio.Server, service: Service, telling: Telling, address: tuple[str, int]) -> None:
        self._server = server
        self._telling = telling
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())
        self.service = service
        self.address = address

    async def drain(self, grace_s: float) -> bool:
        """Take no new calls, answer what is under way, then stop. True when every client got its answer in time."""
        self._telling.is_draining = True
        self.service.drain()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace_s
        stopping = loop.create_task(self._server.stop(grace_s))
        while self.service.calls and loop.time() < deadline:
            await asyncio.sleep(_DRAIN_LOOK_S)
        is_complete = not self.service.calls
        await stopping
        self._sweeping.cancel()
        return is_complete

    async def close(self) -> None:
        """Stop at once; open calls are cut. Closing twice is no error."""
        self._telling.is_draining = True
        self.service.drain()
        await self._server.stop(None)
        self._sweeping.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.service.sweep()


async def serve_grpc(
    repository: Repository,
    inference: Inference,
    settings: ServingSettings,
    limits: LimitSettings,
    *,
    control: ModelControl,
    regions: Regions,
    hub: Hub,
) -> GrpcServer:
    """Offer the repository's models from now on. hub: of HTTP, which counts the bytes buffered.

    Raises ConfigError when the address cannot be bound.
    """
    telling = Telling(repository, control, regions, inference.joining)
    service = Service(repository, inference, limits, regions=regions, hub=hub, told=telling.table())
    server = grpc.aio.server(options=_options(limits), maximum_concurrent_rpcs=limits.connections)
    server.add_generic_rpc_handlers((service,))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError as error:
        raise ConfigError(f"cannot serve gRPC on {host}:{settings.grpc_port}: {error}") from error
    await server.start()
    log.info("serving gRPC on %s:%d", host, port)
    return GrpcServer(server, service, telling, (settings.host, port))


def _options(limits: LimitSettings) -> list[tuple[str, int]]:
    """What grpc itself is to refuse. Source: grpc's include/grpc/impl/channel_arg_names.h."""
    return [
        ("grpc.so_reuseport", 0),  # a port in use is an error, not a share of another daemon's calls
        ("grpc.max_receive_message_length", limits.body_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", limits.header_bytes),
        ("grpc.absolute_max_metadata_size", limits.header_bytes),
        ("grpc.max_concurrent_streams", limits.connections),
        ("grpc.max_allowed_incoming_connections", limits.connections),
        ("grpc.max_connection_idle_ms", limits.idle_s * 1000),
        ("grpc.server_handshake_timeout_ms", limits.request_s * 1000),
        ("grpc.http2.settings_timeout", limits.request_s * 1000),
        # A client that vanished without a word keeps nothing of the server's: it is asked, and has half as long to answer.
        ("grpc.keepalive_time_ms", limits.idle_s * 1000),
        ("grpc.keepalive_timeout_ms", limits.idle_s * 500),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ]
