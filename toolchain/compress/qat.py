"""How does a network learn to live with int8? It is trained on for a few epochs with its values rounded as the engine will round them.

The last rung of both engines' ladders, for it costs a training: torchao puts the rounding into the exported graph, training goes on
at a low rate, and what comes out is ONNX with explicit integers, which ONNX Runtime and OpenVINO compute as such.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from toolchain.compress.base import Ground, Network
from toolchain.compress.retrain import Retraining, finetuning
from toolchain.errors import BuildError, NetworkError
from toolchain.pipeline.products import Precision, Variant
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.stage import Stored
from toolchain.quiet import silenced
from toolchain.recipe import Method, TrainSection

if TYPE_CHECKING:  # torch takes seconds to import; only a stage that runs pays them
    import torch
    from torch import nn

EPOCHS_RATIO = 0.3
"""Share of the training's epochs where compress.finetune_epochs names none."""
RATE_RATIO = 0.1
"""Share of the fine-tuning rate: the weights are right already, they only have to settle on the grid."""


class Qat(msgspec.Struct, frozen=True, kw_only=True):
    """Quantization-aware training for one engine."""

    engine: str
    name: ClassVar[str] = "int8-qat"
    precision: ClassVar[Precision] = "int8"
    method: ClassVar[Method | None] = "quantize"
    revision: ClassVar[int] = 3
    needs_network: ClassVar[bool] = True
    needs_data: ClassVar[bool] = True

    @property
    def tools(self) -> tuple[str, ...]:
        return ("torch", "torchao", "onnx", "onnxscript", self.engine)

    def unfit(self, ground: Ground) -> str:
        return ""

    def config(self, ground: Ground) -> dict[str, Any]:
        assert ground.network is not None, "needs_network"
        training = ground.network.training
        return {
            "weight bits": ground.weight_bits, "finetune epochs": ground.settings.finetune_epochs,
            "training": {name: getattr(training, name) for name in training.__struct_fields__},
            "metric": ground.metric.identity,
        }  # fmt: skip

    def make(self, ground: Ground, name: str, work: Path, progress: Progress) -> Variant:
        """Raises NetworkError where the network cannot be exported or torchao cannot work on it."""
        from toolchain.convert.onnx import export

        network = ground.network
        assert network is not None, "needs_network"
        retraining = Retraining(network=network, data=ground.data, settings=_settings(network))
        made = retraining.run(
            lambda: _rounding(network.load(), retraining.examples(2), ground.weight_bits),
            progress,
            teacher=network.load(),
            modes=_modes(),
        )
        written = export(_integers(made.network), made.outputs, ground.data, work)
        variant = msgspec.structs.replace(
            written, name=name, form=ground.model.value.form, scheme=self.name, precision=self.precision
        )
        return variant if self.engine == "onnxruntime" else self._convert(ground, variant, work)

    def _convert(self, ground: Ground, variant: Variant, work: Path) -> Variant:
        from toolchain.convert.openvino import convert

        model = Stored(msgspec.structs.replace(ground.model.value, variant=variant), work, "")
        converted = convert(model, work, name=variant.name, scheme=self.name, precision=self.precision, hint="f32")
        (work / variant.model_file).unlink()
        return converted


ONNXRUNTIME_QAT = Qat(engine="onnxruntime")
OPENVINO_QAT = Qat(engine="openvino")


def _settings(network: Network) -> TrainSection:
    """On the CPU, whose arithmetic it is about; without averaging, for the average of two grids is on neither."""
    settings = finetuning(network)
    wanted = network.recipe.compress.finetune_epochs
    return msgspec.structs.replace(
        settings, epochs=wanted or max(1, round(EPOCHS_RATIO * settings.epochs)), device="cpu", precision="float32",
        learning_rate=settings.learning_rate * RATE_RATIO, ema=0.0,
    )  # fmt: skip


def _rounding(network: "nn.Module", examples: "tuple[torch.Tensor, ...]", weight_bits: int) -> "nn.Module":
    """The network's graph with roundings in it that pass gradients on. The batch stays free.

    BatchNorm becomes part of the layer before it, as prepare_pt2e does it: a few epochs at a low rate move no statistics worth
    following, and torchao's way to follow them costs 16 s of pattern matching whatever the network (measured).
    """
    import torch

    batch = torch.export.Dim("batch")
    with _working("exported for training"):
        from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
        from torchao.quantization.pt2e.utils import _fuse_conv_bn_, _fuse_linear_bn_

        from toolchain.compress.quantizer import CpuQuantizer

        graph = torch.export.export(network, examples, dynamic_shapes=tuple({0: batch} for _ in examples)).module()
        _fuse_conv_bn_(graph)
        _fuse_linear_bn_(graph)
        prepared: nn.Module = prepare_qat_pt2e(graph, CpuQuantizer(weight_bits))
    return prepared


def _integers(trained: "nn.Module") -> "nn.Module":
    """Weights become integers, roundings explicit operators."""
    with _working("converted to integers"):
        from torchao.quantization.pt2e import allow_exported_model_train_eval
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

        converted: nn.Module = allow_exported_model_train_eval(convert_pt2e(trained))
    return converted


def _modes() -> Any:
    """Ranges follow the training examples, never those that judge. Nothing else tells the two modes apart: BatchNorm is folded, and
    the graph was exported without dropout."""
    with _working("loaded"):
        from torchao.quantization.pt2e import disable_observer, enable_observer

    return lambda network: network.apply(enable_observer), lambda network: network.apply(disable_observer)


@contextlib.contextmanager
def _working(what: str) -> Iterator[None]:
    """torchao warns about its own internals; what it cannot do comes as one of many kinds of exceptions."""
    try:
        with silenced():
            yield
    except BuildError:
        raise
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise NetworkError(f"the network cannot be {what} by torchao ({type(error).__name__}: {first})") from error
