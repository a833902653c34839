"""Where do the payload files of artifacts lie?

A content-addressed store: the sha256 is the name, so a blob never changes, an upload may be repeated, and any cache or
mirror can serve it. `BlobStore` is what the service needs of one; `LocalBlobs` keeps them below a folder, an object store
would keep them elsewhere behind the same methods.
"""

import errno
import hashlib
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol, Self

from fleet.errors import InvalidError, StorageFullError, UnknownBlobError
from fleet.files import make_folder, settle, sync_file
from runtime.contract.chunks import LEAST_BLOB_BYTES, SCHEME, cut, write_index
from runtime.contract.errors import DigestError, TooLargeError

_HEX = frozenset("0123456789abcdef")


class BlobUpload(Protocol):
    """One blob on its way in; leaving the block without `commit` discards it."""

    def __enter__(self) -> Self: ...
    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...
    def write(self, chunk: bytes) -> None:
        """Raises TooLargeError or StorageFullError."""

    def commit(self) -> None:
        """Make the blob visible, whole and durable. Raises DigestError when the bytes are not those of the name."""


class BlobStore(Protocol):
    """Every method takes 64 lower-case hexadecimal digits, raises InvalidError for anything else, and blocks on I/O."""

    def size(self, sha256: str) -> int | None:
        """Bytes of the blob, None when there is none."""

    def upload(self, sha256: str) -> BlobUpload: ...

    def open(self, sha256: str) -> IO[bytes]:
        """The blob for reading, seekable. Raises UnknownBlobError."""

    def chunk_index(self, sha256: str) -> bytes | None:
        """Its index of `runtime.contract.chunks`, None for a blob too small to have one. Raises UnknownBlobError."""


class LocalBlobs:
    """Blobs as files: FOLDER/sha256/xx/HEX, written aside in FOLDER/incoming and renamed when complete and verified.

    FOLDER/chunks/SCHEME/xx/HEX is what they are cut into: made when first wanted, and kept. It can be deleted at any time.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        """limit: bytes of the largest blob taken."""
        self._folder = folder
        self._limit = limit
        self._incoming = folder / "incoming"
        self._cutting = threading.Lock()
        make_folder(self._incoming)

    def sweep(self) -> None:
        """Remove what uploads left behind that a crash cut short. Only while nothing uploads: at the service's start."""
        for leftover in self._incoming.iterdir():
            leftover.unlink()

    def size(self, sha256: str) -> int | None:
        try:
            return self._path(sha256).stat().st_size
        except FileNotFoundError:
            return None

    def upload(self, sha256: str) -> "LocalUpload":
        return LocalUpload(self._incoming, self._path(sha256), self._limit)

    def open(self, sha256: str) -> IO[bytes]:
        try:
            return self._path(sha256).open("rb")
        except FileNotFoundError as error:
            raise UnknownBlobError(f"there is no blob {sha256}") from error

    def read(self, sha256: str) -> bytes:
        """The whole blob; for the small ones, such as a drift reference. Raises UnknownBlobError."""
        with self.open(sha256) as file:
            return file.read()

    def chunk_index(self, sha256: str) -> bytes | None:
        """Blocks for the first caller's time, 0.3 s for 100 MB, while a new blob is cut; one blob at a time."""
        if (size := self.size(sha256)) is None:
            raise UnknownBlobError(f"there is no blob {sha256}")
        if size < LEAST_BLOB_BYTES:
            return None
        place = self._folder / "chunks" / SCHEME / sha256[:2] / sha256
        # A whole fleet asks at once when a rollout begins: the first one's work serves all.
        with self._cutting:
            try:
                return place.read_bytes()
            except FileNotFoundError:
                return self._make_index(sha256, place)

    def _make_index(self, sha256: str, place: Path) -> bytes:
        with self.open(sha256) as file:
            raw = write_index(list(cut(file.read)))
        scratch = self._incoming / f"{sha256}.{secrets.token_hex(4)}"
        try:
            with _full_disk_named(), scratch.open("xb") as index:
                index.write(raw)
                sync_file(index)
                make_folder(place.parent)
                settle(scratch, place)
        finally:
            scratch.unlink(missing_ok=True)
        return raw

    def _path(self, sha256: str) -> Path:
        if len(sha256) != 64 or not _HEX.issuperset(sha256):
            raise InvalidError(f"{sha256[:80]!r} is not a sha256: 64 lower-case hexadecimal digits")
        return self._folder / "sha256" / sha256[:2] / sha256


class LocalUpload:
    """See `BlobUpload`."""

    def __init__(self, incoming: Path, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._scratch = incoming / f"{path.name}.{secrets.token_hex(4)}"
        self._digest = hashlib.sha256()
        self._size = 0

    def __enter__(self) -> Self:
        self._file = self._scratch.open("xb")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()
        self._scratch.unlink(missing_ok=True)

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._limit:
            raise TooLargeError(f"blob {self._path.name[:12]}… is over the limit of {self._limit} bytes")
        self._digest.update(chunk)
        with _full_disk_named():
            self._file.write(chunk)

    def commit(self) -> None:
        if (found := self._digest.hexdigest()) != self._path.name:
            raise DigestError(f"the uploaded bytes have sha256 {found[:12]}… instead of {self._path.name[:12]}…")
        with _full_disk_named():
            sync_file(self._file)
            make_folder(self._path.parent)
            settle(self._scratch, self._path)


@contextmanager
def _full_disk_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFullError("no room left for blobs; free space below HOME/blobs, then upload again") from error
        raise
