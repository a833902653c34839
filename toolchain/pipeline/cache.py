"""Where do results of stages live between builds, and when may one be used again?

ROOT/stages/KEY/{record.json, files/...}: one folder per result, written in ROOT/work and renamed whole. ROOT/last remembers
which key a stage of a project had the last time, only to explain what changed; ROOT/traces what data sources opened;
ROOT/partial/KEY what an unfinished stage goes on from; ROOT/studies the searches.
An entry that cannot be read, or whose files differ from its record, is a miss said aloud.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from toolchain.errors import CacheError
from toolchain.files import files_below, rename_folder, sha256_file, write_durably
from toolchain.pipeline.filehash import FileHashes

RECORD_NAME = "record.json"
FILES_NAME = "files"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Who made one result, from what. ingredients: everything the key is the digest of, by name.

    value: the stage's typed result; files: name -> sha256 of the payload beside it; output: digest of both.
    """

    name: str
    key: str
    ingredients: dict[str, Any]
    value: msgspec.Raw
    files: dict[str, str]
    output: str
    seconds: float
    made_at: float


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    record: Record
    files: Path


class StageCache:
    """A folder of finished stage results. Safe for several builds at once: the first rename wins, all results are equal."""

    def __init__(self, root: Path, *, rehash: bool = False) -> None:
        self.root = root
        self.partial = root / "partial"
        try:
            for name in ("stages", "work", "last", "traces", "partial", "studies"):
                (root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(f"{root}: the stage cache cannot be written ({error.strerror}); set EDGEWRIGHT_CACHE") from error
        self.hashes = FileHashes(root / "files.bin", rehash=rehash)

    def get(self, key: str) -> tuple[Entry | None, str]:
        """The entry of this key, or None and the reason when something is there that cannot be trusted."""
        folder = self.root / "stages" / key
        if not folder.exists():
            return None, ""
        try:
            record = msgspec.json.decode((folder / RECORD_NAME).read_bytes(), type=Record)
            problem = self._problem(record, key, folder / FILES_NAME)
        except (OSError, msgspec.MsgspecError) as error:
            problem = f"unreadable ({error})"
        if problem:
            return None, f"its cache entry is {problem}"
        with contextlib.suppress(OSError):  # only tells `gc` that somebody still needs it; a read-only cache serves as well
            os.utime(folder / RECORD_NAME)
        return Entry(record=record, files=folder / FILES_NAME), ""

    @contextmanager
    def workdir(self) -> Iterator[Path]:
        """A private folder on the cache's file system, gone afterwards whatever happens."""
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self.root / "work"))
        try:
            (folder / FILES_NAME).mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(
        self, work: Path, *, name: str, key: str, ingredients: dict[str, Any], value: bytes, seconds: float, replace: bool = False
    ) -> Entry:
        """Keep what a stage left in `work`/files under its key, in place of an entry that is damaged or to be replaced."""
        files = {str(path.relative_to(work / FILES_NAME)): sha256_file(path) for path in files_below(work / FILES_NAME)}
        record = Record(
            name=name, key=key, ingredients=ingredients, value=msgspec.Raw(value), files=files,
            output=_output_digest(value, files), seconds=seconds, made_at=time.time(),
        )  # fmt: skip
        final = self.root / "stages" / key
        try:
            (work / RECORD_NAME).write_bytes(msgspec.json.encode(record))
            if final.exists() and (replace or self.get(key)[0] is None):
                shutil.rmtree(final)
            rename_folder(work, final)
        except OSError as error:
            found, _ = self.get(key)
            if found is None:
                raise CacheError(f"{final}: cannot be written ({error}); free some space or set EDGEWRIGHT_CACHE") from error
            return found  # another build was faster; same key, same result
        shutil.rmtree(self.partial / key, ignore_errors=True)  # the stage is finished
        return Entry(record=record, files=final / FILES_NAME)

    def last(self, project: str, stage: str) -> Record | None:
        """How this stage was made the last time in this project, if that can still be told."""
        try:
            raw = (self.root / "stages" / self.last_key(project, stage) / RECORD_NAME).read_bytes()
            return msgspec.json.decode(raw, type=Record)
        except (OSError, msgspec.MsgspecError):
            return None

    def last_key(self, project: str, stage: str) -> str:
        """What `set_last` was told, or "absent"."""
        try:
            return self._last_path(project, stage).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return "absent"

    def set_last(self, project: str, stage: str, key: str) -> None:
        if self.last_key(project, stage) != key:
            write_durably(self._last_path(project, stage), key.encode())

    def _last_path(self, project: str, stage: str) -> Path:
        return self.root / "last" / hashlib.sha256(f"{project}\0{stage}".encode()).hexdigest()

    def _problem(self, record: Record, key: str, folder: Path) -> str:
        if record.key != key or record.output != _output_digest(bytes(record.value), record.files):
            return "damaged (its record does not fit its digest)"
        for name, sha256 in record.files.items():
            try:
                if self.hashes.digest(folder / name) != sha256:
                    return f"damaged ({name} changed since it was written)"
            except OSError:
                return f"incomplete ({name} is gone)"
        return ""


def _output_digest(value: bytes, files: dict[str, str]) -> str:
    digest = hashlib.sha256(value)
    for name in sorted(files):
        digest.update(f"\0{name}\0{files[name]}".encode())
    return digest.hexdigest()
