"""What serves after a start, whatever the last stop left behind?

Before anything is loaded, interrupted updates are counted, so that a version which takes the process down at load is
rolled back after a few starts. Then each model's active slot is checked byte by byte and opened; if that fails, the other
slot is tried: a device with one good version on its disk serves it.
"""

import logging
from collections.abc import Callable

from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import DeploymentState as S
from runtime.contract.deployment import Outcome, Slot
from runtime.contract.errors import ContractError, DigestError
from runtime.errors import DaemonError, StoreError
from runtime.update.actions import Serving
from runtime.update.machine import Answer, Job, follow, resume
from runtime.update.slots import Slots
from runtime.update.store import Store
from runtime.update.table import Event
from runtime.update.verify import read_manifest_file

log = logging.getLogger(__name__)

_LIVE = (S.SWITCHING, S.PROBATION, S.COMMITTING)

Alarm = Callable[[str, str, str], None]
"""Called with model, stable code and detail when a slot cannot be served."""


def recover_jobs(store: Store, slots: Slots, *, clean: bool) -> None:
    """Count the interruption of each running update and store where it goes on; a rollback moves its symlink at once."""
    for job in store.jobs().values():
        resumed = resume(job, clean=clean)
        if resumed != job:
            store.save_job(resumed)
        if resumed.state is S.ROLLING_BACK:
            slots.activate(resumed.model, resumed.previous)


def open_active(store: Store, slots: Slots, serving: Serving, alarm: Alarm) -> None:
    """Serve every model that has an active slot."""
    jobs = store.jobs()
    for model in slots.models():
        job, active = jobs.get(model), slots.active(model)
        if active is None or _serve(slots, serving, alarm, model=model, slot=active, job=job):
            continue
        try:
            if job is not None and job.slot == active and job.state in _LIVE:
                failure = Answer(Event.FAILED, StoreError.code, "the new version could not be opened after a restart")
                store.save_job(follow(job, failure))
            other = slots.inactive(model)
            slots.activate(model, other if _serve(slots, serving, alarm, model=model, slot=other, job=job) else None)
        except (StoreError, OSError) as error:  # what serves now serves; the next start finds the same and does the same
            log.exception("%s: the change of slot cannot be stored", model)
            alarm(model, StoreError.code, str(error))


def _serve(slots: Slots, serving: Serving, alarm: Alarm, *, model: str, slot: Slot, job: Job | None) -> bool:
    """Check one slot and serve it. False, after an alarm, when it does not hold what it should or cannot be opened."""
    artifact, directory = _expected(slots, model, slot, job), slots.directory(model, slot)
    try:
        if artifact is None:
            raise DigestError("no readable manifest")
        read_manifest_file(directory, artifact.sha256)
        serving.switch(serving.open(directory))  # `open` holds every other file against the manifest
    except (DaemonError, ContractError, OSError) as error:
        code = error.code if isinstance(error, DaemonError | ContractError) else StoreError.code
        log.error("%s: slot %s cannot be served: %s", model, slot, error)
        alarm(model, code, f"slot {slot}: {error}")
        return False
    return True


def _expected(slots: Slots, model: str, slot: Slot, job: Job | None) -> ArtifactRef | None:
    """What a slot should hold: what the newest update put there, where that is known, else what it says of itself."""
    if job is not None and job.slot == slot and (job.state in _LIVE or job.outcome is Outcome.SUCCEEDED):
        return job.artifact
    return slots.artifact(model, slot)
