"""How does a trained torch network become an ONNX file whose bytes depend on nothing but the network?"""

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.contract.artifact import Datatype, TensorSpec
from toolchain.convert.diagnose import explain
from toolchain.data.arrays import read_split
from toolchain.errors import BuildError, NetworkError
from toolchain.pipeline.products import BASE, FLOAT, SteeringData, Variant
from toolchain.pipeline.stage import Stored
from toolchain.quiet import silenced

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

MODEL_FILE = "model.onnx"
VARIANT = f"onnxruntime-{FLOAT}"
_EXAMPLE_ROWS = 2
"""A batch of one would be taken for a fixed size; two leave the batch free."""
_DATATYPES: dict[str, Datatype] = {"float32": "FP32", "float16": "FP16", "int64": "INT64", "int32": "INT32", "bool": "BOOL"}


def export(
    network: "nn.Module", references: "list[np.ndarray]", data: Stored[SteeringData], work: Path, form: str = BASE
) -> Variant:
    """Write a network as the float ONNX of a form. references: its outputs on validation data, which describe the tensors.

    Raises NetworkError when the network cannot be expressed.
    """
    arrays, _ = read_split(data.folder, data.value.validation)
    examples = tuple(array[:_EXAMPLE_ROWS] for array in arrays)
    outputs = describe_outputs(references, data.value.classes)
    path = work / MODEL_FILE
    _export(network, examples, data.value.inputs, outputs, path)
    strip_metadata(path)
    return Variant(
        name=VARIANT if form == BASE else f"{form}-{VARIANT}", form=form, scheme=FLOAT, engine="onnxruntime",
        precision="float32", model_file=MODEL_FILE, files=(MODEL_FILE,), size_bytes=path.stat().st_size,
        inputs=data.value.inputs, outputs=outputs,
    )  # fmt: skip


def describe_outputs(arrays: "list[np.ndarray]", classes: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    """What a network returned, as tensors: "output", or "output0", "output1", ... where there are several."""
    specs = []
    for index, array in enumerate(arrays):
        if array.dtype.name not in _DATATYPES:
            raise NetworkError(f"output {index} is {array.dtype}; understood are {', '.join(_DATATYPES)}")
        labels = classes if index == 0 and array.ndim == 2 and array.shape[-1] == len(classes) else ()
        name = "output" if len(arrays) == 1 else f"output{index}"
        specs.append(TensorSpec(name=name, datatype=_DATATYPES[array.dtype.name], shape=(-1, *array.shape[1:]), labels=labels))
    return tuple(specs)


def strip_metadata(path: Path) -> None:
    """Remove the exporter's notes (stack traces, absolute paths) and names, so that equal networks are equal files."""
    import onnx

    model = onnx.load(path)
    graphs = [model.graph, *model.functions]
    for holder in (model, *graphs):
        del holder.metadata_props[:]
    for graph in graphs:
        for part in graph.node:
            del part.metadata_props[:]
            part.doc_string = ""
        for part in (*graph.value_info, *getattr(graph, "initializer", ())):
            del part.metadata_props[:]
        graph.doc_string = ""
    for part in (*model.graph.input, *model.graph.output):
        del part.metadata_props[:]
    model.producer_name, model.producer_version, model.doc_string, model.domain = "edgewright", "", "", ""
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def _export(
    network: "nn.Module",
    examples: "tuple[np.ndarray, ...]",
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    path: Path,
) -> None:
    import torch

    network.eval()
    batch = torch.export.Dim("batch")
    shapes = tuple({0: batch} for _ in examples)
    tensors = tuple(torch.from_numpy(array) for array in examples)
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                network, tensors, dynamo=True, dynamic_shapes=shapes, input_names=[spec.name for spec in inputs],
                output_names=[spec.name for spec in outputs], external_data=False, verbose=False,
            )  # fmt: skip
            program.save(str(path), external_data=False)
    except BuildError:
        raise
    except Exception as error:
        with _quiet():
            reason = explain(error, network, tensors)
        raise NetworkError(f"the network cannot be expressed as ONNX: {reason}") from error


@contextlib.contextmanager
def _quiet() -> Any:
    """The exporter warns about its own internals and prints graphs; what concerns the engineer comes as an exception."""
    with silenced(), contextlib.redirect_stderr(io.StringIO()):
        yield
