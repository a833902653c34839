"""What does training minimise? The recipe's own loss or the usual one of the output kind, and what a teacher adds to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import nn
from torch.nn import functional

from runtime.contract.artifact import OutputKind
from toolchain.data.code import callable_in, find_callable, loaded
from toolchain.errors import NetworkError, RecipeError
from toolchain.recipe import TrainSection

Loss = Callable[[Any, torch.Tensor], torch.Tensor]
"""Of the network's output (a tuple where it has several) and the targets."""
Penalty = Callable[[nn.Module], torch.Tensor]
"""Of the network: a scalar that is added to the loss of every batch, such as one that draws channels to zero."""
LOSS_KEY = "train.loss"


class Teaching(msgspec.Struct):
    """A teacher whose answers the network learns from, on the same batches. The teacher is not changed but put into evaluation mode.

    weight: share of the teacher's loss, the recipe's own has the rest. temperature: how much the classes a teacher finds less
    likely count. scores: what the outputs are; probabilities are compared as they are, for a softmax of them means nothing.
    """

    teacher: nn.Module
    weight: float = 0.7
    temperature: float = 4.0
    scores: Literal["logits", "probabilities"] = "logits"


class RecipeLoss:
    """The loss a recipe asks for, callable as a `Loss`. kind: of the outputs; it decides how a teacher is compared with."""

    def __init__(self, function: Loss, kind: OutputKind) -> None:
        self.kind = kind
        self._function = function

    def __call__(self, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        return self._function(outputs, targets)

    def prepare(self, targets: torch.Tensor) -> None:
        """Told of all training targets before the first batch."""


class CrossEntropy(RecipeLoss):
    """The usual loss of a classifier. balanced: every class weighs the same, however rare it is among the training targets."""

    def __init__(self, *, balanced: bool = False) -> None:
        super().__init__(self._cross_entropy, "classification")
        self._balanced = balanced
        self._counts = torch.zeros(0)

    def prepare(self, targets: torch.Tensor) -> None:
        self._counts = torch.bincount(targets.long().flatten()).to(torch.float32)

    def _cross_entropy(self, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        logits = as_outputs(outputs)[0]
        weight = self._weights(logits.shape[1]).to(logits) if self._balanced else None
        return functional.cross_entropy(logits, targets.long(), weight)

    def _weights(self, classes: int) -> torch.Tensor:
        """Rows / (classes present * rows of the class), as scikit-learn's "balanced"; 1 for a class no example has."""
        counts = functional.pad(self._counts, (0, max(0, classes - len(self._counts))))
        present = counts > 0
        even = counts.sum() / max(1, int(present.sum()))
        return torch.where(present, even / counts.clamp(min=1), torch.ones(()))


@contextmanager
def pick_loss(settings: TrainSection, kind: OutputKind, folder: Path) -> Iterator[RecipeLoss]:
    """The loss of a recipe: "FILE:callable", or the usual one of the output kind. Raises RecipeError."""
    balanced = settings.class_weights == "balanced"
    if balanced and (settings.loss or kind != "classification"):
        other = f"train.loss {settings.loss!r}" if settings.loss else f"output_kind {kind!r}"
        raise RecipeError(f'train.class_weights = "balanced" is for the usual cross-entropy of a classifier, not for {other}')
    if settings.loss:
        reference = find_callable(settings.loss, folder, LOSS_KEY)
        with loaded(reference, LOSS_KEY) as module:
            yield RecipeLoss(callable_in(module, reference, LOSS_KEY), kind)
    elif kind == "classification":
        yield CrossEntropy(balanced=balanced)
    else:
        yield RecipeLoss(_squared_error, kind)


def teaching_loss(
    teaching: Teaching, loss: Loss, outputs: tuple[torch.Tensor, ...], taught: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """How far the network's outputs lie from the teacher's (`taught`), summed over all of them.

    Between class scores T^2 * KL(softmax(teacher / T), softmax(student / T)), so that the gradient's size does not depend on T.
    Source: Hinton, Vinyals, Dean 2015, Distilling the Knowledge in a Neural Network. Else the mean squared error.
    """
    shapes = [list(output.shape) for output in outputs]
    if shapes != [list(output.shape) for output in taught]:
        raise NetworkError(f"the teacher's outputs are {[list(output.shape) for output in taught]}, the network's {shapes}")
    softens = isinstance(loss, RecipeLoss) and loss.kind == "classification" and teaching.scores == "logits"
    return torch.stack([
        _divergence(output, goal, teaching.temperature) if softens and output.ndim > 1 and output.shape[1] > 1
        else functional.mse_loss(output, goal)
        for output, goal in zip(outputs, taught, strict=True)
    ]).sum()  # fmt: skip


def as_outputs(outputs: Any) -> tuple[torch.Tensor, ...]:
    """A network's outputs as a tuple, whether it returns one tensor, several, or a dict of them."""
    if isinstance(outputs, torch.Tensor):
        return (outputs,)
    if isinstance(outputs, dict):
        return tuple(outputs.values())
    if isinstance(outputs, tuple | list) and all(isinstance(output, torch.Tensor) for output in outputs):
        return tuple(outputs)
    raise NetworkError(f"the network returned {type(outputs).__name__}; tensors, or a tuple or dict of them, are understood")


def bare(outputs: tuple[torch.Tensor, ...]) -> Any:
    """What a loss is given: the output itself where there is but one."""
    return outputs[0] if len(outputs) == 1 else outputs


def _divergence(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL divergence per example over the classes (dimension 1), times T^2."""
    softened = functional.log_softmax(student / temperature, 1)
    goal = functional.log_softmax(teacher / temperature, 1)
    per_row = functional.kl_div(softened, goal, reduction="none", log_target=True).sum(1)
    return per_row.mean() * temperature**2


def _squared_error(outputs: Any, targets: torch.Tensor) -> torch.Tensor:
    first = as_outputs(outputs)[0]
    return functional.mse_loss(first, targets.reshape(first.shape).to(first.dtype))
