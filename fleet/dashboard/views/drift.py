"""Drift: how far each stream has moved from its reference, ranked, beside what it does without any drift."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from fleet.dashboard import charts
from fleet.dashboard.reading.drift import DriftPageFacts, ModelDriftFacts, ReferenceFacts
from fleet.dashboard.views import wording
from fleet.dashboard.views.status import Badge, unknown
from fleet.domain.drift import MARGIN, SMALLEST_LIMIT, StreamDrift
from fleet.store.tables import Drift, Installed
from runtime.contract.telemetry import CELLS
from runtime.monitor.cells import DISTANCE_SCALE, EDGES, MISSING, OUT_OF_RANGE, distance

BRIEF = 4
"""Streams shown where drift is only mentioned."""

_STATES = {
    "clean": Badge("Steady", "ok"),
    "alarm": Badge("Alarm", "bad", "some stream has left its reference for more than chance"),
    "waiting": Badge("Collecting", "idle", "not enough rows yet for a judgement"),
}
ALARM = Badge("Alarm", "bad")
OVER = Badge("Over the limit", "warn", "not for long enough to raise an alarm, or an alarm that is settling")
STEADY = Badge("Steady", "ok")
UNJUDGED = Badge("Not judged", "idle")


@dataclass(frozen=True)
class StreamRow:
    name: str
    kind: str
    state: Badge
    distance: str
    place: charts.Gauge | None
    null: str
    score: str
    rates: str
    title: str
    histogram: charts.Histogram | None
    low: str
    high: str


@dataclass(frozen=True)
class DriftSummary:
    """A judgement in brief."""

    device: str
    model: str
    version: str
    state: Badge
    note: str
    rows: str
    top: tuple[StreamRow, ...]
    at: str
    at_full: str


@dataclass(frozen=True)
class ModelDrift:
    model: str
    version: str
    state: Badge
    note: str
    missing: str
    streams: tuple[StreamRow, ...]


@dataclass(frozen=True)
class DriftPage:
    id: str
    models: tuple[ModelDrift, ...]


def state_badge(state: str) -> Badge:
    return _STATES.get(state) or unknown(state)


def drift_summary(row: Drift, now: float, installed: Installed | None = None) -> DriftSummary:
    judged = row.at_ms / 1000
    return DriftSummary(
        device=row.device,
        model=row.model,
        version=(installed.version or "") if installed else "",
        state=state_badge(row.state),
        note=f"{row.model}, {wording.plural(row.rows, 'row')}, judged {wording.ago(judged, now)}",
        rows=wording.count(row.rows),
        top=tuple(_judged_row(stream) for stream in judgements(row)[:BRIEF]),
        at=wording.ago(judged, now),
        at_full=wording.clock(judged),
    )


def drift_rows(facts: Sequence[tuple[Drift, Installed | None]], now: float) -> list[DriftSummary]:
    """Judgements of a fleet: alarms first, then by how far the most changed stream is."""
    ranked = sorted(facts, key=lambda one: (one[0].state != "alarm", -_worst(one[0]), one[0].device))
    return [drift_summary(row, now, installed) for row, installed in ranked]


def _worst(row: Drift) -> float:
    return max((stream.score for stream in judgements(row)), default=0.0)


def drift_page(facts: DriftPageFacts, now: float) -> DriftPage:
    return DriftPage(facts.device.id, tuple(_model(model, now) for model in facts.models))


def _model(facts: ModelDriftFacts, now: float) -> ModelDrift:
    judged = facts.judged
    state = state_badge(judged.state) if judged else Badge("Not judged yet", "idle")
    missing = facts.missing or ("" if facts.windows else "No window of this artifact has arrived yet.")
    streams = () if missing or facts.reference is None else _streams(facts, facts.reference)
    newest = "" if facts.newest_ms is None else f", newest {wording.ago(facts.newest_ms / 1000, now)}"
    note = f"{wording.plural(facts.rows, 'row')} in {wording.plural(facts.windows, 'window')}{newest}"
    return ModelDrift(facts.model, facts.version, state, note, missing, streams)


def _streams(facts: ModelDriftFacts, reference: ReferenceFacts) -> tuple[StreamRow, ...]:
    """All streams: as the service ranked them, then by distance those it has not judged."""
    verdicts = {stream.name: stream for stream in judgements(facts.judged)}
    order = {name: place for place, name in enumerate(verdicts)}
    moved = np.nan_to_num(distance(reference.counts[:, :CELLS], facts.current[:, :CELLS]))
    names = [stream.name for stream in reference.edges.streams]
    ranked = sorted(range(len(names)), key=lambda index: (order.get(names[index], len(order)), -moved[index]))
    return tuple(_stream(reference, facts, index, float(moved[index]), verdicts.get(names[index])) for index in ranked)


def judgements(row: Drift | None) -> list[StreamDrift]:
    """The stored judgement's streams, most changed first."""
    return [msgspec.convert(stream, StreamDrift) for stream in row.streams] if row else []


