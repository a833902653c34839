"""How does one batch change the weights?

Augment, forward pass, loss, teacher and penalty, backward pass; after `train.accumulate` batches one step of AdamW along a
one-cycle rate, and of the average over the weights.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import msgspec
import torch
from torch import nn

from toolchain.errors import NetworkError
from toolchain.pipeline.progress import Progress
from toolchain.recipe import TrainSection
from toolchain.train.averaging import averaged
from toolchain.train.batch import Batch
from toolchain.train.compiling import compiled, faster
from toolchain.train.loss import Loss, Penalty, Teaching, as_outputs, bare, teaching_loss
from toolchain.train.parallel import Crew
from toolchain.train.precision import Precision
from toolchain.train.randomness import random_state, set_random_state

Augment = Callable[..., Any]
"""A transform of a training batch: takes its inputs (float32[n, c, h, w] for images), returns as many of the same rows."""
_AT_ONCE = nullcontext()


class Lesson(msgspec.Struct, frozen=True):
    """What the network shall learn from a batch."""

    loss: Loss
    augment: Augment | None = None
    teaching: Teaching | None = None
    penalty: Penalty | None = None

    def prepare(self, batch: Batch) -> Batch:
        """The batch as the network is shown it."""
        inputs, targets = batch
        if self.augment is None:
            return batch
        changed = as_outputs(self.augment(*inputs))
        if [len(array) for array in changed] != [len(targets)] * len(inputs):
            shapes = ", ".join(str(list(array.shape)) for array in changed)
            raise NetworkError(f"train.augment made {shapes} of a batch of {len(targets)} rows and {len(inputs)} inputs")
        return changed, targets

    def loss_of(self, network: nn.Module, forward: Any, batch: Batch, precision: Precision) -> torch.Tensor:
        """forward: the network, or what computes it faster or together with other processes."""
        inputs, targets = batch
        with precision.computing():
            outputs = precision.widen(run(forward, inputs))
        loss = self.loss(bare(outputs), targets)
        if self.teaching is not None:
            with torch.no_grad(), precision.computing():
                taught = precision.widen(run(self.teaching.teacher, inputs))
            share = self.teaching.weight
            loss = (1 - share) * loss + share * teaching_loss(self.teaching, self.loss, outputs, taught)
        return loss if self.penalty is None else loss + self.penalty(network)


class Stepper:
    """One network's optimizer, and all that has to survive along with it. steps: how many the whole training takes.

    was_compiled: in the process whose state was loaded.
    """

    def __init__(self, network: nn.Module, settings: TrainSection, lesson: Lesson, *, steps: int, device: torch.device) -> None:
        self.crew = Crew.current()
        self._network = network
        self._lesson = lesson
        self._device = device
        self._precision = Precision(settings.precision, device)
        self._shared = self.crew.wrap(network, device)
        self._forward: Any = self._shared
        self.was_compiled = False
        weights = [weight for weight in network.parameters() if weight.requires_grad]
        if not weights:
            raise NetworkError("nothing to train: train.freeze leaves no parameter of the network free")
        self._optimizer = torch.optim.AdamW(weights, settings.learning_rate, weight_decay=settings.weight_decay)
        self._schedule = torch.optim.lr_scheduler.OneCycleLR(self._optimizer, settings.learning_rate, total_steps=steps)
        self._average = averaged(network, settings.ema) if settings.ema else None

    @property
    def judged(self) -> nn.Module:
        """The network whose weights count: the average, where there is one."""
        return self._network if self._average is None else self._average.module

    @property
    def is_compiled(self) -> bool:
        return self._forward is not self._shared

    def step(self, shares: Sequence[Batch], rows: int) -> float:
        """One step from the gradients of several batches. shares: this process's part of each; rows: of all of them, in all processes.

        Returns the loss summed over the examples of these shares.
        """
        self._optimizer.zero_grad()
        total = 0.0
        for number, batch in enumerate(shares, start=1):
            own = len(batch[1])
            waits = self.crew.size > 1 and number < len(shares)  # gradients are exchanged once a step
            with self._shared.no_sync() if waits else _AT_ONCE:  # type: ignore[operator]
                loss = self._lesson.loss_of(self._network, self._forward, self._lesson.prepare(batch), self._precision)
                share = own * self.crew.size / rows
                self._precision.backward(loss if share == 1 else loss * share)
            total += loss.item() * own
        if self._precision.step(self._optimizer):
            self._schedule.step()
        if self._average is not None:
            self._average.update_parameters(self._network)
        return total

    def compile(self, mode: str, samples: Sequence[Batch], steps: int, progress: Progress) -> None:
        """Compile the forward and backward pass: "on", or "auto" where it pays for `steps` more batches. Weights stay as they are.

        samples: the run's largest and smallest batch. Raises NetworkError when "on" and the network cannot be compiled.
        """

        def trial(forward: Any) -> None:
            for sample in samples:
                loss = self._lesson.loss_of(self._network, forward, self._lesson.prepare(sample), self._precision)
                loss.backward()  # type: ignore[no-untyped-call]

        before = {name: value.clone() for name, value in self._network.state_dict().items()}
        drawn = random_state(self._device)
        if mode == "on":
            self._forward = compiled(self._shared, trial)
        else:
            self._forward = faster(self._shared, trial, steps // len(samples), self.crew, progress)
        self._network.load_state_dict(before)  # BatchNorm counts every forward pass
        set_random_state(drawn, self._device)
        self._optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self._network.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "precision": self._precision.state_dict(),
            "average": self._average.state_dict() if self._average else {},
            "compiled": self.is_compiled,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        self._precision.load_state_dict(state["precision"])
        if self._average:
            self._average.load_state_dict(state["average"])
        self.was_compiled = state["compiled"]


def run(network: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """A network's outputs. Raises NetworkError when it cannot take such inputs."""
    try:
        return as_outputs(network(*inputs))
    except (RuntimeError, TypeError, ValueError) as error:
        shapes = ", ".join(f"{array.dtype}{list(array.shape[1:])}" for array in inputs)
        raise NetworkError(f"the network cannot take rows of {shapes}: {error}") from error
