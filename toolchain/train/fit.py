"""How are weights found? One loop for every network: epochs of steps, each judged on validation data, the best one kept."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from toolchain.benchmark.metrics import Metric
from toolchain.errors import NetworkError
from toolchain.pipeline.progress import EpochWatcher, Progress
from toolchain.pipeline.record import EpochResult, TrainingResult
from toolchain.recipe import TrainSection
from toolchain.train.batch import Data, batches, pick_device
from toolchain.train.checkpoint import Checkpoints
from toolchain.train.course import Course
from toolchain.train.loss import Loss, Penalty, RecipeLoss, Teaching, as_outputs, bare, pick_loss
from toolchain.train.parallel import has_batch_norm
from toolchain.train.randomness import random_state, reproducible, reseed, set_random_state
from toolchain.train.step import Augment, Lesson, Stepper, run

__all__ = [
    "Augment", "Data", "Loss", "Penalty", "Teaching", "Trainer", "as_outputs", "pick_device", "pick_loss", "reproducible",
]  # fmt: skip

Modes = tuple[Callable[[Any], Any], Callable[[Any], Any]]
"""Functions that put a network into training and into evaluation mode, where it has no `train()` and `eval()` of its own."""
_EVALUATION_ROWS = 512


class Trainer:
    """Trains one network in place, whatever made it; where a process group is open, together with its other processes.

    modes: for networks whose own `train()` and `eval()` do not work, such as exported graphs. augment: changes training batches.
    Parameters that need no gradient stay as they are, and modules that have no others stay in evaluation mode.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: TrainSection,
        loss: Loss,
        metric: Metric,
        *,
        modes: Modes | None = None,
        augment: Augment | None = None,
    ) -> None:
        self.settings = settings
        self.device = pick_device(settings.device)
        self.network = network.to(self.device)
        self._loss = loss
        self._metric = metric
        usual: Modes = (_train, nn.Module.eval)
        self._set_train, self._set_eval = modes or usual
        self._augment = augment

    def fit(
        self,
        train: Data,
        validation: Data,
        progress: Progress,
        *,
        teaching: Teaching | None = None,
        penalty: Penalty | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> TrainingResult:
        """Returns the history; the network holds the weights of the best epoch. Raises NetworkError when the loss diverges.

        Progress is told of every epoch. checkpoints: where to keep the state after each of them, and to go on from.
        """
        if isinstance(self._loss, RecipeLoss):
            self._loss.prepare(train.targets)
        if teaching is not None:
            teaching.teacher.to(self.device).eval()
        settings = self.settings
        lesson = Lesson(self._loss, self._augment, teaching, penalty)
        sizes = [len(rows) for rows in batches(torch.arange(len(train.targets)), settings.batch_size)]
        steps = settings.epochs * -(-len(sizes) // settings.accumulate)
        stepper = Stepper(self.network, settings, lesson, steps=steps, device=self.device)
        stepper.crew.require_rows(min(sizes))
        course = Course(settings, self._metric)
        order = torch.Generator().manual_seed(settings.seed)
        self._begin(course, stepper, order, progress, checkpoints)
        self._compile(course, stepper, train, progress)
        while not course.is_over:
            begun = time.monotonic()
            train_loss = self._one_epoch(train, stepper, order)
            course.add(self._judge(len(course.history), train_loss, stepper, validation, begun), stepper.judged.state_dict())
            progress.tick(len(course.history), settings.epochs, course.text())
            if isinstance(progress, EpochWatcher):
                progress.epoch(course.history[-1])
            if checkpoints is not None and not course.is_over and stepper.crew.agree(checkpoints.is_due):
                self._save(checkpoints, course, stepper, order, progress)
        self.network.load_state_dict(course.kept)
        return self._result(course, stepper)

    def predict(self, data: Data) -> list[np.ndarray]:
        """The network's outputs in evaluation mode, one array per output."""
        return self._predict(self.network, data)

    def _begin(
        self, course: Course, stepper: Stepper, order: torch.Generator, progress: Progress, checkpoints: Checkpoints | None
    ) -> None:
        """Say what processes mean for this training, and take up the state an earlier one left, if there is one."""
        crew = stepper.crew
        if not crew.leads:
            reseed(self.settings.seed + crew.rank)  # or all processes would drop out the same units
        if crew.size == 1 and self.settings.processes > 1:
            progress.note(
                f"train.processes = {self.settings.processes} is for the recipe's own training; this one has one process"
            )
        if crew.size > 1 and self.device.type == "cpu" and has_batch_norm(self.network):
            progress.note("on a CPU BatchNorm sees each process's own share of a batch; other train.processes, other weights")
        state = checkpoints.load(self.device, progress) if checkpoints else None
        if state is None:
            return
        course.load_state_dict(state["course"])
        stepper.load_state_dict(state["stepper"])
        order.set_state(state["order"])
        set_random_state(state["random"][crew.rank], self.device)
        progress.note(f"training goes on after epoch {course.resumed_epoch} of {self.settings.epochs}")

    def _save(
        self, checkpoints: Checkpoints, course: Course, stepper: Stepper, order: torch.Generator, progress: Progress
    ) -> None:
        drawn = stepper.crew.gather(random_state(self.device))
        if stepper.crew.leads:
            state = {
                "course": course.state_dict(), "stepper": stepper.state_dict(), "order": order.get_state(), "random": drawn,
            }  # fmt: skip
            checkpoints.save(state, self.device, progress)

    def _compile(self, course: Course, stepper: Stepper, train: Data, progress: Progress) -> None:
        """As `train.compile` says; a resumed training goes on as it was begun, or it would end with other bits."""
        mode = self.settings.compile
        if mode == "off" or (course.resumed_epoch and not stepper.was_compiled):
            return
        plan = list(batches(torch.arange(len(train.targets)), self.settings.batch_size))
        samples = [train.batch(stepper.crew.part(rows), self.device) for rows in (plan[0], plan[-1])]
        left = (self.settings.epochs - course.resumed_epoch) * len(plan)
        self._set_train(self.network)
        stepper.compile("on" if course.resumed_epoch else mode, samples, left, progress)

    def _one_epoch(self, train: Data, stepper: Stepper, order: torch.Generator) -> float:
        """The mean loss over all training examples."""
        self._set_train(self.network)
        rows = torch.randperm(len(train.targets), generator=order)
        plan = list(batches(rows, self.settings.batch_size))
        total = 0.0
        for first in range(0, len(plan), self.settings.accumulate):
            group = plan[first : first + self.settings.accumulate]
            own = [train.batch(stepper.crew.part(chosen), self.device) for chosen in group]
            total += stepper.step(own, sum(map(len, group)))
        mean = sum(stepper.crew.gather(total)) / len(rows)
        if not np.isfinite(mean):
            raise NetworkError(
                f"training diverged: the loss is {mean}; lower train.learning_rate (now {self.settings.learning_rate})"
            )
        return mean

    def _judge(self, epoch: int, train_loss: float, stepper: Stepper, validation: Data, begun: float) -> EpochResult:
        """By the process that leads; the others take its word, so that all of them stop at the same epoch."""
        result = None
        if stepper.crew.leads:
            outputs = self._predict(stepper.judged, validation)
            loss = self._loss(bare(tuple(torch.from_numpy(array) for array in outputs)), validation.targets).item()
            value = self._metric.value(outputs[0], validation.targets.numpy())
            seconds = round(time.monotonic() - begun, 3)
            result = EpochResult(epoch=epoch, train_loss=train_loss, validation_loss=loss, metric=value, seconds=seconds)
        agreed = stepper.crew.agree(result)
        assert agreed is not None
        return agreed

    def _predict(self, network: nn.Module, data: Data) -> list[np.ndarray]:
        self._set_eval(network)
        with torch.no_grad():
            rows = batches(torch.arange(len(data.targets)), _EVALUATION_ROWS)
            results = [run(network, data.batch(chosen, self.device)[0]) for chosen in rows]
            parts = [[output.cpu().numpy() for output in outputs] for outputs in results]
        return [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]

    def _result(self, course: Course, stepper: Stepper) -> TrainingResult:
        settings = self.settings
        return TrainingResult(
            history=tuple(course.history), best_epoch=course.best, stopped_early=len(course.history) < settings.epochs,
            seconds=round(sum(epoch.seconds for epoch in course.history), 3), device=str(self.device), threads=settings.threads,
            seed=settings.seed, parameters=sum(weight.numel() for weight in self.network.parameters()),
            resumed_epoch=course.resumed_epoch, conditions=self._conditions(stepper),
        )  # fmt: skip

    def _conditions(self, stepper: Stepper) -> tuple[str, ...]:
        """What has to be the same elsewhere for the weights to have the same bits."""
        gpu = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else ""
        threads, processes = self.settings.threads, stepper.crew.size
        named = {
            f"GPU {gpu}": bool(gpu),
            f"{threads} threads": threads > 1,
            f"{processes} processes": processes > 1,
            "torch.compile": stepper.is_compiled,
        }
        return tuple(name for name, applies in named.items() if applies)


def _train(network: nn.Module) -> None:
    """Training mode, but for modules all of whose parameters are frozen: their BatchNorm would drift from what it was trained to."""
    network.train()
    for module in network.modules():
        weights = list(module.parameters())
        if weights and not any(weight.requires_grad for weight in weights):
            module.eval()
