"""Does a device tell the fleet of its shadow beside the active version, and take two wishes in one second in their order?"""

import msgspec
import numpy as np
import pytest

from runtime.contract.deployment import SHARE_WHOLE, Deployment, Outcome, Reported, Settings
from runtime.contract.topics import Channel
from tests.support.artifacts import FEATURES, scores, write_artifact
from tests.support.fleet import event
from tests.support.store import make_desired

pytestmark = pytest.mark.e2e

ROWS = np.random.default_rng(5).normal(size=(2, FEATURES)).astype(np.float32)


def wanting(store, device, generation, *wanted):
    deployments = tuple(
        Deployment(model="tiny", artifact=artifact, role=role, share=share, rollout=f"rollout-{generation}")
        for artifact, role, share in wanted
    )
    settings = Settings(window_s=1, probation_s=0)
    return store.seal(msgspec.structs.replace(make_desired(device, generation, settings=settings), deployments=deployments))


def told(device, generation, expected):
    """Accepts a report of this generation whose deployments are these, by role: (artifact, outcome)."""

    def accepts(sender, channel, _id, payload):
        if sender != device or channel is not Channel.REPORTED:
            return None
        report = msgspec.msgpack.decode(payload, type=Reported)
        found = {one.role: (one.artifact, one.outcome) for one in report.deployments}
        return report if (report.applied_generation, found) == (generation, expected) else None

    return accepts


def test_a_shadow_is_reported_beside_the_active_version_and_the_last_of_two_wishes_holds(tmp_path, store, fleet, start_daemon):
    old = write_artifact(tmp_path / "old", version="1.0.0", scale=1.0)
    new = write_artifact(tmp_path / "new", version="1.1.0", scale=2.0)
    other = write_artifact(tmp_path / "other", version="1.2.0", scale=3.0)
    for name in ("old", "new", "other"):
        store.publish(tmp_path / name)
    daemon = start_daemon("roles")
    both = {"active": (old, Outcome.SUCCEEDED), "shadow": (new, Outcome.SUCCEEDED)}
    fleet.publish("roles", Channel.DESIRED, wanting(store, "roles", 1, (new, "shadow", 500), (old, "active", SHARE_WHOLE)))
    assert fleet.wait(told("roles", 1, both))
    np.testing.assert_allclose(daemon.infer(ROWS), scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)

    fleet.publish("roles", Channel.DESIRED, wanting(store, "roles", 2, (other, "active", SHARE_WHOLE)))
    fleet.publish("roles", Channel.DESIRED, wanting(store, "roles", 3, (old, "active", SHARE_WHOLE), (other, "shadow", 900)))
    assert fleet.wait(told("roles", 3, {"active": (old, Outcome.SUCCEEDED), "shadow": (other, Outcome.SUCCEEDED)}))
    np.testing.assert_allclose(daemon.infer(ROWS), scores(ROWS, 1.0), rtol=1e-4, atol=1e-5)

    fleet.publish("roles", Channel.DESIRED, wanting(store, "roles", 2, (other, "active", SHARE_WHOLE)))
    assert fleet.wait(event("roles", "trust.rollback"))
    fleet.publish("roles", Channel.DESIRED, wanting(store, "roles", 4, (old, "active", SHARE_WHOLE)))
    assert fleet.wait(told("roles", 4, {"active": (old, Outcome.SUCCEEDED)}))
