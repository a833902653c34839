"""Small real artifacts on disk, and the endpoint that serves them on a free port."""

import asyncio
import hashlib
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest

from runtime.backends.reference import write_model
from runtime.contract.artifact import EngineRange, FileEntry, Lineage, Manifest, Processing, Requirements, Step, TensorSpec
from runtime.contract.canonical import write_json
from runtime.contract.telemetry import EdgeSet, Reference, StreamCounts, StreamReference
from runtime.monitor.cells import CELLS, count_cells, make_edges, null_distances
from runtime.monitor.streams import stream_plan, stream_rows
from runtime.serving.limits import LimitSettings, ServingSettings
from runtime.serving.models.repository import Repository
from runtime.serving.server import serve

ZERO = "0" * 64
FEATURES, CLASSES = 4, 3


def weights(scale=1.0, noise=0.0):
    """noise: turned away from the others' by so much, so that some answers differ."""
    size = (FEATURES, CLASSES)
    turned = np.random.default_rng(7).normal(size=size) + noise * np.random.default_rng(3).normal(size=size)
    return scale * turned.astype(np.float32), np.zeros(CLASSES, np.float32)


def write_artifact(directory: Path, *, model="tiny", version="1.0.0", scale=1.0, noise=0.0, **changes) -> Path:
    """An artifact for the reference backend: scores = input @ weights(scale, noise). changes: fields of the manifest."""
    directory.mkdir(parents=True)
    write_model(directory / "model.npz", [weights(scale, noise)])
    inputs = (TensorSpec(name="input", datatype="FP32", shape=(-1, FEATURES), labels=("a", "b", "c", "d")),)
    outputs = (TensorSpec(name="output", datatype="FP32", shape=(-1, CLASSES)),)
    (directory / "reference.bin").write_bytes(make_reference(inputs, outputs))
    files = []
    for path in sorted(directory.iterdir()):
        raw = path.read_bytes()
        files.append(FileEntry(name=path.name, sha256=hashlib.sha256(raw).hexdigest(), size_bytes=len(raw)))
    fields = {
        "model": model,
        "version": version,
        "requires": Requirements(
            profile="any-cpu", arch="any", engine="reference", engine_range=EngineRange(at_least="1", below="2")
        ),
        "variant": "float",
        "inputs": inputs,
        "outputs": outputs,
        "processing": Processing(post=(Step(name="softmax"),)),
        "output_kind": "classification",
        "files": tuple(files),
        "model_file": "model.npz",
        "lineage": Lineage(recipe=ZERO, data=ZERO, code=ZERO, lock=ZERO),
    }
    (directory / "manifest.json").write_bytes(write_json(Manifest(**(fields | changes))))
    return directory


def make_reference(inputs, outputs) -> bytes:
    sample = {"input": np.random.default_rng(1).normal(size=(200, FEATURES)).astype(np.float32)}
    plan = stream_plan(inputs, outputs, "classification")
    rows = stream_rows(plan, (*inputs, *outputs), sample)
    edges = np.stack([make_edges(column) for column in rows.T])
    unbounded = np.full(len(plan), np.inf)
    counts = count_cells(edges, rows, -unbounded, unbounded)[:, :CELLS]
    edge_set = EdgeSet(
        streams=tuple(
            StreamReference(name=one.name, kind=one.kind, tensor=one.tensor, index=one.index, edges=own.tobytes())
            for one, own in zip(plan, edges, strict=True)
        )
    )
    reference = Reference(
        edge_set=msgspec.msgpack.encode(edge_set),
        counts=tuple(StreamCounts(cells=tuple(row)) for row in counts.tolist()),
        null=tuple(tuple(row) for row in null_distances(counts, 200, 20, 1).tolist()),
        null_rows=200,
    )
    return msgspec.msgpack.encode(reference)


def expected_scores(rows, scale=1.0):
    weight, bias = weights(scale)
    return rows.astype(np.float64) @ weight.astype(np.float64) + bias


class Endpoint:
    """A server in a thread of its own, for tests that talk to it over sockets."""

    def __init__(self, repository, settings, limits):
        self.repository = repository
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        try:
            self.server = self.run(serve(repository, settings, limits))
        except BaseException:
            self._stop_loop()
            raise
        self.host, self.port = self.server.addresses[0]

    def run(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=30)

    def stop(self):
        self.run(self.server.close())
        self._stop_loop()

    def _stop_loop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture
def artifact(tmp_path):
    return write_artifact(tmp_path / "tiny-1.0.0")


@pytest.fixture
def repository(artifact):
    repository = Repository()
    repository.switch(repository.open(artifact))
    yield repository
    repository.close()


@pytest.fixture
def start(repository):
    """Start endpoints with given limits and settings; all stop at the end of the test."""
    running = []

    def start_one(*, settings=None, **limits):
        running.append(Endpoint(repository, settings or ServingSettings(port=0, drain_s=5), LimitSettings(**limits)))
        return running[-1]

    yield start_one
    for endpoint in running:
        endpoint.stop()


@pytest.fixture
def endpoint(start):
    return start()