def stream_state(verdict: StreamDrift | None) -> Badge:
    if verdict is None:
        return UNJUDGED
    return ALARM if verdict.is_alarmed else OVER if verdict.score >= 1 else STEADY


def _stream(
    reference: ReferenceFacts, facts: ModelDriftFacts, index: int, moved: float, verdict: StreamDrift | None
) -> StreamRow:
    stream = reference.edges.streams[index]
    edges = np.frombuffer(stream.edges, dtype="<f8", count=EDGES).tolist()
    was, now = reference.counts[index], facts.current[index]
    shown = verdict.distance if verdict else moved
    low, high, limit = _null(reference, index, verdict)
    state = stream_state(verdict)
    return StreamRow(
        name=stream.name,
        kind=stream.kind,
        state=state,
        distance=wording.significant(shown),
        place=charts.gauge(shown, low, high, limit),
        null=f"without drift {wording.significant(low)} to {wording.significant(high)}",
        score=_score(verdict),
        rates=_rates(was, now),
        title=f"{stream.name}: distance {wording.significant(shown)}, alarm from {wording.significant(limit)}",
        histogram=charts.histogram(was[:CELLS].tolist(), now[:CELLS].tolist(), edges),
        low=f"below {edges[0]:.3g}",
        high=f"above {edges[-1]:.3g}",
    )


def _null(reference: ReferenceFacts, index: int, verdict: StreamDrift | None) -> tuple[float, float, float]:
    """Smallest and largest distance without drift, and the limit, for a block of the judged size.

    The reference's null rests on its own number of rows; the judgement's limit says how far it was carried.
    """
    null = reference.reference.null[index]
    low, high = (null[0] / DISTANCE_SCALE, null[-1] / DISTANCE_SCALE) if null else (0.0, 0.0)
    if verdict is None:
        return low, high, max(MARGIN * high, SMALLEST_LIMIT)
    carried = verdict.distance_limit / (MARGIN * high) if high and verdict.distance_limit > SMALLEST_LIMIT else 1.0
    return low * carried, high * carried, verdict.distance_limit


def _judged_row(verdict: StreamDrift) -> StreamRow:
    """A row without its counts, for places that only mention drift; on the axis of the score, where 1 is the limit."""
    return StreamRow(
        name=verdict.name,
        kind=verdict.kind,
        state=stream_state(verdict),
        distance=wording.significant(verdict.distance),
        place=charts.gauge(verdict.score, 0.0, 1 / MARGIN, 1.0),
        null="",
        score=_score(verdict),
        rates="",
        title=f"{verdict.name}: {_score(verdict)}",
        histogram=None,
        low="",
        high="",
    )


_CAUSES = {"distribution": "", "missing": ", missing rows", "out_of_range": ", rows out of range"}


def _score(verdict: StreamDrift | None) -> str:
    if verdict is None:
        return ""
    return f"{wording.significant(max(verdict.score, 0.0), 2)} × limit{_CAUSES[verdict.cause] if verdict.score >= 1 else ''}"


def _rates(was: Sequence[int], now: Sequence[int]) -> str:
    """Missing and out-of-range shares, said only where there are any."""
    parts = []
    for column, word in ((MISSING, "missing"), (OUT_OF_RANGE, "out of range")):
        before, after = _share(was, column), _share(now, column)
        if before or after:
            parts.append(f"{wording.percent(after)} {word} ({wording.percent(before)} in the reference)")
    return ", ".join(parts)


def _share(counts: Sequence[int], column: int) -> float:
    total = int(np.sum(counts))
    return int(counts[column]) / total if total else 0.0
