"""Who carries updates out, one thing at a time, while the device goes on serving?

One thread owns every update: it compares the desired state with what is there, starts, supersedes and retires, and steps
jobs through the machine. At most one job is before its switch; probations may overlap with it.
"""

import logging
import math
import threading
import time
from collections.abc import Callable

import msgspec

from runtime.contract.deployment import DeploymentState as S
from runtime.contract.deployment import Outcome, Settings
from runtime.contract.errors import ContractError
from runtime.errors import DaemonError, StoreError
from runtime.update.actions import Serving
from runtime.update.lanes import parts_of
from runtime.update.machine import Job, Machine
from runtime.update.plan import Decision, HoldBack, Present, Record, Retire, Share, Start, Supersede, plan
from runtime.update.state import State
from runtime.update.store import Held, Store
from runtime.update.storm import ORDERLY_S, Storm

log = logging.getLogger(__name__)

IDLE_LOOK_S = 30.0
STORE_RETRY_S = 5.0
SIDE_LOAD_LOOK_S = 2.0
"""How often state.db is looked at for what another process asks; microseconds a look."""
_BEFORE_SWITCH = (S.FETCHING, S.VERIFYING, S.TESTING, S.SWITCHING)
_LIVE = (S.IDLE, S.PROBATION, S.COMMITTING)


