"""What happened to one model since the last window, in bounded memory and a bounded share of the CPU?

Rows wait in blocks, because counting 256 rows at once costs 1 us a row and counting them singly 72. Counts and latencies are
kept for every request; rows beyond a window's budget, or beyond the CPU share, are dropped and the drop is counted.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from runtime.contract.artifact import Manifest
from runtime.contract.canonical import Received
from runtime.contract.errors import MalformedError
from runtime.contract.telemetry import CELLS, CONFIDENCE_CELLS, LATENCY_CELLS, EdgeSet, StreamCounts
from runtime.monitor.cells import COUNT_COLUMNS, LATENCY_STARTS_NS, MISSING, OUT_OF_RANGE, count_cells
from runtime.monitor.streams import (
    StreamSpec,
    Tensors,
    class_count,
    count_predictions,
    predictions,
    stream_bounds,
    stream_plan,
    stream_rows,
)

_NEVER_NS = 2**63
_LATENCIES = 512
"""So many wait at most; sorting them costs 50 us, once in so many requests."""
_STARTS_NS = np.array(LATENCY_STARTS_NS)


class MonitorLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on one model's monitor.

    rows_per_window: enough for cell shares within 0.7 points, and a window stays below 1 kB compressed.
    block_bytes: what a second-level cache holds, with the temporaries of image statistics beside it.
    cpu_permille: of wall time, saved up to burst_ms; images cost up to 100 times what table rows do.
    """

    rows_per_window: Annotated[int, Meta(ge=1)] = 5_000
    block_rows: Annotated[int, Meta(ge=1, le=65_536)] = 256
    block_bytes: Annotated[int, Meta(ge=1)] = 1 << 18
    cpu_permille: Annotated[int, Meta(ge=1, le=1000)] = 5
    burst_ms: Annotated[int, Meta(ge=0)] = 20


class WindowCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a telemetry Window but its keys, by the same field names."""

    requests: int
    errors: int
    rows: int
    dropped_rows: int
    streams: tuple[StreamCounts, ...]
    classes: tuple[int, ...]
    confidence: tuple[int, ...]
    latency: dict[int, int]


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the artifact was opened; examples: in requests that were answered, watched or not;
    latency_cells: requests per logarithmic cell.
    """

    requests: int
    errors: int
    rows: int
    dropped_rows: int
    examples: int
    latency_cells: tuple[int, ...]
    latency_sum_ns: int


