"""What is older than its time goes, in batches; what is not stays, and so does the audit log."""

import pytest

from fleet import retention
from fleet.config import RetentionSection
from fleet.retention import DAY_MS, Retention
from fleet.services import Services
from fleet.store.access import AccessRepository
from fleet.store.inserts import count
from fleet.store.tables import Audit, Event, Window
from fleet.store.telemetry import TelemetryRepository
from runtime.contract.artifact import ArtifactRef
from runtime.contract.canonical import INFLATED_TELEMETRY_LIMIT, Received, write_message
from tests.fleet.peers import Behaviour, Clock, Devices

ARTIFACT = ArtifactRef(version="1.0.0", target="x86-64-cpu", sha256="a" * 64)


def add(services: Services, first: int, number: int, age_ms: int) -> None:
    windows = []
    for seq in range(first, first + number):
        window = Behaviour().window("gw-1", boot=1, seq=seq, model="digits", artifact=ARTIFACT, start_ms=1)
        windows.append(Received(write_message(window, INFLATED_TELEMETRY_LIMIT), window))
    with services.database.write() as session:
        telemetry = TelemetryRepository(session)
        telemetry.add_windows(windows, services.now_ms() - age_ms)
        telemetry.note("broker.lost", "", "", services.now_ms() - age_ms, device="gw-1")


def kept(services: Services) -> tuple[int, int]:
    with services.database.read() as session:
        return count(session, Window), count(session, Event)


@pytest.mark.parametrize(("age_ms", "left"), [(DAY_MS - 1, 7), (DAY_MS, 7), (DAY_MS + 1, 0)])
def test_a_window_goes_when_its_time_is_over(services: Services, devices: Devices, age_ms: int, left: int) -> None:
    devices.enrol("gw-1")
    add(services, 0, 7, age_ms)
    Retention(services.database, services.now_ms, RetentionSection(windows_days=1, events_days=9)).run_once()
    assert kept(services) == (left, 1)


def test_more_than_a_batch_goes_in_one_run(
    services: Services, devices: Devices, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    devices.enrol("gw-1")
    add(services, 0, 10, 5 * DAY_MS)
    add(services, 10, 4, 0)
    with services.database.write() as session:
        AccessRepository(session).record("ann", "admin", "x", "y", detail={}, now_ms=0)
    Retention(services.database, clock.now_ms, RetentionSection(windows_days=1, events_days=1)).run_once()
    assert kept(services) == (4, 1)
    with services.database.read() as session:
        assert count(session, Audit) == 2  # the one above, and that of `fleet init`
