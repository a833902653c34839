"""The second stage: the recipe's network with weights, trained or as it came, and what it says about the validation split."""

from pathlib import Path
from typing import Any

import msgspec

from toolchain.benchmark.metrics import Metric
from toolchain.data.code import closure_of, distributions, find_callable, meaning_digest
from toolchain.files import sha256_file
from toolchain.pipeline.products import SteeringData, TrainedModel
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.stage import Stage, Stored, digest_of
from toolchain.recipe import Recipe, TrainSection
from toolchain.train.network import NetworkSource
from toolchain.train.transfer import weights_file

REVISION = 2
WEIGHTS = "weights.pt"
_CODE = ("loss", "augment")
"""Settings that name a callable of the recipe: what its code means counts, not where it lies."""
_UNTRAINED = TrainSection(epochs=1)
"""Threads and seed for running a network that came with its weights."""


class Training(msgspec.Struct, frozen=True, kw_only=True):
    """What the stage works on. partial: folder for the states of unfinished trainings, None to keep none."""

    recipe: Recipe
    folder: Path
    source: NetworkSource
    metric: Metric
    data: Stored[SteeringData]
    partial: Path | None = None

    def stage(self) -> Stage[TrainedModel]:
        """Weights and reference outputs. Without [train] the network's own weights are taken as they are."""
        settings = self.recipe.train
        config: dict[str, Any] = {**self.source.config, "output_kind": self.recipe.model.output_kind}
        inputs = {"training and validation data": self.data.digest, "code of the network": self.source.code}
        tools = {"torch", "numpy", *self.source.tools}
        if settings is not None:
            apart = ("seed", "weights", *_CODE)
            config |= {name: getattr(settings, name) for name in settings.__struct_fields__ if name not in apart}
            config["metric"] = self.metric.identity
            for name in _CODE:
                if text := getattr(settings, name):
                    reference = find_callable(text, self.folder, f"train.{name}")
                    closure = closure_of(reference)
                    config[name] = reference.attribute
                    inputs[f"code of the {name}"] = meaning_digest(closure)
                    tools.update(tool for imported in closure.imports for tool in distributions(imported))
            if settings.weights:
                inputs["starting weights"] = sha256_file(weights_file(settings.weights, self.folder))
        return Stage(
            name="train", revision=REVISION, kind=TrainedModel, make=self.make, config=config, inputs=inputs,
            tools=tuple(sorted(tools)), seed=settings.seed if settings else 0, summary=_summary,
        )  # fmt: skip

    def make(self, work: Path, progress: Progress) -> TrainedModel:
        """In this process, or in as many as the recipe asks for."""
        if self.recipe.train is not None and self.recipe.train.processes > 1:
            from toolchain.train.launch import Job, launch

            job = Job(
                recipe=self.recipe, folder=str(self.folder.absolute()), data=self.data.value,
                data_folder=str(self.data.folder.absolute()), data_digest=self.data.digest,
                partial=str(self.partial.absolute()) if self.partial else None, work=str(work.absolute()),
            )  # fmt: skip
            return launch(job, progress)
        return self.run(work, progress)

    def run(self, work: Path, progress: Progress) -> TrainedModel:
        """Train in this process; where a process group is open, as one of it. Every process writes to the folder it is given."""
        import numpy as np
        import torch

        from toolchain.data.arrays import read_split
        from toolchain.train.augment import pick_augment
        from toolchain.train.fit import Data, Trainer, pick_loss, reproducible

        settings = self.recipe.train or _UNTRAINED
        validation = Data.of(*read_split(self.data.folder, self.data.value.validation))
        with (
            reproducible(settings.seed, settings.threads),
            pick_loss(settings, self.recipe.model.output_kind, self.folder) as loss,
            pick_augment(settings, self.folder) as augment,
        ):
            network = self._network(settings, progress)
            trainer = Trainer(network, settings, loss, self.metric, augment=augment)
            result = None
            if self.recipe.train is not None:
                train = Data.of(*read_split(self.data.folder, self.data.value.train))
                result = trainer.fit(train, validation, progress, checkpoints=self._checkpoints())
            outputs = trainer.predict(validation)
        torch.save({name: value.cpu() for name, value in trainer.network.state_dict().items()}, work / WEIGHTS)
        names = tuple(f"reference.{index}.npy" for index in range(len(outputs)))
        for name, array in zip(names, outputs, strict=True):
            np.save(work / name, array)
        return TrainedModel(weights=WEIGHTS, reference=names, training=result, seed=settings.seed)

    def _network(self, settings: TrainSection, progress: Progress) -> Any:
        from toolchain.train.transfer import freeze, start_from

        network = self.source.build()
        if settings.weights:
            start_from(network, weights_file(settings.weights, self.folder), progress)
        freeze(network, settings.freeze)
        return network

    def _checkpoints(self) -> Any:
        """By the stage's own key: what would be cached under another one is another training."""
        from toolchain.train.checkpoint import Checkpoints

        return Checkpoints(self.partial / digest_of(self.stage().ingredients())) if self.partial else None


def _summary(model: TrainedModel) -> str:
    if model.training is None:
        return "weights as they came"
    training = model.training
    best = training.history[training.best_epoch]
    early = ", stopped early" if training.stopped_early else ""
    resumed = f", resumed after epoch {training.resumed_epoch}" if training.resumed_epoch else ""
    return f"epoch {best.epoch + 1} of {len(training.history)} kept, validation {best.metric:.4f}{early}{resumed}"
