"""Does state.db give back what was put in, across a restart, and refuse aloud when it cannot?"""

import msgspec
import pytest

from runtime.contract.artifact import ArtifactRef
from runtime.contract.canonical import DESIRED_LIMIT, write_message
from runtime.contract.deployment import DeploymentState as S
from runtime.contract.deployment import Desired
from runtime.errors import StoreDamagedError, StoreError
from runtime.update.machine import Job
from runtime.update.store import Held, Store

JOB = Job(model="tiny", artifact=ArtifactRef(version="1.0.0", target="t", sha256="0" * 64), slot="a", state=S.TESTING)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state.db"


@pytest.fixture
def store(path):
    store = Store(path)
    yield store
    store.close()


def test_jobs_survive_a_restart_and_the_newest_replaces(path, store):
    store.save_job(JOB)
    store.save_job(msgspec.structs.replace(JOB, state=S.SWITCHING))
    again = Store(path)
    assert again.jobs()["tiny"].state is S.SWITCHING
    again.forget_job("tiny")
    assert again.jobs() == {}
    again.close()


@pytest.mark.parametrize(("second", "floor"), [("0.9.0", "1.0.0"), ("1.0.0", "1.0.0"), ("1.0.1", "1.0.1"), ("1.10.0", "1.10.0")])
def test_a_floor_only_rises(store, second, floor):
    assert store.floor("tiny") == "0.0.0"
    store.raise_floor("tiny", "1.0.0")
    store.raise_floor("tiny", second)
    assert store.floor("tiny") == floor


def test_the_held_desired_state_keeps_its_bytes(path, store):
    desired = Desired(device="d", generation=3, issued_at=1, expires=2)
    payload = write_message(desired, DESIRED_LIMIT)
    assert store.held() is None
    store.hold(Held(b"envelope", payload))
    again = Store(path)
    assert again.held().envelope == b"envelope"
    assert again.held().desired.raw == payload
    assert again.held().desired.value == desired
    again.close()


def test_starts_are_counted_and_unclean_stops_seen(path, store):
    assert store.begin_boot() == (1, True)
    assert store.begin_boot() == (2, False)
    store.end_boot()
    assert store.begin_boot() == (3, True)


def test_commands_are_remembered_until_they_expire(store):
    store.mark_done("c1", expires=100, now=50)
    assert store.is_done("c1")
    store.mark_done("c2", expires=300, now=101)
    assert not store.is_done("c1")
    assert store.is_done("c2")


def test_trusted_time_only_rises(store):
    store.trust_time(100)
    store.trust_time(50)
    assert store.trusted_time_s() == 100


def test_a_damaged_database_is_told_from_a_disk_that_refuses(path, tmp_path):
    path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StoreDamagedError):
        Store(path)
    with pytest.raises(StoreError) as refusal:
        Store(tmp_path / "absent" / "state.db")
    assert type(refusal.value) is StoreError


def test_a_closed_or_read_only_store_refuses_aloud(path, store):
    reader = Store(path, read_only=True)
    with pytest.raises(StoreError):
        reader.save_job(JOB)
    reader.close()
    with pytest.raises(StoreError):
        reader.jobs()


def test_a_volatile_store_knows_what_the_file_and_its_log_hold_and_changes_neither(path, store):
    store.save_job(JOB)  # in the log: the store is still open
    copy = Store(path, is_volatile=True)
    assert copy.jobs() == {JOB.lane: JOB}
    copy.forget_job(JOB.lane)
    copy.close()
    assert store.jobs() == {JOB.lane: JOB}


@pytest.mark.parametrize("content", [None, b"this is no database" * 100], ids=["absent", "damaged"])
def test_a_volatile_store_of_what_cannot_be_read_is_empty(tmp_path, content, caplog):
    path = tmp_path / "other.db"
    if content is not None:
        path.write_bytes(content)
    store = Store(path, is_volatile=True)
    assert store.jobs() == {}
    store.save_job(JOB)
    store.close()
    assert ("is not known now" in caplog.text) == (content is not None)
    assert path.exists() == (content is not None)
