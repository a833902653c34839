"""How fast are finished artifacts, here or on another machine, beside one another or under a scenario's load?

The same measurement as in a build, through the engine and options the manifest names, fed with the artifact's own golden inputs. The
first artifact is what the others are compared with.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from toolchain.benchmark.latency import summarize
from toolchain.package.read import Artifact
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.record import LatencyResult


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to put artifacts under. scenario: one of `scenarios.SCENARIOS`, or None for the comparison of latencies.

    threads: None takes each manifest's own; bound_ns: of the server scenario, None takes the manifest's limit.
    """

    threads: int | None = None
    blocks: int = 90
    scenario: str | None = None
    duration_s: float = 10.0
    bound_ns: int | None = None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Another machine, as ssh knows it, and the Python there that has edgewright."""

    host: str
    python: str = "python3"


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact's latency; the ratio is to the first one measured. conditions: what the machine did meanwhile."""

    name: str
    variant: str
    engine: str
    latency: LatencyResult
    conditions: dict[str, str]


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """One artifact under a scenario. figures: by the names of `scenarios`; "metric" says which of them counts."""

    name: str
    variant: str
    engine: str
    scenario: str
    figures: dict[str, Any]
    conditions: dict[str, str]


def bench(artifacts: Sequence[Artifact], load: Load, place: Place | None, progress: Progress) -> list[Measured]:
    """Measure single inferences, in turns. Raises EngineError, MalformedError, MissingError or StageError."""
    results = []
    for artifact, answer in zip(artifacts, _answers(artifacts, load, place, progress), strict=True):
        manifest = artifact.manifest.value
        results.append(
            Measured(
                name=name_of(artifact), variant=manifest.variant, engine=manifest.requires.engine,
                latency=summarize(answer["figures"], answer["threads"], answer["batch"]), conditions=answer["conditions"],
            )
        )  # fmt: skip
    return results


def stress(artifacts: Sequence[Artifact], load: Load, place: Place | None, progress: Progress) -> list[Loaded]:
    """Put each artifact under the load's scenario, one after the other. Raises as `bench`."""
    results = []
    for artifact, answer in zip(artifacts, _answers(artifacts, load, place, progress), strict=True):
        manifest = artifact.manifest.value
        results.append(
            Loaded(
                name=name_of(artifact), variant=manifest.variant, engine=manifest.requires.engine, scenario=load.scenario or "",
                figures=answer["figures"], conditions=answer["conditions"],
            )
        )  # fmt: skip
    return results


def name_of(artifact: Artifact) -> str:
    value = artifact.manifest.value
    return f"{value.model} {value.version} {artifact.target}"


def _answers(artifacts: Sequence[Artifact], load: Load, place: Place | None, progress: Progress) -> list[dict[str, Any]]:
    if place is not None:
        from toolchain.benchmark.remote import answer_from

        return answer_from(place.host, place.python, artifacts, msgspec.to_builtins(load))
    from toolchain.benchmark.device import answer

    folders = [str(artifact.path) for artifact in artifacts]
    return answer({**msgspec.to_builtins(load), "artifacts": folders}, progress.tick)
