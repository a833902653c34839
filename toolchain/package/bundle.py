"""How does a release travel to a device that cannot reach the fleet?

A `.edge` file: a zip, stored, whose paths are those of the release store (`metadata/`, `targets/`, `blobs/sha256/`), so a
device runs exactly the checks it runs online. It carries one release's slice of the metadata and every byte it names, and
is good until the fleet's timestamp in it expires. The same content always gives the same bytes.
"""

import secrets
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import msgspec
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from fleet.client import Client
from runtime.contract.canonical import sha256_hex
from runtime.contract.errors import DigestError, UnlistedError
from runtime.contract.trust import DIRECTOR_TARGET, NotFound, ReleaseTrust
from toolchain.errors import FleetError
from toolchain.files import sync
from toolchain.package.fleet import reaching
from toolchain.package.keys import KeyFolder
from toolchain.package.read import Release, blobs_of
from toolchain.package.sign import director_document, model_role, parse
from toolchain.package.trusted import TrustedMetadata, fetch_current

SUFFIX = ".edge"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time a zip can carry; a real one would make equal content differ."""
_MODE = 0o100644 << 16


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A written side-load file. expires: when devices stop accepting it, ISO 8601."""

    path: str
    model: str
    version: str
    targets: tuple[str, ...]
    size_bytes: int
    expires: str


def bundle(client: Client, keys: KeyFolder, release: Release, to: Path) -> Bundle:
    """Write a published release as a side-load file, after walking it as a device would.

    Raises FleetError when the release is not published or the fleet is out of reach, RefusedError when something in the
    directory or at the fleet is not what was signed.
    """
    trusted = TrustedMetadata(keys)
    fetch_current(client, trusted, release.model)
    store = _metadata(client, trusted, release) | _documents(client, release)
    _walk(store, keys.seed.read_bytes(), release)
    _write(to, store, blobs_of(release.artifacts))
    timestamp = parse(store["metadata/timestamp.json"], Timestamp).signed
    return Bundle(
        path=str(to),
        model=release.model,
        version=release.version,
        targets=tuple(artifact.target for artifact in release.artifacts),
        size_bytes=to.stat().st_size,
        expires=timestamp.expires.isoformat(),
    )


def _metadata(client: Client, trusted: TrustedMetadata, release: Release) -> dict[str, bytes]:
    """The release's slice: the whole root chain, timestamp, snapshot, targets and the model's role, by store path."""
    store = {f"metadata/{parse(raw, Root).signed.version}.root.json": raw for raw in trusted.root_chain()}
    timestamp = b""
    while timestamp != (newest := _role(client, "timestamp")):  # signed anew in between: what it leads to may have changed
        timestamp = newest
        snapshot = _role(client, "snapshot")
        roles = {role: _role(client, role) for role in (Targets.type, model_role(release.model))}
    store["metadata/timestamp.json"] = timestamp
    store[f"metadata/{parse(snapshot, Snapshot).signed.version}.snapshot.json"] = snapshot
    return store | {f"metadata/{parse(raw, Targets).signed.version}.{role}.json": raw for role, raw in roles.items()}


def _role(client: Client, role: str) -> bytes:
    with reaching(client.url):
        raw = client.metadata(role)
    if raw is None:
        raise FleetError(
            f"{client.url} has no {role} metadata: publish the release first: toolchain publish DIR --to {client.url}"
        )
    return raw


def _documents(client: Client, release: Release) -> dict[str, bytes]:
    with reaching(client.url):
        director = bytes.fromhex(client.service_keys()["director"])
    documents = {name: raw for artifact in release.artifacts for name, raw in artifact.documents.items()}
    return {_store_path(name, raw): raw for name, raw in {**documents, DIRECTOR_TARGET: director_document(director)}.items()}


def _store_path(target_path: str, raw: bytes) -> str:
    """Where a TUF client looks for a target under consistent snapshots: its digest before the last part of its path."""
    path = PurePosixPath(target_path)
    return str(PurePosixPath("targets") / path.parent / f"{sha256_hex(raw)}.{path.name}")


def _walk(store: dict[str, bytes], seed: bytes, release: Release) -> None:
    """Believe the bundle as a device pinned to the seed does, so that one it would refuse is never written."""

    def fetch(path: str) -> Iterator[bytes]:
        if path not in store:
            raise NotFound(path)
        yield store[path]

    scratch = Path(tempfile.mkdtemp(prefix="edgewright-bundle-"))
    try:
        trust = ReleaseTrust(scratch, seed, sha256_hex(seed), fetch)
        trust.refresh()
        for name in (DIRECTOR_TARGET, *(name for artifact in release.artifacts for name in artifact.documents)):
            trust.document(name)
    except (DigestError, UnlistedError) as error:
        raise DigestError(
            f"{release.model} {release.version} is not what the fleet has published ({error}): publish this directory first"
        ) from error
    finally:
        shutil.rmtree(scratch)


def _write(to: Path, store: dict[str, bytes], blobs: dict[str, Path]) -> None:
    scratch = to.with_name(f".{to.name}.{secrets.token_hex(4)}")
    try:
        with zipfile.ZipFile(scratch, "x", zipfile.ZIP_STORED) as archive:
            for name in sorted(store):
                archive.writestr(_member(name), store[name])
            for sha256 in sorted(blobs):
                member = _member(f"blobs/sha256/{sha256}")
                with blobs[sha256].open("rb") as source, archive.open(member, "w", force_zip64=True) as target:
                    shutil.copyfileobj(source, target)
        sync(scratch)
        scratch.rename(to)
    finally:
        scratch.unlink(missing_ok=True)
    sync(to.parent)


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, EPOCH)
    member.create_system = 3  # Unix, wherever it is written: the attributes below mean nothing otherwise
    member.external_attr = _MODE
    return member
