"""On which core does the engine run? On the same one in every way that is compared: two cores of a shared host may differ by half."""

import contextlib
import os
from collections.abc import Iterator

_OURS = sorted(os.sched_getaffinity(0))
ENGINE, CLIENT = {_OURS[-1]}, {_OURS[0]}


@contextlib.contextmanager
def on(cores: set[int]) -> Iterator[None]:
    """Keep this thread, and what is started in it meanwhile, on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
