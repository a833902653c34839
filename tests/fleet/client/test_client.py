"""Does the client send what the API expects, repeat only what may be repeated, and turn problems into one exception?

The peer is a small real HTTP server that records requests and plays scripted answers.
"""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fleet.client import ApiError, Client, UnreachableError
from fleet.client import transport as transport_module


class Peer:
    """Answers are scripted per (method, path); a list is played one by one, its last entry stays."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[tuple[int, str, bytes]]] = {}
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        peer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                peer.seen.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                script = peer.answers.get((self.command, self.path.removeprefix("/api/v1")), [(404, "", b"")])
                status, kind, content = script.pop(0) if len(script) > 1 else script[0]
                self.send_response(status)
                self.send_header("content-type", kind or "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = answer  # noqa: N815

            def log_message(self, format: str, *args: object) -> None:
                """Keep the test's output to the test."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def on(self, method: str, path: str, *answers: Any, status: int = 200, kind: str = "application/json") -> None:
        script = self.answers.setdefault((method, path), [])
        for answer in answers or (b"",):
            if isinstance(answer, tuple):
                script.append(answer)
            else:
                script.append((status, kind, answer if isinstance(answer, bytes) else json.dumps(answer).encode()))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


BUSY = (503, "", b"")


def problem(status: int, code: str, detail: str) -> tuple[int, str, bytes]:
    body = {"type": "about:blank", "title": "t", "status": status, "code": code, "detail": detail}
    return status, "application/problem+json", json.dumps(body).encode()


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    monkeypatch.setattr(transport_module, "FIRST_PAUSE_S", 0.001)
    made = Peer()
    yield made
    made.close()


@pytest.fixture
def client(peer: Peer) -> Iterator[Client]:
    with Client(peer.url, "secret") as made:
        yield made


def test_token_and_prefix_go_with_every_call(peer: Peer, client: Client) -> None:
    peer.on("GET", "/health", {"status": "ok"})
    assert client.health() == {"status": "ok"}
    method, path, headers, _ = peer.seen[0]
    assert (method, path, headers["authorization"]) == ("GET", "/api/v1/health", "Bearer secret")


def test_a_problem_document_becomes_one_exception(peer: Peer, client: Client) -> None:
    peer.on("GET", "/rollouts/r1", problem(404, "rollout.unknown", "no rollout r1"))
    with pytest.raises(ApiError) as caught:
        client.rollout("r1")
    assert (caught.value.status, caught.value.code, caught.value.detail) == (404, "rollout.unknown", "no rollout r1")


@pytest.mark.parametrize("content", [b"not json", b"[1]"])
def test_a_broken_problem_document_still_carries_the_status(peer: Peer, client: Client, content: bytes) -> None:
    peer.on("GET", "/health", (500, "application/problem+json", content))
    with pytest.raises(ApiError) as caught:
        client.health()
    assert (caught.value.status, caught.value.code) == (500, "http.500")


@pytest.mark.parametrize("content", [b"<html>", b"[1]"])
def test_an_answer_that_is_no_object_is_refused(peer: Peer, client: Client, content: bytes) -> None:
    peer.on("GET", "/health", (200, "text/html", content))
    with pytest.raises(ApiError, match=r"api\.bad_answer"):
        client.health()


def test_a_get_survives_a_restart_of_the_service(peer: Peer, client: Client) -> None:
    peer.on("GET", "/devices/pi", BUSY, BUSY, {"id": "pi"})
    assert client.device("pi") == {"id": "pi"}
    assert len(peer.seen) == 3


def test_a_failing_health_is_an_answer_asked_for_once(peer: Peer, client: Client) -> None:
    peer.on("GET", "/health", {"status": "failing", "parts": {"broker": "down"}}, status=503)
    assert client.health()["parts"] == {"broker": "down"}
    assert len(peer.seen) == 1


def test_an_action_is_sent_once(peer: Peer, client: Client) -> None:
    peer.on("POST", "/rollouts/r1/start", BUSY, {"id": "r1"})
    with pytest.raises(ApiError):
        client.act("r1", "start")
    assert len(peer.seen) == 1


