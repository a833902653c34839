"""May these bytes be believed? Verification only: signatures, digests, expiry, rollback, address.

Releases are TUF metadata (python-tuf's checks, not ours): a root pinned by digest, one delegated role per model whose
targets are the manifests and evidences. `desired` and `command` travel in an `Envelope` signed by the director, whose
public key is itself a signed target, `director.json`. Nothing here signs; `toolchain.package` and `fleet.trust` do.

tuf and cryptography cost 34 MB and 95 ms, so only short-lived helpers import this module, never the serving process.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from tuf.api.exceptions import DownloadError, DownloadHTTPError, ExpiredMetadataError, LengthOrHashMismatchError, RepositoryError
from tuf.api.metadata import Root, Targets
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from runtime.contract.artifact import Manifest, read_manifest, target_path, version_key
from runtime.contract.canonical import Received, read_json, read_message, sha256_hex, write_message
from runtime.contract.deployment import Desired, Envelope
from runtime.contract.errors import (
    DigestError,
    ExpiredError,
    MetadataError,
    RollbackError,
    SignatureError,
    UnlistedError,
    WrongDeviceError,
)

T = TypeVar("T", bound=msgspec.Struct)
R = TypeVar("R")

DIRECTOR_TARGET = "director.json"
DIRECTOR_LIMIT = 16 * 1024
ENVELOPE_OVERHEAD = 256
"""Bytes an envelope adds to its payload at most: field names, key id and signature."""

Fetch = Callable[[str], Iterator[bytes]]
"""Yields the bytes of a path below the release store ("metadata/2.root.json"); raises NotFound or any OSError."""


class NotFound(Exception):
    """What a `Fetch` raises when the store has no such path; the search for a newer root ends with it."""


class DirectorKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Content of `director.json`: the Ed25519 public keys (32 raw bytes, hexadecimal) that may sign desired states, by key id."""

    keys: dict[str, str]


class ReleaseTrust:
    """The releases this party believes in: a TUF client over a local folder of trusted metadata.

    metadata_dir: where verified metadata is kept; it must survive restarts, since versions in it never go back.
    root: the pinned root's bytes; root_sha256: its digest from the enrolment token. Raises DigestError when they differ.
    now_s: Unix seconds by which expiry is judged; None for the system's clock.
    last_contact_s: for a bundle alone: when the fleet was last heard, 0 for never. Timestamp and snapshot, which live a day and
    are re-signed by the service, are judged by that; root and targets still by now. See docs/decisions/0017.
    """

    def __init__(
        self,
        metadata_dir: Path,
        root: bytes,
        root_sha256: str,
        fetch: Fetch,
        *,
        now_s: float | None = None,
        last_contact_s: float | None = None,
    ) -> None:
        require_digest("root.json", root, root_sha256, len(root))
        metadata_dir.mkdir(parents=True, exist_ok=True)
        try:
            self._updater = Updater(
                str(metadata_dir),
                "metadata/",
                target_base_url="targets/",
                fetcher=_Fetcher(fetch),
                bootstrap=root,
            )
        except RepositoryError as error:
            raise MetadataError(f"root.json: {error}") from error
        self._now = datetime.now(UTC) if now_s is None else datetime.fromtimestamp(now_s, UTC)
        self._trusted = self._updater._trusted_set
        # python-tuf judges every expiry by this one attribute, and offers no other way to it.
        self._trusted.reference_time = self._now if last_contact_s is None else datetime.fromtimestamp(last_contact_s, UTC)
        self._scratch = metadata_dir / "document"

    def refresh(self) -> None:
        """Bring the metadata up to date. Raises MetadataError, ExpiredError, or OSError when the store is out of reach."""
        self._guarded(self._updater.refresh)
        self._guarded(self._require_lasting)

    def document(self, path: str) -> bytes:
        """The signed document at a TUF target path, downloaded and verified. Raises UnlistedError if nothing lists it."""
        info = self._guarded(lambda: self._updater.get_targetinfo(path))
        self._guarded(self._require_lasting)
        if info is None:
            raise UnlistedError(f"no signed release lists {path}")
        self._guarded(lambda: self._updater.download_target(info, str(self._scratch)))
        try:
            return self._scratch.read_bytes()
        finally:
            self._scratch.unlink()

    def manifest(self, model: str, version: str, target: str, sha256: str) -> Received[Manifest]:
        """The signed manifest of one artifact. Raises DigestError when the signed one is not the one asked for."""
        path = target_path(model, version, target)
        raw = self.document(path)
        require_digest(path, raw, sha256, len(raw))
        received = read_manifest(raw)
        value = received.value
        if (value.model, value.version, value.requires.profile) != (model, version, target):
            raise MetadataError(f"{path} holds the manifest of {value.model} {value.version} for {value.requires.profile}")
        return received

    def director_keys(self) -> dict[str, bytes]:
        """The public keys, by id, that may sign `desired` and `command`."""
        keys = read_json(self.document(DIRECTOR_TARGET), DirectorKeys, DIRECTOR_LIMIT).value.keys
        try:
            return {keyid: bytes.fromhex(key) for keyid, key in keys.items()}
        except ValueError as error:
            raise MetadataError(f"{DIRECTOR_TARGET}: {error}") from error

    def _require_lasting(self) -> None:
        """What the engineer signed must be unexpired by now, whatever the rest is judged by."""
        for signed in self._trusted:
            if isinstance(signed, Root | Targets) and signed.is_expired(self._now):
                raise ExpiredMetadataError(f"{signed.type} metadata expired on {signed.expires:%Y-%m-%d}")

    def _guarded(self, step: Callable[[], R]) -> R:
        try:
            return step()
        except ExpiredMetadataError as error:
            raise ExpiredError(str(error)) from error
        except LengthOrHashMismatchError as error:
            raise DigestError(str(error)) from error
        except RepositoryError as error:
            raise MetadataError(str(error)) from error
        except DownloadHTTPError as error:
            raise UnlistedError(str(error)) from error
        except DownloadError as error:
            raise OSError(f"release store: {error.__cause__ or error}") from error


