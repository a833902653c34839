"""How are channels of unlike range brought to a common one, so that one scale can serve them all?

A channel of a tensor may be divided by any number if its readers' weights are multiplied by it: the network stays what it was. Where
the tensor comes from weights through functions that commute with scaling, the division goes into these weights and costs nothing;
elsewhere it becomes a multiplication of its own. Sources: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization
and Bias Correction"; Xiao et al. 2023, "SmoothQuant".
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Batches = Callable[[], Iterator[dict[str, np.ndarray]]]

SCALING = "edgewright_scaling"
"""Names of the multiplications that had to be put in begin so."""
WORTH = 8.0
"""Scales that differ by less than this factor are left alone: 3 of 8 bits."""
_COMMUTING = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity")
_TINY = 1e-9


def equalize(source: Path, target: Path, batches: "Batches") -> tuple[str, ...]:
    """Write the same network with its channels brought together. Returns the names of the multiplications it put in.

    batches: calls for the calibration examples; largest values per channel are taken from them.
    """
    import onnx

    graph = _Graph(onnx.load(source))
    readers = graph.readers()
    peaks = _peaks(source, {name: _channel_axis(nodes[0]) for name, nodes in readers.items()}, batches)
    added = []
    for tensor, nodes in readers.items():
        scales = _scales(peaks[tensor], graph, nodes)
        if scales is None:
            continue
        for node in nodes:
            graph.scale_inputs(node, scales)
        if not graph.absorb(tensor, nodes, 1 / scales):
            added.append(graph.insert(tensor, nodes, 1 / scales))
    graph.drop_unused()
    onnx.save(graph.model, target)
    return tuple(added)


class _Graph:
    """An ONNX model with its constants as arrays and its edges both ways."""

    def __init__(self, model: Any) -> None:
        from onnx import numpy_helper

        self.model = model
        self.constants = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
        self.makers = {name: node for node in model.graph.node for name in node.output}
        self.users: dict[str, list[Any]] = defaultdict(list)
        for node in model.graph.node:
            for name in node.input:
                self.users[name].append(node)
        self.outputs = {item.name for item in model.graph.output}

    def readers(self) -> dict[str, list[Any]]:
        """Tensor -> the weighted nodes that read it along the same channels, in the order of the graph."""
        found: dict[str, list[Any]] = defaultdict(list)
        for node in self.model.graph.node:
            if self._input_axis(node) is not None:
                found[node.input[0]].append(node)
        return {name: nodes for name, nodes in found.items() if len({_channel_axis(node) for node in nodes}) == 1}

    def weight_peaks(self, node: Any) -> "np.ndarray | None":
        """float[channels]: the largest weight each input channel meets; None where each has a scale of its own anyway."""
        import numpy as np

        if node.op_type == "Conv" and _attribute(node, "group", 1) > 1:
            return None
        weight, axis = np.abs(self.constants[node.input[1]]), self._input_axis(node)
        peaks: np.ndarray = weight.max(axis=tuple(index for index in range(weight.ndim) if index != axis))
        return peaks

    def scale_inputs(self, node: Any, factors: "np.ndarray") -> None:
        axis = self._input_axis(node)
        assert axis is not None, "one of `readers`"
        self._scale(node, 1, factors, axis)

    def absorb(self, tensor: str, nodes: list[Any], factors: "np.ndarray") -> bool:
        """Multiply the tensor's channels where they are made. False where something else reads it, or no weights make it."""
        if tensor in self.outputs or len(self.users[tensor]) != len(nodes):
            return False
        maker = self.makers.get(tensor)
        while maker is not None and maker.op_type in _COMMUTING:
            before = maker.input[0]
            if before in self.outputs or len(self.users[before]) != 1:
                return False
            maker = self.makers.get(before)
        if maker is None or not (places := self._output_places(maker)):
            return False
        if any(self.constants[maker.input[index]].shape[axis] != len(factors) for index, axis in places):
            return False
        for index, axis in places:
            self._scale(maker, index, factors, axis)
        return True

    def insert(self, tensor: str, nodes: list[Any], factors: "np.ndarray") -> str:
        """Put a multiplication between the tensor and these readers."""
        from onnx import helper

        place = next(
            index
            for index, node in enumerate(self.model.graph.node)
            if node.name == nodes[0].name and node.output == nodes[0].output
        )
        name = f"{SCALING}_{place}"
        shape = (-1, 1, 1) if nodes[0].op_type == "Conv" else (-1,)
        self._add_constant(f"{name}_factors", factors.reshape(shape))
        node = helper.make_node("Mul", [tensor, f"{name}_factors"], [f"{name}_output"], name=name)
        self.model.graph.node.insert(place, node)
        for reader in nodes:
            reader.input[0] = f"{name}_output"
        return name

    def drop_unused(self) -> None:
        """Constants whose last reader took a scaled copy."""
        used = {name for node in self.model.graph.node for name in node.input} | self.outputs
        kept = [item for item in self.model.graph.initializer if item.name in used]
        del self.model.graph.initializer[:]
        self.model.graph.initializer.extend(kept)

    def _input_axis(self, node: Any) -> int | None:
        """The axis of the weights that runs over input channels; None for what this module does not touch."""
        if node.op_type not in ("Conv", "Gemm", "MatMul") or node.input[1] not in self.constants:
            return None
        weight = self.constants[node.input[1]]
        if node.op_type == "Conv":
            group = _attribute(node, "group", 1)
            if weight.ndim != 4:
                return None
            return 1 if group == 1 else 0 if group == weight.shape[0] and weight.shape[1] == 1 else None
        if node.op_type == "MatMul":
            return 0 if weight.ndim == 2 else None
        return None if _attribute(node, "transA", 0) else 1 if _attribute(node, "transB", 0) else 0

    def _output_places(self, node: Any) -> list[tuple[int, int]]:
        """(input, axis) of every constant that a factor on the node's output channels multiplies; none where one is no constant."""
        places = {
            "Conv": [(1, 0), (2, 0)],
            "Gemm": [(1, 0 if _attribute(node, "transB", 0) else 1), (2, -1)],
            "MatMul": [(1, -1)],
            "LayerNormalization": [(1, 0), (2, 0)],
            "BatchNormalization": [(1, 0), (2, 0)],
        }.get(node.op_type, [])
        places = [(index, axis) for index, axis in places if index < len(node.input) and node.input[index]]
        return places if all(node.input[index] in self.constants for index, _ in places) else []

    def _scale(self, node: Any, index: int, factors: "np.ndarray", axis: int) -> None:
        """A constant input of a node, multiplied along an axis; under a new name, for others may read the old one."""
        old = self.constants[node.input[index]]
        shape = [1] * old.ndim
        shape[axis] = -1
        name = f"{node.output[0]}_{SCALING}_{index}"
        self.users[node.input[index]] = [user for user in self.users[node.input[index]] if user.output != node.output]
        self._add_constant(name, old * factors.reshape(shape))
        self.users[name].append(node)
        node.input[index] = name

    def _add_constant(self, name: str, value: "np.ndarray") -> None:
        import numpy as np
        from onnx import numpy_helper

        array = np.ascontiguousarray(value, dtype=np.float32)
        self.constants[name] = array
        initializers = self.model.graph.initializer
        for item in initializers:
            if item.name == name:
                item.CopyFrom(numpy_helper.from_array(array, name))
                return
        initializers.append(numpy_helper.from_array(array, name))


