"""What does a source of a batch run hand over, and what must every kind of source do?"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np

Column = np.ndarray | Sequence[np.ndarray]
"""Values of consecutive rows: one array with a leading axis, or one array per row where their shapes may differ."""


class Rows(msgspec.Struct, frozen=True):
    """Consecutive rows of a source. bad: why a row cannot be read, by its place here; such a row's values mean nothing.

    columns: by name, of equal length. names: of the files the rows came from, where each has one.
    """

    first: int
    count: int
    columns: dict[str, Column]
    bad: dict[int, str] = {}
    names: tuple[str, ...] = ()


class Source(Protocol):
    """Rows in a fixed order. total: how many; identity: changes when the files do; is_raw: holds files of pictures or sounds."""

    total: int
    identity: str
    is_raw: bool

    def read(self, first: int, size: int) -> Iterator[Rows]:
        """The rows from `first` on, `size` at a time; no more than a few of those are in memory. Raises BatchError."""
        ...


def identity_of(paths: Sequence[Path]) -> str:
    """A digest of files' names, sizes and times of change; their contents may be too much to read twice."""
    digest = hashlib.sha256()
    for path in paths:
        stat = path.stat()
        digest.update(f"{path.name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()
