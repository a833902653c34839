"""What serves after a start, whatever the last stop left behind?

Before anything is loaded, interrupted updates are counted, so that a version which takes the process down at load is
rolled back after a few starts; deaths with no update under way are counted apart (`storm.py`). Then each lane's active slot
is checked byte by byte and opened; if that fails, the other slot is tried: a device with one good version on its disk
serves it.
"""

import logging
from collections.abc import Callable

import msgspec

from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import DeploymentState as S
from runtime.contract.deployment import Outcome, Slot
from runtime.contract.errors import ContractError, DigestError
from runtime.errors import CrashLoopError, DaemonError, StoreError
from runtime.update.actions import Serving
from runtime.update.lanes import parts_of
from runtime.update.machine import Answer, Job, follow, resume
from runtime.update.plan import HoldBack
from runtime.update.slots import Slots
from runtime.update.store import Store
from runtime.update.storm import Storm, after_start, kernel_boot, treatment
from runtime.update.table import COUNTED, Event
from runtime.update.verify import read_manifest_file

log = logging.getLogger(__name__)

_LIVE = (S.SWITCHING, S.PROBATION, S.COMMITTING)

Alarm = Callable[[str, str, str], None]
"""Called with model, stable code and detail when a slot cannot be served."""


def recover_jobs(store: Store, slots: Slots, *, clean: bool) -> None:
    """Count this start for what it may be one of, and store where each running update goes on.

    A rollback moves its symlink at once.
    """
    jobs = store.jobs()
    is_updating = any(job.state in COUNTED for job in jobs.values())
    before = store.storm()
    now = after_start(before, clean=clean, is_updating=is_updating, kernel_boot=kernel_boot())
    if now != before:
        store.save_storm(now)
    for job in jobs.values():
        resumed = resume(job, clean=clean)
        if resumed != job:
            store.save_job(resumed)
        if resumed.state is S.ROLLING_BACK:
            slots.activate(resumed.lane, resumed.previous)


def open_active(store: Store, slots: Slots, serving: Serving, alarm: Alarm) -> dict[str, HoldBack]:
    """Serve every lane that has an active slot. Returns those that a crash loop has left out, with the reason."""
    jobs, storm = store.jobs(), store.storm()
    opening = _Opening(store, slots, serving, alarm)
    left_out: dict[str, HoldBack] = {}
    for lane in slots.lanes():
        job = jobs.get(lane)
        has_previous = slots.artifact(lane, slots.inactive(lane)) is not None
        match treatment(storm, lane, has_previous=has_previous):
            case "open":
                opening.serve_one(lane, job)
            case "previous":
                opening.serve_one(lane, opening.fall_back(lane, job))
            case "leave out":
                detail = "not opened at this start: the daemon died again and again"
                left_out[lane] = HoldBack(lane, CrashLoopError.code, detail)
                alarm(parts_of(lane)[0], CrashLoopError.code, f"{lane}: {detail}")
    opening.done()
    return left_out


class _Opening:
    """The opening of all lanes at one start. After an unclean stop it notes what it opens, so that the next start knows."""

    def __init__(self, store: Store, slots: Slots, serving: Serving, alarm: Alarm) -> None:
        self._store = store
        self._slots = slots
        self._serving = serving
        self._alarm = alarm
        self._storm = store.storm()

    def serve_one(self, lane: str, job: Job | None) -> None:
        """Serve the active slot, or the other one where that cannot be."""
        slots, active = self._slots, self._slots.active(lane)
        if active is None or self._serve(lane, active, job):
            return
        try:
            if job is not None and job.slot == active and job.state in _LIVE:
                failure = Answer(Event.FAILED, StoreError.code, "the new version could not be opened after a restart")
                self._store.save_job(follow(job, failure))
            other = slots.inactive(lane)
            slots.activate(lane, other if self._serve(lane, other, job) else None)
        except (StoreError, OSError) as error:  # what serves now serves; the next start finds the same and does the same
            log.exception("%s: the change of slot cannot be stored", lane)
            self._alarm(parts_of(lane)[0], StoreError.code, str(error))

    def fall_back(self, lane: str, job: Job | None) -> Job | None:
        """Give a lane's previous version its place back, for good: no desired state starts the other again by itself."""
        active = self._slots.active(lane)
        detail = f"the daemon died again and again while slot {active} served or was opened; the previous version is back"
        log.error("%s: %s", lane, detail)
        self._alarm(parts_of(lane)[0], CrashLoopError.code, f"{lane}: {detail}")
        try:
            if job is not None and not job.is_running and job.slot == active:
                job = msgspec.structs.replace(
                    job, outcome=Outcome.ROLLED_BACK, error_code=CrashLoopError.code, error_detail=detail
                )
                self._store.save_job(job)
            self._note(msgspec.structs.replace(self._storm, fallen=(*self._storm.fallen, lane)))
            self._slots.activate(lane, self._slots.inactive(lane))
        except (StoreError, OSError) as error:
            log.exception("%s: going back cannot be stored", lane)
            self._alarm(parts_of(lane)[0], StoreError.code, str(error))
        return job

    def done(self) -> None:
        """Nothing is being opened any more."""
        self._mark("")

    def _mark(self, lane: str) -> None:
        if self._storm.strain and self._storm.opening != lane:
            try:
                self._note(msgspec.structs.replace(self._storm, opening=lane))
            except StoreError:
                log.exception("what is being opened is not noted")

    def _note(self, storm: Storm) -> None:
        self._store.save_storm(storm)
        self._storm = storm

    def _serve(self, lane: str, slot: Slot, job: Job | None) -> bool:
        """Check one slot and serve it. False, after an alarm, when it does not hold what it should or cannot be opened."""
        model, role = parts_of(lane)
        artifact, directory = self._expected(lane, slot, job), self._slots.directory(lane, slot)
        on_trial = job is not None and job.slot == slot and job.state in _LIVE
        try:
            if artifact is None:
                raise DigestError("no readable manifest")
            read_manifest_file(directory, artifact.sha256)
            self._mark(lane)
            if role == "active":
                served = self._serving.open(directory, trial=on_trial)  # it holds every other file against the manifest
            elif job is not None:
                served = self._serving.open(directory, role, job.share, trial=on_trial)
            else:
                return True  # its share is lost with state.db; it serves again when the desired state names one
            self._serving.switch(served)
        except (DaemonError, ContractError, OSError) as error:
            code = error.code if isinstance(error, DaemonError | ContractError) else StoreError.code
            log.error("%s: slot %s cannot be served: %s", lane, slot, error)
            self._alarm(model, code, f"slot {slot}: {error}")
            return False
        return True

    def _expected(self, lane: str, slot: Slot, job: Job | None) -> ArtifactRef | None:
        """What a slot should hold: what the newest update put there, where that is known, else what it says of itself."""
        if job is not None and job.slot == slot and (job.state in _LIVE or job.outcome is Outcome.SUCCEEDED):
            return job.artifact
        return self._slots.artifact(lane, slot)
