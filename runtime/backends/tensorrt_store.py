"""Where are built engines kept, and when may one be used again?

An engine belongs to one model, one set of options, one TensorRT, one kind of GPU and one driver; on any other it may load and be
wrong. FOLDER/DIGEST.engine holds one for each model and options: a line of JSON that says all of that and the digest of what
follows, then the engine. Whatever does not fit word for word is built again, said in the log. Beside it lies TensorRT's timing
cache, so that the next build on the same device measures less.
"""

import fcntl
import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from runtime.errors import DiskFullError
from runtime.files import write_durably

log = logging.getLogger(__name__)

LOCK_FILE = "lock"
ENGINE_SUFFIX = ".engine"
KEPT = 8
"""Engines per folder: two slots of a few models; an engine is about as large as its model."""
_HEADER_LIMIT = 4096


class EngineKey(msgspec.Struct, frozen=True, kw_only=True):
    """All that an engine depends on. model, options: sha256; the others as the libraries and the driver name themselves."""

    model: str
    options: str
    tensorrt: str
    gpu: str
    compute_capability: str
    cuda: str

    @property
    def file(self) -> str:
        """The same for the same model and options, so that an engine for another environment is replaced, not left behind."""
        return hashlib.sha256(f"{self.model}\0{self.options}".encode()).hexdigest() + ENGINE_SUFFIX

    @property
    def timing_file(self) -> str:
        """TensorRT refuses timings of another version or kind of GPU."""
        return f"timing-{self.tensorrt}-sm{self.compute_capability.replace('.', '')}.cache"


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    key: EngineKey
    sha256: str


class EngineStore:
    """A folder of engines. One that cannot be written costs a build at every start, said in the log, and nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Blocks while another process builds into this folder: two builds would disturb each other's timings."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            file = (self._folder / LOCK_FILE).open("a")
        except OSError as error:
            log.warning("%s: engines cannot be kept here (%s); one is built at every start", self._folder, error.strerror)
            yield
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def get(self, key: EngineKey) -> bytes | None:
        """The engine for exactly this key, or None, the reason in the log where there is something."""
        path = self._folder / key.file
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("%s cannot be read (%s); building again", path, error.strerror)
            return None
        line, _, engine = raw.partition(b"\n")
        try:
            header = msgspec.json.decode(line[:_HEADER_LIMIT], type=_Header)
        except msgspec.MsgspecError:
            log.warning("%s is damaged: its first line cannot be read; building again", path)
            return None
        if header.key != key:
            log.info("%s was built for %s; building again", path, _differences(header.key, key))
            return None
        if hashlib.sha256(engine).hexdigest() != header.sha256:
            log.warning("%s is damaged: its content does not fit its digest; building again", path)
            return None
        with suppress(OSError):  # only tells which engines are in use
            path.touch()
        return engine

    def put(self, key: EngineKey, engine: bytes) -> None:
        """Keep an engine, in place of one for another environment; the longest unused beyond KEPT go."""
        header = msgspec.json.encode(_Header(key=key, sha256=hashlib.sha256(engine).hexdigest()))
        if self._write(key.file, header + b"\n" + engine):
            engines = sorted(self._folder.glob(f"*{ENGINE_SUFFIX}"), key=lambda path: path.stat().st_mtime)
            for path in engines[:-KEPT]:
                path.unlink(missing_ok=True)

    def drop(self, key: EngineKey) -> None:
        """Forget an engine that TensorRT itself refused."""
        with suppress(OSError):
            (self._folder / key.file).unlink(missing_ok=True)

    def timings(self, key: EngineKey) -> bytes:
        """What earlier builds measured on such a device; empty where nothing is known."""
        try:
            return (self._folder / key.timing_file).read_bytes()
        except OSError:
            return b""

    def put_timings(self, key: EngineKey, timings: bytes) -> None:
        self._write(key.timing_file, timings)

    def _write(self, name: str, content: bytes) -> bool:
        try:
            write_durably(self._folder / name, content)
        except (OSError, DiskFullError) as error:
            log.warning("%s cannot be kept: %s", self._folder / name, error)
            return False
        return True


def _differences(old: EngineKey, new: EngineKey) -> str:
    """ "tensorrt 10.8.0, here it is 10.13.3"."""
    before, after = msgspec.structs.asdict(old), msgspec.structs.asdict(new)
    return ", ".join(f"{name} {before[name]}, here it is {after[name]}" for name in before if before[name] != after[name])
