"""What happened in a rollout, newest first: people's decisions, turns of the rollout with their reasons, and the devices' updates.

A device reports every step of its update; here only begin, end and trouble count, and devices that did the same within
MERGE_S share a line, so that a stage of five hundred devices does not bury the decisions.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from fleet.dashboard.reading.rollouts import RolloutPageFacts
from fleet.dashboard.views import status, wording
from fleet.dashboard.views.events import describe
from fleet.dashboard.views.rollouts import state_badge
from fleet.store.tables import Audit, Event

ENTRIES = 120
MERGE_S = 30
NAMED = 8
_DECISIONS = {
    "rollout.create": "Created",
    "rollout.start": "Started",
    "rollout.pause": "Paused",
    "rollout.resume": "Resumed",
    "rollout.approve": "Approved",
    "rollout.rollback": "Rollback ordered",
}


@dataclass(frozen=True)
class TimelineEntry:
    """One line; devices that did the same share it."""

    at_s: float
    tone: str
    title: str
    detail: str = ""
    code: str = ""
    devices: tuple[str, ...] = ()

    @property
    def at(self) -> str:
        return wording.hour(self.at_s)

    @property
    def at_full(self) -> str:
        return wording.clock(self.at_s)

    @property
    def named(self) -> tuple[str, ...]:
        return self.devices[:NAMED]

    @property
    def more(self) -> int:
        return max(len(self.devices) - NAMED, 0)


def timeline(facts: RolloutPageFacts) -> list[TimelineEntry]:
    what = f"{facts.rollout.model} {facts.rollout.version}: "
    entries = [_of_audit(entry) for entry in facts.audit]
    # The service notes a person's decision too; the audit's entry says more.
    decided = {(entry.at_ms, f"{what}{entry.action.removeprefix('rollout.')} by {entry.actor}") for entry in facts.audit}
    turns = [event for event in facts.events if event.source != "device" and (event.at_ms, event.detail) not in decided]
    entries += [_of_service(event, what) for event in turns]
    entries += _merged(_of_devices(event for event in facts.events if event.source == "device"))
    entries.sort(key=lambda entry: entry.at_s)
    return list(reversed(entries[-ENTRIES:]))


def _of_devices(events: Iterable[Event]) -> list[TimelineEntry]:
    """Begin, end and trouble. Once an update has failed, each later step repeats the code: only the first is told."""
    told: set[tuple[str | None, int, str]] = set()
    entries = []
    for event in events:
        words = describe(event)
        key = (event.device, event.attempt, event.code)
        if event.code:
            if key in told:
                continue
            told.add(key)
        elif not words.is_milestone:
            continue
        title = "Update failed" if event.code and words.step else words.title
        devices = (event.device or "",)
        entries.append(TimelineEntry(event.at_ms / 1000, words.tone, title, words.detail, event.code, devices))
    return entries


def _merged(entries: list[TimelineEntry]) -> list[TimelineEntry]:
    """Equal entries of several devices, close in time, as one."""
    merged: list[TimelineEntry] = []
    newest: dict[tuple[str, str, str], int] = {}
    for entry in sorted(entries, key=lambda one: one.at_s):
        key = (entry.title, entry.detail, entry.code)
        place = newest.get(key)
        if place is not None and entry.at_s - merged[place].at_s <= MERGE_S:
            merged[place] = replace(merged[place], devices=(*merged[place].devices, *entry.devices))
        else:
            newest[key] = len(merged)
            merged.append(entry)
    return merged


def _of_service(event: Event, what: str) -> TimelineEntry:
    badge = state_badge(event.kind.removeprefix("rollout."))
    return TimelineEntry(event.at_ms / 1000, badge.tone, badge.text, event.detail.removeprefix(what), event.code)


def _of_audit(entry: Audit) -> TimelineEntry:
    title = _DECISIONS.get(entry.action) or status.unknown(entry.action).text
    return TimelineEntry(entry.at_ms / 1000, "idle", title, f"by {entry.actor}, {entry.role}")
