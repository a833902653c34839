"""Which calls does the fleet's REST API offer, and what do they take and give?

Answers are JSON objects as the service sent them, typed by `documents`: nothing is copied or dropped, so a field added
later reaches `--json` without a new client. Bytes that are signed travel as base64 inside JSON and come back as bytes here.
"""

import base64
import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

import httpx

from fleet.client.documents import (
    Alert,
    AuditEntry,
    Change,
    Device,
    Drift,
    Event,
    Health,
    NewToken,
    Release,
    ReleaseSummary,
    Rollout,
    RolloutSummary,
    Token,
    TrustUpdate,
    Verdict,
    Window,
)
from fleet.client.errors import ApiError
from fleet.client.transport import TIMEOUT, Transport

Document = dict[str, Any]
Action = Literal["start", "pause", "resume", "rollback", "approve"]

CHUNK_BYTES = 1024 * 1024
PAGE = 100
NO_SUCH_ROLE = "trust.unknown_role"


class Client:
    """The fleet at `url` (scheme, host, port). Blocks; not shared between threads; closes with `with`.

    Every method raises ApiError with the service's stable code, or UnreachableError.
    """

    def __init__(self, url: str, token: str | None = None, timeout: httpx.Timeout = TIMEOUT) -> None:
        self._transport = Transport(url, token, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._transport.close()

    @property
    def url(self) -> str:
        return self._transport.url

    # trust and releases

    def service_keys(self) -> dict[str, str]:
        """The service's public keys (32 raw bytes, hexadecimal) by role: snapshot, timestamp, director."""
        return {role: str(key) for role, key in self._get("/trust/service").items()}

    def metadata(self, role: str) -> bytes | None:
        """The newest metadata of root, targets or model-NAME exactly as stored; None while there is none."""
        try:
            return self._transport.call("GET", f"/trust/metadata/{role}").content
        except ApiError as error:
            if error.code == NO_SUCH_ROLE:  # any other 404 comes from something that is no fleet
                return None
            raise

    def authorize(self, metadata: Mapping[str, bytes], documents: Mapping[str, bytes]) -> TrustUpdate:
        """Bring in a new root and targets (first authorisation, or a rotation) with the documents they list."""
        return cast(TrustUpdate, self._post("/trust", {"metadata": _base64(metadata), "documents": _base64(documents)}))

    def has_blob(self, sha256: str) -> bool:
        try:
            self._transport.call("HEAD", f"/blobs/{sha256}")
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True

    def put_blob(self, sha256: str, file: Path) -> None:
        """Upload a file's content under its digest, streamed. The service checks the digest; sending it twice is no error."""
        headers = {"content-type": "application/octet-stream", "content-length": str(file.stat().st_size)}
        self._transport.call("PUT", f"/blobs/{sha256}", headers=headers, body=lambda: _chunks(file))

    def create_release(self, model: str, version: str, metadata: Mapping[str, bytes], documents: Mapping[str, bytes]) -> Release:
        """Bring in a signed release whose blobs are uploaded. metadata: by role; documents: by TUF target path.

        ApiError codes: release.race (refetch, sign again), release.conflict (other content under this name), release.incomplete.
        """
        body = {"model": model, "version": version, "metadata": _base64(metadata), "documents": _base64(documents)}
        return cast(Release, self._post("/releases", body))

    def releases(self) -> Iterator[ReleaseSummary]:
        """Newest first, as all listings but that of devices are."""
        return cast(Iterator[ReleaseSummary], self._pages("/releases"))

    def release(self, model: str, version: str) -> Release:
        return cast(Release, self._get(f"/releases/{model}/{version}"))

    # devices

    def devices(self) -> Iterator[Device]:
        return cast(Iterator[Device], self._pages("/devices"))

    def device(self, device: str) -> Device:
        return cast(Device, self._get(f"/devices/{device}"))

    def revoke_device(self, device: str) -> None:
        self._transport.call("DELETE", f"/devices/{device}")

    def create_enrolment(self, *, device: str | None = None, labels: Mapping[str, str] | None = None, ttl_s: int = 3600) -> str:
        """A one-time token that lets a device in. device: the only id it may take, or any; ttl_s: seconds it is good for."""
        body: Document = {"labels": dict(labels or {}), "ttl_s": ttl_s}
        if device:
            body["device"] = device
        return str(self._create("/enrolments", body)["token"])

    def windows(self, device: str, *, model: str | None = None) -> Iterator[Window]:
        return cast(Iterator[Window], self._pages(f"/devices/{device}/windows", _given(model=model)))

    def drift(self, device: str) -> Drift:
        return cast(Drift, self._get(f"/devices/{device}/drift"))

    def events(self, device: str) -> Iterator[Event]:
        return cast(Iterator[Event], self._pages(f"/devices/{device}/events"))

    # rollouts

    def create_rollout(self, body: Document, *, key: str | None = None) -> Rollout:
        """Create a rollout, not yet started. body: as in the API; key: makes repeating this very call safe across processes."""
        return cast(Rollout, self._create("/rollouts", body, key))

    def rollouts(self) -> Iterator[RolloutSummary]:
        return cast(Iterator[RolloutSummary], self._pages("/rollouts"))

    def rollout(self, rollout: str) -> Rollout:
        return cast(Rollout, self._get(f"/rollouts/{rollout}"))

    def act(self, rollout: str, action: Action) -> Rollout:
        """Start, pause, resume, roll back or approve. Sent once: whether to repeat it is the caller's decision."""
        return cast(Rollout, self._post(f"/rollouts/{rollout}/{action}", {}))

    def verdicts(self, rollout: str) -> list[Verdict]:
        """What the gates said, newest evaluation first."""
        return cast(list[Verdict], _list(self._transport.call("GET", f"/rollouts/{rollout}/verdicts")))

    # access

    def tokens(self) -> list[Token]:
        """Every API token, without the secret part that only its creation showed."""
        return cast(list[Token], _list(self._transport.call("GET", "/tokens")))

    def create_token(self, name: str, role: str, *, ttl_s: int | None = None) -> NewToken:
        """An API token for a person or a program; shown this once. Sent once: a repeat would find the name taken."""
        return cast(NewToken, self._post("/tokens", {"name": name, "role": role, "ttl_s": ttl_s}))

    def revoke_token(self, name: str) -> None:
        self._transport.call("DELETE", f"/tokens/{name}")

    # watching

    def alerts(self, *, only_open: bool = False) -> Iterator[Alert]:
        return cast(Iterator[Alert], self._pages("/alerts", {"open": "true"} if only_open else None))

    def audit(self) -> Iterator[AuditEntry]:
        return cast(Iterator[AuditEntry], self._pages("/audit"))

    def health(self) -> Health:
        """What each part of the service says of itself; a failing one is an answer here, not an error."""
        return cast(Health, _json(self._transport.call("GET", "/health", answers=frozenset({503}))))

    def stream(self) -> Iterator[Change]:
        """What changes, as it changes: {kind, id}, until the service closes. Blocks between events."""
        with self._transport.open("/stream") as response:
            yield from cast(Iterator[Change], _events(response.iter_lines()))

    def _get(self, path: str) -> Document:
        return _json(self._transport.call("GET", path))

    def _post(self, path: str, body: Document, headers: Mapping[str, str] | None = None) -> Document:
        return _json(self._transport.call("POST", path, json=body, headers=headers))

    def _create(self, path: str, body: Document, key: str | None = None) -> Document:
        return self._post(path, body, {"idempotency-key": key or uuid.uuid4().hex})

    def _pages(self, path: str, params: Mapping[str, str] | None = None) -> Iterator[Document]:
        """Every item of a listing, page after page: {items, next}; `next` is the cursor of the following page, or null."""
        query: dict[str, str | int] = {**(params or {}), "limit": PAGE}
        while True:
            page = _json(self._transport.call("GET", path, params=query))
            yield from page["items"]
            if not page.get("next"):
                return
            query["cursor"] = page["next"]


def _json(response: httpx.Response) -> Document:
    answer = _decoded(response) if response.content else {}
    if not isinstance(answer, dict):
        raise _unexpected(response)
    return answer


def _list(response: httpx.Response) -> list[Document]:
    answer = _decoded(response)
    if not isinstance(answer, list):
        raise _unexpected(response)
    return answer


def _decoded(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise _unexpected(response) from error


def _unexpected(response: httpx.Response) -> ApiError:
    return ApiError(response.status_code, "api.bad_answer", f"{response.url} answered with something else than the API's JSON")


def _base64(parts: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(raw).decode() for name, raw in parts.items()}


def _given(**params: str | None) -> dict[str, str]:
    return {name: value for name, value in params.items() if value is not None}


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk


def _events(lines: Iterator[str]) -> Iterator[Document]:
    """Server-sent events: `data:` lines up to an empty line are one event; comments keep the connection alive.

    Source: WHATWG HTML, 9.2.6 Interpreting an event stream.
    """
    data: list[str] = []
    for line in lines:
        if line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif not line and data:
            yield json.loads("\n".join(data))
            data.clear()
