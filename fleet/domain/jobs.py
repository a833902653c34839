"""Where does the update of one device within a rollout stand, and what in its report moves it on?

A job ends only by the device's own final report, or because the device or the rollout's claim on it is gone. Silence
changes nothing: a device that says nothing holds its job where it is.
"""

import enum

import msgspec

from runtime.contract.deployment import DeploymentState, Outcome


class JobState(enum.StrEnum):
    """PENDING: not told yet. DISPATCHED: told, no final report. SUCCEEDED, FAILED: by its own report.

    RETURNING: told to go back. RETURNED: serves what it served before. RETURN_FAILED: its report says it cannot go back.
    WITHDRAWN: revoked, or claimed by a later rollout; nothing more is expected of it.
    """

    PENDING = "pending"
    DISPATCHED = "dispatched"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    RETURNING = "returning"
    RETURNED = "returned"
    RETURN_FAILED = "return_failed"
    WITHDRAWN = "withdrawn"


SETTLED = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.WITHDRAWN})
"""States in which a stage waits for nothing more from the device."""
RETURN_ENDED = frozenset({JobState.PENDING, JobState.RETURNED, JobState.RETURN_FAILED, JobState.WITHDRAWN})
"""States in which a rollback waits for nothing more; a pending device was never told and has nothing to undo."""


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One device of a rollout. sha256: manifest of the artifact it should get; previous_sha256: of what it served, "" for none."""

    device: str
    stage: int
    attempt: int
    state: JobState
    sha256: str
    previous_sha256: str = ""
    error_code: str = ""
    error_detail: str = ""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the device last said about the job's model, and how that relates to what it was told.

    applied: it has taken in the generation that carries the job. claimed: the wanted state still speaks for this job.
    serving_sha256: "" while nothing serves. rollout, attempt, wanted_sha256, state, outcome: of the device's newest update.
    """

    revoked: bool = False
    claimed: bool = True
    applied: bool = False
    serving_sha256: str = ""
    wanted_sha256: str = ""
    rollout: str = ""
    attempt: int = 0
    state: DeploymentState = DeploymentState.IDLE
    outcome: Outcome = Outcome.NONE
    error_code: str = ""
    error_detail: str = ""

    @property
    def is_at_rest(self) -> bool:
        """No update is under way: what it says is its last word on the newest one."""
        return self.state in (DeploymentState.IDLE, DeploymentState.REPORTING)


def settle(rollout: str, job: Job, report: Report) -> Job:
    """The job as this report leaves it; the same report twice changes nothing."""
    if job.state not in (JobState.DISPATCHED, JobState.RETURNING):
        return _gone(job, report) if job.state is JobState.PENDING else job
    gone = _gone(job, report)
    if gone is not job:
        return gone
    wanted = job.sha256 if job.state is JobState.DISPATCHED else job.previous_sha256
    done, failed = (
        (JobState.SUCCEEDED, JobState.FAILED) if job.state is JobState.DISPATCHED else (JobState.RETURNED, JobState.RETURN_FAILED)
    )
    if not report.is_at_rest:
        return job
    if report.applied and report.serving_sha256 == wanted and not _speaks_of(rollout, job, report):
        # It served the artifact already, so there was no update to report on.
        return msgspec.structs.replace(job, state=done)
    if report.applied and not wanted:
        # It had nothing before and was told to want nothing: taking that in is all there is to do.
        return msgspec.structs.replace(job, state=done)
    if not _speaks_of(rollout, job, report) or report.wanted_sha256 != wanted:
        return job
    match report.outcome:
        case Outcome.SUCCEEDED:
            # A returned job keeps the code it failed with: it is why the device went back.
            return msgspec.structs.replace(job, state=done)
        case Outcome.REFUSED | Outcome.ROLLED_BACK:
            return msgspec.structs.replace(
                job, state=failed, error_code=report.error_code or "update.failed", error_detail=report.error_detail
            )
        case Outcome.NONE:
            return job


def _gone(job: Job, report: Report) -> Job:
    """A job whose device will not answer any more: revoked, or wanted by a later rollout."""
    if report.revoked:
        return msgspec.structs.replace(job, state=JobState.WITHDRAWN, error_code="device.revoked")
    if not report.claimed and job.state is not JobState.PENDING:
        return msgspec.structs.replace(job, state=JobState.WITHDRAWN, error_code="rollout.superseded")
    return job


def _speaks_of(rollout: str, job: Job, report: Report) -> bool:
    return (report.rollout, report.attempt) == (rollout, job.attempt)
