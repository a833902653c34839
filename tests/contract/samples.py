"""One full example of every document and message, as this version writes it; the source of the golden files."""

import struct
from decimal import Decimal

from runtime.contract import artifact as a
from runtime.contract import canonical as c
from runtime.contract import chunks
from runtime.contract import deployment as d
from runtime.contract import telemetry as t

DIGESTS = [f"{index:064x}" for index in range(1, 10)]
REF = a.ArtifactRef(version="1.0.0", target="x86-64-cpu", sha256=DIGESTS[0])

MANIFEST = a.Manifest(
    model="digits",
    version="1.0.0",
    requires=a.Requirements(
        profile="x86-64-cpu",
        arch="x86_64",
        engine="onnxruntime",
        engine_range=a.EngineRange(at_least="1.20", below="2"),
        instruction_sets=("avx2",),
        memory_bytes=64_000_000,
    ),
    variant="onnxruntime-float",
    engine_options={"threads": 1, "graph_optimization": "all", "arena": True},
    fallbacks=(a.Fallback(engine="reference", engine_range=a.EngineRange(at_least="1", below="2"), engine_options={}),),
    inputs=(
        a.TensorSpec(
            name="input",
            datatype="FP32",
            shape=(-1, 1, 32, 32),
            layout="NCHW",
            range=(Decimal("0"), Decimal("1")),
        ),
    ),
    outputs=(a.TensorSpec(name="logits", datatype="FP32", shape=(-1, 2), labels=("even", "odd")),),
    processing=a.Processing(
        pre=(a.Step(name="scale", options={"factor": "0.0625"}),),
        post=(a.Step(name="softmax"),),
    ),
    output_kind="classification",
    limits=a.Limits(max_latency_ns=5_000_000, max_drop=Decimal("0.01")),
    metrics=(
        a.Metric(
            name="accuracy",
            goal="max",
            value=Decimal("0.9875"),
            split="test",
            n=360,
            interval=(Decimal("0.9705"), Decimal("0.9948")),
        ),
    ),
    files=(
        a.FileEntry(name="model.onnx", sha256=DIGESTS[1], size_bytes=312_000),
        a.FileEntry(name="golden.npz", sha256=DIGESTS[2], size_bytes=66_000),
    ),
    model_file="model.onnx",
    rollback_floor="0.9.0",
    consent=a.Consent(personal_data=False, raw_samples=True),
    lineage=a.Lineage(
        recipe=DIGESTS[3], data=DIGESTS[4], code=DIGESTS[5], lock=DIGESTS[6], seeds=(7,), conditions=("2 threads",)
    ),
    licence="Apache-2.0",
)

EVIDENCE = a.Evidence(
    manifest_sha256=DIGESTS[0],
    measured=True,
    started_at="2026-11-21T08:00:00Z",
    seconds=Decimal("41.5"),
    host={"cpu": "example", "cores": "2"},
    tracking={"run": "abc"},
    variants=(
        a.VariantEvidence(
            name="onnxruntime-float",
            engine="onnxruntime",
            size_bytes=312_000,
            metric=Decimal("0.99"),
            parity=Decimal("0.0000012"),
            latency=a.LatencyEvidence(
                p50_ns=180_000,
                p90_ns=190_000,
                p99_ns=240_000,
                mean_ns=183_000,
                samples=400,
                threads=1,
                batch=1,
                ratio=Decimal("1"),
                ratio_interval=(Decimal("0.99"), Decimal("1.01")),
            ),
            verdict="chosen",
            reason="fastest that keeps the metric",
        ),
    ),
    notes=("float wins on this target",),
)

DESIRED = d.Desired(
    device="porch-1",
    generation=3,
    issued_at=1_800_000_000,
    expires=1_800_600_000,
    settings=d.Settings(window_s=60, probation_s=30),
    deployments=(d.Deployment(model="digits", artifact=REF, rollout="r-1", attempt=1, not_before=1_800_000_100),),
)

ENVELOPE = d.Envelope(payload=c.write_message(DESIRED, c.DESIRED_LIMIT), keyid="0123456789abcdef", signature=bytes(range(64)))

REPORTED = d.Reported(
    boot=2**63 - 5,
    seq=12,
    applied_generation=3,
    clock_synced=True,
    profile=d.DeviceProfile(
        profiles=("x86-64-cpu",),
        arch="x86_64",
        engines={"onnxruntime": "1.31.1"},
        instruction_sets=("avx2",),
        memory_bytes=512_000_000,
    ),
    versions={"edgewright": "0.1.0", "python": "3.11.2"},
    deployments=(
        d.ReportedDeployment(
            model="digits",
            artifact=REF,
            slot="a",
            wanted=REF,
            rollout="r-1",
            attempt=1,
            state=d.DeploymentState.IDLE,
            outcome=d.Outcome.SUCCEEDED,
        ),
        d.ReportedDeployment(model="digits", role="shadow", artifact=REF, slot="b"),
    ),
)

WINDOW = t.Window(
    device="porch-1",
    boot=2**63 - 5,
    seq=13,
    model="digits",
    artifact=REF,
    edges=DIGESTS[7],
    start_ms=1_800_000_000_000,
    duration_ms=60_000,
    clock_synced=True,
    requests=200,
    errors=1,
    rows=199,
    dropped_rows=0,
    streams=(t.StreamCounts(tuple(range(32)), 1, 2), t.StreamCounts(tuple(range(32, 0, -1)), 0, 0)),
    classes=(100, 99),
    confidence=tuple(range(20)),
    latency={60: 150, 61: 49},
    resources={"rss_bytes": 80_000_000},
    agreement=t.Agreement(sampled=20, compared=18, agreed=17, dropped=1, failed=1),
)

EVENT = t.Event(
    device="porch-1",
    boot=2**63 - 5,
    seq=14,
    at_ms=1_800_000_000_000,
    clock_synced=True,
    kind="update",
    code="trust.digest_mismatch",
    model="digits",
    artifact=REF,
    rollout="r-1",
    attempt=1,
    detail="model.onnx has another digest",
)

PRESENCE = t.Presence(device="porch-1", boot=2**63 - 5, online=True)

COMMAND = t.Command(device="porch-1", id="c-1", kind="log_tail", options={"lines": 50}, expires=1_800_000_300)

RESULT = t.Result(device="porch-1", id="c-1", code="", body=b"ok")

EDGE_SET = t.EdgeSet(
    streams=(
        t.StreamReference(
            name="brightness",
            kind="input",
            tensor="input",
            index=-1,
            edges=struct.pack("<31d", *[index / 31 for index in range(31)]),
        ),
    )
)

REFERENCE = t.Reference(
    edge_set=c.write_message(EDGE_SET, c.MANIFEST_LIMIT),
    counts=(t.StreamCounts(tuple(range(32)), 0, 0),),
    null=((10, 20, 30),),
    null_rows=200,
    classes=(180, 180),
    confidence=tuple(range(20)),
)

DOCUMENTS = {"manifest": MANIFEST, "evidence": EVIDENCE}
CHUNK_INDEX = chunks.ChunkIndex(scheme="gear-1", size_bytes=20_000, records=bytes.fromhex("204e0000" + "ab" * 16))

MESSAGES = {
    "desired": DESIRED,
    "envelope": ENVELOPE,
    "reported": REPORTED,
    "window": WINDOW,
    "event": EVENT,
    "presence": PRESENCE,
    "command": COMMAND,
    "result": RESULT,
    "reference": REFERENCE,
    "chunk_index": CHUNK_INDEX,
}