def test_a_create_is_repeated_under_one_idempotency_key(peer: Peer, client: Client) -> None:
    peer.on("POST", "/rollouts", BUSY, {"id": "r1"})
    assert client.create_rollout({"model": "digits"})["id"] == "r1"
    keys = {headers["idempotency-key"] for _, _, headers, _ in peer.seen}
    assert len(peer.seen) == 2
    assert len(keys) == 1


def test_nobody_there_is_an_error_of_its_own(peer: Peer, client: Client) -> None:
    peer.close()
    with pytest.raises(UnreachableError) as caught:
        client.health()
    assert caught.value.code == "api.unreachable"


def test_an_address_without_a_scheme_is_refused_at_once() -> None:
    with pytest.raises(ApiError, match=r"api\.bad_url"):
        Client("localhost:8080")


def test_metadata_comes_back_byte_for_byte_or_as_none(peer: Peer, client: Client) -> None:
    raw = b'{ "signed" : {} }\n'
    peer.on("GET", "/trust/metadata/targets", raw)
    peer.on("GET", "/trust/metadata/model-x", problem(404, "trust.unknown_role", "none yet"))
    assert client.metadata("targets") == raw
    assert client.metadata("model-x") is None


def test_a_server_that_is_no_fleet_is_not_taken_for_an_empty_one(client: Client) -> None:
    with pytest.raises(ApiError, match=r"http\.404"):
        client.metadata("root")


def test_a_blob_is_streamed_whole_again_after_a_failure(peer: Peer, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(bytes(range(256)) * 9000)
    peer.on("PUT", "/blobs/" + "ab" * 32, BUSY, (201, "", b""))
    client.put_blob("ab" * 32, file)
    assert [body for *_, body in peer.seen] == [file.read_bytes()] * 2


def test_has_blob_tells_missing_from_forbidden(peer: Peer, client: Client) -> None:
    peer.on("HEAD", "/blobs/aa", b"")
    peer.on("HEAD", "/blobs/cc", status=403)
    assert client.has_blob("aa")
    assert not client.has_blob("bb")
    with pytest.raises(ApiError, match=r"http\.403"):
        client.has_blob("cc")


def test_a_release_carries_signed_bytes_as_base64(peer: Peer, client: Client) -> None:
    peer.on("POST", "/releases", {"version": "1.0.0"}, status=201)
    client.create_release("digits", "1.0.0", {"model-digits": b"\x00\xff"}, {"digits/1.0.0/x/manifest.json": b"{}\n"})
    body = json.loads(peer.seen[0][3])
    assert base64.b64decode(body["metadata"]["model-digits"]) == b"\x00\xff"
    assert base64.b64decode(body["documents"]["digits/1.0.0/x/manifest.json"]) == b"{}\n"


def test_a_listing_runs_over_all_pages(peer: Peer, client: Client) -> None:
    peer.on("GET", "/devices?limit=100", {"items": [{"id": "a"}, {"id": "b"}], "next": "b"})
    peer.on("GET", "/devices?limit=100&cursor=b", {"items": [{"id": "c"}], "next": None})
    assert [device["id"] for device in client.devices()] == ["a", "b", "c"]


def test_events_of_the_stream_come_one_by_one(peer: Peer, client: Client) -> None:
    text = b': hello\n\nevent: change\ndata: {"kind": "rollout",\ndata: "id": "r1"}\n\ndata: {"kind": "device", "id": "d"}\n\n'
    peer.on("GET", "/stream", (200, "text/event-stream", text))
    assert list(client.stream()) == [{"kind": "rollout", "id": "r1"}, {"kind": "device", "id": "d"}]


def test_a_refused_stream_says_why(peer: Peer, client: Client) -> None:
    peer.on("GET", "/stream", problem(401, "auth.required", "no token"))
    with pytest.raises(ApiError, match=r"auth\.required"):
        next(client.stream())
