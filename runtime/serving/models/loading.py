"""Which models run in this process, and which in one of their own?

By `[serving] isolation`: "probation" puts a version apart until its update is committed, "always" every version for good,
"never" none. The way there costs tens of microseconds and one more process's memory (docs/runtime/isolation.md).
"""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from runtime.backends.fallback import Opened, open_engine
from runtime.contract.artifact import Manifest
from runtime.serving.limits import ServingSettings

log = logging.getLogger(__name__)

Load = Callable[[Manifest, Path], Opened]


class Loaders(NamedTuple):
    """How a committed version is opened, and how one on trial; None: the same way."""

    load: Load
    load_trial: Load | None


def loaders(settings: ServingSettings) -> Loaders:
    if settings.isolation == "never":
        return Loaders(open_engine, None)
    if sys.platform != "linux":  # a developer's machine: what is shared, capped and killed there is Linux's own
        log.warning("serving.isolation = %r needs Linux; every model runs in this process", settings.isolation)
        return Loaders(open_engine, None)
    on_trial = _apart(settings, restarts=False)
    return Loaders(_apart(settings, restarts=True) if settings.isolation == "always" else open_engine, on_trial)


def _apart(settings: ServingSettings, *, restarts: bool) -> Load:
    def load(manifest: Manifest, directory: Path) -> Opened:
        from runtime.backends.isolated import Isolation, open_apart  # a start that isolates nothing does without

        isolation = Isolation(timeout_s=settings.engine_timeout_s, memory_bytes=settings.engine_memory_bytes, restarts=restarts)
        return open_apart(manifest, directory, isolation)

    return load
