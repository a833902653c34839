"""What does a device do from its start until nothing is left to do, alone in one thread and therefore countable?

    python -m benchmarks.crash_points.walk STATE_DIR ACKNOWLEDGED

The parts are the daemon's own: start, slots, store, outbox, helper tasks, updater, put together by `Daemon` itself. Left out
are threads, the endpoint and the broker, and the helper tasks run in this process instead of their own, so that the n-th
system call of one walk is the n-th of the next. What a path needs to be played (a version that fails in probation, a newer
wish in the middle) stands in STATE_DIR.json. Every message the outbox took is also noted in ACKNOWLEDGED: none may be lost.
"""

import json
import os
import sys
import time
from collections import deque
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import msgspec
import numpy as np

from runtime.agent.journal import Journal
from runtime.agent.outbox import Outbox
from runtime.agent.sender import Sender
from runtime.config import Config, DeviceSettings, TelemetrySettings, UpdateSettings
from runtime.contract.deployment import Role
from runtime.contract.topics import Channel
from runtime.daemon import Daemon
from runtime.errors import StoreError
from runtime.serving.models.health import Health
from runtime.update import helper
from runtime.update.boot import open_active
from runtime.update.machine import Job
from runtime.update.requests import Reply, Request, Task, TestRequest
from runtime.update.store import Held
from tests.support.artifacts import FEATURES, PROFILE, scores

ROWS = np.random.default_rng(5).normal(size=(4, FEATURES)).astype(np.float32)
OUTBOX_FILE = "outbox.db"
MODEL = "tiny"
_MOST_ROUNDS = 200


class Part(msgspec.Struct, frozen=True):
    """What is played. fails: the version whose requests fail in probation; held: envelope and payload of a newer desired
    state, in hex, which arrives when the update enters the state `arrives_in`; switches_in_two: a device that cannot
    survive every kill, so that the judge is seen to notice.
    """

    fails: str = ""
    arrives_in: str = ""
    held: tuple[str, str] = ("", "")
    switches_in_two: bool = False


class Seen(NamedTuple):
    """scale of the version that answered right after the start, and at the end; 0 for none, -1 for a wrong answer."""

    at_start: float
    at_end: float
    rounds_failed: int


class Noted(Outbox):
    """An outbox that also writes down, elsewhere, what it took for good."""

    def __init__(self, path: Path, acknowledged: Path) -> None:
        super().__init__(path, TelemetrySettings(), time.time)
        self._acknowledged = acknowledged

    def put(self, channel: Channel, payload: bytes, id: str = "") -> None:
        super().put(channel, payload, id)
        with self._acknowledged.open("a") as file:
            file.write(payload.hex() + "\n")


class Walk:
    """A started device. scales: what tells versions apart in their answers."""

    def __init__(self, state_dir: Path, acknowledged: Path) -> None:
        self.state_dir = state_dir
        self._part = read_part(state_dir)
        config = Config(device=DeviceSettings(state_dir=str(state_dir)), update=UpdateSettings(reserve_bytes=0, fetch_retry_s=5))
        self.daemon = Daemon(config, deque())
        self._number = self.daemon._count_start()
        state = self.daemon.state
        open_active(state.store, state.slots, self.daemon._live, lambda *_: None)
        self.at_start = self.scale()
        self.outbox = Noted(state_dir / OUTBOX_FILE, acknowledged)
        self.journal = Journal(Sender("walker", self._number, state.clock, self.outbox, lambda: None))
        self.daemon.profile = PROFILE
        self._updater = self.daemon._make_updater()
        self.daemon._agent = self  # type: ignore[assignment]  # told of steps, as the agent would be

    def note_step(self, job: Job) -> None:
        self.journal.note("update", job.error_code, str(job.state), model=job.model, artifact=job.artifact)
        if self._part.arrives_in == job.state:
            self.receive()

    def receive(self) -> None:
        """The newer wish of the part, which the broker kept for a device that starts again."""
        if self._part.arrives_in:
            hold(self.daemon, *map(bytes.fromhex, self._part.held))

    def report(self) -> None:
        """The report is what the judge reads from the store afterwards."""

    def settle(self) -> Seen:
        """Rounds of the updater until it has nothing to do; a round that fails is tried again, as its thread does."""
        failed = 0
        with self._playing():
            for _ in range(_MOST_ROUNDS):
                try:
                    wait_s = self._updater.once()
                except Exception as error:  # noqa: BLE001 - the worker's edge, as in Updater
                    failed += 1
                    print(f"a round failed: {error!r}", file=sys.stderr)
                    continue
                if not any(job.is_running for job in self.daemon.state.store.jobs().values()) and wait_s > 0:
                    break
                time.sleep(min(wait_s, 0.05))
            try:
                self._updater._clean_up()
            except (StoreError, OSError) as error:
                failed += 1
                print(f"cleaning up failed: {error!r}", file=sys.stderr)
        return Seen(self.at_start, self.scale(), failed)

    def scale(self) -> float:
        """Which version answers, by its answer: exact enough to tell a mixture from either."""
        try:
            served = self.daemon._repository.get(MODEL)
        except Exception:  # noqa: BLE001 - nothing serves
            return 0.0
        found, unit = served.infer({"input": ROWS})["output"], scores(ROWS, 1.0)
        scale = float(np.median(found / unit))
        return round(scale, 3) if np.allclose(found, scale * unit, rtol=1e-4, atol=1e-5) else -1.0

    def close(self) -> None:
        self.daemon._repository.close()
        self.outbox.close()
        self.daemon.state.store.close()

    def _playing(self) -> Any:
        real = self.daemon._live.health

        def health(model: str, role: Role = "active") -> Health:
            artifact = self.daemon._live.artifact(model, role)
            told = real(model, role)
            return told._replace(requests=100, errors=100) if artifact and artifact.version == self._part.fails else told

        return mock.patch.multiple(self.daemon._live, health=health)


def direct(task: Task, request: Request, _timeout_s: float) -> Reply:
    """The helper's work without its process, hence without its memory cap."""
    if isinstance(request, TestRequest):
        request = msgspec.structs.replace(request, memory_bytes=0, repeats=3)
    return helper.TASKS[task][1](request)


def point_in_two(link: Path, target: str) -> None:
    """How a symlink must not be moved."""
    link.unlink(missing_ok=True)
    link.symlink_to(target)


def hold(daemon: Daemon, envelope: bytes, payload: bytes) -> None:
    """The fleet wants this now, as the inbox stores it."""
    daemon.state.store.hold(Held(envelope, payload))


def read_part(state_dir: Path) -> Part:
    path = state_dir.with_name(state_dir.name + ".json")
    return msgspec.json.decode(path.read_bytes(), type=Part) if path.exists() else Part()


def main() -> int:
    is_clumsy = read_part(Path(sys.argv[1])).switches_in_two
    clumsy = mock.patch("runtime.update.slots.point_symlink", point_in_two) if is_clumsy else nullcontext()
    with mock.patch("runtime.daemon.delegate", direct), clumsy:
        walk = Walk(Path(sys.argv[1]), Path(sys.argv[2]))
        seen = walk.settle()
        walk.close()
    print(json.dumps(seen._asdict()))
    sys.stdout.flush()
    os._exit(0)  # the interpreter's own end is no part of the walk


if __name__ == "__main__":
    sys.exit(main())
