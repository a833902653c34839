"""How do bytes come from the fleet's store: resumable, checked, and never half-written?

Plain http.client over TLS with the device's certificate. A blob grows in `HEX.part`, is resumed by Range after any cut,
and gets its name only when its digest fits.
"""

import http.client
import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from runtime.contract.errors import DigestError
from runtime.contract.trust import NotFound
from runtime.errors import DiskFullError, FetchError
from runtime.files import naming_a_full_disk, rename_durably
from runtime.update.verify import check_file

PART_SUFFIX = ".part"
CHUNK_BYTES = 256 * 1024
IDLE_TIMEOUT_S = 30.0
_BROKEN = (OSError, http.client.HTTPException)


class Door:
    """The fleet's device door: release metadata and blobs over one kept-alive connection."""

    def __init__(self, url: str, context: ssl.SSLContext, timeout_s: float = IDLE_TIMEOUT_S) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname:
            raise FetchError(f"{url!r} is not an https address")
        self._connection = http.client.HTTPSConnection(parts.hostname, parts.port or 443, timeout=timeout_s, context=context)
        self._prefix = parts.path.rstrip("/")

    def close(self) -> None:
        self._connection.close()

    def document(self, path: str) -> Iterator[bytes]:
        """Bytes of a path below the release store; the `Fetch` of `contract.trust`. Raises NotFound or OSError."""
        try:
            response = self._get(f"/tuf/{path}")
            if response.status == 404:
                response.read()
                raise NotFound(path)
            if response.status != 200:
                response.read()
                raise OSError(f"{path}: HTTP {response.status}")
            while chunk := response.read(CHUNK_BYTES):
                yield chunk
        except http.client.HTTPException as error:
            self.close()
            raise OSError(f"{path}: {type(error).__name__} {error}") from error
        except OSError:
            self.close()
            raise

    def blob(self, sha256: str, size_bytes: int, folder: Path) -> None:
        """Bring one blob into the folder, resuming what is there of it. Durable when it returns.

        Raises FetchError (the part stays for the next try), DigestError or DiskFullError (nothing stays).
        """
        part = folder / (sha256 + PART_SUFFIX)
        resumed = part.is_file() and part.stat().st_size > 0
        try:
            self._complete(part, sha256, size_bytes)
            check_file(part, sha256, size_bytes)
        except DigestError:
            part.unlink(missing_ok=True)
            if not resumed:
                raise
            # A power cut may have left a part whose tail never reached the disk: that is no fault of the store.
            self.blob(sha256, size_bytes, folder)
            return
        except DiskFullError:
            part.unlink(missing_ok=True)
            raise
        rename_durably(part, folder / sha256)

    def _complete(self, part: Path, sha256: str, size_bytes: int) -> None:
        """Append until the part is whole. A cut that still brought something is followed by another request at once."""
        with part.open("ab") as file:
            while (have := os.fstat(file.fileno()).st_size) < size_bytes:
                cut: Exception | None = None
                try:
                    self._append(file.fileno(), sha256, have, size_bytes)
                except _BROKEN as error:
                    cut = error
                    self.close()
                if os.fstat(file.fileno()).st_size == have:
                    raise FetchError(f"blob {sha256[:12]}…: {cut or 'the store sends nothing'}") from cut
            os.fsync(file.fileno())

    def _append(self, handle: int, sha256: str, have: int, size_bytes: int) -> None:
        response = self._get(f"/blobs/{sha256}", {"Range": f"bytes={have}-"} if have else {})
        if response.status == 200 and have:
            os.ftruncate(handle, 0)  # a store without Range sends everything again
            have = 0
        elif response.status not in (200, 206):
            response.read()
            raise FetchError(f"blob {sha256[:12]}…: the store answers HTTP {response.status}")
        while chunk := response.read(CHUNK_BYTES):
            have += len(chunk)
            if have > size_bytes:
                self.close()
                raise DigestError(f"blob {sha256[:12]}… is longer than the {size_bytes} bytes signed for it")
            with naming_a_full_disk(f"fetching blob {sha256[:12]}…"):
                _write_all(handle, chunk)

    def _get(self, path: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
        try:
            return self._request(path, headers or {})
        except (http.client.RemoteDisconnected, ConnectionError, ssl.SSLEOFError):
            # The server may close a kept-alive connection between two requests; a fresh one decides.
            self.close()
            return self._request(path, headers or {})

    def _request(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        self._connection.request("GET", self._prefix + path, headers=headers)
        return self._connection.getresponse()


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]
