"""Idempotent by key, one writer at a time, and one generation never with two bodies."""

import msgspec
import pytest

from fleet.domain.gates import Verdict
from fleet.domain.rollout import Progress, RolloutEvent, RolloutState
from fleet.errors import (
    ConflictError,
    DeviceExistsError,
    EnrolmentError,
    RaceError,
    ReleaseConflictError,
    UnknownDeviceError,
)
from fleet.services import Services
from fleet.store.access import AccessRepository
from fleet.store.alerts import AlertRepository, new_alert
from fleet.store.devices import Certificate, DeviceRepository
from fleet.store.releases import ReleaseRepository
from fleet.store.rollouts import RolloutRepository, progress_of
from fleet.store.tables import Enrolment, Twin
from fleet.store.telemetry import TelemetryRepository, gaps, require_countable
from fleet.store.twins import TwinRepository
from runtime.contract.artifact import ArtifactRef
from runtime.contract.canonical import INFLATED_TELEMETRY_LIMIT, Received, write_json, write_message
from runtime.contract.errors import MalformedError
from runtime.contract.telemetry import Event, StreamCounts, Window
from tests.fleet.peers import Behaviour, Devices, manifest
from tests.fleet.rollouts import operator, start_rollout

ARTIFACT = ArtifactRef(version="1.0.0", target="x86-64-cpu", sha256="a" * 64)


def received(window: Window) -> Received[Window]:
    return Received(write_message(window, INFLATED_TELEMETRY_LIMIT), window)


def window(seq: int = 1, device: str = "gw-1", boot: int = 5) -> Window:
    return Behaviour().window(device, boot=boot, seq=seq, model="digits", artifact=ARTIFACT, start_ms=1_000)


class TestTelemetry:
    def test_a_repeated_window_changes_nothing(self, services: Services, devices: Devices) -> None:
        devices.enrol("gw-1")
        with services.database.write() as session:
            telemetry = TelemetryRepository(session)
            first = telemetry.add_windows([received(window(1)), received(window(2))], 10)
            again = telemetry.add_windows([received(window(2)), received(window(3)), received(window(3))], 20)
            assert (first.new, first.repeated) == (2, 0)
            assert (again.new, again.repeated) == (1, 2)
            assert [row.seq for row in telemetry.window_page("gw-1", None, None, 10)] == [3, 2, 1]

    def test_windows_of_strangers_and_of_revoked_devices_are_dropped_and_counted(
        self, services: Services, devices: Devices
    ) -> None:
        devices.enrol("gw-1", "gw-2")
        with services.database.write() as session:
            DeviceRepository(session).revoke("gw-2", 5)
            batch = [received(window(1, name)) for name in ("gw-1", "gw-2", "nobody")]
            stored = TelemetryRepository(session).add_windows(batch, 10)
        assert (stored.new, stored.unknown) == (1, 2)

    def test_a_repeated_event_changes_nothing(self, services: Services, devices: Devices) -> None:
        devices.enrol("gw-1")
        event = Event(device="gw-1", boot=1, seq=1, at_ms=5, clock_synced=True, kind="update.fetching")
        with services.database.write() as session:
            telemetry = TelemetryRepository(session)
            assert telemetry.add_events([event], 10).new == 1
            assert telemetry.add_events([event], 20).repeated == 1

    def test_a_window_with_an_unsynced_clock_is_placed_by_its_arrival(self, services: Services, devices: Devices) -> None:
        devices.enrol("gw-1")
        unsynced = msgspec.structs.replace(window(2), clock_synced=False)
        with services.database.write() as session:
            telemetry = TelemetryRepository(session)
            telemetry.add_windows([received(window(1)), received(unsynced)], 99_000)
            assert [row.at_ms for row in telemetry.window_page("gw-1", None, None, 10)] == [99_000, 1_000]

    def test_gaps_are_counted_within_each_boot(self, services: Services, devices: Devices) -> None:
        devices.enrol("gw-1")
        batch = [received(window(seq, boot=boot)) for boot, seq in ((1, 4), (1, 5), (1, 8), (2, 1), (2, 3))]
        with services.database.write() as session:
            telemetry = TelemetryRepository(session)
            telemetry.add_windows(batch, 10)
            assert gaps(telemetry.window_page("gw-1", None, None, 10)) == 3

    @pytest.mark.parametrize(
        "changes",
        [
            {"requests": 2**53 + 1},
            {"classes": (2**60,)},
            {"latency": {3: 2**54}},
            {"streams": (StreamCounts(cells=(2**62,) * 32),)},
            {"errors": 201},
        ],
    )
    def test_figures_no_honest_device_sends_are_malformed(self, changes: dict[str, object]) -> None:
        require_countable(window())
        with pytest.raises(MalformedError):
            require_countable(msgspec.structs.replace(window(), **changes))


