"""Which weights are judged and kept: those of the last step, or an average over the steps before it?"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

WARM_UP = 10
"""The decay of step n is at most (1 + n) / (10 + n), or the first weights would outlive a short training.
Source: TensorFlow's ExponentialMovingAverage with num_updates."""


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """An exponential moving average of a network's weights, and of BatchNorm's statistics, which belong to the weights they saw."""
    return AveragedModel(network, multi_avg_fn=_moving_average(decay), use_buffers=True)


def _moving_average(decay: float) -> Callable[..., None]:
    @torch.no_grad()
    def update(averages: Any, values: Any, steps: torch.Tensor) -> None:
        count = float(steps)
        keep = min(decay, (1 + count) / (WARM_UP + count))
        if torch.is_floating_point(averages[0]):
            torch._foreach_lerp_(averages, values, 1 - keep)
        else:  # counters have no mean
            torch._foreach_copy_(averages, values)

    return update
