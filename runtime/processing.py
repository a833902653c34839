"""What do the processing steps named in a manifest compute? One code for host and device, NumPy only.

A step is a name and its options; a name this version does not know is refused when the artifact is opened, never skipped.
The endpoint returns the network's own tensors: steps serve the decoding of predictions, in the monitor and on the host.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from runtime.contract.artifact import Step
from runtime.errors import ProcessingError

Floats = NDArray[np.float64]


def softmax(values: Floats) -> Floats:
    """Probabilities over the last axis. NaN anywhere in a row makes the row NaN."""
    with np.errstate(invalid="ignore"):  # a row that is all -inf has no distribution: NaN, not a warning
        shares: Floats = np.exp(values - values.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
    return shares


def sigmoid(values: Floats) -> Floats:
    """1 / (1 + exp(-x)), by the half of the formula that cannot overflow."""
    decay = np.exp(-np.abs(values))
    result: Floats = np.where(values >= 0, 1, decay) / (1 + decay)
    return result


_STEPS: dict[str, Callable[[Floats], Floats]] = {"sigmoid": sigmoid, "softmax": softmax}


def check_steps(steps: Sequence[Step]) -> None:
    """Raise ProcessingError unless every step and option is known here."""
    for step in steps:
        if step.name not in _STEPS:
            raise ProcessingError(f"unknown processing step {step.name!r}; known here: {', '.join(sorted(_STEPS))}")
        if step.options:
            raise ProcessingError(f"processing step {step.name!r} takes no options, found {', '.join(sorted(step.options))}")


def apply_steps(steps: Sequence[Step], values: np.ndarray) -> Floats:
    """The values after all steps, as float64; the argument is left unmodified. Raises ProcessingError as `check_steps`."""
    check_steps(steps)
    result = np.asarray(values, dtype=np.float64)
    for step in steps:
        result = _STEPS[step.name](result)
    return result
