"""How much may one request bring, before anything has looked at it?

Bodies end up in memory, so they are bounded here, by what arrives and not by what a header claims. Uploads of blobs are
streamed to disk and counted where they are written.
"""

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

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

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit:
                # The one kind of error the framework lets pass while it reads a body.
                raise HTTPException(413, f"the body is over the limit of {self._limit} bytes")
            return message

        await self._app(scope, counted, send)
