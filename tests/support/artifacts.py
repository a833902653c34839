"""Small real artifacts: manifest, model, golden file and drift reference, for the engine that needs no installation."""

from pathlib import Path

import msgspec
import numpy as np

from runtime.backends.reference import write_model
from runtime.contract.artifact import (
    ArtifactRef,
    EngineRange,
    FileEntry,
    Lineage,
    Manifest,
    Processing,
    Requirements,
    Step,
    TensorSpec,
    read_manifest,
)
from runtime.contract.canonical import sha256_hex, write_json
from runtime.contract.deployment import DeviceProfile
from runtime.contract.telemetry import EdgeSet, Reference, StreamCounts, StreamReference
from runtime.monitor.cells import CELLS, count_cells, make_edges, null_distances
from runtime.monitor.streams import stream_plan, stream_rows

FEATURES, CLASSES = 4, 3
TARGET = "test-cpu"
ARCH = "x86_64"
ZERO = "0" * 64
PROFILE = DeviceProfile(profiles=(TARGET,), arch=ARCH, engines={"reference": "1.0.0"}, memory_bytes=1 << 30)

INPUTS = (TensorSpec(name="input", datatype="FP32", shape=(-1, FEATURES), labels=("a", "b", "c", "d")),)
OUTPUTS = (TensorSpec(name="output", datatype="FP32", shape=(-1, CLASSES)),)


def weights(scale: float) -> np.ndarray:
    """A well-conditioned map from features to scores; `scale` tells versions apart."""
    return scale * np.random.default_rng(7).normal(size=(FEATURES, CLASSES)).astype(np.float32)


def scores(rows: np.ndarray, scale: float) -> np.ndarray:
    """What the model of this scale must answer."""
    return rows.astype(np.float64) @ weights(scale).astype(np.float64)


def write_artifact(
    directory: Path,
    *,
    model: str = "tiny",
    version: str = "1.0.0",
    scale: float = 1.0,
    golden_scale: float | None = None,
    padding: int = 0,
    card: bytes = b"# tiny\n",
    **changes,
) -> ArtifactRef:
    """Write an artifact and name it. golden_scale: other than `scale`, the self-test must refuse it.

    padding: bytes added to the card, to make it large. changes: of the manifest.
    """
    directory.mkdir(parents=True)
    write_model(directory / "model.npz", [(weights(scale), np.zeros(CLASSES, np.float32))])
    rows = np.random.default_rng(3).normal(size=(16, FEATURES)).astype(np.float32)
    expected = scores(rows, scale if golden_scale is None else golden_scale).astype(np.float32)
    arrays = {"in.input": rows, "out.output": expected, "tolerance": np.array([1e-4, 1e-5])}
    np.savez(directory / "golden.npz", **arrays)
    (directory / "reference.bin").write_bytes(make_reference())
    (directory / "card.md").write_bytes(card + bytes(padding))
    files = [
        FileEntry(name=p.name, sha256=sha256_hex(p.read_bytes()), size_bytes=p.stat().st_size)
        for p in sorted(directory.iterdir())
    ]
    fields = {
        "model": model,
        "version": version,
        "requires": Requirements(
            profile=TARGET, arch=ARCH, engine="reference", engine_range=EngineRange(at_least="1", below="2")
        ),
        "variant": "float",
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "processing": Processing(post=(Step(name="softmax"),)),
        "output_kind": "classification",
        "files": tuple(files),
        "model_file": "model.npz",
        "lineage": Lineage(recipe=ZERO, data=ZERO, code=ZERO, lock=ZERO),
    }
    (directory / "manifest.json").write_bytes(write_json(Manifest(**(fields | changes))))
    return ref_of(directory)


def ref_of(directory: Path) -> ArtifactRef:
    received = read_manifest((directory / "manifest.json").read_bytes())
    return ArtifactRef(version=received.value.version, target=received.value.requires.profile, sha256=received.sha256)


def make_reference() -> bytes:
    sample = {"input": np.random.default_rng(1).normal(size=(200, FEATURES)).astype(np.float32)}
    plan = stream_plan(INPUTS, OUTPUTS, "classification")
    rows = stream_rows(plan, (*INPUTS, *OUTPUTS), sample)
    edges = np.stack([make_edges(column) for column in rows.T])
    unbounded = np.full(len(plan), np.inf)
    counts = count_cells(edges, rows, -unbounded, unbounded)[:, :CELLS]
    streams = tuple(
        StreamReference(name=one.name, kind=one.kind, tensor=one.tensor, index=one.index, edges=own.astype("<f8").tobytes())
        for one, own in zip(plan, edges, strict=True)
    )
    reference = Reference(
        edge_set=msgspec.msgpack.encode(EdgeSet(streams=streams)),
        counts=tuple(StreamCounts(cells=tuple(row)) for row in counts.tolist()),
        null=tuple(tuple(row) for row in null_distances(counts, 200, 20, 1).tolist()),
        null_rows=200,
    )
    return msgspec.msgpack.encode(reference)
