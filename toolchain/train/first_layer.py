"""How does the arithmetic at the end of a recipe's processing become the first layer of its network?

The network keeps its class's name, its parameters' names and its weights file, so that transfer learning, freezing and pruning
see what they would see without; only `forward` begins with the steps, and whoever exports it finds them in the graph.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from runtime.contract.artifact import Step
from runtime.processing.catalogue import options_of

if TYPE_CHECKING:
    from torch import Tensor, nn

_PREFIX = "first_layer"


def with_first_layer(network: "nn.Module", steps: Sequence[Step]) -> None:
    """Put `scale` and `normalize` steps before a network's forward, in place. The network takes one input."""
    import torch

    forms = []
    for index, step in enumerate(steps):
        options: dict[str, Any] = options_of(step)
        numbers = (options["mean"], options["std"]) if step.name == "normalize" else ((options["factor"],), (options["offset"],))
        for part, values in enumerate(numbers):
            # Not persistent: the weights file holds what training found, and these come from the recipe.
            network.register_buffer(f"{_PREFIX}_{index}_{part}", torch.tensor(values, dtype=torch.float32), persistent=False)
        forms.append((step.name, options.get("channels", "last")))
    base: Any = type(network)

    def forward(self: Any, value: "Tensor") -> Any:
        for index, (name, channels) in enumerate(forms):
            first, second = (_shaped(getattr(self, f"{_PREFIX}_{index}_{part}"), value, channels) for part in range(2))
            value = (value - first) / second if name == "normalize" else value * first + second
        return base.forward(self, value)

    # A subclass, not a wrapper or a replaced attribute: names stay, and a deep copy runs its own weights.
    network.__class__ = type(base.__name__, (base,), {"forward": forward, "__module__": base.__module__})


def _shaped(numbers: "Tensor", value: "Tensor", channels: str) -> "Tensor":
    """One number a channel, so that it meets its axis of a batch."""
    if channels == "last" or numbers.numel() == 1:
        return numbers
    return numbers.reshape(1, -1, *[1] * (value.ndim - 2))
