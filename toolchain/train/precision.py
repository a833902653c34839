"""In which number format are a training step's matrix products computed, and what keeps small gradients from vanishing in it?

Weights, optimizer and loss stay float32 in any case; validation always runs in float32, as the exported model does.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from toolchain.errors import RecipeError

_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
_PLAIN = nullcontext()


class Precision:
    """Autocast for the forward pass and, for float16, gradients scaled so that they do not underflow.

    Source: Micikevicius et al. 2018, Mixed Precision Training. Raises RecipeError for float16 without a GPU.
    """

    def __init__(self, wanted: str, device: torch.device) -> None:
        if wanted == "float16" and device.type != "cuda":
            raise RecipeError('train.precision = "float16" needs a GPU; on a CPU take "bfloat16" or "float32"')
        self._device = device
        self._dtype = _DTYPES.get(wanted)
        self._scaler = torch.amp.GradScaler(device.type) if wanted == "float16" else None

    def computing(self) -> AbstractContextManager[Any]:
        """Around a forward pass."""
        return _PLAIN if self._dtype is None else torch.autocast(self._device.type, self._dtype)

    def widen(self, outputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Outputs as the loss takes them: float32 where the forward pass made them narrower."""
        if self._dtype is None:
            return outputs
        return tuple(output.float() if output.dtype == self._dtype else output for output in outputs)

    def backward(self, loss: torch.Tensor) -> None:
        scaled = loss if self._scaler is None else self._scaler.scale(loss)
        scaled.backward()  # type: ignore[no-untyped-call]

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """One step of the optimizer; False where it was left out because a scaled gradient overflowed."""
        if self._scaler is None:
            optimizer.step()
            return True
        before = self._scaler.get_scale()
        self._scaler.step(optimizer)
        self._scaler.update()
        return self._scaler.get_scale() >= before

    def state_dict(self) -> dict[str, Any]:
        return {} if self._scaler is None else self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._scaler is not None:
            self._scaler.load_state_dict(state)
