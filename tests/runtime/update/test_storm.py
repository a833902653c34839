"""Does a daemon that dies again and again come to rest, on the previous version or without the one that kills it?"""

import pytest

from runtime.contract.deployment import Outcome
from runtime.update import boot
from runtime.update.storm import DEATH, LIMIT, ORDERLY_S, POWER_CUT, Storm, after_start, treatment
from runtime.update.updater import Updater
from tests.support.artifacts import write_artifact

HERE, AFTER_REBOOT = "kernel-1", "kernel-2"


@pytest.mark.parametrize(
    ("name", "before", "clean", "updating", "kernel", "strain"),
    [
        ("an orderly stop ends the row", Storm(9, "", HERE), True, False, HERE, 0),
        ("the process died alone", Storm(0, "", HERE), False, False, HERE, DEATH),
        ("a power cut at rest", Storm(0, "", HERE), False, False, AFTER_REBOOT, POWER_CUT),
        ("a power cut while opening", Storm(3, "tiny", HERE), False, False, AFTER_REBOOT, 3 + DEATH),
        ("an update counts for itself", Storm(3, "", HERE), False, True, HERE, 3),
        ("a kernel that does not name itself", Storm(0, "", ""), False, False, "", POWER_CUT),
    ],
)
def test_what_a_start_weighs(name, before, clean, updating, kernel, strain):
    now = after_start(before, clean=clean, is_updating=updating, kernel_boot=kernel)
    assert (now.strain, now.kernel_boot) == (strain, kernel)


@pytest.mark.parametrize(
    ("strain", "opening", "fallen", "has_previous", "expected"),
    [
        (LIMIT - 1, "tiny", (), True, "open"),
        (LIMIT, "tiny", (), True, "previous"),
        (LIMIT, "", (), True, "previous"),
        (LIMIT, "other", (), True, "open"),
        (LIMIT, "tiny", (), False, "leave out"),
        (LIMIT + 1, "tiny", ("tiny",), True, "open"),
        (2 * LIMIT - 1, "tiny", ("tiny",), True, "open"),
        (2 * LIMIT, "tiny", ("tiny",), True, "leave out"),
        (2 * LIMIT, "other", (), True, "open"),
    ],
)
def test_what_is_done_with_a_lane(strain, opening, fallen, has_previous, expected):
    assert treatment(Storm(strain, opening, HERE, fallen), "tiny", has_previous=has_previous) == expected


class Killed(BaseException):
    """As SIGKILL would end the daemon."""


@pytest.fixture
def two(device, tmp_path, monkeypatch):
    """1.0.0 in slot a, 1.1.0 committed in slot b; `deadly` versions kill whatever opens them."""
    monkeypatch.setattr(boot, "kernel_boot", lambda: HERE)
    device.store.save_storm(Storm(kernel_boot=HERE))
    write_artifact(tmp_path / "old", version="1.0.0", scale=1.0)
    write_artifact(tmp_path / "new", version="1.1.0", scale=2.0)
    old, new = device.publish(tmp_path / "old"), device.publish(tmp_path / "new")
    device.update(old)
    device.update(new)
    deadly = set()
    real = type(device.repository).open

    def open_unless_deadly(self, directory, *arguments, **options):
        if any(f'"version":"{one}"'.encode() in (directory / "manifest.json").read_bytes() for one in deadly):
            raise Killed
        return real(self, directory, *arguments, **options)

    monkeypatch.setattr(type(device.repository), "open", open_unless_deadly)
    return device, old, new, deadly


def die_until_it_serves(device, most=20):
    """Start again and again; every start that gets through lives a moment and dies too. Returns the number of starts."""
    for number in range(1, most + 1):
        device.close()
        try:
            device.start()
        except Killed:
            continue
        return number
    raise AssertionError(f"still dying after {most} starts")


def test_a_committed_version_that_kills_at_opening_gives_way_to_the_previous_one_for_good(two):
    device, old, new, deadly = two
    deadly.add("1.1.0")
    assert die_until_it_serves(device) == LIMIT // DEATH
    assert device.repository.artifact("tiny") == old
    assert device.alarms[-1][:2] == ("tiny", "update.crash_loop")
    job = device.store.jobs()["tiny"]
    assert (job.artifact, job.outcome, job.error_code) == (new, Outcome.ROLLED_BACK, "update.crash_loop")
    device.close()
    device.start()  # another death: what serves now is not doubted at once
    assert device.repository.artifact("tiny") == old


def test_two_versions_that_kill_are_left_out_and_the_device_lives(two):
    device, _, _, deadly = two
    deadly |= {"1.0.0", "1.1.0"}
    assert die_until_it_serves(device) == 2 * LIMIT // DEATH
    assert device.repository.artifact("tiny") is None
    assert device.left_out["tiny"].code == "update.crash_loop"
    assert device.slots.artifact("tiny", device.slots.active("tiny")) is not None


def test_after_an_orderly_period_the_next_start_is_a_normal_one(two):
    device, _, _, deadly = two
    deadly |= {"1.0.0", "1.1.0"}
    die_until_it_serves(device)
    now = [0.0]
    updater = Updater(device.state, device.machine, device.repository, lambda: None, monotonic_s=lambda: now[0])
    updater._calm_down()
    assert not device.store.storm().is_calm
    now[0] = ORDERLY_S
    updater._calm_down()
    assert device.store.storm().is_calm
    deadly.clear()
    device.close()
    device.start()
    assert device.repository.artifact("tiny") is not None
    assert device.left_out == {}


def test_deaths_while_serving_make_every_lane_go_back_once(two):
    device, old, _, _ = two
    for _ in range(LIMIT // DEATH):
        device.close()
        device.start()
    assert device.repository.artifact("tiny") == old
    device.store.end_boot()
    device.close()
    device.start()
    assert device.store.storm().is_calm
    assert device.repository.artifact("tiny") == old


def test_a_few_power_cuts_at_rest_change_nothing(two, monkeypatch):
    device, _, new, _ = two
    for number in range(LIMIT - 1):
        monkeypatch.setattr(boot, "kernel_boot", lambda number=number: f"kernel-{number}")
        device.close()
        device.start()
    assert device.repository.artifact("tiny") == new
    assert device.alarms == []
