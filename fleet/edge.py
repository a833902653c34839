"""Which parts face devices, and how do they fit together?

Each part has `start()` and `stop()`; `make_edge` builds them from an open home. First comes what a crash may have left to
mend, then what devices say is taken in, and last they are let in.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select

from fleet.broker import Broker
from fleet.config import Config
from fleet.door import Door, make_app
from fleet.ingest.service import Ingest
from fleet.mqtt import Link
from fleet.pki import PUBLISHER
from fleet.publication import restore
from fleet.publisher import Publisher
from fleet.services import BROKER, Services
from fleet.store.tables import Device
from fleet.trust.signer import MetadataSigner

WILDCARDS = ("", "0.0.0.0", "::")


log = logging.getLogger(__name__)


class Recovery:
    """Mends at the start what a crash may have left behind: half-uploaded blobs, releases the database does not know."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def start(self) -> None:
        """Done when this returns."""
        await asyncio.to_thread(self._services.blobs.sweep)
        if added := await asyncio.to_thread(restore, self._services):
            log.warning("%d signed artifacts were not in the database and are again", added)

    async def stop(self) -> None:
        """Nothing runs on."""


@dataclass(frozen=True, kw_only=True)
class Edge:
    """The parts that face devices and the broker, in the order in which they should start."""

    recovery: Recovery
    signer: MetadataSigner
    broker: Broker
    ingest: Ingest
    publisher: Publisher
    door: Door


def make_edge(services: Services, on_reports: Callable[[], None]) -> Edge:
    """Build the parts and tell the rest of the service about them: what a revocation does, and how they fare.

    on_reports: called from any thread when devices said something a scheduler should look at.
    """
    config = services.config
    now = datetime.fromtimestamp(services.now_ms() / 1000, UTC)
    server = services.authority.server(server_names(config), now)
    authority = services.authority.certificate_path
    broker = Broker(
        config.home / BROKER,
        config.broker,
        config.fleet.name,
        authority=authority,
        server=server,
        revoked=lambda: _revoked(services),
    )

    def link(role: str) -> Link:
        host = "127.0.0.1" if config.broker.host in WILDCARDS else config.broker.host
        return Link(
            host=host, port=config.broker.port, role=role, authority=authority, pair=services.authority.service(role, now)
        )

    app = make_app(services, device_broker_host(config), config.broker.port)
    edge = Edge(
        recovery=Recovery(services),
        signer=MetadataSigner(services.trust),
        broker=broker,
        ingest=Ingest(services.database, link, config.fleet.name, services.changes, on_reports),
        publisher=Publisher(services.database, services.trust, link(PUBLISHER), config.fleet.name, config.defaults),
        door=Door(app, config.door.host, config.door.port, server=server, authority=str(authority)),
    )
    services.hooks.on_revoked.append(broker.reload_access)
    services.hooks.states["broker"] = lambda: "ok" if broker.is_running else "mosquitto is not running"
    services.hooks.states["ingest"] = lambda: "ok" if edge.ingest.is_connected else "not connected to the broker"
    services.hooks.states["publisher"] = lambda: edge.publisher.state
    return edge


def server_names(config: Config) -> list[str]:
    """What the server certificate is for: the door's names, and the addresses bound."""
    bound = [host for host in (config.door.host, config.broker.host) if host not in WILDCARDS]
    return list(dict.fromkeys([*config.door.names, *bound]))


def device_broker_host(config: Config) -> str:
    """Where devices find the broker: at the door's first name when it is ours, else where it is configured to be."""
    return config.door.names[0] if config.broker.mode == "supervised" else config.broker.host


def _revoked(services: Services) -> list[str]:
    with services.database.read() as session:
        return list(session.scalars(select(Device.id).where(Device.revoked_ms.is_not(None))))
