"""Peers of the service in tests: a clock that is set, a signing key's root, releases, and devices that report.

`Devices` is the other end of the twin: it reads what a device should want, and writes what a device says, through the
same repositories as the ingest.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root

from fleet.services import Services
from fleet.store.devices import Certificate, DeviceRepository
from fleet.store.releases import ReleaseRepository
from fleet.store.telemetry import TelemetryRepository
from fleet.store.twins import TwinRepository
from runtime.contract.artifact import (
    ArtifactRef,
    EngineRange,
    FileEntry,
    Lineage,
    Manifest,
    Metric,
    Requirements,
    TensorSpec,
    read_manifest,
)
from runtime.contract.canonical import INFLATED_TELEMETRY_LIMIT, REPORTED_LIMIT, Received, sha256_hex, write_json, write_message
from runtime.contract.deployment import Deployment, DeploymentState, DeviceProfile, Outcome, Reported, ReportedDeployment
from runtime.contract.telemetry import CELLS, CONFIDENCE_CELLS, StreamCounts, Window

EDGES = sha256_hex(b"edges")
X86 = DeviceProfile(profiles=("x86-64-cpu",), arch="x86_64", engines={"onnxruntime": "1.31.0"})


class Clock:
    """Milliseconds that pass only when told to."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

    def pass_s(self, seconds: float) -> None:
        self._now_ms += int(seconds * 1000)


@cache
def root_json() -> bytes:
    """A public root whose four roles are held by one offline key, as `toolchain keys create` makes it."""
    signer = CryptoSigner(Ed25519PrivateKey.generate())
    root = Root(expires=datetime.now(UTC) + timedelta(days=365), consistent_snapshot=True)
    for role in ("root", "targets", "snapshot", "timestamp"):
        root.add_key(signer.public_key, role)
    metadata = Metadata(root)
    metadata.sign(signer)
    return metadata.to_bytes()


def manifest(model: str, version: str, target: str = "x86-64-cpu", engine: str = "onnxruntime") -> Received[Manifest]:
    """A small classifier's manifest; each (model, version, target) has a digest of its own."""
    digest = sha256_hex(f"{model} {version} {target}".encode())
    value = Manifest(
        model=model,
        version=version,
        requires=Requirements(profile=target, arch="x86_64", engine=engine, engine_range=EngineRange(at_least="1.20", below="2")),
        variant="float",
        inputs=(TensorSpec(name="image", datatype="FP32", shape=(-1, 1, 32, 32), layout="NCHW"),),
        outputs=(TensorSpec(name="scores", datatype="FP32", shape=(-1, 10)),),
        output_kind="classification",
        metrics=(Metric(name="accuracy", goal="max", value=Decimal("0.98"), split="test", n=360),),
        files=(FileEntry(name="model.onnx", sha256=digest, size_bytes=1000),),
        model_file="model.onnx",
        lineage=Lineage(recipe=digest, data=digest, code=digest, lock=digest),
    )
    return read_manifest(write_json(value))


@dataclass
class Behaviour:
    """What a device's windows show. classes: share of each; errors: share of requests that fail."""

    rows: int = 200
    errors: float = 0.0
    latency_cell: int = 60
    classes: tuple[float, ...] = (0.1,) * 10
    confidence_cell: int = 18

    def window(self, device: str, *, boot: int, seq: int, model: str, artifact: ArtifactRef, start_ms: int) -> Window:
        classes = [round(self.rows * share) for share in self.classes]
        confidence = [0] * CONFIDENCE_CELLS
        confidence[self.confidence_cell] = self.rows
        return Window(
            device=device,
            boot=boot,
            seq=seq,
            model=model,
            artifact=artifact,
            edges=EDGES,
            start_ms=start_ms,
            duration_ms=60_000,
            clock_synced=True,
            requests=self.rows,
            errors=round(self.rows * self.errors),
            rows=self.rows,
            streams=(StreamCounts(cells=(self.rows,) + (0,) * (CELLS - 1)),),
            classes=tuple(classes),
            confidence=tuple(confidence),
            latency={self.latency_cell: self.rows},
        )