class TestTwins:
    def test_the_generation_rises_only_with_the_content(self, services: Services, devices: Devices) -> None:
        devices.enrol("gw-1")
        devices.publish("digits", "1.0.0")
        with services.database.write() as session:
            artifact = ReleaseRepository(session).artifacts("digits", "1.0.0")[0]
            twins = TwinRepository(session)
            first = twins.want("gw-1", "digits", artifact.id, "r-1", 1)
            assert twins.want("gw-1", "digits", artifact.id, "r-1", 1) == first
            assert twins.want("gw-1", "digits", artifact.id, "r-1", 2) == first + 1
            assert twins.want("gw-1", "digits", None, "r-1", 3) == first + 2
            assert twins.want("gw-1", "digits", None, "r-1", 4) == first + 2
            assert twins.deployments("gw-1") == ()

    def test_a_generation_is_sealed_once(self, services: Services, devices: Devices) -> None:
        devices.enrol("gw-1")
        with services.database.write() as session:
            twins = TwinRepository(session)
            assert twins.seal("gw-1", 1, b"first", 100)
            assert not twins.seal("gw-1", 1, b"second", 100)
            assert twins.reissue("gw-1") == 2
            assert not twins.seal("gw-1", 1, b"late", 100)
            assert twins.seal("gw-1", 2, b"third", 200)
        with services.database.read() as session:
            twin = session.get_one(Twin, "gw-1")
            assert (twin.generation, twin.desired) == (2, b"third")

    def test_an_older_report_of_the_same_boot_is_left_out(self, services: Services, devices: Devices) -> None:
        devices.enrol("gw-1")
        devices.report("gw-1")
        devices.played["gw-1"].seq -= 1
        before = services.now_ms()
        with services.database.read() as session:
            held = TwinRepository(session).get("gw-1").reported
        devices.report("gw-1")
        with services.database.read() as session:
            assert TwinRepository(session).get("gw-1").reported == held
        assert before == services.now_ms()

    def test_a_model_the_device_no_longer_reports_disappears(self, services: Services, devices: Devices) -> None:
        devices.enrol("gw-1")
        devices.publish("digits", "1.0.0")
        start_rollout(services, "1.0.0", want_now=True)
        devices.converge("gw-1")
        with services.database.read() as session:
            assert [row.model for row in TwinRepository(session).installed("gw-1")] == ["digits"]
        devices.played["gw-1"].reported.clear()
        devices.report("gw-1")
        with services.database.read() as session:
            assert TwinRepository(session).installed("gw-1") == []


