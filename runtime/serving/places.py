"""Where does a large body come to lie, so that it is copied once, aligned, and into memory that is there already?

Fresh memory for an image costs more than the copy into it: the system hands it out page by page, each by a fault. One piece is
kept and given out again once nothing refers to it any more, which its reference count tells: whoever holds a tensor for longer
than its request, such as a shadow, keeps it out of use.
"""

import sys
import threading

import numpy as np

ALIGNMENT = 64
"""A cache line, and what the widest vector instructions ask for."""
MOST_BYTES = 4 * 1024 * 1024
"""Of what is kept: a few images; larger bodies take longer than their pages' faults."""
_OWN_REFERENCES = 2  # the attribute and getrefcount's argument


class Places:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spare = np.empty(0, np.uint8)
        self._address = 0
        self._is_used = False

    def take(self, size: int, ahead: int = 0) -> memoryview:
        """Writable memory of `size` bytes, up to MOST_BYTES, with whatever in it; the byte at `ahead` is aligned."""
        needed = size + ALIGNMENT
        with self._lock:
            self._is_used = True
            if sys.getrefcount(self._spare) > _OWN_REFERENCES or self._spare.size < needed:
                self._spare = np.empty(needed, np.uint8)
                self._address = self._spare.__array_interface__["data"][0]
            start = -(self._address + ahead) % ALIGNMENT
            return self._spare.data[start : start + size]

    def sweep(self) -> None:
        """Give the memory back if nobody asked for it since the last time."""
        with self._lock:
            if not self._is_used:
                self._spare = np.empty(0, np.uint8)
            self._is_used = False
