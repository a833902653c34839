"""In what do two artifacts differ: quality, size, latency, tensors, lineage?"""

from collections.abc import Iterator
from decimal import Decimal

import msgspec

from runtime.contract.artifact import LatencyEvidence, TensorSpec
from toolchain.errors import UsageError
from toolchain.package.read import Artifact, Release


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One field in both artifacts. change: the difference in words, "" where the values merely differ."""

    field: str
    before: str
    after: str
    change: str = ""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two artifacts of one target. warnings: what would surprise a program that calls the newer one in place of the older."""

    target: str
    before: str
    after: str
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]


def compare_releases(before: Release, after: Release) -> list[Comparison]:
    """Every target both releases have. Raises UsageError when they share none."""
    older = {artifact.target: artifact for artifact in before.artifacts}
    shared = [(older[artifact.target], artifact) for artifact in after.artifacts if artifact.target in older]
    if not shared:
        raise UsageError(f"{before.model} {before.version} and {after.model} {after.version} have no target in common")
    return [compare(*pair) for pair in shared]


def compare(before: Artifact, after: Artifact) -> Comparison:
    """What changed, equal fields left out."""
    found = (*_about(before, after), *_figures(before, after), *_lineage(before, after))
    return Comparison(
        target=after.target,
        before=_title(before),
        after=_title(after),
        differences=tuple(each for each in found if each.before != each.after),
        warnings=tuple(_warnings(before, after)),
    )


def payload_bytes(artifact: Artifact) -> int:
    return sum(entry.size_bytes for entry in artifact.manifest.value.files)


def chosen_latency(artifact: Artifact) -> LatencyEvidence | None:
    """What the build measured for this artifact's variant, if it measured on a device of the target's profile."""
    evidence = artifact.evidence.value
    if not evidence.measured:
        return None
    return next((variant.latency for variant in evidence.variants if variant.verdict == "chosen"), None)


def _about(before: Artifact, after: Artifact) -> Iterator[Difference]:
    old, new = before.manifest.value, after.manifest.value
    yield Difference(field="variant", before=old.variant, after=new.variant)
    yield Difference(field="engine", before=_engine(before), after=_engine(after))
    yield Difference(
        field="CPU flags", before=", ".join(old.requires.instruction_sets), after=", ".join(new.requires.instruction_sets)
    )
    yield Difference(field="inputs", before=_tensors(old.inputs), after=_tensors(new.inputs))
    yield Difference(field="outputs", before=_tensors(old.outputs), after=_tensors(new.outputs))
    yield Difference(field="rollback floor", before=old.rollback_floor, after=new.rollback_floor)


def _figures(before: Artifact, after: Artifact) -> Iterator[Difference]:
    old_size, new_size = payload_bytes(before), payload_bytes(after)
    yield Difference(field="payload bytes", before=str(old_size), after=str(new_size), change=_percent(old_size, new_size))
    newer = {(metric.name, metric.split): metric for metric in after.manifest.value.metrics}
    for metric in before.manifest.value.metrics:
        other = newer.get((metric.name, metric.split))
        if other is None:
            continue
        gain = (other.value - metric.value) * (1 if metric.goal == "max" else -1)
        word = "better" if gain > 0 else "worse"
        change = f"{abs(gain)} {word}" + ("" if _apart(metric.interval, other.interval) else ", within the intervals")
        yield Difference(field=f"{metric.split} {metric.name}", before=str(metric.value), after=str(other.value), change=change)
    old, new = chosen_latency(before), chosen_latency(after)
    if old and new:
        change = f"{_percent(old.p50_ns, new.p50_ns)}, from two builds: measure side by side with `toolchain bench`"
        yield Difference(field="p50 ns", before=str(old.p50_ns), after=str(new.p50_ns), change=change)


def _lineage(before: Artifact, after: Artifact) -> Iterator[Difference]:
    old, new = before.manifest.value.lineage, after.manifest.value.lineage
    for name in ("recipe", "data", "code", "lock"):
        yield Difference(field=name, before=getattr(old, name)[:12], after=getattr(new, name)[:12], change="other inputs")
    yield Difference(field="seeds", before=", ".join(map(str, old.seeds)), after=", ".join(map(str, new.seeds)))


def _warnings(before: Artifact, after: Artifact) -> Iterator[str]:
    old, new = before.manifest.value, after.manifest.value
    if old.model != new.model:
        yield f"these are different models: {old.model} and {new.model}"
    for what, mine, theirs in (("input", old.inputs, new.inputs), ("output", old.outputs, new.outputs)):
        if [(spec.name, spec.datatype, spec.shape) for spec in mine] != [
            (spec.name, spec.datatype, spec.shape) for spec in theirs
        ]:
            yield f"the {what} tensors differ: programs that call the model must change with it"
        elif [spec.labels for spec in mine] != [spec.labels for spec in theirs]:
            yield f"the {what} labels differ: the same numbers mean something else"


def _engine(artifact: Artifact) -> str:
    requires = artifact.manifest.value.requires
    return f"{requires.engine} >= {requires.engine_range.at_least}, < {requires.engine_range.below}"


def _tensors(specs: tuple[TensorSpec, ...]) -> str:
    return "; ".join(
        f"{spec.name} {spec.datatype} [{', '.join('n' if size < 0 else str(size) for size in spec.shape)}]" for spec in specs
    )


def _title(artifact: Artifact) -> str:
    return f"{artifact.manifest.value.model} {artifact.manifest.value.version} ({artifact.manifest.sha256[:12]})"


def _percent(before: int, after: int) -> str:
    return f"{100 * (after - before) / before:+.1f} %" if before else ""


def _apart(one: tuple[Decimal, Decimal] | None, other: tuple[Decimal, Decimal] | None) -> bool:
    return one is not None and other is not None and (one[1] < other[0] or other[1] < one[0])
