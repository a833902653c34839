"""The scheduler over a real database: devices are played, the clock is set, and the process may die anywhere."""

import pytest
from sqlalchemy import event as sql_event

from fleet.domain.gates import GateLimits
from fleet.domain.plan import Stage
from fleet.domain.rollout import RolloutEvent, RolloutState
from fleet.errors import BusyModelError
from fleet.scheduler import Scheduler
from fleet.services import Services
from fleet.store.alerts import AlertRepository
from fleet.store.devices import DeviceRepository
from fleet.store.releases import ReleaseRepository
from fleet.store.rollouts import RolloutRepository
from fleet.store.telemetry import TelemetryRepository
from fleet.store.twins import TwinRepository
from tests.fleet.peers import Behaviour, Clock, Devices
from tests.fleet.rollouts import operator, start_rollout

FLEET = ("gw-1", "gw-2", "gw-3", "gw-4")
ALL_AT_ONCE = (Stage(percent=100, soak_s=5),)
SKEWED = (0.1, 0.1, 0.1, 0.0, 0.1, 0.1, 0.1, 0.1, 0.2, 0.1)


class Story:
    """Drives a fleet of four through one rollout after the other."""

    def __init__(self, services: Services, devices: Devices, clock: Clock) -> None:
        self.services, self.devices, self.clock = services, devices, clock
        self.scheduler = self.new_scheduler()
        devices.enrol(*FLEET)

    def new_scheduler(self) -> Scheduler:
        """What a restarted service begins with: nothing in memory and a new epoch."""
        made = Scheduler(
            self.services.database, self.services.changes, self.services.now_ms, self.services.config.scheduler, lambda: None
        )
        made.take_charge()
        return made

    def state(self, rollout: str) -> RolloutState:
        with self.services.database.read() as session:
            return RolloutState(RolloutRepository(session).get(rollout).state)

    def serving(self) -> list[str]:
        played = self.devices.played.values()
        return [device.serving["digits"].version if "digits" in device.serving else "-" for device in played]

    def second(self, behaviour: Behaviour | None = None) -> None:
        """A look, the devices' answers, a window of each that serves, and a second."""
        self.scheduler.run_once()
        self.devices.converge()
        serving = [name for name, device in self.devices.played.items() if "digits" in device.serving]
        if serving:
            self.devices.serve("digits", behaviour or Behaviour(), *serving)
        self.clock.pass_s(1)

    def finish(self, rollout: str, seconds: int = 60) -> RolloutState:
        for _ in range(seconds):
            if self.state(rollout) in (RolloutState.DONE, RolloutState.ROLLED_BACK):
                break
            self.second()
        return self.state(rollout)

    def release(self, version: str, **changes: object) -> str:
        self.devices.publish("digits", version)
        return start_rollout(self.services, version, **changes)  # type: ignore[arg-type]


@pytest.fixture
def story(services: Services, devices: Devices, clock: Clock) -> Story:
    return Story(services, devices, clock)


def test_a_release_replaces_another_in_stages(story: Story) -> None:
    assert story.finish(story.release("1.0.0", stages=ALL_AT_ONCE)) is RolloutState.DONE
    rollout = story.release("1.1.0")
    counts = []
    while story.state(rollout) is not RolloutState.DONE:
        story.second()
        counts.append(story.serving().count("1.1.0"))
    assert sorted(set(counts)) == [1, 2, 4]


def test_a_version_that_behaves_differently_is_stopped_and_every_device_goes_back(story: Story) -> None:
    story.finish(story.release("1.0.0", stages=ALL_AT_ONCE))
    rollout = story.release("1.2.0")
    story.second()
    canary = next(name for name, device in story.devices.played.items() if device.serving["digits"].version == "1.2.0")
    story.devices.serve("digits", Behaviour(rows=1_000, classes=SKEWED), canary)
    assert story.finish(rollout) is RolloutState.ROLLED_BACK
    assert story.serving() == ["1.0.0"] * 4
    with story.services.database.read() as session:
        row = RolloutRepository(session).get(rollout)
        assert "class_mix" in row.reason
        assert canary in row.reason
        (alert,) = AlertRepository(session).page(None, 10, only_open=True)
        assert (alert.rollout, alert.model) == (rollout, "digits")
        events = [one.kind for one in TelemetryRepository(session).event_page(None, None, 50) if one.rollout == rollout]
    assert events == ["rollout.rolled_back", "rollout.rolling_back", "rollout.updating"]
    assert story.finish(story.release("1.2.1")) is RolloutState.DONE
    with story.services.database.read() as session:
        assert AlertRepository(session).page(None, 10, only_open=True) == []


