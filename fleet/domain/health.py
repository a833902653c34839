"""Is a device all right, and if not, what is the first thing to look at?"""

from typing import Literal

import msgspec

Level = Literal["ok", "attention", "offline", "revoked"]


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a device. failures: model -> stable code of its newest update's failure; drifting: models in alarm."""

    revoked: bool = False
    online: bool = True
    has_reported: bool = True
    clock_synced: bool = True
    failures: dict[str, str] = {}
    drifting: tuple[str, ...] = ()


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """level: the worst of what was found; reasons: for people, worst first."""

    level: Level
    reasons: tuple[str, ...] = ()


def judge_health(condition: Condition) -> Health:
    if condition.revoked:
        return Health(level="revoked", reasons=("it is revoked",))
    reasons = [f"the newest update of {model} failed: {code}" for model, code in sorted(condition.failures.items())]
    reasons += [f"drift on {model}" for model in condition.drifting]
    if condition.has_reported and not condition.clock_synced:
        reasons.append("its clock is not set, so it starts no update")
    if not condition.online:
        missing = "it is not connected" if condition.has_reported else "it has never connected"
        return Health(level="offline", reasons=(missing, *reasons))
    return Health(level="attention" if reasons else "ok", reasons=tuple(reasons))
