"""How are many strikes made beside one another? Each process has a bench of its own: its own releases, door and templates."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from multiprocessing.util import Finalize
from pathlib import Path

from benchmarks.crash_points.paths import PATHS, Bench
from benchmarks.crash_points.points import Point
from benchmarks.crash_points.strikes import Fault, Striker, Struck

Task = tuple[str, Fault, Point]
_PATHS = {path.name: path for path in PATHS}
_striker: Striker


def strike_all(tasks: Sequence[Task], jobs: int, folder: Path) -> Iterator[Struck]:
    """In the order of the tasks. folder: where the processes work; removing it is the caller's."""
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_begin, initargs=(folder,)) as pool:
        yield from pool.map(_strike, tasks)


def _begin(folder: Path) -> None:
    """Once in each process."""
    global _striker  # noqa: PLW0603 - what a pool's initializer leaves for its tasks
    logging.disable(logging.ERROR)  # the faults' own messages
    place = Path(tempfile.mkdtemp(dir=folder))
    bench = Bench(place)
    # A pool's process joins its threads when it ends, and the door is one.
    Finalize(None, bench.close, exitpriority=1)
    _striker = Striker(bench, place)


def _strike(task: Task) -> Struck:
    path, fault, point = task
    return _striker.strike(_PATHS[path], fault, point)
