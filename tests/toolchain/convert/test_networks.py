"""Is a network that cannot be built, trained or expressed refused with a reason?"""

import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from runtime.contract.artifact import read_manifest
from tests.toolchain.conftest import Project
from toolchain.errors import BuildError, NetworkError, RecipeError

NETWORK = """
import torch
from torch import nn

def splits():
    import numpy as np
    generator = np.random.default_rng(0)
    targets = np.arange(60) % 2
    inputs = (generator.normal(size=(60, 4)) + 2 * targets[:, None]).astype(np.float32)
    part = (inputs, {targets})
    return {{"train": part, "validation": part, "test": part}}

{code}
"""
RECIPE = """
[model]
name = "tiny"
version = "1.0.0"
network = "tiny.py:network"
{model}
[data]
source = "tiny.py:splits"
[train]
epochs = 2
{train}
{rest}
"""


def tiny(project: Project, code: str, *, model: str = "", train: str = "", rest: str = "", targets: str = "targets") -> Project:
    (project.folder / "tiny.py").write_text(NETWORK.format(code=textwrap.dedent(code), targets=targets))
    project.recipe.write_text(RECIPE.format(model=model, train=train, rest=rest))
    return project


LINEAR = "def network():\n    return nn.Linear(4, 2)\n"


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("def network():\n    raise ValueError('width must be even')\n", NetworkError, "ValueError: width must be even"),
        ("def network(width):\n    return nn.Linear(4, 2)\n", NetworkError, "TypeError"),
        ("def network():\n    return 3\n", NetworkError, "returned int, not a torch.nn.Module"),
        ("def network():\n    return nn.Linear(5, 2)\n", NetworkError, r"cannot take rows of torch.float32\[4\]"),
        ("def net():\n    return nn.Linear(4, 2)\n", RecipeError, "has no callable 'network'; it has"),
        (
            "class N(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.l = nn.Linear(4, 2)\n"
            "    def forward(self, x):\n        return 'text' if len(x) else self.l(x)\n\ndef network():\n    return N()\n",
            NetworkError,
            "the network returned str",
        ),
    ],
)
def test_broken_networks(make_project: Callable[[str], Project], code: str, error: type[BuildError], message: str) -> None:
    with pytest.raises(error, match=message):
        tiny(make_project("onnx_start"), code).build()


def test_divergence_is_named(make_project: Callable[[str], Project]) -> None:
    code = "def network():\n    return nn.Linear(4, 2)\n\ndef loss(outputs, targets):\n    return outputs.sum() * float('nan')\n"
    with pytest.raises(NetworkError, match=r"training diverged: the loss is nan; lower train\.learning_rate"):
        tiny(make_project("onnx_start"), code, train='loss = "tiny.py:loss"').build()


def test_what_onnx_cannot_express_is_named(make_project: Callable[[str], Project]) -> None:
    code = """
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)
        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else -self.layer(x)

    def network():
        return Branching()
    """
    with pytest.raises(NetworkError, match="the network cannot be expressed as ONNX"):
        tiny(make_project("onnx_start"), code).build()


def test_regression_brings_its_own_metric_and_kind(make_project: Callable[[str], Project]) -> None:
    project = tiny(
        make_project("onnx_start"),
        "def network():\n    return nn.Linear(4, 1)\n",
        model='output_kind = "regression"',
        rest='[metric]\nname = "rmse"\nmax_drop = 0.1\n',
        targets="inputs.sum(axis=1)",
    )
    result = project.build()
    target = result.targets[0]
    assert target.metrics[0].name == "rmse"
    assert target.metrics[0].goal == "min"
    assert target.confusion == ()
    assert result.training is not None
    history = result.training.history
    assert result.training.best_epoch == min(range(len(history)), key=lambda epoch: history[epoch].metric)


def test_several_outputs_reach_loss_and_file(make_project: Callable[[str], Project]) -> None:
    code = """
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.scores, self.size = nn.Linear(4, 2), nn.Linear(4, 1)

        def forward(self, x):
            return {"scores": self.scores(x), "size": self.size(x)}

    def network():
        return Two()

    def loss(outputs, targets):
        scores, size = outputs
        return nn.functional.cross_entropy(scores, targets) + size.square().mean()
    """
    result = tiny(make_project("onnx_start"), code, train='loss = "tiny.py:loss"').build("metric.max_drop=1.0")
    manifest = read_manifest((Path(result.targets[0].path) / "manifest.json").read_bytes()).value
    assert [(spec.name, spec.shape) for spec in manifest.outputs] == [("output0", (-1, 2)), ("output1", (-1, 1))]


def test_a_lone_logit_is_refused(make_project: Callable[[str], Project]) -> None:
    code = """
    def network():
        return nn.Linear(4, 1)

    def loss(outputs, targets):
        return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.float())
    """
    with pytest.raises(NetworkError, match=r'needs model\.scores = "probabilities"'):
        tiny(make_project("onnx_start"), code, train='loss = "tiny.py:loss"').build()


def test_early_stopping_keeps_the_best_epoch(make_project: Callable[[str], Project]) -> None:
    """A loss that drives the outputs up while the metric wants them small: the first epoch is the best."""
    code = """
    def network():
        return nn.Linear(4, 2)

    def loss(outputs, targets):
        return -(outputs ** 2).mean()

    def smallness(outputs, targets):
        return -float(abs(outputs).mean())
    """
    metric = '[metric]\nname = "tiny.py:smallness"\ngoal = "max"\nmax_drop = 1.0\n'
    project = tiny(make_project("onnx_start"), code, train='patience = 2\nloss = "tiny.py:loss"', rest=metric)
    training = project.build("train.epochs=9").training
    assert training is not None
    assert training.stopped_early
    assert training.best_epoch == 0
    assert len(training.history) == 3


@pytest.mark.parametrize(
    ("rows", "message"),
    [(None, "is not a valid ONNX model"), (12, r"takes FP32\[-1, 12\], the data source returns FP32\[-1, 13\]")],
)
def test_onnx_files_that_do_not_fit(make_project: Callable[[str], Project], rows: int | None, message: str) -> None:
    project = make_project("onnx_start")
    path = project.folder / "wine.onnx"
    if rows is None:
        path.write_bytes(b"not a model")
    else:
        write_linear(path, rows)
    with pytest.raises(NetworkError, match=message):
        project.build()


def test_onnx_file_that_is_not_there(make_project: Callable[[str], Project]) -> None:
    project = make_project("onnx_start")
    (project.folder / "wine.onnx").unlink()
    with pytest.raises(RecipeError, match=r"model\.network: .*wine\.onnx does not exist"):
        project.build()


def write_linear(path: Path, columns: int) -> None:
    weights = onnx.numpy_helper.from_array(np.ones((columns, 3), np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "linear",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", columns])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])],
        [weights],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), path)
