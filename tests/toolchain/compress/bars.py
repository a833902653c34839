"""What forms and schemes are made from: a recipe's network, trained, its float ONNX and its data."""

from pathlib import Path

from toolchain.benchmark.metrics import resolve_metrics
from toolchain.compress.base import Form, Ground, Network, Scheme
from toolchain.data.load import load_data
from toolchain.pipeline import stages
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.products import FloatModel, Variant
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.stage import Runner, Stored
from toolchain.recipe import load_recipe
from toolchain.train.network import NetworkSource
from toolchain.train.stage import Training

RECIPE = """
[model]
name = "bars"
version = "1.0.0"
network = "bars.py:network"
[data]
source = "bars.py:splits"
[train]
epochs = 8
batch_size = 32
learning_rate = 0.01
seed = 1
[compress]
methods = ["prune"]
finetune_epochs = 6
"""
MODULE = '''
import numpy as np
import torch
from torch import nn


def splits():
    """float32[n, 1, 16, 16] with one bar each: lying, standing, falling, rising."""
    drawn = np.random.default_rng(0)
    def draw(rows):
        labels = np.arange(rows) % 4
        images = drawn.normal(0, 0.4, (rows, 1, 16, 16)).astype(np.float32)
        for image, label in zip(images, labels):
            place = drawn.integers(3, 13)
            bar = {0: np.s_[place, :], 1: np.s_[:, place]}
            if label in bar:
                image[0][bar[label]] += 1
            else:
                steps = np.arange(16)
                image[0, steps, steps if label == 2 else 15 - steps] += 1
        return images, labels
    return {"train": draw(384), "validation": draw(128), "test": draw(32)}


class Around(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inside = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        return torch.relu(x + self.inside(x))


def network(width=16):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, 2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), Around(width), Around(width), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 4),
    )


def idle():
    """One layer, which makes the outputs: nothing can go."""
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 4))


def pairs():
    """Two scores where the network has four."""
    return nn.Sequential(nn.Flatten(), nn.Linear(256, 2))


class Blind(nn.Module):
    """Says the same to every picture, whatever it is taught."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, x):
        return torch.tensor([20.0, 0.0, 0.0, 0.0]).expand(len(x), 4) + 0 * self.bias


blind = Blind


class Rigid(nn.Module):
    """Its own code knows how many channels there are."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 3), nn.Linear(8 * 14 * 14, 4)

    def forward(self, x):
        return self.second((self.first(x) * torch.ones(8, 1, 1)).flatten(1))
'''


class Bars:
    """The recipe above with changes to it; the base is trained once for equal changes."""

    def __init__(self, root: Path) -> None:
        self.folder = root
        (root / "recipe.toml").write_text(RECIPE)
        (root / "bars.py").write_text(MODULE)
        self.progress = Silent()
        self.runner = Runner(StageCache(root / "cache"), self.progress, "bars")
        self.network = self.changed()
        self.data = self._data(self.network)
        self.base = self._base(self.network)

    def changed(self, *changes: str) -> Network:
        """The recipe's network under changed keys, trained where that is new."""
        recipe = load_recipe(self.folder / "recipe.toml", changes)
        splits = load_data(self.runner, recipe, self.folder)
        data = splits.part(splits.value.steering, splits.value.steering.digest)
        source, metric = NetworkSource(recipe.model, self.folder), resolve_metrics(recipe, self.folder)[0]
        training = Training(recipe=recipe, folder=self.folder, source=source, metric=metric, data=data)
        return Network(
            recipe=recipe, folder=self.folder, source=source, trained=self.runner.execute(training.stage()), metric=metric
        )

    def make(self, form: Form, network: Network | None = None) -> Stored[FloatModel]:
        network = network or self.network
        return self.runner.execute(stages.form(form, network, self._base(network), self.data))

    def compress(self, scheme: Scheme, work: Path, weight_bits: int = 8) -> Stored[Variant]:
        """Not through the cache, so that it is made every time."""
        ground = Ground(
            model=self.base, data=self.data, metric=self.network.metric, settings=self.network.recipe.compress,
            weight_bits=weight_bits, network=self.network,
        )  # fmt: skip
        work.mkdir()
        return Stored(scheme.make(ground, f"{scheme.engine}-{scheme.name}", work, self.progress), work, "")

    def _data(self, network: Network):  # type: ignore[no-untyped-def]
        splits = load_data(self.runner, network.recipe, self.folder)
        return splits.part(splits.value.steering, splits.value.steering.digest)

    def _base(self, network: Network) -> Stored[FloatModel]:
        return self.runner.execute(stages.to_onnx(network.source, network.trained, self._data(network)))
