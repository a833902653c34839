"""The second stage: the recipe's network with weights, trained or as it came, and what it says about the validation split."""

from pathlib import Path
from typing import Any

import msgspec

from toolchain.benchmark.metrics import Metric
from toolchain.data.code import closure_of, find_callable, meaning_digest
from toolchain.pipeline.products import SteeringData, TrainedModel
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.stage import Stage, Stored
from toolchain.recipe import Recipe, TrainSection
from toolchain.train.network import NetworkSource

REVISION = 1
WEIGHTS = "weights.pt"
LOSS_KEY = "train.loss"
_UNTRAINED = TrainSection(epochs=1)
"""Threads and seed for running a network that came with its weights."""


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What the stage works on."""

    recipe: Recipe
    folder: Path
    source: NetworkSource
    metric: Metric
    data: Stored[SteeringData]

    def stage(self) -> Stage[TrainedModel]:
        """Weights and reference outputs. Without [train] the network's own weights are taken as they are."""
        settings = self.recipe.train
        config: dict[str, Any] = {**self.source.config, "output_kind": self.recipe.model.output_kind}
        inputs = {"training and validation data": self.data.digest, "code of the network": self.source.code}
        if settings is not None:
            config |= {name: getattr(settings, name) for name in settings.__struct_fields__ if name not in ("seed", "loss")}
            config["metric"] = self.metric.identity
            if settings.loss:
                reference = find_callable(settings.loss, self.folder, LOSS_KEY)
                config["loss"] = reference.attribute
                inputs["code of the loss"] = meaning_digest(closure_of(reference))
        return Stage(
            name="train", revision=REVISION, kind=TrainedModel, make=self.make, config=config, inputs=inputs,
            tools=("torch", "numpy", *self.source.tools), seed=settings.seed if settings else 0, summary=_summary,
        )  # fmt: skip

    def make(self, work: Path, progress: Progress) -> TrainedModel:
        import numpy as np
        import torch

        from toolchain.data.splits import read_split
        from toolchain.train.fit import Data, Trainer, pick_loss, reproducible

        settings = self.recipe.train or _UNTRAINED
        validation = Data.of(*read_split(self.data.folder, self.data.value.validation))
        loss_of = pick_loss(settings, self.recipe.model.output_kind, self.folder)
        with reproducible(settings.seed, settings.threads), loss_of as loss:
            trainer = Trainer(self.source.build(), settings, loss, self.metric)
            result = None
            if self.recipe.train is not None:
                result = trainer.fit(Data.of(*read_split(self.data.folder, self.data.value.train)), validation, progress)
            outputs = trainer.predict(validation)
        torch.save({name: value.cpu() for name, value in trainer.network.state_dict().items()}, work / WEIGHTS)
        names = tuple(f"reference.{index}.npy" for index in range(len(outputs)))
        for name, array in zip(names, outputs, strict=True):
            np.save(work / name, array)
        return TrainedModel(weights=WEIGHTS, reference=names, training=result, seed=settings.seed)


def _summary(model: TrainedModel) -> str:
    if model.training is None:
        return "weights as they came"
    best = model.training.history[model.training.best_epoch]
    early = ", stopped early" if model.training.stopped_early else ""
    return f"epoch {best.epoch + 1} of {len(model.training.history)} kept, validation {best.metric:.4f}{early}"
