"""In what do two artifacts differ: quality, speed, size, form, tensors, recipe, lineage?

A difference is called better or worse only where the intervals of both figures carry it; the rest is said not to be resolvable.
"""

import math
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Literal

import msgspec

from runtime.contract.artifact import LatencyEvidence, Metric, TensorSpec
from toolchain.errors import UsageError
from toolchain.package import origins
from toolchain.package.origins import Origin, ReportedTarget, ReportedVariant
from toolchain.package.read import Artifact, Release

Section = Literal["model", "recipe", "lineage"]
Unit = Literal["metric", "ns", "ratio", "bytes"]
Verdict = Literal["better", "worse", "same", "not resolvable"]
Interval = tuple[float, float]
BENCH = "measure side by side with `toolchain bench`"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One field in both artifacts. change: the difference in words, "" where the values merely differ."""

    section: Section
    field: str
    before: str
    after: str
    change: str = ""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """A measured number in both artifacts, with its 95 % interval where it has one. note: why a verdict is as it is."""

    name: str
    unit: Unit
    before: float
    after: float
    before_interval: Interval | None = None
    after_interval: Interval | None = None
    verdict: Verdict
    note: str = ""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two artifacts of one target. warnings: what would surprise a program that calls the newer one in place of the older.

    differences: equal fields left out. notes: what could not be compared, and why.
    """

    target: str
    before: str
    after: str
    figures: tuple[Figure, ...]
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def is_same(self) -> bool:
        return not self.differences and all(figure.verdict == "same" for figure in self.figures)


def compare_releases(before: Release, after: Release) -> list[Comparison]:
    """Every target both releases have. Raises UsageError when they share none."""
    older = {artifact.target: artifact for artifact in before.artifacts}
    shared = [(older[artifact.target], artifact) for artifact in after.artifacts if artifact.target in older]
    if not shared:
        raise UsageError(f"{before.model} {before.version} and {after.model} {after.version} have no target in common")
    return [compare(*pair) for pair in shared]


def unmatched(before: Release, after: Release) -> list[str]:
    """Targets that only one of the releases has."""
    old, new = ({artifact.target for artifact in release.artifacts} for release in (before, after))
    found = []
    for release, only in ((before, old - new), (after, new - old)):
        if only:
            found.append(f"only {release.model} {release.version} has {', '.join(sorted(only))}")
    return found