class TestEnrolment:
    def add(self, services: Services, **changes: object) -> None:
        values = {"secret_sha256": "s", "labels": {}, "created_ms": 0, "created_by": "ann", "expires_ms": 1_000}
        with services.database.write() as session:
            DeviceRepository(session).add_enrolment(Enrolment(**{**values, **changes}))

    def redeem(self, services: Services, now_ms: int = 500, device: str = "gw-1", secret: str = "s") -> None:
        with services.database.write() as session:
            DeviceRepository(session).redeem(secret, device, now_ms)

    def test_a_secret_is_good_once(self, services: Services) -> None:
        self.add(services)
        self.redeem(services)
        with pytest.raises(EnrolmentError):
            self.redeem(services)

    @pytest.mark.parametrize(("now_ms", "is_good"), [(999, True), (1_000, False), (1_001, False)])
    def test_a_secret_expires(self, services: Services, now_ms: int, is_good: bool) -> None:
        self.add(services)
        if is_good:
            self.redeem(services, now_ms)
        else:
            with pytest.raises(EnrolmentError):
                self.redeem(services, now_ms)

    def test_a_secret_for_one_device_is_for_no_other(self, services: Services) -> None:
        self.add(services, device="gw-9")
        with pytest.raises(EnrolmentError, match="gw-9"):
            self.redeem(services)

    def test_an_unknown_secret(self, services: Services) -> None:
        with pytest.raises(EnrolmentError):
            self.redeem(services, secret="guess")

    def test_a_revoked_id_stays_taken(self, services: Services, devices: Devices) -> None:
        devices.enrol("gw-1")
        with services.database.write() as session:
            registry = DeviceRepository(session)
            registry.revoke("gw-1", 5)
            assert registry.revoke("gw-1", 9).revoked_ms == 5
            with pytest.raises(DeviceExistsError):
                registry.enrol("gw-1", {}, Certificate(pem="", serial="", expires_ms=0), 10)
            with pytest.raises(UnknownDeviceError):
                registry.revoke("nobody", 5)


class TestReleases:
    def add(self, services: Services, *manifests: Received) -> None:
        with services.database.write() as session:
            found = [(one, None) for one in manifests]
            ReleaseRepository(session).add("digits", "1.0.0", found, role_version=1, now_ms=1, actor="ann")

    def test_the_same_content_twice_changes_nothing(self, services: Services) -> None:
        self.add(services, manifest("digits", "1.0.0"))
        self.add(services, manifest("digits", "1.0.0"))
        with services.database.read() as session:
            assert len(ReleaseRepository(session).artifacts("digits", "1.0.0")) == 1

    def test_another_target_may_join_later(self, services: Services) -> None:
        self.add(services, manifest("digits", "1.0.0"))
        self.add(services, manifest("digits", "1.0.0", "pi5"))
        with services.database.read() as session:
            found = ReleaseRepository(session).artifacts("digits", "1.0.0")
            assert [artifact.target for artifact in found] == ["pi5", "x86-64-cpu"]

    def test_other_content_under_a_taken_name_is_refused_and_nothing_is_kept(self, services: Services) -> None:
        held = manifest("digits", "1.0.0")
        self.add(services, held)
        changed = msgspec.structs.replace(held.value, licence="other")
        with pytest.raises(ReleaseConflictError):
            self.add(services, manifest("digits", "1.0.0", "pi5"), Received(write_json(changed), changed))
        with services.database.read() as session:
            assert len(ReleaseRepository(session).artifacts("digits", "1.0.0")) == 1


