"""Which keys of a fleet service may act for us, and how do our own keys change?

Until `authorize` the fleet's root is the seed in which no service holds a role. Root version 2 gives snapshot and
timestamp to the service and nothing else; `director.json`, a signed target, names the key that orders deployments.
"""

from datetime import datetime, timedelta
from typing import Literal

import msgspec
from securesystemslib.signer import SSlibKey
from tuf.api.metadata import Root, TargetFile, Targets

from fleet.client import Client
from runtime.contract.errors import MetadataError
from runtime.contract.trust import DIRECTOR_TARGET, key_id
from toolchain.errors import KeysError
from toolchain.files import write_durably
from toolchain.package.fleet import reaching
from toolchain.package.keys import KeyFolder
from toolchain.package.sign import (
    S,
    director_document,
    first_root,
    list_document,
    next_root,
    next_targets,
    seal,
    service_key,
)
from toolchain.package.trusted import TrustedMetadata, fetch_current

SERVICE_ROLES = ("snapshot", "timestamp")
RENEW_BEFORE = timedelta(days=90)
"""`keys authorize` signs anew what expires within a quarter, so that running it now and then is all the upkeep there is."""

RotatedRole = Literal["root", "targets"]


class Authorization(msgspec.Struct, frozen=True, kw_only=True):
    """What was signed and uploaded. changed: False when the fleet already had all of it; ids: by role, of the service's keys."""

    changed: bool
    root_version: int
    targets_version: int
    ids: dict[str, str]


def create_root(keys: KeyFolder, now: datetime) -> bytes:
    """Make the root and targets keys and the seed root that a fleet is initialised with; returns the seed's bytes.

    Keys that an interrupted attempt left behind are used. Raises KeysError when the folder has a root already.
    """
    if keys.seed.exists():
        raise KeysError(f"{keys.seed} exists already: rotate its keys, or choose another folder with --dir")
    root_key, targets_key = keys.find_or_create(Root.type), keys.find_or_create(Targets.type)
    raw = seal(first_root(root_key.public_key, targets_key.public_key, now), [root_key])
    write_durably(keys.seed, raw)
    return raw


def authorize(client: Client, keys: KeyFolder, now: datetime) -> Authorization:
    """Let the service at the other end sign snapshot, timestamp and desired states. Doing it again changes nothing.

    Raises KeysError, FleetError, or a RefusedError when the fleet follows another root.
    """
    trusted = TrustedMetadata(keys)
    current = fetch_current(client, trusted)
    holders, director_key = _service_keys(client)
    director = director_document(director_key)
    root, targets = _root_naming(current.root, holders, now), _targets_naming(current.targets, director, now)
    metadata: dict[str, bytes] = {}
    if root is not current.root:
        metadata[Root.type] = seal(root, [keys.signer(Root.type, root.roles[Root.type].keyids)])
    if targets is not current.targets:
        metadata[Targets.type] = seal(targets, [keys.signer(Targets.type, root.roles[Targets.type].keyids)])
    if metadata:
        _upload(client, trusted, metadata, {DIRECTOR_TARGET: director} if Targets.type in metadata else {})
    ids = {role: key.keyid for role, key in holders.items()} | {"director": key_id(director_key)}
    return Authorization(changed=bool(metadata), root_version=root.version, targets_version=targets.version, ids=ids)


def rotate(client: Client, keys: KeyFolder, role: RotatedRole, now: datetime) -> SSlibKey:
    """Replace the root or targets key: root names the new one, signed by old and new; targets is signed anew.

    Interrupted at any point it can be run again: the next key is kept aside until the fleet has accepted it. Returns the
    new public key. Raises as `authorize`.
    """
    trusted = TrustedMetadata(keys)
    current = fetch_current(client, trusted)
    old = keys.signer(Root.type, current.root.roles[Root.type].keyids)
    new = keys.find_or_create_next(role)
    root = next_root(current.root, {role: new.public_key}, now)
    metadata = {Root.type: seal(root, [old, new] if role == Root.type else [old])}
    if role == Targets.type and current.targets:
        metadata[Targets.type] = seal(next_targets(current.targets, now), [new])
    _upload(client, trusted, metadata, {})
    keys.promote(role)
    return new.public_key


def _service_keys(client: Client) -> tuple[dict[str, SSlibKey], bytes]:
    """The keys the service offers for its TUF roles, and the raw public key of its director."""
    with reaching(client.url):
        offered = client.service_keys()
    try:
        return {role: service_key(offered[role]) for role in SERVICE_ROLES}, bytes.fromhex(offered["director"])
    except (KeyError, ValueError) as error:
        raise MetadataError(f"{client.url} offers no usable keys: {error}") from error


def _root_naming(root: Root, holders: dict[str, SSlibKey], now: datetime) -> Root:
    """Root metadata that gives each role to exactly its holder: the current one where it does and is not due."""
    if not _is_due(root, now) and all(root.roles[role].keyids == [key.keyid] for role, key in holders.items()):
        return root
    return next_root(root, holders, now)


def _targets_naming(current: Targets | None, director: bytes, now: datetime) -> Targets:
    """Targets metadata that lists exactly this director document: the current one where it does and is not due."""
    listed = current.targets.get(DIRECTOR_TARGET) if current else None
    if current and not _is_due(current, now) and listed == TargetFile.from_data(DIRECTOR_TARGET, director, ["sha256"]):
        return current
    targets = next_targets(current, now)
    list_document(targets, DIRECTOR_TARGET, director)
    return targets


def _is_due(signed: S, now: datetime) -> bool:
    return signed.expires - now < RENEW_BEFORE


def _upload(client: Client, trusted: TrustedMetadata, metadata: dict[str, bytes], documents: dict[str, bytes]) -> None:
    with reaching(client.url):
        client.authorize(metadata, documents)
    for role, raw in metadata.items():
        trusted.keep(role, raw)
