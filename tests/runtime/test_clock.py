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
    lived = [50.0]
    clock = Clock(store, lambda: 1000.0 + later, lambda: lived[0])
    lived[0] += later
    clock.record()
    assert store.trusted_time_s() == floor


TEN_YEARS_S = 10 * 365 * 86_400


def test_a_jump_ahead_is_never_recorded_as_the_present(store):
    store.trust_time(1_790_000_000)
    system, lived = [1_790_000_000.0 + TEN_YEARS_S], [0.0]
    clock = Clock(store, lambda: system[0], lambda: lived[0])
    lived[0] += 3600
    clock.record()
    assert store.trusted_time_s() == 1_790_003_600
    system[0] = 1_790_003_700.0
    assert clock.is_synced
    assert clock.now_s() == 1_790_003_700


def test_a_jump_back_is_not_believed_and_not_recorded(store):
    store.trust_time(1_790_000_000)
    lived = [0.0]
    clock = Clock(store, lambda: 1_790_000_000.0 - TEN_YEARS_S, lambda: lived[0])
    lived[0] += 3600
    clock.record()
    assert (clock.now_s(), clock.is_synced, store.trusted_time_s()) == (1_790_000_000, False, 1_790_000_000)


def test_only_signed_messages_are_a_contact(store):
    lived = [0.0]
    clock = Clock(store, lambda: 1_790_009_000.0, lambda: lived[0])
    assert clock.last_contact_s == 0
    clock.trust(1_790_000_000)
    lived[0] += 3600
    clock.record()
    clock.trust(1_789_000_000)
    assert clock.last_contact_s == 1_790_000_000
    assert store.trusted_time_s() == 1_790_003_600
