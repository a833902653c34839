"""When has a version on probation failed? Three rows a threshold: below, at, above."""

import msgspec
import pytest

from runtime.config import UpdateSettings
from runtime.contract.artifact import ArtifactRef
from runtime.serving.models.health import Health
from runtime.update.machine import Job
from runtime.update.probation import TRIAL_SLACK_NS, failure_of

BOUNDS = UpdateSettings(probation_min_requests=10, probation_max_error_ratio=0.1, probation_max_latency_ratio=2.0)
JOB = Job(model="tiny", artifact=ArtifactRef(version="1.0.0", target="t", sha256="0" * 64), slot="b", baseline_ns=5_000_000)
MS = 1_000_000
LIMIT_NS = 8 * MS


@pytest.mark.parametrize(
    ("name", "health", "limit_ns", "words"),
    [
        ("nothing was asked", Health(), LIMIT_NS, ""),
        ("a broken engine ends it at once", Health(failure="engine.hung: 5 s"), None, "engine.hung"),
        ("too few to judge", Health(9, 9, 99 * MS), LIMIT_NS, ""),
        ("errors below", Health(100, 9), None, ""),
        ("errors at", Health(100, 10), None, ""),
        ("errors above", Health(100, 11), None, "11 of 100"),
        ("limit at", Health(10, 0, LIMIT_NS + TRIAL_SLACK_NS, "", 10), LIMIT_NS, ""),
        ("limit above", Health(10, 0, LIMIT_NS + TRIAL_SLACK_NS + 1, "", 10), LIMIT_NS, "limit is 8000000"),
        ("a batch of four may take four times as long", Health(10, 0, 9 * MS, "", 40), LIMIT_NS, ""),
        ("ratio at", Health(10, 0, 10 * MS + TRIAL_SLACK_NS, "", 10), None, ""),
        ("ratio above", Health(10, 0, 10 * MS + TRIAL_SLACK_NS + 1, "", 10), None, "previous version 5000000"),
    ],
)
def test_the_bounds(name, health, limit_ns, words):
    failure = failure_of(JOB, health, BOUNDS, limit_ns)
    assert words in failure
    assert bool(failure) is bool(words)


def test_an_unknown_baseline_or_no_ratio_compares_nothing():
    slow = Health(10, 0, 99 * MS, "", 10)
    assert failure_of(msgspec.structs.replace(JOB, baseline_ns=0), slow, BOUNDS, None) == ""
    assert failure_of(JOB, slow, msgspec.structs.replace(BOUNDS, probation_max_latency_ratio=0.0), None) == ""


def test_a_shadow_is_not_judged_by_its_latency_but_by_its_errors():
    shadow = msgspec.structs.replace(JOB, role="shadow")
    assert failure_of(shadow, Health(10, 0, 99 * MS, "", 10), BOUNDS, LIMIT_NS) == ""
    assert "5 of 10" in failure_of(shadow, Health(10, 5), BOUNDS, LIMIT_NS)
