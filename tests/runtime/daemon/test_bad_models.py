"""Does a bad model pushed as an update take anything down? The daemon lives, the old version answers, the fleet learns why."""

import http.client
import json
import os
import threading

import msgspec
import numpy as np
import pytest

from runtime.contract.artifact import EngineRange, Fallback, Requirements
from runtime.contract.deployment import DeploymentState, Outcome, Settings
from runtime.contract.topics import Channel
from runtime.engines import read_engines
from runtime.exits import EXIT_STUCK
from tests.support import bad_engine
from tests.support.artifacts import ARCH, FEATURES, TARGET, scores, write_artifact
from tests.support.fleet import event, settled
from tests.support.store import make_desired

pytestmark = pytest.mark.e2e

ROWS = np.random.default_rng(5).normal(size=(2, FEATURES)).astype(np.float32)
POISON = ROWS * 10 * bad_engine.POISON
MIB = 1 << 20
PATIENT = Settings(window_s=1, probation_s=600)
BAD = Requirements(profile=TARGET, arch=ARCH, engine=bad_engine.NAME, engine_range=EngineRange(at_least="1", below="2"))


@pytest.fixture
def push(tmp_path, store, fleet, monkeypatch):
    """Release a version for a device and ask for it; the bad engine is registered with the daemon and its helpers."""
    monkeypatch.setenv("PYTHONPATH", bad_engine.register(tmp_path / "site"), prepend=os.pathsep)
    generation = 0

    def ask(device, version, fault=None, **changes):
        nonlocal generation
        generation += 1
        settings = changes.pop("settings", PATIENT if fault else Settings(window_s=1, probation_s=0))
        if fault is not None:
            changes |= {"requires": BAD, "engine_options": {"fault": fault}}
        artifact = write_artifact(tmp_path / version, version=version, scale=float(generation), **changes)
        store.publish(tmp_path / version)
        wanted = make_desired(device, generation, artifact, rollout=f"rollout-{generation}", settings=settings)
        fleet.publish(device, Channel.DESIRED, store.seal(wanted))
        return artifact, f"rollout-{generation}"

    return ask


class Traffic:
    """Ordinary requests on one connection, without a pause, for as long as the block lasts. seen: the statuses."""

    def __init__(self, port):
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seen, self.failures = [], []

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()
        self._connection.close()

    def _run(self):
        tensor = {"name": "input", "datatype": "FP32", "shape": list(ROWS.shape), "data": ROWS.ravel().tolist()}
        body = json.dumps({"inputs": [tensor]})
        while not self._ended.wait(0.002):
            try:
                self._connection.request("POST", "/v2/models/tiny/infer", body, {"Content-Type": "application/json"})
                response = self._connection.getresponse()
                response.read()
                self.seen.append(response.status)
            except OSError as error:  # a dropped connection is what must not be
                self.failures.append(error)
                return


def in_probation(daemon, artifact):
    return lambda: (job := daemon.job()) and job.artifact == artifact and job.state is DeploymentState.PROBATION


def test_versions_that_crash_hang_and_leak_are_rolled_back_while_the_old_one_answers(fleet, start_daemon, push):
    device = "unbreakable"
    daemon = start_daemon(device, **{"serving.engine_timeout_s": 2, "serving.engine_memory_bytes": 400 * MIB})
    old, rollout = push(device, "1.0.0")
    fleet.wait(settled(device, old, rollout=rollout))
    pid = daemon.pid
    with Traffic(daemon.port) as traffic:
        for version, fault, code in (
            ("1.1.0", "segfault", "engine.crashed"),
            ("1.2.0", "hang", "engine.hung"),
            ("1.3.0", "leak", "engine.crashed"),
        ):
            new, rollout = push(device, version, fault)
            daemon.wait_until(in_probation(daemon, new), "probation")
            # Whoever sets it off is answered all the same: the version before it stands by.
            np.testing.assert_allclose(daemon.infer(POISON), scores(POISON, 1.0), rtol=1e-4)
            _, deployment = fleet.wait(settled(device, new, Outcome.ROLLED_BACK, rollout))
            assert (deployment.artifact, deployment.error_code) == (old, "update.probation_failed")
            assert code in deployment.error_detail
            assert fleet.wait(
                lambda *message, code=code, version=version: (
                    (found := event(device, code)(*message)) and version in found.detail and found
                )
            )
            np.testing.assert_allclose(daemon.infer(ROWS), scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)
    assert not traffic.failures
    assert set(traffic.seen) == {200}
    assert daemon.pid == pid
    assert daemon.stop() == 0
    assert "start 1 " in daemon.log()
    assert "start 2 " not in daemon.log()


