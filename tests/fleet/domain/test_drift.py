"""Clean traffic stays quiet, changed features come first, and an alarm neither flickers nor sticks.

Samples are drawn, so expected figures come from the closed form of the change that was made, not from the code under test.
"""

import numpy as np
import pytest
from numpy.typing import NDArray

from fleet.domain.drift import BLOCKS_TO_CLEAR, Baseline, DriftState, judge, make_baseline
from runtime.contract.artifact import ArtifactRef
from runtime.contract.canonical import sha256_hex
from runtime.contract.telemetry import CELLS, EdgeSet, Reference, StreamCounts, StreamReference, Window
from runtime.monitor.cells import count_cells, make_edges, null_distances

FEATURES = 16
ROWS = 200
NAMES = [f"f{index:02}" for index in range(FEATURES)]
ARTIFACT = ArtifactRef(version="1.0.0", target="x86-64-cpu", sha256="a" * 64)
EDGES = sha256_hex(b"edges")

Floats = NDArray[np.float64]


class Field:
    """A reference of normal features, and the windows a device would count."""

    def __init__(self, seed: int, reference_rows: int = 500, null_rows: int = ROWS) -> None:
        self.random = np.random.default_rng(seed)
        sample = self.clean(reference_rows)
        self._edges = np.stack([make_edges(sample[:, index]) for index in range(FEATURES)])
        self._bounds = (np.full(FEATURES, -50.0), np.full(FEATURES, 50.0))
        counts = self._count(sample)
        streams = tuple(
            StreamReference(name=name, kind="input", tensor="x", index=index, edges=self._edges[index].tobytes())
            for index, name in enumerate(NAMES)
        )
        null = null_distances(np.asarray([stream.cells for stream in counts]), null_rows, 300, seed)
        reference = Reference(edge_set=b"", counts=counts, null=tuple(tuple(map(int, row)) for row in null), null_rows=null_rows)
        self.baseline: Baseline = make_baseline(reference, EdgeSet(streams=streams), EDGES)
        self._sent = 0

    def clean(self, rows: int = ROWS) -> Floats:
        return self.random.normal(size=(rows, FEATURES))

    def window(self, sample: Floats, edges: str = EDGES) -> tuple[int, Window]:
        self._sent += 1
        window = Window(
            device="gw-1", boot=1, seq=self._sent, model="m", artifact=ARTIFACT, edges=edges, start_ms=0, duration_ms=60_000,
            clock_synced=True, requests=len(sample), rows=len(sample), streams=self._count(sample),
        )  # fmt: skip
        return self._sent, window

    def _count(self, sample: Floats) -> tuple[StreamCounts, ...]:
        counts = count_cells(self._edges, sample, *self._bounds)
        return tuple(
            StreamCounts(cells=tuple(map(int, row[:CELLS])), missing=int(row[CELLS]), out_of_range=int(row[CELLS + 1]))
            for row in counts
        )


def after(field: Field, *samples: Floats) -> DriftState:
    return judge(DriftState(sha256="a" * 64), field.baseline, [field.window(sample) for sample in samples])


def test_clean_traffic_stays_quiet() -> None:
    """30 devices x 20 windows x 16 features; the whole fleet of DESIGN.md is ten times as many devices."""
    field = Field(1)
    alarmed = [after(field, *(field.clean() for _ in range(20))).alarmed for _ in range(30)]
    assert not any(alarmed)


def test_half_a_standard_deviation_is_found_within_three_windows_and_named_first() -> None:
    field = Field(2)
    for changed in range(FEATURES):
        samples = [field.clean() for _ in range(3)]
        for sample in samples:
            sample[:, changed] += 0.5
        assert after(field, *samples).alarmed == [NAMES[changed]]


def test_the_features_that_changed_most_come_first() -> None:
    """Two features move by two and by one standard deviation: both alarm, in that order, and nothing else does."""
    field = Field(3)
    samples = [field.clean() for _ in range(2)]
    for sample in samples:
        sample[:, 11] += 1.0
        sample[:, 4] += 2.0
    state = after(field, *samples)
    assert state.state == "alarm"
    assert state.alarmed == [NAMES[4], NAMES[11]]
    assert [stream.name for stream in state.streams[:2]] == state.alarmed


