"""How does HTTP/1.1 come in and go out, within bounds, whatever a client sends?

asyncio hands over bytes, httptools parses, the handler answers at once or later; this module keeps the order of pipelined
requests, the limits on size and time, and nothing else. All connections read into one buffer: its content is consumed
before the loop can read again. What is left of a long body of known length is read straight into its place instead: nothing
in it is for the parser, and a new one reads what follows.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any

import httptools
import msgspec

from runtime.errors import (
    DaemonError,
    HeaderTooLargeError,
    OverloadedError,
    RequestError,
    RequestTimeoutError,
    RequestTooLargeError,
)
from runtime.serving.http.request import Request
from runtime.serving.http.usual import Usual, learn
from runtime.serving.limits import LimitSettings
from runtime.serving.places import MOST_BYTES, Places

READ_BYTES = 256 * 1024
# A refused client may still be sending; closing at once would reset the connection and lose the refusal.
LINGER_S = 2.0
SWEEP_S = 0.5
# Above this a body goes out by itself rather than being joined to its head once more.
_JOIN_BYTES = 64 * 1024
# From here on a body gets a place. Places being filled are reserved before their bytes come, hence a bound of their own.
PLACED_BYTES = 64 * 1024
_MOST_PLACED_BYTES = 4 * MOST_BYTES
_READ_HEADERS = frozenset(
    (
        b"inference-header-content-length",
        b"content-length",
        b"content-encoding",
        b"accept-encoding",
        b"edgewright-split-key",
        b"expect",
        b"transfer-encoding",
    )
)
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class Response(msgspec.Struct, frozen=True):
    """headers: complete lines beyond length and connection; body: in parts, joined or not as is cheaper."""

    status: int
    headers: bytes
    body: list[bytes | memoryview]


Handler = Callable[[Request], "Response | asyncio.Future[Response]"]
Refusal = Callable[[DaemonError], Response]


class Hub:
    """What the connections of one server share.

    handler: answers a request, never raises. refusal: the answer to a request that could not even be read.
    """

    def __init__(self, limits: LimitSettings, handler: Handler, refusal: Refusal) -> None:
        self.limits = limits
        self.handler = handler
        self.refusal = refusal
        self.memory = bytearray(READ_BYTES)
        self.buffer = memoryview(self.memory)
        self.connections: set[Connection] = set()
        self.buffered_bytes = 0
        self.places = Places()
        self.placed_bytes = 0
        self.is_draining = False
        self.is_closed = False

    def connection(self, *, shares_memory: bool = False) -> "Connection":
        return Connection(self, shares_memory=shares_memory)

    def sweep(self) -> None:
        """Close what has waited too long. Called from time to time: no connection needs a timer of its own."""
        now = time.monotonic()
        for connection in list(self.connections):
            connection.check_time(now)
        self.places.sweep()

    def drain(self) -> None:
        """Let open requests end, each connection's last with `Connection: close`; close idle ones now."""
        self.is_draining = True
        for connection in list(self.connections):
            connection.close_if_idle()

    def abort(self) -> None:
        """Cut every connection, and those still being accepted as soon as they are."""
        self.is_closed = True
        for connection in list(self.connections):
            connection.abort()


