"""What does this device serve and want, read from its disk alone?"""

from pathlib import Path
from typing import Any

import msgspec

from runtime.agent.reporter import describe
from runtime.clock import Clock
from runtime.contract.deployment import SHARE_WHOLE
from runtime.engines import read_engines
from runtime.identity import read_identity
from runtime.update.lanes import lane_of
from runtime.update.plan import HoldBack, Present, plan
from runtime.update.slots import Slots
from runtime.update.store import STATE_FILE, Store


def read_status(state_dir: Path) -> dict[str, Any]:
    """Identity, desired generation and every lane, without the daemon and without changing anything.

    A model has an entry per role, with `share`, `held_back` (why what is wanted does not start, or "") and `engine` (what ran it
    when the daemon last said so, or "") beside what is reported. `coming_bytes` is how much is here of what is being fetched.
    """
    identity = read_identity(state_dir)
    generation = coming_bytes = 0
    models: list[dict[str, Any]] = []
    if (state_dir / STATE_FILE).is_file():
        store, slots = Store(state_dir / STATE_FILE, read_only=True), Slots(state_dir)
        held = store.held()
        shares: dict[str, int] = {}
        if held is not None:
            generation = held.desired.value.generation
            shares = {lane_of(wanted.model, wanted.role): wanted.share for wanted in held.desired.value.deployments}
        held_back, jobs, engines = _held_back(store, slots), store.jobs(), read_engines(state_dir)
        shares |= {lane: job.share for lane, job in jobs.items()}
        for reported in describe(jobs, slots, held_back):
            lane = lane_of(reported.model, reported.role)
            share = shares.get(lane, SHARE_WHOLE)
            beside = {"share": share, "held_back": _spell(held_back.get(lane)), "engine": engines.get(lane, "")}
            models.append(msgspec.to_builtins(reported) | beside)
        store.close()
        coming_bytes = slots.coming_bytes()
    return {
        "device": identity.device if identity else "",
        "fleet": identity.fleet if identity else "",
        "state_dir": str(state_dir),
        "generation": generation,
        "coming_bytes": coming_bytes,
        "models": models,
    }


def _held_back(store: Store, slots: Slots) -> dict[str, HoldBack]:
    """What a daemon would hold back now, by lane."""
    held = store.held()
    if held is None:
        return {}
    present = {lane: Present(slot := slots.active(lane), slots.artifact(lane, slot)) for lane in slots.lanes()}
    clock = Clock(store)
    decisions = plan(held.desired.value, store.jobs(), present, clock.now_s(), clock.is_synced)
    return {decision.lane: decision for decision in decisions if isinstance(decision, HoldBack)}


def _spell(held_back: HoldBack | None) -> str:
    if held_back is None:
        return ""
    if held_back.until_s:
        return f"until {int(held_back.until_s)} (Unix seconds), as the fleet asked"
    return held_back.detail
