"""Does a daemon killed at the worst moments come back by itself, with the desired version and a final report?"""

import numpy as np
import pytest

from runtime.contract.deployment import DeploymentState, Outcome, Settings
from runtime.contract.topics import Channel
from runtime.update.storm import DEATH, LIMIT
from tests.support.artifacts import FEATURES, scores, write_artifact
from tests.support.fleet import event, settled
from tests.support.store import make_desired

pytestmark = pytest.mark.e2e

ROWS = np.random.default_rng(5).normal(size=(2, FEATURES)).astype(np.float32)

DIE_SWITCHING = """
import os, signal
from runtime.update.slots import Slots
real = Slots.activate
def activate(self, model, slot):
    if {after}:
        real(self, model, slot)
    os.kill(os.getpid(), signal.SIGKILL)
Slots.activate = activate
"""
DIE_OPENING = """
import os, signal
from runtime.serving.models import repository
real = repository.open_artifact
def open_artifact(directory, *rest, **options):
    if b'"version":"1.1.0"' in (directory / "manifest.json").read_bytes():
        os.kill(os.getpid(), signal.SIGKILL)
    return real(directory, *rest, **options)
repository.open_artifact = open_artifact
"""


@pytest.fixture
def versions(tmp_path, store):
    """Two released versions."""
    old = write_artifact(tmp_path / "old", version="1.0.0", scale=1.0)
    new = write_artifact(tmp_path / "new", version="1.1.0", scale=2.0)
    store.publish(tmp_path / "old")
    store.publish(tmp_path / "new")
    return old, new


def wanting(store, device, generation, artifact, **settings):
    wanted = Settings(**({"window_s": 1, "probation_s": 0} | settings))
    return store.seal(make_desired(device, generation, artifact, rollout=f"rollout-{generation}", settings=wanted))


def serves(daemon, scale):
    return lambda: np.allclose(daemon.infer(ROWS), scores(ROWS, scale), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("after", [False, True], ids=["before the rename", "after the rename"])
def test_kill_in_switching(versions, store, fleet, start_daemon, after):
    old, new = versions
    device = f"switching-{after}".lower()
    daemon = start_daemon(device)
    fleet.publish(device, Channel.DESIRED, wanting(store, device, 1, old))
    fleet.wait(settled(device, old))
    daemon.stop()
    daemon.start(DIE_SWITCHING.format(after=after))
    fleet.publish(device, Channel.DESIRED, wanting(store, device, 2, new))
    assert daemon.wait_for_end() == -9
    assert daemon.job().state is DeploymentState.SWITCHING
    daemon.start()
    _, deployment = fleet.wait(settled(device, new, rollout="rollout-2"))
    assert (deployment.artifact, deployment.outcome) == (new, Outcome.SUCCEEDED)
    daemon.wait_until(serves(daemon, 2.0), "the new version")


def test_kill_in_probation(versions, store, fleet, start_daemon):
    old, new = versions
    daemon = start_daemon("probation-1")
    fleet.publish("probation-1", Channel.DESIRED, wanting(store, "probation-1", 1, old))
    fleet.wait(settled("probation-1", old))
    fleet.publish("probation-1", Channel.DESIRED, wanting(store, "probation-1", 2, new, probation_s=2))
    daemon.wait_until(lambda: daemon.job().state is DeploymentState.PROBATION, "probation")
    daemon.kill()
    daemon.start()
    daemon.wait_until(serves(daemon, 2.0), "the version in probation")
    _, deployment = fleet.wait(settled("probation-1", new, rollout="rollout-2"))
    assert deployment.artifact == new


def test_a_version_that_kills_the_daemon_whenever_it_is_opened_is_rolled_back(versions, store, fleet, start_daemon):
    old, new = versions
    daemon = start_daemon("deadly")
    fleet.publish("deadly", Channel.DESIRED, wanting(store, "deadly", 1, old))
    fleet.wait(settled("deadly", old))
    daemon.stop()
    fleet.publish("deadly", Channel.DESIRED, wanting(store, "deadly", 2, new))
    for _ in range(3):
        daemon.start(DIE_OPENING)
        assert daemon.wait_for_end() == -9
    daemon.start(DIE_OPENING)
    _, deployment = fleet.wait(settled("deadly", new, Outcome.ROLLED_BACK, "rollout-2"))
    assert (deployment.artifact, deployment.error_code) == (old, "update.interrupted")
    daemon.wait_until(serves(daemon, 1.0), "the old version")
    fleet.publish("deadly", Channel.DESIRED, wanting(store, "deadly", 3, old))
    fleet.wait(settled("deadly", old, rollout="rollout-3"))


@pytest.mark.slow  # the same with simulated deaths: tests/runtime/update/test_storm.py
def test_a_committed_version_under_which_the_daemon_keeps_dying_gives_way(versions, store, fleet, start_daemon):
    old, new = versions
    daemon = start_daemon("storm")
    fleet.publish("storm", Channel.DESIRED, wanting(store, "storm", 1, old))
    fleet.wait(settled("storm", old))
    fleet.publish("storm", Channel.DESIRED, wanting(store, "storm", 2, new))
    fleet.wait(settled("storm", new, rollout="rollout-2"))
    daemon.stop()
    for _ in range(LIMIT // DEATH):
        assert daemon.start(DIE_OPENING).wait_for_end() == -9
    daemon.start(DIE_OPENING)
    _, deployment = fleet.wait(settled("storm", new, Outcome.ROLLED_BACK, "rollout-2"))
    assert (deployment.artifact, deployment.error_code) == (old, "update.crash_loop")
    assert fleet.wait(event("storm", "update.crash_loop"))
    daemon.wait_until(serves(daemon, 1.0), "the old version")
