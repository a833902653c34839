"""Where can release metadata and blobs come from: the fleet's door, or a side-loaded bundle?

Both give the same two things, so the same checks stand behind both. A bundle (`.edge`) is an uncompressed zip whose
members are paths of the release store: `metadata/...`, `targets/...` and `blobs/sha256/HEX`.
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from runtime.contract.errors import DigestError
from runtime.contract.trust import NotFound, ReleaseTrust
from runtime.errors import ConfigError, FetchError
from runtime.files import TEMPORARY_SUFFIX, naming_a_full_disk, rename_durably
from runtime.identity import client_context, read_identity, read_root
from runtime.update.delta import LocalChunks
from runtime.update.door import Door
from runtime.update.download import Brought, Store
from runtime.update.pace import LARGEST_PIECE, Pace
from runtime.update.verify import check_file

# What zipfile raises over files that are no zip, cut short, encrypted, or packed in a way it does not know.
_UNREADABLE = (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, struct.error)


class Source(Protocol):
    def document(self, path: str) -> Iterator[bytes]:
        """Bytes of a path below the release store. Raises NotFound or OSError."""

    def blob(self, sha256: str, size_bytes: int, folder: Path, local: LocalChunks | None = None) -> Brought:
        """Bring a blob into the folder, checked and durable. Raises FetchError, DigestError or DiskFullError.

        local: what the device has already and a source may take from there.
        """

    def close(self) -> None: ...


@contextmanager
def open_source(state_dir: Path, bundle: str, bytes_per_s: int = 0) -> Iterator[Source]:
    """The bundle at this path, or with "" the fleet's door. Raises ConfigError when the device is not enrolled.

    bytes_per_s: bound on what comes over the network, 0 for none.
    """
    source: Source
    if bundle:
        source = Bundle(Path(bundle))
    else:
        identity = read_identity(state_dir)
        if identity is None or not identity.is_enrolled:
            raise ConfigError("this device belongs to no fleet; enrol it first: runtime enroll TOKEN")
        source = Store(Door(identity.url, client_context(state_dir), pace=Pace(bytes_per_s)))
    try:
        yield source
    finally:
        source.close()


@contextmanager
def trusting(state_dir: Path, source: Source, *, now_s: int = 0, last_contact_s: int | None = None) -> Iterator[ReleaseTrust]:
    """The release metadata this device believes in, brought up to date from the source.

    now_s: 0 for the system's clock; last_contact_s: for a bundle, as of `ReleaseTrust`.
    Raises RefusedError's kin; FetchError, also from within the block, when the source cannot be read.
    """
    identity = read_identity(state_dir)
    if identity is None:
        raise ConfigError("no release root is pinned on this device; enrol it first: runtime enroll TOKEN")
    try:
        trust = ReleaseTrust(
            state_dir / "trust",
            read_root(state_dir),
            identity.root_sha256,
            source.document,
            now_s=now_s or None,
            last_contact_s=last_contact_s,
        )
        trust.refresh()
        yield trust
    except OSError as error:
        raise FetchError(f"release store: {error}") from error


class Bundle:
    """A side-load file. It comes from anybody's stick: whatever is wrong with it is a FetchError, never a crash."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = zipfile.ZipFile(path)
        except _UNREADABLE as error:
            raise FetchError(f"{path}: {error}; a bundle is made by `toolchain bundle`") from error

    def close(self) -> None:
        self._zip.close()

    def document(self, path: str) -> Iterator[bytes]:
        try:
            with self._zip.open(path) as member:
                while chunk := member.read(LARGEST_PIECE):
                    yield chunk
        except KeyError as error:
            raise NotFound(path) from error
        except _UNREADABLE as error:
            raise OSError(f"bundle: {path}: {error}") from error

    def blob(self, sha256: str, size_bytes: int, folder: Path, local: LocalChunks | None = None) -> Brought:
        """Unpacked whole: reading the stick costs no more than reading the device's own disk."""
        temporary = folder / (sha256 + TEMPORARY_SUFFIX)
        try:
            with naming_a_full_disk(f"unpacking blob {sha256[:12]}…"), temporary.open("wb") as file:
                for chunk in self._content(sha256, size_bytes):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            check_file(temporary, sha256, size_bytes)
            rename_durably(temporary, folder / sha256)
        finally:
            temporary.unlink(missing_ok=True)
        return Brought(fetched_bytes=size_bytes)

    def _content(self, sha256: str, size_bytes: int) -> Iterator[bytes]:
        """Never more than was signed: a compressed member may inflate without end."""
        left = size_bytes
        try:
            for chunk in self.document(f"blobs/sha256/{sha256}"):
                if (left := left - len(chunk)) < 0:
                    raise DigestError(f"blob {sha256[:12]}… is longer than the {size_bytes} bytes signed for it")
                yield chunk
        except NotFound as error:
            raise FetchError(f"the bundle lacks blob {sha256[:12]}…") from error
        except OSError as error:
            raise FetchError(str(error)) from error