class Connection(asyncio.BufferedProtocol):
    """One client. Requests are answered strictly in order; while one is under way, reading stops at the next."""

    def __init__(self, hub: Hub, *, shares_memory: bool) -> None:
        self._hub = hub
        self._shares_memory = shares_memory
        self._limits = hub.limits
        self._most_header_bytes = hub.limits.header_bytes
        self._parser: Any = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport = None  # type: ignore[assignment]  # set before any other callback
        self._queue: deque[Request] = deque()
        self._usual: Usual | None = None
        self._refused: DaemonError | None = None
        self._current = Request(caller=id(self), shares_memory=self._shares_memory)
        self._fragments: list[bytes] = []
        self._place: memoryview | None = None
        """Where the body being received goes; all reads are for it once its head is parsed."""
        self._body_bytes = 0
        self._announced_bytes = -1
        self._header_bytes = 0
        self._unended_bytes = 0
        self._is_reading_headers = False
        self._is_chunked = False
        self._is_answering = False
        self._is_write_paused = False
        self._is_refusing = False
        self._is_at_eof = False
        self._began = 0.0
        self._since = time.monotonic()
        self._close_at = 0.0

    # asyncio's callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._hub.connections.add(self)
        if self._hub.is_closed:
            self.abort()
            return
        if len(self._hub.connections) > self._limits.connections:
            self._refuse(OverloadedError(f"more than {self._limits.connections} connections"))
            self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hub.connections.discard(self)
        self._forget_body()
        self._forget_queue()

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._place is not None:
            return self._place[self._body_bytes :]
        usual = self._usual
        return self._hub.buffer[: usual.size] if usual is not None and usual.comes_apart else self._hub.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._is_refusing:
            return
        if self._is_filling():
            self._fill(nbytes)
            return
        complete_before = len(self._queue)
        is_between = not (self._began or complete_before or self._is_answering)
        usual = self._usual
        if usual is not None and is_between and nbytes == usual.size and self._hub.memory.startswith(usual.head):
            if not usual.comes_apart:
                self._take(usual.again(bytes(self._hub.buffer[len(usual.head) : nbytes])))
                return
            if self._reserve(usual.body_bytes, usual.request.head_length):
                self._current = usual.again(b"")
                self._announced_bytes = usual.body_bytes
                self._began = time.monotonic()
                return
        try:
            self._parser.feed_data(self._hub.buffer[:nbytes])
        except httptools.HttpParserCallbackError as error:
            self._refuse(error.__context__ if isinstance(error.__context__, DaemonError) else RequestError(str(error)))
        except httptools.HttpParserUpgrade:
            self._is_refusing = True  # the request itself is answered; the other protocol is not spoken here
            if self._queue:
                self._queue[-1].is_last = True
        except httptools.HttpParserError as error:
            self._refuse(RequestError(f"not HTTP/1.1: {error}"))
        if self._is_reading_headers and not self._is_refusing and len(self._queue) == complete_before:
            self._unended_bytes += nbytes  # all of it belongs to one header, and one without an end is never reported
            if self._unended_bytes > self._limits.header_bytes:
                self._refuse(self._header_error())
        self._usual = self._learnt(nbytes) if is_between else None
        if self._is_filling():
            self._parser = httptools.HttpRequestParser(self)
        self._pump()

    def eof_received(self) -> bool:
        self._is_at_eof = True
        return self._is_busy()

    def pause_writing(self) -> None:
        self._is_write_paused = True
        self._since = time.monotonic()

    def resume_writing(self) -> None:
        self._is_write_paused = False
        self._pump()

    def _learnt(self, nbytes: int) -> Usual | None:
        """What the read that was just parsed tells of the next, where one request with a body of known length began it.

        It is the whole of the read, or has a place that is not filled yet.
        """
        length = self._announced_bytes
        is_filling = self._is_filling()
        if self._is_refusing or length < 0 or len(self._queue) != (not is_filling) or bool(self._began) != is_filling:
            return None
        request = self._current if is_filling else self._queue[0]
        if request.is_last or request.expects_continue or not (is_filling or len(request.body) == length):
            return None
        head_bytes = nbytes - (self._body_bytes if is_filling else length)
        return learn(self._hub.buffer[:head_bytes], request, length, comes_apart=length >= PLACED_BYTES)

    def _take(self, request: Request) -> None:
        """A request that needed no parsing. Its limits are those of the one before it, but for what all bodies together take."""
        self._hub.buffered_bytes += len(request.body)
        if self._hub.buffered_bytes > self._limits.buffered_bytes:
            self._hub.buffered_bytes -= len(request.body)
            self._refuse(_too_many_bodies())
        else:
            self._queue.append(request)
        self._pump()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self._current = Request(caller=id(self), shares_memory=self._shares_memory)
        self._header_bytes = self._unended_bytes = 0
        self._announced_bytes = -1
        self._is_chunked = False
        self._is_reading_headers = True
        self._began = time.monotonic()

    def on_url(self, url: bytes) -> None:
        self._current.target += url
        self._header_bytes += len(url)
        if self._header_bytes > self._most_header_bytes:
            raise self._header_error()

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > self._most_header_bytes:
            raise self._header_error()
        name = name.lower()
        if name not in _READ_HEADERS:
            return
        if name == b"inference-header-content-length":
            self._current.head_length = _number("Inference-Header-Content-Length", value)
        elif name == b"content-length":
            self._announced_bytes = _number("Content-Length", value)
            if self._announced_bytes > self._limits.body_bytes:
                raise self._body_error()
        elif name == b"content-encoding":
            self._current.encoding = value.lower()
        elif name == b"accept-encoding":
            self._current.accept = value
        elif name == b"edgewright-split-key":
            self._current.split_key = value
        elif name == b"expect":
            self._current.expects_continue = value.lower() == b"100-continue"
        elif name == b"transfer-encoding":
            self._is_chunked = True

    def on_headers_complete(self) -> None:
        self._is_reading_headers = False
        self._current.method = self._parser.get_method()
        self._current.is_last = not self._parser.should_keep_alive() or self._parser.get_http_version() != "1.1"
        if self._current.expects_continue and not self._is_busy():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if self._announced_bytes >= PLACED_BYTES and not (
            self._is_chunked or self._current.is_last or self._parser.should_upgrade()
        ):
            self._reserve(self._announced_bytes, self._current.head_length)

    def on_body(self, fragment: bytes) -> None:
        self._count(len(fragment))
        if self._place is not None:
            self._place[self._body_bytes - len(fragment) : self._body_bytes] = fragment
        else:
            self._fragments.append(fragment)

    def on_message_complete(self) -> None:
        if self._place is not None:
            self._current.body = self._place.toreadonly()
            self._release()
        else:
            self._current.body = self._fragments[0] if len(self._fragments) == 1 else b"".join(self._fragments)
        self._queue.append(self._current)
        self._fragments, self._body_bytes = [], 0  # still counted as buffered until it is answered
        self._began = 0.0

    # bodies with a place

    def _is_filling(self) -> bool:
        return self._place is not None

    def _reserve(self, length: int, head_length: int | None) -> bool:
        """Get a place for a body, its first tensor aligned; False where it must do without."""
        if length > MOST_BYTES or self._hub.placed_bytes + length > _MOST_PLACED_BYTES:
            return False
        self._place = self._hub.places.take(length, head_length or 0)
        self._hub.placed_bytes += length
        return True

    def _release(self) -> None:
        if self._place is not None:
            self._hub.placed_bytes -= len(self._place)
            self._place = None

    def _fill(self, nbytes: int) -> None:
        """So many bytes more of the body were read into its place."""
        try:
            self._count(nbytes)
        except DaemonError as error:
            self._refuse(error)
        else:
            if self._body_bytes < self._announced_bytes:
                return
            self.on_message_complete()
        self._pump()

    def _count(self, nbytes: int) -> None:
        self._body_bytes += nbytes
        self._hub.buffered_bytes += nbytes
        if self._body_bytes > self._limits.body_bytes:
            raise self._body_error()
        if self._hub.buffered_bytes > self._limits.buffered_bytes:
            raise _too_many_bodies()

    # bounds

    def check_time(self, now: float) -> None:
        """Close, refuse or drop this connection if its time is up."""
        if self._close_at:
            if now >= self._close_at:
                self.abort()
        elif self._is_write_paused:
            if now - self._since > self._limits.request_s:
                self.abort()  # the client asked and does not read the answer
        elif self._began and not self._is_busy() and now - self._began > self._limits.request_s:
            self._refuse(RequestTimeoutError(f"the request did not arrive within {self._limits.request_s} s"))
            self._pump()
        elif not self._began and not self._is_busy() and now - self._since > self._limits.idle_s:
            self._transport.close()

    def close_if_idle(self) -> None:
        if not self._began and not self._is_busy():
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def _is_busy(self) -> bool:
        return self._is_answering or bool(self._queue)

    def _header_error(self) -> HeaderTooLargeError:
        return HeaderTooLargeError(f"headers are over the limit of {self._limits.header_bytes} bytes")

    def _body_error(self) -> RequestTooLargeError:
        return RequestTooLargeError(f"the body is over the limit of {self._limits.body_bytes} bytes")

    def _forget_body(self) -> None:
        self._hub.buffered_bytes -= self._body_bytes
        self._body_bytes = 0
        self._fragments = []
        self._release()

    def _forget_queue(self) -> None:
        self._hub.buffered_bytes -= sum(len(request.body) for request in self._queue)
        self._queue.clear()

    # answers

    def _refuse(self, error: DaemonError) -> None:
        """Answer an unreadable request when its turn comes, and read nothing more."""
        self._is_refusing = True
        self._began = 0.0
        self._forget_body()
        self._refused = error

    def _pump(self) -> None:
        """Answer what can be answered now, in order."""
        while self._queue and not self._is_answering and not self._is_write_paused:
            request = self._queue.popleft()
            answer = self._hub.handler(request)
            if isinstance(answer, Response):
                self._hub.buffered_bytes -= len(request.body)
                self._send(answer, request.is_last)
            else:
                self._is_answering = True
                answer.add_done_callback(partial(self._answered, request))
        if self._queue:
            self._transport.pause_reading()
            return
        self._transport.resume_reading()
        if self._refused is not None and not self._is_answering:
            refused, self._refused = self._refused, None
            self._send(self._hub.refusal(refused), is_last=True)

    def _answered(self, request: Request, answer: "asyncio.Future[Response]") -> None:
        self._is_answering = False
        self._hub.buffered_bytes -= len(request.body)
        if not answer.cancelled() and not self._transport.is_closing():
            self._send(answer.result(), request.is_last)
            self._pump()

    def _send(self, response: Response, is_last: bool) -> None:
        is_last = is_last or (not self._queue and (self._is_at_eof or self._hub.is_draining))
        length = sum(map(len, response.body))
        head = b"%b%bContent-Length: %d\r\n%b\r\n" % (
            _STATUS_LINES[response.status],
            response.headers,
            length,
            b"Connection: close\r\n" if is_last else b"",
        )
        if length <= _JOIN_BYTES:
            self._transport.write(b"".join((head, *response.body)))
        else:
            for part in (head, *response.body):
                self._transport.write(part)
        self._since = time.monotonic()
        if is_last:
            self._hang_up()

    def _hang_up(self) -> None:
        """Close once the answer is out; what a refused client still sends is read and dropped for a moment."""
        self._forget_queue()
        self._refused = None
        if not self._is_refusing or self._is_at_eof:  # one that has sent all it will needs no more than the answer
            self._transport.close()
            return
        self._transport.resume_reading()  # paused for requests now forgotten, it would not see the client leave
        self._close_at = time.monotonic() + LINGER_S
        if self._transport.can_write_eof():
            self._transport.write_eof()


def _too_many_bodies() -> OverloadedError:
    return OverloadedError("too many request bodies are being received at once")


def _number(name: str, value: bytes) -> int:
    if not value.isdigit() or len(value) > 18:
        raise RequestError(f"{name} is not a number: {value[:40]!r}")
    return int(value)
