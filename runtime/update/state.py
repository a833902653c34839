"""What does a device keep? Its state directory, opened: the durable store, the slots, and the clock that rests on them."""

import logging
from pathlib import Path
from typing import NamedTuple

from runtime.clock import Clock
from runtime.contract.errors import ContractError
from runtime.errors import StoreDamagedError
from runtime.files import make_directory, rename_durably
from runtime.update.slots import Slots
from runtime.update.store import STATE_FILE, Store

log = logging.getLogger(__name__)

DAMAGED_SUFFIX = ".damaged"


class State(NamedTuple):
    """Shared by every part of a daemon. Any thread may read; slots are changed by the updater alone.

    begun_anew: state.db was damaged; it lies aside, and what it knew has to be learnt again.
    """

    directory: Path
    store: Store
    slots: Slots
    clock: Clock
    begun_anew: bool = False


def open_state(directory: Path) -> State:
    """Open a state directory, making what is missing. Raises StoreError.

    A damaged database must not keep a device from serving: it is put aside and begun anew. The fleet sends its desired state
    again; the version floors come back from the manifests that serve.
    """
    make_directory(directory)
    slots, path = Slots(directory).prepare(), directory / STATE_FILE
    try:
        store, begun_anew = Store(path), False
    except StoreDamagedError as error:
        log.error("%s; it is put aside and begun anew", error)
        for name in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
            if name.exists():
                rename_durably(name, name.with_name(name.name + DAMAGED_SUFFIX))
        store, begun_anew = Store(path), True
        _restore_floors(store, slots)
    return State(directory, store, slots, Clock(store), begun_anew)


def _restore_floors(store: Store, slots: Slots) -> None:
    for model in slots.models():
        slot = slots.active(model)
        try:
            if slot is not None:
                store.raise_floor(model, slots.manifest(model, slot).value.rollback_floor)
        except (OSError, ContractError) as error:
            log.error("%s: its floor is lost: %s", model, error)
