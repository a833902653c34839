"""Does a device, told by a real broker, bring a version in, serve it, and say so?"""

import msgspec
import numpy as np
import pytest

from runtime.contract.telemetry import Event, Presence, read_window
from runtime.contract.topics import Channel
from tests.support.artifacts import FEATURES, scores, write_artifact
from tests.support.fleet import settled
from tests.support.store import make_desired

pytestmark = pytest.mark.e2e

ROWS = np.random.default_rng(5).normal(size=(8, FEATURES)).astype(np.float32)


def test_a_desired_version_is_fetched_tested_served_and_reported(tmp_path, store, door, fleet, start_daemon):
    first = write_artifact(tmp_path / "1", version="1.0.0", scale=1.0)
    store.publish(tmp_path / "1")
    daemon = start_daemon("loop-1")
    fleet.publish("loop-1", Channel.DESIRED, store.seal(make_desired("loop-1", 1, first)))
    report, deployment = fleet.wait(settled("loop-1", first))
    assert report.applied_generation == 1
    assert (deployment.artifact, deployment.slot, deployment.rollout, deployment.error_code) == (first, "a", "rollout-1", "")
    np.testing.assert_allclose(daemon.infer(ROWS), scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)
    window = fleet.wait(
        lambda device, channel, _id, payload: (
            device == "loop-1"
            and channel is Channel.TELEMETRY
            and read_window(payload).value.requests
            and read_window(payload).value
        )
    )
    assert (window.artifact, window.rows, window.errors) == (first, len(ROWS), 0)

    second = write_artifact(tmp_path / "2", version="1.1.0", scale=2.0)
    store.publish(tmp_path / "2")
    fleet.publish("loop-1", Channel.DESIRED, store.seal(make_desired("loop-1", 2, second)))
    _, deployment = fleet.wait(settled("loop-1", second))
    assert deployment.slot == "b"
    np.testing.assert_allclose(daemon.infer(ROWS), scores(ROWS, 2.0), rtol=1e-4, atol=1e-5)
    assert daemon.stop() == 0
    assert fleet.wait(
        lambda *m: m[0] == "loop-1" and m[1] is Channel.PRESENCE and not msgspec.msgpack.decode(m[3], type=Presence).online
    )
    events = [msgspec.msgpack.decode(m[3], type=Event) for m in fleet.seen if m[0] == "loop-1" and m[1] is Channel.EVENT]
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
