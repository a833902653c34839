"""What serves after a start when the disk has been damaged meanwhile?"""

import pytest

from runtime.contract.deployment import DeploymentState as S
from runtime.contract.deployment import Outcome, Settings
from runtime.errors import StoreError
from runtime.update.state import open_state, open_state_to_serve, takes_writes
from runtime.update.store import STATE_FILE
from tests.runtime.update.test_verify import flip
from tests.support.artifacts import write_artifact


@pytest.fixture
def two(device, tmp_path):
    """1.0.0 in slot a, 1.1.0 active in slot b."""
    write_artifact(tmp_path / "old", version="1.0.0", scale=1.0)
    write_artifact(tmp_path / "new", version="1.1.0", scale=2.0)
    old, new = device.publish(tmp_path / "old"), device.publish(tmp_path / "new")
    device.update(old)
    device.update(new)
    assert device.slots.active("tiny") == "b"
    return device, old, new


def damage(device, slot, name="model.npz"):
    flip(device.slots.directory("tiny", slot) / name, 10)


def restart(device):
    device.close()
    device.start()


@pytest.mark.parametrize("name", ["manifest.json", "model.npz"])
def test_a_damaged_active_slot_gives_way_to_the_other(two, name):
    device, old, _ = two
    damage(device, "b", name)
    restart(device)
    assert device.repository.artifact("tiny") == old
    assert device.slots.active("tiny") == "a"
    model, code, detail = device.alarms[-1]
    assert (model, code) == ("tiny", "trust.digest_mismatch")
    assert name in detail


def test_two_damaged_slots_serve_nothing_but_the_device_lives_and_heals(two):
    device, _, new = two
    damage(device, "a")
    damage(device, "b")
    restart(device)
    assert device.repository.artifact("tiny") is None
    assert device.slots.models() == ()
    assert device.update(new).outcome is Outcome.SUCCEEDED
    assert device.repository.artifact("tiny") == new


def test_a_version_in_probation_that_cannot_be_opened_any_more_is_rolled_back(two, tmp_path):
    device, _, new = two
    write_artifact(tmp_path / "next", version="1.2.0", scale=3.0)
    following = device.publish(tmp_path / "next")
    device.settings = Settings(probation_s=3600)
    device.begin(following)
    for _ in range(4):
        device.updater.once()
    assert device.store.jobs()["tiny"].state is S.PROBATION
    damage(device, "a")
    restart(device)
    assert device.repository.artifact("tiny") == new
    job = device.finish()
    assert (job.outcome, job.error_code) == (Outcome.ROLLED_BACK, "store.error")


def test_a_healthy_device_raises_no_alarm(two):
    device, _, new = two
    restart(device)
    assert device.alarms == []
    assert device.repository.artifact("tiny") == new


def test_a_damaged_state_database_is_begun_anew_and_keeps_the_floor(device, tmp_path):
    write_artifact(tmp_path / "new", version="1.1.0", rollback_floor="1.0.5")
    new = device.publish(tmp_path / "new")
    device.update(new)
    device.close()
    (device.state_dir / "state.db").write_bytes(b"no database" * 1000)
    device.start()
    assert device.state.begun_anew
    assert device.repository.artifact("tiny") == new
    assert device.store.floor("tiny") == "1.0.5"
    assert (device.state_dir / "state.db.damaged").exists()


def test_a_good_slot_serves_even_if_the_disk_takes_no_change(two, monkeypatch):
    device, old, _ = two
    damage(device, "b")

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    device.close()
    monkeypatch.setattr(type(device.slots), "activate", full)
    device.start()
    assert device.repository.artifact("tiny") == old
    assert [code for _, code, _ in device.alarms] == ["trust.digest_mismatch", "store.error"]


def test_a_disk_with_a_damaged_database_takes_writes_again_all_the_same(tmp_path):
    open_state(tmp_path).store.close()
    assert takes_writes(tmp_path)
    (tmp_path / STATE_FILE).write_bytes(b"no database" * 1000)
    assert takes_writes(tmp_path)
    assert not takes_writes(tmp_path / "absent")
    assert not list(tmp_path.glob("*.tmp"))


def test_what_the_disk_refuses_where_nothing_is_installed_is_one_error(tmp_path):
    (tmp_path / "models").write_text("in the way")
    with pytest.raises(StoreError, match="exists"):
        open_state_to_serve(tmp_path)
