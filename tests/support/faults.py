"""Faults at the n-th durable step: what a power cut, a broken disk or a full one does there.

Every call by which the device changes its disk is a step: fsync, rename, link, symlink, unlink, directory, and each
transaction of state.db. `PowerCut` is no Exception, so nothing catches it: whatever the code would have done next, it does not.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from runtime.update.store import Store


class PowerCut(BaseException):
    """The process ends here."""


class Faults:
    """Counts steps, and calls `strike` before or after the chosen one."""

    def __init__(self, chosen: int = -1, *, after: bool = False, strike: Callable[[], None] | None = None) -> None:
        self.steps: list[str] = []
        self._chosen = chosen
        self._after = after
        self._strike = strike or cut_power

    def around(self, name: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def step(*arguments: Any, **options: Any) -> Any:
            number = len(self.steps)
            self.steps.append(name)
            if number == self._chosen and not self._after:
                self._strike()
            result = act(*arguments, **options)
            if number == self._chosen and self._after:
                self._strike()
            return result

        return step

    @contextmanager
    def injected(self) -> Iterator["Faults"]:
        """Within this block every durable step goes through here."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", self.around("fsync", os.fsync))
            for name in ("rename", "unlink", "symlink_to", "hardlink_to", "mkdir"):
                patch.setattr(Path, name, self.around(name, getattr(Path, name)))
            patch.setattr(shutil, "rmtree", self.around("rmtree", shutil.rmtree))
            patch.setattr(Store, "_write", self.around("commit", Store._write))
            yield self


def cut_power() -> None:
    raise PowerCut


def failing(number: int) -> Callable[[], None]:
    """A strike that fails like the operating system: EIO, ENOSPC."""

    def strike() -> None:
        raise OSError(number, os.strerror(number))

    return strike
