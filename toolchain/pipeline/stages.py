"""Which stage makes which product from which? One constructor each; their arguments are exactly what they may depend on."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runtime.contract.artifact import EVIDENCE_NAME, Evidence
from runtime.contract.canonical import EVIDENCE_LIMIT, read_json
from runtime.contract.errors import ContractError, MalformedError
from toolchain.benchmark.metrics import Metric
from toolchain.compress.base import Form, Ground, Network, Scheme
from toolchain.errors import NetworkError, StageError, UsageError
from toolchain.files import files_below, sha256_file
from toolchain.pipeline.choose import Candidate, Rules, choose
from toolchain.pipeline.products import (
    Attempt,
    CheckedModel,
    Choice,
    FloatModel,
    HeldOutData,
    MeasuredModels,
    Package,
    ProfiledModels,
    SteeringData,
    TestedModel,
    TrainedModel,
    Variant,
)
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.record import LatencyResult
from toolchain.pipeline.stage import Stage, Stored, digest_of
from toolchain.targets import Host
from toolchain.train.network import NetworkSource

if TYPE_CHECKING:
    from toolchain.package.pack import Contents, Proof

    Pack = Callable[[Contents, Proof, Path], Package]

ENGINE_TOOLS = {"onnxruntime": ("onnxruntime",), "openvino": ("openvino",), "tensorrt": ("tensorrt",)}


def to_onnx(source: NetworkSource, trained: Stored[TrainedModel], data: Stored[SteeringData]) -> Stage[FloatModel]:
    def make(work: Path, progress: Progress) -> FloatModel:
        import numpy as np

        from toolchain.compress.cost import cost_of
        from toolchain.convert.onnx import export
        from toolchain.train.network import with_weights

        network = with_weights(source, trained.folder / trained.value.weights)
        references = [np.load(trained.folder / name, mmap_mode="r") for name in trained.value.reference]
        variant = export(network, references, data, work)
        for name in trained.value.reference:
            shutil.copyfile(trained.folder / name, work / name)
        parameters = sum(weight.numel() for weight in network.parameters())
        macs = cost_of(work / variant.model_file, variant.inputs).macs
        return FloatModel(variant=variant, reference=trained.value.reference, parameters=parameters, macs=macs)

    return Stage(
        name="convert to onnx", revision=3, kind=FloatModel, make=make, config=source.config,
        inputs={"trained model": trained.digest, "code of the network": source.code, "validation data": data.digest},
        tools=("torch", "onnx", "onnxscript", *source.tools), summary=lambda model: _size(model.variant),
    )  # fmt: skip


def from_onnx(path: Path, data: Stored[SteeringData]) -> Stage[FloatModel]:
    """Instead of training: an existing file is the float model, its own answers are the reference."""

    def make(work: Path, progress: Progress) -> FloatModel:
        import numpy as np

        from toolchain.benchmark.run import outputs_of
        from toolchain.compress.cost import cost_of
        from toolchain.convert.start import take
        from toolchain.data.arrays import read_split

        variant = take(path, data, work)
        arrays, _ = read_split(data.folder, data.value.validation)
        # The graph as it was written, before any engine rewrites it.
        answers = outputs_of(Stored(variant, work, ""), arrays, {"graph_optimization": "off"})
        names = tuple(f"reference.{index}.npy" for index in range(len(answers)))
        for name, array in zip(names, answers, strict=True):
            np.save(work / name, array)
        cost = cost_of(work / variant.model_file, variant.inputs)
        return FloatModel(variant=variant, reference=names, parameters=cost.parameters, macs=cost.macs)

    return Stage(
        name="take onnx", revision=3, kind=FloatModel, make=make, tools=("onnx", "onnxruntime"),
        inputs={path.name: sha256_file(path), "validation data": data.digest}, summary=lambda model: _size(model.variant),
    )  # fmt: skip


def form(wanted: Form, network: Network, base: Stored[FloatModel], data: Stored[SteeringData]) -> Stage[FloatModel]:
    """Another network made from the trained one."""

    def make(work: Path, progress: Progress) -> FloatModel:
        return wanted.make(network, base, data, work, progress)

    def summary(model: FloatModel) -> str:
        return f"rejected: {model.rejected}" if model.rejected else f"{model.parameters} parameters, {_size(model.variant)}"

    training = {name: getattr(network.training, name) for name in network.training.__struct_fields__}
    return Stage(
        name=f"make {wanted.name}", revision=wanted.revision, kind=FloatModel, make=make,
        config={**wanted.config(network), "training": training, "metric": network.metric.identity, **network.source.config},
        tools=("torch", "onnx", "onnxscript", *wanted.tools, *network.source.tools), summary=summary,
        inputs={
            "trained model": network.trained.digest, "code of the network": network.source.code, "float model": base.digest,
            "training and validation data": data.digest,
        },
    )  # fmt: skip


def compress(scheme: Scheme, ground: Ground, name: str) -> Stage[Attempt]:
    """One variant for one engine. That a model cannot be compressed so is a result too, and is not tried again in every build."""

    def make(work: Path, progress: Progress) -> Attempt:
        try:
            return Attempt(variant=scheme.make(ground, name, work, progress))
        except (StageError, NetworkError) as error:
            for path in files_below(work):
                path.unlink()
            return Attempt(reason=str(error))

    def summary(attempt: Attempt) -> str:
        return _size(attempt.variant) if attempt.variant else f"left out: {attempt.reason}"

    inputs = {"float model": ground.model.digest}
    config, tools = scheme.config(ground), scheme.tools
    if scheme.needs_data:
        inputs["calibration data"] = ground.data.digest
    if scheme.needs_network and ground.network is not None:
        network = ground.network
        inputs |= {"trained model": network.trained.digest, "code of the network": network.source.code}
        config = {**config, **network.source.config}
        tools = (*tools, *network.source.tools)
    return Stage(
        name=f"make {name}", revision=scheme.revision, kind=Attempt, make=make, config=config, inputs=inputs, tools=tools,
        summary=summary,
    )  # fmt: skip


def check(
    variant: Stored[Variant],
    form: Stored[FloatModel],
    base: Stored[FloatModel],
    data: Stored[SteeringData],
    metrics: Sequence[Metric],
) -> Stage[CheckedModel]:
    def make(work: Path, progress: Progress) -> CheckedModel:
        from toolchain.benchmark.quality import check as check_quality

        return check_quality(variant, form, base, data, metrics)

    def summary(checked: CheckedModel) -> str:
        first = checked.metrics[0]
        return f"validation {first.name} {first.value:.4f}, relative error {checked.parity.relative:.1e}"

    return Stage(
        name=f"check {variant.value.name}", revision=3, kind=CheckedModel, make=make,
        config={"metrics": [metric.identity for metric in metrics]}, tools=("numpy", *ENGINE_TOOLS[variant.value.engine]),
        inputs={
            "variant": variant.digest, "its float model": form.digest, "float model": base.digest, "validation data": data.digest,
        },
        summary=summary,
    )  # fmt: skip


def measure(
    target: str, variants: Sequence[Stored[Variant]], data: Stored[SteeringData], *, baseline: str, threads: int, host: Host
) -> Stage[MeasuredModels]:
    def make(work: Path, progress: Progress) -> MeasuredModels:
        from toolchain.benchmark.latency import measure as measure_latency
        from toolchain.data.arrays import read_split

        arrays, _ = read_split(data.folder, data.value.validation)
        return measure_latency(variants, baseline, arrays, threads, progress)

    def summary(measured: MeasuredModels) -> str:
        return ", ".join(f"{name} {item.p50_ns / 1000:.0f} us" for name, item in measured.latencies.items())

    engines = sorted({variant.value.engine for variant in variants})
    return Stage(
        name=f"measure {target}", revision=2, kind=MeasuredModels, make=make, target=target,
        config={"threads": threads, "cpu": host.cpu, "cpu flags": digest_of(sorted(host.flags)), "baseline": baseline},
        tools=tuple(tool for engine in engines for tool in ENGINE_TOOLS[engine]),
        inputs={variant.value.name: variant.digest for variant in variants}, summary=summary,
    )  # fmt: skip


def profile(
    target: str,
    variants: Sequence[Stored[Variant]],
    data: Stored[SteeringData],
    measured: MeasuredModels,
    *,
    threads: int,
    host: Host,
) -> Stage[ProfiledModels]:
    """What explains the choice; it decides nothing."""

    def make(work: Path, progress: Progress) -> ProfiledModels:
        from toolchain.benchmark.profile import profile as profile_variants
        from toolchain.data.arrays import read_split

        arrays, _ = read_split(data.folder, data.value.validation)
        return profile_variants(variants, arrays, threads, progress, latencies=measured.latencies)

    engines = sorted({variant.value.engine for variant in variants})
    return Stage(
        name=f"profile {target}", revision=1, kind=ProfiledModels, make=make, target=target,
        config={"threads": threads, "cpu": host.cpu, "cpu flags": digest_of(sorted(host.flags))},
        tools=tuple(tool for engine in engines for tool in ENGINE_TOOLS[engine]),
        inputs={variant.value.name: variant.digest for variant in variants},
    )  # fmt: skip


def from_evidence(target: str, path: Path, names: Sequence[str]) -> Stage[MeasuredModels]:
    """Instead of measuring: the latencies an earlier build's evidence holds. Raises UsageError when it does not cover them."""
    try:
        evidence = read_json(path.read_bytes(), Evidence, EVIDENCE_LIMIT).value
    except OSError as error:
        raise UsageError(f"--evidence {path}: {error.strerror}; expected an {EVIDENCE_NAME}") from error
    except ContractError as error:
        raise MalformedError(f"--evidence {path}: {error}") from error
    latencies = {item.name: item.latency for item in evidence.variants if item.latency is not None}
    for name in names:
        if name not in latencies:
            raise UsageError(f"--evidence {path}: holds no latency of {name}; it has {', '.join(latencies) or 'none'}")

    def make(work: Path, progress: Progress) -> MeasuredModels:
        results = {
            name: LatencyResult(
                p50_ns=item.p50_ns, p90_ns=item.p90_ns, p99_ns=item.p99_ns, mean_ns=item.mean_ns, samples=item.samples,
                threads=item.threads, batch=item.batch, ratio=float(item.ratio), ratio_low=float(item.ratio_interval[0]),
                ratio_high=float(item.ratio_interval[1]),
            )
            for name, item in latencies.items()
            if name in names
        }  # fmt: skip
        return MeasuredModels(latencies=results, conditions={"from": "given evidence", **evidence.host})

    return Stage(
        name=f"measure {target}", revision=2, kind=MeasuredModels, make=make, target=target,
        inputs={"given evidence": sha256_file(path)}, config={"variants": list(names)},
    )  # fmt: skip


