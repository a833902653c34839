"""What does each stage hand to the next? The types show how far along the way to a package something is.

DataSplits -> TrainedModel -> FloatModel (one a form) -> Variant (one a scheme) -> CheckedModel -> MeasuredModels -> Choice
-> TestedModel -> Package

File names are relative to the folder of the `Stored` that carries the product.
"""

from typing import Literal

import msgspec

from runtime.contract.artifact import OptionValue, OutputKind, TensorSpec
from toolchain.pipeline.record import (
    DropResult,
    LatencyResult,
    MetricResult,
    ParityResult,
    ProfileResult,
    SliceResult,
    TrainingResult,
)

Precision = Literal["float32", "bfloat16", "float16", "int8", "int4"]

BASE = "base"
"""The form that is the recipe's own network, trained or as it came."""
FLOAT = "float32"
"""The scheme that leaves a form as it is."""


class Split(msgspec.Struct, frozen=True, kw_only=True):
    """Examples on disk. inputs: one .npy per input, in the order of the tensors; targets: one .npy."""

    rows: int
    inputs: tuple[str, ...]
    targets: str


class SteeringData(msgspec.Struct, frozen=True, kw_only=True):
    """All that may influence a decision. digest: of these arrays and what is said about them, of nothing else."""

    train: Split
    validation: Split
    inputs: tuple[TensorSpec, ...]
    classes: tuple[str, ...]
    output_kind: OutputKind
    digest: str


class SliceColumn(msgspec.Struct, frozen=True, kw_only=True):
    """A column the data source names to look at parts of the test split. file: .npy of text, one value an example."""

    name: str
    file: str


class HeldOutData(msgspec.Struct, frozen=True, kw_only=True):
    """The test split: read once, by the stage that states the final figure, after every choice is made."""

    test: Split
    digest: str
    slices: tuple[SliceColumn, ...] = ()


class DataSplits(msgspec.Struct, frozen=True, kw_only=True):
    """The loaded data. Stages get one of its two halves, never both, so they cannot mix them."""

    steering: SteeringData
    held_out: HeldOutData
    fingerprint: str
    class_counts: dict[str, tuple[int, ...]]
    notes: tuple[str, ...]


class TrainedModel(msgspec.Struct, frozen=True, kw_only=True):
    """Weights that fit the recipe's network, and what the network says about the validation split.

    reference: .npy per output, float32[validation rows, ...]: the float model every variant is compared with.
    """

    weights: str
    reference: tuple[str, ...]
    training: TrainingResult | None
    seed: int


class Variant(msgspec.Struct, frozen=True, kw_only=True):
    """One model an engine can open: a form of the network, compressed by a scheme.

    name: "ENGINE-SCHEME", with "FORM-" before it unless the form is the base. precision: of most of its arithmetic.
    files: every file of it, model_file among them. inputs, outputs: as the engine sees them, described as the data is.
    """

    name: str
    form: str = BASE
    scheme: str
    engine: str
    precision: Precision
    model_file: str
    files: tuple[str, ...]
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    engine_options: dict[str, OptionValue] = {}


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a scheme: a variant, or None and the reason where the engine or the scheme cannot take this model."""

    variant: Variant | None = None
    reason: str = ""


class FloatModel(msgspec.Struct, frozen=True, kw_only=True):
    """One form of the network as float ONNX, with the outputs it must reproduce on the validation split.

    parameters, macs: of one example, 0 where they are not known. training: how its weights were found or recovered.
    rejected: why no variant shall be made of it, "" where they shall; control: the deciding metric it had to beat.
    """

    form: str = BASE
    variant: Variant
    reference: tuple[str, ...]
    parameters: int = 0
    macs: int = 0
    training: TrainingResult | None = None
    control: float | None = None
    rejected: str = ""


class CheckedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A variant's quality on the validation split, through the engine that will serve it.

    drop: against the base's float model; parity: with the float model of its own form.
    """

    metrics: tuple[MetricResult, ...]
    drop: DropResult
    parity: ParityResult


class MeasuredModels(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of all variants of one target, from one interleaved run. conditions: what to know about the run."""

    latencies: dict[str, LatencyResult]
    conditions: dict[str, str]


class ProfiledModels(msgspec.Struct, frozen=True, kw_only=True):
    """Where time and memory of the variants of one target go, by variant."""

    profiles: dict[str, ProfileResult]


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about one variant, and why."""

    name: str
    verdict: Literal["chosen", "passed", "rejected"]
    reason: str


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which variant a target gets; where none passed, `chosen` is "" and `nearest` the one that came closest."""

    chosen: str
    reason: str
    judgements: tuple[Judgement, ...]
    nearest: str = ""


class TestedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The chosen variant's figures on the held-out split. confusion: rows are true classes, columns predictions."""

    metrics: tuple[MetricResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    drop: DropResult
    resolution: float
    slices: tuple[SliceResult, ...] = ()


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A finished artifact directory, unsigned."""

    files: tuple[str, ...]
    manifest_sha256: str
