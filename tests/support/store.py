"""A release store: real TUF metadata over real artifacts, and the device door that serves both over mutual TLS."""

import base64
import contextlib
import datetime
import http.server
import io
import json
import ssl
import threading
import time
import zipfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp

from runtime.contract.artifact import ArtifactRef, target_path
from runtime.contract.canonical import COMMAND_LIMIT, DESIRED_LIMIT, sha256_hex, write_json, write_message
from runtime.contract.chunks import LEAST_BLOB_BYTES, cut, write_index
from runtime.contract.deployment import Deployment, Desired, Settings
from runtime.contract.telemetry import Command
from runtime.contract.trust import DIRECTOR_TARGET, DirectorKeys, key_id, seal_envelope
from tests.support.artifacts import ref_of
from tests.support.pki import Authority

LIFETIME = datetime.timedelta(days=30)


class ReleaseStore:
    """Signs as engineer and service in one. files: what a TUF client may ask for, by path; blobs: payload by digest."""

    def __init__(self) -> None:
        self._signers = {role: CryptoSigner.generate_ed25519() for role in ("root", "targets", "snapshot", "timestamp")}
        self._model_signers: dict[str, CryptoSigner] = {}
        self._director = Ed25519PrivateKey.generate()
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self._version = 0
        self.expires = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + LIFETIME
        root = Root(version=1, expires=self.expires, consistent_snapshot=True)
        for role, signer in self._signers.items():
            root.add_key(signer.public_key, role)
        self.root = self._sealed(root, self._signers["root"])
        self._targets = Targets(expires=self.expires, delegations=Delegations(keys={}, roles={}))
        self._models: dict[str, Targets] = {}
        public = self._director.public_key().public_bytes_raw()
        self.keyid = key_id(public)
        self._list(self._targets, DIRECTOR_TARGET, write_json(DirectorKeys(keys={self.keyid: public.hex()})))
        self.sign()

    def publish(self, directory: Path, model: str = "tiny") -> ArtifactRef:
        """Release an artifact directory."""
        ref = ref_of(directory)
        if model not in self._models:
            signer = self._model_signers[model] = CryptoSigner.generate_ed25519()
            self._models[model] = Targets(expires=self.expires)
            role = DelegatedRole(f"model-{model}", [], 1, terminating=True, paths=[f"{model}/*/*/*"])
            self._targets.delegations.roles[role.name] = role
            self._targets.add_key(signer.public_key, role.name)
        raw = (directory / "manifest.json").read_bytes()
        self._list(self._models[model], target_path(model, ref.version, ref.target), raw)
        for path in directory.iterdir():
            self.blobs[sha256_hex(path.read_bytes())] = path.read_bytes()
        self.sign()
        return ref

    def sign(self, expires: datetime.datetime | None = None) -> None:
        """Sign all metadata anew. expires: of the timestamp, to make an expired store."""
        self._version += 1
        number = self._version
        roles = {"targets": self._targets, **{f"model-{name}": targets for name, targets in self._models.items()}}
        for name, targets in roles.items():
            targets.version = number
            signer = self._signers["targets"] if name == "targets" else self._model_signers[name.removeprefix("model-")]
            self.files[f"metadata/{number}.{name}.json"] = self._sealed(targets, signer)
        snapshot = Snapshot(version=number, expires=self.expires, meta={f"{name}.json": MetaFile(number) for name in roles})
        self.files[f"metadata/{number}.snapshot.json"] = self._sealed(snapshot, self._signers["snapshot"])
        timestamp = Timestamp(version=number, expires=expires or self.expires, snapshot_meta=MetaFile(number))
        self.files["metadata/timestamp.json"] = self._sealed(timestamp, self._signers["timestamp"])

    def sign_all(self, expires: datetime.datetime) -> None:
        """Sign all metadata but the root anew, with another end for all of it."""
        self.expires = expires
        for targets in (self._targets, *self._models.values()):
            targets.expires = expires
        self.sign()

    def seal(self, desired: Desired) -> bytes:
        """The signed envelope of a desired state."""
        return seal_envelope(write_message(desired, DESIRED_LIMIT), self.keyid, self._director.sign, DESIRED_LIMIT)

    def seal_command(self, command: Command) -> bytes:
        return seal_envelope(write_message(command, COMMAND_LIMIT), self.keyid, self._director.sign, COMMAND_LIMIT)

    def write_bundle(self, path: Path) -> Path:
        """Everything of this store as one side-load file."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            for name, raw in sorted(self.files.items()):
                archive.writestr(name, raw)
            for sha256, raw in sorted(self.blobs.items()):
                archive.writestr(f"blobs/sha256/{sha256}", raw)
        return path

    def _list(self, targets: Targets, path: str, raw: bytes) -> None:
        targets.targets[path] = TargetFile.from_data(path, raw, ["sha256"])
        folder, _, name = path.rpartition("/")
        self.files["/".join(filter(None, ["targets", folder, f"{sha256_hex(raw)}.{name}"]))] = raw

    @staticmethod
    def _sealed(signed, signer: CryptoSigner) -> bytes:
        metadata = Metadata(signed)
        metadata.sign(signer)
        return metadata.to_bytes()


def make_desired(
    device: str,
    generation: int,
    *artifacts: ArtifactRef,
    model: str = "tiny",
    rollout: str = "rollout-1",
    attempt: int = 0,
    expires_in_s: int = 3600,
    settings: Settings | None = None,
) -> Desired:
    now = int(time.time())
    deployments = tuple(Deployment(model=model, artifact=one, rollout=rollout, attempt=attempt) for one in artifacts)
    return Desired(
        device=device,
        generation=generation,
        issued_at=now,
        expires=now + expires_in_s,
        settings=settings or Settings(window_s=1, probation_s=0),
        deployments=deployments,
    )


class Door:
    """The device door of a fleet: enrolment, release metadata, blobs with Range and chunk index.

    cut_after: bytes before a blob's connection is cut; knows_ranges: else it sends the whole whatever it is asked;
    indexes: what it says a blob is cut into, by digest, where it is not the truth (None: nothing).
    """

    def __init__(self, authority: Authority, store: ReleaseStore) -> None:
        self.authority = authority
        self.store = store
        self.broker = {"host": "localhost", "port": 1}
        self.secret = "s3cret"
        self.cut_after: int | None = None
        self.knows_ranges = True
        self.indexes: dict[str, bytes | None] = {}
        self.blob_bytes_sent = 0
        self.requests: list[str] = []
        certificate, key = authority.server()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.folder / "ca.pem"))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_cert_chain(certificate, key)
        self.handler = type("Handler", (_Handler,), {"door": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"https://localhost:{self._server.server_address[1]}"

    def token(self, **changes: str) -> str:
        fields = {
            "url": self.url,
            "ca_sha256": sha256_hex(self.authority.der),
            "root_sha256": sha256_hex(self.store.root),
            "secret": self.secret,
        }
        return base64.urlsafe_b64encode(json.dumps(fields | changes).encode()).decode().rstrip("=")

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(http.server.BaseHTTPRequestHandler):
    door: Door
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.door.requests.append(self.path)
        if self.path == "/ca.pem":
            self._answer(200, self.door.authority.pem.encode())
        elif not self.connection.getpeercert():
            self._answer(403, b"{}")
        elif self.path.startswith("/tuf/"):
            raw = self.door.store.files.get(self.path.removeprefix("/tuf/"))
            self._answer(200 if raw is not None else 404, raw or b"")
        elif self.path.endswith("/chunks"):
            raw = self._index(self.path.split("/")[-2])
            self._answer(200 if raw is not None else 404, raw or b"")
        elif self.path.startswith("/blobs/"):
            self._answer_blob(self.door.store.blobs.get(self.path.removeprefix("/blobs/")))
        else:
            self._answer(404, b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if body["secret"] != self.door.secret:
            self._answer(403, json.dumps({"code": "enrolment.refused", "detail": "unknown or used token"}).encode())
            return
        answer = {
            "fleet": "plant",
            "device": body["device"],
            "certificate_pem": self.door.authority.certify(body["csr_pem"]),
            "ca_pem": self.door.authority.pem,
            "root_json_b64": base64.b64encode(self.door.store.root).decode(),
            "broker": self.door.broker,
        }
        self._answer(201, json.dumps(answer).encode())

    def _answer_blob(self, raw: bytes | None) -> None:
        if raw is None:
            self._answer(404, b"")
            return
        start, end = 0, len(raw)
        if asked := self.headers["Range"] if self.door.knows_ranges else None:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1, len(raw)) if last else len(raw)
        if asked and start >= end:
            self._answer(416, b"{}")
            return
        part = raw[start:end]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(raw)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        sent = part if self.door.cut_after is None else part[: self.door.cut_after]
        self.door.blob_bytes_sent += len(sent)
        self.wfile.write(sent)
        if len(sent) < len(part):
            self.close_connection = True

    def _index(self, sha256: str) -> bytes | None:
        if sha256 in self.door.indexes:
            return self.door.indexes[sha256]
        raw = self.door.store.blobs.get(sha256, b"")
        return write_index(list(cut(io.BytesIO(raw).read))) if len(raw) >= LEAST_BLOB_BYTES else None

    def _answer(self, status: int, raw: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def handle(self) -> None:
        """A client that breaks the handshake off, or the connection, is what some tests are about."""
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            super().handle()

    def log_message(self, format: str, *arguments: object) -> None:
        """Tests read `requests` instead."""
