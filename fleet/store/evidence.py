"""What do the stored reports and windows say about the devices of a rollout?

Windows are summed once: the reader remembers how far it has read per device, so a long soak costs no more per step than a
short one. It may be thrown away at any time; the sums are then made anew from the database.
"""

import msgspec
from sqlalchemy import and_, select
from sqlalchemy.orm import Session

from fleet.domain.evidence import Behaviour, DeviceEvidence, Evidence
from fleet.domain.jobs import Job as JobValue
from fleet.domain.jobs import JobState, Report, settle
from fleet.store.rollouts import RolloutRepository
from fleet.store.tables import Artifact, Device, Installed, Job, Rollout, Twin, Wanted
from fleet.store.telemetry import TelemetryRepository, read_stored
from runtime.contract.deployment import DeploymentState, Outcome
from runtime.contract.errors import ContractError

PAST_WINDOWS = 200
"""How many windows of its past a device is held against: hours at the usual lengths, and few enough to read at once."""


class _Sum(msgspec.Struct):
    """A running sum of one artifact's windows on one device since a moment."""

    behaviour: Behaviour = Behaviour()
    last_id: int = 0
    unreadable: str = ""


class EvidenceReader:
    """Reads evidence for one scheduler. Not shared between threads."""

    def __init__(self) -> None:
        self._after: dict[tuple[str, str, int], _Sum] = {}
        self._before: dict[tuple[str, str, int], Behaviour] = {}

    def read(self, session: Session, rollout: Rollout) -> tuple[Evidence, list[JobValue]]:
        """The rollout's evidence with its jobs settled, and those jobs that the newest reports have moved."""
        jobs = RolloutRepository(session).jobs(rollout.id)
        reports = read_reports(session, rollout)
        dispatched = {row.device: row.dispatched_ms or 0 for row in RolloutRepository(session).job_rows(rollout.id)}
        devices, moved = [], []
        for job in jobs:
            report = reports[job.device]
            settled = settle(rollout.id, job, report)
            if settled != job:
                moved.append(settled)
            devices.append(self._device(session, rollout, settled, report, dispatched[job.device]))
        return Evidence(devices=tuple(devices)), moved

    def keep_only(self, rollouts: set[str]) -> None:
        """Drop the sums of all other rollouts."""
        self._after = {key: value for key, value in self._after.items() if key[0] in rollouts}
        self._before = {key: value for key, value in self._before.items() if key[0] in rollouts}

    def _device(self, session: Session, rollout: Rollout, job: JobValue, report: Report, since_ms: int) -> DeviceEvidence:
        is_ours = report.claimed and not report.revoked
        if job.state is not JobState.SUCCEEDED:
            return DeviceEvidence(job=job, is_ours=is_ours)
        after = self._sum_after(session, rollout, job, since_ms)
        unreadable = after.unreadable
        before = None
        if job.previous_sha256:
            try:
                before = self._sum_before(session, rollout, job, since_ms)
            except ContractError as error:
                unreadable = str(error)
        return DeviceEvidence(job=job, before=before, after=after.behaviour, unreadable=unreadable, is_ours=is_ours)

    def _sum_after(self, session: Session, rollout: Rollout, job: JobValue, since_ms: int) -> _Sum:
        total = self._after.setdefault((rollout.id, job.device, since_ms), _Sum())
        if total.unreadable:
            return total
        rows = TelemetryRepository(session).windows_of(
            job.device, rollout.model, job.sha256, after_id=total.last_id, since_ms=since_ms
        )
        for row in rows:
            try:
                total.behaviour = total.behaviour.plus(read_stored(row))
            except ContractError as error:
                total.unreadable = f"window {row.boot:x}/{row.seq}: {error}"
                break
            total.last_id = row.id
        return total

    def _sum_before(self, session: Session, rollout: Rollout, job: JobValue, since_ms: int) -> Behaviour:
        """The past does not change once the device was told, so it is read once. Raises ContractError."""
        key = (rollout.id, job.device, since_ms)
        if key not in self._before:
            rows = TelemetryRepository(session).last_windows(
                job.device, rollout.model, job.previous_sha256, since_ms, PAST_WINDOWS
            )
            total = Behaviour()
            for row in rows:
                total = total.plus(read_stored(row))
            self._before[key] = total
        return self._before[key]


def read_reports(session: Session, rollout: Rollout) -> dict[str, Report]:
    """What each device of a rollout last said about the rollout's model, in one query."""
    rows = session.execute(
        select(Device, Twin, Installed, Wanted)
        .join(Job, and_(Job.device == Device.id, Job.rollout == rollout.id))
        .join(Twin, Twin.device == Device.id)
        .outerjoin(Installed, and_(Installed.device == Device.id, Installed.model == rollout.model))
        .outerjoin(Wanted, and_(Wanted.device == Device.id, Wanted.model == rollout.model))
    ).all()
    return {device.id: _report(rollout.id, device, twin, installed, wanted) for device, twin, installed, wanted in rows}


def _report(rollout: str, device: Device, twin: Twin, installed: Installed | None, wanted: Wanted | None) -> Report:
    report = Report(
        revoked=device.revoked_ms is not None,
        claimed=wanted is None or wanted.rollout == rollout,
        applied=twin.applied_generation >= twin.generation,
    )
    if installed is None:
        return report
    return msgspec.structs.replace(
        report,
        serving_sha256=installed.sha256 or "",
        wanted_sha256=installed.wanted_sha256 or "",
        rollout=installed.rollout,
        attempt=installed.attempt,
        state=DeploymentState(installed.state),
        outcome=Outcome(installed.outcome),
        error_code=installed.error_code,
        error_detail=installed.error_detail,
    )


def serving_artifact(session: Session, device: str, model: str) -> Artifact | None:
    """The published artifact of a model that a device reports to serve, if any."""
    return session.scalar(
        select(Artifact)
        .join(Installed, Installed.sha256 == Artifact.sha256)
        .where(Installed.device == device, Installed.model == model)
    )
