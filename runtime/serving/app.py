"""What does each address of the device answer? Open Inference Protocol v2 and Prometheus metrics.

Errors are JSON {"error": text for people, "code": stable}: 4xx where the caller can do something about it, 5xx otherwise.
"""

import asyncio
import logging
from functools import lru_cache, partial
from importlib.metadata import version

import msgspec

from runtime.contract.artifact import TensorSpec
from runtime.errors import (
    DaemonError,
    DrainingError,
    HeaderTooLargeError,
    MethodError,
    ModelNotFoundError,
    RequestError,
    RequestTimeoutError,
    RequestTooLargeError,
    RouteNotFoundError,
    UnavailableError,
)
from runtime.serving.inference import Answer, Call, Inference
from runtime.serving.limits import LimitSettings
from runtime.serving.messages import decode_request, encode_response
from runtime.serving.metrics import CONTENT_TYPE, render_metrics
from runtime.serving.protocol import Hub, Request, Response
from runtime.serving.repository import Repository

log = logging.getLogger(__name__)

SERVER_NAME = "edgewright"
EXTENSIONS = ("binary_tensor_data",)
_JSON = b"Content-Type: application/json\r\n"
_BINARY = b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\n"
_MODELS = b"/v2/models/"
# JSON of 224x224x3 numbers takes 17 to 50 ms to read, so this much takes about as long as the longest inline inference.
_INLINE_JSON_BYTES = 16 * 1024
_STATUS_OF: tuple[tuple[type[DaemonError], int], ...] = (
    (RequestTooLargeError, 413),
    (HeaderTooLargeError, 431),
    (RequestTimeoutError, 408),
    (ModelNotFoundError, 404),
    (RouteNotFoundError, 404),
    (MethodError, 405),
    (RequestError, 400),
    (UnavailableError, 503),
)
"""The first class an error belongs to decides; everything else is 500."""


class App:
    """Routes requests to models. For use from one event loop; `is_draining` makes readiness false."""

    def __init__(self, repository: Repository, inference: Inference, limits: LimitSettings) -> None:
        self.hub = Hub(limits, self.handle, self.refuse)
        self._repository = repository
        self._limits = limits
        self._inference = inference
        self._version = version(SERVER_NAME)
        self._responses: dict[int, int] = {}
        self.is_draining = False

    def handle(self, request: Request) -> "Response | asyncio.Future[Response]":
        """Answer a request, at once or when its inference is done. Never raises."""
        try:
            answer = self._route(request)
        except Exception as error:  # noqa: BLE001 - the edge of the worker: whatever happens, the client gets an answer
            answer = error_response(error)
        if isinstance(answer, Response):
            return self._counted(answer)
        return answer

    def refuse(self, error: DaemonError) -> Response:
        """The answer to a request that could not be read."""
        return self._counted(error_response(error))

    def close(self) -> None:
        self._inference.close()

    def _route(self, request: Request) -> "Response | asyncio.Future[Response]":
        path = request.target.partition(b"?")[0]
        if path.startswith(_MODELS):
            model, release, action = _model_address(path)
            if action == "infer":
                _require_method(request, b"POST")
                return self._infer(request, model, release)
            _require_method(request, b"GET")
            return self._describe_model(model, release, action)
        _require_method(request, b"GET")
        return self._describe_server(path.rstrip(b"/"))

    def _describe_server(self, path: bytes) -> Response:
        if path == b"/v2":
            return _json({"name": SERVER_NAME, "version": self._version, "extensions": EXTENSIONS})
        if path == b"/v2/health/live":
            return _json({"live": True})
        if path == b"/v2/health/ready":
            return _json({"ready": not self.is_draining}, 503 if self.is_draining else 200)
        if path == b"/metrics":
            body = render_metrics(self._repository.models(), self._responses, len(self.hub.connections))
            return Response(200, b"Content-Type: " + CONTENT_TYPE + b"\r\n", [body])
        raise _no_route(path)

    def _describe_model(self, model: str, release: str, action: str) -> Response:
        manifest = self._repository.get(model, release).manifest
        if action == "ready":
            return _json({"name": manifest.model, "ready": not self.is_draining}, 503 if self.is_draining else 200)
        return _json(
            {
                "name": manifest.model,
                "versions": [manifest.version],
                "platform": f"{manifest.requires.engine}_{manifest.model_file.rpartition('.')[2]}",
                "inputs": [_tensor(spec) for spec in manifest.inputs],
                "outputs": [_tensor(spec) for spec in manifest.outputs],
            }
        )

    def _infer(self, request: Request, model: str, release: str) -> "Response | asyncio.Future[Response]":
        if request.encoding not in (b"", b"identity"):
            raise RequestError("compressed bodies are not accepted; send Content-Encoding: identity")
        json_bytes = len(request.body) if request.head_length is None else request.head_length
        if json_bytes > self._limits.json_bytes:
            raise RequestTooLargeError(f"the JSON part is over the limit of {self._limits.json_bytes} bytes; send binary tensors")
        self._repository.get(model, release)  # an unknown one is said before anything is read
        reading = _Reading(request, model, release)
        if json_bytes > _INLINE_JSON_BYTES:
            return self._settled(self._inference.submit_unread(model, reading.call, reading.answer))
        answer = self._inference.submit(reading.call(), reading.answer)
        return answer if isinstance(answer, Response) else self._settled(answer)

    def _settled(self, running: "asyncio.Future[Response]") -> "asyncio.Future[Response]":
        """The same answer in a future that is never cancelled and never fails."""
        answer: asyncio.Future[Response] = running.get_loop().create_future()
        running.add_done_callback(partial(self._finish, answer))
        return answer

    def _finish(self, answer: "asyncio.Future[Response]", running: "asyncio.Future[Response]") -> None:
        try:
            response = error_response(DrainingError("the daemon is stopping")) if running.cancelled() else running.result()
        except Exception as error:  # noqa: BLE001 - as in handle
            response = error_response(error)
        if not answer.done():
            answer.set_result(self._counted(response))

    def _counted(self, response: Response) -> Response:
        self._responses[response.status] = self._responses.get(response.status, 0) + 1
        return response


