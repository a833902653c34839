"""How does a build start from an ONNX file somebody already has?"""

from pathlib import Path
from typing import Any

from runtime.contract.artifact import Datatype, TensorSpec
from toolchain.convert.onnx import MODEL_FILE, VARIANT, strip_metadata
from toolchain.errors import NetworkError, RecipeError
from toolchain.pipeline.products import FLOAT, SteeringData, Variant
from toolchain.pipeline.stage import Stored
from toolchain.recipe import ModelSection
from toolchain.train.network import KEY, ONNX


def onnx_file(model: ModelSection, folder: Path) -> Path:
    """The file a recipe starts from. Raises RecipeError when it is not there, or options are given that nothing reads."""
    path = folder / model.network.removeprefix(ONNX)
    if not path.is_file():
        raise RecipeError(f"{KEY}: {path} does not exist")
    if model.options:
        raise RecipeError(f"model.options: an ONNX file takes no options, found {', '.join(model.options)}")
    return path


def take(path: Path, data: Stored[SteeringData], work: Path) -> Variant:
    """Check the file against the data and take it over. Raises NetworkError naming the first difference.

    The first output decides. Where it is the bare class, as scikit-learn exports it, the scores beside it come first instead: they
    give the same class, and a confidence that devices can watch.
    """
    import onnx

    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:
        raise NetworkError(f"{KEY}: {path.name} is not a valid ONNX model: {str(error).strip().splitlines()[0]}") from error
    outputs = [_spec(value, onnx) for value in model.graph.output]
    first = _scores(outputs, len(data.value.classes))
    for each in (outputs, model.graph.output):
        each.insert(0, each.pop(first))
    onnx.save(model, work / MODEL_FILE)
    strip_metadata(work / MODEL_FILE)
    initializers = {tensor.name for tensor in model.graph.initializer}
    inputs = [_spec(value, onnx) for value in model.graph.input if value.name not in initializers]
    return Variant(
        name=VARIANT, scheme=FLOAT, engine="onnxruntime", precision="float32", model_file=MODEL_FILE, files=(MODEL_FILE,),
        size_bytes=(work / MODEL_FILE).stat().st_size, inputs=_matched(inputs, data.value.inputs, path.name),
        outputs=tuple(_labelled(spec, index, data.value.classes) for index, spec in enumerate(outputs)),
    )  # fmt: skip


def _matched(found: list[TensorSpec], given: tuple[TensorSpec, ...], name: str) -> tuple[TensorSpec, ...]:
    """The file's inputs, described as the data is. Data with one bare array fits whatever name the file has for it."""
    if len(found) != len(given):
        raise NetworkError(f"{name} has {len(found)} inputs, the data source returns {len(given)}")
    described = []
    for tensor, data in zip(found, given, strict=True):
        fits = len(tensor.shape) == len(data.shape) and all(
            want in (-1, have) for want, have in zip(tensor.shape[1:], data.shape[1:], strict=True)
        )
        if not fits or tensor.datatype != data.datatype:
            raise NetworkError(
                f"{name} input {tensor.name!r} takes {tensor.datatype}{list(tensor.shape)}, "
                f"the data source returns {data.datatype}{list(data.shape)}"
            )
        described.append(
            TensorSpec(
                name=tensor.name,
                datatype=data.datatype,
                shape=(tensor.shape[0], *data.shape[1:]),
                layout=data.layout,
                range=data.range,
                labels=data.labels,
            )
        )
    return tuple(described)


def _scores(outputs: list[TensorSpec], classes: int) -> int:
    """Index of the output with the scores: the first one, unless that holds one whole number an example and another one fits."""
    if not classes or not outputs[0].datatype.startswith("INT") or len(outputs[0].shape) != 1:
        return 0
    fitting = (index for index, spec in enumerate(outputs) if spec.datatype.startswith("FP") and spec.shape[1:] == (classes,))
    return next(fitting, 0)


def _labelled(spec: TensorSpec, index: int, classes: tuple[str, ...]) -> TensorSpec:
    fits = index == 0 and len(spec.shape) == 2 and spec.shape[-1] == len(classes)
    return TensorSpec(name=spec.name, datatype=spec.datatype, shape=spec.shape, labels=classes if fits else ())


def _spec(value: Any, onnx: Any) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        what = kind.removesuffix("_type") if kind else "nothing known"
        raise NetworkError(
            f"{value.name!r} is a {what}, not a tensor; skl2onnx exports a classifier's probabilities as one by "
            "options={'zipmap': False}"
        )
    tensor = value.type.tensor_type
    names: dict[int, Datatype] = {
        onnx.TensorProto.FLOAT: "FP32", onnx.TensorProto.FLOAT16: "FP16", onnx.TensorProto.DOUBLE: "FP64",
        onnx.TensorProto.INT64: "INT64", onnx.TensorProto.INT32: "INT32", onnx.TensorProto.UINT8: "UINT8",
        onnx.TensorProto.INT8: "INT8", onnx.TensorProto.BOOL: "BOOL",
    }  # fmt: skip
    if tensor.elem_type not in names:
        raise NetworkError(f"{value.name!r} is of ONNX element type {tensor.elem_type}, which no backend here feeds")
    shape = tuple(size.dim_value if size.HasField("dim_value") else -1 for size in tensor.shape.dim)
    return TensorSpec(name=value.name, datatype=names[tensor.elem_type], shape=shape)
