"""Which networks and projects does plain int8 ruin? A fixed list, each a small seeded project as a user would have it.

A row trains a float network in seconds on one thread, spoils it where the row says so by a rewrite that leaves every answer what
it was (`spoil`), and may hand the toolchain another training split than the one it learnt from (`calibration`). `lay` writes the
project: this file as `collapse.py`, the weights beside it, and a recipe. The list was fixed before anything to recover from it was
written; only a bug of a row may be mended.

Sources of the shapes: Nagel et al. 2019, "Data-Free Quantization" (channels of unlike range); Xiao et al. 2023, "SmoothQuant"
(massive channels of a LayerNorm); ONNX Runtime, "Quantize ONNX models"; Nagel et al. 2021, "A White Paper on Quantization".
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn

CALIBRATION_ROWS = 64
STRIDE = 10
"""A training split of 63 strides and one row, so that drawing 64 rows evenly draws exactly every tenth."""
ROWS = STRIDE * (CALIBRATION_ROWS - 1) + 1
SEED = 11
RARE_PIXEL = 62

Part = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Data:
    """float32 inputs and targets of three splits; classes is 0 for a regression."""

    train: Part
    validation: Part
    test: Part
    classes: int

    def splits(self, train: Part | None = None) -> dict[str, object]:
        """As a data source of the toolchain returns them."""
        found: dict[str, object] = {"train": train or self.train, "validation": self.validation, "test": self.test}
        return found | ({"classes": [str(index) for index in range(self.classes)]} if self.classes else {})


def unspoilt(network: nn.Module) -> nn.Module:
    return network


def as_trained(data: Data) -> Part:
    return data.train


@dataclass(frozen=True)
class Collapse:
    """One row. engine: whose plain int8 collapses; why: in one sentence; max_drop: the recipe's limit, absolute."""

    name: str
    why: str
    engine: str
    data: Callable[[], Data]
    architecture: Callable[[], nn.Module]
    spoil: Callable[[nn.Module], nn.Module] = unspoilt
    calibration: Callable[[Data], Part] = as_trained
    metric: str = "accuracy"
    max_drop: float = 0.02
    epochs: int = 40


# ---------------------------------------------------------------- data


def _cut(inputs: np.ndarray, targets: np.ndarray, classes: int) -> Data:
    """A quarter each for validation and test, shuffled by a fixed seed."""
    order = np.random.default_rng(0).permutation(len(targets))
    quarter = len(order) // 4
    parts = (order[2 * quarter :], order[quarter : 2 * quarter], order[:quarter])
    kind = np.int64 if classes else np.float32
    train, validation, test = ((inputs[rows].astype(np.float32), targets[rows].astype(kind)) for rows in parts)
    return Data(train, validation, test, classes)


def images() -> Data:
    """scikit-learn's digits, float32[n, 1, 8, 8] in 0..1."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return _cut(pixels.reshape(-1, 1, 8, 8) / 16, labels, 10)


def pixels() -> Data:
    """The same as rows of 64."""
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    return _cut(rows / 16, labels, 10)


def histograms() -> Data:
    """The same, each row divided by its sum: the sum of every row is one."""
    from sklearn.datasets import load_digits

    rows, labels = load_digits(return_X_y=True)
    return _cut(rows / rows.sum(axis=1, keepdims=True), labels, 10)


def faint() -> Data:
    """The same at 1/300 of the contrast, on a grey ground of one half."""
    data = pixels()
    return Data(*((0.5 + rows / 300, labels) for rows, labels in (data.train, data.validation, data.test)), classes=10)


def tumours() -> Data:
    """scikit-learn's breast_cancer as it comes: 30 measurements between 1e-3 and 4e3."""
    from sklearn.datasets import load_breast_cancer

    rows, labels = load_breast_cancer(return_X_y=True)
    return _cut(rows, labels, 2)


def wines() -> Data:
    """scikit-learn's wine as it comes (proline about 750, hue about 1), each bottle three times with 2 % noise of measurement."""
    from sklearn.datasets import load_wine

    rows, labels = load_wine(return_X_y=True)
    rows, labels = np.tile(rows, (3, 1)), np.tile(labels, 3)
    return _cut(rows * np.random.default_rng(2).normal(1, 0.02, rows.shape), labels, 3)


