"""How does a blob come from the fleet's store: resumable, checked, and never half-written?

It grows in `HEX.part`, always a beginning of the blob, out of what the store sends and, where that saves more than half,
out of chunks that lie on the device already. It is resumed after any cut and gets its name only when its digest fits.
"""

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from runtime.contract.chunks import LEAST_BLOB_BYTES, read_index
from runtime.contract.errors import ContractError, DigestError
from runtime.errors import DiskFullError, FetchError
from runtime.files import naming_a_full_disk, rename_durably, write_durably
from runtime.update.delta import Assembly, LocalChunks, Plan, read_plan, write_plan
from runtime.update.door import BROKEN, Door
from runtime.update.pace import Progress
from runtime.update.slots import PART_SUFFIX, PLAN_SUFFIX
from runtime.update.verify import check_file

log = logging.getLogger(__name__)

WHOLE = Plan()


class Brought(NamedTuple):
    """What a fetch cost. fetched_bytes: payload and indexes that came over the wire; copied_bytes: taken from this device.

    fallbacks: blobs that came out wrong by a delta and were fetched whole after all.
    """

    fetched_bytes: int = 0
    copied_bytes: int = 0
    fallbacks: int = 0


class Store:
    """The fleet's store as a `Source`."""

    def __init__(self, door: Door, progress: Progress | None = None) -> None:
        self._door = door
        self._progress = progress or Progress()

    def close(self) -> None:
        self._door.close()

    def document(self, path: str) -> Iterator[bytes]:
        """See `Door.document`."""
        return self._door.document(path)

    def blob(self, sha256: str, size_bytes: int, folder: Path, local: LocalChunks | None = None) -> Brought:
        """Bring one blob into the folder, resuming what is there of it. Durable when it returns.

        local: what the device may take chunks from. Raises FetchError (what came stays for the next try), DigestError or
        DiskFullError (nothing stays).
        """
        return _Transfer(self._door, self._progress, sha256, size_bytes, folder).run(local)


class _Transfer:
    """One blob on its way in."""

    def __init__(self, door: Door, progress: Progress, sha256: str, size_bytes: int, folder: Path) -> None:
        self._door = door
        self._progress = progress
        self._sha256 = sha256
        self._size_bytes = size_bytes
        self._blob = folder / sha256
        self._part = folder / (sha256 + PART_SUFFIX)
        self._plan = folder / (sha256 + PLAN_SUFFIX)
        self._copied_bytes = 0
        self._fallbacks = 0
        self._answers = 0

    def run(self, local: LocalChunks | None) -> Brought:
        before = self._door.received_bytes
        try:
            is_resumed = self._has_part()
            self._until_right(self._planned(local), is_resumed)
        except (DigestError, DiskFullError):
            self._part.unlink(missing_ok=True)
            self._plan.unlink(missing_ok=True)
            raise
        self._plan.unlink(missing_ok=True)
        rename_durably(self._part, self._blob)
        return Brought(self._door.received_bytes - before, self._copied_bytes, self._fallbacks)

    def _planned(self, local: LocalChunks | None) -> Plan:
        """How to go on: as planned before, from this device where that saves more than half, else all from the store."""
        if self._plan.is_file():
            return read_plan(self._plan.read_bytes(), self._size_bytes)
        if local is None or self._size_bytes < LEAST_BLOB_BYTES or self._has_part():
            return WHOLE
        raw = self._door.chunk_index(self._sha256, self._size_bytes)
        if raw is None:
            return WHOLE
        try:
            plan = local.plan(read_index(raw, self._size_bytes))
        except ContractError as error:
            log.warning("blob %s…: fetched whole: %s", self._sha256[:12], error)
            return WHOLE
        log.info("blob %s…: %d of %d bytes are here already", self._sha256[:12], plan.local_bytes, self._size_bytes)
        if not plan.saves_more_than_half:
            return WHOLE
        write_durably(self._plan, write_plan(plan))
        return plan

    def _until_right(self, plan: Plan, is_resumed: bool) -> None:
        """Complete the part; where it comes out wrong, begin again with less trust in what it was made of."""
        try:
            self._complete(plan)
            return
        except DigestError:
            # Wrong in one piece is the store's fault for good. Put together of several it may be that of a part whose
            # tail a power cut took, of an index that lied, or of a blob that was mended between two answers.
            if not (plan.steps or is_resumed or self._answers > 1):
                raise
        self._part.unlink(missing_ok=True)
        if plan.steps and is_resumed and not plan.is_second:
            log.warning("blob %s…: what was there of it is damaged; it is put together anew", self._sha256[:12])
            second = msgspec.structs.replace(plan, is_second=True)
            write_durably(self._plan, write_plan(second))
            self._until_right(second, False)
            return
        if plan.steps:
            self._fallbacks += 1
            write_durably(self._plan, write_plan(WHOLE))
        log.warning("blob %s…: what was put together has another digest; it is fetched whole", self._sha256[:12])
        self._complete(WHOLE)

    def _complete(self, plan: Plan) -> None:
        """Append until the part is whole, then check it. A cut that still brought something is followed by another request at once."""
        assembly = Assembly(plan) if plan.steps else None
        with self._part.open("ab") as file:
            while (have := os.fstat(file.fileno()).st_size) < self._size_bytes:
                data, end = assembly.following(have) if assembly else (b"", self._size_bytes)
                if data:
                    self._append(file.fileno(), data)
                    self._copied_bytes += len(data)
                else:
                    self._fetch(file.fileno(), have, end)
            os.fsync(file.fileno())
        check_file(self._part, self._sha256, self._size_bytes)

    def _fetch(self, handle: int, have: int, end: int) -> None:
        cut: Exception | None = None
        came = 0
        try:
            for piece in self._door.content(self._sha256, have, end, self._size_bytes):
                self._append(handle, piece)
                came += len(piece)
                self._progress.at(self._sha256, have + came, self._size_bytes)
        except BROKEN as error:
            cut = error
            self._door.close()
        if not came:
            raise FetchError(f"blob {self._sha256[:12]}…: {cut or 'the store sends nothing'}") from cut
        self._answers += 1

    def _append(self, handle: int, data: bytes) -> None:
        with naming_a_full_disk(f"fetching blob {self._sha256[:12]}…"):
            view = memoryview(data)
            while view:
                view = view[os.write(handle, view) :]

    def _has_part(self) -> bool:
        return self._part.is_file() and self._part.stat().st_size > 0
