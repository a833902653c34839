"""What does each address of the device answer? Open Inference Protocol v2, Triton's extensions of it, Prometheus metrics.

Errors are JSON {"error": text for people, "code": stable}: 4xx where the caller can do something about it, 5xx otherwise.
"""

import asyncio
import logging
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import msgspec

from runtime.errors import (
    DaemonError,
    DrainingError,
    EngineCrashedError,
    EngineHungError,
    ForbiddenError,
    HeaderTooLargeError,
    MethodError,
    ModelNotFoundError,
    OverloadedError,
    RequestError,
    RequestTimeoutError,
    RequestTooLargeError,
    RouteNotFoundError,
    UnavailableError,
)
from runtime.serving.control import ModelControl
from runtime.serving.describe import find, model_config, model_metadata, server_metadata
from runtime.serving.http.admin import PREFIXES, Admin
from runtime.serving.http.compression import SMALLEST, accepted_encoding, compress, decompress
from runtime.serving.http.heads import Heads, write
from runtime.serving.http.messages import InferRequest
from runtime.serving.http.protocol import Hub, Response
from runtime.serving.http.request import Request
from runtime.serving.inference import Answer, Call, Inference
from runtime.serving.limits import LimitSettings
from runtime.serving.metrics import CONTENT_TYPE, Counts, render_metrics
from runtime.serving.models.model import ServedModel
from runtime.serving.models.repository import Repository
from runtime.serving.regions import NO_REGIONS, Regions
from runtime.serving.statistics import model_statistics

log = logging.getLogger(__name__)

_JSON = b"Content-Type: application/json\r\n"
_BINARY = b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\n"
_MODELS = b"/v2/models/"
_IDENTITY = b"identity"
_NO_VARIANT: dict[str, str] = {}
_ACTIONS: tuple[list[str], ...] = ([], ["ready"], ["infer"], ["config"], ["stats"])
# 1,024 numbers at full length are 20 kB and take 50 us to read; this much, less than the longest inline inference.
_INLINE_JSON_BYTES = 32 * 1024
_STATUS_OF: tuple[tuple[type[DaemonError], int], ...] = (
    (RequestTooLargeError, 413),
    (HeaderTooLargeError, 431),
    (RequestTimeoutError, 408),
    (ModelNotFoundError, 404),
    (RouteNotFoundError, 404),
    (MethodError, 405),
    (ForbiddenError, 403),
    (RequestError, 400),
    (UnavailableError, 503),
    (EngineCrashedError, 503),
    (EngineHungError, 503),
)
"""The first class an error belongs to decides; everything else is 500."""


