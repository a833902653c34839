"""Has a version on probation failed?

Pure: what it did with live requests so far, against the bounds. Too few requests decide nothing but a broken engine.
"""

from runtime.config import UpdateSettings
from runtime.serving.models.health import Health
from runtime.update.machine import Job

TRIAL_SLACK_NS = 500_000
"""Added to both latency limits: on trial a model may run in a process of its own, and the way there takes tens of microseconds,
more while the device is busy. What is to be told apart more finely than this is told by the self-test and the fleet's gates."""


def failure_of(job: Job, health: Health, bounds: UpdateSettings, max_latency_ns: int | None) -> str:
    """Why this version must go, or "". max_latency_ns: the manifest's limit, None for none.

    A shadow's latency decides nothing: its thread has the lowest priority, so its time tells of the live ones.
    """
    if health.failure:
        return f"the engine is broken: {health.failure}"
    if health.requests < bounds.probation_min_requests:
        return ""
    if health.errors > health.requests * bounds.probation_max_error_ratio:
        return f"{health.errors} of {health.requests} requests failed"
    if job.role == "shadow" or not health.p50_ns:
        return ""
    seen = f"half of {health.requests} requests took {health.p50_ns} ns or more"
    rows = max(1.0, health.rows / max(1, health.requests - health.errors))  # the manifest speaks of one example
    if max_latency_ns is not None and health.p50_ns > max_latency_ns * rows + TRIAL_SLACK_NS:
        return f"{seen}, the manifest's limit is {max_latency_ns} ns"
    ratio = bounds.probation_max_latency_ratio
    if ratio and job.baseline_ns and health.p50_ns > job.baseline_ns * ratio + TRIAL_SLACK_NS:
        return f"{seen}, of the previous version {job.baseline_ns} ns"
    return ""
