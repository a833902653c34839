"""Gate verdicts with the numbers they rest on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet.dashboard.views import status, wording
from fleet.dashboard.views.status import Badge
from fleet.store.tables import Verdict

HISTORY = 40
FINDINGS = 8


@dataclass(frozen=True)
class GateWords:
    """How to speak of a gate. write: its figures; limit: what the threshold means, with {limit} as `write` puts it."""

    title: str
    question: str
    limit: str
    write: Callable[[float], str]


def _points(value: float) -> str:
    return f"{wording.significant(100 * value)} points"


def _share(value: float) -> str:
    return wording.percent(value, 1)


def _ms(value: float) -> str:
    return wording.latency(value * 1e6)


_WORDS: dict[str, tuple[GateWords, Callable[[float], str]]] = {
    "failed_updates": (
        GateWords("Failed updates", "Did the updates work?", "at most {limit} failed", wording.count),
        wording.count,
    ),
    "error_share": (GateWords("Errors", "Do more requests fail than before?", "share rises by at most {limit}", _points), _share),
    "latency": (
        GateWords("Latency", "Is inference slower than before?", "median at most {limit} × before", wording.significant),
        _ms,
    ),
    "class_mix": (
        GateWords("Class mix", "Do the predicted classes keep their shares?", "no share moves by more than {limit}", _points),
        _share,
    ),
    "confidence": (
        GateWords("Confidence", "Is the model as sure as before?", "mean moves by at most {limit}", lambda value: f"{value:.3f}"),
        lambda value: f"{value:.3f}",
    ),
}
"""Words and the writer of a device's before and after, per gate."""


@dataclass(frozen=True)
class FindingRow:
    device: str
    decision: Badge
    before: str
    after: str
    rows: str
    reason: str


@dataclass(frozen=True)
class GateCard:
    """One gate in its newest evaluation. history: its decisions so far, oldest first, with when they were made."""

    name: str
    title: str
    question: str
    decision: Badge
    reason: str
    limit: str
    counts: str
    findings: tuple[FindingRow, ...]
    more: int
    history: tuple[Badge, ...]
    stage: int
    judged: str
    judged_at: str


def gate_cards(verdicts: Sequence[Verdict], stage: int, now: float) -> tuple[GateCard, ...]:
    """The newest verdict of every gate, in the order of the evaluation; of an earlier stage while this one has none."""
    by_gate: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_gate.setdefault(verdict.gate, []).append(verdict)
    order = {name: place for place, name in enumerate(_WORDS)}
    names = sorted(by_gate, key=lambda name: order.get(name, len(order)))
    return tuple(_card(by_gate[name], now) for name in names)


def _card(rows: Sequence[Verdict], now: float) -> GateCard:
    newest = rows[-1]
    numbers: Mapping[str, Any] = newest.numbers
    unknown = GateWords(status.unknown(newest.gate).text, "", "limit {limit}", wording.significant)
    words, write = _WORDS.get(newest.gate) or (unknown, wording.significant)
    findings = [finding for finding in numbers.get("findings", ()) if isinstance(finding, Mapping)]
    limit = numbers.get("limit")
    at = newest.at_ms / 1000
    return GateCard(
        name=newest.gate,
        title=words.title,
        question=words.question,
        decision=status.verdict(newest.decision),
        reason=newest.reason,
        limit="" if limit is None else words.limit.format(limit=words.write(limit)),
        counts=_counts(numbers),
        findings=tuple(_finding(finding, write) for finding in findings[:FINDINGS]),
        more=max(sum(int(numbers.get(key) or 0) for key in ("passed", "failed", "held")) - FINDINGS, 0)
        if len(findings) > FINDINGS
        else 0,
        history=tuple(_moment(row) for row in rows[-HISTORY:]),
        stage=newest.stage + 1,
        judged=wording.ago(at, now),
        judged_at=wording.clock(at),
    )


def _moment(row: Verdict) -> Badge:
    badge = status.verdict(row.decision)
    return Badge(badge.text, badge.tone, f"{wording.hour(row.at_ms / 1000)} stage {row.stage + 1}: {badge.text}, {row.reason}")


def _counts(numbers: Mapping[str, Any]) -> str:
    parts = [
        f"{numbers[key]} {word}" for key, word in (("passed", "pass"), ("held", "hold"), ("failed", "fail")) if numbers.get(key)
    ]
    return ", ".join(parts)


def _finding(finding: Mapping[str, Any], write: Callable[[float], str]) -> FindingRow:
    before, after = finding.get("before"), finding.get("after")
    return FindingRow(
        device=str(finding.get("device", "")),
        decision=status.verdict(str(finding.get("decision", ""))),
        before=wording.MISSING if before is None else write(before),
        after=wording.MISSING if after is None else write(after),
        rows=wording.count(finding["rows"]) if finding.get("rows") else wording.MISSING,
        reason=str(finding.get("reason", "")),
    )
