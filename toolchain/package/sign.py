"""What does the engineer sign? TUF metadata: the root, its targets, and one delegated role per model.

Pure functions from metadata to metadata; `keys` brings the signers, `publish` and `authorize` move the bytes. python-tuf
makes and checks every signature; nothing of the format is written by hand here.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from securesystemslib.signer import Signer, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Delegations, Key, Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from runtime.contract.canonical import write_json
from runtime.contract.errors import MetadataError, SignatureError
from runtime.contract.trust import DirectorKeys, key_id

ROOT_LIFETIME = timedelta(days=2 * 365)
"""A root that expires stops every update of every device, so it outlives the yearly renewal of the roles below by a year."""
TARGETS_LIFETIME = timedelta(days=365)
"""Expiry of targets and model roles bounds how long a stolen service can keep devices on an old release list."""

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


def model_role(model: str) -> str:
    return f"model-{model}"


def parse(raw: bytes, kind: type[S]) -> Metadata[S]:
    """Decode metadata of one kind. Raises MetadataError; signatures are not looked at."""
    try:
        metadata = Metadata[S].from_bytes(raw)
    except (DeserializationError, RepositoryError) as error:
        raise MetadataError(f"not {kind.type} metadata: {error}") from error
    if not isinstance(metadata.signed, kind):
        raise MetadataError(f"{metadata.signed.type} metadata where {kind.type} belongs")
    return metadata


def require_signed(delegator: Root | Targets, role: str, metadata: Metadata[S]) -> None:
    """Raise SignatureError unless `metadata` carries the signatures the delegator demands for `role`."""
    try:
        delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
    except (RepositoryError, ValueError) as error:
        raise SignatureError(f"{role} version {metadata.signed.version}: {error}") from error


def seal(signed: S, signers: Iterable[Signer]) -> bytes:
    """The signed bytes of a role's metadata, as they are stored and served from then on."""
    metadata = Metadata(signed)
    for signer in signers:
        metadata.sign(signer, append=True)
    return metadata.to_bytes(JSONSerializer(compact=True))


def first_root(root_key: SSlibKey, targets_key: SSlibKey, now: datetime) -> Root:
    """Version 1, the seed: every role is held offline, so no service can act under it yet."""
    root = Root(version=1, expires=_from(now, ROOT_LIFETIME), consistent_snapshot=True)
    root.add_key(root_key, Root.type)
    root.add_key(targets_key, Targets.type)
    root.add_key(root_key, "snapshot")
    root.add_key(root_key, "timestamp")
    return root


def next_root(root: Root, holders: Mapping[str, SSlibKey], now: datetime) -> Root:
    """The following version, in which each role of `holders` belongs to exactly that key."""
    following = deepcopy(root)
    following.version += 1
    following.expires = _from(now, ROOT_LIFETIME)
    for role, key in holders.items():
        for keyid in list(following.roles[role].keyids):
            following.revoke_key(keyid, role)
        following.add_key(key, role)
    return following


def next_targets(targets: Targets | None, now: datetime) -> Targets:
    """The following version of a targets role, or its first, still to be filled."""
    following = deepcopy(targets) if targets else Targets()
    following.version = targets.version + 1 if targets else 1
    following.expires = _from(now, TARGETS_LIFETIME)
    return following


def director_document(public_key: bytes) -> bytes:
    """`director.json` naming one Ed25519 key (32 raw bytes) as the only one that may order deployments."""
    return write_json(DirectorKeys(keys={key_id(public_key): public_key.hex()}))


def delegate_model(targets: Targets, model: str, key: SSlibKey) -> None:
    """Let `key` alone sign the releases of `model`; searched no further, so that no later role can answer for its paths."""
    role = DelegatedRole(model_role(model), [key.keyid], 1, terminating=True, paths=[f"{model}/*/*/*"])
    delegations = targets.delegations or Delegations({}, {})
    roles = {**(delegations.roles or {}), role.name: role}
    keys: dict[str, Key] = {**delegations.keys, key.keyid: key}
    used = {keyid for each in roles.values() for keyid in each.keyids}
    targets.delegations = Delegations({keyid: keys[keyid] for keyid in sorted(used)}, roles)


def delegated_keyids(targets: Targets, model: str) -> tuple[str, ...]:
    """Ids of the keys that may sign the model's releases; empty while it has no role."""
    roles = targets.delegations.roles if targets.delegations else None
    role = (roles or {}).get(model_role(model))
    return tuple(role.keyids) if role else ()


def list_document(targets: Targets, path: str, raw: bytes) -> None:
    targets.targets[path] = TargetFile.from_data(path, raw, ["sha256"])


def service_key(public_hex: str) -> SSlibKey:
    """A TUF key from 32 raw public bytes in hexadecimal. Raises MetadataError."""
    try:
        return SSlibKey.from_crypto(Ed25519PublicKey.from_public_bytes(bytes.fromhex(public_hex)))
    except ValueError as error:
        raise MetadataError(f"the service's public key {public_hex[:16]!r} is not an Ed25519 key: {error}") from error


def _from(now: datetime, lifetime: timedelta) -> datetime:
    return now.astimezone(UTC) + lifetime
