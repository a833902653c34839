"""Whatever is killed in the middle of a rollout, does everything converge without a hand, and nothing happen twice?"""

import os
import signal
from pathlib import Path

import pytest

from benchmarks.demo.local_fleet import MODEL, LocalFleet, roll_out_at_once, wait_for
from benchmarks.demo.traffic import DigitsClient, held_out_digits
from tests.e2e.steps import Releases, wait_for_state, wait_until_serving

pytestmark = pytest.mark.e2e

ONE_THEN_ALL = [{"count": 1, "soak_s": 3}, {"percent": 100, "soak_s": 1}]


def require_told_once(fleet: LocalFleet, rollout: str) -> None:
    """Every device has exactly one job, tried once, with a final report, and threw its switch exactly once."""
    with fleet.client() as client:
        jobs = client.rollout(rollout)["jobs"]
        assert sorted(job["device"] for job in jobs) == sorted(fleet.devices)
        assert {(job["state"], job["attempt"]) for job in jobs} == {("succeeded", 1)}
        assert all(job["finished_ms"] for job in jobs)
        for device in fleet.devices:
            wait_for(f"the step log of {device}", lambda device=device: switches(fleet, device, rollout), 20)
            assert switches(fleet, device, rollout) == 1


def switches(fleet: LocalFleet, device: str, rollout: str) -> int:
    """How often a device's step log says it switched for this rollout."""
    with fleet.client() as client:
        return sum((event["rollout"], event["detail"]) == (rollout, "switching") for event in client.events(device))


def test_service_killed_mid_rollout(fleet: LocalFleet, releases: Releases) -> None:
    version = releases.new()
    rollout = roll_out_at_once(fleet, version, stages=ONE_THEN_ALL)
    wait_for_state(fleet, rollout, "soaking")
    assert fleet.service is not None
    fleet.service.kill()
    fleet.start_service()
    wait_for_state(fleet, rollout, "done")
    wait_until_serving(fleet, version)
    require_told_once(fleet, rollout)


def test_broker_killed_mid_rollout_with_its_memory_deleted(fleet: LocalFleet, releases: Releases) -> None:
    version = releases.new()
    rollout = roll_out_at_once(fleet, version, stages=ONE_THEN_ALL)
    wait_for_state(fleet, rollout, "soaking")
    os.kill(broker_pid(fleet), signal.SIGKILL)
    for file in (fleet.service_home / "broker").rglob("*.db*"):
        file.unlink()
    wait_for_state(fleet, rollout, "done")
    wait_until_serving(fleet, version)
    require_told_once(fleet, rollout)


@pytest.mark.parametrize("state", ["fetching", "probation"])
def test_daemon_killed_during_an_update(fleet: LocalFleet, releases: Releases, state: str) -> None:
    version = releases.new()
    device = fleet.devices["alpha"]
    rollout = roll_out_at_once(fleet, version, labels={"name": "alpha"})
    wait_for(f"alpha {state}", lambda: update_state(fleet, "alpha", version) == state or None, 30, every_s=0.02)
    device.kill()
    device.start()
    wait_for_state(fleet, rollout, "done")
    assert fleet.serving("alpha") == version


def test_a_device_that_was_away_converges_when_it_is_back(fleet: LocalFleet, releases: Releases) -> None:
    device = fleet.devices["beta"]
    device.stop()
    version = releases.new()
    rollout = roll_out_at_once(fleet, version)
    wait_for("alpha is updated", lambda: fleet.serving("alpha") == version, 60)
    with fleet.client() as client:
        assert client.rollout(rollout)["state"] == "updating"
    device.start()
    wait_for_state(fleet, rollout, "done")
    wait_until_serving(fleet, version)


def test_tampered_payload_is_refused_and_the_old_version_goes_on(fleet: LocalFleet, releases: Releases) -> None:
    """One byte of the model's blob is flipped in the service's own store, after it was published."""
    before = fleet.serving("alpha")
    version = releases.new(model__options__width="12")
    model = next((fleet.out / MODEL / version).rglob("model.*"))
    blob = blob_of(fleet, model)
    raw = bytearray(blob.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    blob.chmod(0o600)
    blob.write_bytes(raw)

    rollout = roll_out_at_once(fleet, version)
    ended = wait_for_state(fleet, rollout, "rolled_back")
    assert "failed_updates" in ended["reason"]
    assert {job["error_code"] for job in ended["jobs"]} <= {"trust.digest_mismatch", ""}
    assert any(job["error_code"] == "trust.digest_mismatch" for job in ended["jobs"])
    wait_until_serving(fleet, str(before))
    images, _ = held_out_digits()
    client = DigitsClient(fleet.devices["alpha"].port)
    assert client.infer(images[:1]).shape == (1, 10)
    client.close()


def update_state(fleet: LocalFleet, device: str, version: str) -> str | None:
    """Where a device says its update to this version stands."""
    with fleet.client() as client:
        wanted = {wanted["model"]: wanted["version"] for wanted in client.device(device)["wanted"]}
        if wanted.get(MODEL) != version:
            return None
        return next((str(entry["state"]) for entry in client.device(device)["models"] if entry["model"] == MODEL), None)


def broker_pid(fleet: LocalFleet) -> int:
    """The mosquitto that this fleet's service started."""
    assert fleet.service is not None
    children = Path(f"/proc/{fleet.service.pid}/task/{fleet.service.pid}/children").read_text().split()
    for child in map(int, children):
        if b"mosquitto" in Path(f"/proc/{child}/cmdline").read_bytes():
            return child
    raise AssertionError("the service has no mosquitto")


def blob_of(fleet: LocalFleet, file: Path) -> Path:
    """Where the service keeps the content of a file."""
    from hashlib import sha256

    digest = sha256(file.read_bytes()).hexdigest()
    return next(path for path in (fleet.service_home / "blobs").rglob("*") if path.is_file() and digest in path.name)
