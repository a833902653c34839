"""How is a network trained by several processes of this machine, and what becomes of it when one of them fails?

torchrun's elastic agent starts them on 127.0.0.1 (`toolchain.train.worker`). They report as JSON lines through one pipe; when this
process goes, the next report breaks that pipe and ends them too.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO

import msgspec

from toolchain import errors
from toolchain.errors import BuildError, StageError
from toolchain.pipeline.products import SteeringData, TrainedModel
from toolchain.pipeline.progress import EpochWatcher, Progress
from toolchain.pipeline.record import EpochResult
from toolchain.recipe import Recipe

JOB_NAME = "job.json"
_LOG_NAME = "log.txt"
_ROOT = Path(__file__).parents[2]
_LOG_TAIL = 4000
_STOP_S = 35.0
"""The agent gives its workers 30 s to end."""


class Job(msgspec.Struct, frozen=True):
    """A training as it is handed to another process. work: where rank 0 leaves its files."""

    recipe: Recipe
    folder: str
    data: SteeringData
    data_folder: str
    data_digest: str
    partial: str | None
    work: str


class Tick(msgspec.Struct, tag=True):
    done: int
    of: int
    text: str


class Note(msgspec.Struct, tag=True):
    text: str


class Epoch(msgspec.Struct, tag=True):
    result: EpochResult


class Done(msgspec.Struct, tag=True):
    model: TrainedModel


class Failed(msgspec.Struct, tag=True):
    """kind: the name of a class in toolchain.errors, "" for any other exception."""

    kind: str
    text: str


Report = Tick | Note | Epoch | Done | Failed


def launch(job: Job, progress: Progress) -> TrainedModel:
    """Train in `train.processes` processes. Raises the BuildError a worker met, or StageError saying how one ended."""
    with tempfile.TemporaryDirectory(prefix="edgewright-train-") as name:
        scratch = Path(name)
        (scratch / JOB_NAME).write_bytes(msgspec.json.encode(job))
        with (scratch / _LOG_NAME).open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "toolchain.train.worker", "supervise", str(scratch / JOB_NAME)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, env=_environment(), start_new_session=True,
            )  # fmt: skip
            assert process.stdout is not None
            try:
                last = _relay(process.stdout, progress)
                process.wait()
            finally:
                _stop(process)
        if isinstance(last, Done):
            return last.model
        log_tail = (scratch / _LOG_NAME).read_text(errors="replace")[-_LOG_TAIL:]
        raise _error(last) from RuntimeError(log_tail)


def _relay(lines: IO[bytes], progress: Progress) -> Done | Failed | None:
    """Tell what the processes report, until all of them have closed the pipe. Returns how it ended."""
    last: Done | Failed | None = None
    for line in lines:
        match msgspec.json.decode(line, type=Report):
            case Tick(done, of, text):
                progress.tick(done, of, text)
            case Note(text):
                progress.note(text)
            case Epoch(result):
                if isinstance(progress, EpochWatcher):
                    progress.epoch(result)
            case Done() | Failed() as end:
                last = end
    return last


def _error(last: Failed | None) -> BuildError:
    if last is None:
        return StageError("train.processes: the processes ended without a word; --debug shows what they wrote")
    kind = getattr(errors, last.kind, None) if last.kind else None
    return kind(last.text) if kind is not None else StageError(f"train.processes: {last.text}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """After an interrupt: the agent ends its workers, and is ended itself where it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _environment() -> dict[str, str]:
    """The workers find this very toolchain, and each other without a name service."""
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH", ""))))
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    return {"GLOO_SOCKET_IFNAME": loopback, **os.environ, "PYTHONPATH": path}
