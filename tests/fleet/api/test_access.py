"""Who may do what, what is remembered of it, and what an unwelcome request is told."""

import hashlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from httpx import Client
from sqlalchemy import select

from fleet.services import ADMIN_TOKEN, Services
from fleet.store.tables import ApiToken, Enrolment
from tests.fleet.api.test_rollouts import refused
from tests.fleet.peers import Clock, Devices

READS = [
    "/devices",
    "/devices/gw-1",
    "/devices/gw-1/windows",
    "/devices/gw-1/events",
    "/devices/gw-1/drift",
    "/rollouts",
    "/alerts",
]


def as_role(api: Client, role: str) -> Client:
    token = api.post("/api/v1/tokens", json={"name": f"some {role}", "role": role}).json()["token"]
    return Client(base_url=api.base_url, headers={"authorization": f"Bearer {token}"})


class TestCredentials:
    @pytest.mark.parametrize("header", [None, "Bearer nonsense", "Bearer", "Basic YTpi", "ew_x"])
    def test_without_a_good_token_nothing_is_told(self, api: Client, header: str | None) -> None:
        with Client(base_url=api.base_url, headers={"authorization": header} if header else {}) as stranger:
            for path in (*READS, "/audit", "/tokens", "/stream"):
                answer = stranger.get(f"/api/v1{path}")
                refused(answer, 401, "auth.unauthenticated")
                assert answer.headers["www-authenticate"] == "Bearer"
            assert stranger.get("/api/v1/health").status_code == 200

    def test_a_token_ends_when_it_expires_or_is_revoked(self, api: Client, clock: Clock) -> None:
        made = api.post("/api/v1/tokens", json={"name": "ci", "role": "viewer", "ttl_s": 60}).json()
        with Client(base_url=api.base_url, headers={"authorization": f"Bearer {made['token']}"}) as ci:
            assert ci.get("/api/v1/devices").status_code == 200
            clock.pass_s(59)
            assert ci.get("/api/v1/devices").status_code == 200
            clock.pass_s(1)
            refused(ci.get("/api/v1/devices"), 401, "auth.unauthenticated")
        with as_role(api, "viewer") as viewer:
            assert api.delete("/api/v1/tokens/some viewer").status_code == 204
            refused(viewer.get("/api/v1/devices"), 401, "auth.unauthenticated")
        refused(api.delete("/api/v1/tokens/nobody"), 404, "resource.unknown")

    def test_only_digests_are_stored(self, api: Client, services: Services) -> None:
        token = api.post("/api/v1/tokens", json={"name": "ann", "role": "admin"}).json()["token"]
        enrolment = api.post("/api/v1/enrolments", json={}).json()["token"]
        with services.database.read() as session:
            stored = session.scalars(select(ApiToken.token_sha256)).all()
            assert hashlib.sha256(token.encode()).hexdigest() in stored
            assert session.scalars(select(Enrolment.secret_sha256)).all()
        kept = (services.config.home / "fleet.db").read_bytes() + (services.config.home / "fleet.db-wal").read_bytes()
        assert token.encode() not in kept
        assert enrolment.encode() not in kept

    def test_the_admins_token_is_for_its_owner_only(self, services: Services) -> None:
        assert (services.config.home / ADMIN_TOKEN).stat().st_mode & 0o077 == 0

    def test_a_name_is_given_once(self, api: Client) -> None:
        refused(api.post("/api/v1/tokens", json={"name": "admin", "role": "viewer"}), 409, "request.conflict")


class TestRoles:
    def test_a_viewer_reads_and_changes_nothing(self, api: Client, devices: Devices) -> None:
        devices.enrol("gw-1")
        with as_role(api, "viewer") as viewer:
            for path in READS:
                assert viewer.get(f"/api/v1{path}").status_code == 200
            for path in ("/enrolments", "/rollouts/r-1/start", "/tokens"):
                refused(
                    viewer.post(f"/api/v1{path}", json={"name": "x", "role": "admin"} if path == "/tokens" else {}),
                    403,
                    "auth.forbidden",
                )
            refused(viewer.get("/api/v1/audit"), 403, "auth.forbidden")
            refused(viewer.delete("/api/v1/devices/gw-1"), 403, "auth.forbidden")

    def test_an_operator_lets_devices_in_but_bars_none(self, api: Client, devices: Devices) -> None:
        devices.enrol("gw-1")
        with as_role(api, "operator") as operator:
            assert operator.post("/api/v1/enrolments", json={"labels": {"site": "lab"}}).status_code == 201
            refused(operator.delete("/api/v1/devices/gw-1"), 403, "auth.forbidden")
            refused(operator.post("/api/v1/tokens", json={"name": "x", "role": "viewer"}), 403, "auth.forbidden")


def test_every_change_is_in_the_audit_log_with_its_author(api: Client, devices: Devices) -> None:
    devices.enrol("gw-1")
    devices.publish("digits", "1.0.0")
    with as_role(api, "operator") as operator:
        operator.post("/api/v1/enrolments", json={"device": "gw-2"})
        rollout = operator.post("/api/v1/rollouts", json={"model": "digits", "version": "1.0.0"}).json()["id"]
        operator.post(f"/api/v1/rollouts/{rollout}/start")
    api.delete("/api/v1/devices/gw-1")
    entries = api.get("/api/v1/audit").json()["items"]
    assert [(entry["action"], entry["actor"]) for entry in entries] == [
        ("device.revoke", "admin"),
        ("rollout.start", "some operator"),
        ("rollout.create", "some operator"),
        ("enrolment.create", "some operator"),
        ("token.create", "admin"),
        ("fleet.init", "fleet init"),
    ]
    assert "token" not in json.dumps([entry["detail"] for entry in entries])