class App:
    """Routes requests to models. For use from one event loop; `is_draining` makes readiness false."""

    def __init__(
        self,
        repository: Repository,
        inference: Inference,
        limits: LimitSettings,
        *,
        control: ModelControl,
        regions: Regions,
    ) -> None:
        self.hub = Hub(limits, self.handle, self.refuse)
        self._repository = repository
        self._limits = limits
        self.inference = inference
        self.control = control
        self.regions = regions
        self._admin = Admin(repository, control)
        self._heads = Heads(limits)
        self._responses: dict[int, int] = {}
        self.counts: list[Counts] = []
        """What other ways in count, for /metrics; each keeps its own mapping up to date."""
        self.is_draining = False

    def handle(self, request: Request) -> "Response | asyncio.Future[Response]":
        """Answer a request, at once or when its inference is done. Never raises."""
        try:
            answer = self._route(request)
        except Exception as error:  # noqa: BLE001 - the edge of the worker: whatever happens, the client gets an answer
            answer = error_response(error)
        if isinstance(answer, Response):
            if request.method == b"HEAD":  # refused as any method not served here, and an answer to it has no body
                answer = Response(answer.status, answer.headers, [])
            return self._counted(answer)
        return answer

    def refuse(self, error: DaemonError) -> Response:
        """The answer to a request that could not be read."""
        return self._counted(error_response(error))

    def close(self) -> None:
        self.inference.close()
        self.control.close()
        self.regions.close()

    def _route(self, request: Request) -> "Response | asyncio.Future[Response]":
        path = request.target.partition(b"?")[0]
        if path.startswith(_MODELS):
            model, release, action = _model_address(path)
            if action == "infer":
                _require_method(request, b"POST")
                return self._infer(request, model, release)
            _require_method(request, b"GET")
            return self._describe_model(model, release, action)
        if path.startswith(PREFIXES):
            return self._administer(request, path)
        _require_method(request, b"GET")
        return self._describe_server(path.rstrip(b"/"))

    def _describe_server(self, path: bytes) -> Response:
        if path == b"/v2":
            return _json(server_metadata())
        if path == b"/v2/health/live":
            return _json({"live": True})
        if path == b"/v2/health/ready":
            return _json({"ready": not self.is_draining}, 503 if self.is_draining else 200)
        if path == b"/metrics":
            body = render_metrics(self._repository, self.inference, self._responses, len(self.hub.connections), self.counts)
            return Response(200, b"Content-Type: " + CONTENT_TYPE + b"\r\n", [body])
        raise _no_route(path)

    def _describe_model(self, model: str, release: str, action: str) -> Response:
        if action == "config":
            return _json(model_config(self._repository, model, release, self.inference.joining))
        if action == "stats":
            return _json(model_statistics(self._repository, model, release))
        if action == "ready":
            served = find(self._repository, model, release)
            is_ready = not self.is_draining and not served.failure
            return _json({"name": served.manifest.model, "ready": is_ready}, 200 if is_ready else 503)
        return _json(model_metadata(self._repository, model, release))

    def _administer(self, request: Request, path: bytes) -> "Response | asyncio.Future[Response]":
        answer = self._admin.answer(request.method, path, request.body, self._regions_of(request), is_draining=self.is_draining)
        if isinstance(answer, asyncio.Future):
            return self._settled(answer, lambda _: Response(200, _JSON, []))
        return Response(200, _JSON, []) if answer is None else _json(answer)

    def _infer(self, request: Request, model: str, release: str) -> "Response | asyncio.Future[Response]":
        served = self._repository.get(model, release)  # an unknown one is said before anything is read
        reading = _Reading(request, model, release, self._regions_of(request), self._heads)
        if reading.is_long(served):
            return self._settled(self.inference.submit_unread(model, reading.call, reading.answer, request.caller))
        call = reading.call()
        if not reading.region_bytes:
            answer = self.inference.submit(call, reading.answer, request.caller)
            return answer if isinstance(answer, Response) else self._settled(answer)
        # What was copied from shared memory waits like a body, and counts as one.
        if self.hub.buffered_bytes + reading.region_bytes > self._limits.buffered_bytes:
            raise OverloadedError("too many inputs are waiting at once")
        answer = self.inference.submit(call, reading.answer, request.caller)
        if isinstance(answer, Response):
            return answer
        self.hub.buffered_bytes += reading.region_bytes
        answer.add_done_callback(lambda _: self._forget(reading.region_bytes))
        return self._settled(answer)

    def _regions_of(self, request: Request) -> Regions:
        return self.regions if request.shares_memory else NO_REGIONS

    def _forget(self, region_bytes: int) -> None:
        self.hub.buffered_bytes -= region_bytes

    def _settled(
        self, running: "asyncio.Future[Any]", make: Callable[[Any], Response] = lambda made: made
    ) -> "asyncio.Future[Response]":
        """The same answer in a future that is never cancelled and never fails. make: the response of its result."""
        answer: asyncio.Future[Response] = running.get_loop().create_future()
        running.add_done_callback(partial(self._finish, answer, make))
        return answer

    def _finish(
        self, answer: "asyncio.Future[Response]", make: Callable[[Any], Response], running: "asyncio.Future[Any]"
    ) -> None:
        try:
            response = error_response(DrainingError("the daemon is stopping")) if running.cancelled() else make(running.result())
        except Exception as error:  # noqa: BLE001 - as in handle
            response = error_response(error)
        if not answer.done():
            answer.set_result(self._counted(response))

    def _counted(self, response: Response) -> Response:
        self._responses[response.status] = self._responses.get(response.status, 0) + 1
        return response


