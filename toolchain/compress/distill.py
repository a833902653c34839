"""Does the network learn more from a larger one than from the labels alone?

The teacher of `compress.teacher` is trained like the recipe's network, on the same data and by the same settings; then the recipe's
network is trained once more from the same seed, now with the teacher. The recipe's own training is the equally trained control.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from toolchain.compress.base import Network
from toolchain.compress.retrain import Retraining, is_better
from toolchain.errors import NetworkError
from toolchain.pipeline.products import FloatModel, SteeringData
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.stage import Stored
from toolchain.train.network import NetworkSource
from toolchain.train.transfer import freeze, start_from, weights_file

if TYPE_CHECKING:  # torch takes seconds to import; only a stage that runs pays them
    import torch
    from torch import nn

TEACHER_KEY = "compress.teacher"


class Distilled(msgspec.Struct, frozen=True, kw_only=True):
    """The recipe's network, taught. Rejected unless better than the control on validation data: by the metric, or by the loss
    where the metric is equal, which is the rule by which training keeps an epoch."""

    name: ClassVar[str] = "distilled"
    revision: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ()

    def config(self, network: Network) -> dict[str, Any]:
        teacher = teacher_of(network)
        return {
            "teacher": teacher.reference.attribute, "teacher options": teacher.options, "teacher code": teacher.code,
        }  # fmt: skip

    def make(
        self, network: Network, base: Stored[FloatModel], data: Stored[SteeringData], work: Path, progress: Progress
    ) -> FloatModel:
        """Raises NetworkError where the teacher's outputs have other shapes."""
        settings = msgspec.structs.replace(network.training, processes=1, compile="off")
        teaching = Retraining(network=network, data=data, settings=settings)
        source = teacher_of(network)
        _require_alike(source.build(), network.load(), teaching.examples(2))
        teacher = teaching.run(source.build, progress)
        made = teaching.run(lambda: _begin(network, progress), progress, teacher=teacher.network)
        own = network.trained.value.training
        assert own is not None, "forms_of asks for [train]"
        control = own.history[own.best_epoch]
        rejected = ""
        if not is_better(network.metric, made.best, control):
            figure = network.metric.name
            rejected = (
                f"the teacher did not help: validation {figure} {made.best.metric:.4f} (loss {made.best.validation_loss:.4f}) "
                f"with it, {control.metric:.4f} (loss {control.validation_loss:.4f}) without"
            )
        return teaching.keep(self.name, made, work, control=control.metric, rejected=rejected)


def teacher_of(network: Network) -> NetworkSource:
    """Raises RecipeError where there is no such network."""
    settings = network.recipe.compress
    model = msgspec.structs.replace(network.recipe.model, network=settings.teacher, options=settings.teacher_options)
    return NetworkSource(model, network.folder, TEACHER_KEY, in_graph=network.source.in_graph)  # it sees the same data


def _require_alike(teacher: "nn.Module", own: "nn.Module", examples: "tuple[torch.Tensor, ...]") -> None:
    """Before the teacher's training is paid for."""
    import torch

    from toolchain.train.step import run

    with torch.no_grad():
        taught, wanted = ([list(output.shape[1:]) for output in run(net.eval(), examples)] for net in (teacher, own))
    if taught != wanted:
        raise NetworkError(f"{TEACHER_KEY}: the teacher's outputs are {taught} an example, the network's {wanted}")


def _begin(network: Network, progress: Progress) -> "nn.Module":
    """What the recipe's own training began with."""
    fresh, settings = network.source.build(), network.training
    if settings.weights:
        start_from(fresh, weights_file(settings.weights, network.folder), progress)
    freeze(fresh, settings.freeze)
    return fresh
