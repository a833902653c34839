"""Is a network with the recipe's arithmetic as its first layer the same network on unscaled data, in torch and in ONNX?

1e-5: the same float32 sums, but an engine may fold the arithmetic into the first convolution.
"""

import copy
from pathlib import Path

import numpy as np
import pytest

from runtime.contract.artifact import Step
from runtime.processing.pipeline import Preparation
from toolchain.errors import RecipeError
from toolchain.recipe import in_graph_of, parse_recipe, processing_of
from toolchain.train.network import NetworkSource

PRE = [
    {"name": "resize", "height": 8, "width": 8},
    {"name": "to_float"},
    {"name": "normalize", "mean": [0.5, 0.25, 0.4], "std": [0.2, 0.3, 0.1]},
    {"name": "channels_first"},
    {"name": "scale", "factor": 0.5, "offset": 1},
]
CODE = """
from torch import nn
def network():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
"""


def recipe_of(**processing):
    return parse_recipe(
        {
            "model": {"name": "m", "version": "1.0.0", "network": "net.py:network"},
            "data": {"source": "net.py:splits"},
            "processing": processing,
        },
        "recipe.toml",
    )


@pytest.fixture
def sources(tmp_path: Path):
    """The network by a recipe without the arithmetic inside, and with it."""
    (tmp_path / "net.py").write_text(CODE)
    recipes = recipe_of(pre=PRE), recipe_of(pre=PRE, in_graph=True)
    return [(NetworkSource(one.model, tmp_path, in_graph=in_graph_of(one)), processing_of(one).pre) for one in recipes]


@pytest.fixture
def pictures():
    return [np.random.default_rng(0).integers(0, 256, (side, 9, 3)).astype(np.uint8) for side in (8, 11, 30)]


def test_the_arithmetic_at_the_end_moves_and_the_rest_stays():
    recipe = recipe_of(pre=PRE, in_graph=True)
    assert [step.name for step in processing_of(recipe).pre] == ["resize", "to_float", "channels_first"]
    inside = in_graph_of(recipe)
    assert [step.name for step in inside] == ["normalize", "scale"]
    assert inside[0].options == {"mean": "0.5,0.25,0.4", "std": "0.2,0.3,0.1", "channels": "first"}
    assert in_graph_of(recipe_of(pre=PRE)) == ()


def test_it_is_the_same_network(sources, pictures):
    import torch

    (plain, all_steps), (inside, first_steps) = sources
    torch.manual_seed(0)
    network = plain.build().eval()
    layered = inside.build().eval()
    assert list(network.state_dict()) == list(layered.state_dict()), "weights files fit both"
    layered.load_state_dict(network.state_dict())
    outside = torch.from_numpy(np.stack([Preparation(all_steps).one(one) for one in pictures]))
    within = torch.from_numpy(np.stack([Preparation(first_steps).one(one) for one in pictures]))
    assert within.min() >= 0
    assert within.max() <= 1
    with torch.no_grad():
        wanted = network(outside)
        torch.testing.assert_close(layered(within), wanted, rtol=1e-5, atol=1e-6)
        again = copy.deepcopy(layered)
        layered[0].weight.zero_()
        torch.testing.assert_close(again(within), wanted, rtol=1e-5, atol=1e-6)
    assert plain.config != inside.config


def test_the_exported_graph_holds_it(sources, pictures, tmp_path):
    import onnx
    import onnxruntime
    import torch

    from runtime.contract.artifact import TensorSpec
    from toolchain.convert.onnx import _export

    (plain, all_steps), (inside, first_steps) = sources
    network, layered = plain.build().eval(), inside.build().eval()
    layered.load_state_dict(network.state_dict())
    within = np.stack([Preparation(first_steps).one(one) for one in pictures])
    spec = TensorSpec(name="input", datatype="FP32", shape=(-1, 3, 8, 8), layout="NCHW")
    path = tmp_path / "model.onnx"
    _export(layered, (within[:2],), (spec,), (TensorSpec(name="output", datatype="FP32", shape=(-1, 3)),), path)
    assert {"Sub", "Div"} <= {node.op_type for node in onnx.load(path).graph.node}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted = network(torch.from_numpy(np.stack([Preparation(all_steps).one(one) for one in pictures])))
    np.testing.assert_allclose(session.run(None, {"input": within})[0], wanted.numpy(), rtol=1e-5, atol=1e-6)


def test_where_nothing_can_move_the_recipe_says_so():
    with pytest.raises(RecipeError, match="there is no scale or normalize at the end"):
        recipe_of(pre=PRE[:2], in_graph=True)
    with pytest.raises(RecipeError, match="an ONNX file is taken as it is"):
        parse_recipe(
            {
                "model": {"name": "m", "version": "1.0.0", "network": "onnx:m.onnx"},
                "data": {"source": "a.py:b"},
                "processing": {"pre": PRE, "in_graph": True},
            },
            "recipe.toml",
        )


def test_one_number_serves_every_channel_and_channels_may_come_last():
    import torch

    from toolchain.train.first_layer import with_first_layer

    network = torch.nn.Flatten()
    with_first_layer(network, [Step(name="normalize", options={"mean": "1", "std": "2"})])
    np.testing.assert_array_equal(network(torch.ones(1, 2, 2) * 5).numpy(), [[2, 2, 2, 2]])
    network = torch.nn.Flatten()
    with_first_layer(network, [Step(name="normalize", options={"mean": "0,1", "std": "1,2"})])
    np.testing.assert_array_equal(network(torch.ones(1, 2, 2) * 5).numpy(), [[5, 2, 5, 2]])
