"""How does the daemon keep what it freed from staying resident?

glibc gives each thread an arena of its own and keeps what a closed model leaves behind, so every update would leave the daemon
larger. One arena, and a trim after each closed model, keep that small (`python -m benchmarks --only device`). Without glibc
both do nothing.
"""

import ctypes
import sys

_M_ARENA_MAX = -8
"""From glibc's malloc.h."""


def share_one_arena() -> None:
    """Let all threads allocate from one arena; to be called before threads start."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Return free memory to the system; takes about a millisecond."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
