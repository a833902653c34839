"""What is in an artifact, what does it demand of a device, and what does it promise?

An artifact is one release (model, version) compiled for one target: a directory whose manifest names every other file
by digest. The manifest holds only what the inputs of the build determine; what was measured lives in the evidence, so
that the same inputs give the same manifest bytes.
"""

from decimal import Decimal
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from runtime.contract.canonical import MANIFEST_LIMIT, Received, read_json
from runtime.contract.errors import MalformedError
from runtime.contract.version import MANIFEST_SCHEMA, require_readable

MANIFEST_NAME = "manifest.json"
EVIDENCE_NAME = "evidence.json"
GOLDEN_NAME = "golden.npz"
REFERENCE_NAME = "reference.bin"
CARD_NAME = "card.md"

Name = Annotated[str, Meta(pattern=r"\A[a-z0-9-]{1,40}\Z")]
"""A model, device, fleet or target id; the same grammar everywhere, safe in a path and in an MQTT topic."""
ReleaseVersion = Annotated[str, Meta(pattern=r"\A[0-9]+\.[0-9]+\.[0-9]+(-[0-9a-z.]{1,20})?\Z")]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
"""Any unsigned integer here; it fits the signed 64 bits of a database column, so none can be sent that cannot be stored."""
FileName = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,63}\Z")]

Datatype = Literal[
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "BF16", "FP32", "FP64", "BYTES",
]  # fmt: skip
"""The datatypes of the Open Inference Protocol v2."""

OutputKind = Literal["classification", "regression", "anomaly", "detection", "tensor"]
OptionValue = str | int | bool


class ArtifactRef(msgspec.Struct, frozen=True, kw_only=True):
    """Names one artifact among all that were ever signed; `sha256` is that of its manifest."""

    version: ReleaseVersion
    target: Name
    sha256: Sha256


class FileEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One payload file: stored as the blob `sha256`, at most `size_bytes` long."""

    name: FileName
    sha256: Sha256
    size_bytes: Count


class TensorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One input or output. A dimension of -1 is free; the first is the batch unless `layout` says otherwise.

    layout: letters such as "NCHW", or "" where the axes have no names. range: inclusive bounds of valid values.
    labels: what the entries of the last axis mean (features of a table, channels of an image, classes of a classifier).
    """

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    datatype: Datatype
    shape: tuple[Annotated[int, Meta(ge=-1)], ...]
    layout: str = ""
    range: tuple[Decimal, Decimal] | None = None
    labels: tuple[str, ...] = ()


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One pre- or post-processing step by the name `runtime.processing` knows it by."""

    name: str
    options: dict[str, OptionValue] = {}


class Processing(msgspec.Struct, frozen=True, kw_only=True):
    pre: tuple[Step, ...] = ()
    post: tuple[Step, ...] = ()


class EngineRange(msgspec.Struct, frozen=True, kw_only=True):
    """Engine versions the artifact was made for: at_least <= version < below, compared as dotted integers."""

    at_least: str
    below: str


class Requirements(msgspec.Struct, frozen=True, kw_only=True):
    """What a device must offer. instruction_sets name CPU flags as Linux spells them, such as "avx512_vnni"."""

    profile: Name
    arch: str
    engine: str
    engine_range: EngineRange
    instruction_sets: tuple[str, ...] = ()
    memory_bytes: Count = 0


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """Another engine that may run the same model file where the first cannot be had; tried in the manifest's order."""

    engine: str
    engine_range: EngineRange
    engine_options: dict[str, OptionValue] = {}


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One figure about quality. interval: 95 % confidence bounds; n: how many examples it rests on."""

    name: str
    goal: Literal["max", "min"]
    value: Decimal
    split: Literal["validation", "test"]
    n: Count
    interval: tuple[Decimal, Decimal] | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the recipe demanded and the build held; the device's self-test checks latency against it."""

    max_latency_ns: Count | None = None
    max_drop: Decimal | None = None


