"""Which process works on a trial, and is it still alive? A trial whose worker was killed must run again; a live one's must not."""

import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

BEAT_SECONDS = 30.0
SILENCE_SECONDS = 300.0
"""A worker on another machine that has said nothing for ten beats is taken for dead: clocks of two machines may differ by minutes."""
_PROC = Path("/proc")


class Stamp(msgspec.Struct, frozen=True, kw_only=True):
    """Who claimed a trial. place: this boot of this machine and its process table; started: of the process, in its clock ticks.

    beat: Unix seconds of the last sign of life, for those who cannot see the process.
    """

    place: str
    pid: int
    started: str
    beat: float


def own_stamp() -> Stamp:
    return Stamp(place=_place(), pid=os.getpid(), started=_started(os.getpid()), beat=time.time())


def is_alive(stamp: Stamp) -> bool:
    """Whether the process that made the stamp can still finish its trial. A process id alone is not enough: they are used again."""
    if stamp.place == _place():
        return _started(stamp.pid) == stamp.started != ""
    return time.time() - stamp.beat < SILENCE_SECONDS


@contextmanager
def beating(beat: Callable[[Stamp], Any]) -> Iterator[None]:
    """Renew the stamp now and then while a trial runs."""
    over = threading.Event()

    def run() -> None:
        while not over.wait(BEAT_SECONDS):
            beat(own_stamp())

    thread = threading.Thread(target=run, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _place() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:  # no Linux: the name is what there is
        return platform.node()


def _started(pid: int) -> str:
    """When a process started, "" where it is gone or only waits to be buried."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "" if _PROC.joinpath("self").exists() else _exists(pid)
    except OSError:
        return ""
    fields = text.rpartition(")")[2].split()  # the name before it may hold anything
    return "" if fields[0] in "ZX" else fields[19]


def _exists(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        return "running"
    return "running"