class Monitor:
    """Watches one opened artifact. Thread-safe: inference observes, the agent takes.

    edges: the digest that names this model's cells in every window.
    """

    def __init__(
        self,
        manifest: Manifest,
        edge_set: Received[EdgeSet] | None = None,
        limits: MonitorLimits = MonitorLimits(),  # noqa: B008 - frozen
        clock_ns: Callable[[], int] = time.perf_counter_ns,
        cpu_ns: Callable[[], int] = time.thread_time_ns,
    ) -> None:
        """edge_set: from the artifact's reference; None watches requests, classes and confidence only.

        Raises MalformedError when the edge set speaks of other streams than the manifest gives.
        """
        edge_set = edge_set or _no_edges()
        self.edges = edge_set.sha256
        self._counter = _Counter(manifest, edge_set.value)
        self._watched = self._counter.watched
        names = {spec.name for spec in manifest.inputs}
        self._inputs = tuple(name for name in self._watched if name in names)
        self._outputs = self._watched[len(self._inputs) :]  # the plan speaks of inputs first
        self._limits = limits
        self._clock_ns = clock_ns
        self._cpu_ns = cpu_ns
        self._lock = threading.Lock()
        self._block = _Block(limits)
        self._budget = _CpuBudget(limits, clock_ns())
        self._window = self._counter.empty()
        self._window_rows = 0
        self._closed_until_ns = 0
        """No row is watched before: the budget is spent, or the window full."""
        self._errors = self._rows = self._dropped = self._unwatched = 0
        self._latencies: deque[int] = deque()  # taken from both ends' threads, one element at a time
        self._latency = np.zeros(LATENCY_CELLS, dtype=np.int64)
        self._latency_sum_ns = 0
        self._taken = self._totals()

    def observe(self, inputs: Tensors, outputs: Tensors, rows: int, started_ns: int, ended_ns: int, requests: int = 1) -> None:  # noqa: PLR0917 - keywords cost the hot path
        """Note one successful inference on `rows` examples. Arrays are copied or counted before this returns.

        started_ns, ended_ns: by the monitor's clock. requests: how many it answered. One thread observes at a time; who takes
        may come between: requests are what the latency cells sum to, so no window can hold one without the other. Latencies
        only wait here: finding a cell touches twenty scattered objects, which after a large model's run are in no cache.
        """
        latencies = self._latencies
        if requests == 1:
            latencies.append(ended_ns - started_ns)
        else:
            latencies.extend([ended_ns - started_ns] * requests)
        if len(latencies) >= _LATENCIES:
            self._count_latencies()
        if ended_ns < self._closed_until_ns:
            self._dropped += rows
        elif self._watched:
            self._watch([*map(inputs.__getitem__, self._inputs), *map(outputs.__getitem__, self._outputs)], rows)
        else:
            self._unwatched += rows

    def observe_error(self) -> None:
        """Note one inference that failed. As `observe`, by one thread at a time."""
        self._errors += 1

    def take(self) -> WindowCounts:
        """Counts since the last call, which they empty."""
        with self._lock:
            window, self._window = self._window, self._counter.empty()
            waiting, self._block = self._block, _Block(self._limits)
            self._window_rows = 0
            self._closed_until_ns = self._budget.spent_until_ns
            before, self._taken = self._taken, self._totals()
            now = self._taken
        self._counter.count(waiting.clear(), window)  # outside the lock: nobody else holds these any more
        latency = enumerate(zip(before.latency_cells, now.latency_cells, strict=True))
        return WindowCounts(
            requests=now.requests - before.requests,
            errors=now.errors - before.errors,
            rows=now.rows - before.rows,
            dropped_rows=now.dropped_rows - before.dropped_rows,
            streams=window.streams(),
            classes=tuple(window.classes.tolist()),
            confidence=tuple(window.confidence.tolist()),
            latency={cell: late - early for cell, (early, late) in latency if late > early},
        )

    def totals(self) -> Totals:
        with self._lock:
            return self._totals()

    def _count_latencies(self) -> None:
        with self._lock:
            self._bin_latencies()

    def _bin_latencies(self) -> None:
        """Sort what waits into cells; what is observed meanwhile waits for the next time. The caller holds the lock."""
        popped = [self._latencies.popleft() for _ in range(len(self._latencies))]
        cells = np.searchsorted(_STARTS_NS, popped, side="right")
        self._latency += np.bincount(cells, minlength=LATENCY_CELLS)
        self._latency_sum_ns += sum(popped)

    def _watch(self, batch: list[np.ndarray], rows: int) -> None:
        """Keep a batch for counting, unless the window is full or its tensors speak of different numbers of examples."""
        with self._lock:
            block = self._block
            if not block.takes(batch):
                self._count(block.clear())
                block.reshape(batch)
            if block.batch_rows != rows or self._window_rows + rows > self._limits.rows_per_window:
                self._dropped += rows
                return
            self._window_rows += rows
            self._rows += rows
            if block.add(batch):
                self._count(block.clear())
            if self._window_rows >= self._limits.rows_per_window:
                self._closed_until_ns = _NEVER_NS

    def _count(self, batch: list[np.ndarray]) -> None:
        before = self._cpu_ns()
        self._counter.count(batch, self._window)
        self._budget.charge(self._cpu_ns() - before, self._clock_ns())
        self._closed_until_ns = self._budget.spent_until_ns

    def _totals(self) -> Totals:
        self._bin_latencies()
        cells = tuple(self._latency.tolist())
        errors = self._errors
        return Totals(
            requests=sum(cells) + errors,
            errors=errors,
            rows=self._rows,
            dropped_rows=self._dropped,
            examples=self._rows + self._dropped + self._unwatched,
            latency_cells=cells,
            latency_sum_ns=self._latency_sum_ns,
        )


class _Counts:
    """Mutable sums of one window."""

    def __init__(self, streams: int, classes: int) -> None:
        self.cells = np.zeros((streams, COUNT_COLUMNS), dtype=np.int64)
        self.classes = np.zeros(classes, dtype=np.int64)
        self.confidence = np.zeros(CONFIDENCE_CELLS if classes else 0, dtype=np.int64)

    def streams(self) -> tuple[StreamCounts, ...]:
        return tuple(
            StreamCounts(cells=tuple(row[:CELLS]), missing=row[MISSING], out_of_range=row[OUT_OF_RANGE])
            for row in self.cells.tolist()
        )


class _Counter:
    """Turns tensors into counts, as one manifest and its edges say."""

    def __init__(self, manifest: Manifest, edge_set: EdgeSet) -> None:
        self._specs = (*manifest.inputs, *manifest.outputs)
        self._plan = _checked_plan(manifest, edge_set)
        self._edges = np.frombuffer(b"".join(stream.edges for stream in edge_set.streams), "<f8").reshape(-1, CELLS - 1)
        self._low, self._high = stream_bounds(self._plan, self._specs)
        self._scores = manifest.outputs[0]
        self._classes = class_count(manifest.outputs, manifest.output_kind)
        self._processing = manifest.processing
        self.watched = tuple(dict.fromkeys([stream.tensor for stream in self._plan] + [self._scores.name] * bool(self._classes)))

    def empty(self) -> _Counts:
        return _Counts(len(self._plan), self._classes)

    def count(self, batch: list[np.ndarray], into: _Counts) -> None:
        """Add the watched tensors of a batch to a window's sums; an empty list adds nothing."""
        if not batch:
            return
        tensors = dict(zip(self.watched, batch, strict=True))
        if self._plan:
            into.cells += count_cells(self._edges, stream_rows(self._plan, self._specs, tensors), self._low, self._high)
        if self._classes:
            found = predictions(tensors, self._scores, self._processing)
            classes, confidence = count_predictions(*found, self._classes)
            into.classes += classes
            into.confidence += confidence


