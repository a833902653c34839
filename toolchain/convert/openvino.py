"""How does the float ONNX become OpenVINO's own format, in files that depend on nothing but the model?"""

from pathlib import Path
from typing import Any

from toolchain.errors import NetworkError
from toolchain.pipeline.products import FloatModel, Precision, Variant
from toolchain.pipeline.stage import Stored

MODEL_FILE = "model.xml"
WEIGHTS_FILE = "model.bin"


def convert(model: Stored[FloatModel], work: Path, *, name: str, scheme: str, precision: Precision, hint: str) -> Variant:
    """Write model.xml and model.bin, weights as float32. hint: the engine's name for what it shall compute in.

    Raises NetworkError where OpenVINO lacks an operator.
    """
    converted = read(model.folder / model.value.variant.model_file)
    return write(converted, model.value, work, name=name, scheme=scheme, precision=precision, hint=hint)


def read(path: Path) -> Any:
    """An ONNX file as OpenVINO's model in memory. Raises NetworkError where OpenVINO lacks an operator."""
    import openvino

    try:
        return openvino.convert_model(str(path))
    except Exception as error:
        lines = str(error).strip().splitlines()
        # The first line names a place in OpenVINO's source; the operators that it lacks come further below.
        named = next((line.lstrip("- ") for line in lines if "No conversion rule" in line), lines[0])
        raise NetworkError(f"OpenVINO cannot convert the model: {named}") from error


def write(model: Any, source: FloatModel, work: Path, *, name: str, scheme: str, precision: Precision, hint: str) -> Variant:
    """model: OpenVINO's, made of `source`; it is changed. Its batch stays free in the file; devices compile it for single rows."""
    import openvino

    for part in ("conversion_parameters", "framework", "nncf"):  # paths of files, versions, options by their defaults
        if model.has_rt_info([part]):
            model.set_rt_info("", [part])
    _name_by_place(model)
    openvino.save_model(model, str(work / MODEL_FILE), compress_to_fp16=False)
    return Variant(
        name=name, form=source.form, scheme=scheme, engine="openvino", precision=precision, model_file=MODEL_FILE,
        files=(MODEL_FILE, WEIGHTS_FILE), size_bytes=sum((work / file).stat().st_size for file in (MODEL_FILE, WEIGHTS_FILE)),
        inputs=source.variant.inputs, outputs=source.variant.outputs, engine_options={"precision": hint, "batch": 1},
    )  # fmt: skip


def _name_by_place(model: Any) -> None:
    """Name every inner operation by its place in the graph.

    OpenVINO numbers them by a counter of the process, so that the same model would be another file after another model.
    """
    for index, operation in enumerate(model.get_ordered_ops()):
        if operation.get_type_name() not in ("Parameter", "Result"):
            operation.set_friendly_name(f"{operation.get_type_name()}_{index}")
