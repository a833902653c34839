"""A state directory with models in their active slots, as a device that was updated some time ago has it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runtime.contract.artifact import EngineRange, FileEntry, Lineage, Manifest, Requirements, TensorSpec
from runtime.contract.canonical import sha256_hex, write_json

ZERO = "0" * 64


def active_slot(state_dir: Path, model: str) -> Path:
    """Where a model's artifact is to be written; it is active from then on."""
    link = state_dir / "models" / model / "active"
    link.parent.mkdir(parents=True)
    link.symlink_to("a")
    return link.parent / "a"


def write_onnx_artifact(
    directory: Path, model: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], nodes: Sequence[Any], **changes: Any
) -> Path:
    """An artifact for ONNX Runtime of a graph of these nodes, without weights. changes: of the manifest."""
    import onnx
    from onnx import helper

    directory.mkdir(parents=True)
    graph = helper.make_graph(list(nodes), model, [_value(spec) for spec in inputs], [_value(spec) for spec in outputs])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "model.onnx")
    raw = (directory / "model.onnx").read_bytes()
    fields: Mapping[str, Any] = {
        "model": model,
        "version": "1.0.0",
        "requires": Requirements(
            profile="test-cpu", arch="any", engine="onnxruntime", engine_range=EngineRange(at_least="1", below="999")
        ),
        "variant": "float",
        "inputs": tuple(inputs),
        "outputs": tuple(outputs),
        "output_kind": "tensor",
        "files": (FileEntry(name="model.onnx", sha256=sha256_hex(raw), size_bytes=len(raw)),),
        "model_file": "model.onnx",
        "lineage": Lineage(recipe=ZERO, data=ZERO, code=ZERO, lock=ZERO),
    }
    (directory / "manifest.json").write_bytes(write_json(Manifest(**{**fields, **changes})))
    return directory


def _value(spec: TensorSpec) -> Any:
    from onnx import TensorProto, helper

    names = {"BYTES": "STRING", "FP16": "FLOAT16", "BF16": "BFLOAT16", "FP32": "FLOAT", "FP64": "DOUBLE"}
    shape = [f"free{index}" if size == -1 else size for index, size in enumerate(spec.shape)]
    return helper.make_tensor_value_info(spec.name, getattr(TensorProto, names.get(spec.datatype, spec.datatype)), shape)
