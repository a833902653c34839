"""What makes two trainings draw the same numbers, and how does a resumed one draw on where the first one was stopped?"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

_NUMPY_SEEDS = 2**32
"""NumPy takes seeds below this."""


@contextmanager
def reproducible(seed: int, threads: int) -> Iterator[None]:
    """Fixed randomness of torch, NumPy and Python and a fixed number of threads: all decide the weights. Restores what was before."""
    before = torch.get_num_threads(), np.random.get_state(), random.getstate()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            reseed(seed)
            yield
    finally:
        torch.set_num_threads(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def reseed(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % _NUMPY_SEEDS)
    random.seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """Where all generators stand, in types that `torch.load(weights_only=True)` takes."""
    name, keys, *rest = np.random.get_state(legacy=True)
    plain = (name, np.asarray(keys).tolist(), *rest)
    state = {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": plain}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
