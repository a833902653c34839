"""What did each model do in the last N seconds, in each of its roles, and how is the device?

Every window's end takes the counts of each served version, a shadow's agreement among them, and puts one telemetry message
into the outbox. A version that is switched out hands in what it counted since the last window, so no inference goes untold.
"""

import itertools
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from runtime.agent.sender import Sender
from runtime.contract.deployment import Role
from runtime.contract.errors import TooLargeError
from runtime.contract.telemetry import Window, write_window
from runtime.contract.topics import Channel
from runtime.errors import StoreError
from runtime.serving.models.model import ServedModel

log = logging.getLogger(__name__)

_STATM = Path("/proc/self/statm")


class Windows:
    """window_s: asked anew for each window; models: what serves now."""

    def __init__(
        self,
        sender: Sender,
        state_dir: Path,
        models: Callable[[], Iterable[ServedModel]],
        window_s: Callable[[], int],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sender = sender
        self._state_dir = state_dir
        self._models = models
        self._window_s = window_s
        self._monotonic_s = monotonic_s
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._began: dict[tuple[str, Role], float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="windows", daemon=True)

    def start(self) -> None:
        for served in self._models():
            self.begin(served)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, after one last, shorter window of each model."""
        self._stopping.set()
        self._thread.join()
        self.close_all()

    def close_all(self) -> None:
        """End the window of every served model."""
        for served in self._models():
            self.close(served)
        self._sender.clock.record()

    def close(self, served: ServedModel) -> None:
        """End one version's window and queue it. A window that cannot be kept is lost, and its number shows the gap."""
        with self._lock:
            now = self._monotonic_s()
            model = served.manifest.model
            place = (model, served.role)
            duration_ms = int((now - self._began.get(place, now)) * 1000)
            self._began[place] = now
            window = Window(
                device=self._sender.device,
                boot=self._sender.boot,
                seq=next(self._numbers),
                model=model,
                artifact=served.artifact,
                role=served.role,
                edges=served.monitor.edges,
                start_ms=max(0, self._sender.clock.now_ms() - duration_ms),
                duration_ms=duration_ms,
                clock_synced=self._sender.clock.is_synced,
                resources=resources(self._state_dir),
                agreement=served.agreement() if served.agreement is not None else None,
                **msgspec.structs.asdict(served.monitor.take()),
            )
            try:
                self._sender.outbox.put(Channel.TELEMETRY, write_window(window))
            except (StoreError, TooLargeError) as error:
                log.error("window %d of %s is lost: %s", window.seq, model, error)
        self._sender.wake()

    def begin(self, served: ServedModel) -> None:
        """A version begins to serve in its role: its window starts now."""
        with self._lock:
            self._began[served.manifest.model, served.role] = self._monotonic_s()

    def _run(self) -> None:
        # Slept in short pieces, so that a window length the fleet changes holds from the window under way on.
        began = self._monotonic_s()
        while not self._stopping.wait(0.5):
            if self._monotonic_s() - began >= self._window_s():
                began = self._monotonic_s()
                self.close_all()


def resources(state_dir: Path) -> dict[str, int]:
    """A sample of what the daemon uses and the device has left, in bytes and milliseconds."""
    page = os.sysconf("SC_PAGE_SIZE")
    sample = {"cpu_ms": int(time.process_time() * 1000), "disk_free_bytes": shutil.disk_usage(state_dir).free}
    if _STATM.exists():
        sample["rss_bytes"] = int(_STATM.read_text(encoding="ascii").split()[1]) * page
        sample["memory_free_bytes"] = os.sysconf("SC_AVPHYS_PAGES") * page
    return sample