class TestRollouts:
    def test_of_two_writers_who_read_the_same_state_one_fails(self, services: Services, devices: Devices) -> None:
        devices.enrol("gw-1")
        devices.publish("digits", "1.0.0")
        rollout = start_rollout(services, "1.0.0")
        with services.database.read() as session:
            row = RolloutRepository(session).get(rollout)
        progress = Progress(state=RolloutState.SOAKING)
        with services.database.write() as session:
            RolloutRepository(session).save(rollout, row.revision, None, progress, 5)
        with pytest.raises(RaceError), services.database.write() as session:
            RolloutRepository(session).save(rollout, row.revision, None, Progress(state=RolloutState.DONE), 5)
        with services.database.read() as session:
            assert progress_of(RolloutRepository(session).get(rollout)) == progress

    def test_a_scheduler_whose_epoch_is_over_cannot_write(self, services: Services, devices: Devices) -> None:
        devices.enrol("gw-1")
        devices.publish("digits", "1.0.0")
        rollout = start_rollout(services, "1.0.0")
        with services.database.write() as session:
            old, new = RolloutRepository(session).take_charge(), RolloutRepository(session).take_charge()
            revision = RolloutRepository(session).get(rollout).revision
        with pytest.raises(RaceError, match="epoch"), services.database.write() as session:
            RolloutRepository(session).save(rollout, revision, old, Progress(), 5)
        with services.database.write() as session:
            assert RolloutRepository(session).save(rollout, revision, new, Progress(), 5) == revision + 1

    def test_an_evaluation_is_kept_once(self, services: Services, devices: Devices) -> None:
        devices.enrol("gw-1")
        devices.publish("digits", "1.0.0")
        rollout = start_rollout(services, "1.0.0")
        verdict = Verdict(gate="latency", decision="hold", reason="too early", limit=1.5)
        with services.database.write() as session:
            rollouts = RolloutRepository(session)
            assert rollouts.save_verdicts(rollout, 0, 1, [verdict], 5) == 1
            assert rollouts.save_verdicts(rollout, 0, 1, [msgspec.structs.replace(verdict, decision="fail")], 6) == 0
            assert [row.decision for row in rollouts.verdicts(rollout)] == ["hold"]

    def test_pages_neither_lose_nor_repeat_rollouts_made_in_the_same_millisecond(
        self, services: Services, devices: Devices
    ) -> None:
        devices.enrol("gw-1")
        devices.publish("digits", "1.0.0")
        made = {start_rollout(services, "1.0.0", start=False) for _ in range(7)}
        seen: list[str] = []
        with services.database.read() as session:
            while batch := RolloutRepository(session).page(seen[-1] if seen else None, 3):
                seen += [row.id for row in batch]
        assert len(seen) == 7
        assert set(seen) == made


def test_one_alert_per_key_is_open(services: Services) -> None:
    with services.database.write() as session:
        alerts = AlertRepository(session)
        alerts.open(new_alert("drift", "drift:gw-1", "first", {}, 1, device="gw-1"))
        alerts.open(new_alert("drift", "drift:gw-1", "second", {}, 2, device="gw-1"))
        assert [(alert.title, alert.opened_ms) for alert in alerts.page(None, 10)] == [("second", 1)]
        assert alerts.close("drift:gw-1", 3) is not None
        assert alerts.close("drift:gw-1", 4) is None
        alerts.open(new_alert("drift", "drift:gw-1", "third", {}, 5, device="gw-1"))
        assert [alert.title for alert in alerts.page(None, 10, only_open=True)] == ["third"]
        assert len(alerts.page(None, 10)) == 2


def test_token_names_are_taken_once_and_init_may_replace_its_own(services: Services) -> None:
    with services.database.write() as session:
        access = AccessRepository(session)
        access.add_token("bob", "hash-1", "viewer", 1)
        with pytest.raises(ConflictError):
            access.add_token("bob", "hash-2", "viewer", 2)
        access.replace_token("bob", "hash-3", "operator", 3)
        assert access.token("hash-1") is None
        found = access.token("hash-3")
        assert found is not None
        assert found.role == "operator"


def test_the_operator_of_the_helper_is_audited(services: Services, devices: Devices) -> None:
    devices.enrol("gw-1")
    devices.publish("digits", "1.0.0")
    rollout = start_rollout(services, "1.0.0")
    services.control.act(rollout, RolloutEvent.PAUSE, operator())
    with services.database.read() as session:
        entries = [row for row in AccessRepository(session).audit_page(None, 10) if row.object == rollout]
    assert [(row.action, row.actor) for row in entries] == [
        ("rollout.pause", "olga"), ("rollout.start", "olga"), ("rollout.create", "olga"),
    ]  # fmt: skip