def concentrations() -> Data:
    """Eight log-normal concentrations over nine decades; the class is which of three pairs is saturated most."""
    generator = np.random.default_rng(3)
    rows = np.exp(generator.normal(0, 3.5, (1600, 8)))
    bound = rows / (rows + 1)
    return _cut(rows, np.argmax(bound[:, :3] + bound[:, 3:6], axis=1), 3)


def growth() -> Data:
    """Four variables and a positive target over six decades, float32[n, 1]."""
    generator = np.random.default_rng(4)
    rows = generator.uniform(-1, 1, (1600, 4))
    target = np.exp(4 * rows[:, 0] + 2 * np.sin(3 * rows[:, 1]) + rows[:, 2] * rows[:, 3])
    return _cut(rows, target[:, None], 0)


def kelvins() -> Data:
    """Four variables and a temperature of 293 K, give or take one, float32[n, 1]."""
    data = growth()
    return Data(*((rows, 293 + np.log(target) / 6) for rows, target in (data.train, data.validation, data.test)), classes=0)


# ---------------------------------------------------------------- networks


class Standardize(nn.Module):
    """(x - mean) / spread, a column each; columns that never vary count as varying by 1e-4."""

    def __init__(self, rows: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("mean", torch.from_numpy(rows.mean(axis=0)))
        self.register_buffer("spread", torch.from_numpy(rows.std(axis=0).clip(1e-4)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - self.mean) / self.spread


class Exponential(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.exp(x)


class Saturation(nn.Module):
    """Michaelis-Menten: x / (x + 1)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / (x + 1)


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class Branches(nn.Module):
    """Two branches over the same input, side by side."""

    def __init__(self, first: nn.Module, second: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self.head = first, second, head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.first(x), self.second(x)], dim=1))


class Attention(nn.Module):
    """Self-attention with separate projections."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.heads, self.size = heads, width // heads
        self.divisor = self.size**0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            part(x).reshape(-1, x.shape[1], self.heads, self.size).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        weights = torch.softmax(query @ key.transpose(2, 3) / self.divisor, dim=-1)
        return self.out((weights @ value).transpose(1, 2).reshape(-1, x.shape[1], self.heads * self.size))


class Transformer(nn.Module):
    """The eight lines of a digit as tokens; two pre-norm blocks of attention and a GELU network."""

    def __init__(self, width: int = 32, blocks: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.place = nn.Parameter(torch.randn(1, 8, width) * 0.1)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    Residual(nn.Sequential(nn.LayerNorm(width), Attention(width, 2))),
                    Residual(
                        nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
                    ),
                )
                for _ in range(blocks)
            )
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x.reshape(-1, 8, 8)) + self.place
        return self.head(self.norm(self.blocks(x)).mean(dim=1))


def conv(width: int = 16) -> nn.Sequential:
    """Three convolutions; layer 3 reads what the first normalisation (layer 1) writes."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 10),
    )  # fmt: skip


def separable(width: int = 24, blocks: int = 3, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Depthwise and pointwise convolutions by turns."""
    layers: list[nn.Module] = [nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), activation()]
    for _ in range(blocks):
        layers += [nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width), activation()]
        layers += [nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width), activation()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def dense(*sizes: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inside, outside in pairwise(sizes):
        layers += [nn.Linear(inside, outside), activation()]
    return nn.Sequential(*layers[:-1])


def standardized(data: Data, *sizes: int) -> nn.Sequential:
    """A dense network behind the usual standardisation; `folded` puts it into the first dense layer."""
    return nn.Sequential(Standardize(data.train[0]), *dense(*sizes))


def two_branches() -> Branches:
    def branch() -> nn.Sequential:
        return nn.Sequential(nn.Linear(64, 24), nn.ReLU())

    return Branches(branch(), branch(), nn.Linear(48, 10))


def thermometer() -> nn.Sequential:
    """A dense network that begins at 293."""
    layers = dense(4, 48, 48, 1)
    assert isinstance(layers[-1], nn.Linear)
    nn.init.constant_(layers[-1].bias, 293.0)
    return layers


def stream() -> nn.Sequential:
    """Six residual blocks of two dense layers around a stream of 32 features."""
    return nn.Sequential(nn.Linear(64, 32), *(Residual(dense(32, 32, 32)) for _ in range(6)), nn.Linear(32, 10))


# ---------------------------------------------------------------- rewrites that leave every answer what it was


def one_channel(network: nn.Module, factor: float = 1000.0) -> nn.Module:
    """The first normalised channel of `conv` times `factor`, and its readers' weights by it."""
    assert isinstance(network, nn.Sequential)
    network[1].weight.data[0] *= factor
    network[1].bias.data[0] *= factor
    network[3].weight.data[:, 0] /= factor
    return network


def one_neuron(network: nn.Module, layer: int = 0, factor: float = 1000.0) -> nn.Module:
    """One neuron of a dense layer times `factor`, and its readers' weights by it."""
    assert isinstance(network, nn.Sequential)
    network[layer].weight.data[3] *= factor
    network[layer].bias.data[3] *= factor
    network[layer + 2].weight.data[:, 3] /= factor
    return network


def unlike_channels(network: nn.Module) -> nn.Module:
    """Every channel between a depthwise and a pointwise convolution of `separable` by a factor of its own, 1e-2 to 1e2."""
    assert isinstance(network, nn.Sequential)
    generator = torch.Generator().manual_seed(SEED)
    for index, layer in enumerate(network):
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            factors = 10 ** (torch.rand(layer.out_channels, generator=generator) * 4 - 2)
            network[index + 1].weight.data *= factors
            network[index + 1].bias.data *= factors
            network[index + 3].weight.data /= factors[None, :, None, None]
    return network


def _with_neuron(network: nn.Module, weight: torch.Tensor, bias: float) -> nn.Module:
    """A further neuron in the first layer, which nobody reads."""
    assert isinstance(network, nn.Sequential)
    network[0], network[2] = _widened(network[0], 0, 1), _widened(network[2], 1, 0)
    network[0].weight.data[-1], network[0].bias.data[-1] = weight, bias
    return network


def rare_neuron(network: nn.Module) -> nn.Module:
    """A further neuron that fires, enormously, for the three in a hundred rows that are bright in one place."""
    weight = torch.zeros(64)
    weight[RARE_PIXEL] = 1e5
    return _with_neuron(network, weight, -0.9e5)


def unread_neuron(network: nn.Module) -> nn.Module:
    """A further neuron of enormous weights."""
    return _with_neuron(network, torch.linspace(-500, 500, 64), 0.0)


def growing_feature(network: nn.Module) -> nn.Module:
    """A further feature of `stream`, which no other reads, and which every block multiplies by four: 1, 4, ... 4,096."""
    assert isinstance(network, nn.Sequential)
    network[0], network[-1] = _widened(network[0], 0, 1), _widened(network[-1], 1, 0)
    network[0].bias.data[-1] = 1.0
    for block in network[1:-1]:
        first, second = _widened(block.body[0], 1, 1), _widened(block.body[2], 1, 1)
        first.weight.data[-1, -1], second.weight.data[-1, -1] = 1.0, 3.0
        block.body[0], block.body[2] = first, second
    return network


def _widened(layer: nn.Linear, inputs: int, outputs: int) -> nn.Linear:
    """The layer with zero weights for so many further inputs and outputs."""
    wide = nn.Linear(layer.in_features + inputs, layer.out_features + outputs)
    with torch.no_grad():
        wide.weight.zero_()
        wide.bias.zero_()
        wide.weight[: layer.out_features, : layer.in_features], wide.bias[: layer.out_features] = layer.weight, layer.bias
    return wide


def massive_norms(network: nn.Module, factor: float = 300.0) -> nn.Module:
    """One channel of every LayerNorm before a dense layer times `factor`, as large language models grow them."""
    assert isinstance(network, Transformer)
    with torch.no_grad():
        for attend, think in network.blocks:  # type: ignore[misc]
            for norm, readers in (
                (attend.body[0], (attend.body[1].query, attend.body[1].key, attend.body[1].value)),
                (think.body[0], (think.body[1],)),
            ):
                norm.weight[5] *= factor
                norm.bias[5] *= factor
                for reader in readers:
                    reader.weight[:, 5] /= factor
    return network


def large_bias(network: nn.Module) -> nn.Module:
    """All logits raised by the same 5,000, which no class gains by."""
    assert isinstance(network, nn.Sequential)
    network[-1].bias.data += 5000.0
    return network


def raised_weights(network: nn.Module) -> nn.Module:
    """All weights of the first layer raised by the same 30: with inputs that sum to one, 30 more in each answer, taken off the bias."""
    assert isinstance(network, nn.Sequential)
    network[0].weight.data += 30.0
    network[0].bias.data -= 30.0
    return network


def folded(network: nn.Module) -> nn.Module:
    """The standardisation put into the first dense layer, which then reads the raw table."""
    assert isinstance(network, nn.Sequential)
    before, first = network[0], network[1]
    first.bias.data -= first.weight.data @ (before.mean / before.spread)
    first.weight.data /= before.spread
    return nn.Sequential(*network[1:])


def side_by_side(network: nn.Module) -> nn.Module:
    """The second branch times 2,000, its readers' weights by it: the joined tensor has one scale for both."""
    assert isinstance(network, Branches)
    last = network.second[0]
    last.weight.data *= 2000.0
    last.bias.data *= 2000.0
    network.head.weight.data[:, last.out_features :] /= 2000.0
    return network


# ---------------------------------------------------------------- calibration sets


def _strided(data: Data, rows: np.ndarray, targets: np.ndarray) -> Part:
    """The training split with the given rows in every tenth place."""
    inputs, labels = data.train[0][:ROWS].copy(), data.train[1][:ROWS].copy()
    inputs[::STRIDE], labels[::STRIDE] = rows, targets
    return inputs, labels


def dark_frames(data: Data) -> Part:
    """Every tenth image is the camera's dark frame."""
    blank = np.zeros((CALIBRATION_ROWS, *data.train[0].shape[1:]), np.float32)
    return _strided(data, blank, np.zeros(CALIBRATION_ROWS, np.int64))


def one_class(data: Data) -> Part:
    """Every tenth row is a faint example of class 1, as if the recording rested there."""
    rows = np.resize(data.train[0][data.train[1] == 1] * 0.25, (CALIBRATION_ROWS, *data.train[0].shape[1:]))
    return _strided(data, rows.astype(np.float32), np.ones(CALIBRATION_ROWS, np.int64))


def broken_sensor(data: Data) -> Part:
    """Two of the rows drawn hold readings of a broken sensor, a thousand times too large."""
    inputs, labels = data.train[0][:ROWS].copy(), data.train[1][:ROWS].copy()
    inputs[[20 * STRIDE, 41 * STRIDE]] *= 1000.0
    return inputs, labels


# ---------------------------------------------------------------- metrics beside the built-in ones


def relative_error(outputs: np.ndarray, targets: np.ndarray) -> float:
    """Mean of |answer - target| / target."""
    return float((np.abs(outputs - targets) / targets).mean())


# ---------------------------------------------------------------- the list

ORT, OV = "onnxruntime", "openvino"

COLLAPSES: tuple[Collapse, ...] = (
    Collapse("dark-frames", "every calibration row drawn is a blank image", ORT, images, conv, epochs=12, calibration=dark_frames),
    Collapse("dark-frames-openvino", "the same for NNCF", OV, images, conv, epochs=12, calibration=dark_frames),
    Collapse("one-class", "every calibration row drawn is a faint example of one class", ORT, pixels,
             lambda: dense(64, 48, 48, 10), calibration=one_class),
    Collapse("broken-sensor", "two calibration rows of 64 are a thousand times too large", ORT, images, conv, epochs=12, calibration=broken_sensor),
    Collapse("broken-sensor-openvino", "the same for NNCF, a network of depthwise convolutions", OV, images, separable, epochs=15,
             calibration=broken_sensor),
    Collapse("exploding-channel", "one channel between two convolutions is 1,000 times the others", ORT, images, conv, epochs=12, spoil=one_channel),
    Collapse("exploding-neuron", "one neuron is 1,000 times the others", OV, pixels, lambda: dense(64, 48, 48, 10), spoil=one_neuron),
    Collapse("rare-neuron", "one neuron fires for few rows, enormously", ORT, pixels, lambda: dense(64, 48, 48, 10), spoil=rare_neuron),
    Collapse("unlike-channels", "depthwise outputs differ by four decades from channel to channel", ORT, images, separable, epochs=15,
             spoil=unlike_channels),
    Collapse("unread-neuron", "a neuron behind hard-swish, which nobody reads, is 1,000 times the others", ORT, pixels,
             lambda: dense(64, 48, 48, 10, activation=nn.Hardswish), spoil=unread_neuron),
    Collapse("raw-tumours", "raw measurements between 1e-3 and 4e3 share one scale", ORT, tumours,
             lambda: standardized(tumours(), 30, 32, 16, 2), spoil=folded, max_drop=0.03),
    Collapse("raw-wine", "the same for NNCF, with proline in the hundreds", OV, wines,
             lambda: standardized(wines(), 13, 32, 16, 3), spoil=folded, max_drop=0.03),
    Collapse("faint-picture", "the picture's contrast is below one step of the input's scale", ORT, faint,
             lambda: standardized(faint(), 64, 48, 48, 10), spoil=folded),
    Collapse("growing-residual", "one feature of a residual stream grows fourfold with each of six blocks", ORT, pixels, stream,
             spoil=growing_feature),
    Collapse("massive-norms", "one channel of each LayerNorm is 300 times the others", ORT, pixels, Transformer, epochs=25, spoil=massive_norms),
    Collapse("massive-norms-openvino", "the same for NNCF", OV, pixels, Transformer, epochs=25, spoil=massive_norms),
    Collapse("raised-weights", "all weights of a layer share an offset, and symmetric codes are the wrong scheme", OV, histograms,
             lambda: dense(64, 48, 48, 10), spoil=raised_weights),
    Collapse("side-by-side", "a joined tensor of two branches, one 2,000 times the other", OV, pixels, two_branches, spoil=side_by_side),
    Collapse("saturation", "inputs over nine decades meet an addition of one", ORT, concentrations,
             lambda: nn.Sequential(Saturation(), dense(8, 32, 32, 3))),
    Collapse("wide-regression", "a target over six decades, judged by its relative error", OV, growth,
             lambda: nn.Sequential(dense(4, 48, 48, 1), Exponential()), metric="collapse.py:relative_error", max_drop=0.02),
    Collapse("kelvin", "a temperature that varies by one degree is told in kelvin", ORT, kelvins,
             thermometer, metric="mae", max_drop=0.02),
    Collapse("large-bias", "logits share a bias that is a thousand times their differences", ORT, pixels,
             lambda: dense(64, 48, 48, 10), spoil=large_bias),
)  # fmt: skip
"""Rows of one shape for two engines stand beside each other: what an engine tries next differs."""


def named(name: str) -> Collapse:
    return next(row for row in COLLAPSES if row.name == name)


# ---------------------------------------------------------------- one row as a project

RECIPE = """[model]
name = "{name}"
version = "1.0.0"
network = "collapse.py:network"
options = {{ name = "{name}" }}
output_kind = "{kind}"

[data]
source = "collapse.py:splits"
options = {{ name = "{name}" }}

[metric]
name = "{metric}"
goal = "{goal}"
max_drop = {max_drop}

[compress]
methods = ["quantize"]
calibration_rows = {rows}

[[target]]
profile = "intel-cpu-vnni"
engines = ["{engine}"]
"""


def lay(row: Collapse, folder: Path) -> Path:
    """Train, spoil, and write the project of one row; returns its recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(row.spoil(fit(row)).eval().state_dict(), folder / "weights.pt")
    shutil.copyfile(__file__, folder / "collapse.py")
    recipe = folder / "recipe.toml"
    recipe.write_text(
        RECIPE.format(
            name=row.name, kind="classification" if row.data().classes else "regression", engine=row.engine,
            metric=row.metric, max_drop=row.max_drop,
            goal="max" if row.metric == "accuracy" else "min", rows=CALIBRATION_ROWS,
        )
    )  # fmt: skip
    return recipe


def network(name: str) -> nn.Module:
    """What the recipe's `model.network` names: the spoilt network with its weights."""
    row = named(name)
    made = row.spoil(row.architecture())
    made.load_state_dict(torch.load(Path(__file__).with_name("weights.pt"), weights_only=True))
    return made


def splits(name: str) -> dict[str, object]:
    """What the recipe's `data.source` names."""
    row = named(name)
    data = row.data()
    return data.splits(row.calibration(data))


def fit(row: Collapse) -> nn.Module:
    """The row's network trained on its data, one thread, seeded: Adam, cross-entropy or squared error of logarithms."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # another number gives other weights, and on busy cores takes many times as long
    torch.manual_seed(SEED)
    try:
        return _trained(row, row.data(), row.architecture())
    finally:
        torch.set_num_threads(threads)


def _trained(row: Collapse, data: Data, model: nn.Module) -> nn.Module:
    inputs, targets = (torch.from_numpy(array) for array in data.train)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, row.epochs)
    model.train()
    for _ in range(row.epochs):
        for rows in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            answers = model(inputs[rows])
            loss = (
                nn.functional.cross_entropy(answers, targets[rows])
                if data.classes
                else (answers.log() - targets[rows].log()).square().mean() * 1e4  # far above Adam's epsilon for kelvins too
            )
            loss.backward()
            optimizer.step()
        schedule.step()
    return model.eval()