@pytest.mark.slow
def test_a_version_that_crashes_when_it_is_opened_is_refused(fleet, start_daemon, push):
    daemon = start_daemon("opener")
    old, rollout = push("opener", "1.0.0")
    fleet.wait(settled("opener", old, rollout=rollout))
    new, rollout = push("opener", "1.1.0", "load")
    _, deployment = fleet.wait(settled("opener", new, Outcome.REFUSED, rollout))
    assert (deployment.artifact, deployment.error_code) == (old, "update.self_test_failed")
    np.testing.assert_allclose(daemon.infer(ROWS), scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_first_version_that_crashes_leaves_nothing_but_the_daemon(fleet, start_daemon, push):
    daemon = start_daemon("first")
    new, rollout = push("first", "1.0.0", "abort")
    daemon.wait_until(in_probation(daemon, new), "probation")
    with pytest.raises(LookupError, match=r"engine\.crashed"):
        daemon.infer(POISON)
    _, deployment = fleet.wait(settled("first", new, Outcome.ROLLED_BACK, rollout))
    assert (deployment.artifact, deployment.error_code) == (None, "update.probation_failed")
    with pytest.raises(LookupError, match=r"request\.unknown_model"):
        daemon.infer(ROWS)
    assert daemon.stop() == 0


@pytest.mark.slow
def test_a_version_that_kills_only_the_daemon_itself_is_rolled_back_by_the_third_start(fleet, start_daemon, push):
    """It behaves in its own process throughout its probation and strikes when it is to be opened in the daemon's."""
    daemon = start_daemon("settler")
    old, rollout = push("settler", "1.0.0")
    fleet.wait(settled("settler", old, rollout=rollout))
    new, rollout = push("settler", "1.1.0", "load_here", settings=Settings(window_s=1, probation_s=0))
    for _ in range(3):
        assert daemon.wait_for_end() == -9
        assert daemon.job().state is DeploymentState.COMMITTING
        daemon.start()
    _, deployment = fleet.wait(settled("settler", new, Outcome.ROLLED_BACK, rollout))
    assert (deployment.artifact, deployment.error_code) == (old, "update.interrupted")
    np.testing.assert_allclose(daemon.infer(ROWS), scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)
    assert daemon.stop() == 0


def test_isolated_always_it_is_started_again_and_the_next_engine_serves(fleet, start_daemon, push):
    """The first engine of the manifest cannot open the file; the bad one serves instead, crashes, and comes back."""
    device = "always"
    daemon = start_daemon(device, **{"serving.isolation": "always"})
    instead = Fallback(engine=bad_engine.NAME, engine_range=BAD.engine_range, engine_options={"fault": "abort"})
    first = msgspec.structs.replace(BAD, engine="onnxruntime", engine_range=EngineRange(at_least="1", below="9"))
    artifact, rollout = push(device, "1.0.0", requires=first, fallbacks=(instead,))
    fleet.wait(settled(device, artifact, rollout=rollout))
    told = fleet.wait(event(device, "engine.fallback"))
    assert "runs in bad 1.2.0 instead of onnxruntime" in told.detail
    assert read_engines(daemon.state_dir)["tiny"].startswith("bad 1.2.0 instead of onnxruntime (onnxruntime cannot open")
    with pytest.raises(LookupError, match=r"engine\.crashed"):
        daemon.infer(POISON)
    (found,) = daemon.wait_until(lambda: [daemon.infer(ROWS)], "its process is there again")
    np.testing.assert_allclose(found, scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)
    assert daemon.stop() == 0


@pytest.mark.slow
def test_a_hang_in_the_daemon_itself_ends_it_and_the_fleet_is_told(fleet, start_daemon, push):
    """Without isolation the watchdog is what is left: three such ends, and the version is gone."""
    settings = {"serving.isolation": "never", "serving.watchdog_s": 1, "serving.engine_timeout_s": 1}
    daemon = start_daemon("hanger", **settings)
    old, rollout = push("hanger", "1.0.0")
    fleet.wait(settled("hanger", old, rollout=rollout))
    new, rollout = push("hanger", "1.1.0", "hang")
    for _ in range(3):
        daemon.wait_until(in_probation(daemon, new), "probation")
        daemon.wait_until(lambda: [daemon.infer(ROWS)], "serving")
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            daemon.infer(POISON)
        assert daemon.wait_for_end() == EXIT_STUCK
        daemon.start()
        told = fleet.wait(event("hanger", "daemon.stuck"))
        assert "the event loop has not turned" in told.detail  # so quick a model runs in the loop itself
    _, deployment = fleet.wait(settled("hanger", new, Outcome.ROLLED_BACK, rollout))
    assert (deployment.artifact, deployment.error_code) == (old, "update.interrupted")
    assert daemon.stop() == 0
