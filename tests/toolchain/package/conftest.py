"""A fleet in memory that signs snapshot and timestamp as the real one does, and artifact directories to publish to it."""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp
from tuf.api.serialization.json import JSONSerializer

from fleet.client import ApiError
from runtime.contract.artifact import (
    EngineRange,
    Evidence,
    FileEntry,
    Lineage,
    Manifest,
    Requirements,
    TensorSpec,
)
from runtime.contract.canonical import sha256_hex, write_json
from runtime.contract.trust import NotFound, ReleaseTrust
from toolchain.package.authorize import create_root
from toolchain.package.keys import KeyFolder

NOW = datetime.now(UTC)
ONE_DAY = timedelta(days=1)


class FleetPeer:
    """The service's side of publishing, as `fleet.client.Client` sees it; stored paths are those TUF clients ask for."""

    url = "http://fleet.test"

    def __init__(self, seed: bytes) -> None:
        self.service = {role: CryptoSigner.generate_ed25519() for role in ("snapshot", "timestamp", "director")}
        self.store: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.newest: dict[str, bytes] = {"root": seed}
        self.store["metadata/1.root.json"] = seed
        self.before_release: Callable[[], None] = lambda: None
        self.expires = NOW + ONE_DAY

    def service_keys(self) -> dict[str, str]:
        return {role: signer.public_key.keyval["public"] for role, signer in self.service.items()}

    def metadata(self, role: str) -> bytes | None:
        return self.newest.get(role)

    def authorize(self, metadata: Mapping[str, bytes], documents: Mapping[str, bytes]) -> dict[str, Any]:
        self._accept(metadata, documents)
        return {}

    def has_blob(self, digest: str) -> bool:
        return digest in self.blobs

    def put_blob(self, digest: str, file: Path) -> None:
        raw = file.read_bytes()
        assert sha256(raw).hexdigest() == digest
        self.blobs[digest] = raw

    def create_release(
        self, model: str, version: str, metadata: Mapping[str, bytes], documents: Mapping[str, bytes]
    ) -> dict[str, Any]:
        self.before_release()
        for role, raw in metadata.items():
            held = self.newest.get(role)
            if Metadata.from_bytes(raw).signed.version != (Metadata.from_bytes(held).signed.version if held else 0) + 1:
                raise ApiError(409, "release.race", f"{role} has moved on")
        self._accept(metadata, documents)
        return {"model": model, "version": version}

    def _accept(self, metadata: Mapping[str, bytes], documents: Mapping[str, bytes]) -> None:
        for role, raw in metadata.items():
            self.store[f"metadata/{Metadata.from_bytes(raw).signed.version}.{role}.json"] = raw
            self.newest[role] = raw
        for path, raw in documents.items():
            folder, _, name = path.rpartition("/")
            self.store["targets/" + (f"{folder}/" if folder else "") + f"{sha256_hex(raw)}.{name}"] = raw
        self.sign_state()

    def sign_state(self) -> None:
        """Snapshot and timestamp over the newest targets roles, one version further."""
        version = Metadata.from_bytes(self.newest["snapshot"]).signed.version + 1 if "snapshot" in self.newest else 1
        roles = {
            f"{role}.json": MetaFile(Metadata[Targets].from_bytes(raw).signed.version)
            for role, raw in self.newest.items()
            if role == "targets" or role.startswith("model-")
        }
        self._sign("snapshot", Snapshot(version=version, expires=self.expires, meta=roles), f"metadata/{version}.snapshot.json")
        self._sign(
            "timestamp",
            Timestamp(version=version, expires=self.expires, snapshot_meta=MetaFile(version)),
            "metadata/timestamp.json",
        )

    def _sign(self, role: str, signed: Snapshot | Timestamp, path: str) -> None:
        metadata: Metadata[Any] = Metadata(signed)
        metadata.sign(self.service[role])
        self.newest[role] = self.store[path] = metadata.to_bytes(JSONSerializer(compact=True))

    def fetch(self, path: str) -> Iterator[bytes]:
        if path not in self.store:
            raise NotFound(path)
        yield self.store[path]

    def root(self) -> Root:
        return Metadata[Root].from_bytes(self.newest["root"]).signed


@pytest.fixture
def keys(tmp_path: Path) -> KeyFolder:
    folder = KeyFolder(tmp_path / "keys")
    create_root(folder, NOW)
    return folder


@pytest.fixture
def peer(keys: KeyFolder) -> FleetPeer:
    return FleetPeer(keys.seed.read_bytes())


@pytest.fixture
def device(tmp_path: Path, keys: KeyFolder, peer: FleetPeer) -> Callable[[], ReleaseTrust]:
    """Opens the trust of one device pinned to the seed, over what the peer stores; its metadata survives between calls."""

    def open_trust() -> ReleaseTrust:
        seed = keys.seed.read_bytes()
        return ReleaseTrust(tmp_path / "device", seed, sha256_hex(seed), peer.fetch)

    return open_trust


def make_artifact(
    folder: Path, model: str = "digits", version: str = "1.0.0", target: str = "x86-64-cpu", content: bytes = b"model"
) -> Path:
    """A small but whole artifact directory below `folder`; returns it."""
    path = folder / model / version / target
    path.mkdir(parents=True, exist_ok=True)
    files = {"model.onnx": content, "card.md": b"# card\n"}
    for name, raw in files.items():
        (path / name).write_bytes(raw)
    tensor = {"datatype": "FP32", "shape": (-1, 4)}
    manifest = Manifest(
        model=model,
        version=version,
        requires=Requirements(
            profile=target, arch="x86_64", engine="onnxruntime", engine_range=EngineRange(at_least="1.20", below="2")
        ),
        variant="onnxruntime-f32",
        inputs=(TensorSpec(name="x", **tensor),),
        outputs=(TensorSpec(name="y", **tensor),),
        output_kind="classification",
        files=tuple(FileEntry(name=name, sha256=sha256_hex(raw), size_bytes=len(raw)) for name, raw in files.items()),
        model_file="model.onnx",
        lineage=Lineage(recipe="1" * 64, data="2" * 64, code="3" * 64, lock="4" * 64, seeds=(7,)),
    )
    raw = write_json(manifest)
    evidence = Evidence(
        manifest_sha256=sha256_hex(raw),
        measured=True,
        started_at="2026-11-21T08:00:00Z",
        seconds=Decimal("1.5"),
        host={"cpu": "x"},
    )
    (path / "manifest.json").write_bytes(raw)
    (path / "evidence.json").write_bytes(write_json(evidence))
    return path


def change_metadata(raw: bytes, change: Callable[[dict[str, Any]], None], signer: CryptoSigner | None = None) -> bytes:
    """Metadata with its signed part changed, signed anew by `signer` or left with the old signature."""
    document = json.loads(raw)
    change(document["signed"])
    metadata: Metadata[Any] = Metadata.from_dict(document)
    if signer:
        metadata.sign(signer)
    return metadata.to_bytes(JSONSerializer(compact=True))


def stranger() -> CryptoSigner:
    return CryptoSigner(Ed25519PrivateKey.generate())
