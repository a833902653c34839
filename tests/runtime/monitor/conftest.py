"""Manifests and edge sets small enough to read, for tests of the monitor."""

import msgspec
import numpy as np
import pytest

from runtime.contract.artifact import EngineRange, FileEntry, Lineage, Manifest, Processing, Requirements, Step, TensorSpec
from runtime.contract.canonical import Received
from runtime.contract.telemetry import EdgeSet, StreamReference
from runtime.monitor.cells import make_edges
from runtime.monitor.streams import stream_plan, stream_rows

ZERO = "0" * 64


@pytest.fixture
def make_manifest():
    def make(inputs, outputs, output_kind="classification", post=("softmax",)):
        return Manifest(
            model="tiny",
            version="1.0.0",
            requires=Requirements(
                profile="any", arch="any", engine="reference", engine_range=EngineRange(at_least="1", below="2")
            ),
            variant="float",
            inputs=tuple(inputs),
            outputs=tuple(outputs),
            output_kind=output_kind,
            processing=Processing(post=tuple(Step(name=name) for name in post)),
            files=(FileEntry(name="model.npz", sha256=ZERO, size_bytes=1),),
            model_file="model.npz",
            lineage=Lineage(recipe=ZERO, data=ZERO, code=ZERO, lock=ZERO),
        )

    return make


@pytest.fixture
def table(make_manifest):
    """Three named features, four classes."""
    features = TensorSpec(name="x", datatype="FP32", shape=(-1, 3), labels=("age", "mass", "height"))
    return make_manifest([features], [TensorSpec(name="y", datatype="FP32", shape=(-1, 4))])


@pytest.fixture
def make_edge_set():
    def make(manifest, tensors):
        plan = stream_plan(manifest.inputs, manifest.outputs, manifest.output_kind)
        rows = stream_rows(plan, (*manifest.inputs, *manifest.outputs), tensors)
        streams = tuple(
            StreamReference(
                name=spec.name, kind=spec.kind, tensor=spec.tensor, index=spec.index, edges=make_edges(rows[:, i]).tobytes()
            )
            for i, spec in enumerate(plan)
        )
        value = EdgeSet(streams=streams)
        return Received(msgspec.msgpack.encode(value), value)

    return make


@pytest.fixture
def table_edges(table, make_edge_set):
    sample = np.random.default_rng(0).normal(size=(500, 3)).astype(np.float32)
    return make_edge_set(table, {"x": sample})
