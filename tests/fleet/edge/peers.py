"""The service's peers at its edge: the engineer with the offline keys, a device with a key of its own, an event loop to run in."""

import asyncio
import copy
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import paho.mqtt.client as mqtt
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from paho.mqtt.enums import CallbackAPIVersion
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Root, Targets

from fleet.trust.acceptance import Upload
from runtime.contract.artifact import EVIDENCE_NAME, Evidence, FileEntry, Manifest, target_path
from runtime.contract.canonical import sha256_hex, write_json
from runtime.contract.trust import DIRECTOR_TARGET, NotFound, ReleaseTrust
from tests.fleet import peers
from toolchain.package import sign

T = TypeVar("T")
LIMIT_S = 10.0


def eventually(holds: Callable[[], T], limit_s: float = LIMIT_S) -> T:
    """Poll until `holds` gives something true, and return it."""
    deadline = time.monotonic() + limit_s
    while True:
        if found := holds():
            return found
        assert time.monotonic() < deadline, f"still not so after {limit_s} s"
        time.sleep(0.01)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LoopThread:
    """An event loop beside the test, in which parts of the service run."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def close(self) -> None:
        self.run(self._loop.shutdown_default_executor())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass
class Engineer:
    """Holds the offline keys and remembers what was accepted; signs with `toolchain.package.sign`, as the real one does."""

    root_key: CryptoSigner = field(default_factory=lambda: CryptoSigner(Ed25519PrivateKey.generate()))
    targets_key: CryptoSigner = field(default_factory=lambda: CryptoSigner(Ed25519PrivateKey.generate()))
    model_keys: dict[str, CryptoSigner] = field(default_factory=dict)
    root: Root = field(init=False)
    targets: Targets | None = None
    models: dict[str, Targets] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.root = sign.first_root(self.root_key.public_key, self.targets_key.public_key, datetime.now(UTC))
        self.seed = sign.seal(self.root, [self.root_key])

    def fork(self) -> "Engineer":
        """One with the same keys and seed who goes on alone."""
        forked = copy.copy(self)
        forked.model_keys, forked.models = dict(self.model_keys), dict(self.models)
        return forked

    def authorization(self, service_keys: dict[str, str]) -> Upload:
        """Root version 2 and targets version 1, naming the service's keys."""
        now = datetime.now(UTC)
        holders = {role: sign.service_key(service_keys[role]) for role in ("snapshot", "timestamp")}
        self.root = sign.next_root(self.root, holders, now)
        self.targets = sign.next_targets(self.targets, now)
        director = sign.director_document(bytes.fromhex(service_keys["director"]))
        sign.list_document(self.targets, DIRECTOR_TARGET, director)
        metadata = {"root": sign.seal(self.root, [self.root_key]), "targets": sign.seal(self.targets, [self.targets_key])}
        return Upload(metadata, {DIRECTOR_TARGET: director})

    def release(self, model: str, version: str, *targets: str, payload: bytes = b"weights", **others: bytes) -> "SignedRelease":
        """A release whose model file is `payload`; the metadata builds on what this engineer signed last.

        others: more payload files by name.
        """
        now = datetime.now(UTC)
        files = {"model.onnx": payload} | others
        metadata = {}
        if model not in self.model_keys:
            self.model_keys[model] = CryptoSigner(Ed25519PrivateKey.generate())
            self.targets = sign.next_targets(self.targets, now)
            sign.delegate_model(self.targets, model, self.model_keys[model].public_key)
            metadata["targets"] = sign.seal(self.targets, [self.targets_key])
        role = sign.next_targets(self.models.get(model), now)
        documents = {}
        for target in targets or ("x86-64-cpu",):
            documents |= artifact_documents(model, version, target, files)
        for path, raw in documents.items():
            sign.list_document(role, path, raw)
        metadata[sign.model_role(model)] = sign.seal(role, [self.model_keys[model]])
        self.models[model] = role
        return SignedRelease(model, version, Upload(metadata, documents), {sha256_hex(raw): raw for raw in files.values()})


