"""What does a variant answer to a split, through the engine that will serve it on the device?"""

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING

from runtime.backends.base import LoadedModel, get_backend
from runtime.contract.artifact import OptionValue
from toolchain.errors import NetworkError
from toolchain.pipeline.products import Variant
from toolchain.pipeline.stage import Stored

if TYPE_CHECKING:
    import numpy as np

_BATCH = 64


def load(variant: Stored[Variant], options: Mapping[str, OptionValue]) -> LoadedModel:
    """The variant in its engine. options: over the variant's own, such as threads."""
    value = variant.value
    return get_backend(value.engine).load(variant.folder / value.model_file, {**value.engine_options, **options})


def outputs_of(
    variant: Stored[Variant], arrays: "list[np.ndarray]", options: Mapping[str, OptionValue] | None = None
) -> "list[np.ndarray]":
    """All outputs for all rows, in the order of the variant's tensors. Raises EngineError, or NetworkError on a wrong count."""
    import numpy as np

    size = variant.value.inputs[0].shape[0]
    size = _BATCH if size < 0 else size
    names = [spec.name for spec in variant.value.inputs]
    rows = len(arrays[0])
    if rows % size and variant.value.inputs[0].shape[0] > 0:
        raise NetworkError(
            f"the model takes batches of {size} only, which {rows} rows cannot be cut into; export it with a free batch"
        )
    parts = []
    with closing(load(variant, options or {})) as model:
        for start in range(0, rows, size):
            answer = model.infer({name: array[start : start + size] for name, array in zip(names, arrays, strict=True)})
            parts.append([answer[spec.name] for spec in variant.value.outputs])
    return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