def test_going_back_is_a_higher_generation_that_names_the_old_artifact(story: Story) -> None:
    story.finish(story.release("1.0.0", stages=ALL_AT_ONCE))
    story.devices.played["gw-2"].refuses.add("1.1.0")
    generation, (before,) = story.devices.wanted("gw-2")
    rollout = story.release("1.1.0", stages=ALL_AT_ONCE)
    assert story.finish(rollout) is RolloutState.ROLLED_BACK
    later, (after,) = story.devices.wanted("gw-2")
    assert after.artifact == before.artifact
    assert later == generation + 2
    assert (after.rollout, after.attempt) == (rollout, 2)
    assert story.serving() == ["1.0.0"] * 4


def test_a_first_version_that_fails_leaves_nothing_wanted(story: Story) -> None:
    story.devices.played["gw-3"].refuses.add("1.0.0")
    assert story.finish(story.release("1.0.0", stages=ALL_AT_ONCE)) is RolloutState.ROLLED_BACK
    assert all(story.devices.wanted(name)[1] == () for name in FLEET)


def test_a_silent_device_holds_the_rollout_and_its_late_report_moves_it_on(story: Story) -> None:
    rollout = story.release("1.0.0", stages=ALL_AT_ONCE)
    for _ in range(20):
        story.scheduler.run_once()
        story.devices.converge("gw-1", "gw-2", "gw-3")
        story.clock.pass_s(3600)
    assert story.state(rollout) is RolloutState.UPDATING
    assert story.finish(rollout) is RolloutState.DONE


class TestRestarts:
    def test_a_service_restarted_before_every_step_ends_as_one_that_never_was(self, story: Story) -> None:
        story.finish(story.release("1.0.0", stages=ALL_AT_ONCE))
        rollout = story.release("1.1.0")
        generations = {name: story.devices.wanted(name)[0] for name in FLEET}
        for _ in range(60):
            story.scheduler = story.new_scheduler()
            story.second()
        assert story.state(rollout) is RolloutState.DONE
        assert {name: story.devices.wanted(name)[0] - 1 for name in FLEET} == generations, "a device was told twice"

    def test_dying_before_any_commit_changes_nothing_and_the_next_start_goes_on(self, story: Story) -> None:
        """Every write transaction of the rollout's way is cut off once just before its commit."""
        story.finish(story.release("1.0.0", stages=ALL_AT_ONCE))
        rollout = story.release("1.1.0")
        generations = {name: story.devices.wanted(name)[0] for name in FLEET}
        engine = story.services.database.engine
        deaths = 0

        def die(_: object) -> None:
            raise KeyboardInterrupt

        while story.state(rollout) is not RolloutState.DONE:
            sql_event.listen(engine, "commit", die)
            try:
                story.scheduler.run_once()
            except KeyboardInterrupt:
                deaths += 1
            finally:
                sql_event.remove(engine, "commit", die)
            story.scheduler = story.new_scheduler()
            story.second()
        assert deaths > 10
        assert {name: story.devices.wanted(name)[0] - 1 for name in FLEET} == generations

    def test_of_two_schedulers_only_the_newer_one_writes(self, story: Story) -> None:
        rollout = story.release("1.0.0", stages=ALL_AT_ONCE)
        old, new = story.scheduler, story.new_scheduler()
        old.run_once()
        assert all(story.devices.wanted(name)[1] == () for name in FLEET), "a fenced scheduler told devices"
        new.run_once()
        old.run_once()
        assert all(len(story.devices.wanted(name)[1]) == 1 for name in FLEET)
        assert story.state(rollout) is RolloutState.UPDATING


