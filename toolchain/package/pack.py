"""How does a chosen variant become an artifact directory?

The manifest holds only what the inputs determine; what was measured lies in evidence.json beside it. Nothing is signed here.
"""

import datetime
import shutil
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

import msgspec

from runtime.contract.artifact import (
    CARD_NAME,
    EVIDENCE_NAME,
    GOLDEN_NAME,
    MANIFEST_NAME,
    REFERENCE_NAME,
    EngineRange,
    Evidence,
    Fallback,
    FileEntry,
    LatencyEvidence,
    Limits,
    Lineage,
    Manifest,
    Metric,
    OptionValue,
    Requirements,
    VariantEvidence,
)
from runtime.contract.canonical import EVIDENCE_LIMIT, MANIFEST_LIMIT, sha256_hex, write_json
from toolchain.errors import StageError
from toolchain.files import files_below, sha256_file
from toolchain.pipeline.choose import NS_PER_MS
from toolchain.pipeline.products import Choice, DataSplits, FloatModel, Package, TestedModel, Variant
from toolchain.pipeline.record import LatencyResult, MetricResult, VariantResult
from toolchain.pipeline.stage import Stored
from toolchain.recipe import Recipe, TargetSection, processing_of
from toolchain.targets import Profile

_LOADED_COPIES = 3
"""A model in memory is about its file as read, its weights, and the engine's re-ordered copy of them."""


FALLBACK_ENGINE = "onnxruntime"
"""Reads the very file that TensorRT builds its engine from."""


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one artifact is packed from. fallback_version: of the engine that may stand in, "" for none."""

    recipe: Recipe
    target: TargetSection
    profile: Profile
    splits: Stored[DataSplits]
    model: Stored[FloatModel]
    variant: Stored[Variant]
    tested: TestedModel
    choice: Choice
    lineage: Lineage
    engine_version: str
    fallback_version: str = ""


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured or happened while the artifact was made."""

    measured: bool
    variants: Sequence[VariantResult]
    host: dict[str, str]
    notes: tuple[str, ...]
    build: str
    seconds: float


def pack(contents: Contents, proof: Proof, work: Path) -> Package:
    """Fill an empty folder with the artifact. Raises StageError when manifest or evidence would be too large to be read."""
    from toolchain.package.card import write_card
    from toolchain.package.golden import write_golden
    from toolchain.package.reference import write_reference

    recipe, variant, splits = contents.recipe, contents.variant, contents.splits
    steering = splits.part(splits.value.steering, splits.value.steering.digest)
    for name in variant.value.files:
        shutil.copyfile(variant.folder / name, work / name)
    write_golden(work / GOLDEN_NAME, variant, steering, personal=recipe.consent.personal_data)
    write_reference(work / REFERENCE_NAME, contents.model, steering, recipe.model.output_kind, processing_of(recipe))
    draft = _manifest(contents, ())
    card = write_card(draft, recipe.model.description, splits.value, contents.tested.metrics, contents.choice)
    (work / CARD_NAME).write_text(card, encoding="utf-8")
    entries = tuple(_entry(path) for path in files_below(work))
    manifest = _write(work / MANIFEST_NAME, msgspec.structs.replace(draft, files=entries), MANIFEST_LIMIT)
    _write(work / EVIDENCE_NAME, _evidence(sha256_hex(manifest), proof), EVIDENCE_LIMIT)
    names = tuple(path.name for path in files_below(work))
    return Package(files=names, manifest_sha256=sha256_hex(manifest))


def decimal(value: float) -> Decimal:
    """A figure with six places: documents hold no floats, and one number has one spelling."""
    return Decimal(f"{value:.6f}")