class _Block:
    """Copies of watched tensors, batch behind batch, until they are worth counting.

    Copies are kept as bytes and joined at the end: measured at a fifth of the time of writing rows into an array.
    """

    def __init__(self, limits: MonitorLimits) -> None:
        self._limits = limits
        self._shapes: list[tuple[int, ...]] = []
        self._types: list[np.dtype] = []
        self._parts: list[list[bytes]] = []
        self._rows = 0
        self._capacity = 0
        self.batch_rows = 0
        """Examples in a batch of the shape last seen; 0 where its tensors do not speak of the same examples."""

    def takes(self, batch: list[np.ndarray]) -> bool:
        """Whether a batch can go behind what is here: free dimensions may have changed."""
        shapes = [tensor.shape for tensor in batch]
        if shapes == self._shapes:
            return True
        if [shape[1:] for shape in shapes] != [shape[1:] for shape in self._shapes]:
            return False
        self._note_shapes(shapes)
        return True

    def reshape(self, batch: list[np.ndarray]) -> None:
        """Make an empty block ready for batches like this one."""
        self._note_shapes([tensor.shape for tensor in batch])
        self._types = [tensor.dtype for tensor in batch]
        self._parts = [[] for _ in batch]
        row_bytes = sum(tensor[:1].nbytes for tensor in batch)
        self._capacity = min(self._limits.block_rows, self._limits.block_bytes // max(row_bytes, 1))

    def add(self, batch: list[np.ndarray]) -> bool:
        """Copy a batch in; True when the block is full."""
        for parts, tensor in zip(self._parts, batch, strict=True):
            parts.append(tensor.tobytes())
        self._rows += self.batch_rows
        return self._rows >= self._capacity

    def clear(self) -> list[np.ndarray]:
        """What the block holds, one array per tensor; nothing when it is empty, as it is afterwards."""
        rows, self._rows = self._rows, 0
        if not rows:
            return []
        arrays = []
        for parts, kind, shape in zip(self._parts, self._types, self._shapes, strict=True):
            arrays.append(np.frombuffer(b"".join(parts), kind).reshape(rows, *shape[1:]))
            parts.clear()
        return arrays

    def _note_shapes(self, shapes: list[tuple[int, ...]]) -> None:
        self._shapes = shapes
        sizes = {shape[0] for shape in shapes}
        self.batch_rows = sizes.pop() if len(sizes) == 1 else 0


class _CpuBudget:
    """A bucket of CPU time that fills with wall time. spent_until_ns: no more may be spent before; told ahead, so that the
    usual question costs one comparison.
    """

    def __init__(self, limits: MonitorLimits, now_ns: int) -> None:
        self._permille = limits.cpu_permille
        self._largest_ns = limits.burst_ms * 1_000_000
        self._credit_ns = 0  # the first block is free; a full bucket would tax a model's first seconds
        self._filled_ns = now_ns
        self.spent_until_ns = 0

    def charge(self, spent_ns: int, now_ns: int) -> None:
        earned = (now_ns - self._filled_ns) * self._permille // 1000
        self._credit_ns = min(self._credit_ns + earned, self._largest_ns) - spent_ns
        self._filled_ns = now_ns
        # Zero, not now, when there is credit: an inference that ended while this was counting has waited for the lock.
        self.spent_until_ns = now_ns - self._credit_ns * 1000 // self._permille if self._credit_ns < 0 else 0


def _checked_plan(manifest: Manifest, edge_set: EdgeSet) -> tuple[StreamSpec, ...]:
    if not edge_set.streams:
        return ()
    plan = stream_plan(manifest.inputs, manifest.outputs, manifest.output_kind)
    if len(plan) != len(edge_set.streams):
        raise MalformedError(f"the reference has {len(edge_set.streams)} streams, the manifest gives {len(plan)}")
    for stream, reference in zip(plan, edge_set.streams, strict=True):
        if not stream.matches(reference):
            raise MalformedError(f"the reference has stream {reference.name!r} where the manifest gives {stream.name!r}")
    return plan


def _no_edges() -> Received[EdgeSet]:
    empty = EdgeSet(streams=())
    return Received(msgspec.msgpack.encode(empty), empty)
