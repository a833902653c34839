"""What did a build do, measure and decide, in a form that reports, tracking and `--json` can read?

Everything here is plain data: it holds no open file and needs no engine to be imported. Durations are seconds, latencies
nanoseconds, shares ratios 0..1.
"""

from typing import Any, Literal

import msgspec

from runtime.contract.artifact import Lineage, TensorSpec
from toolchain.recipe import Recipe

Verdict = Literal["chosen", "passed", "rejected"]


class StageRun(msgspec.Struct, frozen=True, kw_only=True):
    """One stage of this build. ran: False when its result came from the cache; why: the reason for either.

    key: full digest of all that decides the result; output: digest of the result's contents; seconds: of the run that made it.
    """

    name: str
    key: str
    output: str
    ran: bool
    why: str
    seconds: float


class MetricResult(msgspec.Struct, frozen=True, kw_only=True):
    """A quality figure with its 95 % interval over n examples of a split."""

    name: str
    goal: Literal["max", "min"]
    value: float
    low: float
    high: float
    n: int
    split: Literal["validation", "test"]


class ParityResult(msgspec.Struct, frozen=True, kw_only=True):
    """How far a variant's outputs lie from the float model's on validation data.

    agreement: share of examples with the same arg-max (1.0 where there are no classes); relative: error's root mean square
    over the reference's.
    """

    max_abs: float
    relative: float
    agreement: float
    ok: bool


class DropResult(msgspec.Struct, frozen=True, kw_only=True):
    """How much worse than the float model, in the deciding metric's unit, over the same examples of one split; < 0: better.

    low, high: 95 % bounds of a paired bootstrap, so that what both get wrong does not widen them.
    """

    value: float
    low: float
    high: float
    n: int


class LayerResult(msgspec.Struct, frozen=True, kw_only=True):
    """One operator of the graph as the engine runs it. ns: median of an inference; share: of all operators' time."""

    name: str
    operator: str
    ns: int
    share: float


