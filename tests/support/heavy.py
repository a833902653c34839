"""A real onnxruntime artifact of a chosen weight, to see what memory it takes."""

import platform
from pathlib import Path

import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from runtime.contract.artifact import ArtifactRef, EngineRange, FileEntry, Requirements, read_manifest
from runtime.contract.canonical import sha256_hex, write_json
from tests.support.artifacts import CLASSES, FEATURES, TARGET, ref_of, write_artifact

OPSET, IR_VERSION = 17, 10
ROWS = np.random.default_rng(3).normal(size=(16, FEATURES)).astype(np.float32)


def write_heavy(directory: Path, *, size_bytes: int, version: str = "1.0.0") -> ArtifactRef:
    """Like `write_artifact`, but for onnxruntime and with weights of about so many bytes."""
    side = round((size_bytes / 4) ** 0.5)
    shapes = ((FEATURES, side), (side, side), (side, CLASSES))
    layers = [np.full(shape, 1 / shape[0], np.float32) for shape in shapes]
    draft = directory.with_name(directory.name + "-draft")
    write_artifact(draft)
    directory.mkdir()
    for name in ("card.md", "reference.bin"):
        (draft / name).rename(directory / name)
    (directory / "model.onnx").write_bytes(_model(layers).SerializeToString())
    arrays = {"in.input": ROWS, "out.output": answers(layers), "tolerance": np.array([1e-3, 1e-4])}
    np.savez(directory / "golden.npz", **arrays)
    manifest = msgspec.structs.replace(
        read_manifest((draft / "manifest.json").read_bytes()).value,
        version=version,
        requires=Requirements(
            profile=TARGET,
            arch=platform.machine(),
            engine="onnxruntime",
            engine_range=EngineRange(at_least="1", below="3"),
        ),
        files=tuple(_entry(path) for path in sorted(directory.iterdir())),
        model_file="model.onnx",
    )
    (directory / "manifest.json").write_bytes(write_json(manifest))
    return ref_of(directory)


def answers(layers: list[np.ndarray]) -> np.ndarray:
    """What the network must answer for ROWS."""
    found = ROWS.astype(np.float64)
    for layer in layers:
        found = found @ layer.astype(np.float64)
    return found.astype(np.float32)


def _model(layers: list[np.ndarray]) -> onnx.ModelProto:
    names = ["input", *(f"hidden{index}" for index in range(len(layers) - 1)), "output"]
    graph = helper.make_graph(
        [helper.make_node("MatMul", [names[index], f"w{index}"], [names[index + 1]]) for index in range(len(layers))],
        "heavy",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(layer, f"w{index}") for index, layer in enumerate(layers)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _entry(path: Path) -> FileEntry:
    raw = path.read_bytes()
    return FileEntry(name=path.name, sha256=sha256_hex(raw), size_bytes=len(raw))
