"""One small convolutional network in four variants, made without training; nobody may change their files."""

import json
import logging
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from runtime.contract.artifact import FileEntry, TensorSpec, read_manifest
from runtime.contract.canonical import sha256_hex, write_json
from tests.toolchain.package.conftest import make_artifact
from toolchain.package.read import Artifact, read_artifact
from toolchain.pipeline.products import Precision, Variant
from toolchain.pipeline.stage import Stored

CHANNELS, SIDE, CLASSES = 8, 12, 3
Variants = dict[str, Stored[Variant]]


@pytest.fixture(scope="session")
def rows() -> list[np.ndarray]:
    return [np.random.default_rng(0).random((16, 1, SIDE, SIDE), dtype=np.float32)]


@pytest.fixture(scope="session")
def variants(tmp_path_factory: pytest.TempPathFactory, rows: list[np.ndarray]) -> Variants:
    folder = tmp_path_factory.mktemp("variants")
    onnx.save(network(), folder / "model.onnx")
    quantize(folder, rows[0])
    convert(folder)
    return {
        variant.value.name: variant
        for variant in (
            stored(folder, "onnxruntime", "float32", "model.onnx"),
            stored(folder, "onnxruntime", "int8", "int8.onnx"),
            stored(folder, "openvino", "float32", "model.xml"),
        )
    }


def network() -> onnx.ModelProto:
    """Two convolutions, a mean over the image, and a linear head; logits."""
    generator = np.random.default_rng(1)
    weights = {
        "first": generator.normal(size=(CHANNELS, 1, 3, 3)),
        "second": generator.normal(size=(CHANNELS, CHANNELS, 3, 3)) / 8,
        "head": generator.normal(size=(CHANNELS, CLASSES)),
    }
    nodes = [
        helper.make_node("Conv", ["input", "first"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("GlobalAveragePool", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "head"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def quantize(folder: Path, examples: np.ndarray) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    class Once:
        def __init__(self) -> None:
            self.left = [{"input": examples}]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return self.left.pop() if self.left else None

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises pre-processing, which this network does not need
    quantize_static(
        str(folder / "model.onnx"), str(folder / "int8.onnx"), Once(), quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True,
    )  # fmt: skip
    root.setLevel(level)


def convert(folder: Path) -> None:
    import openvino

    openvino.save_model(openvino.convert_model(folder / "model.onnx"), folder / "model.xml", compress_to_fp16=False)


def stored(folder: Path, engine: str, precision: Precision, file: str) -> Stored[Variant]:
    spec = TensorSpec(name="input", datatype="FP32", shape=(-1, 1, SIDE, SIDE))
    value = Variant(
        name=f"{engine}-{precision}", scheme=precision, engine=engine, precision=precision, model_file=file, files=(file,),
        size_bytes=(folder / file).stat().st_size, inputs=(spec,),
        outputs=(TensorSpec(name="output", datatype="FP32", shape=(-1, CLASSES)),),
    )  # fmt: skip
    return Stored(value, folder, "")


@pytest.fixture(scope="session")
def artifact(variants: Variants, rows: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The float network as a whole artifact that really runs, with its golden inputs."""
    path = make_artifact(tmp_path_factory.mktemp("release"))
    variant = variants["onnxruntime-float32"]
    shutil.copyfile(variant.folder / "model.onnx", path / "model.onnx")
    np.savez(path / "golden.npz", **{"in.input": rows[0]})
    manifest = read_manifest((path / "manifest.json").read_bytes()).value
    files = tuple(
        FileEntry(name=file.name, sha256=sha256_hex(file.read_bytes()), size_bytes=file.stat().st_size)
        for file in (path / "model.onnx", path / "card.md", path / "golden.npz")
    )
    manifest = msgspec.structs.replace(
        manifest, files=files, inputs=variant.value.inputs, outputs=variant.value.outputs, variant=variant.value.name
    )
    raw = write_json(manifest)
    evidence = json.loads((path / "evidence.json").read_bytes()) | {"manifest_sha256": sha256_hex(raw)}
    (path / "manifest.json").write_bytes(raw)
    (path / "evidence.json").write_text(json.dumps(evidence))
    return read_artifact(path)