@dataclass
class PlayedDevice:
    """What one device is in the middle of."""

    boot: int
    seq: int = 0
    applied: int = 0
    serving: dict[str, ArtifactRef] = field(default_factory=dict)
    reported: dict[str, ReportedDeployment] = field(default_factory=dict)
    refuses: set[str] = field(default_factory=set)
    profile: DeviceProfile = X86


class Devices:
    """Plays enrolled devices. A device converges on its desired state only when told to, so tests decide who is silent."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.played: dict[str, PlayedDevice] = {}

    def enrol(self, *names: str, labels: dict[str, str] | None = None, report: bool = True) -> None:
        with self._services.database.write() as session:
            for name in names:
                certificate = Certificate(pem="", serial=name, expires_ms=self._services.now_ms() + 10**10)
                DeviceRepository(session).enrol(name, labels or {}, certificate, self._services.now_ms())
                TwinRepository(session).save_presence(name, True, self._services.now_ms())
        for number, name in enumerate(names, start=len(self.played) + 1):
            self.played[name] = PlayedDevice(boot=2**63 - number)
            if report:
                self.report(name)

    def publish(self, model: str, version: str, *targets: str) -> None:
        with self._services.database.write() as session:
            manifests = [(manifest(model, version, target), None) for target in targets or ("x86-64-cpu",)]
            ReleaseRepository(session).add(
                model, version, manifests, role_version=1, now_ms=self._services.now_ms(), actor="tests"
            )

    def wanted(self, name: str) -> tuple[int, tuple[Deployment, ...]]:
        with self._services.database.read() as session:
            twins = TwinRepository(session)
            return twins.get(name).generation, twins.deployments(name)

    def converge(self, *names: str) -> None:
        """Let devices carry out what they are told: those that refuse an artifact's version say so, the others serve it."""
        for name in names or tuple(self.played):
            device = self.played[name]
            generation, deployments = self.wanted(name)
            if generation == device.applied:
                continue  # like a real device, it speaks when something has changed
            for wanted in deployments:
                held = device.reported.get(wanted.model)
                if held is not None and (held.rollout, held.attempt) == (wanted.rollout, wanted.attempt):
                    continue
                is_refused = wanted.artifact.version in device.refuses
                if not is_refused:
                    device.serving[wanted.model] = wanted.artifact
                device.reported[wanted.model] = ReportedDeployment(
                    model=wanted.model,
                    artifact=device.serving.get(wanted.model),
                    slot="a",
                    wanted=wanted.artifact,
                    rollout=wanted.rollout,
                    attempt=wanted.attempt,
                    outcome=Outcome.REFUSED if is_refused else Outcome.SUCCEEDED,
                    error_code="update.self_test_failed" if is_refused else "",
                )
            self.report(name)

    def report(self, name: str, state: DeploymentState = DeploymentState.IDLE) -> None:
        device = self.played[name]
        device.seq += 1
        device.applied = self.wanted(name)[0]
        value = Reported(
            boot=device.boot,
            seq=device.seq,
            applied_generation=device.applied,
            clock_synced=True,
            profile=device.profile,
            versions={"edgewright": "0.1.0"},
            deployments=tuple(device.reported.values()),
        )
        received = Received(write_message(value, REPORTED_LIMIT), value)
        with self._services.database.write() as session:
            TwinRepository(session).save_reported(name, received, self._services.now_ms())

    def serve(self, model: str, behaviour: Behaviour, *names: str) -> None:
        """Let devices send one window each of the model they serve."""
        windows = []
        for name in names or tuple(self.played):
            device = self.played[name]
            device.seq += 1
            window = behaviour.window(
                name,
                boot=device.boot,
                seq=device.seq,
                model=model,
                artifact=device.serving[model],
                start_ms=self._services.now_ms(),
            )
            windows.append(Received(write_message(window, INFLATED_TELEMETRY_LIMIT), window))
        with self._services.database.write() as session:
            TelemetryRepository(session).add_windows(windows, self._services.now_ms())
