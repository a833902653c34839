"""Is what the fleet holds what we signed, and nothing older?

The publisher's side of trust: before anything is signed on top of fetched metadata, it is checked against the newest this
engineer has seen (`KEYS/trusted/`). A service that was restored from an old backup, or tampered with, is found here.
"""

from pathlib import Path

import msgspec
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from fleet.client import Client
from runtime.contract.canonical import sha256_hex
from runtime.contract.errors import MetadataError, RollbackError
from toolchain.errors import KeysError
from toolchain.files import write_durably
from toolchain.package.fleet import reaching
from toolchain.package.keys import KeyFolder
from toolchain.package.sign import S, model_role, parse, require_signed


class Current(msgspec.Struct, frozen=True, kw_only=True):
    """The fleet's metadata, verified. targets or model_targets is None where the fleet holds none yet."""

    root: Root
    targets: Targets | None
    model_targets: Targets | None = None


class RoleSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One role as the newest trusted metadata has it. version 0, expires "": signed elsewhere, or not signed yet."""

    name: str
    version: int
    expires: str
    keyids: tuple[str, ...]
    is_held: bool


class KeysSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A key folder at a glance. seed_sha256: the digest devices pin."""

    path: str
    seed_sha256: str
    roles: tuple[RoleSummary, ...]


class TrustedMetadata:
    """The newest verified metadata, one file per role; every version of root is kept, since bundles carry the chain."""

    def __init__(self, keys: KeyFolder) -> None:
        self._folder = keys.trusted
        self._seed = keys.seed

    def root(self) -> Metadata[Root]:
        """The newest trusted root, the seed to begin with. Raises KeysError when there is none."""
        return parse(self.root_chain()[-1], Root)

    def root_chain(self) -> list[bytes]:
        """Every trusted version of root from the first on."""
        try:
            chain = [self._seed.read_bytes()]
        except FileNotFoundError as error:
            raise KeysError(f"{self._seed} does not exist; make the keys first: toolchain keys create") from error
        while (file := self._root_file(len(chain) + 1)).exists():
            chain.append(file.read_bytes())
        return chain

    def newest(self, role: str) -> bytes | None:
        file = self._folder / f"{role}.json"
        return file.read_bytes() if file.exists() else None

    def keep(self, role: str, raw: bytes) -> None:
        """Remember metadata that the fleet is known to hold: from now on nothing older passes. Never goes back itself."""
        self._folder.mkdir(parents=True, exist_ok=True)
        if role == Root.type:
            write_durably(self._root_file(parse(raw, Root).signed.version), raw)
            return
        seen = self.newest(role)  # another publish on this machine may have been further meanwhile
        if seen is None or parse(seen, Targets).signed.version <= parse(raw, Targets).signed.version:
            write_durably(self._folder / f"{role}.json", raw)

    def _root_file(self, version: int) -> Path:
        return self._folder / f"{version}.root.json"


def fetch_current(client: Client, trusted: TrustedMetadata, model: str | None = None) -> Current:
    """Fetch the fleet's root, targets and one model's role, and verify each against its delegator and against the past.

    What passes is remembered. Raises RollbackError, SignatureError or MetadataError, and FleetError when out of reach.
    """
    root = _fetch_root(client, trusted)
    targets = _fetch_role(client, trusted, root, Targets.type)
    model_targets = None
    if model and targets and targets.delegations and model_role(model) in (targets.delegations.roles or {}):
        model_targets = _fetch_role(client, trusted, targets, model_role(model))
    return Current(root=root, targets=targets, model_targets=model_targets)


def describe(keys: KeyFolder) -> KeysSummary:
    """What is signed by whom, from this folder alone; no private key is opened. Raises KeysError or MetadataError."""
    trusted = TrustedMetadata(keys)
    chain = trusted.root_chain()
    root = parse(chain[-1], Root).signed
    holders = {role: tuple(root.roles[role].keyids) for role in (Root.type, Targets.type, Snapshot.type, Timestamp.type)}
    targets = trusted.newest(Targets.type)
    newest = {Root.type: chain[-1], Targets.type: targets}
    delegations = parse(targets, Targets).signed.delegations if targets else None
    for name, role in ((delegations.roles or {}) if delegations else {}).items():
        holders[name], newest[name] = tuple(role.keyids), trusted.newest(name)
    roles = (_summary(role, keyids, newest.get(role), role in keys.roles()) for role, keyids in holders.items())
    return KeysSummary(path=str(keys.path), seed_sha256=sha256_hex(chain[0]), roles=tuple(roles))


def _summary(role: str, keyids: tuple[str, ...], raw: bytes | None, is_held: bool) -> RoleSummary:
    version, expires = 0, ""
    if raw is not None:
        signed: Root | Targets = parse(raw, Root).signed if role == Root.type else parse(raw, Targets).signed
        version, expires = signed.version, signed.expires.isoformat()
    return RoleSummary(name=role, version=version, expires=expires, keyids=keyids, is_held=is_held)


def _fetch_root(client: Client, trusted: TrustedMetadata) -> Root:
    ours = trusted.root()
    raw = _fetch(client, Root.type)
    if raw is None:
        raise MetadataError("the fleet has no trust root; initialise it with this folder's: fleet init --root root.json")
    theirs = parse(raw, Root)
    if theirs.signed.version <= ours.signed.version:
        _require_not_older(Root.type, ours, theirs)
        return ours.signed
    if theirs.signed.version > ours.signed.version + 1:
        raise MetadataError(
            f"the fleet's root is version {theirs.signed.version}, ours {ours.signed.version}: copy the key folder's "
            "trusted/*.root.json from the machine that signed the versions between"
        )
    require_signed(ours.signed, Root.type, theirs)
    require_signed(theirs.signed, Root.type, theirs)
    trusted.keep(Root.type, raw)
    return theirs.signed


def _fetch_role(client: Client, trusted: TrustedMetadata, delegator: Root | Targets, role: str) -> Targets | None:
    seen = trusted.newest(role)  # before fetching: another publish on this machine may move it on meanwhile
    raw = _fetch(client, role)
    if raw is None:
        if seen is None:
            return None
        raise RollbackError(f"the fleet has lost its {role} metadata, version {parse(seen, Targets).signed.version} was seen")
    theirs = parse(raw, Targets)
    require_signed(delegator, role, theirs)
    if seen is not None:
        _require_not_older(role, parse(seen, Targets), theirs)
    if raw != seen:
        trusted.keep(role, raw)
    return theirs.signed


def _require_not_older(role: str, seen: Metadata[S], theirs: Metadata[S]) -> None:
    """Versions never go back, and one version never has two contents."""
    if theirs.signed.version < seen.signed.version:
        raise RollbackError(f"the fleet's {role} is version {theirs.signed.version}, {seen.signed.version} was seen before")
    if theirs.signed.version == seen.signed.version and theirs.signed_bytes != seen.signed_bytes:
        mine, other = sha256_hex(seen.signed_bytes)[:12], sha256_hex(theirs.signed_bytes)[:12]
        raise MetadataError(f"two different {role} claim version {seen.signed.version} ({mine}… here, {other}… at the fleet)")


def _fetch(client: Client, role: str) -> bytes | None:
    with reaching(client.url):
        return client.metadata(role)
