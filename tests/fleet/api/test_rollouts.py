"""A rollout over the API: from creation to done, and every way it is refused."""

from httpx import Client

from fleet.scheduler import Scheduler
from tests.fleet.peers import Behaviour, Clock, Devices

STAGES = [{"count": 1, "soak_s": 10}, {"percent": 50, "soak_s": 10}, {"percent": 100, "soak_s": 10}]


def run_stage(scheduler: Scheduler, devices: Devices, clock: Clock, behaviour: Behaviour | None = None) -> None:
    """Dispatch, let every device converge and serve, and let the soak pass."""
    scheduler.run_once()
    devices.converge()
    scheduler.run_once()
    clock.pass_s(5)
    devices.serve("digits", behaviour or Behaviour(), *[name for name, one in devices.played.items() if "digits" in one.serving])
    clock.pass_s(6)
    scheduler.run_once()


def test_a_release_reaches_every_device_in_stages(api: Client, devices: Devices, scheduler: Scheduler, clock: Clock) -> None:
    devices.enrol("gw-1", "gw-2", "gw-3", "gw-4")
    devices.publish("digits", "1.0.0")
    created = api.post("/api/v1/rollouts", json={"model": "digits", "version": "1.0.0", "stages": STAGES})
    assert created.status_code == 201, created.text
    rollout = created.json()["id"]
    assert created.json()["state"] == "created"
    assert api.post(f"/api/v1/rollouts/{rollout}/start").json()["state"] == "updating"
    reached = []
    for _ in STAGES:
        run_stage(scheduler, devices, clock)
        reached.append(sum("digits" in device.serving for device in devices.played.values()))
    assert reached == [1, 2, 4]
    found = api.get(f"/api/v1/rollouts/{rollout}").json()
    assert found["state"] == "done"
    assert {job["state"] for job in found["jobs"]} == {"succeeded"}
    assert [verdict["gate"] for verdict in found["verdicts"]] == [
        "failed_updates", "error_share", "latency", "class_mix", "confidence",
    ]  # fmt: skip
