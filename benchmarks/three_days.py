"""Does a device come through three days with a broker that comes and goes, three updates and one of them bad?

    python -m benchmarks.three_days [--hours 72] [--inferences 1000000] [--json FILE]

A device's own parts, a real broker over TLS, a real release store and real inferences; only time is simulated: a minute ends
a window, and what waits for a clock is given one. The broker is away 40 times, once for 20 hours, longer than the outbox's
bytes last, so that windows must be dropped, counted and told. Every window and event the fleet did not get must be among
those the device said it dropped.
"""

import argparse
import logging
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.figures import Figure, show
from runtime.clock import Clock
from runtime.config import Config, DeviceSettings, TelemetrySettings, UpdateSettings
from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import Outcome, Settings
from runtime.contract.telemetry import Event, read_window
from runtime.contract.topics import Channel
from runtime.daemon import Daemon, boot_id
from runtime.errors import RequestError
from runtime.memory import give_back
from runtime.serving.metrics import resident_bytes
from runtime.update.actions import Actions
from runtime.update.boot import open_active
from runtime.update.delegate import delegate
from runtime.update.machine import Machine
from runtime.update.updater import Updater, wanted_settings
from tests.support.artifacts import FEATURES, PROFILE, write_artifact
from tests.support.broker import Broker, FleetClient
from tests.support.daemon import enrolled
from tests.support.pki import Authority
from tests.support.store import Door, ReleaseStore, make_desired

HOURS, INFERENCES = 72, 1_000_000
DEVICE, MODEL = "porch-1", "tiny"
OUTBOX_BYTES = 256 * 1024
OUTAGES, LONG_OUTAGE_H = 40, 20
MEMORY_MB = 2.0
PATIENCE_S = 60.0
"""How long real parts (the broker, the helper process) may take for what the simulated device waits for."""
_WARM_SHARE = 0.2
_LATE = "the broker had them, its word had not come"


class Simulated:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self._began_s = time.time()
        self.passed_s = 0.0

    def wall_s(self) -> float:
        return self._began_s + self.passed_s

    def monotonic_s(self) -> float:
        return self.passed_s


class Collector(FleetClient):
    """The fleet's end. Keeps numbers, not messages: this process is watched for memory that grows."""

    def __init__(self, broker: Broker) -> None:
        self.windows: set[int] = set()
        self.events: set[int] = set()
        self.requests = 0
        self.dropped = 0
        self.refused: set[str] = set()
        super().__init__(broker)

    def is_connected(self) -> bool:
        return self._client.is_connected()

    def _on_message(self, _client: object, _data: object, message: object) -> None:
        name, payload = message.topic.rpartition("/")[2], bytes(message.payload)  # type: ignore[attr-defined]
        if name == Channel.TELEMETRY:
            window = read_window(payload).value
            if window.seq not in self.windows:
                self.requests += window.requests
            self.windows.add(window.seq)
        elif name == Channel.EVENT:
            event = msgspec.msgpack.decode(payload, type=Event)
            if event.seq not in self.events and event.code == "outbox.dropped":
                self.dropped += int(event.detail.split()[0])
            self.events.add(event.seq)


