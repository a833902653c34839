"""What happened in a rollout, newest first: people's decisions, gate decisions that changed, and the devices' own steps."""

from dataclasses import dataclass

from fleet.dashboard.reading.rollouts import RolloutPageFacts
from fleet.dashboard.views import status, wording
from fleet.store.tables import Audit, Event, Verdict

ENTRIES = 120


@dataclass(frozen=True)
class TimelineEntry:
    at: str
    at_full: str
    tone: str
    title: str
    detail: str
    code: str
    device: str
    source: str


def timeline(facts: RolloutPageFacts, now: float) -> list[TimelineEntry]:
    moments = [(event.at_ms, _of_event(event)) for event in facts.events]
    moments += [(entry.at_ms, _of_audit(entry)) for entry in facts.audit]
    moments += [(verdict.at_ms, _of_verdict(verdict)) for verdict in _turning_points(facts.verdicts)]
    moments.sort(key=lambda one: one[0])
    return [entry for _, entry in reversed(moments[-ENTRIES:])]


def _turning_points(verdicts: tuple[Verdict, ...]) -> list[Verdict]:
    """Verdicts that decide otherwise than the one before them on the same gate; a hold at the start is no news."""
    last: dict[tuple[int, str], str] = {}
    turns = []
    for verdict in verdicts:
        key = (verdict.stage, verdict.gate)
        if last.get(key, "hold") != verdict.decision:
            turns.append(verdict)
        last[key] = verdict.decision
    return turns


def _of_event(event: Event) -> TimelineEntry:
    at = event.at_ms / 1000
    title = event.kind.replace("_", " ").replace(".", " ").capitalize()
    source = "device" if event.source == "device" else "service"
    tone = "bad" if event.code else "idle" if source == "device" else "busy"
    return TimelineEntry(wording.hour(at), wording.clock(at), tone, title, event.detail, event.code, event.device or "", source)


def _of_audit(entry: Audit) -> TimelineEntry:
    at = entry.at_ms / 1000
    title = entry.action.replace("_", " ").replace(".", " ").capitalize()
    return TimelineEntry(wording.hour(at), wording.clock(at), "busy", title, f"by {entry.actor} ({entry.role})", "", "", "person")


def _of_verdict(verdict: Verdict) -> TimelineEntry:
    at = verdict.at_ms / 1000
    badge = status.verdict(verdict.decision)
    title = f"Gate {verdict.gate.replace('_', ' ')}: {badge.text.lower()}"
    return TimelineEntry(wording.hour(at), wording.clock(at), badge.tone, title, verdict.reason, "", "", "gate")
