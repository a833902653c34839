"""Does a monitor count everything exactly once, in bounded memory, and say what it left out?"""

import sys
import threading
import time

import msgspec
import numpy as np
import pytest

from runtime.contract.artifact import ArtifactRef, TensorSpec
from runtime.contract.canonical import Received
from runtime.contract.errors import MalformedError
from runtime.contract.telemetry import CELLS, EdgeSet
from runtime.errors import InferenceError
from runtime.monitor.cells import count_cells, latency_cell
from runtime.monitor.monitor import Monitor, MonitorLimits
from runtime.serving.models.model import ServedModel

UNLIMITED = MonitorLimits(rows_per_window=10**9, cpu_permille=1000, burst_ms=10**6)


def observe(monitor, inputs, outputs, latency_ns, ended_ns=None):
    ended_ns = time.perf_counter_ns() if ended_ns is None else ended_ns
    monitor.observe(inputs, outputs, len(inputs["x"]), ended_ns - latency_ns, ended_ns)


def batch(rows, seed=0):
    generator = np.random.default_rng(seed)
    return {"x": generator.normal(size=(rows, 3)).astype(np.float32)}, {"y": generator.normal(size=(rows, 4)).astype(np.float32)}


def expected_counts(edges, rows):
    boundaries = np.array([np.frombuffer(stream.edges, "<f8") for stream in edges.value.streams])
    unbounded = np.full(len(boundaries), np.inf)
    return count_cells(boundaries, rows.astype(np.float64), -unbounded, unbounded)[:, :CELLS].tolist()


@pytest.mark.parametrize("sizes", [[1] * 1000, [300, 1, 256, 255, 1, 700], [1, 2, 1, 3, 1] * 40, [7]])
def test_blocks_of_any_batching_give_the_counts_of_all_rows(table, table_edges, sizes):
    monitor = Monitor(table, table_edges, UNLIMITED)
    batches = [batch(size, seed) for seed, size in enumerate(sizes)]
    for inputs, outputs in batches:
        observe(monitor, inputs, outputs, 16_000)
    window = monitor.take()
    rows = np.concatenate([inputs["x"] for inputs, _ in batches])
    scores = np.concatenate([outputs["y"] for _, outputs in batches])
    assert (window.requests, window.errors, window.rows, window.dropped_rows) == (len(sizes), 0, sum(sizes), 0)
    assert [list(stream.cells) for stream in window.streams] == expected_counts(table_edges, rows)
    assert list(window.classes) == np.bincount(scores.argmax(axis=1), minlength=4).tolist()
    assert sum(window.confidence) == sum(sizes)
    assert window.latency == {latency_cell(16_000): len(sizes)}


def test_a_window_starts_empty_and_totals_go_on(table, table_edges):
    monitor = Monitor(table, table_edges, UNLIMITED)
    observe(monitor, *batch(2), 1_000)
    monitor.observe_error()
    first, second = monitor.take(), monitor.take()
    assert (first.requests, first.errors, first.rows) == (2, 1, 2)
    assert (second.requests, second.errors, second.rows, second.latency) == (0, 0, 0, {})
    assert not any(sum(stream.cells) for stream in second.streams)
    totals = monitor.totals()
    assert (totals.requests, totals.errors, totals.rows, totals.latency_sum_ns) == (2, 1, 2, 1_000)


def test_missing_and_infinite_values_are_counted_per_stream(table, table_edges):
    monitor = Monitor(table, table_edges, UNLIMITED)
    inputs, outputs = batch(4)
    inputs["x"][0, 1] = inputs["x"][2, 1] = np.nan
    inputs["x"][3, 2] = np.inf
    observe(monitor, inputs, outputs, 1_000)
    streams = monitor.take().streams
    assert [(stream.missing, stream.out_of_range, sum(stream.cells)) for stream in streams] == [(0, 0, 4), (2, 0, 2), (0, 1, 3)]


def test_what_is_observed_may_change_afterwards(table, table_edges):
    monitor = Monitor(table, table_edges, UNLIMITED)
    inputs, outputs = batch(10)
    kept = inputs["x"].copy()
    observe(monitor, inputs, outputs, 1_000)
    inputs["x"][:] = np.nan
    assert [list(stream.cells) for stream in monitor.take().streams] == expected_counts(table_edges, kept)


def test_rows_beyond_the_budget_are_dropped_and_counted(table, table_edges):
    monitor = Monitor(table, table_edges, MonitorLimits(rows_per_window=300, cpu_permille=1000, burst_ms=10**6))
    for _ in range(500):
        observe(monitor, *batch(1), 1_000)
    window = monitor.take()
    assert (window.requests, window.rows, window.dropped_rows) == (500, 300, 200)
    assert all(sum(stream.cells) == 300 for stream in window.streams)
    observe(monitor, *batch(1), 1_000)
    assert monitor.take().rows == 1


