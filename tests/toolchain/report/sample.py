"""A build result as a real digits build gives it, small changes aside: what report and tracking are tried on."""

import msgspec

from runtime.contract.artifact import TensorSpec
from toolchain.pipeline.record import (
    BuildResult,
    DataSummary,
    EpochResult,
    LatencyResult,
    MetricResult,
    ParityResult,
    StageRun,
    TargetResult,
    TrainingResult,
    VariantResult,
)
from toolchain.recipe import DataSection, MetricSection, ModelSection, Recipe, TargetSection, TrainSection


def metric(value: float, split: str = "validation", n: int = 359) -> MetricResult:
    spread = 1.96 * (value * (1 - value) / n) ** 0.5
    low, high = max(value - spread, 0.0), min(value + spread, 1.0)
    return MetricResult(name="accuracy", goal="max", value=value, low=low, high=high, n=n, split=split)


def latency(p50_us: float, ratio: float) -> LatencyResult:
    return LatencyResult(
        p50_ns=int(p50_us * 1e3),
        p90_ns=int(p50_us * 1.12e3),
        p99_ns=int(p50_us * 1.55e3),
        mean_ns=int(p50_us * 1.04e3),
        samples=2000,
        threads=1,
        batch=1,
        ratio=ratio,
        ratio_low=ratio * (1 if ratio == 1.0 else 0.97),
        ratio_high=ratio * (1 if ratio == 1.0 else 1.03),
    )


def variant(name: str, engine: str, precision: str, figures: tuple[float, float, float, int], *verdict: str) -> VariantResult:
    """figures: metric, median in microseconds, ratio to the baseline, bytes."""
    value, p50_us, ratio, size = figures
    return VariantResult(
        name=name,
        engine=engine,
        precision=precision,
        size_bytes=size,
        path=f"/cache/{name}",
        metrics=(metric(value),),
        parity=ParityResult(
            max_abs=0.02, relative=0.0 if ratio == 1.0 else 0.0031, agreement=1.0 if ratio == 1.0 else 0.9972, ok=True
        ),
        latency=latency(p50_us, ratio),
        verdict=verdict[0],
        reason=verdict[1],
    )


VARIANTS = (
    variant("onnxruntime-f32", "onnxruntime", "float32", (0.9889, 412.0, 1.0, 322_000), "passed", "the float baseline"),
    variant(
        "openvino-f32",
        "openvino",
        "float32",
        (0.9889, 388.0, 1.06, 341_000),
        "passed",
        "as good as the baseline, 1.06x its speed",
    ),
    variant("openvino-bf16", "openvino", "bfloat16", (0.9861, 301.0, 1.37, 341_000), "passed", "1.37x the baseline's speed"),
    variant(
        "onnxruntime-int8", "onnxruntime", "int8", (0.9861, 262.0, 1.57, 104_000), "chosen", "fastest within the metric's limit"
    ),
    variant(
        "openvino-int8",
        "openvino",
        "int8",
        (0.9638, 196.0, 2.10, 118_000),
        "rejected",
        "accuracy 0.0251 below float, the recipe allows 0.01",
    ),
)


def confusion() -> tuple[tuple[int, ...], ...]:
    matrix = [[36 if row == column else 0 for column in range(10)] for row in range(10)]
    for truth, guess, count in ((8, 1, 2), (9, 3, 1), (4, 7, 1)):
        matrix[truth][guess] += count
        matrix[truth][truth] -= count
    return tuple(map(tuple, matrix))


def target(name: str = "x86-64-cpu", variants: tuple[VariantResult, ...] = VARIANTS, measured: bool = True) -> TargetResult:
    chosen = next(each.name for each in variants if each.verdict == "chosen")
    return TargetResult(
        target=name,
        profile=name,
        measured=measured,
        max_latency_ms=0.5,
        chosen=chosen,
        reason=f"{chosen} is the fastest of 4 variants that keep accuracy within 0.01 of float.",
        variants=variants,
        metrics=(metric(0.9889, "test", 360),),
        confusion=confusion(),
        manifest_sha256="ab" * 32,
        path=f"out/digits/1.0.0/{name}",
    )


def result(**changes: object) -> BuildResult:
    history = tuple(
        EpochResult(
            epoch=index,
            train_loss=1.9 * 0.62**index + 0.02,
            validation_loss=1.8 * 0.64**index + 0.05,
            metric=min(0.991, 0.62 + 0.1 * index**0.75),
            seconds=1.4,
        )
        for index in range(15)
    )
    seconds = {
        "data": 0.4,
        "train": 21.3,
        "convert-onnx": 2.9,
        "convert-openvino": 0.8,
        "quantize": 3.2,
        "check": 2.1,
        "measure": 9.4,
        "choose": 0.0,
        "pack": 0.3,
    }
    built = BuildResult(
        build="cd" * 32,
        recipe=Recipe(
            model=ModelSection(
                name="digits",
                version="1.0.0",
                network="digits.py:network",
                options={"width": 16},
                description="Handwritten digits at 32 × 32",
            ),
            data=DataSection(source="digits.py:splits"),
            train=TrainSection(epochs=15, seed=7),
            metrics=(MetricSection(),),
            targets=(TargetSection(profile="x86-64-cpu", max_latency_ms=0.5),),
        ),
        recipe_path="/home/ada/digits/recipe.toml",
        started_at="2026-11-21T08:00:00Z",
        seconds=41.2,
        stages=tuple(
            StageRun(
                name=name,
                key=f"{index:02d}" * 32,
                output="ef" * 32,
                ran=name != "data",
                why="no result for these inputs yet" if name != "data" else "unchanged",
                seconds=spent,
            )
            for index, (name, spent) in enumerate(seconds.items())
        ),
        data=DataSummary(
            fingerprint="12" * 32,
            sizes={"train": 1078, "validation": 359, "test": 360},
            inputs=(TensorSpec(name="image", datatype="FP32", shape=(-1, 1, 32, 32), layout="NCHW"),),
            classes=tuple(map(str, range(10))),
            class_counts={"train": (108,) * 10, "validation": (36,) * 10, "test": (36,) * 10},
        ),
        training=TrainingResult(
            history=history, best_epoch=11, stopped_early=False, seconds=21.3, device="cpu", threads=1, seed=7, parameters=78_042
        ),
        targets=(target(),),
        environment={"python": "3.11.2", "torch": "2.15.0", "onnxruntime": "1.31.0"},
        host={"cpu": "a processor", "cores": "2"},
        out="out/digits/1.0.0",
    )
    return msgspec.structs.replace(built, **changes)
