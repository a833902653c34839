"""Starting from weights of a file, and keeping parts of a network as they are."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.toolchain.train.small import network
from toolchain.errors import RecipeError
from toolchain.pipeline.progress import Silent
from toolchain.train.transfer import freeze, start_from, weights_file


def saved(path: Path, value: object) -> Path:
    torch.save(value, path)
    return path


def body(heads: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.Linear(16, heads))


def test_a_new_head_begins_anew_and_is_said_aloud(tmp_path):
    given, own, progress = body(9), body(3), Silent()
    head = own[2].weight.clone()
    start_from(own, saved(tmp_path / "w.pt", given.state_dict()), progress)
    assert torch.equal(own[0].weight, given[0].weight)
    assert torch.equal(own[2].weight, head)
    assert progress.notes == [
        "train.weights w.pt: 2 of 9 tensors have another shape in the network and were skipped: 2.bias, 2.weight"
    ]


@pytest.mark.parametrize("name", ["state_dict", "model_state_dict", "model"])
def test_weights_among_other_things_are_found(name, tmp_path):
    given, own, progress = network(), network(), Silent()
    start_from(own, saved(tmp_path / "w.pth", {"epoch": 3, name: given.state_dict()}), progress)
    assert all(torch.equal(a, b) for a, b in zip(given.state_dict().values(), own.state_dict().values(), strict=True))
    assert progress.notes == []


def test_what_is_only_in_the_file_or_only_in_the_network_is_said_aloud(tmp_path):
    given = {f"other.{number}": torch.zeros(1) for number in range(7)} | {"0.weight": torch.ones(16, 6), "0.bias": torch.ones(16)}
    own, progress = nn.Sequential(nn.Linear(6, 16), nn.Linear(16, 3)), Silent()
    start_from(own, saved(tmp_path / "w.pt", given), progress)
    assert torch.equal(own[0].weight, torch.ones(16, 6))
    assert progress.notes == [
        "train.weights w.pt: 7 of 9 tensors are not in the network and were skipped: "
        "other.0, other.1, other.2, other.3, other.4 and 2 more",
        "train.weights w.pt: 2 of the network's tensors are not in the file and begin anew: 1.bias, 1.weight",
    ]


class Harmful:
    def __reduce__(self):
        return (Path.write_text, (Path("harm"), "done"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            {"features.0.weight": torch.zeros(1)},
            "nothing in w.pt fits the network: it holds features.0.weight; the network has 0.bias",
        ),
        ({"epoch": 3}, "holds no tensors by name"),
        (torch.zeros(3), "holds no tensors by name"),
        (Harmful(), "loading it would run its code"),
        (b"not a file of torch", "holds more than tensors|cannot be read as weights"),
        (b"PK\x03\x04 cut off", "cannot be read as weights"),
        (b"", "cannot be read as weights"),
    ],
    ids=["other network", "no tensors", "no names", "code", "text", "cut", "empty"],
)
def test_files_that_are_no_start_are_refused(content, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        saved(path, content)
    with pytest.raises(RecipeError, match=words) as caught:
        start_from(network(), path, Silent())
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(("text", "words"), [("w.onnx", "not one of .pt, .pth"), ("absent.pt", "no file 'absent.pt'")])
def test_files_that_are_none_are_named(text, words, tmp_path):
    with pytest.raises(RecipeError, match=words):
        weights_file(text, tmp_path)


@pytest.mark.parametrize(
    ("prefixes", "frozen"),
    [(("0",), {"0.weight", "0.bias"}), (("0.", "4.bias"), {"0.weight", "0.bias", "4.bias"}), ((), set())],
)
def test_prefixes_freeze_whole_parts(prefixes, frozen):
    net = network()
    freeze(net, prefixes)
    assert {name for name, weight in net.named_parameters() if not weight.requires_grad} == frozen


def test_an_unknown_part_is_named_with_the_nearest():
    net = nn.Sequential()
    net.features, net.head = nn.Sequential(nn.Linear(2, 2)), nn.Linear(2, 2)
    with pytest.raises(RecipeError, match=r"train.freeze: .* below 'feature'; nearest is 'features'"):
        freeze(net, ("feature",))
    with pytest.raises(RecipeError, match=r"leave nothing of the network to train"):
        freeze(net, ("features", "head"))
