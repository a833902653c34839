"""What does the fleet's device door answer: release metadata, what a blob is cut into, and any stretch of a blob?

Plain http.client over TLS with the device's certificate, on one kept-alive connection. Bytes are passed on as they arrive,
never gathered first: a helper whose time is up, or a connection that is cut, loses nothing that came.
"""

import http.client
import logging
import re
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from runtime.contract.chunks import index_limit
from runtime.contract.errors import DigestError
from runtime.contract.trust import NotFound
from runtime.errors import FetchError
from runtime.update.pace import Pace

log = logging.getLogger(__name__)

IDLE_TIMEOUT_S = 30.0
INDEX_TIMEOUT_S = 8.0
"""Well within a fetch's slice: a store that hangs over an index must not hang the update."""
BROKEN = (OSError, http.client.HTTPException)
"""What a cut connection, a dead store or an answer that is no HTTP may raise."""
_INDEX_TRIES = 3
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-.*")


class Door:
    """received_bytes: what came in the bodies of its answers so far."""

    def __init__(self, url: str, context: ssl.SSLContext, timeout_s: float = IDLE_TIMEOUT_S, pace: Pace | None = None) -> None:
        """Raises FetchError unless the address is https."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise FetchError(f"{url!r} is not an https address")
        self._connection = http.client.HTTPSConnection(parts.hostname, parts.port or 443, timeout=timeout_s, context=context)
        self._prefix = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        self._pace = pace or Pace()
        self.received_bytes = 0

    def close(self) -> None:
        """The next request opens a new connection."""
        self._connection.close()

    def document(self, path: str) -> Iterator[bytes]:
        """Bytes of a path below the release store; the `Fetch` of `contract.trust`. Raises NotFound or OSError."""
        try:
            response = self._get(f"/tuf/{path}")
            if response.status != 200:
                self.close()  # the body of a refusal is nothing to wait for
                raise NotFound(path) if response.status == 404 else OSError(f"{path}: HTTP {response.status}")
            yield from self._body(response)
        except http.client.HTTPException as error:
            self.close()
            raise OSError(f"{path}: {type(error).__name__} {error}") from error
        except OSError:
            self.close()
            raise

    def chunk_index(self, sha256: str, size_bytes: int) -> bytes | None:
        """What the store says the blob is cut into, at most `index_limit` bytes; None when it does not say.

        A cut is tried again: going without costs more than half of the blob. A store out of reach is found out by what follows.
        """
        for _ in range(_INDEX_TRIES):
            try:
                return self._chunk_index(sha256, size_bytes)
            except BROKEN as error:
                self.close()
                log.warning("blob %s…: its chunk index did not come: %s", sha256[:12], error)
                if isinstance(error, TimeoutError):
                    break
        return None

    def _chunk_index(self, sha256: str, size_bytes: int) -> bytes | None:
        response = self._get(f"/blobs/{sha256}/chunks", timeout_s=min(INDEX_TIMEOUT_S, self._timeout_s))
        if response.status != 200:
            self.close()
            return None
        announced, raw = response.length, bytearray()
        for piece in self._body(response):
            raw += piece
            if len(raw) > index_limit(size_bytes):
                log.warning("blob %s…: the store's chunk index is longer than one can be", sha256[:12])
                return None
        if announced is not None and len(raw) < announced:
            raise http.client.IncompleteRead(bytes(raw), announced - len(raw))
        return bytes(raw)

    def content(self, sha256: str, first: int, end: int, size_bytes: int) -> Iterator[bytes]:
        """The blob's bytes from `first` on, up to `end`; a store that knows no Range goes on to the blob's end.

        May stop early, as a cut does. Raises FetchError for another answer, DigestError when the blob is longer than
        size_bytes, and BROKEN. No If-Range: the address is the content's digest, so what lies there cannot change, and a
        store that breaks this is found out by the digest of the whole.
        """
        stretch = f"bytes={first}-" if end == size_bytes else f"bytes={first}-{end - 1}"
        response = self._get(f"/blobs/{sha256}", {} if (first, end) == (0, size_bytes) else {"Range": stretch})
        if response.status == 200:
            skip, left = first, size_bytes - first
        elif response.status == 206 and _starts_at(response, first):
            skip, left = 0, end - first
        else:
            self.close()
            raise FetchError(f"blob {sha256[:12]}…: the store answers {stretch} with HTTP {response.status}")
        for piece in self._body(response):
            wanted = piece[skip:]
            skip = max(0, skip - len(piece))
            if len(wanted) > left and (response.status == 200 or end == size_bytes):
                raise DigestError(f"blob {sha256[:12]}… is longer than the {size_bytes} bytes signed for it")
            yield wanted[:left]
            left -= len(wanted)
            if left < 0:  # more than was asked for; what follows is no business of ours
                return

    def _body(self, response: http.client.HTTPResponse) -> Iterator[bytes]:
        """What arrives, as it arrives. The connection lives on only when the announced length was read to its end."""
        left = response.length
        try:
            # Counted here: read1 of Python 3.11 would wait for more behind the end of the body.
            most = self._pace.piece_bytes
            while left != 0 and (piece := response.read1(min(most, left or most))):
                left = None if left is None else left - len(piece)
                self.received_bytes += len(piece)
                yield piece  # before the pause, so that it is on the disk meanwhile
                self._pace.spend(len(piece))
        finally:
            if left == 0:
                response.close()
            else:
                self.close()

    def _get(self, path: str, headers: dict[str, str] | None = None, timeout_s: float | None = None) -> http.client.HTTPResponse:
        try:
            return self._request(path, headers or {}, timeout_s or self._timeout_s)
        except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError):
            # The server may close a kept-alive connection between two requests; a fresh one decides.
            self.close()
            return self._request(path, headers or {}, timeout_s or self._timeout_s)

    def _request(self, path: str, headers: dict[str, str], timeout_s: float) -> http.client.HTTPResponse:
        is_new = self._connection.sock is None
        if is_new:
            self._connection.connect()
        if is_new and self._pace.buffer_bytes:
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._pace.buffer_bytes)
        self._connection.sock.settimeout(timeout_s)
        self._connection.request("GET", self._prefix + path, headers=headers)
        return self._connection.getresponse()


def _starts_at(response: http.client.HTTPResponse, first: int) -> bool:
    """Whether a partial answer begins where it was asked to."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == first
