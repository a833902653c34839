"""What do end-to-end tests do again and again? Publish a new version, roll it out, wait for a state."""

import itertools
from typing import Any

from benchmarks.demo.local_fleet import LocalFleet, all_serve, wait_for


class Releases:
    """Builds and publishes digits under a version nobody used yet."""

    def __init__(self, fleet: LocalFleet) -> None:
        self._fleet = fleet
        self._patch = itertools.count(1)

    def new(self, **settings: str) -> str:
        version = f"1.0.{next(self._patch)}"
        self._fleet.publish(self._fleet.build(version, {key.replace("__", "."): value for key, value in settings.items()}))
        return version


def wait_for_state(fleet: LocalFleet, rollout: str, *states: str, timeout_s: float = 60) -> dict[str, Any]:
    """The rollout once it is in one of the states."""

    def look() -> dict[str, Any] | None:
        with fleet.client() as client:
            seen = client.rollout(rollout)
        return seen if seen["state"] in states else None

    return wait_for(f"rollout {rollout} {'/'.join(states)}", look, timeout_s)


def wait_until_serving(fleet: LocalFleet, version: str, timeout_s: float = 60) -> None:
    """Until every device reports that it serves this version."""
    wait_for(
        f"every device serves {version}",
        lambda: all_serve(fleet, version),
        timeout_s,
    )