class _Reading:
    """One inference request between its body and its answer."""

    __slots__ = ("_asked", "_model", "_release", "_request")

    def __init__(self, request: Request, model: str, release: str) -> None:
        self._request = request
        self._model = model
        self._release = release

    def call(self) -> Call:
        self._asked = decode_request(self._request.body, self._request.head_length)
        return Call(self._model, self._asked.inputs, self._release)

    def answer(self, answer: Answer) -> Response:
        manifest = answer.served.manifest
        body, head_length = encode_response(self._asked, manifest.model, manifest.version, manifest.outputs, answer.outputs)
        return Response(200, _JSON if head_length is None else _BINARY % head_length, body)


def error_response(error: Exception) -> Response:
    """An error as JSON with its stable code. One that is not ours is a bug: it is logged, and its text stays here."""
    if isinstance(error, DaemonError):
        status = next((status for kind, status in _STATUS_OF if isinstance(error, kind)), 500)
        return _json({"error": str(error), "code": error.code}, status)
    log.error("a request failed unexpectedly", exc_info=error)
    return _json({"error": "internal error", "code": DaemonError.code}, 500)


@lru_cache(maxsize=128)
def _model_address(path: bytes) -> tuple[str, str, str]:
    """/v2/models/MODEL[/versions/VERSION][/ready|/infer] as (model, version or "", action or "")."""
    model, *rest = path[len(_MODELS) :].decode("latin-1").rstrip("/").split("/")
    release = ""
    if rest[:1] == ["versions"] and len(rest) >= 2:
        release, rest = rest[1], rest[2:]
    if not model or rest not in ([], ["ready"], ["infer"]):
        raise _no_route(path)
    return model, release, rest[0] if rest else ""


def _require_method(request: Request, method: bytes) -> None:
    if request.method != method:
        raise MethodError(f"use {method.decode()} here, not {request.method.decode('latin-1')}")


def _no_route(path: bytes) -> RouteNotFoundError:
    return RouteNotFoundError(f"nothing is served at {path[:100].decode('latin-1')!r}")


def _tensor(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": spec.shape}


def _json(value: object, status: int = 200) -> Response:
    return Response(status, _JSON, [msgspec.json.encode(value)])