def choose_variant(candidates: Sequence[Candidate], baseline: str, rules: Rules, *, measured: bool) -> Stage[Choice]:
    def make(work: Path, progress: Progress) -> Choice:
        return choose(candidates, baseline, rules, measured=measured)

    config: dict[str, Any] = msgspec.to_builtins(rules)
    judged = {item.name: digest_of(msgspec.to_builtins(item)) for item in candidates}
    return Stage(
        name=f"choose {rules.target}", revision=3, kind=Choice, make=make, target=rules.target, inputs=judged,
        config={**config, "order": [item.name for item in candidates], "baseline": baseline, "measured": measured},
        summary=lambda choice: f"{choice.chosen}: {choice.reason}".removeprefix(": "),
    )  # fmt: skip


def test(  # noqa: PLR0917 - exactly what the figures may depend on
    target: str,
    variant: Stored[Variant],
    base: Stored[Variant],
    data: Stored[HeldOutData],
    classes: tuple[str, ...],
    metrics: Sequence[Metric],
) -> Stage[TestedModel]:
    def make(work: Path, progress: Progress) -> TestedModel:
        from toolchain.benchmark.quality import test as test_quality

        return test_quality(variant, base, data, classes, metrics, progress)

    def summary(tested: TestedModel) -> str:
        first = tested.metrics[0]
        return f"test {first.name} {first.value:.4f} ({first.low:.4f} to {first.high:.4f}, n = {first.n})"

    return Stage(
        name=f"test {target}", revision=3, kind=TestedModel, make=make, target=target,
        config={"metrics": [metric.identity for metric in metrics], "classes": classes},
        tools=("numpy", *ENGINE_TOOLS[variant.value.engine], *ENGINE_TOOLS[base.value.engine]),
        inputs={"chosen variant": variant.digest, "float model": base.digest, "held-out test data": data.digest}, summary=summary,
    )  # fmt: skip


def pack(contents: "Contents", proof: "Proof", inputs: Mapping[str, str], make: "Pack") -> Stage[Package]:
    """The last stage. inputs: digests of everything in contents and proof but the recipe, the target and its profile."""
    recipe, target = contents.recipe, contents.target

    def run(work: Path, progress: Progress) -> Package:
        return make(contents, proof, work)

    return Stage(
        name=f"pack {target.profile}", revision=1, kind=Package, make=run, target=target.profile, inputs=inputs,
        tools=("numpy", *ENGINE_TOOLS[contents.variant.value.engine]),
        config={
            "recipe": recipe.sha256,
            "profile": msgspec.to_builtins(contents.profile),
            "max_latency_ms": target.max_latency_ms,
            "engine": contents.engine_version,
            **({"fallback": contents.fallback_version} if contents.fallback_version else {}),
        },
        summary=lambda package: f"manifest {package.manifest_sha256[:12]}",
    )  # fmt: skip


def _size(variant: Variant) -> str:
    return f"{variant.name}, {variant.size_bytes / 1024:.0f} KiB"
