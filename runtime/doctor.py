"""What can this device run, and what in its set-up is wrong?"""

import os
import shutil
import socket
from collections.abc import Callable
from functools import partial

import msgspec

from runtime.backends.base import backend_names, get_backend
from runtime.backends.fallback import expected_engine
from runtime.config import Config
from runtime.contract.errors import ContractError
from runtime.errors import DaemonError, DiskFullError
from runtime.identity import client_context, read_identity
from runtime.profile import detect_profile
from runtime.update.slots import Slots

REACH_S = 5.0
MB = 1e6


class Finding(msgspec.Struct, frozen=True):
    what: str
    ok: bool
    detail: str


def examine(config: Config) -> list[Finding]:
    """Every check, whether or not one before it failed. Changes nothing."""
    profile = detect_profile(config.profile)
    return [
        Finding("device", bool(profile.profiles), f"{profile.arch}, fits {', '.join(profile.profiles) or 'no known profile'}"),
        Finding("engines", bool(profile.engines), _engines()),
        _checked("state directory", lambda: _state_directory(config)),
        *_models(config),
        _checked("identity", lambda: _identity(config)),
        _checked("fleet", lambda: _fleet(config)),
    ]


def _checked(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, check())
    except (DaemonError, ContractError, OSError) as error:
        return Finding(what, False, str(error))


def _engines() -> str:
    probed = {name: get_backend(name).probe() for name in backend_names()}
    return "; ".join(f"{name} {found.version if found.ok else 'missing: ' + found.reason}" for name, found in probed.items())


def _state_directory(config: Config) -> str:
    place = config.state_dir
    if not place.is_dir():
        nearest = next(parent for parent in place.parents if parent.is_dir())
        if not os.access(nearest, os.W_OK):
            raise PermissionError(f"{place} does not exist and {nearest} is not writable")
        return f"{place} will be made at the first start"
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{place} is not writable")
    free = shutil.disk_usage(place).free
    if free < config.update.reserve_bytes:
        raise DiskFullError(f"{place} has {free / MB:.0f} MB left: updates wait until there is room; free some space")
    return f"{place}, models: {', '.join(Slots(place).models()) or 'none'}; {free / MB:.0f} MB left"


def _models(config: Config) -> list[Finding]:
    """Which engine each installed model would get, and why no earlier one; no engine is loaded for it."""
    if not os.access(config.state_dir, os.R_OK | os.X_OK):
        return []  # absent, or not to be looked into by this user: the finding about it says so
    slots = Slots(config.state_dir)

    def engine(lane: str) -> str:
        slot = slots.active(lane)
        return "no version serves" if slot is None else str(expected_engine(slots.manifest(lane, slot).value))

    return [_checked(f"engine for {lane}", partial(engine, lane)) for lane in slots.lanes()]


def _identity(config: Config) -> str:
    identity = read_identity(config.state_dir)
    if identity is None or not identity.is_enrolled:
        return "none; this device belongs to no fleet (runtime enroll TOKEN)"
    client_context(config.state_dir)
    return f"{identity.device} of the fleet {identity.fleet}"


def _fleet(config: Config) -> str:
    identity = read_identity(config.state_dir)
    if identity is None or identity.broker is None:
        return "no fleet to reach"
    broker = identity.broker
    with (
        socket.create_connection((broker.host, broker.port), timeout=REACH_S) as wire,
        client_context(config.state_dir).wrap_socket(wire, server_hostname=broker.host) as secured,
    ):
        return f"broker {broker.host}:{broker.port} speaks {secured.version()}"
