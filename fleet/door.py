"""Where do devices come in: enrol, and fetch metadata, documents and blobs?

HTTPS with a certificate of the fleet's authority. A client certificate is optional to TLS and required by every path but
/ca.pem and /enroll; its common name must be an enrolled, unrevoked device. /ca.pem is fetched unverified and then held
against the digest in the enrolment token, so nothing rests on the first connection.
"""

import asyncio
import base64
import contextlib
import re
import socket
import ssl
from collections.abc import Iterator
from typing import Annotated, Any, cast

import msgspec
import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fleet.api import problems
from fleet.enrolment import enrol
from fleet.errors import DeviceBarredError, ExternalError, NoCertificateError, UnknownBlobError
from fleet.pki import CSR_LIMIT, KeyPair, common_name
from fleet.services import Services
from fleet.store.devices import DeviceRepository
from runtime.contract.canonical import read_json
from runtime.contract.errors import TooLargeError

ENROLMENT_LIMIT = CSR_LIMIT + 2 * 1024
CHUNK_BYTES = 256 * 1024
KEEP_ALIVE_S = 30
GRACE_S = 5

_IMMUTABLE = {"cache-control": "max-age=31536000, immutable"}
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


class EnrolmentRequest(msgspec.Struct, frozen=True):
    """Body of POST /enroll."""

    secret: str
    device: str
    csr_pem: str


def make_app(services: Services, broker_host: str, broker_port: int) -> FastAPI:
    """The door's routes. broker_host, broker_port: what a new device is told to connect to."""
    app = FastAPI(title="Edgewright device door", docs_url=None, redoc_url=None, openapi_url=None)
    problems.install(app)

    @app.get("/ca.pem")
    def authority() -> Response:
        return Response(services.authority.pem, media_type="application/x-pem-file")

    @app.post("/enroll")
    async def enroll(request: Request) -> JSONResponse:
        body = read_json(await _limited_body(request, ENROLMENT_LIMIT), EnrolmentRequest, ENROLMENT_LIMIT).value
        pem = await run_in_threadpool(enrol, services, body.secret, body.device, body.csr_pem.encode())
        answer = {
            "fleet": services.config.fleet.name,
            "device": body.device,
            "certificate_pem": pem,
            "ca_pem": services.authority.pem.decode(),
            "root_json_b64": base64.b64encode(services.trust.pinned_root).decode(),
            "broker": {"host": broker_host, "port": broker_port},
        }
        return JSONResponse(answer, 201)

    def require_device(request: Request) -> str:
        name: str | None = getattr(request.state, "common_name", None)
        if name is None:
            raise NoCertificateError("this takes the client certificate of an enrolled device")
        with services.database.read() as session:
            row = DeviceRepository(session).find(name)
        if row is None or row.revoked_ms is not None:
            raise DeviceBarredError(f"{name!r} is not an enrolled device, or it was revoked")
        return name

    device = Annotated[str, Depends(require_device)]

    @app.get("/tuf/{path:path}")
    def release_store(path: str, _: device) -> Response:
        freshness = "no-cache" if path.endswith("timestamp.json") else "max-age=31536000, immutable"
        return Response(services.trust.file(path), media_type="application/json", headers={"cache-control": freshness})

    @app.get("/blobs/{sha256}")
    def blob(sha256: str, request: Request, _: device) -> Response:
        return _blob(services, sha256, request.headers.get("range"))

    @app.get("/blobs/{sha256}/chunks")
    def chunks(sha256: str, _: device) -> Response:
        raw = services.blobs.chunk_index(sha256)
        if raw is None:
            raise UnknownBlobError(f"blob {sha256} is too small to have a chunk index")
        return Response(raw, media_type="application/octet-stream", headers=_IMMUTABLE)

    return app


class Door:
    """The device door as a part of the service."""

    def __init__(self, app: FastAPI, host: str, port: int, *, server: KeyPair, authority: str) -> None:
        """authority: path of the certificate that client certificates must come from. port 0 takes a free one."""
        self._app = app
        self.host, self.port = host, port
        self._server = server
        self._authority = authority
        self._uvicorn: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Accepting connections when this returns. Raises ExternalError when the address cannot be had."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            listener = socket.create_server((self.host, self.port), family=family)
        except OSError as error:
            raise ExternalError(f"the device door cannot listen on {self.host}:{self.port}: {error.strerror}") from error
        self.port = listener.getsockname()[1]
        self._uvicorn = _Server(self._configuration())
        self._task = asyncio.create_task(self._uvicorn.serve(sockets=[listener]), name="door")
        while not self._uvicorn.started:
            if self._task.done():
                self._task.result()
                raise ExternalError("the device door ended while it started")
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        if self._uvicorn is not None and self._task is not None:
            self._uvicorn.should_exit = True
            await self._task
            self._uvicorn = self._task = None

    def _configuration(self) -> uvicorn.Config:
        config = uvicorn.Config(
            self._app,
            http=PeerNameProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
            ssl_certfile=str(self._server.certificate),
            ssl_keyfile=str(self._server.key),
            ssl_ca_certs=self._authority,
            ssl_cert_reqs=ssl.CERT_OPTIONAL,
        )
        config.load()
        cast("ssl.SSLContext", config.ssl).minimum_version = ssl.TLSVersion.TLSv1_2
        return config


class PeerNameProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol, which tells the application the common name of the verified client certificate.

    It reaches a request as `request.state.common_name`, None without a certificate. uvicorn offers nothing for it, and a
    header could be forged.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._common_name = common_name(transport.get_extra_info("peercert"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["state"]["common_name"] = self._common_name


class _Server(uvicorn.Server):
    """Signals belong to the service as a whole, not to one of its servers."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _blob(services: Services, sha256: str, wanted: str | None) -> Response:
    """The blob, or the one range of it that was asked for; anything but a single range is answered with the whole (RFC 9110, 14.2)."""
    file = services.blobs.open(sha256)
    size = file.seek(0, 2)
    headers = _IMMUTABLE | {"accept-ranges": "bytes", "etag": f'"{sha256}"'}
    found = _RANGE.fullmatch(wanted or "")
    if found is None or found.groups() == ("", ""):
        return StreamingResponse(
            _chunks(file, 0, size), headers=headers | {"content-length": str(size)}, media_type="application/octet-stream"
        )
    first, last = _bounds(found[1], found[2], size)
    if first > last:
        file.close()
        answer = problems.problem(416, "blob.bad_range", f"{wanted} lies outside the blob's {size} bytes")
        answer.headers["content-range"] = f"bytes */{size}"
        return answer
    headers |= {"content-range": f"bytes {first}-{last}/{size}", "content-length": str(last - first + 1)}
    return StreamingResponse(_chunks(file, first, last + 1), 206, headers=headers, media_type="application/octet-stream")


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    """First and last byte of a range, both inclusive; first > last when it cannot be satisfied."""
    if first == "":
        return (max(size - int(last), 0), size - 1) if int(last) else (size, size - 1)
    return int(first), min(int(last), size - 1) if last else size - 1


def _chunks(file: Any, start: int, end: int) -> Iterator[bytes]:
    with file:
        file.seek(start)
        while start < end and (chunk := file.read(min(CHUNK_BYTES, end - start))):
            start += len(chunk)
            yield chunk


async def _limited_body(request: Request, limit: int) -> bytes:
    """Read a body, but never more of it than `limit`: who sends it has shown no credential yet."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise TooLargeError(f"the request is over the limit of {limit} bytes")
    return body
