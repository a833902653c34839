"""How does TensorRT run a model here? On the first NVIDIA GPU, by an engine that is built once on the device itself and kept.

The model is ONNX, float32, cast to fp16 or with explicit QuantizeLinear; the engine is derived from it and never travels. Nothing
here falls back: whoever finds that it cannot load may take another artifact, such as onnxruntime's, with the reason given.
"""

import hashlib
import logging
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec
import numpy as np

from runtime.backends.base import Availability, LoadedModel, Tensors, parse_options
from runtime.backends.cuda import CudaError, Gpu, NoGpuError
from runtime.backends.datatypes import NUMPY_TYPES, engine_datatype
from runtime.backends.tensorrt_build import TensorRtOptions, build, latest_problem, logger
from runtime.backends.tensorrt_store import EngineKey, EngineStore
from runtime.contract.artifact import Datatype, OptionValue, TensorSpec
from runtime.errors import EngineMissingError, EngineOptionError, InferenceError, ModelLoadError

if TYPE_CHECKING:
    import tensorrt as trt

log = logging.getLogger(__name__)

MAJORS = (10, 11)
_DISTRIBUTIONS = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12")
_INSTALL = (
    'install the extra: pip install "edgewright[tensorrt]"; on a Jetson it is a part of JetPack, which a virtual environment '
    "sees with --system-site-packages"
)
_ENGINES = "engines"
_TYPES: dict[str, Datatype] = {
    "FLOAT": "FP32",
    "HALF": "FP16",
    "INT8": "INT8",
    "INT32": "INT32",
    "INT64": "INT64",
    "UINT8": "UINT8",
    "BOOL": "BOOL",
}


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """One of the things TensorRT needs. detail: what is there, or what is missing and what to do."""

    name: str
    ok: bool
    detail: str


class TensorRtBackend:
    name: ClassVar[str] = "tensorrt"

    def probe(self) -> Availability:
        """Asks the driver for a GPU too: without one the library is of no use. Some 100 ms where there is a driver."""
        try:
            found = _installed_version()
            _require_served(found)
            gpu = Gpu()
        except EngineMissingError as error:
            return Availability(ok=False, reason=str(error))
        except CudaError as error:
            return Availability(ok=False, version=found, reason=f"tensorrt {found} is installed, but {error}")
        log.debug("TensorRT %s on %s, compute capability %s", found, gpu.name, gpu.compute_capability)
        return Availability(ok=True, version=found)

    def load(self, model: Path, options: Mapping[str, OptionValue]) -> LoadedModel:
        """Minutes where an engine must be built first, else less than a second."""
        chosen = parse_options(TensorRtOptions, options, self.name)
        if chosen.best_batch > chosen.max_batch:
            raise EngineOptionError(f"tensorrt cannot honour its options: best_batch {chosen.best_batch} is over max_batch")
        _require_served(_installed_version())
        library = _import_version()
        try:
            digest = _sha256(model)
        except OSError as error:
            raise ModelLoadError(f"tensorrt cannot open {model.name}: {error.strerror}") from error
        try:
            gpu = Gpu()
            gpu.bind()
        except CudaError as error:
            raise EngineMissingError(f"tensorrt {library} is installed, but {error}") from error
        try:
            return TensorRtModel(gpu, _engine(gpu, model, digest, chosen, library), chosen.max_batch)
        except ModelLoadError:
            gpu.close()
            raise
        except Exception as error:
            gpu.close()
            raise ModelLoadError(f"tensorrt cannot open {model.name}: {error}") from error


