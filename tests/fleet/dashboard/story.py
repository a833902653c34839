"""A small fleet with a past, for the dashboard's tests: releases with evidence and references, devices with windows and logs.

Everything enters through the service's own repositories and workers, on a clock that is set; nothing is written into a
table by hand.
"""

from dataclasses import dataclass, field
from decimal import Decimal

import msgspec
import numpy as np

from fleet.control import Actor
from fleet.domain.plan import Plan
from fleet.domain.rollout import RolloutEvent
from fleet.drift import DriftWatch
from fleet.scheduler import Scheduler
from fleet.services import Services
from fleet.store.releases import ReleaseRepository
from fleet.store.telemetry import TelemetryRepository
from runtime.contract.artifact import (
    REFERENCE_NAME,
    ArtifactRef,
    Evidence,
    FileEntry,
    LatencyEvidence,
    Limits,
    Manifest,
    VariantEvidence,
    read_manifest,
)
from runtime.contract.canonical import INFLATED_TELEMETRY_LIMIT, Received, sha256_hex, write_json, write_message
from runtime.contract.telemetry import (
    CELLS,
    CONFIDENCE_CELLS,
    EdgeSet,
    Event,
    Reference,
    StreamCounts,
    StreamReference,
    Window,
    write_window,
)
from runtime.monitor.cells import count_cells, latency_cell, make_edges, null_distances
from tests.fleet.peers import Clock, Devices
from tests.fleet.peers import manifest as plain_manifest

STREAMS = ("brightness", "contrast", "sharpness", "entropy")
WINDOW_S = 60
ROWS = 240
REFERENCE_LIMIT = 4 * 1024 * 1024
STEPS = ("fetching", "verifying", "testing", "switching", "probation", "committing", "reporting", "idle")
REFUSED_STEPS = ("fetching", "verifying", "testing", "reporting", "idle")
OPERATOR = Actor("mara", "operator")


@dataclass
class Mood:
    """How a device behaves. shift: of its brightness in standard deviations; errors: share of failed requests."""

    shift: float = 0.0
    errors: float = 0.0
    latency_ns: int = 310_000
    seven_share: float = 0.1
    rows: int = ROWS