class Device:
    """The daemon's parts, without its endpoint, and with threads only where a real peer answers in real time."""

    def __init__(self, state_dir: Path, clock: Simulated) -> None:
        self.clock = clock
        config = Config(
            device=DeviceSettings(state_dir=str(state_dir)),
            telemetry=TelemetrySettings(outbox_bytes=OUTBOX_BYTES),
            update=UpdateSettings(reserve_bytes=0),
        )
        self.daemon = daemon = Daemon(config, deque(maxlen=100))
        daemon.state = daemon.state._replace(clock=Clock(daemon.state.store, clock.wall_s))
        number = daemon._count_start()
        open_active(daemon.state.store, daemon.state.slots, daemon._live, daemon._on_alarm)
        daemon.profile = PROFILE
        actions = Actions(
            daemon.state,
            daemon._live,
            delegate,
            profile=PROFILE,
            bounds=config.update,
            settings=lambda: wanted_settings(daemon.state.store),
            monotonic_s=clock.monotonic_s,
        )
        machine = Machine(actions.table(), daemon.state.store.save_job, daemon._on_step)
        self.updater = Updater(daemon.state, machine, daemon._live, daemon._on_change, monotonic_s=clock.monotonic_s)
        agent = daemon._make_agent(boot_id(number))
        assert agent is not None
        self.agent = daemon._agent = agent
        agent.windows._monotonic_s = clock.monotonic_s
        daemon._live.replaced, daemon._live.begun = agent.windows.close, agent.windows.begin
        agent._inbox.start()
        agent._connection.start()

    def minute(self, rows: np.ndarray, inferences: int) -> int:
        """A minute's inferences, the updater's rounds, and the end of the window. Returns how many inferences succeeded."""
        done = 0
        for number in range(inferences):
            try:
                self.daemon._repository.infer(MODEL, {"input": rows[number % len(rows)]})
                done += 1
            except RequestError:  # before the first version is there
                break
        self.updater.once()
        self.clock.passed_s += 60
        self.agent.windows.close_all()
        return done

    @property
    def generation(self) -> int:
        held = self.daemon.state.store.held()
        return held.desired.value.generation if held else 0

    def settle(self, artifact: ArtifactRef) -> Outcome:
        """Rounds until the newest update is over."""
        for _ in range(200):
            wait_s = self.updater.once()
            job = self.daemon.state.store.jobs().get(MODEL)
            if job is not None and job.artifact == artifact and not job.is_running:
                return job.outcome
            self.clock.passed_s += min(wait_s, 5.0)
        raise RuntimeError(f"the update to {artifact.version} does not end: {job}")

    def close(self) -> None:
        self.agent.windows.close_all()
        self.agent._inbox.stop(5)
        self.agent._connection.stop()
        self.agent._outbox.close()
        self.daemon._repository.close()
        self.daemon.state.store.close()


