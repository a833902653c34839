"""How does the float ONNX become OpenVINO's own format?"""

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
    import openvino

    source = model.value.variant
    try:
        converted = openvino.convert_model(str(model.folder / source.model_file))
    except Exception as error:
        raise NetworkError(f"OpenVINO cannot convert the model: {str(error).strip().splitlines()[0]}") from error
    for parts in (("conversion_parameters",), ("framework",)):  # they hold the path of the source file
        if converted.has_rt_info(list(parts)):
            converted.set_rt_info("", list(parts))
    _name_by_place(converted)
    openvino.save_model(converted, str(work / MODEL_FILE), compress_to_fp16=False)
    return Variant(
        name=name, form=model.value.form, scheme=scheme, engine="openvino", precision=precision, model_file=MODEL_FILE,
        files=(MODEL_FILE, WEIGHTS_FILE), size_bytes=sum((work / file).stat().st_size for file in (MODEL_FILE, WEIGHTS_FILE)),
        inputs=source.inputs, outputs=source.outputs, engine_options={"precision": hint},
    )  # fmt: skip


def _name_by_place(model: Any) -> None:
    """Name every inner operation by its place in the graph.

    OpenVINO numbers them by a counter of the process, so that the same model would be another file after another model.
    """
    for index, operation in enumerate(model.get_ordered_ops()):
        if operation.get_type_name() not in ("Parameter", "Result"):
            operation.set_friendly_name(f"{operation.get_type_name()}_{index}")
