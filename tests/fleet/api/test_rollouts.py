"""Rollouts over the API: from creation to done, and every way one is refused."""

import pytest
from httpx import Client, Response

from fleet.scheduler import Scheduler
from runtime.contract.deployment import DeviceProfile
from tests.fleet.peers import Behaviour, Clock, Devices

STAGES = [{"count": 1, "soak_s": 10}, {"percent": 50, "soak_s": 10}, {"percent": 100, "soak_s": 10}]
GATES = ["failed_updates", "error_share", "latency", "class_mix", "confidence"]


def create(api: Client, **changes: object) -> Response:
    body = {"model": "digits", "version": "1.0.0", "stages": STAGES, **changes}
    return api.post("/api/v1/rollouts", json={key: value for key, value in body.items() if value is not None})


def refused(response: Response, status: int, code: str) -> str:
    """Check a problem document; returns its text for people."""
    problem = response.json()
    assert (response.status_code, problem["code"], problem["status"]) == (status, code, status), response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["type"].endswith(code)
    return str(problem["detail"])


@pytest.fixture
def fleet(devices: Devices) -> Devices:
    devices.enrol("gw-1", "gw-2", "gw-3", "gw-4", labels={"site": "lab"})
    devices.publish("digits", "1.0.0")
    return devices


def run_stage(scheduler: Scheduler, devices: Devices, clock: Clock) -> None:
    """Dispatch, let every device converge and serve, and let the soak pass."""
    scheduler.run_once()
    devices.converge()
    scheduler.run_once()
    clock.pass_s(5)
    devices.serve("digits", Behaviour(), *[name for name, one in devices.played.items() if "digits" in one.serving])
    clock.pass_s(6)
    scheduler.run_once()


def test_a_release_reaches_every_device_in_stages(api: Client, fleet: Devices, scheduler: Scheduler, clock: Clock) -> None:
    created = create(api)
    assert created.status_code == 201, created.text
    rollout = created.json()["id"]
    assert created.headers["location"] == f"/api/v1/rollouts/{rollout}"
    assert created.json()["state"] == "created"
    assert api.post(f"/api/v1/rollouts/{rollout}/start").json()["state"] == "updating"
    reached = []
    for _ in STAGES:
        run_stage(scheduler, fleet, clock)
        reached.append(sum("digits" in device.serving for device in fleet.played.values()))
    assert reached == [1, 2, 4]
    found = api.get(f"/api/v1/rollouts/{rollout}").json()
    assert found["state"] == "done"
    assert {job["state"] for job in found["jobs"]} == {"succeeded"}
    assert [verdict["gate"] for verdict in found["verdicts"]] == GATES
    assert {verdict["decision"] for verdict in found["verdicts"]} == {"pass"}
    history = api.get(f"/api/v1/rollouts/{rollout}/verdicts").json()
    assert len({verdict["evaluation"] for verdict in history}) > 3
    shown = api.get("/api/v1/devices/gw-1").json()
    assert (shown["models"][0]["version"], shown["wanted"][0]["version"]) == ("1.0.0", "1.0.0")


