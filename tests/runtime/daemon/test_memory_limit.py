"""Does the daemon, engine included, live within 256 MB of data, and refuse what does not fit before it switches?"""

import re

import numpy as np
import pytest

from runtime.contract.deployment import Outcome
from runtime.contract.topics import Channel
from tests.support.fleet import settled
from tests.support.heavy import ROWS, write_heavy
from tests.support.store import make_desired

pytestmark = pytest.mark.e2e

MB = 1_000_000
LIMIT = 256 * MB
TIGHT = f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT}, {LIMIT}))"


def test_a_model_of_16_mb_runs_under_256_mb_and_one_of_200_mb_is_refused(tmp_path, store, fleet, start_daemon):
    fitting = write_heavy(tmp_path / "16", size_bytes=16 * MB, version="1.0.0")
    store.publish(tmp_path / "16")
    daemon = start_daemon("tight", TIGHT)
    fleet.publish("tight", Channel.DESIRED, store.seal(make_desired("tight", 1, fitting)))
    fleet.wait(settled("tight", fitting))
    found = daemon.infer(ROWS)
    assert found.shape == (16, 3)

    successor = write_heavy(tmp_path / "16 again", size_bytes=16 * MB, version="1.1.0")
    store.publish(tmp_path / "16 again")
    fleet.publish("tight", Channel.DESIRED, store.seal(make_desired("tight", 2, successor)))
    fleet.wait(settled("tight", successor))  # old and new are open at once for a moment

    too_large = write_heavy(tmp_path / "200", size_bytes=200 * MB, version="2.0.0")
    store.publish(tmp_path / "200")
    fleet.publish("tight", Channel.DESIRED, store.seal(make_desired("tight", 3, too_large, rollout="rollout-3")))
    _, deployment = fleet.wait(settled("tight", too_large, Outcome.REFUSED, "rollout-3"))
    assert (deployment.artifact, deployment.error_code) == (successor, "update.memory_short")
    words = re.search(
        r"needs (\d+) bytes beside what serves; RLIMIT_DATA allows (\d+), (\d+) are in use", deployment.error_detail
    )
    needed, allowed, in_use = map(int, words.groups())
    assert needed > 199 * MB
    assert allowed == LIMIT
    # Asked for at once, while the version that stood by for the last one is still being closed: near the limit, never over it.
    assert 30 * MB < in_use < LIMIT
    np.testing.assert_array_equal(daemon.infer(ROWS), found)
