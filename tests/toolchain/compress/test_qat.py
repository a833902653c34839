"""Is the network trained with its roundings, are they integers in the file, and do both engines compute them as such?"""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
import torch
from torch import nn

from tests.toolchain.compress.bars import Bars
from toolchain.benchmark.run import outputs_of
from toolchain.compress.qat import ONNXRUNTIME_QAT, OPENVINO_QAT, _integers, _modes, _rounding
from toolchain.data.arrays import read_split
from toolchain.errors import NetworkError
from toolchain.pipeline.products import Variant
from toolchain.pipeline.stage import Stored
from toolchain.train.randomness import reproducible


@pytest.fixture(scope="module")
def made(bars: Bars, tmp_path_factory: pytest.TempPathFactory) -> Stored[Variant]:
    return bars.compress(ONNXRUNTIME_QAT, tmp_path_factory.mktemp("qat") / "made")


def accuracy(bars: Bars, variant: Stored[Variant]) -> float:
    inputs, targets = read_split(bars.data.folder, bars.data.value.validation)
    return float((outputs_of(variant, inputs, {})[0].argmax(1) == targets).mean())


def test_onnxruntime_computes_every_convolution_and_sum_in_integers(made: Stored[Variant], tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # it warns that the optimized file is for this machine only
    onnxruntime.InferenceSession(made.folder / made.value.model_file, options)
    kinds = Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)
    assert kinds["QLinearConv"] == 4
    assert kinds["QLinearAdd"] == 2
    assert not kinds.keys() & {"Conv", "FusedConv", "Add", "Relu", "BatchNormalization"}


def test_openvino_computes_every_convolution_in_integers(bars: Bars, tmp_path: Path) -> None:
    variant = bars.compress(OPENVINO_QAT, tmp_path / "made")
    assert variant.value.engine == "openvino"
    assert sorted(file.name for file in variant.folder.iterdir()) == sorted(variant.value.files)
    core = openvino.Core()
    compiled = core.compile_model(variant.folder / variant.value.model_file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    precisions = {
        operation.get_rt_info()["runtimePrecision"].astype(str) for operation in compiled.get_runtime_model().get_ordered_ops()
        if operation.get_rt_info()["layerType"].astype(str) == "Convolution"
    }  # fmt: skip
    assert precisions <= {"u8", "i8"}
    assert precisions
    assert accuracy(bars, variant) >= 0.9


def test_accuracy_is_kept(bars: Bars, made: Stored[Variant]) -> None:
    assert made.value.precision == "int8"
    assert made.value.scheme == "int8-qat"
    assert accuracy(bars, made) >= 0.95


def test_made_twice_the_bytes_are_the_same_and_hold_no_path(bars: Bars, made: Stored[Variant], tmp_path: Path) -> None:
    again = bars.compress(ONNXRUNTIME_QAT, tmp_path / "again")
    data = (made.folder / made.value.model_file).read_bytes()
    assert (again.folder / again.value.model_file).read_bytes() == data
    assert b".py" not in data
    assert not any(node.metadata_props or node.doc_string for node in onnx.load_from_string(data).graph.node)


@pytest.mark.parametrize(("bits", "low", "high"), [(8, -128, 127), (7, -64, 63)])
def test_weights_use_the_bits_the_target_allows(bits: int, low: int, high: int) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    rows = (torch.randn(2, 3, 8, 8),)
    with reproducible(0, 1):
        rounding = _rounding(network, rows, bits)
        train, judge = _modes()
        train(rounding)
        rounding(*rows)
        judge(rounding)
        integers = _integers(rounding)
    weights = [value for value in integers.state_dict().values() if value.dtype == torch.int8]
    assert len(weights) == 2
    assert min(int(value.min()) for value in weights) >= low
    assert max(int(value.max()) for value in weights) == high
    assert max(int(value.abs().max()) for value in weights) > high // 2


def test_judging_moves_no_range(bars: Bars) -> None:
    """Validation examples choose the epoch; they must not be calibrated on as well."""
    with reproducible(0, 1):
        rounding = _rounding(bars.network.load(), (torch.zeros(2, 1, 16, 16),), 8)
        train, judge = _modes()
        train(rounding)
        rounding(torch.rand(4, 1, 16, 16))
        judge(rounding)
        before = {name: value.clone() for name, value in rounding.state_dict().items()}
        rounding(1000 * torch.rand(4, 1, 16, 16))
        assert all(torch.equal(value, before[name]) for name, value in rounding.state_dict().items())
        train(rounding)
        rounding(1000 * torch.rand(4, 1, 16, 16))
        assert not all(torch.equal(value, before[name]) for name, value in rounding.state_dict().items())


def test_rounding_is_what_the_file_computes(bars: Bars, made: Stored[Variant]) -> None:
    """The file's answers are those of the network that was trained, not of one quantized anew: near, but not equal to float."""
    inputs, _ = read_split(bars.data.folder, bars.data.value.validation)
    reference = np.load(bars.base.folder / bars.base.value.reference[0])
    error = np.abs(outputs_of(made, inputs, {})[0] - reference)
    assert 1e-3 < error.mean() < 0.25 * np.abs(reference).mean()


def test_a_network_that_cannot_be_traced_is_named_not_traced_back() -> None:
    class Branching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(NetworkError, match="cannot be exported for training by torchao"):
        _rounding(Branching().eval(), (torch.ones(2, 3),), 8)
