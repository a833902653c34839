"""May this uploaded metadata become current?

The service holds no key that could make a release, so everything here is checking: signatures and thresholds by the
delegating role, version exactly the successor, not expired, every newly listed document present and matching, nothing
ever listed changed or withdrawn. The rules are python-tuf's wherever it has them; ours only narrow what a role may say,
so that a device walking the metadata finds exactly one role that speaks for a path.

Checking is pure: it takes the current state and gives the next one; `fleet.trust.store` writes it.
"""

from datetime import datetime
from typing import Generic, TypeVar

import msgspec
from tuf.api.exceptions import LengthOrHashMismatchError, UnsignedMetadataError
from tuf.api.metadata import DelegatedRole, Metadata, Root, TargetFile, Targets
from tuf.api.serialization import DeserializationError
from tuf.ngclient.config import UpdaterConfig

from fleet.errors import IncompleteReleaseError, NotAuthorizedError, ReleaseConflictError, ReleaseRaceError
from fleet.trust.keys import ServiceKeys
from runtime.contract.artifact import EVIDENCE_NAME, MANIFEST_NAME, ArtifactRef, Name
from runtime.contract.canonical import EVIDENCE_LIMIT, MANIFEST_LIMIT, read_json
from runtime.contract.errors import DigestError, ExpiredError, MetadataError, SignatureError, TooLargeError, UnlistedError
from runtime.contract.trust import DIRECTOR_LIMIT, DIRECTOR_TARGET, DirectorKeys

MODEL_PREFIX = "model-"
DOCUMENT_LIMITS = {MANIFEST_NAME: MANIFEST_LIMIT, EVIDENCE_NAME: EVIDENCE_LIMIT}

_LIMITS = UpdaterConfig()
"""What a device downloads at most: metadata beyond it would be accepted here and be readable nowhere."""

S = TypeVar("S", Root, Targets)


class Held(msgspec.Struct, Generic[S], frozen=True):
    """A role's metadata beside the bytes it came as."""

    raw: bytes
    metadata: Metadata[S]

    @property
    def signed(self) -> S:
        return self.metadata.signed


class State(msgspec.Struct, frozen=True):
    """What the offline keys have said so far. models: by role name."""

    root: Held[Root]
    targets: Held[Targets] | None = None
    models: dict[str, Held[Targets]] = {}

    def listed(self) -> dict[str, TargetFile]:
        """Every document any role lists, by target path."""
        found: dict[str, TargetFile] = {}
        for held in [self.targets, *self.models.values()]:
            if held is not None:
                found |= held.signed.targets
        return found


class Upload(msgspec.Struct, frozen=True):
    """metadata: bytes by role (root, targets, model-NAME); documents: bytes by TUF target path."""

    metadata: dict[str, bytes]
    documents: dict[str, bytes]


def check(state: State, upload: Upload, keys: ServiceKeys, now: datetime) -> State:
    """The state after this upload. A role uploaded as it already is changes nothing, so an upload may be repeated.

    Raises ReleaseRaceError, ReleaseConflictError, IncompleteReleaseError, NotAuthorizedError, or a ContractError.
    """
    _require_known_roles(upload)
    root = _next_root(state, upload, now)
    if not keys.is_named(root.signed):
        raise NotAuthorizedError(f"root version {root.signed.version} does not name this service's keys")
    targets = _next_targets(state, upload, root, now)
    after = State(root, targets, _next_models(state, upload, targets, now))
    _require_history(state, after)
    _require_documents(state, after, upload)
    _require_director(upload, keys)
    return after


def read_root(raw: bytes) -> Held[Root]:
    """A root that signs itself. Raises MetadataError, TooLargeError or SignatureError."""
    root = Held(raw, _parse("root", raw, Root, _LIMITS.root_max_length))
    _require_signed("root", root, root.signed)
    return root


def read_targets(role: str, raw: bytes) -> Held[Targets]:
    """The metadata of targets or of a model's role, parsed but not yet believed. Raises MetadataError or TooLargeError."""
    return Held(raw, _parse(role, raw, Targets, _LIMITS.targets_max_length))


