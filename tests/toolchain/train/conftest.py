"""A recipe with a network that training can do anything to, and its data as the stage gets them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from toolchain.benchmark.metrics import resolve_metrics
from toolchain.data.load import load_data
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.stage import Runner, Stored
from toolchain.recipe import load_recipe
from toolchain.train.network import NetworkSource
from toolchain.train.stage import Training

BREAST_CANCER = Path(__file__).parents[3] / "models" / "breast_cancer"
PLAIN = """

def plain(hidden=32):
    \"\"\"The same without BatchNorm and dropout: what it learns depends on no example's company, and on no chance.\"\"\"
    return nn.Sequential(nn.LayerNorm(len(FEATURES)), nn.Linear(len(FEATURES), hidden), nn.ReLU(), nn.Linear(hidden, 2))


def scaling():
    import torch

    return lambda inputs: inputs * (1 + 0.1 * torch.randn(()))
"""


class Bench:
    """A copy of the recipe with a cache of its own; the same one again where the folder is there."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "project"
        self.module = self.folder / "breast_cancer.py"
        if not self.folder.exists():
            shutil.copytree(BREAST_CANCER, self.folder, ignore=shutil.ignore_patterns("out", "__pycache__"))
            self.module.write_text(self.module.read_text() + PLAIN)
        self.cache = StageCache(root / "cache")
        self.progress = Silent()

    def training(self, *changes: str) -> Training:
        recipe = load_recipe(self.folder / "recipe.toml", ("train.epochs=3", *changes))
        splits = load_data(Runner(self.cache, Silent(), "data"), recipe, self.folder)
        return Training(
            recipe=recipe, folder=self.folder, source=NetworkSource(recipe.model, self.folder),
            metric=resolve_metrics(recipe, self.folder)[0], data=splits.part(splits.value.steering, splits.value.steering.digest),
            partial=self.cache.partial,
        )  # fmt: skip

    def train(self, *changes: str) -> Stored:
        return Runner(self.cache, self.progress, "test").execute(self.training(*changes).stage())


@pytest.fixture
def make_bench(tmp_path: Path) -> Callable[[str], Bench]:
    return lambda name: Bench(tmp_path / name)


@pytest.fixture
def bench(make_bench: Callable[[str], Bench]) -> Bench:
    return make_bench("bench")
