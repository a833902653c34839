"""How fast are finished artifacts on this machine, beside one another?

The same interleaved measurement as in a build, through the engine and options the manifest names, fed with the artifact's
own golden inputs. The first artifact is what the others are compared with.
"""

from collections.abc import Sequence
from contextlib import ExitStack, closing

import msgspec
import numpy as np

from runtime.backends.base import get_backend
from runtime.contract.artifact import GOLDEN_NAME
from runtime.contract.errors import MalformedError
from toolchain.benchmark.latency import Call, run_blocks, summarize
from toolchain.package.read import Artifact
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.record import LatencyResult


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact's latency here; the ratio is to the first one measured."""

    name: str
    variant: str
    engine: str
    latency: LatencyResult


def bench(artifacts: Sequence[Artifact], threads: int | None, blocks: int, progress: Progress) -> list[Measured]:
    """Measure single inferences, in turns. threads: None takes each manifest's own. Raises EngineError or MalformedError."""
    names = [_name(artifact) for artifact in artifacts]
    with ExitStack() as stack:
        calls = {name: _caller(artifact, threads, stack) for name, artifact in zip(names, artifacts, strict=True)}
        times = run_blocks(calls, progress, blocks)
    results = []
    for name, artifact in zip(names, artifacts, strict=True):
        manifest = artifact.manifest.value
        used = threads or int(manifest.engine_options.get("threads", 1))
        latency = summarize(times[name], times[names[0]], used, _batch(artifact))
        results.append(Measured(name=name, variant=manifest.variant, engine=manifest.requires.engine, latency=latency))
    return results


def _caller(artifact: Artifact, threads: int | None, stack: ExitStack) -> Call:
    manifest = artifact.manifest.value
    options = manifest.engine_options | ({"threads": threads} if threads else {})
    model = stack.enter_context(closing(get_backend(manifest.requires.engine).load(artifact.path / manifest.model_file, options)))
    feed = _inputs(artifact)
    return lambda: model.infer(feed)


def _inputs(artifact: Artifact) -> dict[str, np.ndarray]:
    file = artifact.path / GOLDEN_NAME
    size = _batch(artifact)
    try:
        with np.load(file) as arrays:
            return {spec.name: np.ascontiguousarray(arrays[f"in.{spec.name}"][:size]) for spec in artifact.manifest.value.inputs}
    except (OSError, ValueError, KeyError) as error:
        raise MalformedError(f"{file} holds no inputs to measure with: {error}") from error


def _batch(artifact: Artifact) -> int:
    """One example, or as many as a fixed batch demands."""
    return max(1, artifact.manifest.value.inputs[0].shape[0])


def _name(artifact: Artifact) -> str:
    value = artifact.manifest.value
    return f"{value.model} {value.version} {artifact.target}"