def model_of(role: str) -> str:
    return role.removeprefix(MODEL_PREFIX)


def artifact_of(path: str) -> tuple[str, str, str, str]:
    """Model, version, target and document of a target path. Raises MetadataError for any other form."""
    parts = path.split("/")
    if len(parts) != 4 or parts[3] not in DOCUMENT_LIMITS:
        raise MetadataError(f"{path} is not MODEL/VERSION/TARGET/{{{','.join(DOCUMENT_LIMITS)}}}")
    try:
        msgspec.convert({"version": parts[1], "target": parts[2], "sha256": "0" * 64}, ArtifactRef)
    except msgspec.ValidationError as error:
        raise MetadataError(f"{path}: {error}") from error
    return parts[0], parts[1], parts[2], parts[3]


def _parse(role: str, raw: bytes, kind: type[S], limit: int) -> Metadata[S]:
    if len(raw) > limit:
        raise TooLargeError(f"{role} metadata of {len(raw)} bytes is over the {limit} a device reads")
    try:
        metadata: Metadata[S] = Metadata.from_bytes(raw)
    except DeserializationError as error:
        raise MetadataError(f"{role}: not TUF metadata") from error
    if not isinstance(metadata.signed, kind):
        raise MetadataError(f"{role}: this is {metadata.signed.type} metadata")
    return metadata


def _require_known_roles(upload: Upload) -> None:
    for role in upload.metadata:
        if role not in ("root", "targets"):
            _require_model_role(role)


def _require_model_role(role: str) -> None:
    try:
        msgspec.convert(role.removeprefix(MODEL_PREFIX) if role.startswith(MODEL_PREFIX) else "", Name)
    except msgspec.ValidationError as error:
        raise MetadataError(f"{role!r} is none of root, targets and model-NAME") from error


def _next_root(state: State, upload: Upload, now: datetime) -> Held[Root]:
    raw = upload.metadata.get("root", state.root.raw)
    root = state.root
    if raw != state.root.raw:
        root = read_root(raw)
        _require_successor("root", root.signed.version, state.root.signed.version)
        _require_signed("root", root, state.root.signed)
        if not root.signed.consistent_snapshot:
            raise MetadataError("root: consistent_snapshot must be true; devices ask for files by version and digest")
    _require_fresh("root", root.signed, now)
    return root


def _next_targets(state: State, upload: Upload, root: Held[Root], now: datetime) -> Held[Targets]:
    targets = _successor("targets", upload.metadata.get("targets"), state.targets, root.signed)
    _require_fresh("targets", targets.signed, now)
    if targets is state.targets:
        return targets
    if set(targets.signed.targets) != {DIRECTOR_TARGET}:
        raise MetadataError(f"targets lists documents other than {DIRECTOR_TARGET}; releases belong into their model's role")
    delegated = _delegated(targets)
    for role in delegated.values():
        _require_model_role(role.name)
        if role.paths != [f"{model_of(role.name)}/*/*/*"] or not role.terminating:
            raise MetadataError(
                f"targets: {role.name} must be terminating and cover {model_of(role.name)}/*/*/*, no more and no less"
            )
    if state.targets is not None and (lost := set(_delegated(state.targets)) - set(delegated)):
        raise ReleaseConflictError(f"targets no longer delegates to {min(lost)}, whose releases are there to stay")
    return targets


def _next_models(state: State, upload: Upload, targets: Held[Targets], now: datetime) -> dict[str, Held[Targets]]:
    delegated = _delegated(targets)
    for role in upload.metadata:
        if role.startswith(MODEL_PREFIX) and role not in delegated:
            raise UnlistedError(f"targets does not delegate to {role}")
    models = {}
    for role in delegated:
        held = state.models.get(role)
        models[role] = _successor(role, upload.metadata.get(role), held, targets.signed)
        if models[role] is not held:
            _require_fresh(role, models[role].signed, now)
            _require_model_shape(role, models[role].signed)
    return models


