"""What does each stage hand to the next? The types show how far along the way to a package something is.

DataSplits -> TrainedModel -> Variant (converted or compressed) -> CheckedModel -> MeasuredModels -> Choice -> Package

File names are relative to the folder of the `Stored` that carries the product.
"""

from typing import Literal

import msgspec

from runtime.contract.artifact import OptionValue, OutputKind, TensorSpec
from toolchain.pipeline.record import LatencyResult, MetricResult, ParityResult, TrainingResult

Precision = Literal["float32", "int8"]


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


class HeldOutData(msgspec.Struct, frozen=True, kw_only=True):
    """The test split: read once, by the stage that states the final figure, after every choice is made."""

    test: Split
    digest: str


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
    """One form of the model an engine can open.

    files: every file of it, model_file among them. inputs, outputs: as the engine sees them, described as the data is.
    """

    name: str
    engine: str
    precision: Precision
    model_file: str
    files: tuple[str, ...]
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    engine_options: dict[str, OptionValue] = {}


class FloatModel(msgspec.Struct, frozen=True, kw_only=True):
    """The float ONNX every other variant is made from, with the outputs it must reproduce on the validation split."""

    variant: Variant
    reference: tuple[str, ...]


class CheckedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A variant's quality on the validation split, through the engine that will serve it."""

    metrics: tuple[MetricResult, ...]
    drop: float
    parity: ParityResult


class MeasuredModels(msgspec.Struct, frozen=True, kw_only=True):
    """Latencies of all variants of one target, from one interleaved run. conditions: what to know about the run."""

    latencies: dict[str, LatencyResult]
    conditions: dict[str, str]


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided about one variant, and why."""

    name: str
    verdict: Literal["chosen", "passed", "rejected"]
    reason: str


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which variant a target gets."""

    chosen: str
    reason: str
    judgements: tuple[Judgement, ...]


class TestedModel(msgspec.Struct, frozen=True, kw_only=True):
    """The chosen variant's figures on the held-out split. confusion: rows are true classes, columns predictions."""

    metrics: tuple[MetricResult, ...]
    confusion: tuple[tuple[int, ...], ...]


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """A finished artifact directory, unsigned."""

    files: tuple[str, ...]
    manifest_sha256: str