def test_nothing_is_written_while_nothing_changes(story: Story) -> None:
    rollout = story.release("1.0.0", stages=ALL_AT_ONCE)
    story.scheduler.run_once()
    with story.services.database.read() as session:
        before = RolloutRepository(session).get(rollout).revision
    for _ in range(20):
        story.scheduler.run_once()
        story.clock.pass_s(10)
    with story.services.database.read() as session:
        assert RolloutRepository(session).get(rollout).revision == before


class TestRivals:
    def test_a_second_rollout_of_the_model_on_the_same_devices_is_refused(self, story: Story) -> None:
        first = story.release("1.0.0")
        story.devices.publish("digits", "1.1.0")
        with pytest.raises(BusyModelError, match=first):
            start_rollout(story.services, "1.1.0")

    def test_a_repaired_version_need_not_wait_for_a_device_that_cannot_go_back(self, story: Story) -> None:
        bad = story.release("1.0.0", stages=ALL_AT_ONCE)
        story.scheduler.run_once()
        story.services.control.act(bad, RolloutEvent.ROLL_BACK, operator())
        story.scheduler.run_once()
        assert story.state(bad) is RolloutState.ROLLING_BACK
        assert story.finish(story.release("1.0.1", stages=ALL_AT_ONCE)) is RolloutState.DONE
        assert story.state(bad) is RolloutState.ROLLED_BACK
        assert story.serving() == ["1.0.1"] * 4

    def test_rolling_back_an_old_rollout_leaves_devices_of_a_newer_one_alone(self, story: Story) -> None:
        old = story.release("1.0.0", stages=ALL_AT_ONCE)
        story.finish(old)
        story.finish(story.release("1.1.0", stages=ALL_AT_ONCE))
        story.services.control.act(old, RolloutEvent.ROLL_BACK, operator())
        assert story.finish(old) is RolloutState.ROLLED_BACK
        assert story.serving() == ["1.1.0"] * 4


def test_a_revoked_device_is_withdrawn_and_the_rollout_goes_on(story: Story) -> None:
    rollout = story.release("1.0.0", stages=ALL_AT_ONCE)
    story.scheduler.run_once()
    with story.services.database.write() as session:
        DeviceRepository(session).revoke("gw-4", story.services.now_ms())
    del story.devices.played["gw-4"]
    assert story.finish(rollout) is RolloutState.DONE


def test_a_torn_window_in_the_store_holds_the_rollout_and_only_that_one(story: Story) -> None:
    rollout = story.release("1.0.0", stages=ALL_AT_ONCE)
    story.second()
    with story.services.database.write() as session:
        row = TelemetryRepository(session).window_page("gw-1", None, None, 1)[0]
        row.raw = row.raw[:-3]
    assert story.finish(rollout) is RolloutState.SOAKING
    with story.services.database.read() as session:
        held = {one.gate for one in RolloutRepository(session).verdicts(rollout, 5) if one.decision == "hold"}
        reasons = " ".join(one.reason for one in RolloutRepository(session).verdicts(rollout, 5))
    assert held == {"error_share", "latency", "class_mix", "confidence"}
    assert "gw-1" in reasons


def test_min_rows_zero_lets_a_fleet_without_traffic_through(story: Story) -> None:
    rollout = story.release("1.0.0", stages=ALL_AT_ONCE, gates=GateLimits(min_rows=0))
    for _ in range(10):
        story.scheduler.run_once()
        story.devices.converge()
        story.clock.pass_s(1)
    assert story.state(rollout) is RolloutState.DONE


def test_settings_and_other_models_survive_a_rollout(story: Story) -> None:
    story.devices.publish("pumps", "3.0.0")
    with story.services.database.write() as session:
        artifact = ReleaseRepository(session).artifacts("pumps", "3.0.0")[0]
        TwinRepository(session).want("gw-1", "pumps", artifact.id, "r-pumps", 1)
    story.finish(story.release("1.0.0", stages=ALL_AT_ONCE))
    assert [wanted.model for wanted in story.devices.wanted("gw-1")[1]] == ["digits", "pumps"]
