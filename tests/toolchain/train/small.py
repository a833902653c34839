"""A training of some milliseconds that depends on everything a training can: weights, noise, order, averages, schedule."""

import os
import random
import signal
from pathlib import Path

import msgspec
import numpy as np
import torch
from torch import nn

from toolchain.benchmark.metrics import Metric
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.record import TrainingResult
from toolchain.recipe import TrainSection
from toolchain.train.checkpoint import Checkpoints
from toolchain.train.fit import Data, Trainer, reproducible
from toolchain.train.loss import CrossEntropy

ACCURACY = Metric(name="accuracy", goal="max", max_drop=0.01, reference="", code="", folder=Path())
SETTINGS = TrainSection(epochs=6, seed=5, batch_size=16, learning_rate=0.01, patience=0, device="cpu")
EVERYTHING = msgspec.structs.replace(SETTINGS, accumulate=2, ema=0.9, precision="bfloat16")


def blobs(rows: int, seed: int, features: int = 6, classes: int = 3) -> Data:
    """Overlapping clouds of points, one a class; the last class is rare."""
    generator = np.random.default_rng(seed)
    targets = generator.choice(classes, rows, p=[*[0.9 / (classes - 1)] * (classes - 1), 0.1])
    centres = np.random.default_rng(0).normal(0, 1, (classes, features))
    return Data.of([(centres[targets] + generator.normal(0, 0.8, (rows, features))).astype(np.float32)], targets)


TRAIN, VALIDATION = blobs(100, 1), blobs(60, 2)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def plain_network() -> nn.Sequential:
    """Without anything that depends on how examples are put together, or on chance."""
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def noise(inputs: torch.Tensor) -> torch.Tensor:
    """An augmentation that draws from all three generators."""
    return inputs * random.uniform(0.9, 1.1) + 0.1 * torch.randn_like(inputs) + float(np.random.normal(0, 0.1))


def fit(settings: TrainSection = SETTINGS, make=network, progress=None, metric: Metric = ACCURACY, **options):
    """A trained network and its result. options: of Trainer (modes, augment, loss) and of its fit (teaching, penalty, ...)."""
    own = {name: options.pop(name) for name in ("modes", "augment") if name in options}
    with reproducible(settings.seed, settings.threads):
        trainer = Trainer(make(), settings, options.pop("loss", CrossEntropy()), metric, **own)
        result: TrainingResult = trainer.fit(TRAIN, VALIDATION, progress or Silent(), **options)
    return trainer.network, result


def digest(network: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in network.state_dict().items()}


class Killed:
    """An augmentation that ends its own process with SIGKILL when it is called the nth time, in the middle of an epoch."""

    def __init__(self, calls: int) -> None:
        self._left = calls

    def __call__(self, inputs: torch.Tensor) -> torch.Tensor:
        self._left -= 1
        if not self._left:
            os.kill(os.getpid(), signal.SIGKILL)
        return noise(inputs)


def die(folder: str, calls: int) -> None:
    """For a process of its own."""
    fit(EVERYTHING, augment=Killed(calls), checkpoints=Checkpoints(Path(folder), every_s=0))
