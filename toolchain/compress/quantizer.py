"""Where does a network round its values to integers while it trains? Where the engines on CPUs can then compute in integers.

Activations unsigned, weights signed and per channel; both ends of every convolution, linear layer and addition, so that
no operator of a chain falls back to floating point. torchao's own X86InductorQuantizer leaves the sum of a convolution and a
shortcut unrounded, which TorchInductor fuses and ONNX Runtime computes in float.
"""

from torch import Tensor, fx, ops, per_channel_symmetric, per_tensor_affine
from torch import int8 as torch_int8
from torch import uint8 as torch_uint8
from torchao.quantization.pt2e import (
    FusedMovingAvgObsFakeQuantize,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer, SharedQuantizationSpec

KEY = "quantization_annotation"
_SMALLEST_SCALE = 2.0**-12
"""torchao's own lower bound: a range that is still empty must not divide by zero."""
_CONVOLUTIONS = {
    ops.aten.conv1d.default,
    ops.aten.conv1d.padding,
    ops.aten.conv2d.default,
    ops.aten.conv2d.padding,
    ops.aten.conv3d.default,
    ops.aten.conv3d.padding,
}
_LINEAR = {ops.aten.linear.default}
_SUMS = {ops.aten.add.Tensor, ops.aten.add_.Tensor}
_POOLS = {ops.aten.max_pool1d.default, ops.aten.max_pool2d.default}
_CLIPS = {ops.aten.relu.default, ops.aten.relu_.default, ops.aten.hardtanh.default, ops.aten.hardtanh_.default}


class CpuQuantizer(Quantizer):  # type: ignore[misc]  # torchao is partly untyped
    """weight_bits: 7 where the CPU adds products in 16 bits and would saturate with 8."""

    def __init__(self, weight_bits: int) -> None:
        super().__init__()
        half = 2 ** (weight_bits - 1)
        self._activation = QuantizationSpec(
            dtype=torch_uint8, quant_min=0, quant_max=255, qscheme=per_tensor_affine,
            observer_or_fake_quant_ctr=FusedMovingAvgObsFakeQuantize.with_args(
                observer=MovingAverageMinMaxObserver, eps=_SMALLEST_SCALE
            ),
        )  # fmt: skip
        self._weight = QuantizationSpec(
            dtype=torch_int8, quant_min=-half, quant_max=half - 1, qscheme=per_channel_symmetric, ch_axis=0,
            observer_or_fake_quant_ctr=FusedMovingAvgObsFakeQuantize.with_args(
                observer=MovingAveragePerChannelMinMaxObserver, eps=_SMALLEST_SCALE
            ),
        )  # fmt: skip

    def annotate(self, model: fx.GraphModule) -> fx.GraphModule:
        for node in model.graph.nodes:
            operands = [operand for operand in node.args[:2] if isinstance(operand, fx.Node)]
            if node.target in _CONVOLUTIONS | _LINEAR:
                self._annotate(node, {operands[0]: self._activation, operands[1]: self._weight})
                self._round_end(node)
            elif node.target in _SUMS and len(set(operands)) == 2 and all(map(_is_float, operands)):
                self._annotate(node, dict.fromkeys(operands, self._activation))
                self._round_end(node)
            elif node.target in _POOLS:  # the largest of rounded numbers is one of them
                self._annotate(node, {operands[0]: self._activation})
                node.meta[KEY].output_qspec = SharedQuantizationSpec((operands[0], node))
        return model

    def validate(self, model: fx.GraphModule) -> None:
        """Every graph will do: what is not annotated stays in floating point."""

    def _annotate(self, node: fx.Node, inputs: "dict[fx.Node, QuantizationSpec]") -> None:
        node.meta[KEY] = QuantizationAnnotation(input_qspec_map=dict(inputs), _annotated=True)

    def _round_end(self, node: fx.Node) -> None:
        """Round what comes out after the clipping that engines fuse into the operator; the network's own outputs stay float."""
        end = node
        while len(end.users) == 1 and (following := next(iter(end.users))).target in _CLIPS:
            end = following
        if any(user.op == "output" for user in end.users):
            return
        if end is node:
            node.meta[KEY].output_qspec = self._activation
        else:
            end.meta[KEY] = QuantizationAnnotation(output_qspec=self._activation, _annotated=True)


def _is_float(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()
