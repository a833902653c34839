"""What does a free batch cost OpenVINO when single rows come? `python -m benchmarks.openvino_batch`

Random weights, one thread, both ways of opening the same file in turns; the ratio is free / cut to single rows.
"""

import tempfile
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from models.digits.digits import network as digits
from runtime.backends.base import get_backend
from toolchain.benchmark.latency import summarize
from toolchain.benchmark.timing import Call, Opener, figures, run_rounds


def main() -> None:
    import openvino
    import torch
    import torchvision

    networks = {
        "digits": (digits(32), (1, 32, 32)),
        "mobilenet_v3_small": (torchvision.models.mobilenet_v3_small(), (3, 224, 224)),
    }
    with tempfile.TemporaryDirectory() as folder:
        for name, (network, shape) in networks.items():
            source, path = Path(folder) / f"{name}.onnx", Path(folder) / f"{name}.xml"
            program = torch.onnx.export(
                network.eval(), (torch.zeros(2, *shape),), dynamo=True, dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["input"], output_names=["output"], external_data=False, verbose=False,
            )  # fmt: skip
            assert program is not None
            program.save(str(source), external_data=False)
            openvino.save_model(openvino.convert_model(str(source)), str(path), compress_to_fp16=False)
            times = run_rounds({"free": _opener(path, shape, 0), "cut": _opener(path, shape, 1)}, lambda *_: None, threads=1)
            result = summarize(figures(times["cut"], times["free"]), 1, 1)
            free_us = summarize(figures(times["free"], times["free"]), 1, 1).p50_ns / 1000
            print(f"{name:20} free {free_us:8.1f} us, cut {result.p50_ns / 1000:8.1f} us: {result.ratio:.2f}x "
                  f"({result.ratio_low:.2f} to {result.ratio_high:.2f})")  # fmt: skip


def _opener(path: Path, shape: tuple[int, ...], batch: int) -> Opener:
    def open_model(stack: ExitStack) -> Call:
        model = stack.enter_context(closing(get_backend("openvino").load(path, {"batch": batch})))
        feed = {model.inputs[0].name: np.random.default_rng(0).random((1, *shape), np.float32)}
        return lambda: model.infer(feed)

    return open_model


if __name__ == "__main__":
    main()
