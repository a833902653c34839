"""How much may one request bring, before anything has looked at it?

Bodies end up in memory, so they are bounded here, by what arrives and not by what a header claims. Uploads of blobs are
streamed to disk and counted where they are written.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fleet.api.problems import problem
from runtime.contract.errors import TooLargeError

STREAMED = "/api/v1/blobs/"


class BodyLimit:
    """ASGI middleware. limit: bytes of a request's body."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith(STREAMED):
            await self._app(scope, receive, send)
            return
        received = 0
        has_begun = False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                raise _OverLimitError
            return message

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, counted, watched)
        except _OverLimitError:
            if has_begun:
                raise
            detail = f"the body is over the limit of {self._limit} bytes"
            await problem(413, TooLargeError.code, detail)(scope, receive, send)


class _OverLimitError(Exception):
    """Passes through the application, which knows nothing of it, back to the middleware."""