def _require_model_shape(role: str, signed: Targets) -> None:
    if signed.delegations is not None:
        raise MetadataError(f"{role} delegates further; one role speaks for a model")
    for path, file in signed.targets.items():
        model, version, target, document = artifact_of(path)
        if model != model_of(role):
            raise MetadataError(f"{role} lists {path}, which is not below {model_of(role)}/")
        if f"{model}/{version}/{target}/{MANIFEST_NAME}" not in signed.targets:
            raise MetadataError(f"{role} lists {path} without the manifest it belongs to")
        if set(file.hashes) != {"sha256"} or file.length > DOCUMENT_LIMITS[document]:
            raise MetadataError(
                f"{role}: {path} must be named by sha256 alone and have at most {DOCUMENT_LIMITS[document]} bytes"
            )


def _successor(role: str, raw: bytes | None, held: Held[Targets] | None, delegator: Root | Targets) -> Held[Targets]:
    """The uploaded metadata, or what stands already. Both must hold under the delegator, whose keys may be new ones."""
    if held is not None and raw in {None, held.raw}:
        _require_signed(role, held, delegator)
        return held
    if raw is None:
        raise IncompleteReleaseError(f"{role} has no metadata yet and none was uploaded")
    fresh = read_targets(role, raw)
    _require_successor(role, fresh.signed.version, held.signed.version if held else 0)
    _require_signed(role, fresh, delegator)
    return fresh


def _require_successor(role: str, version: int, current: int) -> None:
    if version != current + 1:
        raise ReleaseRaceError(
            f"{role} has version {version}, but version {current} is current: fetch it, apply the change, sign again"
        )


def _require_signed(role: str, held: Held[Root] | Held[Targets], delegator: Root | Targets) -> None:
    try:
        delegator.verify_delegate(role, held.metadata.signed_bytes, held.metadata.signatures)
    except (UnsignedMetadataError, ValueError) as error:
        raise SignatureError(f"{role} version {held.signed.version}: {error}") from error


def _require_fresh(role: str, signed: Root | Targets, now: datetime) -> None:
    if signed.is_expired(now):
        raise ExpiredError(f"{role} version {signed.version} expired on {signed.expires:%Y-%m-%d}")


def _require_history(before: State, after: State) -> None:
    listed = after.listed()
    for path, file in before.listed().items():
        if path == DIRECTOR_TARGET:
            continue
        if path not in listed:
            raise ReleaseConflictError(f"{path} was published and can no longer be withdrawn")
        if (listed[path].hashes, listed[path].length) != (file.hashes, file.length):
            raise ReleaseConflictError(f"{path} was published with other content; give the release a new version")


def _require_documents(before: State, after: State, upload: Upload) -> None:
    held, listed = before.listed(), after.listed()
    for path, file in listed.items():
        known = held.get(path)
        if path not in upload.documents and (known is None or known.hashes != file.hashes):
            raise IncompleteReleaseError(f"{path} is listed but was not uploaded")
    for path, document in upload.documents.items():
        if path not in listed:
            raise UnlistedError(f"{path} was uploaded but no role lists it")
        try:
            listed[path].verify_length_and_hashes(document)
        except LengthOrHashMismatchError as error:
            raise DigestError(f"{path}: {error}") from error


def _require_director(upload: Upload, keys: ServiceKeys) -> None:
    document = upload.documents.get(DIRECTOR_TARGET)
    if document is None:
        return
    named = read_json(document, DirectorKeys, DIRECTOR_LIMIT).value.keys
    if named.get(keys.director_id) != keys.public()["director"]:
        raise NotAuthorizedError(f"{DIRECTOR_TARGET} does not name this service's director key")


def _delegated(targets: Held[Targets]) -> dict[str, DelegatedRole]:
    delegations = targets.signed.delegations
    if delegations is None:
        return {}
    if delegations.roles is None:
        raise MetadataError("targets delegates by hash bins; one role per model is what devices expect")
    return dict(delegations.roles)