class TensorRtModel:
    """An engine with one execution context and its device memory, hence no concurrent `infer`."""

    def __init__(self, gpu: Gpu, engine: "trt.ICudaEngine", max_batch: int) -> None:
        """Allocates for the largest batch. The GPU is bound, and `close` lets it go. Raises CudaError or ModelLoadError."""
        self._max_batch = max_batch
        self._engine = engine
        self._gpu: Gpu | None = gpu
        self.inputs, self.outputs = _specs(engine)
        self._context: trt.IExecutionContext = engine.create_execution_context()
        self._addresses: dict[str, int] = {}
        self._stream = gpu.stream()
        try:
            self._place(gpu)
        except (CudaError, ModelLoadError):
            self._release(gpu)
            raise

    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        if self._gpu is None:
            raise InferenceError("the model is closed")
        arrays = self._checked(inputs)
        try:
            return self._run(self._gpu, arrays)
        except InferenceError:
            raise
        except Exception as error:
            raise InferenceError(f"tensorrt failed: {error}") from error

    def close(self) -> None:
        if self._gpu is None:
            return
        gpu, self._gpu = self._gpu, None
        gpu.bind()
        self._release(gpu)
        del self._context, self._engine  # TensorRT frees its memory here, while the GPU is still bound
        gpu.close()

    def _run(self, gpu: Gpu, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        gpu.bind()
        for name, array in arrays.items():
            if not self._context.set_input_shape(name, array.shape):
                raise InferenceError(f"tensorrt refuses input {name!r} of shape {array.shape}: {latest_problem(logger())}")
            gpu.upload(self._addresses[name], array, self._stream)
        if not self._context.execute_async_v3(self._stream):
            raise InferenceError(f"tensorrt failed: {latest_problem(logger())}")
        results = {
            spec.name: np.empty(_sizes(self._context.get_tensor_shape(spec.name)), NUMPY_TYPES[spec.datatype])
            for spec in self.outputs
        }
        for name, array in results.items():
            gpu.download(array, self._addresses[name], self._stream)
        gpu.wait(self._stream)
        return results

    def _checked(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """The inputs as the device reads them: contiguous, all there, of their type, shape and one batch.

        TensorRT would read whatever lies at the address it was given.
        """
        if set(inputs) != {spec.name for spec in self.inputs}:
            raise InferenceError(
                f"the model takes {', '.join(spec.name for spec in self.inputs)}; given {', '.join(inputs) or 'none'}"
            )
        arrays, batches = {}, set()
        for spec in self.inputs:
            array = np.asarray(inputs[spec.name], order="C")
            if array.dtype != NUMPY_TYPES[spec.datatype]:
                raise InferenceError(f"input {spec.name!r} is {array.dtype}, not {NUMPY_TYPES[spec.datatype]}")
            if array.ndim != len(spec.shape) or any(
                size not in (-1, given) for size, given in zip(spec.shape, array.shape, strict=True)
            ):
                raise InferenceError(f"input {spec.name!r} has shape {array.shape}, the model takes {spec.shape}")
            if spec.shape[:1] == (-1,):
                batches.add(array.shape[0])
            arrays[spec.name] = array
        if len(batches) > 1 or not all(1 <= batch <= self._max_batch for batch in batches):
            raise InferenceError(
                f"batches of {', '.join(map(str, sorted(batches)))}: inputs share one of 1 to {self._max_batch} (engine option max_batch)"
            )
        return arrays

    def _place(self, gpu: Gpu) -> None:
        """Give each tensor the memory its largest batch takes; the context remembers the addresses."""
        for spec in self.inputs:
            largest = tuple(self._max_batch if size == -1 else size for size in spec.shape)
            if not self._context.set_input_shape(spec.name, largest):
                raise ModelLoadError(f"tensorrt refuses input {spec.name!r} of shape {largest}: {latest_problem(logger())}")
        for spec in (*self.inputs, *self.outputs):
            sizes = _sizes(self._context.get_tensor_shape(spec.name))
            if any(size < 0 for size in sizes):
                raise ModelLoadError(f"the size of output {spec.name!r} depends on the data, which is not served with tensorrt")
            address = gpu.allocate(int(np.prod(sizes, dtype=np.int64)) * NUMPY_TYPES[spec.datatype].itemsize)
            self._addresses[spec.name] = address
            if not self._context.set_tensor_address(spec.name, address):
                raise ModelLoadError(f"tensorrt refuses memory for {spec.name!r}: {latest_problem(logger())}")

    def _release(self, gpu: Gpu) -> None:
        for address in self._addresses.values():
            gpu.free(address)
        self._addresses.clear()
        gpu.end_stream(self._stream)


def pieces() -> tuple[Piece, Piece, Piece]:
    """Library, driver and GPU, each judged for itself, for people who put them together. Never raises."""
    try:
        found = _installed_version()
        _require_served(found)
        library = Piece(name="library", ok=True, detail=found)
    except EngineMissingError as error:
        library = Piece(name="library", ok=False, detail=str(error))
    try:
        gpu = Gpu()
    except NoGpuError as error:
        advice = "look at `nvidia-smi` and at CUDA_VISIBLE_DEVICES; a container needs --gpus all"
        return library, Piece(name="driver", ok=True, detail="loaded"), Piece(name="GPU", ok=False, detail=f"{error}; {advice}")
    except CudaError as error:
        advice = "install NVIDIA's driver (JetPack on a Jetson); a container needs the NVIDIA container toolkit and --gpus all"
        driver = Piece(name="driver", ok=False, detail=f"{error}; {advice}")
        return library, driver, Piece(name="GPU", ok=False, detail="not to be seen without a driver")
    seen = Piece(name="GPU", ok=True, detail=f"{gpu.name}, compute capability {gpu.compute_capability}")
    return library, Piece(name="driver", ok=True, detail=f"for CUDA up to {gpu.cuda}"), seen


def _engine(gpu: Gpu, model: Path, digest: str, options: TensorRtOptions, library: str) -> "trt.ICudaEngine":
    """The kept engine where it fits and loads, else a new one."""
    import tensorrt as trt

    decides = msgspec.json.encode(msgspec.structs.replace(options, threads=1, engines=""))
    key = EngineKey(
        model=digest,
        options=hashlib.sha256(decides).hexdigest(),
        tensorrt=library,
        gpu=gpu.name,
        compute_capability=gpu.compute_capability,
        cuda=gpu.cuda,
    )
    store = EngineStore(Path(options.engines) if options.engines else model.resolve().parent.parent / _ENGINES)
    runtime = trt.Runtime(logger())
    with store.alone():
        kept = store.get(key)
        if kept is not None:
            engine = _deserialize(runtime, kept)
            if engine is not None:
                return engine
            log.warning("TensorRT refuses the engine kept for %s (%s); building again", model.name, latest_problem(logger()))
            store.drop(key)
        started = time.monotonic()
        built = build(model, options, store.timings(key))
        log.info("built an engine of %s for %s in %.1f s", model.name, gpu.name, time.monotonic() - started)
        store.put(key, built.engine)
        store.put_timings(key, built.timings)
    engine = _deserialize(runtime, built.engine)
    if engine is None:
        raise ModelLoadError(f"tensorrt cannot load the engine it built of {model.name}: {latest_problem(logger())}")
    return engine


def _deserialize(runtime: "trt.Runtime", engine: bytes) -> "trt.ICudaEngine | None":
    """The stubs promise an engine; the library returns None for one it does not take."""
    return runtime.deserialize_cuda_engine(engine)


def _specs(engine: "trt.ICudaEngine") -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    import tensorrt as trt

    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        datatype = engine_datatype(_TYPES, engine.get_tensor_dtype(name).name, name)
        spec = TensorSpec(name=name, datatype=datatype, shape=_sizes(engine.get_tensor_shape(name)))
        (inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs).append(spec)
    return tuple(inputs), tuple(outputs)


def _sizes(dims: "trt.Dims") -> tuple[int, ...]:
    return tuple(dims[axis] for axis in range(len(dims)))


def _installed_version() -> str:
    """By the packages' metadata; imports the library only where it came without. Raises EngineMissingError."""
    spec = find_spec("tensorrt")
    if spec is None or spec.origin is None:  # a folder of type stubs looks like an empty package
        raise EngineMissingError(f"tensorrt is not installed; {_INSTALL}")
    for distribution in _DISTRIBUTIONS:
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    return _import_version()


def _import_version() -> str:
    try:
        import tensorrt as trt

        return str(trt.__version__)
    except (ImportError, OSError, AttributeError) as error:  # OSError: it loads its libraries itself
        raise EngineMissingError(f"tensorrt cannot be imported ({error}); {_INSTALL}") from error


def _require_served(found: str) -> None:
    major = found.partition(".")[0]
    if not major.isdecimal() or int(major) not in MAJORS:
        raise EngineMissingError(f"tensorrt {found} is not served, {' and '.join(map(str, MAJORS))} are; {_INSTALL}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