def _scales(peak: "np.ndarray", graph: _Graph, nodes: list[Any]) -> "np.ndarray | None":
    """float[channels] to divide by, about one in the middle; None where they would bring next to nothing.

    Between the tensor's and the weights' ranges the geometric mean; the tensor's alone where weights have a scale a channel.
    """
    import numpy as np

    found = [weights for node in nodes if (weights := graph.weight_peaks(node)) is not None]
    weight = np.max(found, axis=0) if found else np.ones_like(peak)
    if len(weight) != len(peak):
        return None
    seen, read = peak > _TINY * peak.max(), weight > _TINY * weight.max()
    if not (seen & read).any():
        return None
    scales = np.ones_like(peak)
    ratio = peak[seen & read] / weight[seen & read]
    scales[seen & read] = np.sqrt(ratio) if found else ratio
    middle = np.exp(np.log(scales[seen & read]).mean())
    scales[seen & read] /= middle
    unread = seen & ~read  # whatever their size, nobody minds: as large as the others
    scales[unread] = peak[unread] / np.median(peak[seen & read] / scales[seen & read])
    used = scales[seen]
    return scales.astype(np.float32) if used.max() / used.min() > WORTH else None


def _peaks(model: Path, axes: dict[str, int], batches: "Batches") -> "dict[str, np.ndarray]":
    """float64[channels] of each tensor: the largest absolute value among the examples. axes: of the channels."""
    import numpy as np
    import onnx
    import onnxruntime

    watched = onnx.load(model)
    inputs = {item.name for item in watched.graph.input}
    outputs = {item.name for item in watched.graph.output}
    inner = [name for name in axes if name not in inputs]
    watched.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in inner if name not in outputs
    )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    peaks: dict[str, Any] = {}
    for batch in batches():
        values = dict(zip(inner, session.run(inner, batch), strict=True)) if inner else {}
        for name, channels in axes.items():
            value = np.abs((values | batch)[name].astype(np.float64))
            axis = channels % value.ndim
            peak = value.max(axis=tuple(index for index in range(value.ndim) if index != axis))
            peaks[name] = np.maximum(peaks.get(name, 0.0), peak)
    return peaks


def _channel_axis(node: Any) -> int:
    """Of the tensor the node reads."""
    return 1 if node.op_type == "Conv" else -1


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(item.i) for item in node.attribute if item.name == name), default)
