"""The drift watch over a real database: judged once, kept across restarts, one alert per device and model."""

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from fleet.drift import DriftWatch
from fleet.errors import UnknownBlobError
from fleet.services import Services
from fleet.store.alerts import AlertRepository
from fleet.store.drift import DriftRepository
from fleet.store.tables import Artifact
from fleet.store.telemetry import TelemetryRepository
from runtime.contract.canonical import INFLATED_TELEMETRY_LIMIT, Received, sha256_hex, write_message
from runtime.contract.telemetry import CELLS, EdgeSet, Reference, StreamCounts, StreamReference
from runtime.monitor.cells import null_distances
from tests.fleet.peers import Behaviour, Devices
from tests.fleet.rollouts import start_rollout

NAMES = ("brightness", "contrast", "sharpness")
FLAT = (10,) * CELLS
LOW = (20,) * (CELLS // 2) + (0,) * (CELLS // 2)
EDGE_SET = write_message(
    EdgeSet(
        streams=tuple(
            StreamReference(name=name, kind="input", tensor="image", index=-1, edges=np.arange(CELLS - 1.0).tobytes())
            for name in NAMES
        )
    ),
    INFLATED_TELEMETRY_LIMIT,
)
ROWS = sum(FLAT)


def reference() -> bytes:
    counts = np.tile(np.asarray(FLAT), (len(NAMES), 1))
    null = null_distances(counts, ROWS, 100, 1)
    value = Reference(
        edge_set=EDGE_SET,
        counts=tuple(StreamCounts(cells=FLAT) for _ in NAMES),
        null=tuple(tuple(map(int, row)) for row in null),
        null_rows=ROWS,
    )
    return write_message(value, INFLATED_TELEMETRY_LIMIT)


class Watch:
    """One device that serves `digits`, whose windows show the cells they are told to."""

    def __init__(self, services: Services, devices: Devices) -> None:
        self.services, self.devices = services, devices
        devices.enrol("gw-1")
        self.deploy("1.0.0")

    def deploy(self, version: str) -> None:
        self.devices.publish("digits", version)
        with self.services.database.write() as session:
            for artifact in session.query(Artifact):
                artifact.reference_sha256 = sha256_hex(reference())
        start_rollout(self.services, version, want_now=True, start=False)
        self.devices.converge()

    def new(self, read_blob: Callable[[str], bytes] = lambda _: reference()) -> DriftWatch:
        """What a restarted service begins with."""
        return DriftWatch(self.services.database, self.services.changes, self.services.now_ms, read_blob, 1000)

    def send(self, *cells: tuple[int, ...]) -> None:
        """One window with these cells, stream by stream; the rest is as in the reference."""
        device = self.devices.played["gw-1"]
        device.seq += 1
        shown = [*cells, *[FLAT] * (len(NAMES) - len(cells))]
        window = Behaviour(rows=ROWS).window(
            "gw-1", boot=device.boot, seq=device.seq, model="digits", artifact=device.serving["digits"], start_ms=1
        )
        window = msgspec.structs.replace(
            window, edges=sha256_hex(EDGE_SET), streams=tuple(StreamCounts(cells=one) for one in shown)
        )
        received = Received(write_message(window, INFLATED_TELEMETRY_LIMIT), window)
        with self.services.database.write() as session:
            TelemetryRepository(session).add_windows([received], self.services.now_ms())

    def state(self) -> str:
        with self.services.database.read() as session:
            rows = DriftRepository(session).of_device("gw-1")
            return rows[0].state if rows else "none"

    def open_alerts(self) -> list[str]:
        with self.services.database.read() as session:
            return [alert.title for alert in AlertRepository(session).page(None, 10, only_open=True)]


@pytest.fixture
def watch(services: Services, devices: Devices) -> Watch:
    return Watch(services, devices)


def test_clean_windows_are_judged_and_raise_nothing(watch: Watch) -> None:
    drift = watch.new()
    drift.run_once()
    assert watch.state() == "none"
    watch.send()
    drift.run_once()
    assert (watch.state(), watch.open_alerts()) == ("clean", [])


def test_a_changed_stream_raises_one_alert_that_names_it_and_ends_by_itself(watch: Watch) -> None:
    drift = watch.new()
    for _ in range(3):
        watch.send(FLAT, LOW)
        drift.run_once()
    assert watch.open_alerts() == ["drift on gw-1, digits 1.0.0: contrast"]
    for _ in range(3):
        watch.send()
        drift.run_once()
    assert (watch.state(), watch.open_alerts()) == ("clean", [])
    with watch.services.database.read() as session:
        events = [(event.kind, event.device) for event in TelemetryRepository(session).event_page("gw-1", None, 10)]
    assert events == [("drift.clear", "gw-1"), ("drift.alarm", "gw-1")]


def test_a_restart_neither_forgets_nor_repeats_a_window(watch: Watch) -> None:
    watch.send(FLAT, LOW)
    watch.new().run_once()
    with watch.services.database.read() as session:
        before = DriftRepository(session).of_device("gw-1")[0].streams
    watch.new().run_once()
    with watch.services.database.read() as session:
        assert DriftRepository(session).of_device("gw-1")[0].streams == before
    assert watch.state() == "alarm"


def test_a_new_deployment_starts_from_nothing(watch: Watch) -> None:
    drift = watch.new()
    watch.send(LOW, LOW, LOW)
    drift.run_once()
    assert len(watch.open_alerts()) == 1
    watch.deploy("1.1.0")
    watch.send()
    drift.run_once()
    assert (watch.state(), watch.open_alerts()) == ("clean", [])


def test_a_reference_that_cannot_be_read_is_said_once_and_judges_nothing(watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    def gone(sha256: str) -> bytes:
        raise UnknownBlobError(f"no blob {sha256}")

    drift = watch.new(gone)
    for _ in range(3):
        watch.send(LOW)
        drift.run_once()
    assert watch.state() == "none"
    assert len(caplog.records) == 1
    watch.new(lambda _: b"torn").run_once()
    assert watch.state() == "none"


def test_a_torn_window_is_not_judged_and_stops_nothing_else(watch: Watch) -> None:
    drift = watch.new()
    watch.send()
    with watch.services.database.write() as session:
        row = TelemetryRepository(session).window_page("gw-1", None, None, 1)[0]
        row.raw = b"torn"
    drift.run_once()
    assert watch.state() == "none"
