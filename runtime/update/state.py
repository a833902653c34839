"""What does a device keep? Its state directory, opened: the durable store, the slots, and the clock that rests on them."""

import contextlib
import logging
from pathlib import Path
from typing import NamedTuple

from runtime.clock import Clock
from runtime.contract.errors import ContractError
from runtime.errors import StoreDamagedError, StoreError, reason
from runtime.files import make_directory, rename_durably
from runtime.update.slots import Slots
from runtime.update.store import STATE_FILE, Store

log = logging.getLogger(__name__)

DAMAGED_SUFFIX = ".damaged"
PROBE_FILE, PROBE_BYTES = "probe.tmp", 1 << 20


class State(NamedTuple):
    """Shared by every part of a daemon. Any thread may read; slots are changed by the updater alone.

    begun_anew: state.db was damaged; it lies aside, and what it knew has to be learnt again. refused: why the disk takes no
    writes, "" where it does; the store is a copy in memory then, and nothing may be built on it that must last.
    """

    directory: Path
    store: Store
    slots: Slots
    clock: Clock
    begun_anew: bool = False
    refused: str = ""


def open_state(directory: Path) -> State:
    """Open a state directory, making what is missing. Raises StoreError.

    A damaged database must not keep a device from serving: it is put aside and begun anew. The fleet sends its desired state
    again; the version floors come back from the manifests that serve.
    """
    try:
        return _open(directory)
    except OSError as error:
        raise StoreError(f"{directory}: {reason(error)}") from error


def _open(directory: Path) -> State:
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


def open_state_to_serve(directory: Path) -> State:
    """As `open_state`, but a disk that takes no writes keeps no installed model from serving. Raises where none is installed."""
    try:
        state = open_state(directory)
        state.store.prove()
        return state
    except StoreError as error:
        slots = Slots(directory)
        if not slots.lanes():
            raise
        log.error("%s; what is installed serves, and nothing else is kept until the disk takes writes again", error)
        store = Store(directory / STATE_FILE, is_volatile=True)
        return State(directory, store, slots, Clock(store), refused=str(error))


def takes_writes(directory: Path) -> bool:
    """Whether the disk of a state directory that refused writes takes them again."""
    probe = directory / PROBE_FILE
    try:
        probe.write_bytes(bytes(PROBE_BYTES))
        with contextlib.closing(Store(directory / STATE_FILE)) as store:
            store.prove()
    except StoreDamagedError:
        return True  # the next start puts it aside
    except (StoreError, OSError):
        return False
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return True


def _restore_floors(store: Store, slots: Slots) -> None:
    for model in slots.models():
        slot = slots.active(model)
        try:
            if slot is not None:
                store.raise_floor(model, slots.manifest(model, slot).value.rollback_floor)
        except (OSError, ContractError) as error:
            log.error("%s: its floor is lost: %s", model, error)