@dataclass
class Story:
    """rollouts: the newest of each version, by version. url: where it is served, once it is."""

    services: Services
    clock: Clock
    seed: int = 11
    moods: dict[str, Mood] = field(default_factory=dict)
    rollouts: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def __post_init__(self) -> None:
        self.devices = Devices(self.services)
        self.began_ms = self.clock.now_ms()
        self.random = np.random.default_rng(self.seed)
        self.scheduler = Scheduler(
            self.services.database, self.services.changes, self.services.now_ms, self.services.config.scheduler, lambda: None
        )
        self.scheduler.take_charge()
        self.drift = DriftWatch(
            self.services.database, self.services.changes, self.services.now_ms, self.services.blobs.read, every_ms=1000
        )
        self.reference, self.edges = make_reference()

    def publish(self, version: str, accuracy: str = "0.9889", *, with_evidence: bool = True) -> None:
        """A release of digits for x86-64-cpu, with its reference in the blob store."""
        digest = sha256_hex(self.reference)
        with self.services.blobs.upload(digest) as upload:
            upload.write(self.reference)
            upload.commit()
        received = digits_manifest(version, accuracy, digest, len(self.reference))
        evidence = write_json(digits_evidence(received.sha256)) if with_evidence else None
        with self.services.database.write() as session:
            ReleaseRepository(session).add(
                "digits", version, [(received, evidence)], role_version=1, now_ms=self.clock.now_ms(), actor="ci"
            )

    def roll_out(self, version: str, stages: list[dict[str, object]], **plan: object) -> str:
        asked = msgspec.convert({"model": "digits", "version": version, "stages": stages, **plan}, Plan)
        rollout, _ = self.services.control.create(asked, OPERATOR)
        self.services.control.act(rollout, RolloutEvent.START, OPERATOR)
        self.rollouts[version] = rollout
        return rollout

    def minutes(self, count: int) -> None:
        """Let the fleet live: every minute each serving device sends a window, rollouts step, drift is judged."""
        for _ in range(count):
            self.clock.pass_s(WINDOW_S)
            self.serve()
            self.drift.run_once()
            self.scheduler.run_once()
            self.converge()
            self.scheduler.run_once()

    def converge(self) -> None:
        """Devices do what they are told, and log the steps."""
        for name, device in self.devices.played.items():
            before = device.serving.get("digits")
            for wanted in self.devices.wanted(name)[1]:
                held = device.reported.get(wanted.model)
                if held is None or (held.rollout, held.attempt) != (wanted.rollout, wanted.attempt):
                    self._log(name, wanted.artifact, wanted.rollout, wanted.attempt, wanted.artifact.version in device.refuses)
            self.devices.converge(name)
            if device.serving.get("digits") != before:
                self.services.changes.publish("device", name)

    def serve(self) -> None:
        windows = []
        for name, device in self.devices.played.items():
            if "digits" in device.serving:
                device.seq += 1
                windows.append(self._window(name, device.boot, device.seq, device.serving["digits"]))
        received = [Received(write_message(window, INFLATED_TELEMETRY_LIMIT), window) for window in windows]
        for window in windows:
            write_window(window)  # within the limits of the wire
        with self.services.database.write() as session:
            TelemetryRepository(session).add_windows(received, self.clock.now_ms())
        for window in windows:
            self.services.changes.publish("window", window.device)

    def _window(self, name: str, boot: int, seq: int, artifact: ArtifactRef) -> Window:
        mood = self.moods.get(name, Mood())
        rows = int(mood.rows * self.random.uniform(0.85, 1.15))
        samples = self.random.normal(size=(rows, len(STREAMS)))
        samples[:, 0] += mood.shift
        bound = np.full(len(STREAMS), np.inf)
        counts = count_cells(self.edges, samples, -bound, bound)
        others = (1 - mood.seven_share) / 9
        shares = [mood.seven_share if digit == 7 else others for digit in range(10)]
        latency = self.random.lognormal(np.log(mood.latency_ns), 0.18, rows)
        cells, amounts = np.unique([latency_cell(int(one)) for one in latency], return_counts=True)
        confidence = np.bincount(np.clip((self.random.beta(14, 1.2, rows) * CONFIDENCE_CELLS).astype(int), 0, 19), minlength=20)
        return Window(
            device=name,
            boot=boot,
            seq=seq,
            model="digits",
            artifact=artifact,
            edges=sha256_hex(read_edge_set(self.reference)),
            start_ms=self.clock.now_ms() - WINDOW_S * 1000,
            duration_ms=WINDOW_S * 1000,
            clock_synced=True,
            requests=rows,
            errors=int(self.random.binomial(rows, mood.errors)),
            rows=rows,
            streams=tuple(
                StreamCounts(cells=tuple(row[:CELLS].tolist()), missing=int(row[CELLS]), out_of_range=int(row[CELLS + 1]))
                for row in counts
            ),
            classes=tuple(self.random.multinomial(rows, shares).tolist()),
            confidence=tuple(confidence.tolist()),
            latency={int(cell): int(amount) for cell, amount in zip(cells, amounts, strict=True)},
            resources={
                "rss_bytes": int(self.random.normal(71e6, 4e5)),
                "cpu_ms": (self.clock.now_ms() - self.began_ms) * 42 // 1000 + int(self.random.normal(0, 40)),
            },
        )

    def _log(self, name: str, artifact: ArtifactRef, rollout: str, attempt: int, refused: bool) -> None:
        device = self.devices.played[name]
        events = []
        for number, step in enumerate(REFUSED_STEPS if refused else STEPS):
            device.seq += 1
            failed = refused and step in ("reporting", "idle")
            events.append(
                Event(
                    device=name,
                    boot=device.boot,
                    seq=device.seq,
                    at_ms=self.clock.now_ms() - 9000 + 1400 * number,
                    clock_synced=True,
                    kind="update",
                    code="update.self_test_failed" if failed else "",
                    model="digits",
                    artifact=artifact,
                    rollout=rollout,
                    attempt=attempt,
                    detail=f"{step}: golden outputs differ by 0.31, tolerance 0.001" if failed else step,
                )
            )
        with self.services.database.write() as session:
            TelemetryRepository(session).add_events(events, self.clock.now_ms())


