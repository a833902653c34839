"""What does this device serve and want, read from its disk alone?"""

from pathlib import Path
from typing import Any

import msgspec

from runtime.agent.reporter import describe
from runtime.contract.deployment import ReportedDeployment
from runtime.identity import read_identity
from runtime.update.slots import Slots
from runtime.update.store import STATE_FILE, Store


def read_status(state_dir: Path) -> dict[str, Any]:
    """Identity, desired generation and every model, without the daemon and without changing anything."""
    identity = read_identity(state_dir)
    generation = 0
    models: tuple[ReportedDeployment, ...] = ()
    if (state_dir / STATE_FILE).is_file():
        store = Store(state_dir / STATE_FILE, read_only=True)
        held = store.held()
        generation = held.desired.value.generation if held else 0
        models = describe(store.jobs(), Slots(state_dir), {})
        store.close()
    return {
        "device": identity.device if identity else "",
        "fleet": identity.fleet if identity else "",
        "state_dir": str(state_dir),
        "generation": generation,
        "models": msgspec.to_builtins(models),
    }