def compare(before: Artifact, after: Artifact) -> Comparison:
    """What changed, equal fields left out."""
    (old, old_problem), (new, new_problem) = origins.origin_of(before), origins.origin_of(after)
    pair = (old, new) if old and new else None
    differences = [*_about(before, after), *_forms(before, after, pair), *_lineage(before, after), *_made_from(pair)]
    other_recipe = before.manifest.value.lineage.recipe != after.manifest.value.lineage.recipe
    problem = old_problem or new_problem
    return Comparison(
        target=after.target,
        before=_title(before),
        after=_title(after),
        figures=tuple(_figures(before, after, pair)),
        differences=tuple(each for each in differences if each.before != each.after),
        warnings=tuple(_warnings(before, after)),
        notes=(f"which keys of the recipe changed is not known: {problem}",) if problem and other_recipe else (),
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
    rows = (
        ("variant", old.variant, new.variant),
        ("engine", _engine(before), _engine(after)),
        ("CPU flags", ", ".join(old.requires.instruction_sets), ", ".join(new.requires.instruction_sets)),
        ("inputs", _tensors(old.inputs), _tensors(new.inputs)),
        ("outputs", _tensors(old.outputs), _tensors(new.outputs)),
        ("limits", _plain(old.limits), _plain(new.limits)),
        ("rollback floor", old.rollback_floor, new.rollback_floor),
    )
    yield from (Difference(section="model", field=field, before=was, after=now) for field, was, now in rows)


def _forms(before: Artifact, after: Artifact, pair: tuple[Origin, Origin] | None) -> Iterator[Difference]:
    """Which network and which scheme each variant is; manifests have only its name."""
    if pair is None:
        return
    old, new = (_chosen(origin, artifact) for origin, artifact in zip(pair, (before, after), strict=True))
    if old and new:
        yield Difference(section="model", field="form", before=old.form, after=new.form)
        yield Difference(section="model", field="scheme", before=old.scheme, after=new.scheme)


def _lineage(before: Artifact, after: Artifact) -> Iterator[Difference]:
    old, new = before.manifest.value.lineage, after.manifest.value.lineage
    for name in ("recipe", "data", "code", "lock"):
        was, now = getattr(old, name)[:12], getattr(new, name)[:12]
        yield Difference(section="lineage", field=name, before=was, after=now, change="other inputs")
    seeds = (", ".join(map(str, lineage.seeds)) for lineage in (old, new))
    yield Difference(section="lineage", field="seeds", before=next(seeds), after=next(seeds))


def _made_from(pair: tuple[Origin, Origin] | None) -> Iterator[Difference]:
    if pair is None:
        return
    for section, changes in (
        ("recipe", origins.recipe_changes(*pair)),
        ("lineage", origins.size_changes(*pair)),
        ("lineage", origins.version_changes(*pair)),
    ):
        yield from (Difference(section=section, field=what, before=was, after=now) for what, was, now in changes)  # type: ignore[arg-type]
    count, names = origins.changed_stages(*pair)
    yield Difference(
        section="lineage", field="stages", before="", after=f"{count} with another key" if count else "", change=names
    )


def _figures(before: Artifact, after: Artifact, pair: tuple[Origin, Origin] | None) -> Iterator[Figure]:
    newer = {(metric.name, metric.split): metric for metric in after.manifest.value.metrics}
    for metric in before.manifest.value.metrics:
        if (metric.name, metric.split) in newer:
            yield _metric(metric, newer[metric.name, metric.split])
    if pair:
        metrics = before.manifest.value.metrics
        yield from _drop(
            "rise" if metrics and metrics[0].goal == "min" else "drop",
            *(origin.target(artifact.manifest.sha256) for origin, artifact in zip(pair, (before, after), strict=True)),
        )
    old, new = chosen_latency(before), chosen_latency(after)
    if old and new:
        yield from _latencies(old, new, before.evidence.value.host.get("cpu") == after.evidence.value.host.get("cpu"))
    for name, was, now in (
        ("model file", _model_bytes(before), _model_bytes(after)),
        ("payload", payload_bytes(before), payload_bytes(after)),
    ):
        verdict: Verdict = "same" if was == now else "better" if now < was else "worse"
        yield Figure(name=name, unit="bytes", before=was, after=now, verdict=verdict)


def _metric(old: Metric, new: Metric) -> Figure:
    was, now = float(old.value), float(new.value)
    intervals = (_floats(old.interval), _floats(new.interval))
    return Figure(
        name=f"{old.split} {old.name}", unit="metric", before=was, after=now, before_interval=intervals[0],
        after_interval=intervals[1], verdict=judge((was, intervals[0]), (now, intervals[1]), is_more_better=old.goal == "max"),
    )  # fmt: skip


def _drop(name: str, old: ReportedTarget | None, new: ReportedTarget | None) -> Iterator[Figure]:
    """How much each lost against its own float model on test data. name: what the metric does when it gets worse."""
    if old is None or new is None or old.drop is None or new.drop is None:
        return
    was, now = (old.drop.value, (old.drop.low, old.drop.high)), (new.drop.value, (new.drop.low, new.drop.high))
    yield Figure(
        name=f"{name} against float, test", unit="metric", before=was[0], after=now[0], before_interval=was[1], after_interval=now[1],
        verdict=judge(was, now, is_more_better=False), note="each against its own float model",
    )  # fmt: skip


def _latencies(old: LatencyEvidence, new: LatencyEvidence, is_same_cpu: bool) -> Iterator[Figure]:
    """Times of two builds lie hours apart, so they prove nothing; the ratios to each one's own float model have intervals."""
    note = f"from two builds{'' if is_same_cpu else ' on different processors'}: {BENCH}"
    for name, was, now in (("p50", old.p50_ns, new.p50_ns), ("p90", old.p90_ns, new.p90_ns)):
        verdict: Verdict = "same" if was == now else "not resolvable"
        yield Figure(name=name, unit="ns", before=was, after=now, verdict=verdict, note="" if was == now else note)
    before, after = (float(old.ratio), _floats(old.ratio_interval)), (float(new.ratio), _floats(new.ratio_interval))
    yield Figure(
        name="speed against float", unit="ratio", before=before[0], after=after[0], before_interval=before[1],
        after_interval=after[1], verdict=judge(before, after, is_more_better=True), note="each against its own float model",
    )  # fmt: skip


def judge(before: tuple[float, Interval | None], after: tuple[float, Interval | None], *, is_more_better: bool) -> Verdict:
    """Whether two figures with 95 % intervals differ: by more than both intervals' halves towards each other, as independent."""
    (old, old_interval), (new, new_interval) = before, after
    if old == new and old_interval == new_interval:
        return "same"
    if old_interval is None or new_interval is None:
        return "not resolvable"
    rises = new > old
    reach = (old_interval[1] - old, new - new_interval[0]) if rises else (old - old_interval[0], new_interval[1] - new)
    if abs(new - old) <= math.hypot(*reach):
        return "not resolvable"
    return "better" if rises == is_more_better else "worse"


def _warnings(before: Artifact, after: Artifact) -> Iterator[str]:
    old, new = before.manifest.value, after.manifest.value
    if old.model != new.model:
        yield f"these are different models: {old.model} and {new.model}"
    for what, mine, theirs in (("input", old.inputs, new.inputs), ("output", old.outputs, new.outputs)):
        if _shapes(mine) != _shapes(theirs):
            yield f"the {what} tensors differ: programs that call the model must change with it"
        elif [spec.labels for spec in mine] != [spec.labels for spec in theirs]:
            yield f"the {what} labels differ: the same numbers mean something else"


def _shapes(specs: Iterable[TensorSpec]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(spec.name, spec.datatype, spec.shape) for spec in specs]


def _chosen(origin: Origin, artifact: Artifact) -> ReportedVariant | None:
    reported = origin.target(artifact.manifest.sha256)
    variants = reported.variants if reported else ()
    return next((each for each in variants if each.name == artifact.manifest.value.variant), None)


def _model_bytes(artifact: Artifact) -> int:
    entry = artifact.manifest.value.file(artifact.manifest.value.model_file)
    return entry.size_bytes if entry else 0


def _engine(artifact: Artifact) -> str:
    requires = artifact.manifest.value.requires
    return f"{requires.engine} >= {requires.engine_range.at_least}, < {requires.engine_range.below}"


def _tensors(specs: tuple[TensorSpec, ...]) -> str:
    return "; ".join(
        f"{spec.name} {spec.datatype} [{', '.join('n' if size < 0 else str(size) for size in spec.shape)}]" for spec in specs
    )


def _plain(value: msgspec.Struct) -> str:
    return ", ".join(f"{name} {item}" for name, item in msgspec.structs.asdict(value).items() if item is not None)


def _title(artifact: Artifact) -> str:
    return f"{artifact.manifest.value.model} {artifact.manifest.value.version} ({artifact.manifest.sha256[:12]})"


def _floats(interval: tuple[Decimal, Decimal] | None) -> Interval | None:
    return (float(interval[0]), float(interval[1])) if interval else None