def test_cpu_beyond_its_share_stops_the_watching_until_time_has_passed(table, table_edges):
    """A clock that advances 1 ms per reading, so that each counted block of one row costs 1 ms, a share of 1 %."""
    now = [0]

    def clock():
        now[0] += 1_000_000
        return now[0]

    monitor = Monitor(table, table_edges, MonitorLimits(block_rows=1, cpu_permille=10, burst_ms=5), clock, clock)

    def watched_of_50():
        for _ in range(50):
            observe(monitor, *batch(1), 1_000, ended_ns=now[0])
        return monitor.take().rows

    assert watched_of_50() == 1
    assert watched_of_50() == 0
    now[0] += 300_000_000  # 3 ms earned, 2 of them spent before
    assert 1 <= watched_of_50() <= 3
    now[0] += 3_600_000_000_000  # an idle hour saves no more than 5 ms
    assert 5 <= watched_of_50() <= 6


def test_free_dimensions_may_change_from_request_to_request(make_manifest, make_edge_set):
    spec = TensorSpec(name="x", datatype="UINT8", shape=(-1, -1, -1, 1), layout="NHWC")
    manifest = make_manifest([spec], [TensorSpec(name="y", datatype="FP32", shape=(-1, 2))])
    edges = make_edge_set(manifest, {"x": np.random.default_rng(0).integers(0, 255, (20, 9, 9, 1)).astype(np.uint8)})
    monitor = Monitor(manifest, edges, UNLIMITED)
    for side in (8, 8, 16, 8, 500):
        observe(monitor, {"x": np.zeros((2, side, side, 1), np.uint8)}, {"y": np.zeros((2, 2), np.float32)}, 1_000)
    window = monitor.take()
    assert (window.rows, sum(window.classes)) == (10, 10)
    assert all(sum(stream.cells) == 10 for stream in window.streams)


def test_tensors_of_different_lengths_are_served_but_not_watched(table, table_edges):
    monitor = Monitor(table, table_edges, UNLIMITED)
    observe(monitor, {"x": np.zeros((3, 3), np.float32)}, {"y": np.zeros((1, 4), np.float32)}, 1_000)
    window = monitor.take()
    assert (window.requests, window.rows, window.dropped_rows) == (1, 0, 3)


def test_without_a_reference_classes_are_counted_and_nothing_else(table):
    monitor = Monitor(table, limits=UNLIMITED)
    observe(monitor, *batch(5), 1_000)
    window = monitor.take()
    assert window.streams == ()
    assert sum(window.classes) == 5


def test_a_reference_of_other_streams_is_refused(table, table_edges):
    fewer = EdgeSet(streams=table_edges.value.streams[:2])
    with pytest.raises(MalformedError, match="2 streams"):
        Monitor(table, Received(msgspec.msgpack.encode(fewer), fewer))
    swapped = EdgeSet(streams=table_edges.value.streams[::-1])
    with pytest.raises(MalformedError, match="'height'"):
        Monitor(table, Received(msgspec.msgpack.encode(swapped), swapped))


class Echo:
    """The least a model can do."""

    def __init__(self, manifest, outputs):
        self.inputs, self.outputs, self._answer = manifest.inputs, manifest.outputs, outputs

    def infer(self, inputs):
        if not len(inputs["x"]) % 2:
            raise InferenceError("even")
        return self._answer

    def close(self):
        pass


def test_nothing_is_lost_between_threads_that_infer_and_one_that_takes(table, table_edges):
    """Through a served model, whose lock is what makes observers take turns; threads change as often as they can."""
    interval = sys.getswitchinterval()
    inputs, outputs = batch(3)
    monitor = Monitor(table, table_edges, UNLIMITED)
    artifact = ArtifactRef(version="1.0.0", target="any", sha256="0" * 64)
    served = ServedModel(table, artifact, Echo(table, outputs), monitor)
    taken, stop = [], threading.Event()

    def take():
        while not stop.is_set():
            taken.append(monitor.take())
        taken.append(monitor.take())

    def infer_many():
        for index in range(700):
            if index % 10:
                served.infer(inputs)
            else:
                with pytest.raises(InferenceError):
                    served.infer({"x": inputs["x"][:2]})

    taker = threading.Thread(target=take)
    callers = [threading.Thread(target=infer_many) for _ in range(3)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in (taker, *callers):
            thread.start()
        for thread in callers:
            thread.join()
        stop.set()
        taker.join()
    finally:
        sys.setswitchinterval(interval)
    assert sum(window.requests for window in taken) == 2100
    assert sum(window.errors for window in taken) == 210
    assert all(sum(window.latency.values()) == window.requests - window.errors for window in taken)
    assert all(sum(window.streams[1].cells) == window.rows for window in taken)
    assert sum(window.rows for window in taken) == 3 * 1890
    totals = monitor.totals()
    assert (totals.requests, totals.errors, totals.rows, totals.examples) == (2100, 210, 5670, 5670)
