"""How does an ONNX file become a TensorRT engine for this GPU? The same way on TensorRT 10 and 11.

Networks are strongly typed: each layer computes in the types the model declares, so fp16 and int8 are the model's matter (cast
weights, explicit QuantizeLinear), never a flag's. TensorRT 11 knows nothing else; on 10 it is a flag. TF32, which is neither, is
off unless the options ask. Source: "Migrating from TensorRT 10.x to 11.x", NVIDIA.
"""

import functools
import logging
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from runtime.errors import ModelLoadError

if TYPE_CHECKING:
    import tensorrt as trt

log = logging.getLogger(__name__)

FLAGGED_MAJOR = 10
"""Where STRONGLY_TYPED is a flag to set; from 11 on there is nothing else."""
_MIB = 1 << 20
_KEPT_PROBLEMS = 4


class TensorRtOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Precision is not an option: this engine computes in the types the model declares.

    threads: of a build; inference runs on the GPU. max_batch, best_batch: largest batch of a model whose batch is free, and the
    one its kernels are tuned for. tf32: let float32 products round their inputs to 10 bits. effort: 0 to 5, longer builds for
    faster engines. workspace_mb: GPU memory a layer may use, 0 for all. engines: folder they are kept in; empty: "engines"
    beside the model's own folder, never in it, since a verified artifact holds nothing but what its manifest lists.
    """

    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    max_batch: Annotated[int, Meta(ge=1, le=4096)] = 64
    best_batch: Annotated[int, Meta(ge=1, le=4096)] = 1
    tf32: bool = False
    effort: Annotated[int, Meta(ge=0, le=5)] = 3
    workspace_mb: Annotated[int, Meta(ge=0, le=1 << 20)] = 0
    engines: str = ""


class Built(msgspec.Struct, frozen=True):
    """engine: serialized; timings: what the build measured, for the next one."""

    engine: bytes
    timings: bytes


@functools.cache
def logger() -> "trt.ILogger":
    """The one logger of this process, as TensorRT wants it: it keeps a reference to the first it is given."""
    import tensorrt as trt

    levels = {
        trt.ILogger.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.ERROR: logging.ERROR,
        trt.ILogger.WARNING: logging.WARNING,
        trt.ILogger.INFO: logging.DEBUG,
        trt.ILogger.VERBOSE: logging.DEBUG,
    }

    class Logger(trt.ILogger):
        def __init__(self) -> None:
            super().__init__()
            self.problems: deque[str] = deque(maxlen=_KEPT_PROBLEMS)

        def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                self.problems.append(msg)
            log.log(level, "TensorRT: %s", msg)

    return Logger()


def latest_problem(found: object) -> str:
    """Why TensorRT said no, in its own words; a logger that keeps none has none."""
    problems: deque[str] = getattr(found, "problems", deque())
    return "; ".join(problems) or "it gives no reason"


def build(model: Path, options: TensorRtOptions, timings: bytes) -> Built:
    """Parse, optimise and serialize; minutes on a small device. timings: of earlier builds, b"" for none.

    Raises ModelLoadError where NVIDIA's parser or builder refuses the model; `toolchain` predicts the former.
    """
    import tensorrt as trt

    builder = trt.Builder(logger())
    builder.max_threads = options.threads
    network = builder.create_network(_network_flags())
    parser = trt.OnnxParser(network, logger())
    if not parser.parse_from_file(str(model)):
        reasons = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
        raise ModelLoadError(f"tensorrt cannot open {model.name}: {'; '.join(reasons) or latest_problem(logger())}")
    config = builder.create_builder_config()
    if not options.tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = options.effort
    if options.workspace_mb:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mb * _MIB)
    _free_batch(builder, network, config, options, model.name)
    _take_timings(config, timings)
    plan = _serialize(builder, network, config)
    if plan is None:
        raise ModelLoadError(f"tensorrt cannot build an engine of {model.name}: {latest_problem(logger())}")
    return Built(bytes(plan), bytes(config.get_timing_cache().serialize()))


def _network_flags() -> int:
    import tensorrt as trt

    major = int(trt.__version__.partition(".")[0])
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if major == FLAGGED_MAJOR else 0


def _free_batch(
    builder: "trt.Builder",
    network: "trt.INetworkDefinition",
    config: "trt.IBuilderConfig",
    options: TensorRtOptions,
    name: str,
) -> None:
    """Say how far a free batch may go. Other free sizes are refused: no range of them would be right for every model."""
    import tensorrt as trt

    profile = builder.create_optimization_profile()
    is_free = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        shape = [tensor.shape[axis] for axis in range(len(tensor.shape))]
        if -1 in shape[1:]:
            raise ModelLoadError(
                f"tensorrt cannot open {name}: input {tensor.name!r} has shape {shape}, and only the first size may be free; "
                "export it with the others fixed"
            )
        if shape[:1] == [-1]:
            is_free = True
            sizes = (1, options.best_batch, options.max_batch)
            profile.set_shape(tensor.name, *(trt.Dims([size, *shape[1:]]) for size in sizes))
    if is_free:
        config.add_optimization_profile(profile)


def _take_timings(config: "trt.IBuilderConfig", timings: bytes) -> None:
    """Timings TensorRT does not accept are dropped: they save time and decide nothing."""
    cache = _timing_cache(config, timings)
    if cache is None or not config.set_timing_cache(cache, False):
        log.info("TensorRT does not accept the timings kept of earlier builds; measuring anew")
        config.set_timing_cache(config.create_timing_cache(b""), False)


def _timing_cache(config: "trt.IBuilderConfig", content: bytes) -> "trt.ITimingCache | None":
    """The stubs promise a cache; for damaged content the library returns None."""
    return config.create_timing_cache(content)


def _serialize(
    builder: "trt.Builder", network: "trt.INetworkDefinition", config: "trt.IBuilderConfig"
) -> "trt.IHostMemory | None":
    """The stubs promise an engine; where a build fails the library returns None."""
    return builder.build_serialized_network(network, config)


def _describe(error: "trt.ParserError") -> str:
    where = f"node {error.node_name()!r} ({error.node_operator()}): " if error.node_operator() else ""
    return f"{where}{error.desc()}"
