"""Releases: the list, and one release with its artifacts, figures, evidence and whereabouts."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from fleet.dashboard import charts
from fleet.dashboard.reading.releases import ArtifactFacts, ReleaseListFacts, ReleasePageFacts
from fleet.dashboard.views import wording
from fleet.dashboard.views.rollouts import RolloutCard, rollout_card
from fleet.dashboard.views.status import Badge
from runtime.contract.artifact import Evidence, LatencyEvidence, Manifest, Metric, TensorSpec, VariantEvidence, version_key


@dataclass(frozen=True)
class ReleaseRow:
    model: str
    version: str
    href: str
    targets: tuple[str, ...]
    metric: str
    size: str
    serving: str
    published: str
    published_at: str
    by: str


@dataclass(frozen=True)
class MetricLine:
    name: str
    value: str
    note: str


@dataclass(frozen=True)
class VariantRow:
    """One candidate of the build. ratio: speed against the float baseline with its interval, on the shared axis."""

    name: str
    engine: str
    size: str
    metric: str
    parity: str
    p50: str
    p99: str
    ratio: str
    place: charts.Interval | None
    verdict: Badge
    reason: str


@dataclass(frozen=True)
class ArtifactCard:
    target: str
    sha256: str
    short: str
    engine: str
    variant: str
    size: str
    latency: str
    latency_note: str
    metrics: tuple[MetricLine, ...]
    requires: tuple[tuple[str, str], ...]
    contents: tuple[tuple[str, str], ...]
    lineage: tuple[tuple[str, str], ...]
    conditions: tuple[tuple[str, str], ...]
    variants: tuple[VariantRow, ...]
    notes: tuple[str, ...]
    measured: Badge
    devices: int


@dataclass(frozen=True)
class ReleasePage:
    model: str
    version: str
    lead: str
    licence: str
    metrics: tuple[MetricLine, ...]
    artifacts: tuple[ArtifactCard, ...]
    devices: tuple[tuple[str, str], ...]
    more_devices: int
    serving: str
    rollouts: tuple[RolloutCard, ...]
    others: tuple[str, ...]


def release_rows(facts: ReleaseListFacts, now: float) -> tuple[ReleaseRow, ...]:
    rows = []
    for release in sorted(facts.releases, key=lambda one: version_key(one.version), reverse=True):
        artifacts = facts.artifacts[release.id]
        metric = next((metric_line(metric) for one in artifacts for metric in one.manifest.metrics), None)
        rows.append(
            ReleaseRow(
                model=release.model,
                version=release.version,
                href=f"/releases/{release.model}/{release.version}",
                targets=tuple(one.artifact.target for one in artifacts),
                metric=f"{metric.name} {metric.value}" if metric else wording.MISSING,
                size=" · ".join(wording.size(one.artifact.size_bytes) for one in artifacts) or wording.MISSING,
                serving=wording.count(facts.serving[(release.model, release.version)]),
                published=wording.ago(release.published_ms / 1000, now),
                published_at=wording.clock(release.published_ms / 1000),
                by=release.published_by,
            )
        )
    return tuple(sorted(rows, key=lambda row: row.model))


def release_page(facts: ReleasePageFacts, now: float) -> ReleasePage:
    release = facts.release
    first = facts.artifacts[0].manifest if facts.artifacts else None
    published = release.published_ms / 1000
    return ReleasePage(
        model=release.model,
        version=release.version,
        lead=f"published by {release.published_by} {wording.ago(published, now)}, {wording.clock(published)}",
        licence=first.licence if first else "",
        metrics=tuple(metric_line(metric) for metric in first.metrics) if first else (),
        artifacts=tuple(_artifact(one) for one in facts.artifacts),
        devices=tuple((row.device, row.target or "") for row in facts.devices),
        more_devices=facts.serving - len(facts.devices),
        serving=wording.plural(facts.serving, "device"),
        rollouts=tuple(rollout_card(one, now) for one in facts.rollouts),
        others=tuple(sorted(facts.others, key=version_key, reverse=True)),
    )


def metric_line(metric: Metric) -> MetricLine:
    """A figure about quality; shares are written as such, with their interval and what they rest on."""
    interval = f"{_figure(metric.interval[0])} to {_figure(metric.interval[1])}, " if metric.interval else ""
    return MetricLine(metric.name, _figure(metric.value), f"{interval}{wording.count(metric.n)} {metric.split} examples")


def _figure(value: Decimal) -> str:
    return f"{float(value):.4g}" if abs(value) >= 1 else f"{float(value):.4f}"


def _artifact(facts: ArtifactFacts) -> ArtifactCard:
    row, manifest, evidence = facts.artifact, facts.manifest, facts.evidence
    chosen = next((one for one in evidence.variants if one.verdict == "chosen"), None) if evidence else None
    measured = bool(evidence and evidence.measured)
    latency = chosen.latency if chosen and measured else None
    return ArtifactCard(
        target=row.target,
        sha256=row.sha256,
        short=wording.short(row.sha256, 12),
        engine=row.engine,
        variant=manifest.variant,
        size=wording.size(row.size_bytes),
        latency=wording.latency(latency.p50_ns) if latency else "unmeasured",
        latency_note=_latency_note(latency),
        metrics=tuple(metric_line(metric) for metric in manifest.metrics),
        requires=_requires(manifest),
        contents=_contents(manifest),
        lineage=_lineage(manifest),
        conditions=_conditions(evidence),
        variants=_variants(evidence.variants) if evidence else (),
        notes=evidence.notes if evidence else (),
        measured=Badge("Measured on this profile", "ok")
        if measured
        else Badge("Unmeasured", "warn", "no device of this profile at the build"),
        devices=facts.devices,
    )


def _latency_note(latency: LatencyEvidence | None) -> str:
    if latency is None:
        return "no figure for this profile"
    threads = wording.plural(latency.threads, "thread")
    return (
        f"p50; p99 {wording.latency(latency.p99_ns)}, {threads}, batch {latency.batch}, {wording.count(latency.samples)} samples"
    )


def _requires(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    needs = manifest.requires
    limit = manifest.limits.max_latency_ns
    return (
        ("Architecture", needs.arch),
        ("Engine", f"{needs.engine} ≥ {needs.engine_range.at_least}, < {needs.engine_range.below}"),
        ("Instruction sets", ", ".join(needs.instruction_sets) or "none beyond the profile"),
        ("Memory", wording.size(needs.memory_bytes or None)),
        ("Latency limit", wording.latency(limit)),
        ("Rollback floor", manifest.rollback_floor),
        ("Raw samples", "allowed" if manifest.consent.raw_samples else "never leave the device"),
    )


def _contents(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    tensors = [
        *((f"in {spec.name}", _tensor(spec)) for spec in manifest.inputs),
        *((f"out {spec.name}", _tensor(spec)) for spec in manifest.outputs),
    ]
    return (*tensors, *((entry.name, wording.size(entry.size_bytes)) for entry in manifest.files))


def _tensor(spec: TensorSpec) -> str:
    shape = " × ".join("n" if size == -1 else str(size) for size in spec.shape)
    return f"{spec.datatype} {shape} {spec.layout}".rstrip()


def _lineage(manifest: Manifest) -> tuple[tuple[str, str], ...]:
    lineage = manifest.lineage
    digests = (("Recipe", lineage.recipe), ("Data", lineage.data), ("Code", lineage.code), ("Lock", lineage.lock))
    seeds = ", ".join(str(seed) for seed in lineage.seeds) or wording.MISSING
    conditions = (("Bits depend on", ", ".join(lineage.conditions)),) if lineage.conditions else ()
    return (*((name, wording.short(digest, 16)) for name, digest in digests), ("Seeds", seeds), *conditions)


def _conditions(evidence: Evidence | None) -> tuple[tuple[str, str], ...]:
    if evidence is None:
        return ()
    host = tuple((name.replace("_", " "), value) for name, value in sorted(evidence.host.items()))
    tracking = tuple((f"tracking {name}", value) for name, value in sorted(evidence.tracking.items()))
    return (("built", evidence.started_at), ("took", wording.duration(float(evidence.seconds))), *host, *tracking)


def _variants(variants: Sequence[VariantEvidence]) -> tuple[VariantRow, ...]:
    """Candidates on one axis of speed-up against the float baseline; right of the line is faster."""
    timed = [one for one in variants if one.latency]
    placed = charts.intervals([_speed(one.latency) for one in timed if one.latency])
    places = {one.name: place for one, place in zip(timed, placed, strict=True)}
    return tuple(_variant(one, places.get(one.name)) for one in variants)


def _speed(latency: LatencyEvidence) -> tuple[float, float, float]:
    low, high = latency.ratio_interval
    return float(low), float(latency.ratio), float(high)


_VERDICTS = {"chosen": Badge("Chosen", "ok"), "passed": Badge("Passed", "idle"), "rejected": Badge("Rejected", "bad")}


def _variant(one: VariantEvidence, place: charts.Interval | None) -> VariantRow:
    latency = one.latency
    return VariantRow(
        name=one.name,
        engine=one.engine,
        size=wording.size(one.size_bytes),
        metric=wording.MISSING if one.metric is None else _figure(one.metric),
        parity=wording.MISSING if one.parity is None else f"{float(one.parity):.2g}",
        p50=wording.latency(latency.p50_ns) if latency else wording.MISSING,
        p99=wording.latency(latency.p99_ns) if latency else wording.MISSING,
        ratio=f"{float(latency.ratio):.2f} ×" if latency else wording.MISSING,
        place=place,
        verdict=_VERDICTS[one.verdict],
        reason=one.reason,
    )
