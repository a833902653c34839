"""What does a client's wish to unload a model, or to load it again, mean beside updates?

Only what serves changes, nothing on the disk: the next start serves every active slot again. An update under way is not
disturbed, for it judges its new version by what serves.
"""

from pathlib import Path
from typing import Protocol

from runtime.contract.artifact import ArtifactRef
from runtime.contract.deployment import DeploymentState, Slot
from runtime.errors import ModelNotFoundError, OverloadedError
from runtime.serving.control import Stored
from runtime.serving.models.model import ServedModel
from runtime.update.machine import Job


class _Slots(Protocol):
    def models(self) -> tuple[str, ...]: ...
    def active(self, lane: str) -> Slot | None: ...
    def directory(self, lane: str, slot: Slot) -> Path: ...


class _Jobs(Protocol):
    def jobs(self) -> dict[str, Job]: ...


class _Live(Protocol):
    def open(self, directory: Path) -> ServedModel: ...
    def switch(self, served: ServedModel) -> None: ...
    def retire(self, model: str) -> None: ...
    def artifact(self, model: str) -> ArtifactRef | None: ...


def stored_models(slots: _Slots, store: _Jobs, live: _Live) -> Stored:
    """What the endpoint may do with the models of a device."""

    def active_slot(model: str) -> Slot:
        # The list is asked first: a name from a client must not become a path.
        slot = slots.active(model) if model in slots.models() else None
        if slot is None:
            raise ModelNotFoundError(f"no version of {model[:60]!r} is on this device")
        job = store.jobs().get(model)
        if job is not None and job.state is not DeploymentState.IDLE:
            raise OverloadedError(f"an update of {model} is under way ({job.state}); ask again when it has ended")
        return slot

    def load(model: str) -> None:
        slot = active_slot(model)
        if live.artifact(model) is None:
            live.switch(live.open(slots.directory(model, slot)))

    def unload(model: str) -> None:
        active_slot(model)
        live.retire(model)

    return Stored(slots.models, load, unload)
