"""Does the latency ratio of two variants stay the same when every core is busy with something else?

`python -m benchmarks.latency_under_load [--model NAME]... [--busy N] [--kind spin|memory] [--repeats N] [--ordinary] [--json]`

Each repeat measures all variants of a model twice, as a build does: as the machine is, and beside N busy processes that this script
starts and ends. Networks have random weights, which no latency depends on.
"""

import argparse
import contextlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from runtime.contract.artifact import TensorSpec
from toolchain.benchmark import machine
from toolchain.benchmark.latency import measure
from toolchain.pipeline.products import Precision, Variant
from toolchain.pipeline.progress import Silent
from toolchain.pipeline.stage import Stored

BASELINE = "onnxruntime-float32"
SHAPES = {"mlp": (30,), "digits": (1, 32, 32), "mobilenet_v3_small": (3, 224, 224), "resnet18": (3, 224, 224)}
DEFAULT = ("mlp", "digits", "mobilenet_v3_small")
BUSY = {
    "spin": "while True: pass",
    "memory": "import numpy\na = numpy.ones(8_000_000)\nb = numpy.ones(8_000_000)\nwhile True: a += b",
}
_SETTLE_S = 1.0
_WANTED = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", action="append", choices=tuple(SHAPES), help="default: %(default)s or " + ", ".join(DEFAULT))
    parser.add_argument("--busy", type=int, default=os.cpu_count() or 1, help="busy processes; default: one a core")
    parser.add_argument("--kind", choices=tuple(BUSY), default="spin")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--ordinary", action="store_true", help="without a raised priority, as a user who is not root")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    if chosen.ordinary:
        machine._real_time = lambda: False  # what an ordinary user's system answers
    rows = [row for model in chosen.model or DEFAULT for row in compare(model, chosen.busy, chosen.kind, chosen.repeats)]
    if chosen.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"{'model':20}{'variant':24}{'p50 quiet':>12}{'p50 busy':>12}{'quiet':>8}{'busy':>8}{'median':>9}{'worst':>8}")
    for row in rows:
        differences = [abs(value) for value in row["differences"]]
        print(
            f"{row['model']:20}{row['variant']:24}{row['p50_quiet_us']:9.1f} us{row['p50_busy_us']:9.1f} us{median(row['quiet']):8.3f}"
            f"{median(row['busy']):8.3f}{median(differences):9.1%}{max(differences):8.1%}"
        )
    every = [abs(value) for row in rows for value in row["differences"]]
    held = sum(value <= _WANTED for value in every)
    print(f"{held} of {len(every)} pairs within {_WANTED:.0%}; {chosen.busy} x {chosen.kind}, {_priority()} priority")


def compare(model: str, busy: int, kind: str, repeats: int) -> list[dict[str, Any]]:
    """Ratios to float under onnxruntime, quiet and busy in turns; differences: busy / quiet - 1, pair by pair."""
    with tempfile.TemporaryDirectory() as folder:
        variants, rows = make(model, Path(folder))
        pairs = []
        for repeat in range(repeats):
            sys.stderr.write(f"{model}: {repeat + 1} of {repeats}\n")
            quiet = measure(variants, BASELINE, rows, 1, Silent())
            with load(busy, kind):
                pairs.append((quiet, measure(variants, BASELINE, rows, 1, Silent())))
    results = []
    for name in [variant.value.name for variant in variants if variant.value.name != BASELINE]:
        quiet_ratios = [quiet.latencies[name].ratio for quiet, _ in pairs]
        busy_ratios = [loaded.latencies[name].ratio for _, loaded in pairs]
        results.append(
            {
                "model": model,
                "variant": name,
                "p50_quiet_us": median(quiet.latencies[name].p50_ns for quiet, _ in pairs) / 1000,
                "p50_busy_us": median(loaded.latencies[name].p50_ns for _, loaded in pairs) / 1000,
                "quiet": quiet_ratios,
                "busy": busy_ratios,
                "differences": [after / before - 1 for before, after in zip(quiet_ratios, busy_ratios, strict=True)],
                "load_quiet": [quiet.conditions["load before"] for quiet, _ in pairs],
                "load_busy": [loaded.conditions["load after"] for _, loaded in pairs],
            }
        )
    return results


@contextmanager
def load(processes: int, kind: str) -> Iterator[None]:
    running = [subprocess.Popen([sys.executable, "-c", BUSY[kind]]) for _ in range(processes)]
    try:
        time.sleep(_SETTLE_S)
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def make(model: str, folder: Path) -> tuple[list[Stored[Variant]], list[np.ndarray]]:
    """Float and int8 for both engines, each as its own tools make them."""
    import nncf
    import openvino
    import torch
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    shape = SHAPES[model]
    rows = np.random.default_rng(0).random((32, *shape), dtype=np.float32)
    path, prepared, quantized = (folder / name for name in ("model.onnx", "prepared.onnx", "int8.onnx"))
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        torch.onnx.export(
            network(model).eval(), (torch.from_numpy(rows[:2]),), str(path), dynamo=False, opset_version=17,
            input_names=["input"], output_names=["output"], dynamic_axes={"input": {0: "n"}, "output": {0: "n"}},
        )  # fmt: skip
        quant_pre_process(str(path), str(prepared))
        quantize_static(
            str(prepared), str(quantized), _Batches(rows), quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, per_channel=True,
        )  # fmt: skip
        converted = openvino.convert_model(path)
        openvino.save_model(converted, folder / "float.xml", compress_to_fp16=False)
        with contextlib.redirect_stdout(sys.stderr):
            small = nncf.quantize(converted, nncf.Dataset([rows[index : index + 4] for index in range(0, 32, 4)]))
        openvino.save_model(small, folder / "int8.xml", compress_to_fp16=False)
    names: Sequence[tuple[str, Precision, str]] = (
        ("onnxruntime", "float32", "model.onnx"), ("onnxruntime", "int8", "int8.onnx"),
        ("openvino", "float32", "float.xml"), ("openvino", "int8", "int8.xml"),
    )  # fmt: skip
    tensor = TensorSpec(name="input", datatype="FP32", shape=(-1, *shape))
    variants = [
        Stored(
            Variant(
                name=f"{engine}-{precision}", scheme=precision, engine=engine, precision=precision, model_file=file, files=(file,),
                size_bytes=(folder / file).stat().st_size, inputs=(tensor,),
                outputs=(TensorSpec(name="output", datatype="FP32", shape=(-1, -1)),),
            ),
            folder,
            "",
        )
        for engine, precision, file in names
    ]  # fmt: skip
    return variants, [rows]


def network(model: str) -> Any:
    import torchvision
    from torch import nn

    if model == "mlp":
        return nn.Sequential(nn.Linear(30, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
    if model == "digits":
        from models.digits.digits import network as digits

        return digits()
    return getattr(torchvision.models, model)()


class _Batches:
    """In the shape ONNX Runtime's CalibrationDataReader asks for."""

    def __init__(self, rows: np.ndarray) -> None:
        self._batches = iter([{"input": rows[index : index + 4]} for index in range(0, len(rows), 4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)


def _priority() -> str:
    with machine.Watch() as watch:
        pass
    return watch.seen["priority"]


if __name__ == "__main__":
    main()
