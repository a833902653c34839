"""How do trials get run: by this process, or by several that share one study?"""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import msgspec

from toolchain import errors
from toolchain.errors import BuildError, StageError
from toolchain.pipeline.cache import StageCache
from toolchain.tune.desk import Desk
from toolchain.tune.trial import Bench, Job

POLL_SECONDS = 0.2
_GRACE_SECONDS = 10.0
"""For a worker to let go of its trial after Ctrl-C, before it is killed; its trial is then found to be stale, and costs nothing."""


def work(desk: Desk, bench: Bench, tell: Callable[[], None]) -> None:
    """Run trials until the budget is used up and nobody is busy. tell: called after each, and while waiting for others."""
    while True:
        claim = desk.claim()
        if claim is not None:
            with desk.working(claim):
                desk.finish(claim, bench.run(claim))
        elif desk.is_over:
            return
        else:
            time.sleep(POLL_SECONDS)
        tell()


def work_together(job: Job, workers: int, tell: Callable[[], None]) -> None:
    """The same with several processes. Ends them all when one fails, and raises its error; or on Ctrl-C."""
    context = multiprocessing.get_context("spawn")  # a fork of a process that has loaded torch may hang
    crew: list[tuple[SpawnProcess, Connection]] = []
    try:
        for _ in range(workers):
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_serve, args=(msgspec.json.encode(job), there), daemon=True)
            process.start()
            there.close()
            crew.append((process, here))
        while any(process.is_alive() for process, _ in crew):
            wait([process.sentinel for process, _ in crew if process.is_alive()], timeout=POLL_SECONDS)
            tell()
            for process, here in crew:
                _require_well(process, here)
    finally:
        _end([process for process, _ in crew])
    tell()


def _serve(raw: bytes, report: Connection) -> None:
    """Life of one worker process. An error goes to the parent as its class and text: a traceback would tell the user nothing."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    job = msgspec.json.decode(raw, type=Job)
    try:
        cache = StageCache(Path(job.cache))
        desk = job.desk()
        work(desk, Bench(job, cache, desk), lambda: None)
    except KeyboardInterrupt:
        os._exit(errors.EXIT_INTERRUPTED)  # without Python's own farewell, which prints where it was
    except Exception as error:  # noqa: BLE001 - the edge of the process: the parent raises it
        report.send((type(error).__name__, str(error)))


def _end_with_parent() -> None:
    """A worker whose parent was killed ends at once; its trial is found to be stale by whoever goes on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(errors.EXIT_INTERRUPTED)


def _require_well(process: SpawnProcess, report: Connection) -> None:
    """Raise what a worker reported, or that it died without a word."""
    if report.poll():
        try:
            name, text = report.recv()
        except EOFError:
            name, text = "", ""
        if name:
            kind: Any = getattr(errors, name, None)
            if isinstance(kind, type) and issubclass(kind, BuildError):
                raise kind(text)
            raise StageError(f"a worker of the search failed: {name}: {text}")
    if process.exitcode not in (None, 0):
        if process.exitcode == errors.EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        raise StageError(
            f"a worker of the search ended with status {process.exitcode}; its trial is run again when the build is, "
            "with fewer tune.workers if memory ran out"
        )


def _end(processes: list[SpawnProcess]) -> None:
    for process in processes:
        if process.is_alive() and process.pid is not None:
            os.kill(process.pid, signal.SIGINT)
    until = time.monotonic() + _GRACE_SECONDS
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()