class _Reading:
    """One inference request between its body and its answer. region_bytes: copied from shared memory by `call`."""

    __slots__ = ("_asked", "_heads", "_model", "_regions", "_release", "_request", "region_bytes")

    def __init__(self, request: Request, model: str, release: str, regions: Regions, heads: Heads) -> None:
        self._request = request
        self._model = model
        self._release = release
        self._regions = regions
        self._heads = heads
        self._asked: InferRequest
        self.region_bytes = 0

    def is_long(self, served: ServedModel) -> bool:
        """Whether reading it would hold up the loop: much JSON, strings, or anything compressed."""
        request = self._request
        if request.encoding and request.encoding != _IDENTITY:
            return True
        json_bytes = len(request.body) if request.head_length is None else request.head_length
        if json_bytes > _INLINE_JSON_BYTES:
            return True
        return served.takes_text and (len(request.body) > _INLINE_JSON_BYTES or b"shared_memory" in request.body[:json_bytes])

    def call(self) -> Call:
        request, limits = self._request, self._heads.limits
        body, head_length = request.body, request.head_length
        if request.encoding and request.encoding != _IDENTITY:
            body = decompress(body, request.encoding, limits.body_bytes)
        if (len(body) if head_length is None else head_length) > limits.json_bytes:
            raise RequestTooLargeError(f"the JSON part is over the limit of {limits.json_bytes} bytes; send binary tensors")
        self._asked = asked = self._heads.read(body, head_length, self._regions)
        self.region_bytes = asked.region_bytes
        key = asked.key
        if not key and request.split_key:
            key = request.split_key.decode("utf-8", "replace")
        return Call(self._model, asked.inputs, self._release, key)

    def answer(self, answer: Answer) -> Response:
        role = answer.served.role
        variant, headers = _NO_VARIANT, b""
        if role != "active":
            variant, headers = {"variant": role}, b"Edgewright-Variant: %b\r\n" % role.encode()
        body, head_length = write(self._asked, answer.served, answer.outputs, self._regions, variant)
        headers += _JSON if head_length is None else _BINARY % head_length
        if self._request.accept and sum(map(len, body)) >= SMALLEST and (encoding := accepted_encoding(self._request.accept)):
            return Response(200, headers + b"Content-Encoding: %b\r\n" % encoding, [compress(body, encoding)])
        return Response(200, headers, body)


def error_response(error: Exception) -> Response:
    """An error as JSON with its stable code. One that is not ours is a bug: it is logged, and its text stays here."""
    if isinstance(error, DaemonError):
        status = next((status for kind, status in _STATUS_OF if isinstance(error, kind)), 500)
        return _json({"error": str(error), "code": error.code}, status)
    log.error("a request failed unexpectedly", exc_info=error)
    return _json({"error": "internal error", "code": DaemonError.code}, 500)


@lru_cache(maxsize=128)
def _model_address(path: bytes) -> tuple[str, str, str]:
    """/v2/models/MODEL[/versions/VERSION][/ACTION] and /v2/models/stats as (model or "", version or "", action or "")."""
    if path.rstrip(b"/") == b"/v2/models/stats":
        return "", "", "stats"
    model, *rest = path[len(_MODELS) :].decode("latin-1").rstrip("/").split("/")
    release = ""
    if rest[:1] == ["versions"] and len(rest) >= 2:
        release, rest = rest[1], rest[2:]
    if not model or rest not in _ACTIONS:
        raise _no_route(path)
    return model, release, rest[0] if rest else ""


def _require_method(request: Request, method: bytes) -> None:
    if request.method != method:
        raise MethodError(f"use {method.decode()} here, not {request.method.decode('latin-1')}")


def _no_route(path: bytes) -> RouteNotFoundError:
    return RouteNotFoundError(f"nothing is served at {path[:100].decode('latin-1')!r}")


def _json(value: object, status: int = 200) -> Response:
    return Response(status, _JSON, [msgspec.json.encode(value)])