def key_id(public_key: bytes) -> str:
    """The id of an Ed25519 public key (32 raw bytes): the first 16 hexadecimal digits of its sha256."""
    return sha256_hex(public_key)[:16]


def open_envelope(raw: bytes, keys: dict[str, bytes], kind: type[T], limit: int) -> Received[T]:
    """Verify a signed message and decode its payload. Raises SignatureError, MalformedError or TooLargeError.

    limit: of the payload. The result's `raw` is the payload as signed.
    """
    envelope = read_message(raw, Envelope, limit + ENVELOPE_OVERHEAD).value
    if envelope.keyid not in keys:
        raise SignatureError(f"{kind.__name__} is signed by key {envelope.keyid!r}, which no signed release names as director")
    try:
        Ed25519PublicKey.from_public_bytes(keys[envelope.keyid]).verify(envelope.signature, envelope.payload)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError(f"{kind.__name__}: the signature of key {envelope.keyid!r} does not fit the bytes") from error
    return read_message(envelope.payload, kind, limit)


def seal_envelope(payload: bytes, keyid: str, sign: Callable[[bytes], bytes], limit: int) -> bytes:
    """The other end of `open_envelope`: wrap payload bytes with the signature `sign` makes over them."""
    return write_message(Envelope(payload=payload, keyid=keyid, signature=sign(payload)), limit + ENVELOPE_OVERHEAD)


def require_digest(what: str, data: bytes, sha256: str, size_bytes: int) -> None:
    """Raise DigestError unless data has exactly this length and sha256."""
    if len(data) != size_bytes:
        raise DigestError(f"{what} has {len(data)} bytes instead of {size_bytes}")
    if (found := sha256_hex(data)) != sha256:
        raise DigestError(f"{what} has sha256 {found[:12]}… instead of {sha256[:12]}…")


def check_desired(new: Received[Desired], device: str, held: Received[Desired] | None) -> bool:
    """Whether `new` brings anything beyond the state held already. Expiry is checked when an update starts, not here.

    Raises WrongDeviceError, or RollbackError for a lower generation or an equal one with another body.
    """
    if new.value.device != device:
        raise WrongDeviceError(f"desired state is for {new.value.device!r}, this is {device!r}")
    if held is None or new.value.generation > held.value.generation:
        return True
    if new.value.generation < held.value.generation:
        raise RollbackError(f"desired generation {new.value.generation} is below {held.value.generation}")
    if new.raw != held.raw:
        raise RollbackError(f"two different desired states claim generation {new.value.generation}")
    return False


def check_startable(desired: Desired, now_s: float) -> None:
    """Raise ExpiredError when an update may no longer start from this state; what already runs goes on."""
    if now_s >= desired.expires:
        raise ExpiredError(f"desired generation {desired.generation} expired {int(now_s - desired.expires)} s ago")


def check_floor(manifest: Manifest, floor: str) -> None:
    """Raise RollbackError when the artifact lies below the highest signed floor this device has accepted."""
    if version_key(manifest.version) < version_key(floor):
        raise RollbackError(f"{manifest.model} {manifest.version} is below the signed floor {floor}")


class _Fetcher(FetcherInterface):
    """Lets python-tuf read through a `Fetch`, whatever transport is behind it."""

    def __init__(self, fetch: Fetch) -> None:
        self._open = fetch

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            chunks = self._open(url)
            first = next(chunks, b"")  # drawn here, so that a generator's NotFound is caught here too
            return chain([first], chunks)
        except NotFound as error:
            raise DownloadHTTPError(f"the release store has no {url}", 404) from error