class ProfileResult(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time and the memory of one variant go. layers: the slowest first; blame: why int8 does not pay, "" where it does.

    peak_bytes: of memory by the loaded model over a bare process, None where it was not measured; energy_uj: of one inference,
    by the machine's own counter, None where it has none.
    """

    layers: tuple[LayerResult, ...] = ()
    blame: str = ""
    peak_bytes: int | None = None
    energy_uj: int | None = None


class LatencyResult(msgspec.Struct, frozen=True, kw_only=True):
    """Latency of one variant, measured interleaved with the float baseline.

    ratio: median over blocks of baseline time / variant time (> 1: faster than the baseline), with its bootstrap interval.
    quantiles: ns at 0, 5, ..., 100 % of the calls; warm_up: calls made before the times settled, and not counted.
    """

    p50_ns: int
    p90_ns: int
    p99_ns: int
    mean_ns: int
    samples: int
    threads: int
    batch: int
    ratio: float
    ratio_low: float
    ratio_high: float
    quantiles: tuple[int, ...] = ()
    warm_up: int = 0


class VariantResult(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate for one target, and what became of it. path: the model file inside the build cache.

    form: which network it is ("base", "pruned50", "distilled"); scheme: how that was compressed for the engine.
    drop: against the base's float model, on validation data.
    """

    name: str
    form: str
    scheme: str
    engine: str
    precision: str
    size_bytes: int
    path: str
    metrics: tuple[MetricResult, ...]
    drop: DropResult
    parity: ParityResult
    latency: LatencyResult | None
    verdict: Verdict
    reason: str
    profile: ProfileResult | None = None


class FormResult(msgspec.Struct, frozen=True, kw_only=True):
    """One network that variants were made from, and whether any were: a distilled one that helped nothing is left out.

    metric, control: on validation data, of this form and of what it has to beat (None for the base). macs: of one inference.
    """

    name: str
    parameters: int
    macs: int
    size_bytes: int
    metric: float
    control: float | None
    kept: bool
    reason: str


class SliceResult(msgspec.Struct, frozen=True, kw_only=True):
    """The deciding metric on one part of the test split: a class, or a value of a column the data source names."""

    column: str
    value: str
    metric: MetricResult


class TrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """One trial of a search. values: per objective, in the order of the recipe; violated: the limits it missed.

    same_as: number of the trial with the same settings whose values these are; error: why a failed one failed.
    """

    number: int
    settings: dict[str, Any]
    state: Literal["complete", "pruned", "failed"]
    values: tuple[float, ...]
    violated: tuple[str, ...]
    seconds: float
    same_as: int | None = None
    error: str = ""


class TuningResult(msgspec.Struct, frozen=True, kw_only=True):
    """A finished search. best: number of the trial whose settings the build goes on with; reason: why that one."""

    sampler: str
    objectives: tuple[str, ...]
    trials: tuple[TrialResult, ...]
    best: int
    reason: str


class TargetResult(msgspec.Struct, frozen=True, kw_only=True):
    """The decision for one target. metrics and confusion come from the test split, through the chosen variant.

    measured: whether the build host is a device of this profile; where it is not, latencies are not the target's.
    confusion: rows are true classes, columns predictions; empty unless the model classifies. path: the artifact directory.
    drop: of the chosen variant against the float model, on test data; resolution: the smallest difference of the deciding
    metric that this test split could tell from none, 95 % of the time. lineage: as the manifest has it.
    """

    target: str
    profile: str
    measured: bool
    max_latency_ms: float | None
    chosen: str
    reason: str
    variants: tuple[VariantResult, ...]
    metrics: tuple[MetricResult, ...]
    confusion: tuple[tuple[int, ...], ...]
    manifest_sha256: str
    path: str
    drop: DropResult
    resolution: float
    slices: tuple[SliceResult, ...] = ()
    lineage: Lineage | None = None


class DataSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The data as loaded. fingerprint: digest of all three splits' contents; sizes: examples per split."""

    fingerprint: str
    sizes: dict[str, int]
    inputs: tuple[TensorSpec, ...]
    classes: tuple[str, ...] = ()
    class_counts: dict[str, tuple[int, ...]] = {}
    notes: tuple[str, ...] = ()


class EpochResult(msgspec.Struct, frozen=True, kw_only=True):
    """One pass over the training split. metric: the first metric of the recipe, on the validation split."""

    epoch: int
    train_loss: float
    validation_loss: float
    metric: float
    seconds: float


class TrainingResult(msgspec.Struct, frozen=True, kw_only=True):
    """How the weights came about. best_epoch: the one whose weights were kept.

    conditions: why the same inputs may not give the same bits elsewhere ("GPU", "2 threads"), empty where they do.
    """

    history: tuple[EpochResult, ...]
    best_epoch: int
    stopped_early: bool
    seconds: float
    device: str
    threads: int
    seed: int
    parameters: int
    resumed_epoch: int = 0
    conditions: tuple[str, ...] = ()


class BuildResult(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one build of one release. build: digest of all its artifacts' inputs; equal builds, equal digests.

    environment: versions of Python and the distributions used; host: what the machine is; out: OUT/model/version.
    training is None when the recipe starts from existing weights. changes: `key=value` of the command line over the recipe.
    """

    build: str
    recipe: Recipe
    recipe_path: str
    started_at: str
    seconds: float
    stages: tuple[StageRun, ...]
    data: DataSummary
    training: TrainingResult | None
    forms: tuple[FormResult, ...]
    tuning: TuningResult | None
    targets: tuple[TargetResult, ...]
    environment: dict[str, str]
    host: dict[str, str]
    out: str
    notes: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()

    @property
    def ran(self) -> bool:
        """Whether any stage ran; False when the whole build came from the cache."""
        return any(stage.ran for stage in self.stages)
