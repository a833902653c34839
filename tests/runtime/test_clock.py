"""Is a clock that woke up in the past never believed?"""

import pytest

from runtime.clock import RECORD_EVERY_S, Clock
from runtime.update.store import Store


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "state.db")
    yield store
    store.close()


def test_time_never_runs_behind_what_was_trusted(store):
    system = [1000.0]
    clock = Clock(store, lambda: system[0])
    assert clock.is_synced
    clock.trust(5000)
    assert (clock.now_s(), clock.is_synced) == (5000, False)
    system[0] = 6000
    assert (clock.now_s(), clock.now_ms(), clock.is_synced) == (6000, 6_000_000, True)
    clock.trust(10)
    assert clock.now_s() == 6000


def test_the_floor_survives_a_restart(store):
    Clock(store, lambda: 7000.0).trust(9000)
    reborn = Clock(store, lambda: 0.0)
    assert (reborn.now_s(), reborn.is_synced) == (9000, False)


@pytest.mark.parametrize(("later", "floor"), [(RECORD_EVERY_S - 1, 1000), (RECORD_EVERY_S, 1000 + RECORD_EVERY_S)])
def test_the_present_is_recorded_now_and_then(store, later, floor):
    store.trust_time(1000)
    Clock(store, lambda: 1000.0 + later).record()
    assert store.trusted_time_s() == floor
