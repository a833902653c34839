"""Which networks are compiled, from what, and what must come out?

Speeds are those of the build's own interleaved measurement: ratios to the float32 ONNX in ONNX Runtime, batch 1, one thread.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from benchmarks.figures import Figure
from toolchain.pipeline.record import BuildResult, TargetResult, VariantResult

MODELS = Path(__file__).parents[2] / "models"
PROFILE = "intel-cpu-vnni"
BASELINE = "onnxruntime-float32"
SPEED_ONLY = "metric.max_drop=1.0"
"""For weights of one short epoch on a few generated images: their speed means something, their accuracy nothing."""
IMAGES = 24

Claims = Callable[[TargetResult], Iterator[Figure]]


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One build. model: the folder of models/ it is made from; changes: of the recipe; extra: further files beside it."""

    name: str
    model: str
    changes: tuple[str, ...]
    claims: Claims
    extra: tuple[Path, ...] = ()

    def prepare(self, root: Path) -> Path:
        """A copy of the model's folder with what it needs; returns its recipe."""
        folder = root / self.name
        shutil.copytree(MODELS / self.model, folder, ignore=shutil.ignore_patterns("out", "__pycache__", "images"))
        for file in self.extra:
            shutil.copy(file, folder)
        if self.model == "image_folder":
            command = [sys.executable, str(folder / "make_images.py"), "--count", str(IMAGES)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return folder / "recipe.toml"


def speeds(target: TargetResult) -> dict[str, float]:
    return {each.name: each.latency.ratio for each in target.variants if each.latency is not None}


def fastest(target: TargetResult, form: str, precision: str) -> VariantResult:
    """The fastest variant of one form in one precision."""
    fitting = [each for each in target.variants if each.latency and (each.form, each.precision) == (form, precision)]
    return max(fitting, key=lambda each: each.latency.ratio if each.latency else 0.0)


def chosen(target: TargetResult) -> VariantResult:
    return next(each for each in target.variants if each.name == target.chosen)


def faster(name: str, variant: VariantResult, limit: float) -> Figure:
    latency = variant.latency
    if latency is None:
        raise RuntimeError(f"{variant.name} was not measured")
    how = f"{variant.name}, {latency.ratio_low:.2f} to {latency.ratio_high:.2f}"
    return Figure(name=name, value=latency.ratio, unit="x", limit=limit, at_most=False, how=how)


def resnet18(target: TargetResult) -> Iterator[Figure]:
    yield faster("resnet18: int8", fastest(target, "base", "int8"), 3.5)
    yield faster("resnet18: pruned 50 % + int8", fastest(target, "pruned50", "int8"), 8.0)


def mobilenet(target: TargetResult) -> Iterator[Figure]:
    yield faster("mobilenet_v3_small: chosen, unpruned", chosen(target), 1.5)


def ds_cnn(target: TargetResult) -> Iterator[Figure]:
    best = chosen(target)
    name = "DS-CNN: a float variant is chosen"
    yield Figure(name=name, value=float(best.precision == "float32"), unit="", limit=1, at_most=False, how=best.name)


def digits(target: TargetResult) -> Iterator[Figure]:
    best = chosen(target)
    yield faster("digits: chosen", best, 1.8)
    yield Figure(
        name="digits: paired drop of accuracy on test data", value=100 * target.drop.value, unit="pts", limit=1.0,
        how=f"{100 * target.drop.low:.2f} to {100 * target.drop.high:.2f}, n = {target.drop.n}",
    )  # fmt: skip


def never_slower(work: Work, target: TargetResult) -> Figure:
    """What every build promises: the chosen variant is the float baseline, or surely faster."""
    best = chosen(target)
    low = best.latency.ratio_low if best.latency else 0.0
    return Figure(
        name=f"{work.name}: chosen against float, lower bound", value=low, unit="x", limit=1, at_most=False, how=best.name
    )


def target_of(result: BuildResult) -> TargetResult:
    return result.targets[0]


WORK = (
    Work(
        name="resnet18", model="image_folder", claims=resnet18,
        changes=(
            "model.network=torchvision:resnet18", "train.epochs=1", "train.patience=0", SPEED_ONLY,
            'compress.methods=["prune", "quantize"]', "target.max_latency_ms=1000",
        ),
    ),
    Work(
        name="mobilenet_v3_small", model="image_folder", claims=mobilenet,
        changes=("train.epochs=1", "train.patience=0", SPEED_ONLY, 'compress.methods=["quantize"]'),
    ),
    Work(
        name="ds-cnn", model="digits", claims=ds_cnn, extra=(Path(__file__).parent / "ds_cnn.py",),
        changes=("model.network=ds_cnn.py:network", "model.options={}", 'compress.methods=["quantize"]'),
    ),
    Work(name="digits", model="digits", claims=digits, changes=()),
)  # fmt: skip