class Updater:
    """changed: told after every durable change of a job; held_back: why what is wanted in a lane does not start."""

    def __init__(
        self,
        state: State,
        machine: Machine,
        serving: Serving,
        changed: Callable[[], None],
        *,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = state.store
        self._slots = state.slots
        self._machine = machine
        self._serving = serving
        self._clock = state.clock
        self._changed = changed
        self._monotonic_s = monotonic_s
        self._due_s: dict[str, float] = {}
        self._jobs = state.store.jobs()
        self._wake = threading.Event()
        self._stopping = False
        self._seen = 0
        self._orderly_s = monotonic_s() + ORDERLY_S
        self._round_began_s = 0.0
        self._thread = threading.Thread(target=self._run, name="updater", daemon=True)
        self.held_back: dict[str, HoldBack] = {}

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Ask the thread to end after its present step and wait for it; a step cut short resumes at the next start."""
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout_s)

    def stuck_s(self) -> float:
        """How long the present round has lasted; 0.0 between rounds, infinite when the thread ended without being asked."""
        if not self._thread.is_alive() and not self._stopping and self._thread.ident is not None:
            return math.inf
        return self._monotonic_s() - self._round_began_s if self._round_began_s else 0.0

    def wake(self) -> None:
        """Look at the desired state again now."""
        self._wake.set()

    def once(self) -> float:
        """One round: decide, then step each job that is due once. Returns how long nothing needs doing, in seconds."""
        self._take_side_loads()
        wait_s = self._converge()
        is_busy = False
        for job in [job for job in self._jobs.values() if job.is_running]:
            if job.state in _BEFORE_SWITCH:
                if is_busy:
                    continue
                is_busy = True
            wait_s = min(wait_s, self._step(job))
        return wait_s

    def _step(self, job: Job) -> float:
        """Step a job if it is due. Returns how long until it wants to be stepped again."""
        left_s = self._due_s.get(job.lane, 0.0) - self._monotonic_s()
        if left_s > 0:
            return left_s
        moved, wait_s = self._machine.step(job)
        self._jobs[job.lane] = moved
        self._due_s[job.lane] = self._monotonic_s() + wait_s
        if not moved.is_running:
            self._finish(moved)
        return wait_s

    def _run(self) -> None:
        is_clean = False
        while not self._stopping:
            self._wake.clear()
            self._round_began_s = self._monotonic_s()
            try:
                if not is_clean:  # whatever an interrupted update left on the disk
                    self._clean_up()
                    is_clean = True
                wait_s = self.once()
                self._calm_down()
            except StoreError:
                log.exception("updates pause: the device's own state cannot be read or written")
                wait_s = STORE_RETRY_S
            except Exception:  # the worker's edge: a bug here must not end updates for good
                log.exception("updates pause after an unexpected error")
                wait_s = IDLE_LOOK_S
            self._round_began_s = 0.0
            self._rest(wait_s)

    def _rest(self, wait_s: float) -> None:
        """Until somebody wakes this thread, another process has changed state.db, or the time is up."""
        until_s = self._monotonic_s() + wait_s
        while (left_s := until_s - self._monotonic_s()) > 0 and not self._wake.wait(min(left_s, SIDE_LOAD_LOOK_S)):
            try:
                seen = self._store.changes_elsewhere()
            except StoreError:
                continue  # the next round says so
            if seen != self._seen:
                self._seen = seen
                return

    def _take_side_loads(self) -> None:
        """Start what `runtime install` asks for. It goes before a fleet's update that is not live yet."""
        held = self._store.held()
        for wanted in self._store.side_loads():
            running = self._jobs.get(wanted.model)
            if running is not None and running.is_running:
                if not running.source and running.state in _BEFORE_SWITCH:  # what is live already ends as it would
                    self._jobs[wanted.model] = self._machine.supersede(running, "a side-load")
                    self._due_s.pop(wanted.model, None)
                continue
            active = self._slots.active(wanted.model)
            job = Job(
                model=wanted.model,
                artifact=wanted.artifact,
                source=wanted.bundle,
                over=held.desired.value.generation if held else 0,
                slot=self._slots.inactive(wanted.model),
                previous=active,
            )
            if active is not None and self._slots.artifact(wanted.model, active) == wanted.artifact:
                job = msgspec.structs.replace(job, slot=active, previous=None, outcome=Outcome.SUCCEEDED)
                self._store.save_job(job)
                self._jobs[job.lane] = job
                self._changed()
            else:
                self._jobs[job.lane] = self._machine.start(job)
            self._store.forget_side_load(wanted.model)

    def _converge(self) -> float:
        held = self._store.held()
        if held is None:
            return IDLE_LOOK_S
        present = {lane: self._present(lane) for lane in self._slots.lanes()}
        decisions = plan(held.desired.value, self._jobs, present, self._clock.now_s(), self._clock.is_synced)
        before = self.held_back
        self.held_back = {decision.lane: decision for decision in decisions if isinstance(decision, HoldBack)}
        wait_s = IDLE_LOOK_S
        for decision in decisions:
            wait_s = min(wait_s, self._carry_out(decision))
        if self.held_back != before:
            self._changed()
        return wait_s

    def _carry_out(self, decision: Decision) -> float:
        match decision:
            case Start(job):
                self._jobs[job.lane] = self._machine.start(job)
            case Record(job):
                self._store.save_job(job)
                self._jobs[job.lane] = job
                self._changed()
            case Share(job):
                return self._share(job)
            case Supersede(lane, by):
                self._jobs[lane] = self._machine.supersede(self._jobs[lane], by)
                self._due_s.pop(lane, None)
            case Retire(lane):
                self._retire(lane)
            case HoldBack(until_s=until_s) if until_s:
                return max(0.0, until_s - self._clock.now_s())
            case _:
                return IDLE_LOOK_S
        return 0.0

    def _present(self, lane: str) -> Present:
        slot = self._slots.active(lane)
        return Present(slot, self._slots.artifact(lane, slot))

    def _share(self, job: Job) -> float:
        """Serve what is in the lane with another share: opened anew from its slot, so that its windows do not mix the two."""
        slot = self._slots.active(job.lane)
        if job.state in _LIVE and slot is not None:
            directory = self._slots.directory(job.lane, slot)
            try:
                opened = self._serving.open(directory, job.role, job.share, trial=job.is_running)
            except (DaemonError, ContractError, OSError):
                log.exception("%s: the new share waits", job.lane)
                return IDLE_LOOK_S
            self._serving.switch(opened)
        self._store.save_job(job)
        self._jobs[job.lane] = job
        self._changed()
        return 0.0

    def _retire(self, lane: str) -> None:
        log.info("%s is no longer wanted here and is removed", lane)
        self._serving.retire(*parts_of(lane))
        self._slots.remove(lane)
        self._store.forget_job(lane)
        self._jobs.pop(lane, None)
        self._changed()
        self._clean_up()

    def _calm_down(self) -> None:
        """An orderly period has passed: whatever made earlier starts die does not any more, or is not served."""
        if self._monotonic_s() >= self._orderly_s:
            self._orderly_s = math.inf
            storm = self._store.storm()
            if not storm.is_calm:
                self._store.save_storm(Storm(kernel_boot=storm.kernel_boot))

    def _finish(self, job: Job) -> None:
        log.info("update of %s to %s: %s %s", job.lane, job.artifact.version, job.outcome, job.error_code)
        self._clean_up()

    def _clean_up(self) -> None:
        if not any(job.state in _BEFORE_SWITCH for job in self._jobs.values()):
            self._slots.collect_garbage(lanes=self._jobs)


def wanted_settings(store: Store) -> Settings:
    """What the fleet last asked for, or the defaults before it asked for anything."""
    held: Held | None = store.held()
    return held.desired.value.settings if held else Settings()