class Consent(msgspec.Struct, frozen=True, kw_only=True):
    """What a device may do with the data it sees, beyond serving it. Off unless the recipe asks."""

    personal_data: bool = False
    raw_samples: bool = False


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of everything the payload was made from.

    conditions: what else its bits depend on ("GPU NVIDIA H200", "2 threads"); empty where the inputs alone decide them.
    """

    recipe: Sha256
    data: Sha256
    code: Sha256
    lock: Sha256
    seeds: tuple[int, ...] = ()
    conditions: tuple[str, ...] = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The signed description of one artifact. `model_file` is the entry of `files` the engine opens."""

    schema: int = MANIFEST_SCHEMA
    model: Name
    version: ReleaseVersion
    requires: Requirements
    variant: str
    engine_options: dict[str, OptionValue] = {}
    fallbacks: tuple[Fallback, ...] = ()
    inputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1)]
    outputs: Annotated[tuple[TensorSpec, ...], Meta(min_length=1)]
    processing: Processing = Processing()
    output_kind: OutputKind
    limits: Limits = Limits()
    metrics: tuple[Metric, ...] = ()
    files: Annotated[tuple[FileEntry, ...], Meta(min_length=1)]
    model_file: FileName
    rollback_floor: ReleaseVersion = "0.0.0"
    consent: Consent = Consent()
    lineage: Lineage
    licence: str = ""

    def file(self, name: str) -> FileEntry | None:
        return next((entry for entry in self.files if entry.name == name), None)


class LatencyEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """Latency of one variant beside the float baseline, measured interleaved in one run.

    ratio: median of per-block time ratios, baseline / variant (> 1 is faster), with its 95 % bootstrap interval.
    """

    p50_ns: Count
    p90_ns: Count
    p99_ns: Count
    mean_ns: Count
    samples: Count
    threads: Count
    batch: Count
    ratio: Decimal
    ratio_interval: tuple[Decimal, Decimal]


class VariantEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one candidate. verdict: "chosen", "passed" or "rejected", with the reason for people."""

    name: str
    engine: str
    size_bytes: Count
    metric: Decimal | None = None
    parity: Decimal | None = None
    latency: LatencyEvidence | None = None
    verdict: Literal["chosen", "passed", "rejected"]
    reason: str


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured or happened while the artifact was made; signed beside the manifest it names.

    host: what the figures were measured on (cpu, cores, engine versions, machine load); `measured` is False when the
    build host does not match the target's profile, and then no latency figure here may be taken for the target's.
    """

    schema: int = MANIFEST_SCHEMA
    manifest_sha256: Sha256
    measured: bool
    started_at: str
    seconds: Decimal
    host: dict[str, str]
    tracking: dict[str, str] = {}
    variants: tuple[VariantEvidence, ...] = ()
    notes: tuple[str, ...] = ()


def read_manifest(raw: bytes) -> Received[Manifest]:
    """Decode and check a manifest. Raises MalformedError, TooLargeError or UnsupportedVersionError."""
    received = read_json(raw, Manifest, MANIFEST_LIMIT)
    manifest = received.value
    require_readable("manifest", manifest.schema)
    names = [entry.name for entry in manifest.files]
    if len(set(names)) != len(names):
        raise MalformedError("manifest: two files share a name")
    if manifest.file(manifest.model_file) is None:
        raise MalformedError(f"manifest: model_file {manifest.model_file!r} is not among its files")
    reserved = {MANIFEST_NAME, EVIDENCE_NAME} & set(names)
    if reserved:
        raise MalformedError(f"manifest: {reserved.pop()} cannot be a payload file")
    return received


def target_path(model: str, version: str, target: str, document: str = MANIFEST_NAME) -> str:
    """The TUF target path of an artifact's signed document."""
    return f"{model}/{version}/{target}/{document}"


def version_key(version: str) -> tuple[tuple[int, ...], bool, str]:
    """Sort key of a release version: numbers first, a pre-release before the release it precedes."""
    numbers, _, suffix = version.partition("-")
    return tuple(int(part) for part in numbers.split(".")), suffix == "", suffix
