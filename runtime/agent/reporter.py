"""What does the device say it is and runs?

One retained document, built afresh from what is on the disk and sent on every connect and after every change; nothing
remembers what the fleet has seen, so nothing can remember it wrongly.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from runtime.contract.artifact import ArtifactRef
from runtime.contract.canonical import REPORTED_LIMIT, write_message
from runtime.contract.deployment import DeviceProfile, Reported, ReportedDeployment, Slot
from runtime.contract.errors import TooLargeError
from runtime.contract.topics import Channel
from runtime.errors import CrashLoopError
from runtime.update.lanes import in_order, parts_of
from runtime.update.machine import DETAIL_LIMIT, Job
from runtime.update.plan import HoldBack
from runtime.update.slots import Slots
from runtime.update.state import State

log = logging.getLogger(__name__)


class Line(Protocol):
    def publish_state(self, channel: Channel, payload: bytes) -> None: ...


class Reporter:
    """Safe to share between threads. held_back: why a wanted update has not started, by lane."""

    def __init__(
        self,
        state: State,
        line: Line,
        *,
        boot: int,
        profile: DeviceProfile,
        versions: Mapping[str, str],
        held_back: Callable[[], Mapping[str, HoldBack]],
    ) -> None:
        self._boot = boot
        self._state = state
        self._profile = profile
        self._versions = dict(versions)
        self._held_back = held_back
        self._line = line
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def send(self) -> None:
        """Publish the present state; before there is a connection, it waits for one."""
        with self._lock:  # so that numbers rise in the order of what they number
            try:
                self._line.publish_state(Channel.REPORTED, write_message(self._report(), REPORTED_LIMIT))
            except TooLargeError as error:
                log.error("the report is not sent: %s", error)

    def _report(self) -> Reported:
        held = self._state.store.held()
        return Reported(
            boot=self._boot,
            seq=next(self._numbers),
            applied_generation=held.desired.value.generation if held else 0,
            clock_synced=self._state.clock.is_synced,
            profile=self._profile,
            versions=self._versions,
            deployments=describe(self._state.store.jobs(), self._state.slots, self._held_back()),
        )


def describe(jobs: Mapping[str, Job], slots: Slots, held_back: Mapping[str, HoldBack]) -> tuple[ReportedDeployment, ...]:
    """Everything on the device or on its way there: one entry per model and role, active ones first."""
    lanes = in_order({*jobs, *slots.lanes(), *held_back})
    return tuple(_describe_one(lane, jobs.get(lane), slots, held_back.get(lane)) for lane in lanes)


def _describe_one(lane: str, job: Job | None, slots: Slots, held_back: HoldBack | None) -> ReportedDeployment:
    model, role = parts_of(lane)
    is_left_out = held_back is not None and held_back.code == CrashLoopError.code
    slot: Slot | None = None if is_left_out else slots.active(lane)
    artifact: ArtifactRef | None = slots.artifact(lane, slot)
    report = ReportedDeployment(model=model, role=role, artifact=artifact, slot=slot if artifact else None)
    if job is not None:
        report = msgspec.structs.replace(
            report,
            wanted=job.artifact,
            rollout=job.rollout,
            attempt=job.attempt,
            state=job.state,
            outcome=job.outcome,
            error_code=job.error_code,
            error_detail=job.error_detail[:DETAIL_LIMIT],
        )
    if held_back is not None and held_back.code and not (job and job.is_running):
        report = msgspec.structs.replace(report, error_code=held_back.code, error_detail=held_back.detail[:DETAIL_LIMIT])
    return report
