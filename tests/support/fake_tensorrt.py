"""TensorRT's Python module as far as `runtime.backends.tensorrt` uses it, for machines without it: NOT the real library.

An "engine" is the ONNX file behind a header, run by ONNX Runtime on what lies at the addresses it was given. It follows NVIDIA's
documentation where that says what a call answers: None or False with the reason in the logger, flags that version 11 dropped,
engines and timings of another version refused. It shows that our calls come in a legal order; it cannot show that NVIDIA agrees.
"""

import ctypes
import enum
import json
import sys
import types
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.backends import tensorrt_build
from tests.support.fake_cuda import FakeDriver

_MAGIC = b"fake plan\n"
_REFUSED_CONTENT = b"damaged"
_DATATYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int64)": "INT64", "tensor(int32)": "INT32"}


class Dims:
    """Indexed and measured like a tuple, yet not one, as the real one."""

    def __init__(self, sizes: list[int]) -> None:
        self._sizes = list(sizes)

    def __getitem__(self, index: int) -> int:
        return self._sizes[index]

    def __len__(self) -> int:
        return len(self._sizes)


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = Severity

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class DataType(enum.Enum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, INT64, BF16 = range(8)


class TensorIOMode(enum.Enum):
    NONE, INPUT, OUTPUT = range(3)


class NetworkDefinitionCreationFlag(enum.IntEnum):
    EXPLICIT_BATCH, STRONGLY_TYPED = range(2)


class MemoryPoolType(enum.Enum):
    WORKSPACE = 0


class FakeTensorRt:
    """One installation. builds: how often an engine was built; seen: what the last build was told."""

    def __init__(self, version: str, driver: FakeDriver) -> None:
        self.version, self.driver = version, driver
        self.builds = 0
        self.seen: dict[str, Any] = {}
        self.build_fails = self.execution_fails = False
        self.module = types.ModuleType("tensorrt")
        self.module.__spec__ = ModuleSpec("tensorrt", None, origin="fake")
        flags = {"TF32": 7} if self.major == 11 else {"FP16": 0, "INT8": 1, "TF32": 7}
        parts: dict[str, Any] = {
            "__version__": version,
            "ILogger": ILogger,
            "DataType": DataType,
            "Dims": Dims,
            "TensorIOMode": TensorIOMode,
            "NetworkDefinitionCreationFlag": NetworkDefinitionCreationFlag,
            "MemoryPoolType": MemoryPoolType,
            "BuilderFlag": enum.Enum("BuilderFlag", flags),
            "Builder": lambda logger: Builder(self, logger),
            "OnnxParser": OnnxParser,
            "Runtime": lambda logger: Runtime(self, logger),
        }
        for name, part in parts.items():
            setattr(self.module, name, part)

    @property
    def major(self) -> int:
        return int(self.version.split(".", maxsplit=1)[0])


def install(monkeypatch: pytest.MonkeyPatch, version: str = "10.13.3.9", driver: FakeDriver | None = None) -> FakeTensorRt:
    """Put a fake driver and a fake TensorRT of this version where the backend looks for them, for one test."""
    fake = FakeTensorRt(version, driver or FakeDriver())
    monkeypatch.setattr("runtime.backends.cuda.CDLL", fake.driver.library)
    monkeypatch.setitem(sys.modules, "tensorrt", fake.module)
    monkeypatch.setattr("runtime.backends.tensorrt._DISTRIBUTIONS", ())
    tensorrt_build.logger.cache_clear()
    return fake


class ParserError:
    def __init__(self, desc: str, name: str = "", operator: str = "") -> None:
        self.desc, self.node_name, self.node_operator = (lambda: desc), (lambda: name), (lambda: operator)


class OnnxParser:
    def __init__(self, network: Any, logger: ILogger) -> None:
        self._network, self._errors = network, []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, path: str) -> bool:
        import onnx
        from google.protobuf.message import DecodeError

        try:
            model = onnx.load(path)
            onnx.checker.check_model(model)
        except (DecodeError, onnx.checker.ValidationError) as error:
            self._errors.append(ParserError(f"Failed to parse the ONNX file: {type(error).__name__}"))
            return False
        self._network.onnx = Path(path).read_bytes()
        for node in model.graph.node:
            if node.domain not in ("", "ai.onnx"):
                self._errors.append(ParserError("Plugin not found", node.name, node.op_type))
        for value in model.graph.input:
            sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in value.type.tensor_type.shape.dim]
            self._network.inputs.append(types.SimpleNamespace(name=value.name, shape=Dims(sizes)))
        return not self._errors


class Network:
    def __init__(self) -> None:
        self.onnx, self.inputs = b"", []

    @property
    def num_inputs(self) -> int:
        return len(self.inputs)

    def get_input(self, index: int) -> Any:
        return self.inputs[index]


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[list[int], ...]] = {}

    def set_shape(self, name: str, least: Dims, best: Dims, most: Dims) -> None:
        self.shapes[name] = tuple([shape[axis] for axis in range(len(shape))] for shape in (least, best, most))


class TimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> memoryview:
        return memoryview(self.content)


