"""What does a device keep? Its state directory, opened: the durable store, the slots, and the clock that rests on them."""

from pathlib import Path
from typing import NamedTuple

from runtime.clock import Clock
from runtime.files import make_directory
from runtime.update.slots import Slots
from runtime.update.store import STATE_FILE, Store


class State(NamedTuple):
    """Shared by every part of a daemon. Any thread may read; slots are changed by the updater alone."""

    directory: Path
    store: Store
    slots: Slots
    clock: Clock


def open_state(directory: Path) -> State:
    """Open a state directory, making what is missing. Raises StoreError."""
    make_directory(directory)
    store = Store(directory / STATE_FILE)
    return State(directory, store, Slots(directory).prepare(), Clock(store))
