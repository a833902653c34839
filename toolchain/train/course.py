"""How far has a training come, which epoch was the best, and when is it over?"""

import copy
from typing import Any

import msgspec
import torch

from toolchain.benchmark.metrics import Metric
from toolchain.pipeline.record import EpochResult
from toolchain.recipe import TrainSection

Weights = dict[str, torch.Tensor]


class Course:
    """The epochs of one training. kept: the weights of the best one; resumed_epoch: how many an earlier process went through."""

    def __init__(self, settings: TrainSection, metric: Metric) -> None:
        self.history: list[EpochResult] = []
        self.best = 0
        self.kept: Weights = {}
        self.resumed_epoch = 0
        self._settings = settings
        self._metric = metric

    @property
    def is_over(self) -> bool:
        """All epochs done, or `train.patience` of them without a better one."""
        done = len(self.history)
        waited = done - 1 - self.best
        return done >= self._settings.epochs or bool(done and self._settings.patience and waited >= self._settings.patience)

    def add(self, epoch: EpochResult, weights: Weights) -> None:
        """weights: those that were judged; they are copied where the epoch is the best so far."""
        self.history.append(epoch)
        if len(self.history) == 1 or self._is_better(epoch, self.history[self.best]):
            self.best = len(self.history) - 1
            self.kept = copy.deepcopy(weights)

    def text(self) -> str:
        last = self.history[-1]
        return f"loss {last.train_loss:.4f}, validation {self._metric.name} {last.metric:.4f}"

    def state_dict(self) -> dict[str, Any]:
        return {"history": [msgspec.to_builtins(epoch) for epoch in self.history], "best": self.best, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.history = msgspec.convert(state["history"], list[EpochResult])
        self.best, self.kept = state["best"], state["kept"]
        self.resumed_epoch = len(self.history)

    def _is_better(self, new: EpochResult, best: EpochResult) -> bool:
        """By the metric; by the loss where the metric is equal, as it often is on a few hundred examples."""
        drop = self._metric.drop(best.metric, new.metric)
        return drop < 0 or (drop == 0 and new.validation_loss < best.validation_loss)