def _manifest(contents: Contents, files: tuple[FileEntry, ...]) -> Manifest:
    recipe, variant, profile = contents.recipe, contents.variant.value, contents.profile
    limit_ms = contents.target.max_latency_ms
    return Manifest(
        model=recipe.model.name,
        version=recipe.model.version,
        requires=Requirements(
            profile=contents.target.profile,
            arch=profile.arch,
            engine=variant.engine,
            engine_range=engine_range(contents.engine_version),
            instruction_sets=profile.required_flags,
            memory_bytes=_LOADED_COPIES * variant.size_bytes,
        ),
        variant=variant.name,
        engine_options={**variant.engine_options, "threads": profile.threads},
        fallbacks=fallbacks(contents.fallback_version, profile.threads),
        inputs=variant.inputs,
        outputs=variant.outputs,
        processing=processing_of(recipe),
        output_kind=recipe.model.output_kind,
        limits=Limits(
            max_latency_ns=None if limit_ms is None else round(limit_ms * NS_PER_MS),
            max_drop=decimal(recipe.metrics[0].max_drop),
        ),
        metrics=tuple(_metric(result) for result in contents.tested.metrics),
        files=files,
        model_file=variant.model_file,
        rollback_floor=recipe.model.rollback_floor,
        consent=recipe.consent,
        lineage=contents.lineage,
        licence=recipe.model.licence,
    )


def may_fall_back(variant: Variant, profile: Profile, target: TargetSection) -> bool:
    """Whether a device may run this variant in ONNX Runtime where TensorRT is not to be had: the target allows both engines."""
    allowed = FALLBACK_ENGINE in (target.engines or profile.engines) and FALLBACK_ENGINE in profile.engines
    return variant.engine == "tensorrt" and variant.model_file.endswith(".onnx") and allowed


def fallbacks(version: str, threads: int) -> tuple[Fallback, ...]:
    """What the manifest names behind its first engine. version: of the engine that may stand in, "" for none."""
    if not version:
        return ()
    options: dict[str, OptionValue] = {"threads": threads}
    return (Fallback(engine=FALLBACK_ENGINE, engine_range=engine_range(version), engine_options=options),)


def engine_range(version: str) -> EngineRange:
    """Versions of the engine this artifact may run on: from the one that checked it up to the next major one."""
    major, minor = ([*version.split("."), "0"])[:2]
    return EngineRange(at_least=f"{major}.{minor}", below=f"{int(major) + 1}.0")


def _metric(result: MetricResult) -> Metric:
    return Metric(
        name=result.name, goal=result.goal, value=decimal(result.value), split=result.split, n=result.n,
        interval=(decimal(result.low), decimal(result.high)),
    )  # fmt: skip


def _evidence(manifest_sha256: str, proof: Proof) -> Evidence:
    return Evidence(
        manifest_sha256=manifest_sha256,
        measured=proof.measured,
        started_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        seconds=decimal(proof.seconds),
        host=proof.host,
        tracking={"build": proof.build},
        variants=tuple(_variant(result) for result in proof.variants),
        notes=proof.notes,
    )


def _variant(result: VariantResult) -> VariantEvidence:
    return VariantEvidence(
        name=result.name, engine=result.engine, size_bytes=result.size_bytes, metric=decimal(result.metrics[0].value),
        parity=decimal(result.parity.relative), latency=None if result.latency is None else _latency(result.latency),
        verdict=result.verdict, reason=result.reason,
    )  # fmt: skip


def _latency(result: LatencyResult) -> LatencyEvidence:
    return LatencyEvidence(
        p50_ns=result.p50_ns, p90_ns=result.p90_ns, p99_ns=result.p99_ns, mean_ns=result.mean_ns, samples=result.samples,
        threads=result.threads, batch=result.batch, ratio=decimal(result.ratio),
        ratio_interval=(decimal(result.ratio_low), decimal(result.ratio_high)),
    )  # fmt: skip


def _entry(path: Path) -> FileEntry:
    return FileEntry(name=path.name, sha256=sha256_file(path), size_bytes=path.stat().st_size)


def _write(path: Path, document: msgspec.Struct, limit: int) -> bytes:
    raw = write_json(document)
    if len(raw) > limit:
        raise StageError(f"{path.name} would have {len(raw)} bytes, the limit is {limit}; shorten labels or notes in the recipe")
    path.write_bytes(raw)
    return raw
