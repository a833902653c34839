"""How is one call made: which are repeated, how long do they wait, and how does an error come back?

A call is repeated only when repeating it cannot do a thing twice: GET, HEAD and PUT by HTTP's own rule, and a POST that
carries an Idempotency-Key by ours. Everything else is sent once, and its caller decides.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

from fleet.client.errors import ApiError, UnreachableError

API = "/api/v1"
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
ATTEMPTS = 4
FIRST_PAUSE_S = 0.2
"""Pauses double: 0.2 + 0.4 + 0.8 s bridges a restart of the service and stays short at a terminal."""
STREAM_SILENCE_S = 60.0
"""Four of the service's heartbeats: after so long without one the other end is gone."""

_BUSY = {502, 503, 504}
_REPEATABLE = {"GET", "HEAD", "PUT"}

Body = Callable[[], Iterator[bytes]]
"""Opens a streamed request body anew, so that a repeated call sends it from its start."""


class Transport:
    """Calls below `{url}/api/v1`, with a bearer token. Not shared between threads."""

    def __init__(self, url: str, token: str | None, timeout: httpx.Timeout, sleep: Callable[[float], None] = time.sleep) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ApiError(0, "api.bad_url", f"{url!r} is not the address of a fleet; it looks like http://127.0.0.1:8080")
        self.url = url.rstrip("/")
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=self.url + API,
            timeout=timeout,
            headers={"authorization": f"Bearer {token}"} if token else {},
            # A proxy set for the outside world must not see calls to this machine.
            mounts={"all://127.0.0.1": None, "all://localhost": None, "all://[::1]": None},
        )

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        answers: frozenset[int] = frozenset(),
    ) -> httpx.Response:
        """One call and its answer, read whole. Raises ApiError for any status from 400 on, UnreachableError for none.

        answers: statuses from 400 on that are this call's normal answer and neither raise nor are worth repeating.
        """
        repeatable = method in _REPEATABLE or "idempotency-key" in (headers or {})
        pause = FIRST_PAUSE_S
        for left in reversed(range(ATTEMPTS if repeatable else 1)):
            try:
                response = self._http.request(
                    method, path, json=json, params=params, headers=headers, content=body() if body else None
                )
            except httpx.TransportError as error:
                if not left:
                    raise UnreachableError(self.url, str(error) or type(error).__name__) from error
            else:
                if response.status_code in answers:
                    return response
                if response.status_code not in _BUSY or not left:
                    return _checked(response)
            self._sleep(pause)
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    @contextmanager
    def open(self, path: str, params: Mapping[str, str | int] | None = None) -> Iterator[httpx.Response]:
        """A GET whose answer is read as it comes. Raises UnreachableError when nothing came for STREAM_SILENCE_S."""
        endless = httpx.Timeout(TIMEOUT.connect, read=STREAM_SILENCE_S)
        try:
            with self._http.stream("GET", path, params=params, timeout=endless) as response:
                if response.is_error:
                    response.read()
                yield _checked(response)
        except httpx.TransportError as error:
            raise UnreachableError(self.url, str(error) or type(error).__name__) from error


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_success:
        return response
    code, detail = f"http.{response.status_code}", response.reason_phrase
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        try:
            problem = response.json()
            code, detail = str(problem.get("code", code)), str(problem.get("detail") or problem.get("title") or detail)
        except (ValueError, AttributeError):
            detail = "an error whose problem document does not parse"
    raise ApiError(response.status_code, code, detail)
