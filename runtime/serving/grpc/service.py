"""What does each call of the gRPC service answer?"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any

import grpc

from runtime.errors import DrainingError, OverloadedError, RequestError, RequestTimeoutError
from runtime.serving.grpc.answers import streamed_failure
from runtime.serving.grpc.exchange import Exchange, parsed
from runtime.serving.grpc.failures import CODE_KEY, status_of
from runtime.serving.grpc.schema import MESSAGES, SERVICE
from runtime.serving.grpc.telling import Told
from runtime.serving.http.protocol import Hub
from runtime.serving.inference import Inference
from runtime.serving.limits import LimitSettings
from runtime.serving.models.repository import Repository
from runtime.serving.regions import Regions

STREAM_AHEAD = 8
"""Requests of one stream under way at once; further ones wait with the client."""


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Answers calls of GRPCInferenceService. For use from one event loop.

    Every call is served as a stream of requests, of which a unary one has one: only so is the service asked before the
    request has arrived whole, and can refuse one that never does.
    """

    def __init__(
        self,
        repository: Repository,
        inference: Inference,
        limits: LimitSettings,
        *,
        regions: Regions,
        hub: Hub,
        told: dict[str, Told],
    ) -> None:
        """hub: of HTTP, which counts the bytes buffered for both; told: what answers each method that does not infer."""
        self._repository = repository
        self._inference = inference
        self._regions = regions
        self._limits = limits
        self._loop = asyncio.get_running_loop()
        self._receiving: dict[asyncio.Task[Any], float] = {}
        """Calls whose request has not arrived whole, and when it must have."""
        self._readers: set[asyncio.Task[None]] = set()
        self._hub = hub
        self.is_draining = False
        self.calls = 0
        """Under way now; a stream is one."""
        self.answered: dict[str, int] = {}
        """Calls by status, as /metrics labels them; each request of a stream is one."""
        self._handlers = {f"/{SERVICE.full_name}/{name}": handler for name, handler in self._make_handlers(told)}

    def service(self, handler_call_details: Any) -> Any:
        """What grpc asks for every call; None for a method that is not served."""
        return self._handlers.get(handler_call_details.method)

    def drain(self) -> None:
        """Read nothing more from streams; what they asked is answered, then they end."""
        self.is_draining = True
        for reader in self._readers:
            reader.cancel()

    def sweep(self) -> None:
        """End calls whose request is overdue. For each second or so: a timer of each call's own would cost more."""
        now = self._loop.time()
        for task in [task for task, until in self._receiving.items() if until < now]:
            del self._receiving[task]
            task.cancel()

    def _make_handlers(self, told: dict[str, Told]) -> Iterable[tuple[str, Any]]:
        for method in SERVICE.methods:
            if method.name == "ModelStreamInfer":
                yield method.name, grpc.stream_stream_rpc_method_handler(self._stream)
                continue
            answer: Callable[[bytes], bytes | Awaitable[bytes]] = self._infer
            if method.name != "ModelInfer":
                answer = partial(_tell, getattr(MESSAGES, method.input_type.name), told[method.name])
            yield method.name, grpc.stream_unary_rpc_method_handler(partial(self._answer, answer))

    async def _answer(self, answer: Callable[[bytes], bytes | Awaitable[bytes]], _requests: Any, context: Any) -> bytes:
        """One call: receive its message, answer it, or end it with the status of what went wrong."""
        self.calls += 1
        try:
            body = await self._receive(context)
            answered = answer(body)
            if not isinstance(answered, bytes):
                answered = await _settled(answered)
        except Exception as error:
            status, text, code = status_of(error)
            self._count(status.name)
            await context.abort(status, text, ((CODE_KEY, code),))
            raise AssertionError from error  # abort raises
        finally:
            self.calls -= 1
        self._count("OK")
        return answered

    async def _receive(self, context: Any) -> bytes:
        task = asyncio.current_task()
        assert task is not None
        self._receiving[task] = self._loop.time() + self._limits.request_s
        try:
            body = await context.read()
        except asyncio.CancelledError:
            if task in self._receiving:
                raise  # the client went away
            task.uncancel()
            raise RequestTimeoutError(f"the request did not arrive within {self._limits.request_s} s") from None
        finally:
            self._receiving.pop(task, None)
        if body is grpc.aio.EOF:
            raise RequestError("the call ended without a request")
        return body  # type: ignore[no-any-return]

    # -- inference

    def _infer(self, body: bytes) -> "bytes | asyncio.Future[bytes]":
        return self._submit(Exchange(body, self._regions, self._limits, is_streamed=False))

    def _submit(self, exchange: Exchange) -> "bytes | asyncio.Future[bytes]":
        """Run a request now or soon; while it waits its bytes count as buffered."""
        self._repository.get(exchange.model, exchange.version)  # an unknown one is said before anything is read
        if exchange.is_slow_to_read:
            running: bytes | asyncio.Future[bytes] = self._inference.submit_unread(exchange.model, exchange.call, exchange.answer)
        else:
            call = exchange.call()
            if self._hub.buffered_bytes + exchange.size > self._limits.buffered_bytes:
                raise OverloadedError("too many inputs are waiting at once")
            running = self._inference.submit(call, exchange.answer)
        if not isinstance(running, bytes):
            size = exchange.size
            self._hub.buffered_bytes += size
            running.add_done_callback(lambda _: self._forget(size))
        return running

    def _forget(self, size: int) -> None:
        self._hub.buffered_bytes -= size

    async def _stream(self, _requests: Any, context: Any) -> None:
        """Answer many requests in their order. A failed one is told within the stream, which goes on."""
        if len(self._readers) * 2 >= self._limits.connections:
            error = OverloadedError(f"{len(self._readers)} streams are open already")
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"{error} [{error.code}]", ((CODE_KEY, error.code),))
        answers: asyncio.Queue[Awaitable[bytes] | None] = asyncio.Queue()
        room = asyncio.Semaphore(STREAM_AHEAD)
        reader = asyncio.create_task(self._read_stream(context, answers, room))
        self._readers.add(reader)
        self.calls += 1
        try:
            while (answer := await answers.get()) is not None:
                await context.write(await answer)
                room.release()
        finally:
            self.calls -= 1
            self._readers.discard(reader)
            reader.cancel()
            while not answers.empty():
                if isinstance(left := answers.get_nowait(), asyncio.Task):
                    left.cancel()
        if self.is_draining:
            gone = DrainingError("the daemon is stopping")
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"{gone} [{gone.code}]", ((CODE_KEY, gone.code),))

    async def _read_stream(
        self, context: Any, answers: "asyncio.Queue[Awaitable[bytes] | None]", room: asyncio.Semaphore
    ) -> None:
        """Submit requests as they come, a bounded number ahead of their answers; None marks the end."""
        try:
            while not self.is_draining:
                await room.acquire()
                body = await context.read()
                if body is grpc.aio.EOF:
                    return
                answers.put_nowait(self._begin_streamed(body))
        finally:
            answers.put_nowait(None)

    def _begin_streamed(self, body: bytes) -> Awaitable[bytes]:
        """Submit now, so that requests run in their order; what is returned never fails."""
        exchange: Exchange | None = None
        try:
            exchange = Exchange(body, self._regions, self._limits, is_streamed=True)
            begun: bytes | asyncio.Future[bytes] | Exception = self._submit(exchange)
        except Exception as error:  # noqa: BLE001 - as in _answer
            begun = error
        if isinstance(begun, bytes):
            self._count("OK")
            done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            done.set_result(begun)
            return done
        return asyncio.create_task(self._streamed(begun, exchange.id if exchange else ""))

    async def _streamed(self, begun: "asyncio.Future[bytes] | Exception", id: str) -> bytes:
        try:
            if isinstance(begun, Exception):
                raise begun
            answer = await _settled(begun)
        except Exception as error:  # noqa: BLE001 - as in _answer
            status, text, _ = status_of(error)
            self._count(status.name)
            return streamed_failure(text, id)
        self._count("OK")
        return answer

    def _count(self, status: str) -> None:
        label = f'status="{status}"'
        self.answered[label] = self.answered.get(label, 0) + 1


async def _settled(running: Awaitable[bytes]) -> bytes:
    """What runs elsewhere. Raises DrainingError when the daemon cancels it, CancelledError when the client does."""
    try:
        return await running
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise DrainingError("the daemon is stopping") from None


def _tell(kind: Any, told: Told, body: bytes) -> "bytes | Awaitable[bytes]":
    """Answer a call about the server or a model. What takes its time is awaited."""
    response = told(parsed(kind, body))
    if asyncio.iscoroutine(response):
        return _serialized(response)
    return bytes(response.SerializeToString())


async def _serialized(response: Awaitable[Any]) -> bytes:
    return bytes((await response).SerializeToString())
