"""What does joining requests bring, for a model slow enough to run in a thread of its own, with 8 clients at once?

    python -m benchmarks.batching [--blocks 7] [--seconds 2] [--clients 8] [--delay-us 1000] [--json FILE]

Clients of one event loop ask one request after the other, of one example each, through `Inference.submit`; blocks that join
and blocks that do not take turns. Two models of about half a millisecond: dense layers, bound by reading their weights, which
one batch reads once; and convolutions, bound by arithmetic, which a batch cannot share.
"""

import argparse
import asyncio
import hashlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.figures import Figure, show
from benchmarks.serving import make_manifest
from runtime.contract.artifact import FileEntry, TensorSpec
from runtime.contract.canonical import write_json
from runtime.serving.inference import Answer, Call, Inference, Joining
from runtime.serving.models.repository import Repository

WIDTH, DEPTH = 1024, 4
SIDE, CHANNELS = 64, 32


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2.0, help="per block")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--delay-us", type=int, default=1000)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as folder:
        for write in (write_dense, write_convolutions):
            joining = Joining(options.clients, options.delay_us / 1e6)
            figures += measure(write(Path(folder) / write.__name__), joining, options.blocks, options.seconds, options.clients)
    return show(figures, options.json)


def measure(artifact: Path, joining: Joining, blocks: int, seconds: float, clients: int) -> list[Figure]:
    repository = Repository()
    served = repository.open(artifact)
    repository.switch(served)
    name, spec = served.manifest.model, served.manifest.inputs[0]
    example = np.random.default_rng(0).random((1, *spec.shape[1:])).astype(np.float32)
    alone_us = served.expected_ns({spec.name: example}) / 1000
    by_way: dict[bool, list[tuple[float, float]]] = {False: [], True: []}
    for number in range(blocks + 1):
        for joins in (False, True) if number % 2 else (True, False):
            inference = Inference(repository, inline_ns=200_000, waiting=64, joining=joining if joins else Joining())
            taken = asyncio.run(_clients(inference, Call(name, {spec.name: example}), clients, seconds))
            inference.close()
            if number:  # the first warms up
                by_way[joins].append((len(taken) / seconds, float(np.percentile(taken, 50)) / 1000))
    repository.close()
    one, many = (np.array(by_way[joins]) for joins in (False, True))
    ratios = many / one
    return [
        Figure(name=f"{name}: one example alone", value=round(alone_us, 1), unit="us"),
        Figure(name=f"{name}: requests a second, each alone", value=round(float(np.median(one[:, 0]))), unit="1/s"),
        Figure(name=f"{name}: requests a second, joined", value=round(float(np.median(many[:, 0]))), unit="1/s"),
        Figure(name=f"{name}: throughput joined / alone", value=round(float(np.median(ratios[:, 0])), 2), unit="x"),
        Figure(name=f"{name}: p50 joined / alone", value=round(float(np.median(ratios[:, 1])), 2), unit="x"),
    ]


async def _clients(inference: Inference, call: Call, clients: int, seconds: float) -> list[int]:
    """Nanoseconds of every request."""
    stop = time.perf_counter() + seconds
    taken: list[int] = []

    async def ask() -> None:
        while time.perf_counter() < stop:
            started = time.perf_counter_ns()
            answer = inference.submit(call, _outputs)
            if isinstance(answer, asyncio.Future):
                await answer
            else:
                await asyncio.sleep(0)
            taken.append(time.perf_counter_ns() - started)

    await asyncio.gather(*[ask() for _ in range(clients)])
    return taken


def _outputs(answer: Answer) -> dict[str, np.ndarray]:
    return answer.outputs


def write_dense(directory: Path) -> Path:
    from onnx import helper

    nodes, weights = [], {}
    for index in range(DEPTH):
        weights[f"w{index}"] = np.random.default_rng(index).normal(size=(WIDTH, WIDTH)) / WIDTH**0.5
        nodes.append(helper.make_node("MatMul", ["x" if not index else f"r{index - 1}", f"w{index}"], [f"m{index}"]))
        nodes.append(helper.make_node("Relu", [f"m{index}"], ["y" if index == DEPTH - 1 else f"r{index}"]))
    return _write(directory, "dense", nodes, weights, (-1, WIDTH), (-1, WIDTH))


def write_convolutions(directory: Path) -> Path:
    from onnx import helper

    generator = np.random.default_rng(9)
    weights = {"w0": generator.normal(size=(CHANNELS, 3, 3, 3)), "w1": generator.normal(size=(CHANNELS, CHANNELS, 3, 3)) / 10}
    weights["w2"] = weights["w1"].copy()
    nodes = [
        helper.make_node("Conv", ["x", "w0"], ["c0"], pads=[1] * 4),
        helper.make_node("Conv", ["c0", "w1"], ["c1"], pads=[1] * 4),
        helper.make_node("Conv", ["c1", "w2"], ["c2"], pads=[1] * 4, strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c2"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    return _write(directory, "convolutions", nodes, weights, (-1, 3, SIDE, SIDE), (-1, CHANNELS))


def _write(  # noqa: PLR0917 - the parts of a graph
    directory: Path, name: str, nodes: list[Any], weights: dict[str, np.ndarray], taken: tuple[int, ...], given: tuple[int, ...]
) -> Path:
    from onnx import TensorProto, helper, numpy_helper, save

    directory.mkdir()
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *taken[1:]])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", *given[1:]])]
    held = [numpy_helper.from_array(value.astype(np.float32), key) for key, value in weights.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, held)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), directory / "model.onnx")
    raw = (directory / "model.onnx").read_bytes()
    files = (FileEntry(name="model.onnx", sha256=hashlib.sha256(raw).hexdigest(), size_bytes=len(raw)),)
    specs = (TensorSpec(name="x", datatype="FP32", shape=taken),), (TensorSpec(name="y", datatype="FP32", shape=given),)
    (directory / "manifest.json").write_bytes(write_json(make_manifest(name, "onnxruntime", *specs, files, "tensor")))
    return directory


if __name__ == "__main__":
    sys.exit(main())