class Story:
    """Three days, minute by minute."""

    def __init__(self, folder: Path, hours: int, inferences: int) -> None:
        self._minutes = hours * 60
        self._per_minute = -(-inferences // self._minutes)
        authority = Authority(folder / "pki")
        self._releases = ReleaseStore()
        self._door = Door(authority, self._releases)
        self.broker = Broker(folder / "broker", authority)
        self._door.broker = {"host": "localhost", "port": self.broker.port}
        self._artifacts = []
        for version, scale, golden in (("1.0.0", 1.0, 1.0), ("1.1.0", 2.0, 2.0), ("1.2.0", 3.0, 1.0), ("1.3.0", 4.0, 4.0)):
            write_artifact(folder / version, version=version, scale=scale, golden_scale=golden)
            self._artifacts.append(self._releases.publish(folder / version))
        self.fleet = Collector(self.broker)
        self.device = Device(enrolled(folder / "device", self._door, DEVICE), Simulated())
        self._generation = 0
        self.served = 0
        self.grown_mb = 0.0
        self.outcomes: list[Outcome] = []

    def run(self) -> None:
        rows = np.random.default_rng(1).normal(size=(64, 1, FEATURES)).astype(np.float32)
        away, updates = self._outages(), self._updates()
        early, is_up = 0, True
        for minute in range(self._minutes):
            if is_up and minute in away:
                self.broker.stop()
                is_up = False
            elif not is_up and minute not in away:
                self.broker.start()
                is_up = True
                self._wait(self.fleet.is_connected, "the fleet to be on the line again")
                self._wait(self._is_drained, "the outbox to empty after the broker came back")
            if minute in updates and is_up:
                self._update(updates[minute])
            self.served += self.device.minute(rows, self._per_minute)
            if minute == int(self._minutes * _WARM_SHARE):
                early = settled_bytes()
            if minute % 240 == 0:
                print(f"hour {minute // 60}, {self.served} inferences, {settled_bytes() / 1e6:.1f} MB", file=sys.stderr)
        self.grown_mb = (settled_bytes() - early) / 1e6
        if not is_up:
            self.broker.start()
        self.device.agent.windows.close_all()
        self.last_window = next(self.device.agent.windows._numbers) - 1
        self._wait(lambda: self.last_window in self.fleet.windows, "the last window at the fleet")

    def close(self) -> None:
        self.device.close()
        self.fleet.stop()
        self.broker.stop()
        self._door.stop()

    @property
    def lost(self) -> int:
        """Windows and events whose numbers the fleet never saw."""
        events = max(self.fleet.events, default=0)
        return self.last_window - self.received + events - len(self.fleet.events)

    @property
    def received(self) -> int:
        """Windows, without the one that closing the device makes."""
        return sum(number <= self.last_window for number in self.fleet.windows)

    def _outages(self) -> set[int]:
        """Minutes without a broker: many short ones, one long, none while an update is asked for."""
        rng = random.Random(3)
        long = self._minutes // 2
        found = set(range(long, long + LONG_OUTAGE_H * self._minutes // HOURS))
        for _ in range(OUTAGES * self._minutes // (HOURS * 60)):
            begin = rng.randrange(self._minutes)
            found |= set(range(begin, begin + rng.randint(2, 30)))
        asked = {minute + before for minute in self._updates() for before in range(-3, 1)}
        return found - asked

    def _updates(self) -> dict[int, int]:
        """Minute -> artifact: the first version at once, three more over the days."""
        return {1: 0, self._minutes // 8: 1, self._minutes // 3: 2, self._minutes * 7 // 8: 3}

    def _update(self, number: int) -> None:
        artifact = self._artifacts[number]
        self._generation += 1
        self._releases.sign()
        settings = Settings(window_s=60, probation_s=30)
        desired = make_desired(DEVICE, self._generation, artifact, rollout=f"r-{number}", expires_in_s=10**7, settings=settings)
        self.fleet.publish(DEVICE, Channel.DESIRED, self._releases.seal(desired))
        self._wait(lambda: self.device.generation == self._generation, "the desired state to be accepted")
        self.outcomes.append(self.device.settle(artifact))

    def _is_drained(self) -> bool:
        return not self.device.agent._outbox.after(0, 1)

    def _wait(self, holds: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > until:
                raise RuntimeError(f"not within {PATIENCE_S:g} s: {what}")
            time.sleep(0.01)


def settled_bytes() -> int:
    """Resident memory without what the allocator keeps for later."""
    give_back()
    return resident_bytes()


def measure(hours: int = HOURS, inferences: int = INFERENCES) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        story = Story(Path(folder), hours, inferences)
        try:
            story.run()
        finally:
            story.close()
    fleet = story.fleet
    wanted = [Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.REFUSED, Outcome.SUCCEEDED]
    return [
        Figure(name="simulated time", value=story.device.clock.passed_s / 3600, unit="h"),
        Figure(name="inferences", value=story.served, unit="", limit=inferences * 0.99, at_most=False),
        Figure(
            name="updates that ended as they should",
            value=sum(map(_same, story.outcomes, wanted)),
            unit="",
            limit=4,
            at_most=False,
        ),
        Figure(name="windows received", value=story.received, unit="", how=f"of {story.last_window}"),
        Figure(name="messages dropped, as the device told", value=fleet.dropped, unit=""),
        Figure(name="messages lost and not told", value=max(0, story.lost - fleet.dropped), unit="", limit=0),
        Figure(name="messages told as dropped and yet received", value=max(0, fleet.dropped - story.lost), unit="", how=_LATE),
        Figure(name="memory grown after the first fifth", value=story.grown_mb, unit="MB", limit=MEMORY_MB),
    ]


def _same(found: Outcome, wanted: Outcome) -> bool:
    return found is wanted


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.three_days", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=int, default=HOURS)
    parser.add_argument("--inferences", type=int, default=INFERENCES)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # the outages' own messages
    return show(measure(arguments.hours, arguments.inferences), arguments.json)


if __name__ == "__main__":
    sys.exit(main())
