"""How does OpenVINO run a model here? On the CPU, with threads and precision pinned by the manifest.

Left alone it computes in bf16 where the CPU can (relative error 1.5e-3, unannounced) and takes every core; both are
options here, f32 and one thread by default. Its native code raises plain RuntimeError among other types: every exception
that crosses the border is wrapped, its cause kept.

NumPy knows no bfloat16: such tensors go in as the engine's own and come out under the name of float16. Strings are refused
when a model is opened: through its Python interface 2026.4 cuts them at NUL and corrupts the heap at exit.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import Meta

from runtime.backends.base import Availability, LoadedModel, Tensors, parse_options
from runtime.backends.datatypes import BF16, engine_datatype
from runtime.contract.artifact import Datatype, OptionValue, TensorSpec
from runtime.errors import EngineMissingError, EngineOptionError, InferenceError, ModelLoadError

_INSTALL = 'install the extra: pip install "edgewright[openvino]"'
_DEVICE = "CPU"
_TYPES: dict[str, Datatype] = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "f32": "FP32",
    "f64": "FP64",
    "bf16": "BF16",
}


class OpenVinoOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """threads: of one inference. precision: what floating-point layers compute in; bf16 and f16 only where asked for.

    batch: 1 compiles a model of free batch for single rows, and takes several one after another. A free batch costs every
    inference some 10 % and 10 us (`python -m benchmarks.openvino_batch`); 0 keeps it.
    """

    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    precision: Literal["f32", "bf16", "f16"] = "f32"
    batch: Literal[0, 1] = 0


class OpenVinoBackend:
    name: ClassVar[str] = "openvino"

    def probe(self) -> Availability:
        try:
            return Availability(ok=True, version=version("openvino"))
        except PackageNotFoundError:
            return Availability(ok=False, reason=f"openvino is not installed; {_INSTALL}")

    def load(self, model: Path, options: Mapping[str, OptionValue]) -> LoadedModel:
        chosen = parse_options(OpenVinoOptions, options, self.name)
        try:
            import openvino
        except ImportError as error:
            raise EngineMissingError(f"openvino cannot be imported ({error}); {_INSTALL}") from error
        try:
            compiled, is_cut = compile_file(openvino, model, properties(chosen), chosen.batch)
        except Exception as error:
            raise ModelLoadError(f"openvino cannot open {model.name}: {error}") from error
        taken = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        if taken != chosen.precision:  # it takes the nearest precision the CPU has, without a word
            raise EngineOptionError(f"openvino computes in {taken} on this CPU, the manifest asks for {chosen.precision}")
        return OpenVinoModel(compiled, openvino, is_cut=is_cut)


class OpenVinoModel:
    """A compiled model with one inference request, hence no concurrent `infer`. is_cut: it takes single rows of a free batch."""

    def __init__(self, compiled: Any, openvino: Any, *, is_cut: bool) -> None:
        self.inputs = tuple(_spec(port, is_cut=is_cut) for port in compiled.inputs)
        self.outputs = tuple(_spec(port, is_cut=is_cut) for port in compiled.outputs)
        self._is_cut = is_cut
        self._names = [spec.name for spec in self.outputs]
        self._bf16_inputs = tuple(spec.name for spec in self.inputs if spec.datatype == "BF16")
        self._bf16_outputs = {spec.name for spec in self.outputs if spec.datatype == "BF16"}
        self._openvino = openvino
        self._request = compiled.create_infer_request()

    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        if self._request is None:
            raise InferenceError("the model is closed")
        if len(inputs) != len(self.inputs):  # a tensor left out would silently be the last call's
            raise InferenceError(f"the model takes {len(self.inputs)} tensors, not {len(inputs)}")
        try:
            rows = len(next(iter(inputs.values()))) if self._is_cut else 1
            if rows == 1:
                return self._run(inputs)
            if any(len(array) != rows for array in inputs.values()):
                raise InferenceError(f"the tensors differ in rows: {', '.join(str(len(array)) for array in inputs.values())}")
            parts = [self._run({name: array[row : row + 1] for name, array in inputs.items()}) for row in range(rows)]
            return {name: np.concatenate([part[name] for part in parts]) for name in self._names}
        except InferenceError:
            raise
        except Exception as error:
            raise InferenceError(f"openvino failed: {error}") from error

    def _run(self, inputs: Tensors) -> dict[str, np.ndarray]:
        # Inputs are read in place; outputs are copied, for the request overwrites its own at the next call.
        if self._bf16_inputs:
            inputs = {**inputs, **{name: self._bf16_tensor(inputs[name]) for name in self._bf16_inputs}}
        results = self._request.infer(inputs, share_inputs=True, share_outputs=False)
        outputs = {name: results[index] for index, name in enumerate(self._names)}
        for name in self._bf16_outputs:
            outputs[name] = outputs[name].view(BF16)
        return outputs

    def _bf16_tensor(self, array: np.ndarray) -> Any:
        bits = np.array(array.view("<u2"), order="C")  # a copy: the engine takes no read-only memory under another type
        return self._openvino.Tensor(bits, self._openvino.Shape(bits.shape), self._openvino.Type.bf16)

    def close(self) -> None:
        self._request = None


def compile_file(openvino: Any, model: Path, chosen: Mapping[str, Any], batch: int) -> tuple[Any, bool]:
    """The compiled model, and whether its free batch was cut to single rows: only where every tensor has one, and keeps it."""
    core = openvino.Core()
    if not batch:
        return core.compile_model(str(model), _DEVICE, chosen), False
    graph = core.read_model(str(model))
    shapes = [port.get_partial_shape() for port in (*graph.inputs, *graph.outputs)]
    if not all(shape.rank.is_static and len(shape) and shape[0].is_dynamic for shape in shapes):
        return core.compile_model(graph, _DEVICE, chosen), False
    graph.reshape({port: openvino.PartialShape([batch, *list(port.get_partial_shape())[1:]]) for port in graph.inputs})
    if any(port.get_partial_shape()[0] != batch for port in graph.outputs):
        raise ValueError("its outputs do not follow the batch of its inputs")
    return core.compile_model(graph, _DEVICE, chosen), True


def properties(options: OpenVinoOptions) -> dict[str, Any]:
    """How a model is compiled, as the engine spells it."""
    return {
        "INFERENCE_PRECISION_HINT": options.precision,
        "INFERENCE_NUM_THREADS": options.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        # Pinning would fix every process of a device to the same first cores.
        "ENABLE_CPU_PINNING": False,
    }


def _spec(port: Any, *, is_cut: bool) -> TensorSpec:
    shape = tuple(dimension.get_length() if dimension.is_static else -1 for dimension in port.get_partial_shape())
    shape = (-1, *shape[1:]) if is_cut else shape
    name = port.get_any_name()
    return TensorSpec(name=name, datatype=engine_datatype(_TYPES, port.get_element_type().to_string(), name), shape=shape)
