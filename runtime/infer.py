"""What does a model on this device answer for the inputs in a file?"""

from pathlib import Path
from typing import Any

import numpy as np

from runtime.errors import ModelNotFoundError, RequestError
from runtime.serving.repository import open_artifact
from runtime.update.slots import Slots


def infer_file(state_dir: Path, model: str, source: Path, out: Path | None) -> dict[str, Any]:
    """Run the served version once, in this process. Returns each output's shape and data, or its file.

    Raises ModelNotFoundError or RequestError, or what `open_artifact` raises.
    """
    slots = Slots(state_dir)
    slot = slots.active(model)
    if slot is None:
        raise ModelNotFoundError(f"unknown model {model!r}; installed: {', '.join(slots.models()) or 'none'}")
    try:
        with np.load(source, allow_pickle=False) as file:
            inputs = {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise RequestError(f"{source}: {error}; give an .npz file with one array per input") from error
    served = open_artifact(slots.directory(model, slot))
    try:
        served.check(inputs)
        outputs = served.infer(inputs)
    finally:
        served.retire()
    if out is not None:
        np.savez(out, allow_pickle=False, **outputs)
        return {name: {"shape": list(array.shape), "data": str(out)} for name, array in outputs.items()}
    return {name: {"shape": list(array.shape), "data": array.tolist()} for name, array in outputs.items()}
