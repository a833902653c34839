"""What of a batch run is on disk, so that a kill at any moment costs at most the chunk under way?

OUT.work/job.json says what is being done, OUT.work/chunk-00000000.npz what came of each chunk: answers, rejected rows and what
the monitor counted, in one file that appears whole or not at all. OUT itself appears by one rename when all are there; what
was done stays beside it as OUT.job.json, and rejected rows as OUT.rejects.jsonl.
"""

import fcntl
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from runtime.batch.answers import Answers
from runtime.batch.npz import save_npz
from runtime.errors import BatchError, RequestError
from runtime.files import make_directory, remove_durably, write_durably
from runtime.monitor.monitor import WindowCounts

_FORMAT = 1
_OUTPUT = "out."


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What decides every byte of the result, and at the end what became of it.

    source: digest of the files' names, sizes and times. failed, finished, drift: once all is written.
    """

    format: int = _FORMAT
    model: str
    version: str
    artifact: str
    source: str
    rows: int
    rows_per_batch: int
    raw: bool
    watched: bool
    failed: int = 0
    finished: bool = False
    drift: dict[str, Any] = {}


class Chunk(msgspec.Struct, frozen=True):
    """One finished chunk. names: of the files its rows came from, as long as answers.rows, or empty."""

    answers: Answers
    names: tuple[str, ...] = ()
    bad_names: tuple[str, ...] = ()
    window: WindowCounts | None = None


class Work:
    """The folder of an unfinished run beside its result."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.folder = out.with_name(out.name + ".work")
        self.record = out.with_name(out.name + ".job.json")
        self.rejects = out.with_name(out.name + ".rejects.jsonl")

    @contextmanager
    def held(self) -> Iterator[None]:
        """Be the only run that writes this result. Raises RequestError when there is another."""
        make_directory(self.folder)
        with (self.folder / "lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RequestError(f"{self.out}: another run is writing it") from error
            yield

    def begun(self) -> Job | None:
        """The unfinished run's job; None where none began."""
        return _read_job(self.folder / "job.json")

    def finished(self) -> Job | None:
        """The job whose result is there; None where no result is, or it is not known where from."""
        return _read_job(self.record) if self.out.exists() else None

    def begin(self, job: Job) -> None:
        write_durably(self.folder / "job.json", msgspec.json.format(msgspec.json.encode(job)) + b"\n")

    def done(self) -> int:
        """How many chunks are finished, from the first on without a gap."""
        count = 0
        while self._path(count).exists():
            count += 1
        return count

    def write(self, index: int, chunk: Chunk) -> None:
        """Keep a chunk; when this returns no power cut can take it. Raises DiskFullError."""
        bad = chunk.answers.bad
        arrays = {
            "row": chunk.answers.rows,
            "name": np.array(chunk.names, np.str_),
            "bad_name": np.array(chunk.bad_names, np.str_),
        }
        arrays |= {"bad_row": np.array(list(bad), np.int64), "bad_reason": np.array(list(bad.values()), np.str_)}
        arrays |= {_OUTPUT + name: array for name, array in chunk.answers.outputs.items()}
        if chunk.window is not None:
            arrays["window"] = np.frombuffer(msgspec.msgpack.encode(chunk.window), np.uint8)
        buffer = io.BytesIO()
        save_npz(buffer, arrays)
        write_durably(self._path(index), buffer.getvalue())

    def read(self, index: int) -> Chunk:
        """Raises BatchError for a chunk that is not as it was written."""
        try:
            with np.load(self._path(index), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            window = arrays.get("window")
            bad = dict(zip(arrays["bad_row"].tolist(), arrays["bad_reason"].tolist(), strict=True))
            outputs = {name.removeprefix(_OUTPUT): value for name, value in arrays.items() if name.startswith(_OUTPUT)}
            return Chunk(
                answers=Answers(arrays["row"], outputs, bad),
                names=tuple(arrays["name"].tolist()),
                bad_names=tuple(arrays["bad_name"].tolist()),
                window=None if window is None else msgspec.msgpack.decode(window.tobytes(), type=WindowCounts),
            )
        except (OSError, ValueError, KeyError, EOFError, msgspec.MsgspecError) as error:
            raise BatchError(f"{self._path(index)} is damaged ({error}); remove {self.folder} and begin again") from error

    def chunks(self, count: int) -> Iterator[Chunk]:
        for index in range(count):
            yield self.read(index)

    def finish(self, job: Job) -> None:
        """Leave no trace of the work but its record."""
        write_durably(self.record, msgspec.json.format(msgspec.json.encode(job)) + b"\n")

    def clear(self) -> None:
        remove_durably(self.folder)

    def _path(self, index: int) -> Path:
        return self.folder / f"chunk-{index:08d}.npz"


def _read_job(path: Path) -> Job | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Job)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise BatchError(f"{path} cannot be read: {error}; remove it and begin again") from error