class BuilderConfig:
    def __init__(self, fake: FakeTensorRt) -> None:
        self._fake = fake
        self.flags = {flag.name for flag in fake.module.BuilderFlag if flag.name == "TF32"}
        self.builder_optimization_level, self.workspace, self.profiles, self.cache = 3, 0, [], None

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        self.workspace = size

    def add_optimization_profile(self, profile: Profile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> TimingCache | None:
        return None if content.startswith(_REFUSED_CONTENT) else TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        if cache.content and cache.content != self._fake.version.encode() and not ignore_mismatch:
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> TimingCache:
        return TimingCache(self._fake.version.encode())


class Builder:
    def __init__(self, fake: FakeTensorRt, logger: ILogger) -> None:
        self._fake, self._logger, self.max_threads = fake, logger, 1

    def create_network(self, flags: int = 0) -> Network:
        self._fake.seen["network flags"] = flags
        return Network()

    def create_builder_config(self) -> BuilderConfig:
        return BuilderConfig(self._fake)

    def create_optimization_profile(self) -> Profile:
        return Profile()

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> memoryview | None:
        self._fake.builds += 1
        free = [tensor.name for tensor in network.inputs if -1 in [tensor.shape[axis] for axis in range(len(tensor.shape))]]
        if self._fake.build_fails:
            self._logger.log(Severity.ERROR, "Could not find any implementation for node conv1")
            return None
        if free and not config.profiles:
            self._logger.log(Severity.ERROR, "Network has dynamic or shape inputs, but no optimization profile has been defined.")
            return None
        shapes = config.profiles[0].shapes if config.profiles else {}
        self._fake.seen |= {
            "flags": config.flags,
            "profile": shapes,
            "threads": self.max_threads,
            "effort": config.builder_optimization_level,
            "workspace": config.workspace,
            "timings": config.cache.content if config.cache else None,
        }
        header = json.dumps({"version": self._fake.version, "sm": self._fake.driver.capability, "profile": shapes})
        return memoryview(_MAGIC + header.encode() + b"\n" + network.onnx)


class Runtime:
    def __init__(self, fake: FakeTensorRt, logger: ILogger) -> None:
        self._fake, self._logger = fake, logger

    def deserialize_cuda_engine(self, plan: bytes) -> "Engine | None":
        header, _, onnx = bytes(plan).removeprefix(_MAGIC).partition(b"\n")
        facts = json.loads(header) if bytes(plan).startswith(_MAGIC) else {}
        if facts.get("version") != self._fake.version or facts.get("sm") != list(self._fake.driver.capability):
            self._logger.log(Severity.ERROR, "The engine plan file is not compatible with this version of TensorRT")
            return None
        return Engine(self._fake, self._logger, onnx, facts["profile"])


class Engine:
    def __init__(self, fake: FakeTensorRt, logger: ILogger, onnx: bytes, profile: dict[str, Any]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.fake, self.logger, self.profile = fake, logger, profile
        self.session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.tensors = {node.name: node for node in (*self.session.get_inputs(), *self.session.get_outputs())}
        self.inputs = [node.name for node in self.session.get_inputs()]

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return DataType[_DATATYPES[self.tensors[name].type]]

    def get_tensor_shape(self, name: str) -> Dims:
        return Dims([size if isinstance(size, int) else -1 for size in self.tensors[name].shape])

    def create_execution_context(self) -> "Context":
        return Context(self)


class Context:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine.profile.get(name, (shape, shape, shape))
        if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            self._engine.logger.log(Severity.ERROR, f"Static dimension mismatch while setting input shape for {name}")
            return False
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> Dims:
        if name in self._shapes:
            return Dims(list(self._shapes[name]))
        sizes = self._engine.get_tensor_shape(name)
        batch = next(iter(self._shapes.values()))[0]
        return Dims([batch if axis == 0 and sizes[0] == -1 else sizes[axis] for axis in range(len(sizes))])

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self._engine.fake.execution_fails:
            self._engine.logger.log(Severity.ERROR, "Cuda Runtime (an illegal memory access was encountered)")
            return False
        shapes = {
            name: tuple(self.get_tensor_shape(name)[axis] for axis in range(len(self.get_tensor_shape(name))))
            for name in self._addresses
        }
        self._engine.fake.driver.queue(stream_handle, lambda: self._work(shapes))
        return True

    def _work(self, shapes: dict[str, tuple[int, ...]]) -> None:
        types_ = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32}
        feeds = {}
        for name in self._engine.inputs:
            kind = np.dtype(types_[self._engine.get_tensor_dtype(name).name])
            size = int(np.prod(shapes[name])) * kind.itemsize
            assert self._engine.fake.driver.inside(self._addresses[name], size)
            feeds[name] = np.frombuffer(ctypes.string_at(self._addresses[name], size), kind).reshape(shapes[name])
        outputs = [node.name for node in self._engine.session.get_outputs()]
        for name, array in zip(outputs, self._engine.session.run(outputs, feeds), strict=True):
            assert array.shape == shapes[name]
            assert self._engine.fake.driver.inside(self._addresses[name], array.nbytes)
            ctypes.memmove(self._addresses[name], np.ascontiguousarray(array).ctypes.data, array.nbytes)
