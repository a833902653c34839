"""What does a model on this device answer for the inputs in a file, or in many?"""

from pathlib import Path
from typing import Any

import numpy as np

from runtime.batch.npz import save_npz
from runtime.errors import BatchError, ModelNotFoundError, RequestError
from runtime.processing.pipeline import decoded, prepare
from runtime.serving.models.repository import open_artifact
from runtime.update.slots import Slots


def infer_file(state_dir: Path, model: str, source: Path, out: Path | None, *, raw: bool = False) -> dict[str, Any]:
    """Run the served version once, in this process. Returns each output's shape and data, or its file.

    raw: the file holds one picture, sound or array that the manifest's steps prepare, and they decode what the network says.
    Raises ModelNotFoundError or RequestError, or what `open_artifact` raises.
    """
    directory = served_directory(state_dir, model)
    inputs = {} if raw else _tensors(source)
    served = open_artifact(directory)
    try:
        if raw:
            from runtime.batch.examples import read_example, sound_rate

            example = read_example(source, sound_rate(served.manifest))
            inputs = prepare(served.manifest, [_only(source, example)])
        served.check(inputs)
        outputs = served.infer(inputs)
        if raw:
            outputs = decoded(served.manifest, outputs)
    except BatchError as error:
        raise RequestError(f"{source}: {error}") from error
    finally:
        served.retire()
    if out is not None:
        save_npz(out, outputs)
        return {name: {"shape": list(array.shape), "data": str(out)} for name, array in outputs.items()}
    return {name: {"shape": list(array.shape), "data": array.tolist()} for name, array in outputs.items()}


def served_directory(state_dir: Path, model: str) -> Path:
    """Where the artifact lies that serves as `model`. Raises ModelNotFoundError."""
    slots = Slots(state_dir)
    slot = slots.active(model)
    if slot is None:
        raise ModelNotFoundError(f"unknown model {model!r}; installed: {', '.join(slots.models()) or 'none'}")
    return slots.directory(model, slot)


def _tensors(source: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(source, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, ValueError) as error:
        raise RequestError(f"{source}: {error}; give an .npz file with one array per input") from error


def _only(source: Path, example: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
    if not isinstance(example, dict):
        return example
    if len(example) != 1:
        raise RequestError(f"{source}: a raw input is one array, this file has {len(example)}")
    return next(iter(example.values()))