@dataclass(frozen=True)
class SignedRelease:
    model: str
    version: str
    upload: Upload
    blobs: dict[str, bytes]


def artifact_documents(model: str, version: str, target: str, files: dict[str, bytes]) -> dict[str, bytes]:
    """Manifest and evidence, by target path."""
    base = peers.manifest(model, version, target).value
    values = {name: getattr(base, name) for name in base.__struct_fields__}
    values["files"] = tuple(FileEntry(name=name, sha256=sha256_hex(raw), size_bytes=len(raw)) for name, raw in files.items())
    manifest = write_json(Manifest(**values))
    evidence = Evidence(manifest_sha256=sha256_hex(manifest), measured=True, started_at="2026-11-21", seconds="1.5", host={})
    return {
        target_path(model, version, target): manifest,
        target_path(model, version, target, EVIDENCE_NAME): write_json(evidence),
    }


def trust_over_folder(folder: Path, metadata_dir: Path, root: bytes) -> ReleaseTrust:
    """A device's trust that reads the store's folder directly."""

    def fetch(path: str) -> Any:
        try:
            yield (folder / path).read_bytes()
        except FileNotFoundError as error:
            raise NotFound(path) from error

    return ReleaseTrust(metadata_dir, root, sha256_hex(root), fetch)


@dataclass(frozen=True)
class Identity:
    """A device's own key and what the fleet gave it."""

    device: str
    authority: Path
    certificate: Path
    key: Path

    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority))
        if self.certificate.exists():
            context.load_cert_chain(self.certificate, self.key)
        return context

    def http(self, port: int) -> httpx.Client:
        return httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=self.tls(), trust_env=False)


def make_request(device: str, key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, device)])
    algorithm = None if isinstance(key, Ed25519PrivateKey) else hashes.SHA256()
    return x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, algorithm).public_bytes(Encoding.PEM)


def key_pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class MqttPeer:
    """A connection to the broker as `identity`; what arrives is kept, what is answered can be awaited."""

    def __init__(self, identity: Identity, port: int, client_id: str | None = None, limit_s: float = LIMIT_S) -> None:
        self.messages: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self.disconnects: list[str] = []
        self._answers: dict[int, str] = {}
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id or identity.device, protocol=mqtt.MQTTv5)
        self._client.tls_set_context(identity.tls())
        self._client.on_message = lambda _client, _data, message: self.messages.put(message)
        self._client.on_publish = lambda _client, _data, mid, reason, _properties: self._answers.update({mid: str(reason)})
        self._client.on_subscribe = lambda _client, _data, mid, reasons, _properties: self._answers.update({mid: str(reasons[0])})
        self._client.on_disconnect = lambda _client, _data, _flags, reason, _properties: self.disconnects.append(str(reason))
        self._client.connect_async("127.0.0.1", port, clean_start=True)
        self._client.loop_start()
        try:
            eventually(self._client.is_connected, limit_s)
        except AssertionError:
            self.close()
            raise

    def send(self, topic: str, payload: bytes, *, retain: bool = False) -> int:
        """Send without waiting for an answer; returns the message's id."""
        return self._client.publish(topic, payload, qos=1, retain=retain).mid

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> str:
        """Send, and wait for the broker's answer."""
        mid = self.send(topic, payload, retain=retain)
        return eventually(lambda: self._answers.pop(mid, ""))

    def subscribe(self, name: str) -> str:
        mid = self._client.subscribe(name, qos=1)[1]
        return eventually(lambda: self._answers.pop(mid or 0, ""))

    def receive(self, limit_s: float = LIMIT_S) -> mqtt.MQTTMessage:
        return self.messages.get(timeout=limit_s)

    @property
    def is_connected(self) -> bool:
        return self._client.is_connected()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
