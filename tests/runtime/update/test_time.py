"""By what time is signed metadata judged, when the clock is wrong or the fleet is out of reach?"""

import datetime
import time

import pytest

from runtime.clock import Clock
from runtime.contract.canonical import sha256_hex
from runtime.contract.errors import ContractError, ExpiredError, MetadataError
from runtime.contract.trust import NotFound, ReleaseTrust
from runtime.update.store import Store
from tests.support.artifacts import write_artifact
from tests.support.store import ReleaseStore

DAY_S = 86_400
TEN_YEARS_S = 3650 * DAY_S
NOW_S = int(time.time())


def at(seconds):
    return datetime.datetime.fromtimestamp(NOW_S + seconds, datetime.UTC).replace(microsecond=0)


@pytest.fixture
def releases(tmp_path):
    """Signed today: the timestamp lives a day, the rest thirty."""
    store = ReleaseStore()
    write_artifact(tmp_path / "artifact")
    store.publish(tmp_path / "artifact")
    store.sign(expires=at(DAY_S))
    return store


def look(place, store, **times):
    """What a device makes of this store at these times: None, or the refusal."""

    def fetch(path):
        if path not in store.files:
            raise NotFound(path)
        yield store.files[path]

    try:
        trust = ReleaseTrust(place, store.root, sha256_hex(store.root), fetch, **times)
        trust.refresh()
        trust.director_keys()
    except ContractError as error:
        return type(error)
    return None


CASES = [
    ("online, today", 0, None, None),
    ("online, in two days: the service re-signs daily", 2 * DAY_S, None, ExpiredError),
    ("online, a clock ten years ahead", TEN_YEARS_S, None, ExpiredError),
    ("a stick, two weeks after it was written, heard last before", 14 * DAY_S, NOW_S - 7 * DAY_S, None),
    ("a stick, never heard of the fleet", 14 * DAY_S, 0, None),
    ("a stick older than the last contact", 14 * DAY_S, NOW_S + 2 * DAY_S, ExpiredError),
    ("a stick after what the engineer signed has expired", 31 * DAY_S, NOW_S, ExpiredError),
    ("a stick, and a clock ten years ahead", TEN_YEARS_S, NOW_S, ExpiredError),
    ("a stick, and a clock ten years back", -TEN_YEARS_S, NOW_S, None),
]


# Named one by one: processes that collect these tests a second apart must still agree on what they are called.
@pytest.mark.parametrize(("later_s", "last_contact_s", "refusal"), [pytest.param(*case, id=name) for name, *case in CASES])
def test_by_what_time_metadata_is_judged(releases, tmp_path, later_s, last_contact_s, refusal):
    assert look(tmp_path / "trust", releases, now_s=NOW_S + later_s, last_contact_s=last_contact_s) is refusal


def test_an_older_stick_never_takes_a_device_back(releases, tmp_path):
    older = dict(releases.files)
    write_artifact(tmp_path / "newer", version="1.1.0")
    releases.publish(tmp_path / "newer")
    assert look(tmp_path / "trust", releases, now_s=NOW_S) is None
    releases.files = older
    assert look(tmp_path / "trust", releases, now_s=NOW_S, last_contact_s=0) is MetadataError


def test_a_clock_that_fell_back_ten_years_makes_nothing_young_again(releases, tmp_path):
    store = Store(tmp_path / "state.db")
    Clock(store, lambda: float(NOW_S)).trust(NOW_S + 2 * DAY_S)
    fallen = Clock(store, lambda: float(NOW_S - TEN_YEARS_S))
    assert look(tmp_path / "trust", releases, now_s=int(fallen.now_s())) is ExpiredError
    assert look(tmp_path / "trust", releases, now_s=NOW_S - TEN_YEARS_S) is None, "what the clock's floor is for"
    store.close()


def test_a_clock_that_was_ahead_for_a_while_refuses_only_meanwhile(releases, tmp_path):
    store, lived = Store(tmp_path / "state.db"), [0.0]
    Clock(store, lambda: float(NOW_S)).trust(NOW_S - 3600)
    ahead = Clock(store, lambda: float(NOW_S + TEN_YEARS_S), lambda: lived[0])
    assert look(tmp_path / "trust", releases, now_s=int(ahead.now_s())) is ExpiredError
    lived[0] = 3600.0
    ahead.record()
    right = Clock(store, lambda: float(NOW_S + 60))
    assert right.is_synced
    assert look(tmp_path / "trust", releases, now_s=int(right.now_s())) is None
    store.close()