def make_reference() -> tuple[bytes, np.ndarray]:
    """A drift reference of standard normal streams, and its edges float64[streams, 31]."""
    generator = np.random.default_rng(3)
    sample = generator.normal(size=(1800, len(STREAMS)))
    edges = np.stack([make_edges(sample[:, index]) for index in range(len(STREAMS))])
    bound = np.full(len(STREAMS), np.inf)
    counts = count_cells(edges, sample, -bound, bound)
    null = null_distances(counts[:, :CELLS], rows=500, draws=100, seed=5)
    streams = tuple(
        StreamReference(name=name, kind="input", tensor="image", index=-1, edges=edges[index].astype("<f8").tobytes())
        for index, name in enumerate(STREAMS)
    )
    reference = Reference(
        edge_set=write_message(EdgeSet(streams=streams), REFERENCE_LIMIT),
        counts=tuple(StreamCounts(cells=tuple(row[:CELLS].tolist())) for row in counts),
        null=tuple(tuple(row.tolist()) for row in null),
        null_rows=500,
    )
    return write_message(reference, REFERENCE_LIMIT), edges


def read_edge_set(reference: bytes) -> bytes:
    return msgspec.msgpack.decode(reference, type=Reference).edge_set


def digits_manifest(version: str, accuracy: str, reference_sha256: str, size_bytes: int) -> Received[Manifest]:
    plain = plain_manifest("digits", version).value
    metric = msgspec.structs.replace(plain.metrics[0], value=Decimal(accuracy), interval=(Decimal("0.9708"), Decimal("0.9965")))
    files = (*plain.files, FileEntry(name=REFERENCE_NAME, sha256=reference_sha256, size_bytes=size_bytes))
    limits = Limits(max_latency_ns=5_000_000, max_drop=Decimal("0.01"))
    return read_manifest(
        write_json(msgspec.structs.replace(plain, metrics=(metric,), files=files, limits=limits, licence="Apache-2.0"))
    )


def digits_evidence(manifest_sha256: str) -> Evidence:
    def timed(p50_ns: int, ratio: str, low: str, high: str) -> LatencyEvidence:
        return LatencyEvidence(
            p50_ns=p50_ns, p90_ns=int(p50_ns * 1.08), p99_ns=int(p50_ns * 1.4), mean_ns=int(p50_ns * 1.02), samples=4000, threads=1,
            batch=1, ratio=Decimal(ratio), ratio_interval=(Decimal(low), Decimal(high)),
        )  # fmt: skip

    variants = (
        ("onnxruntime-float", "onnxruntime", 318_000, "0.9889", None, timed(309_000, "1.00", "1.00", "1.00"), "passed", "baseline"),
        ("onnxruntime-int8", "onnxruntime", 96_000, "0.9861", "0.021", timed(201_000, "1.54", "1.51", "1.57"), "chosen", "fastest within the limits: 1.54 x float, metric down 0.28 points"),
        ("openvino-float", "openvino", 322_000, "0.9889", "0.0004", timed(296_000, "1.04", "1.01", "1.08"), "passed", "slower than onnxruntime-int8"),
        ("openvino-int8", "openvino", 101_000, "0.9722", "0.087", timed(188_000, "1.64", "1.60", "1.69"), "rejected", "metric falls 1.67 points, 1.00 allowed"),
    )  # fmt: skip
    return Evidence(
        manifest_sha256=manifest_sha256,
        measured=True,
        started_at="2026-09-21T10:12:31Z",
        seconds=Decimal("41.7"),
        host={"cpu": "x86-64, 2 cores", "onnxruntime": "1.31.0", "openvino": "2026.4", "load_average": "0.31"},
        tracking={"run": "8f1c2d"},
        variants=tuple(
            VariantEvidence(
                name=name, engine=engine, size_bytes=size, metric=Decimal(metric), parity=Decimal(parity) if parity else None,
                latency=latency, verdict=verdict, reason=reason,
            )
            for name, engine, size, metric, parity, latency, verdict, reason in variants
        ),
    )  # fmt: skip
