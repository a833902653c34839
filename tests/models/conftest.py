"""The models' own code, run as the toolchain runs it: a recipe's data source through its stage, its network through its source."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.toolchain.conftest import quick_and_untracked
from toolchain.data.arrays import read_split
from toolchain.data.load import load_data
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.products import DataSplits
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.stage import Runner
from toolchain.recipe import Recipe, load_recipe
from toolchain.train.network import NetworkSource

__all__ = ["quick_and_untracked"]  # builds here judge no speed either

MODELS = Path(__file__).parents[2] / "models"
Arrays = tuple[np.ndarray, np.ndarray]


class Loaded(msgspec.Struct, frozen=True):
    """What a recipe's data source returned: (input, targets) of each split, and what is said of them."""

    splits: DataSplits
    train: Arrays
    validation: Arrays
    test: Arrays


Load = Callable[..., Loaded]
"""Of a model's folder name and settings such as "data.options.path=..."."""


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def run(model: str, *settings: str) -> Loaded:
        runner = Runner(StageCache(tmp_path / "cache"), Silent(), model)
        stored = load_data(runner, recipe_of(model, *settings), MODELS / model)
        splits = stored.value
        parts = (splits.steering.train, splits.steering.validation, splits.held_out.test)
        arrays = [read_split(stored.folder, part) for part in parts]
        return Loaded(splits, *((inputs[0], targets) for inputs, targets in arrays))

    return run


def recipe_of(model: str, *settings: str) -> Recipe:
    return load_recipe(MODELS / model / "recipe.toml", settings)


def network_of(model: str, *settings: str) -> Any:
    return NetworkSource(recipe_of(model, *settings).model, MODELS / model).build()


def published_size(network: Any) -> int:
    """Numbers as Keras counts them: trainable ones, and running means and variances, though not torch's batch counters."""
    statistics = [buffer for name, buffer in network.named_buffers() if not name.endswith("num_batches_tracked")]
    return sum(part.numel() for part in [*network.parameters(), *statistics])


def learn(
    network: Any, loss: Callable[[Any, Any], Any], data: Arrays, steps: int = 30, rate: float = 0.003
) -> tuple[float, float, np.ndarray]:
    """The loss before and after a few steps on one batch, and the outputs in evaluation mode."""
    import torch

    inputs, targets = (torch.from_numpy(array) for array in data)
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    network.train()
    values = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(network(inputs), targets)
        value.backward()
        optimizer.step()
        values.append(value.item())
    network.eval()
    with torch.no_grad():
        return values[0], values[-1], network(inputs).numpy()
