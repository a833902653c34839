"""What devices said, as the API shows it."""

from httpx import Client

from fleet.services import Services
from fleet.store.alerts import AlertRepository, new_alert
from fleet.store.telemetry import TelemetryRepository
from runtime.contract.deployment import Outcome
from runtime.contract.telemetry import Event
from tests.fleet.peers import Behaviour, Clock, Devices
from tests.fleet.rollouts import start_rollout


def serve(services: Services, devices: Devices, clock: Clock, windows: int) -> None:
    devices.enrol("gw-1")
    devices.publish("digits", "1.0.0")
    start_rollout(services, "1.0.0", want_now=True)
    devices.converge()
    for _ in range(windows):
        devices.serve("digits", Behaviour(rows=50, errors=0.1))
        clock.pass_s(60)


def test_windows_from_the_newest_on(api: Client, services: Services, devices: Devices, clock: Clock) -> None:
    serve(services, devices, clock, 5)
    first = api.get("/api/v1/devices/gw-1/windows", params={"limit": 3}).json()
    second = api.get("/api/v1/devices/gw-1/windows", params={"limit": 3, "cursor": first["next"]}).json()
    seqs = [window["seq"] for window in first["items"] + second["items"]]
    assert seqs == sorted(seqs, reverse=True)
    assert (len(seqs), second["next"]) == (5, None)
    assert first["items"][0] | {"requests": 50, "errors": 5, "version": "1.0.0", "clock_synced": True} == first["items"][0]
    assert api.get("/api/v1/devices/gw-1/windows", params={"model": "pumps"}).json()["items"] == []


def test_events_of_a_device_and_alerts_of_the_fleet(api: Client, services: Services, devices: Devices) -> None:
    devices.enrol("gw-1")
    refusal = Event(device="gw-1", boot=1, seq=1, at_ms=5, clock_synced=True, kind="update.refused", code="trust.digest_mismatch")
    with services.database.write() as session:
        TelemetryRepository(session).add_events([refusal], 10)
        alerts = AlertRepository(session)
        alerts.open(new_alert("drift", "drift:gw-1:digits", "drift on gw-1", {"streams": ["contrast"]}, 5, device="gw-1"))
        alerts.open(new_alert("rollout", "rollout:digits", "stopped", {}, 6))
        alerts.close("rollout:digits", 7)
    (event,) = api.get("/api/v1/devices/gw-1/events").json()["items"]
    assert (event["kind"], event["code"], event["source"]) == ("update.refused", "trust.digest_mismatch", "device")
    everything = api.get("/api/v1/alerts").json()["items"]
    assert [(alert["kind"], alert["closed_ms"]) for alert in everything] == [("rollout", 7), ("drift", None)]
    assert [alert["kind"] for alert in api.get("/api/v1/alerts", params={"open": True}).json()["items"]] == ["drift"]


def test_a_device_says_what_is_wrong_with_it(api: Client, services: Services, devices: Devices, clock: Clock) -> None:
    devices.enrol("gw-1")
    devices.played["gw-1"].refuses.add("1.0.0")
    devices.publish("digits", "1.0.0")
    start_rollout(services, "1.0.0", want_now=True)
    devices.converge()
    shown = api.get("/api/v1/devices/gw-1").json()
    assert shown["health"] == {
        "level": "attention",
        "reasons": ["the newest update of digits failed: update.self_test_failed"],
    }
    assert (shown["models"][0]["outcome"], shown["models"][0]["version"]) == (Outcome.REFUSED, None)
    assert shown["applied_generation"] == shown["generation"]
