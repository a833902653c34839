"""One real fleet for all end-to-end tests: service, broker, two devices, digits 1.0.0 rolled out to both.

Tests may kill any of its processes; each leaves the fleet converged and running. Versions are never used twice, so every
test asks `releases` for a new one; only the first build trains.
"""

from collections.abc import Iterator

import pytest

from benchmarks.demo.local_fleet import LocalFleet, roll_out_at_once, wait_for
from tests.e2e.steps import Releases, wait_for_state

DEVICES = ("alpha", "beta")


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalFleet]:
    local = LocalFleet(tmp_path_factory.mktemp("fleet"), window_s=1, probation_s=2)
    try:
        local.create()
        local.start_service()
        local.authorize()
        local.publish(local.build("1.0.0"))
        for name in DEVICES:
            local.add_device(name, {"place": "bench", "name": name})
        wait_for("both devices report", lambda: local.reported_devices() == len(DEVICES), 30)
        wait_for_state(local, roll_out_at_once(local, "1.0.0"), "done")
        yield local
    finally:
        local.close()


@pytest.fixture(scope="session")
def releases(fleet: LocalFleet) -> Releases:
    return Releases(fleet)
