"""Do the inputs and outputs a device sees still look like the validation data, and if not, which changed most?

Windows of the deployed artifact are merged, in the order they came, into blocks of at least as many rows as the
reference's null rests on, and each block is judged once: blocks share no rows, so their judgements are independent. A
stream's score is its distance from the reference in units of what chance explains; 1 is the limit. One block far beyond
it, or two in a row over it, raise the alarm; it ends after three quiet ones.

Known limit: rows that depend on each other (video, slow sensors) widen what chance explains; the null does not know that.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from runtime.contract.telemetry import CELLS, EdgeSet, Reference, Window
from runtime.monitor.cells import COUNT_COLUMNS, DISTANCE_SCALE, MISSING, OUT_OF_RANGE, distance

Counts = NDArray[np.int64]
State = Literal["waiting", "clean", "alarm"]

MARGIN = 1.15
"""The limit lies this far above the largest of the reference's null distances (1,000 draws). Simulated on 300 clean devices x
60 windows of 200 rows x 16 normal features, references of 150 to 1,500 rows: 0 of 4,800 streams alarmed. A shift of half a
standard deviation is found in 2 windows with 500 reference rows; with 270, 4 devices of 100 take up to 5
(tests/fleet/domain/test_drift.py repeats both at a smaller size)."""
SMALLEST_LIMIT = 0.02
"""Distances run from 0 to 0.5. A stream that is constant in the reference has a null of zero; a fiftieth of the ranks is
still nothing to wake a person for."""
SMALLEST_RATE_RISE = 0.02
RATE_Z = 5.0
"""A share of missing or out-of-range rows must rise by two points and by five standard errors."""
SURE_SCORE = 2.0
QUIET_SCORE = 0.8
BLOCKS_TO_ALARM = 2
BLOCKS_TO_CLEAR = 3


class StreamDrift(msgspec.Struct, frozen=True, kw_only=True):
    """One stream in the newest block. score: 1 is the limit; cause: which of the three figures gave it.

    over, quiet: blocks in a row at or above the limit, and below the quiet mark.
    """

    name: str
    kind: Literal["input", "output"]
    score: float
    cause: Literal["distribution", "missing", "out_of_range"]
    distance: float
    distance_limit: float
    missing_ratio: float
    out_of_range_ratio: float
    over: int = 0
    quiet: int = 0
    is_alarmed: bool = False


class DriftState(msgspec.Struct, frozen=True, kw_only=True):
    """The judgement of one artifact on one device. rows: in the newest block; streams: ranked, most changed first.

    last_window_id: the newest window that is part of a judged block.
    """

    sha256: str
    state: State = "waiting"
    rows: int = 0
    streams: tuple[StreamDrift, ...] = ()
    last_window_id: int = 0

    @property
    def alarmed(self) -> list[str]:
        """Names of the streams under alarm, most changed first."""
        return [stream.name for stream in self.streams if stream.is_alarmed]


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """A reference ready for judging. counts: int64[streams, 34]; edges: the digest windows must carry."""

    edges: str
    streams: tuple[tuple[str, Literal["input", "output"]], ...]
    counts: Counts
    null_top: NDArray[np.float64]
    null_rows: int


def make_baseline(reference: Reference, edge_set: EdgeSet, edges: str) -> Baseline:
    """edges: digest of the encoded edge set."""
    counts = [[*stream.cells, stream.missing, stream.out_of_range] for stream in reference.counts]
    return Baseline(
        edges=edges,
        streams=tuple((stream.name, stream.kind) for stream in edge_set.streams),
        counts=np.asarray(counts, dtype=np.int64).reshape(len(counts), COUNT_COLUMNS),
        null_top=np.asarray([null[-1] if null else 0 for null in reference.null], dtype=np.float64) / DISTANCE_SCALE,
        null_rows=reference.null_rows,
    )


def judge(before: DriftState, baseline: Baseline, windows: Sequence[tuple[int, Window]]) -> DriftState:
    """Take in windows that came since, with their ids, in order; what does not fill a block waits for the next call."""
    state = before
    for last_id, counts in _blocks(baseline, windows):
        state = _judge_block(state, baseline, counts, last_id)
    return state


def _blocks(baseline: Baseline, windows: Sequence[tuple[int, Window]]) -> Iterator[tuple[int, Counts]]:
    """Merged counts of successive windows, int64[streams, 34], each with its last window's id."""
    wanted = max(baseline.null_rows, 1)
    merged = np.zeros_like(baseline.counts)
    rows = 0
    for window_id, window in windows:
        if window.edges != baseline.edges or len(window.streams) != len(baseline.streams) or not window.rows:
            continue  # other cells: not comparable, exactly or at all
        merged += np.asarray([[*s.cells, s.missing, s.out_of_range] for s in window.streams], dtype=np.int64)
        rows += window.rows
        if rows >= wanted:
            yield window_id, merged
            merged, rows = np.zeros_like(merged), 0


