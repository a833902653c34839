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
from toolchain.benchmark.latency import Call, Opener, run_rounds, summarize
from toolchain.benchmark.machine import Watch
from toolchain.package.read import Artifact
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.record import LatencyResult


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact's latency here; the ratio is to the first one measured. conditions: what the machine did meanwhile."""

    name: str
    variant: str
    engine: str
    latency: LatencyResult
    conditions: dict[str, str]


def bench(artifacts: Sequence[Artifact], threads: int | None, blocks: int, progress: Progress) -> list[Measured]:
    """Measure single inferences, in turns. threads: None takes each manifest's own. Raises EngineError or MalformedError."""
    names = [_name(artifact) for artifact in artifacts]
    openers = {name: _opener(artifact, threads) for name, artifact in zip(names, artifacts, strict=True)}
    with Watch() as watch:
        times = run_rounds(openers, progress, blocks=blocks, threads=max(_threads(artifact, threads) for artifact in artifacts))
    results = []
    for name, artifact in zip(names, artifacts, strict=True):
        manifest = artifact.manifest.value
        latency = summarize(times[name], times[names[0]], _threads(artifact, threads), _batch(artifact))
        results.append(
            Measured(name=name, variant=manifest.variant, engine=manifest.requires.engine, latency=latency, conditions=watch.seen)
        )
    return results


def _opener(artifact: Artifact, threads: int | None) -> Opener:
    manifest = artifact.manifest.value
    options = manifest.engine_options | {"threads": _threads(artifact, threads)}
    feed = _inputs(artifact)

    def opened(stack: ExitStack) -> Call:
        model = stack.enter_context(
            closing(get_backend(manifest.requires.engine).load(artifact.path / manifest.model_file, options))
        )
        return lambda: model.infer(feed)

    return opened


def _threads(artifact: Artifact, threads: int | None) -> int:
    return threads or int(artifact.manifest.value.engine_options.get("threads", 1))


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
