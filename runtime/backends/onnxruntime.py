"""How does ONNX Runtime run a model here? On the CPU, with threads and optimisation level pinned by the manifest.

Its native code raises one type per status and plain RuntimeError besides, with no common root: every exception that
crosses the border is wrapped, its cause kept.
"""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
import numpy as np
from msgspec import Meta

from runtime.backends.base import Availability, LoadedModel, Tensors, parse_options
from runtime.backends.datatypes import engine_datatype
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
}


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
        return OnnxRuntimeModel(session)


class OnnxRuntimeModel:
    """A session. `infer` may run concurrently: ONNX Runtime's sessions are thread-safe."""

    def __init__(self, session: Any) -> None:
        self.inputs = tuple(_spec(node) for node in session.get_inputs())
        self.outputs = tuple(_spec(node) for node in session.get_outputs())
        self._names = [spec.name for spec in self.outputs]
        self._session = session

    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        if self._session is None:
            raise InferenceError("the model is closed")
        try:
            return dict(zip(self._names, self._session.run(self._names, inputs), strict=True))
        except Exception as error:
            raise InferenceError(f"onnxruntime failed: {error}") from error

    def close(self) -> None:
        self._session = None


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
