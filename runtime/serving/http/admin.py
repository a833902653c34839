"""What may a client ask of the server beside inference and descriptions? To list, load and unload models, and to register
shared memory.

Sources: Triton's extension_model_repository.md and extension_shared_memory.md.
"""

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from runtime.errors import ForbiddenError, MethodError, RequestError, RouteNotFoundError
from runtime.serving.control import ModelControl
from runtime.serving.describe import repository_index
from runtime.serving.models.repository import Repository
from runtime.serving.regions import Regions

PREFIXES = (b"/v2/repository/", b"/v2/systemsharedmemory/", b"/v2/cudasharedmemory/", b"/v2/logging", b"/v2/trace/")
_BODY_BYTES = 64 * 1024
_Body = TypeVar("_Body", bound=msgspec.Struct)
_RegionBytes = Annotated[int, Meta(ge=0, le=2**62)]


class _Index(msgspec.Struct):
    ready: bool = False


class _Load(msgspec.Struct):
    parameters: dict[str, Any] | None = None


class _Register(msgspec.Struct):
    key: str
    byte_size: _RegionBytes
    offset: _RegionBytes = 0


class Admin:
    """Answers requests below PREFIXES: with a value for JSON, None for no content, or a future of no content."""

    def __init__(self, repository: Repository, control: ModelControl) -> None:
        self._repository = repository
        self._control = control

    def answer(self, method: bytes, path: bytes, body: bytes | memoryview, regions: Regions, *, is_draining: bool) -> Any:
        """regions: those that this client may use. Raises RequestError, such as RouteNotFoundError for an address not served."""
        match _parts(path):
            case ["repository", "index"]:
                _require(method, b"POST")
                wanted = _read(body, _Index)
                stored = self._control.models()
                return repository_index(self._repository, stored, only_ready=wanted.ready, is_draining=is_draining)
            case ["repository", "models", model, "load" | "unload" as action]:
                _require(method, b"POST")
                return self._control_model(model, action, body)
            case ["systemsharedmemory", *rest]:
                return _shared_memory(method, rest, body, regions)
            case ["cudasharedmemory", *_]:
                raise ForbiddenError("CUDA shared memory is not offered here; register system shared memory instead")
            case ["logging" | "trace", *_]:
                raise RouteNotFoundError(f"{path[4:100].decode('latin-1')!r}: logs and traces are not set over the protocol here")
        raise RouteNotFoundError(f"nothing is served at {path[:100].decode('latin-1')!r}")

    def _control_model(self, model: str, action: str, body: bytes | memoryview) -> "asyncio.Future[None]":
        given = _read(body, _Load).parameters or {}
        surplus = sorted(set(given) - {"unload_dependents"})
        if surplus:
            raise RequestError(f"parameter {surplus[0]!r} is not accepted: what a model is, its signed manifest says")
        run: Callable[[str], asyncio.Future[None]] = self._control.load if action == "load" else self._control.unload
        return run(model)


def _shared_memory(method: bytes, rest: list[str], body: bytes | memoryview, regions: Regions) -> Any:
    match rest:
        case ["status"] | ["region", _, "status"]:
            _require(method, b"GET")
            return [status._asdict() for status in regions.status("" if len(rest) == 1 else rest[1])]
        case ["unregister"] | ["region", _, "unregister"]:
            _require(method, b"POST")
            regions.unregister("" if len(rest) == 1 else rest[1])
            return None
        case ["region", name, "register"]:
            _require(method, b"POST")
            region = _read(body, _Register)
            regions.register(name, region.key, region.offset, region.byte_size)
            return None
    raise RouteNotFoundError(f"nothing is served at {'/'.join(rest)[:100]!r} of systemsharedmemory")


def _parts(path: bytes) -> list[str]:
    """The path's parts behind /v2, each decoded by itself, so that a name may hold what separates parts."""
    from urllib.parse import unquote_to_bytes

    try:
        parts = [unquote_to_bytes(part).decode() for part in path.rstrip(b"/").split(b"/")[2:]]
    except UnicodeDecodeError as error:
        raise RequestError(f"the address is not UTF-8: {error}") from error
    if "" in parts or max(map(len, parts), default=0) > 256:
        raise RouteNotFoundError(f"nothing is served at {path[:100].decode('latin-1')!r}")
    return parts


def _read(body: bytes | memoryview, kind: type[_Body]) -> _Body:
    """A body as JSON; an empty one has every default."""
    if len(body) > _BODY_BYTES:
        raise RequestError(f"the body is over {_BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise RequestError(f"the body is not what is asked for here: {error}") from error


def _require(method: bytes, wanted: bytes) -> None:
    if method != wanted:
        raise MethodError(f"use {wanted.decode()} here, not {method.decode('latin-1')}")
