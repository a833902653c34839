"""How is a form's network trained again: under the recipe's own settings, from the same seed, judged on the same examples?"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from toolchain.benchmark.metrics import Metric
from toolchain.compress.base import Network
from toolchain.compress.cost import cost_of
from toolchain.data.arrays import read_split
from toolchain.pipeline.products import FloatModel, SteeringData
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.record import EpochResult, TrainingResult
from toolchain.pipeline.stage import Stored
from toolchain.recipe import TrainSection

if TYPE_CHECKING:  # torch takes seconds to import; only a stage that runs pays them
    import numpy as np
    import torch
    from torch import nn

    from toolchain.train.fit import Modes

FINETUNE_RATE = 0.5
"""Share of the training's learning rate for a network that is trained already."""


class Retrained(msgspec.Struct, frozen=True):
    """A network with the weights of its best epoch, in evaluation mode. outputs: on the validation split."""

    network: "nn.Module"
    result: TrainingResult
    outputs: "list[np.ndarray]"

    @property
    def best(self) -> EpochResult:
        return self.result.history[self.result.best_epoch]


class Retraining(msgspec.Struct, frozen=True, kw_only=True):
    """Trainings of one recipe that differ only in the network, its teacher and these settings."""

    network: Network
    data: Stored[SteeringData]
    settings: TrainSection

    def run(
        self,
        make: "Callable[[], nn.Module]",
        progress: Progress,
        *,
        teacher: "nn.Module | None" = None,
        modes: "Modes | None" = None,
    ) -> Retrained:
        """make: the network to begin with; it is called under the fixed seed. Raises NetworkError when training diverges."""
        from toolchain.train.augment import pick_augment
        from toolchain.train.fit import Data, Teaching, Trainer, reproducible

        train = Data.of(*read_split(self.data.folder, self.data.value.train))
        validation = Data.of(*read_split(self.data.folder, self.data.value.validation))
        scores = self.network.recipe.model.scores
        loss_of, augment_of = self.network.loss(), pick_augment(self.settings, self.network.folder)
        with reproducible(self.settings.seed, self.settings.threads), loss_of as loss, augment_of as augment:
            trainer = Trainer(make(), self.settings, loss, self.network.metric, modes=modes, augment=augment)
            teaching = None if teacher is None else Teaching(teacher, scores=scores)
            result = trainer.fit(train, validation, progress, teaching=teaching)
            return Retrained(trainer.network.cpu(), result, trainer.predict(validation))

    def examples(self, rows: int) -> "tuple[torch.Tensor, ...]":
        """Inputs of the first validation examples, for what has to look at a network run."""
        import torch

        arrays, _ = read_split(self.data.folder, self.data.value.validation)
        return tuple(torch.from_numpy(array[:rows]) for array in arrays)

    def keep(self, name: str, made: Retrained, work: Path, **facts: Any) -> FloatModel:
        """Write a trained network as the form `name`. facts: further fields of the FloatModel."""
        import numpy as np

        from toolchain.convert.onnx import export

        variant = export(made.network, made.outputs, self.data, work, name)
        names = tuple(f"reference.{index}.npy" for index in range(len(made.outputs)))
        for file, array in zip(names, made.outputs, strict=True):
            np.save(work / file, array)
        return FloatModel(
            form=name, variant=variant, reference=names, training=made.result,
            parameters=sum(weight.numel() for weight in made.network.parameters()),
            macs=cost_of(work / variant.model_file, variant.inputs).macs, **facts,
        )  # fmt: skip


def finetuning(network: Network) -> TrainSection:
    """The recipe's settings for weights that are good already: at a lower rate, in this process, with nothing frozen."""
    training = network.training
    return msgspec.structs.replace(
        training, epochs=network.recipe.compress.finetune_epochs or training.epochs,
        learning_rate=training.learning_rate * FINETUNE_RATE, compile="off", processes=1, weights="", freeze=(),
    )  # fmt: skip


def is_better(metric: Metric, new: EpochResult, old: EpochResult) -> bool:
    """The rule by which training keeps an epoch: the metric, or the loss where the metric is equal."""
    drop = metric.drop(old.metric, new.metric)
    return drop < 0 or (drop == 0 and new.validation_loss < old.validation_loss)
