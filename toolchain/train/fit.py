"""How are weights found? One loop for every network: AdamW, a one-cycle rate, the epoch with the best validation metric kept."""

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

from toolchain.benchmark.metrics import Metric
from toolchain.errors import MissingError, NetworkError
from toolchain.pipeline.progress import Progress
from toolchain.pipeline.record import EpochResult, TrainingResult
from toolchain.recipe import TrainSection
from toolchain.train.loss import Loss, Penalty, RecipeLoss, Teaching, as_outputs, bare, pick_loss, teaching_loss

__all__ = ["Data", "Loss", "Penalty", "Teaching", "Trainer", "as_outputs", "pick_device", "pick_loss", "reproducible"]

Modes = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""Functions that put a network into training and into evaluation mode, where it has no `train()` and `eval()` of its own."""
_EVALUATION_ROWS = 512


class Data(msgspec.Struct, frozen=True):
    """A split as tensors: inputs in the network's order, and targets."""

    inputs: tuple[torch.Tensor, ...]
    targets: torch.Tensor

    @classmethod
    def of(cls, inputs: list[np.ndarray], targets: np.ndarray) -> "Data":
        return cls(tuple(torch.from_numpy(array) for array in inputs), torch.from_numpy(targets))


class Trainer:
    """Trains one network in place, whatever made it. Progress is reported once an epoch.

    modes: for networks whose own `train()` and `eval()` do not work, such as exported graphs.
    """

    def __init__(
        self, network: nn.Module, settings: TrainSection, loss: Loss, metric: Metric, *, modes: Modes | None = None
    ) -> None:
        self.settings = settings
        self.device = pick_device(settings.device)
        self.network = network.to(self.device)
        self._loss = loss
        self._metric = metric
        self._set_train, self._set_eval = modes or (nn.Module.train, nn.Module.eval)

    def fit(
        self,
        train: Data,
        validation: Data,
        progress: Progress,
        *,
        teaching: Teaching | None = None,
        penalty: Penalty | None = None,
    ) -> TrainingResult:
        """Returns the history; the network holds the weights of the best epoch. Raises NetworkError when the loss diverges."""
        settings = self.settings
        if isinstance(self._loss, RecipeLoss):
            self._loss.prepare(train.targets)
        if teaching is not None:
            teaching.teacher.to(self.device).eval()
        batches = max(1, -(-len(train.targets) // settings.batch_size))
        optimizer = torch.optim.AdamW(self.network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, total_steps=settings.epochs * batches)
        order = torch.Generator().manual_seed(settings.seed)
        history: list[EpochResult] = []
        best, kept = 0, copy.deepcopy(self.network.state_dict())
        started = time.monotonic()
        for epoch in range(settings.epochs):
            begun = time.monotonic()
            train_loss = self._one_epoch(train, optimizer, schedule, order, teaching=teaching, penalty=penalty)
            history.append(self._judge(epoch, train_loss, validation, begun))
            progress.tick(epoch + 1, settings.epochs, self._text(history[-1]))
            if epoch == 0 or self._is_better(history[-1], history[best]):
                best, kept = epoch, copy.deepcopy(self.network.state_dict())
            elif settings.patience and epoch - best >= settings.patience:
                break
        self.network.load_state_dict(kept)
        return TrainingResult(
            history=tuple(history), best_epoch=best, stopped_early=len(history) < settings.epochs,
            seconds=round(time.monotonic() - started, 3), device=str(self.device), threads=settings.threads,
            seed=settings.seed, parameters=sum(weight.numel() for weight in self.network.parameters()),
        )  # fmt: skip

    def _one_epoch(
        self,
        train: Data,
        optimizer: Any,
        schedule: Any,
        order: torch.Generator,
        *,
        teaching: Teaching | None,
        penalty: Penalty | None,
    ) -> float:
        self._set_train(self.network)
        rows = torch.randperm(len(train.targets), generator=order)
        total = 0.0
        for chosen in _batches(rows, self.settings.batch_size):
            optimizer.zero_grad()
            inputs = tuple(array[chosen].to(self.device) for array in train.inputs)
            outputs = self._forward(self.network, inputs)
            loss = self._loss(bare(outputs), train.targets[chosen].to(self.device))
            if teaching is not None:
                with torch.no_grad():
                    taught = self._forward(teaching.teacher, inputs)
                loss = (1 - teaching.weight) * loss + teaching.weight * teaching_loss(teaching, self._loss, outputs, taught)
            if penalty is not None:
                loss = loss + penalty(self.network)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item() * len(chosen)
        mean = total / len(rows)
        if not np.isfinite(mean):
            raise NetworkError(
                f"training diverged: the loss is {mean}; lower train.learning_rate (now {self.settings.learning_rate})"
            )
        return mean

    def _judge(self, epoch: int, train_loss: float, validation: Data, begun: float) -> EpochResult:
        outputs = self.predict(validation)
        loss = self._loss(bare(tuple(torch.from_numpy(array) for array in outputs)), validation.targets).item()
        value = self._metric.value(outputs[0], validation.targets.numpy())
        seconds = round(time.monotonic() - begun, 3)
        return EpochResult(epoch=epoch, train_loss=train_loss, validation_loss=loss, metric=value, seconds=seconds)

    def predict(self, data: Data) -> list[np.ndarray]:
        """The network's outputs in evaluation mode, one array per output."""
        self._set_eval(self.network)
        rows = torch.arange(len(data.targets))
        with torch.no_grad():
            results = [
                self._forward(self.network, tuple(array[chosen].to(self.device) for array in data.inputs))
                for chosen in _batches(rows, _EVALUATION_ROWS)
            ]
            parts = [[output.cpu().numpy() for output in outputs] for outputs in results]
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]

    def _forward(self, network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        try:
            return as_outputs(network(*inputs))
        except (RuntimeError, TypeError, ValueError) as error:
            shapes = ", ".join(f"{array.dtype}{list(array.shape[1:])}" for array in inputs)
            raise NetworkError(f"the network cannot take rows of {shapes}: {error}") from error

    def _is_better(self, new: EpochResult, best: EpochResult) -> bool:
        """By the metric; by the loss where the metric is equal, as it often is on a few hundred examples."""
        drop = self._metric.drop(best.metric, new.metric)
        return drop < 0 or (drop == 0 and new.validation_loss < best.validation_loss)

    def _text(self, epoch: EpochResult) -> str:
        return f"loss {epoch.train_loss:.4f}, validation {self._metric.name} {epoch.metric:.4f}"


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Fixed randomness and a fixed number of threads: both decide the weights. Restores what was set before."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(before)


def pick_device(wanted: str) -> torch.device:
    if wanted == "cuda" and not torch.cuda.is_available():
        raise MissingError('train.device = "cuda": torch sees no GPU here; use "auto" or "cpu"')
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def _batches(rows: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Batches of nearly equal size: a last batch of one example would have no variance to normalise by."""
    yield from rows.tensor_split(max(1, -(-len(rows) // size)))
