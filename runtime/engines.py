"""Which engine runs each model on this device, for those who ask while the daemon does not answer?

One small file beside state.db, written when something in it changes: `runtime status` reads it from the disk alone.
"""

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

import msgspec

from runtime.errors import DaemonError
from runtime.files import write_durably
from runtime.serving.models.model import ServedModel
from runtime.update.lanes import lane_of

log = logging.getLogger(__name__)

ENGINES_FILE = "engines.json"


class EngineNotes:
    """Safe to share between threads."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / ENGINES_FILE
        self._lock = threading.Lock()
        self._noted = read_engines(state_dir)

    def note(self, models: Iterable[ServedModel]) -> None:
        """Write down what runs each model, if that is news. Never raises: a full disk must not stand in a switch's way."""
        with self._lock:
            now = {lane_of(served.manifest.model, served.role): str(served.engine) for served in models}
            if now == self._noted:
                return
            try:
                write_durably(self._path, msgspec.json.encode(now))
                self._noted = now
            except (OSError, DaemonError) as error:
                log.warning("which engines run is not written down: %s", error)


def read_engines(state_dir: Path) -> dict[str, str]:
    """By lane, the engine with its version and what it was taken instead of; empty where nothing is known."""
    try:
        return msgspec.json.decode((state_dir / ENGINES_FILE).read_bytes(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return {}