def test_a_column_that_goes_missing_is_found_though_what_is_left_looks_clean() -> None:
    field = Field(4)
    sample = field.clean()
    sample[field.random.random(ROWS) < 0.9, 7] = np.nan
    state = after(field, sample)
    assert state.alarmed == [NAMES[7]]
    assert state.streams[0].cause == "missing"
    assert state.streams[0].missing_ratio == pytest.approx(np.isnan(sample[:, 7]).mean(), abs=1e-6)


def test_values_outside_the_declared_range_are_found() -> None:
    field = Field(5)
    sample = field.clean()
    sample[: ROWS // 4, 2] = 1e6
    state = after(field, sample)
    assert (state.alarmed, state.streams[0].cause, state.streams[0].out_of_range_ratio) == ([NAMES[2]], "out_of_range", 0.25)


@pytest.mark.parametrize(("missing", "is_alarmed"), [(0.01, False), (0.02, False), (0.3, True)])
def test_a_few_missing_values_are_no_alarm(missing: float, is_alarmed: bool) -> None:
    field = Field(6)
    samples = [field.clean() for _ in range(2)]
    for sample in samples:
        sample[: round(ROWS * missing), 0] = np.nan
    assert bool(after(field, *samples).alarmed) is is_alarmed


class TestBlocks:
    def test_windows_too_small_to_judge_wait_until_they_fill_a_block(self) -> None:
        field = Field(7)
        windows = [field.window(field.clean(50)) for _ in range(5)]
        state = judge(DriftState(sha256="a" * 64), field.baseline, windows[:3])
        assert (state.state, state.last_window_id) == ("waiting", 0)
        state = judge(state, field.baseline, windows)
        assert (state.state, state.rows, state.last_window_id) == ("clean", 200, 4)

    def test_cutting_the_same_windows_differently_gives_the_same_judgement(self) -> None:
        field = Field(8)
        windows = [field.window(field.clean(70)) for _ in range(20)]
        whole = judge(DriftState(sha256="a" * 64), field.baseline, windows)
        state = DriftState(sha256="a" * 64)
        for end in range(1, len(windows) + 1):
            pending = [window for window in windows[:end] if window[0] > state.last_window_id]
            state = judge(state, field.baseline, pending)
        assert state == whole

    def test_windows_under_other_edges_are_left_out(self) -> None:
        field = Field(9)
        sample = field.clean() + 5
        state = judge(DriftState(sha256="a" * 64), field.baseline, [field.window(sample, edges=sha256_hex(b"other"))])
        assert state.state == "waiting"


class TestHysteresis:
    def test_one_block_just_over_the_limit_is_not_enough_and_two_are(self) -> None:
        field = Field(10)
        shifted = [field.clean() for _ in range(2)]
        for sample in shifted:
            sample[:, 1] += 0.45
        first = after(field, shifted[0])
        assert 1 <= first.streams[0].score < 2
        assert first.state == "clean"
        assert judge(first, field.baseline, [field.window(shifted[1])]).alarmed == [NAMES[1]]

    def test_an_alarm_ends_after_three_quiet_blocks(self) -> None:
        field = Field(11)
        state = after(field, field.clean() + 3)
        assert state.state == "alarm"
        states = []
        for _ in range(BLOCKS_TO_CLEAR):
            state = judge(state, field.baseline, [field.window(field.clean())])
            states.append(state.state)
        assert states == ["alarm", "alarm", "clean"]


def test_a_stream_that_never_varied_alarms_when_it_does() -> None:
    """Its null is zero, so only the smallest limit stands between it and an alarm."""
    field = Field(12)
    counts = field.baseline.counts.copy()
    counts[3] = 0
    counts[3, 10] = 500
    null_top = field.baseline.null_top.copy()
    null_top[3] = 0
    streams = field.baseline.streams
    baseline = Baseline(edges=EDGES, streams=streams, counts=counts, null_top=null_top, null_rows=ROWS)
    still, moved = field.clean(), field.clean()
    for cell, expected in ((10, []), (11, [NAMES[3]])):
        number, window = field.window(still if cell == 10 else moved)
        cells = [0] * CELLS
        cells[cell] = ROWS
        streams_counts = (*window.streams[:3], StreamCounts(cells=tuple(cells)), *window.streams[4:])
        changed = Window(**{**{name: getattr(window, name) for name in window.__struct_fields__}, "streams": streams_counts})
        assert judge(DriftState(sha256="a" * 64), baseline, [(number, changed)]).alarmed == expected
