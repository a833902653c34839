"""What do the parts of the service share, and how is it opened from a home folder?"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fleet.blobs import LocalBlobs
from fleet.changes import Changes
from fleet.config import Config
from fleet.control import RolloutControl
from fleet.errors import SetupError
from fleet.pki import Authority
from fleet.store.database import Database
from fleet.trust.keys import ServiceKeys
from fleet.trust.store import TrustStore

KEYS, CA, TUF, BLOBS, BROKER = "keys", "ca", "tuf", "blobs", "broker"
"""Folders of the home."""
ADMIN_TOKEN = "admin.token"
"""Written last by `fleet init`, so that its presence says the home is complete."""


@dataclass(frozen=True)
class Hooks:
    """What the running parts tell the rest. on_revoked: awaited after a device was barred; states: "ok" or what fails."""

    on_revoked: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    states: dict[str, Callable[[], str]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Services:
    """One open home. now_ms: Unix milliseconds."""

    config: Config
    database: Database
    changes: Changes
    trust: TrustStore
    blobs: LocalBlobs
    authority: Authority
    control: RolloutControl
    now_ms: Callable[[], int]
    hooks: Hooks = field(default_factory=Hooks)

    def close(self) -> None:
        self.changes.close()
        self.database.close()


def wall_clock_ms() -> int:
    return time.time_ns() // 1_000_000


def open_services(config: Config, now_ms: Callable[[], int] = wall_clock_ms) -> Services:
    """Open a home that `fleet init` made, bringing its tables up to date. Raises SetupError or StoreError."""
    home = config.home
    if not (home / ADMIN_TOKEN).exists():
        raise SetupError(f"{home} is not a fleet's home; make one with `fleet init --root root.json --home {home}`")
    database = Database(config.database_url)
    database.migrate()
    changes = Changes()
    return Services(
        config=config,
        database=database,
        changes=changes,
        trust=TrustStore(home / TUF, ServiceKeys(home / KEYS)),
        blobs=LocalBlobs(home / BLOBS, config.limits.blob_bytes),
        authority=Authority(home / CA),
        control=RolloutControl(database, changes, now_ms),
        now_ms=now_ms,
    )
