"""Does the count of a graph agree with the closed forms, and with torch's own counter?"""

from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch.utils.flop_counter import FlopCounterMode

from runtime.contract.artifact import TensorSpec
from tests.toolchain.compress.bars import Bars
from toolchain.compress.cost import cost_of

FLOAT = TensorProto.FLOAT


def written(path: Path, node: onnx.NodeProto, shape: list, weight: list[int], *more: onnx.NodeProto) -> Path:
    """One operator on "x" and the weight "w", followed by others."""
    graph = helper.make_graph(
        [node, *more], "one", [helper.make_tensor_value_info("x", FLOAT, shape)], [helper.make_tensor_value_info("y", FLOAT, None)],
        [helper.make_tensor("w", FLOAT, weight, [0.0] * int(torch.Size(weight).numel()))],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), path)
    return path


def spec(*shape: int) -> tuple[TensorSpec, ...]:
    return (TensorSpec(name="x", datatype="FP32", shape=shape),)


@pytest.mark.parametrize(
    ("operator", "attributes", "shape", "weight", "macs"),
    [
        # 3x3 over 5x5 outputs, 4 in, 6 out
        ("Conv", {"strides": [2, 2], "pads": [1, 1, 1, 1]}, ["n", 4, 10, 10], [6, 4, 3, 3], 5 * 5 * 6 * 4 * 9),
        # depthwise: one channel each
        ("Conv", {"group": 4}, ["n", 4, 10, 10], [4, 1, 3, 3], 8 * 8 * 4 * 9),
        ("Conv", {}, ["n", 2, 20], [3, 2, 5], 16 * 3 * 2 * 5),
        # every one of 10x10x4 inputs is spread over 6 outputs of 3x3
        ("ConvTranspose", {"strides": [2, 2]}, ["n", 4, 10, 10], [4, 6, 3, 3], 10 * 10 * 4 * 6 * 9),
        ("MatMul", {}, ["n", 7, 12], [12, 5], 7 * 12 * 5),
        ("Gemm", {}, ["n", 12], [12, 5], 12 * 5),
        ("Gemm", {"transB": 1}, ["n", 12], [5, 12], 12 * 5),
        ("Relu", {}, ["n", 12], [1], 0),
    ],
)
def test_counts_what_the_formula_says(
    tmp_path: Path, operator: str, attributes: dict, shape: list, weight: list, macs: int
) -> None:
    inputs = ["x"] if operator == "Relu" else ["x", "w"]
    path = written(tmp_path / "m.onnx", helper.make_node(operator, inputs, ["y"], **attributes), shape, weight)
    assert cost_of(path, spec(-1, *shape[1:])).macs == macs
    assert cost_of(path, spec(-1, *shape[1:])).parameters == torch.Size(weight).numel()


def test_sizes_the_file_leaves_open_come_from_the_data(tmp_path: Path) -> None:
    path = written(tmp_path / "m.onnx", helper.make_node("Conv", ["x", "w"], ["y"]), ["n", 4, "h", "w"], [6, 4, 1, 1])
    assert cost_of(path, spec(-1, 4, 8, 9)).macs == 8 * 9 * 6 * 4


def test_a_size_nobody_knows_gives_no_count(tmp_path: Path) -> None:
    kept = helper.make_node("Compress", ["x", "mask"], ["z"], axis=1)
    mask = helper.make_node("Cast", ["x"], ["mask"], to=TensorProto.BOOL)
    product = helper.make_node("MatMul", ["z", "w"], ["y"])
    path = written(tmp_path / "m.onnx", mask, ["n", 12], [12, 5], kept, product)
    assert cost_of(path, spec(-1, 12)).macs == 0


def test_a_whole_network_counts_as_torch_counts_it(bars: Bars) -> None:
    network = bars.network.load()
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 1, 16, 16))
    assert bars.base.value.macs == counter.get_total_flops() // 2  # a multiplication and an addition each
    assert bars.base.value.parameters == sum(weight.numel() for weight in network.parameters())
