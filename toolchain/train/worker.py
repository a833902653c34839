"""What does one of several training processes do, and what the agent that starts them?

`python -m toolchain.train.worker supervise JOB` starts one process a worker, each running `... work JOB`.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec
import torch
from torch import distributed
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from toolchain.benchmark.metrics import resolve_metrics
from toolchain.errors import BuildError, RecipeError
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.record import EpochResult
from toolchain.pipeline.stage import Stored
from toolchain.recipe import in_graph_of
from toolchain.train.fit import pick_device
from toolchain.train.launch import Done, Epoch, Failed, Job, Note, Report, Tick
from toolchain.train.network import NetworkSource
from toolchain.train.stage import Training

_FAILED = "failed.{rank}.json"


class Relay:
    """Progress as JSON lines."""

    def __init__(self, channel: IO[bytes]) -> None:
        self._channel = channel

    def send(self, report: Report) -> None:
        self._channel.write(msgspec.json.encode(report) + b"\n")
        self._channel.flush()

    def stage(self, name: str, *, ran: bool, why: str) -> None:
        """Stages are the parent's business."""

    def done(self, name: str, seconds: float, summary: str) -> None:
        """Stages are the parent's business."""

    def tick(self, done: int, of: int, text: str) -> None:
        self.send(Tick(done, of, text))

    def epoch(self, result: EpochResult) -> None:
        self.send(Epoch(result))

    def note(self, text: str) -> None:
        self.send(Note(text))


def supervise(path: Path) -> int:
    """Start the workers and wait for them; the first failure ends them all. Returns the exit status."""
    job = msgspec.json.decode(path.read_bytes(), type=Job)
    assert job.recipe.train is not None
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=job.recipe.train.processes, run_id=path.parent.name, max_restarts=0,
        rdzv_backend="c10d", rdzv_endpoint="127.0.0.1:0", local_addr="127.0.0.1",
    )  # fmt: skip
    try:
        elastic_launch(config, sys.executable)("-P", "-m", "toolchain.train.worker", "work", str(path))
    except ChildFailedError as error:
        Relay(sys.stdout.buffer).send(_why(error, path.parent))
        return 1
    return 0


def work(path: Path) -> None:
    """Train as one of several; rank 0 reports and leaves the files."""
    channel = _claim_stdout()
    job = msgspec.json.decode(path.read_bytes(), type=Job)
    rank = int(os.environ["RANK"])
    relay = Relay(channel)
    try:
        model_folder = Path(job.work) if rank == 0 else path.parent / f"rank{rank}"
        model_folder.mkdir(exist_ok=True)
        with _process_group(job):
            model = _training(job).run(model_folder, relay if rank == 0 else Silent())
        if rank == 0:
            relay.send(Done(model))
    except Exception as error:
        kind = type(error).__name__ if isinstance(error, BuildError) else ""
        text = str(error) if kind else f"worker {rank} failed: {traceback.format_exception_only(error)[0].strip()}"
        (path.parent / _FAILED.format(rank=rank)).write_bytes(msgspec.json.encode((time.time(), Failed(kind, text))))
        raise


def _training(job: Job) -> Training:
    folder = Path(job.folder)
    return Training(
        recipe=job.recipe, folder=folder, source=NetworkSource(job.recipe.model, folder, in_graph=in_graph_of(job.recipe)),
        metric=resolve_metrics(job.recipe, folder)[0], data=Stored(job.data, Path(job.data_folder), job.data_digest),
        partial=Path(job.partial) if job.partial else None,
    )  # fmt: skip


@contextmanager
def _process_group(job: Job) -> Iterator[None]:
    assert job.recipe.train is not None
    device = pick_device(job.recipe.train.device)
    if device.type == "cuda":
        if torch.cuda.device_count() < job.recipe.train.processes:
            raise RecipeError(f"train.processes = {job.recipe.train.processes}, but there are {torch.cuda.device_count()} GPUs")
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield
    finally:
        distributed.destroy_process_group()


def _why(error: ChildFailedError, folder: Path) -> Failed:
    """The cause among the failures: what a worker said is wrong, else a worker that was ended, else what failed first.

    When one worker goes, the others fail at their next exchange with it, or the agent ends them by SIGTERM.
    """
    told = [msgspec.json.decode(file.read_bytes(), type=tuple[float, Failed]) for file in folder.glob(_FAILED.format(rank="*"))]
    told.sort(key=lambda item: (not item[1].kind, item[0]))
    ended = [
        (rank, failure)
        for rank, failure in error.failures.items()
        if failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM
    ]
    if told and (told[0][1].kind or not ended):
        return told[0][1]
    rank, failure = ended[0] if ended else error.get_first_failure()
    how = f"was ended by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with status {failure.exitcode}"
    return Failed("", f"worker {rank} {how}")


def _claim_stdout() -> IO[bytes]:
    """The pipe to the parent, with what a recipe's code prints sent to the log instead."""
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return channel


def main(role: str, job: str) -> int:
    if role == "supervise":
        return supervise(Path(job))
    work(Path(job))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