def _judge_block(before: DriftState, baseline: Baseline, counts: Counts, last_id: int) -> DriftState:
    cells, reference = counts[:, :CELLS], baseline.counts[:, :CELLS]
    distances = np.nan_to_num(distance(reference, cells))
    limits = _distance_limits(baseline, cells.sum(axis=1))
    missing, missing_before = _ratio(counts, MISSING), _ratio(baseline.counts, MISSING)
    outside, outside_before = _ratio(counts, OUT_OF_RANGE), _ratio(baseline.counts, OUT_OF_RANGE)
    totals, totals_before = counts.sum(axis=1), baseline.counts.sum(axis=1)
    scores = np.stack(
        [
            distances / limits,
            _rate_score(missing, totals, missing_before, totals_before),
            _rate_score(outside, totals, outside_before, totals_before),
        ]
    )
    causes: tuple[Literal["distribution", "missing", "out_of_range"], ...] = ("distribution", "missing", "out_of_range")
    held = {stream.name: stream for stream in before.streams}
    streams = []
    for index, (name, kind) in enumerate(baseline.streams):
        cause = int(np.argmax(scores[:, index]))
        fresh = StreamDrift(
            name=name,
            kind=kind,
            score=round(float(scores[cause, index]), 4),
            cause=causes[cause],
            distance=round(float(distances[index]), 6),
            distance_limit=round(float(limits[index]), 6),
            missing_ratio=round(float(missing[index]), 6),
            out_of_range_ratio=round(float(outside[index]), 6),
        )
        streams.append(_with_hysteresis(fresh, held.get(name)))
    streams.sort(key=lambda stream: (not stream.is_alarmed, -stream.score, stream.name))
    state: State = "alarm" if any(stream.is_alarmed for stream in streams) else "clean"
    rows = int(totals.max(initial=0))
    return DriftState(sha256=before.sha256, state=state, rows=rows, streams=tuple(streams), last_window_id=last_id)


def _with_hysteresis(fresh: StreamDrift, held: StreamDrift | None) -> StreamDrift:
    over = (held.over if held else 0) + 1 if fresh.score >= 1 else 0
    quiet = (held.quiet if held else 0) + 1 if fresh.score < QUIET_SCORE else 0
    was_alarmed = held is not None and held.is_alarmed
    raised = over >= BLOCKS_TO_ALARM or fresh.score >= SURE_SCORE
    is_alarmed = raised or (was_alarmed and quiet < BLOCKS_TO_CLEAR)
    return msgspec.structs.replace(fresh, over=over, quiet=quiet, is_alarmed=is_alarmed)


def _distance_limits(baseline: Baseline, rows: Counts) -> NDArray[np.float64]:
    """The null's top, carried over from its own number of rows to the block's: a distance shrinks with the root of the rows,
    and both sides count, since the null redraws the reference too."""
    reference_rows = np.maximum(baseline.counts[:, :CELLS].sum(axis=1), 1)
    there = 1 / reference_rows + 1 / max(baseline.null_rows, 1)
    here = 1 / reference_rows + 1 / np.maximum(rows, 1)
    limits: NDArray[np.float64] = np.maximum(MARGIN * baseline.null_top * np.sqrt(here / there), SMALLEST_LIMIT)
    return limits


def _ratio(counts: Counts, column: int) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = counts[:, column] / np.maximum(counts.sum(axis=1), 1)
    return ratio


def _rate_score(now: NDArray[np.float64], rows: Counts, before: NDArray[np.float64], rows_before: Counts) -> NDArray[np.float64]:
    """How far a share has risen, in units of the rise that counts. Source: two-proportion z-test with pooled share."""
    pooled = (now * rows + before * rows_before) / np.maximum(rows + rows_before, 1)
    error = np.sqrt(pooled * (1 - pooled) * (1 / np.maximum(rows, 1) + 1 / np.maximum(rows_before, 1)))
    score: NDArray[np.float64] = (now - before) / np.maximum(SMALLEST_RATE_RISE, RATE_Z * error)
    return score