class TestRefusals:
    def test_no_device_matches(self, api: Client, fleet: Devices) -> None:
        assert "site = roof" in refused(create(api, labels={"site": "roof"}), 422, "rollout.no_device")

    def test_an_empty_fleet(self, api: Client, devices: Devices) -> None:
        devices.publish("digits", "1.0.0")
        assert "empty" in refused(create(api), 422, "rollout.no_device")

    def test_a_device_has_no_artifact(self, api: Client, fleet: Devices) -> None:
        fleet.enrol("pi-1", report=False)
        fleet.played["pi-1"].profile = DeviceProfile(profiles=("pi5",), arch="aarch64", engines={})
        fleet.report("pi-1")
        assert "pi-1" in refused(create(api), 422, "rollout.no_artifact")
        assert create(api, skip_missing=True).status_code == 201

    def test_an_unknown_release(self, api: Client, fleet: Devices) -> None:
        refused(create(api, version="9.9.9"), 404, "release.unknown")

    def test_an_unknown_rollout(self, api: Client) -> None:
        refused(api.get("/api/v1/rollouts/r-none"), 404, "rollout.unknown")
        refused(api.post("/api/v1/rollouts/r-none/start"), 404, "rollout.unknown")

    def test_an_action_that_does_not_exist(self, api: Client) -> None:
        assert "action" in refused(api.post("/api/v1/rollouts/r-none/explode"), 422, "request.invalid")

    @pytest.mark.parametrize(
        ("changes", "code", "word"),
        [
            ({"stages": []}, "request.invalid", "stages"),
            ({"stages": [{"percent": 101}]}, "request.invalid", "percent"),
            ({"stages": [{"percent": 10, "count": 3}]}, "rollout.bad_plan", "stage 1"),
            ({"stages": [{}]}, "rollout.bad_plan", "stage 1"),
            ({"stages": [{"percent": 50}, {"percent": 10}]}, "rollout.bad_plan", "stage 2"),
            ({"gates": {"min_row": 5}}, "request.invalid", "min_row"),
            ({"gates": {"max_error_ratio": 2}}, "request.invalid", "max_error_ratio"),
            ({"on_failure": "explode"}, "rollout.bad_plan", "on_failure"),
            ({"concurrency": 0}, "request.invalid", "concurrency"),
            ({"lables": {"site": "lab"}}, "request.invalid", "lables"),
            ({"labels": {"bad label": "x"}}, "rollout.bad_plan", "labels"),
            ({"version": "one"}, "rollout.bad_plan", "version"),
            ({"model": None}, "request.invalid", "model"),
        ],
    )
    def test_a_body_that_breaks_a_rule(self, api: Client, changes: dict[str, object], code: str, word: str) -> None:
        assert word in refused(create(api, **changes), 422, code)

    @pytest.mark.parametrize("content", [b"{", b"[]", b"null", b"\xff\xfe", b'{"model": 1}'])
    def test_a_body_that_is_no_rollout(self, api: Client, content: bytes) -> None:
        answer = api.post("/api/v1/rollouts", content=content, headers={"content-type": "application/json"})
        refused(answer, 422, "request.invalid")

    def test_what_the_state_does_not_allow(self, api: Client, fleet: Devices) -> None:
        rollout = create(api).json()["id"]
        assert "created" in refused(api.post(f"/api/v1/rollouts/{rollout}/approve"), 409, "rollout.bad_state")
        api.post(f"/api/v1/rollouts/{rollout}/start")
        refused(api.post(f"/api/v1/rollouts/{rollout}/start"), 409, "rollout.bad_state")

    def test_a_rival_has_the_devices(self, api: Client, fleet: Devices) -> None:
        first, second = create(api).json()["id"], create(api).json()["id"]
        api.post(f"/api/v1/rollouts/{first}/start")
        assert first in refused(api.post(f"/api/v1/rollouts/{second}/start"), 409, "rollout.model_busy")

    def test_the_devices_left_between_creation_and_start(self, api: Client, fleet: Devices) -> None:
        rollout = create(api).json()["id"]
        for name in fleet.played:
            assert api.delete(f"/api/v1/devices/{name}").status_code == 204
        refused(api.post(f"/api/v1/rollouts/{rollout}/start"), 422, "rollout.no_device")
        assert api.get(f"/api/v1/rollouts/{rollout}").json()["state"] == "created"


class TestIdempotency:
    def post(self, api: Client, key: str, **changes: object) -> Response:
        body = {"model": "digits", "version": "1.0.0", "stages": STAGES, **changes}
        return api.post("/api/v1/rollouts", json=body, headers={"idempotency-key": key})

    def test_the_same_key_and_body_give_the_same_rollout(self, api: Client, fleet: Devices) -> None:
        first, again, other = self.post(api, "k1"), self.post(api, "k1"), self.post(api, "k2")
        assert (first.status_code, again.status_code) == (201, 200)
        assert first.json()["id"] == again.json()["id"] != other.json()["id"]
        assert len(api.get("/api/v1/rollouts").json()["items"]) == 2

    def test_the_same_key_with_another_body_is_refused(self, api: Client, fleet: Devices) -> None:
        self.post(api, "k1")
        refused(self.post(api, "k1", labels={"site": "lab"}), 409, "request.idempotency_clash")


def test_pause_resume_and_roll_back(api: Client, fleet: Devices, scheduler: Scheduler) -> None:
    rollout = create(api).json()["id"]
    states = [
        api.post(f"/api/v1/rollouts/{rollout}/{action}").json()["state"] for action in ("start", "pause", "resume", "rollback")
    ]
    assert states == ["updating", "paused", "updating", "rolling_back"]
    scheduler.run_once()
    assert api.get(f"/api/v1/rollouts/{rollout}").json()["state"] == "rolled_back"


def test_listing_pages_from_the_newest_on(api: Client, fleet: Devices, clock: Clock) -> None:
    made = []
    for _ in range(5):
        made.append(create(api).json()["id"])
        clock.pass_s(1)
    seen, cursor = [], None
    while True:
        page = api.get("/api/v1/rollouts", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == made[::-1]
