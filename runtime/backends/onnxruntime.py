"""How does ONNX Runtime run a model here? On the CPU, with threads and optimisation level pinned by the manifest.

Its native code raises one type per status and plain RuntimeError besides, with no common root: every exception that
crosses the border is wrapped, its cause kept.

Its strings are UTF-8 text, given and returned as `str`; bytes given instead become their Python spelling, unannounced. NumPy
knows no bfloat16, so such tensors cross as its own OrtValue.
"""

import ctypes
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import Meta

from runtime.backends.base import Availability, LoadedModel, Tensors, parse_options
from runtime.backends.datatypes import BF16, BYTES, engine_datatype
from runtime.contract.artifact import Datatype, OptionValue, TensorSpec
from runtime.errors import EngineMissingError, InferenceError, ModelLoadError

# The same library is published under several names; the CPU one is the extra's.
_DISTRIBUTIONS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino")
_INSTALL = 'install the extra: pip install "edgewright[onnxruntime]"'
_LOG_ERRORS_ONLY = 3
_TYPES: dict[str, Datatype] = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}
_ONNX_BFLOAT16 = 16
"""TensorProto.BFLOAT16 of onnx.proto."""


class OnnxRuntimeOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """threads: of one inference. Precision is not an option: this engine computes in the types the model declares."""

    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    graph_optimization: Literal["off", "basic", "extended", "all"] = "all"


class OnnxRuntimeBackend:
    name: ClassVar[str] = "onnxruntime"

    def probe(self) -> Availability:
        if find_spec("onnxruntime") is None:
            return Availability(ok=False, reason=f"onnxruntime is not installed; {_INSTALL}")
        for distribution in _DISTRIBUTIONS:
            try:
                return Availability(ok=True, version=version(distribution))
            except PackageNotFoundError:
                continue
        return Availability(ok=False, reason="onnxruntime is importable but no known package provides it; reinstall it")

    def load(self, model: Path, options: Mapping[str, OptionValue]) -> LoadedModel:
        chosen = parse_options(OnnxRuntimeOptions, options, self.name)
        try:
            import onnxruntime
        except ImportError as error:
            raise EngineMissingError(f"onnxruntime cannot be imported ({error}); {_INSTALL}") from error
        try:
            session = onnxruntime.InferenceSession(
                str(model), session_options(onnxruntime, chosen), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise ModelLoadError(f"onnxruntime cannot open {model.name}: {error}") from error
        kinds = {spec.datatype for spec in (*map(_spec, session.get_inputs()), *map(_spec, session.get_outputs()))}
        if not kinds & {"BF16", "BYTES"}:
            return OnnxRuntimeModel(session)
        if "BF16" in kinds and not hasattr(onnxruntime.OrtValue, "ortvalue_from_numpy_with_onnx_type"):
            raise ModelLoadError(
                f"{model.name} has BF16 tensors, which onnxruntime {onnxruntime.__version__} cannot take; update it"
            )
        if kinds >= {"BF16", "BYTES"}:
            raise ModelLoadError(f"{model.name} has both BF16 and BYTES tensors, which onnxruntime cannot take in one call")
        return _TranslatedModel(session, onnxruntime.OrtValue)


class OnnxRuntimeModel:
    """A session. `infer` may run concurrently: ONNX Runtime's sessions are thread-safe."""

    def __init__(self, session: Any) -> None:
        self.inputs = tuple(_spec(node) for node in session.get_inputs())
        self.outputs = tuple(_spec(node) for node in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]
        self._only_name = self._names[0] if len(self._names) == 1 else ""
        self._session = session

    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        if self._session is None:
            raise InferenceError("the model is closed")
        try:
            if self._only_name:  # the usual model, spared a fiftieth of a 15 us run
                return {self._only_name: self._session.run(self._names, inputs)[0]}
            return dict(zip(self._names, self._session.run(self._names, inputs), strict=True))
        except Exception as error:
            raise InferenceError(f"onnxruntime failed: {error}") from error

    def close(self) -> None:
        self._session = None


class _TranslatedModel(OnnxRuntimeModel):
    """A session with tensors that NumPy and the engine spell differently. Apart, so that the usual model pays nothing."""

    def __init__(self, session: Any, ort_value: Any) -> None:
        super().__init__(session)
        self._ort_value = ort_value
        self._is_bf16 = any(spec.datatype == "BF16" for spec in (*self.inputs, *self.outputs))

    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        if not self._is_bf16:
            try:
                texts = {name: _decoded(array) if array.dtype == BYTES else array for name, array in inputs.items()}
            except UnicodeDecodeError as error:
                raise InferenceError(f"onnxruntime takes BYTES that are UTF-8 only: {error}") from error
            found = super().infer(texts)
            return {name: _encoded(array) if array.dtype == BYTES else array for name, array in found.items()}
        if self._session is None:
            raise InferenceError("the model is closed")
        try:
            values = {name: self._value(array) for name, array in inputs.items()}
            return dict(zip(self._names, map(_array, self._session.run_with_ort_values(self._names, values)), strict=True))
        except Exception as error:
            raise InferenceError(f"onnxruntime failed: {error}") from error

    def _value(self, array: np.ndarray) -> Any:
        if array.dtype == BF16:
            return self._ort_value.ortvalue_from_numpy_with_onnx_type(_contiguous(array.view("<u2")), _ONNX_BFLOAT16)
        return self._ort_value.ortvalue_from_numpy(_contiguous(array))


def session_options(onnxruntime: Any, options: OnnxRuntimeOptions) -> Any:
    """How a model is opened: everything but the provider. onnxruntime: the module, so that this one need not import it."""
    levels = onnxruntime.GraphOptimizationLevel
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = options.threads
    session.inter_op_num_threads = 1
    session.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    session.graph_optimization_level = {
        "off": levels.ORT_DISABLE_ALL,
        "basic": levels.ORT_ENABLE_BASIC,
        "extended": levels.ORT_ENABLE_EXTENDED,
        "all": levels.ORT_ENABLE_ALL,
    }[options.graph_optimization]
    session.log_severity_level = _LOG_ERRORS_ONLY
    return session


def _spec(node: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
    return TensorSpec(name=node.name, datatype=engine_datatype(_TYPES, node.type, node.name), shape=shape)


def _contiguous(array: np.ndarray) -> np.ndarray:
    """Unlike np.ascontiguousarray it leaves a scalar one."""
    return np.asarray(array, order="C")


def _array(value: Any) -> np.ndarray:
    """An output as an array of its own."""
    if value.element_type() != _ONNX_BFLOAT16:
        numbers: np.ndarray = value.numpy()
        return numbers
    shape = value.shape()
    size = value.tensor_size_in_bytes()
    raw = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(bytearray(raw), BF16).reshape(shape)


def _decoded(array: np.ndarray) -> np.ndarray:
    return _objects([element.decode() for element in array.flat], array.shape)


def _encoded(array: np.ndarray) -> np.ndarray:
    return _objects([element.encode() for element in array.flat], array.shape)


def _objects(elements: list[Any], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(elements), BYTES)
    array[:] = elements
    return array.reshape(shape)
