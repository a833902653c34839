"""Which report moves which job, and which must not."""

import msgspec
import pytest

from fleet.domain.jobs import Job, JobState, Report, settle
from runtime.contract.deployment import DeploymentState, Outcome

NEW, OLD = "n" * 64, "o" * 64
TOLD = Job(device="gw-1", stage=0, attempt=1, state=JobState.DISPATCHED, sha256=NEW, previous_sha256=OLD)
BACK = Job(device="gw-1", stage=0, attempt=2, state=JobState.RETURNING, sha256=NEW, previous_sha256=OLD)
EMPTY_BACK = Job(device="gw-1", stage=0, attempt=2, state=JobState.RETURNING, sha256=NEW)


def said(job: Job, outcome: Outcome, serving: str, wanted: str, **other: object) -> Report:
    """A report that speaks of the job's newest attempt, at rest."""
    values = {"applied": True, "rollout": "r-1", "attempt": job.attempt, "serving_sha256": serving, "wanted_sha256": wanted}
    return Report(**{**values, "outcome": outcome, **other})  # type: ignore[arg-type]


ROWS = [
    ("silent device holds", TOLD, Report(), JobState.DISPATCHED),
    ("succeeded", TOLD, said(TOLD, Outcome.SUCCEEDED, NEW, NEW), JobState.SUCCEEDED),
    ("refused", TOLD, said(TOLD, Outcome.REFUSED, OLD, NEW, error_code="trust.digest_mismatch"), JobState.FAILED),
    ("rolled back", TOLD, said(TOLD, Outcome.ROLLED_BACK, OLD, NEW), JobState.FAILED),
    ("no outcome yet", TOLD, said(TOLD, Outcome.NONE, OLD, NEW), JobState.DISPATCHED),
    ("outcome of an update still under way is the one before it", TOLD,
     said(TOLD, Outcome.SUCCEEDED, OLD, NEW, state=DeploymentState.FETCHING), JobState.DISPATCHED),
    ("final report while it is being sent", TOLD,
     said(TOLD, Outcome.SUCCEEDED, NEW, NEW, state=DeploymentState.REPORTING), JobState.SUCCEEDED),
    ("outcome of another attempt", TOLD, said(TOLD, Outcome.REFUSED, OLD, NEW, attempt=7), JobState.DISPATCHED),
    ("outcome of another rollout", TOLD, said(TOLD, Outcome.REFUSED, OLD, NEW, rollout="r-0"), JobState.DISPATCHED),
    ("outcome about another artifact", TOLD, said(TOLD, Outcome.SUCCEEDED, OLD, OLD), JobState.DISPATCHED),
    ("served it already, nothing to update", TOLD, Report(applied=True, serving_sha256=NEW), JobState.SUCCEEDED),
    ("serves it, but has not taken the job in", TOLD, Report(applied=False, serving_sha256=NEW), JobState.DISPATCHED),
    ("revoked", TOLD, Report(revoked=True), JobState.WITHDRAWN),
    ("claimed by a later rollout", TOLD, Report(claimed=False), JobState.WITHDRAWN),
    ("went back", BACK, said(BACK, Outcome.SUCCEEDED, OLD, OLD), JobState.RETURNED),
    ("never left: serves the old one", BACK, Report(applied=True, serving_sha256=OLD), JobState.RETURNED),
    ("cannot go back", BACK, said(BACK, Outcome.REFUSED, NEW, OLD), JobState.RETURN_FAILED),
    ("going back, silent", BACK, Report(serving_sha256=NEW), JobState.RETURNING),
    ("had nothing before, took that in", EMPTY_BACK, Report(applied=True, serving_sha256=NEW), JobState.RETURNED),
    ("had nothing before, silent", EMPTY_BACK, Report(serving_sha256=NEW), JobState.RETURNING),
]  # fmt: skip


@pytest.mark.parametrize(("job", "report", "state"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_only_the_right_report_moves_a_job(job: Job, report: Report, state: JobState) -> None:
    moved = settle("r-1", job, report)
    assert moved.state is state
    assert settle("r-1", moved, report) == moved, "the same report twice must change nothing"


@pytest.mark.parametrize("state", [JobState.SUCCEEDED, JobState.FAILED, JobState.RETURNED, JobState.WITHDRAWN])
def test_a_job_that_ended_stays_ended(state: JobState) -> None:
    job = Job(device="gw-1", stage=0, attempt=1, state=state, sha256=NEW)
    assert settle("r-1", job, Report(revoked=True, claimed=False, applied=True)) == job


def test_the_devices_own_error_is_kept() -> None:
    report = said(TOLD, Outcome.REFUSED, OLD, NEW, error_code="update.disk_full", error_detail="3 MB short")
    failed = settle("r-1", TOLD, report)
    assert (failed.error_code, failed.error_detail) == ("update.disk_full", "3 MB short")


def test_a_device_that_went_back_still_says_why() -> None:
    """Its newest report is of the way back, which succeeded; the failure is what the operator asks about."""
    failed = msgspec.structs.replace(BACK, error_code="trust.digest_mismatch", error_detail="model.onnx")
    returned = settle("r-1", failed, said(BACK, Outcome.SUCCEEDED, OLD, OLD))
    assert (returned.state, returned.error_code, returned.error_detail) == (
        JobState.RETURNED,
        "trust.digest_mismatch",
        "model.onnx",
    )
