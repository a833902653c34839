"""Are whole channels gone, by as much as was asked for, and does the rest still know its task?"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torchvision
from torch import nn
from torch_pruning.utils import count_ops_and_params

from tests.toolchain.compress.bars import Bars
from toolchain.compress.prune import NEAR_ENOUGH, Pruned, prune
from toolchain.compress.retrain import is_better
from toolchain.data.arrays import read_split
from toolchain.errors import NetworkError
from toolchain.pipeline import stages
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.stage import Runner
from toolchain.train.randomness import reproducible

HALF = Pruned(ratio=0.5, taught=False)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Torch's own threads wait for each other on a machine whose cores are busy."""
    with reproducible(0, 1):
        yield


def channels(network: nn.Module) -> list[int]:
    return [layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def test_the_form_has_the_wanted_share_of_multiplications_and_keeps_its_accuracy(bars: Bars) -> None:
    form, base = bars.make(HALF).value, bars.base.value
    assert form.form == "pruned50"
    assert form.variant.name == "pruned50-onnxruntime-float32"
    # two inner layers lose both ends, the first and the last one end: a bit over a quarter is left
    assert 0.25 < form.macs / base.macs < 0.35
    assert form.parameters < 0.3 * base.parameters
    assert form.variant.size_bytes < 0.6 * base.variant.size_bytes
    assert form.training is not None
    assert len(form.training.history) == 6  # compress.finetune_epochs
    assert form.training.history[form.training.best_epoch].metric >= 0.9
    assert form.rejected == ""
    assert form.control is None


def test_the_file_answers_as_its_reference_says_for_any_batch(bars: Bars) -> None:
    form = bars.make(HALF)
    session = onnxruntime.InferenceSession(form.folder / form.value.variant.model_file)
    reference = np.load(form.folder / form.value.reference[0])
    (images,), _ = read_split(bars.data.folder, bars.data.value.validation)
    for rows in (1, 5, len(images)):
        np.testing.assert_allclose(session.run(None, {"input": images[:rows]})[0], reference[:rows], atol=1e-4)


def test_made_twice_the_bytes_are_the_same(bars: Bars, tmp_path: Path) -> None:
    first = bars.make(HALF)
    again = Runner(StageCache(tmp_path), bars.progress, "again").execute(stages.form(HALF, bars.network, bars.base, bars.data))
    name = first.value.variant.model_file
    assert again.folder != first.folder
    assert (again.folder / name).read_bytes() == (first.folder / name).read_bytes()


def test_aligned_channels_come_as_near_as_the_uniform_cut() -> None:
    """torch-pruning rounds down what is left: of 32 and 64 channels 0.3 would leave 16 and 40 where they shall be multiples of 8."""
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.ReLU(), nn.Conv2d(64, 5, 3)
    )
    rows = (torch.zeros(2, 3, 20, 20),)
    whole, _ = count_ops_and_params(network, rows)
    narrow = prune(network, rows, 0.3)
    macs, _ = count_ops_and_params(narrow, rows)
    exact = nn.Sequential(
        nn.Conv2d(3, 22, 3), nn.ReLU(), nn.Conv2d(22, 44, 3), nn.ReLU(), nn.Conv2d(44, 44, 3), nn.ReLU(), nn.Conv2d(44, 5, 3)
    )
    wanted, _ = count_ops_and_params(exact, rows)
    assert wanted < 0.6 * whole
    assert macs == pytest.approx(wanted, rel=NEAR_ENOUGH)
    assert all(count % 4 == 0 for count in channels(narrow)[:-1])
    assert channels(network) == [32, 64, 64, 5]  # the network itself is left as it was


def test_the_smallest_channels_go() -> None:
    network = nn.Sequential(nn.Conv2d(1, 16, 1, bias=False), nn.ReLU(), nn.Conv2d(16, 2, 1, bias=False))
    sizes = torch.arange(1.0, 17)
    first, last = network[0], network[2]
    assert isinstance(first, nn.Conv2d)
    assert isinstance(last, nn.Conv2d)
    with torch.no_grad():
        first.weight.copy_(sizes.reshape(16, 1, 1, 1))
        last.weight.fill_(0.1)
    narrow = prune(network, (torch.zeros(2, 1, 4, 4),), 0.5)
    assert narrow[0].weight.flatten().tolist() == sizes[8:].tolist()  # type: ignore[index]


def test_outputs_keep_their_shape_where_no_linear_layer_ends_the_network() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU())
            self.map, self.names = nn.Conv2d(32, 6, 1), nn.Conv2d(32, 10, 1)

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            features = self.trunk(x)
            return {"map": self.map(features), "names": self.names(features).mean((2, 3)).softmax(1)}

    narrow = prune(Two().eval(), (torch.zeros(2, 3, 8, 8),), 0.5)
    answers = narrow(torch.zeros(4, 3, 8, 8))
    assert answers["map"].shape == (4, 6, 6, 6)
    assert answers["names"].shape == (4, 10)
    assert channels(narrow) == [16, 6, 10]


def test_depthwise_and_squeezed_layers_are_followed() -> None:
    network = torchvision.models.mobilenet_v3_small(num_classes=10).eval()
    rows = (torch.zeros(2, 3, 32, 32),)
    before, _ = count_ops_and_params(network, rows)
    narrow = prune(network, rows, 0.5)
    after, _ = count_ops_and_params(narrow, rows)
    assert 0.25 < after / before < 0.4
    assert narrow(torch.zeros(3, 3, 32, 32)).shape == (3, 10)


@pytest.mark.parametrize(
    ("callable_", "says"),
    [
        ("idle", "no layer of the network has channels that its outputs could do without"),
        ("Rigid", "torch-pruning cannot follow the network"),
    ],
)
def test_a_network_that_cannot_be_pruned_is_refused_with_the_way_out(bars: Bars, callable_: str, says: str) -> None:
    changed = bars.changed(f'model.network="bars.py:{callable_}"', "train.epochs=1")
    with pytest.raises(NetworkError, match=f'pruned50: {says}.*leave "prune" out of compress.methods'):
        bars.make(HALF, changed)


def test_a_network_that_came_with_its_weights_is_fine_tuned_and_this_is_said(bars: Bars, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    text = (bars.folder / "recipe.toml").read_text()
    start, end = text.index("[train]"), text.index("[compress]")
    recipe.write_text(text[:start] + text[end:])
    (tmp_path / "bars.py").write_text((bars.folder / "bars.py").read_text())
    untrained = Bars.__new__(Bars)
    untrained.folder, untrained.progress = tmp_path, bars.progress
    untrained.runner = Runner(StageCache(tmp_path / "cache"), bars.progress, "untrained")
    network = untrained.changed("compress.finetune_epochs=1")
    untrained.data = untrained._data(network)
    form = untrained.make(HALF, network).value
    assert form.training is not None
    assert len(form.training.history) == 1
    assert any("no [train]" in note and "compress.finetune_epochs" in note for note in bars.progress.notes)


def test_with_the_whole_network_as_teacher_the_better_of_both_is_kept(bars: Bars) -> None:
    taught = bars.make(Pruned(ratio=0.5, taught=True)).value
    alone = bars.make(HALF).value
    assert alone.training is not None
    assert taught.training is not None
    control = alone.training.history[alone.training.best_epoch]
    kept = taught.training.history[taught.training.best_epoch]
    assert taught.control == control.metric
    assert kept == control or is_better(bars.network.metric, kept, control)
