"""Real models that answer with their input, one for each datatype of the protocol, run by ONNX Runtime."""

import hashlib
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, save

from runtime.backends.datatypes import BF16, BYTES, NUMPY_TYPES
from runtime.contract.artifact import EngineRange, FileEntry, Lineage, Manifest, Processing, Requirements, TensorSpec
from runtime.contract.canonical import write_json

ONNX_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "BF16": TensorProto.BFLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BYTES": TensorProto.STRING,
}
COLUMNS = 3
LABELS = ("low", "middle", "high")


def echo_name(datatype: str) -> str:
    return f"echo-{datatype.lower()}"


def write_echo(directory: Path, datatype: str) -> Path:
    """An artifact with x, y -> the same x, y; y tells that several tensors keep their places."""
    directory.mkdir(parents=True)
    kind = ONNX_TYPES[datatype]
    graph = helper.make_graph(
        [helper.make_node("Identity", [name], [f"{name}-out"]) for name in ("x", "y")],
        "echo",
        [helper.make_tensor_value_info(name, kind, ["n", COLUMNS]) for name in ("x", "y")],
        [helper.make_tensor_value_info(f"{name}-out", kind, ["n", COLUMNS]) for name in ("x", "y")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "model.onnx")
    raw = (directory / "model.onnx").read_bytes()
    zero = "0" * 64
    manifest = Manifest(
        model=echo_name(datatype),
        version="1.0.0",
        requires=Requirements(
            profile="any-cpu", arch="any", engine="onnxruntime", engine_range=EngineRange(at_least="1", below="9")
        ),
        variant="float",
        inputs=tuple(TensorSpec(name=name, datatype=datatype, shape=(-1, COLUMNS)) for name in ("x", "y")),
        outputs=tuple(
            TensorSpec(name=f"{name}-out", datatype=datatype, shape=(-1, COLUMNS), labels=LABELS) for name in ("x", "y")
        ),
        processing=Processing(),
        output_kind="regression",
        files=(FileEntry(name="model.onnx", sha256=hashlib.sha256(raw).hexdigest(), size_bytes=len(raw)),),
        model_file="model.onnx",
        lineage=Lineage(recipe=zero, data=zero, code=zero, lock=zero),
    )
    (directory / "manifest.json").write_bytes(write_json(manifest))
    return directory


def sample(datatype: str, rows: int = 2, seed: int = 0) -> np.ndarray:
    """Values that no reader takes for others: extremes, and none twice where the type has room."""
    generator = np.random.default_rng(seed)
    shape = (rows, COLUMNS)
    if datatype == "BYTES":
        array = np.empty(rows * COLUMNS, BYTES)
        array[:] = [f"{index}-ä".encode() * (index % 3) for index in range(seed, seed + array.size)]
        return array.reshape(shape)
    kind = NUMPY_TYPES[datatype]
    if kind == BF16:
        return generator.integers(0, 0x7F80, shape).astype("<u2").view(BF16)
    if kind.kind == "b":
        return generator.random(shape) < 0.5
    if kind.kind == "f":
        return generator.normal(size=shape).astype(kind)
    bounds = np.iinfo(kind)
    array = generator.integers(bounds.min, bounds.max, shape, kind, endpoint=True)
    array.flat[0], array.flat[1] = bounds.min, bounds.max
    return array