class TestDevices:
    @pytest.mark.parametrize("name", ["nobody", "GW-1", "a" * 60, "%2e%2e", "x y"])
    def test_an_unknown_device(self, api: Client, name: str) -> None:
        for path in ("", "/windows", "/events", "/drift"):
            refused(api.get(f"/api/v1/devices/{name}{path}"), 404, "device.unknown")
        refused(api.delete(f"/api/v1/devices/{name}"), 404, "device.unknown")

    def test_listing_pages_by_id(self, api: Client, devices: Devices) -> None:
        names = [f"gw-{n}" for n in range(7)]
        devices.enrol(*names, report=False)
        seen, cursor = [], ""
        while cursor is not None:
            page = api.get("/api/v1/devices", params={"limit": 3, "cursor": cursor}).json()
            seen += [item["id"] for item in page["items"]]
            cursor = page["next"]
        assert seen == names

    @pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "cursor=x"])
    def test_a_page_that_cannot_be(self, api: Client, devices: Devices, query: str) -> None:
        devices.enrol("gw-1")
        refused(api.get(f"/api/v1/devices/gw-1/windows?{query}"), 422, "request.invalid")

    def test_an_enrolment_token_says_where_and_whom_to_trust(self, api: Client, services: Services) -> None:
        import base64

        token = api.post("/api/v1/enrolments", json={"ttl_s": 600}).json()["token"]
        content = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        assert sorted(content) == ["ca_sha256", "root_sha256", "secret", "url"]
        assert content["url"] == "https://127.0.0.1:8443"
        assert content["ca_sha256"] == services.authority.sha256

    @pytest.mark.parametrize(
        "body", [{"ttl_s": 1}, {"ttl_s": 10**9}, {"device": "Not An Id"}, {"label": {}}, {"labels": {"a": 1}}]
    )
    def test_an_enrolment_that_breaks_a_rule(self, api: Client, body: dict[str, object]) -> None:
        refused(api.post("/api/v1/enrolments", json=body), 422, "request.invalid")


class TestLimits:
    def test_a_body_over_the_limit(self, api: Client, services: Services) -> None:
        limit = services.config.limits.body_bytes
        refused(api.post("/api/v1/rollouts", content=b" " * (limit + 1)), 413, "contract.too_large")

    def test_a_body_over_the_limit_that_does_not_say_so(self, api: Client, services: Services) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(services.config.limits.body_bytes // 1000 + 1):
                yield b" " * 1000

        refused(api.post("/api/v1/rollouts", content=chunks()), 413, "contract.too_large")

    @pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("PUT", "/rollouts", 405)])
    def test_what_the_framework_refuses_is_a_problem_document_too(self, api: Client, method: str, path: str, status: int) -> None:
        refused(api.request(method, f"/api/v1{path}"), status, f"http.{status}")


def test_health_names_the_part_that_fails(api: Client, services: Services) -> None:
    assert api.get("/api/v1/health").json() == {"status": "ok", "fleet": "edge", "parts": {"database": "ok"}}
    services.hooks.states["broker"] = lambda: "mosquitto ended with status 1"
    failing = api.get("/api/v1/health")
    assert failing.status_code == 503
    assert failing.json()["parts"]["broker"] == "mosquitto ended with status 1"


class TestStream:
    def test_changes_arrive_and_the_stream_ends_with_the_service(self, api: Client, services: Services) -> None:
        with api.stream("GET", "/api/v1/stream") as answer:
            lines = answer.iter_lines()
            assert next(lines) == ": listening"
            threading.Thread(target=services.changes.publish, args=("rollout", "r-1")).start()
            found = [line for line in (next(lines) for _ in range(3)) if line.startswith("data:")]
            assert json.loads(found[0][5:]) == {"kind": "rollout", "id": "r-1"}
            services.changes.close()
            assert [line for line in lines if line] == []

    def test_more_streams_than_allowed_are_turned_away(self, api: Client, services: Services, tmp_path: Path) -> None:
        limit = services.config.limits.stream_clients
        address = (api.base_url.host, api.base_url.port)
        request = f"GET /api/v1/stream HTTP/1.1\r\nhost: x\r\nauthorization: {api.headers['authorization']}\r\n\r\n".encode()
        streams = [socket.create_connection(address) for _ in range(limit)]
        try:
            for stream in streams:
                stream.sendall(request)
            for stream in streams:
                assert stream.recv(65536).startswith(b"HTTP/1.1 200")
            refused(httpx.get(api.base_url.join("/api/v1/stream"), headers=api.headers), 503, "service.busy")
        finally:
            for stream in streams:
                stream.close()


def test_the_description_of_the_api_is_served_without_outside_help(api: Client) -> None:
    paths = api.get("/api/v1/openapi.json").json()["paths"]
    assert {"/api/v1/devices/{device}", "/api/v1/rollouts", "/api/v1/stream"} <= set(paths)
