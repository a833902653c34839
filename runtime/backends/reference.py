"""What can run a model where no engine is installed, in arithmetic anyone can check?

A multilayer perceptron in NumPy: an `.npz` with `weight.0` float32[in, hidden], `bias.0` float32[hidden], `weight.1`, ...;
ReLU between layers, none behind the last. One input "input" float32[-1, in], one output "output" float32[-1, out].
It exists for conformance tests, for trying out a device without an engine, and as the smallest example of a backend;
real models belong in a real engine.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

import msgspec
import numpy as np

from runtime.backends.base import Availability, LoadedModel, Tensors, parse_options
from runtime.contract.artifact import OptionValue, TensorSpec
from runtime.errors import InferenceError, ModelLoadError

_VERSION = "1.0.0"
"""Of the file format and its arithmetic."""

_Layer = tuple[np.ndarray, np.ndarray]


class ReferenceOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """threads: one, kept by using no BLAS."""

    threads: Literal[1] = 1


class ReferenceBackend:
    name: ClassVar[str] = "reference"

    def probe(self) -> Availability:
        return Availability(ok=True, version=_VERSION)

    def load(self, model: Path, options: Mapping[str, OptionValue]) -> LoadedModel:
        parse_options(ReferenceOptions, options, self.name)
        return ReferenceModel(_read_layers(model))


class ReferenceModel:
    """Keeps no state between calls, so `infer` may run concurrently."""

    def __init__(self, layers: list[_Layer]) -> None:
        self.inputs: tuple[TensorSpec, ...] = (TensorSpec(name="input", datatype="FP32", shape=(-1, layers[0][0].shape[0])),)
        self.outputs: tuple[TensorSpec, ...] = (TensorSpec(name="output", datatype="FP32", shape=(-1, layers[-1][0].shape[1])),)
        self._layers = layers

    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        if not self._layers:
            raise InferenceError("the model is closed")
        if set(inputs) != {"input"}:
            raise InferenceError(f"the model takes one tensor 'input', not {sorted(inputs)}")
        values = inputs["input"]
        if values.dtype != np.float32 or values.ndim != 2 or values.shape[1] != self.inputs[0].shape[1]:
            raise InferenceError(f"the model takes float32{list(self.inputs[0].shape)}, not {values.dtype}{list(values.shape)}")
        for index, (weight, bias) in enumerate(self._layers):
            if index:
                values = np.maximum(values, 0)
            # einsum without optimisation is a plain loop: matmul would start BLAS threads nobody asked for.
            values = np.einsum("ni,io->no", values, weight) + bias
        return {"output": values}

    def close(self) -> None:
        self._layers = []


def write_model(path: Path, layers: list[_Layer]) -> None:
    """Write (weight, bias) pairs as a model file that this backend reads."""
    weights = {f"weight.{index}": weight.astype(np.float32) for index, (weight, _) in enumerate(layers)}
    biases = {f"bias.{index}": bias.astype(np.float32) for index, (_, bias) in enumerate(layers)}
    np.savez(path, allow_pickle=False, **weights, **biases)


def _read_layers(path: Path) -> list[_Layer]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, AttributeError) as error:
        raise ModelLoadError(f"reference cannot open {path.name}: {error}") from error
    count = len(arrays) // 2
    expected = {f"{part}.{index}" for part in ("weight", "bias") for index in range(count)}
    if not count or set(arrays) != expected:
        raise ModelLoadError(f"reference cannot open {path.name}: it holds {sorted(arrays)} instead of weight.0, bias.0, …")
    layers = [(arrays[f"weight.{index}"], arrays[f"bias.{index}"]) for index in range(count)]
    width = layers[0][0].shape[0] if layers[0][0].ndim == 2 else None
    for index, (weight, bias) in enumerate(layers):
        fits = weight.ndim == 2 and weight.shape[0] == width and bias.shape == weight.shape[1:]
        if not fits or weight.dtype != np.float32 or bias.dtype != np.float32:
            raise ModelLoadError(f"reference cannot open {path.name}: layer {index} does not fit as float32")
        width = weight.shape[1]
    return layers
