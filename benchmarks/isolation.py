"""What does an engine in a process of its own cost? `python -m benchmarks.isolation`

The same model here and apart, asked in turns: half of the requests take so much longer. On one core as well, where no other core
has to be woken; and what the process holds in memory.
"""

import os
import tempfile
import time
from contextlib import closing
from pathlib import Path

import numpy as np

from benchmarks.serving import write_tiny_onnx
from runtime.backends.base import LoadedModel, Tensors, get_backend
from runtime.backends.isolated import IsolatedModel, Isolation

CALLS = 3000
ENGINE = "onnxruntime"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        tiny, image = Path(folder) / "tiny.onnx", Path(folder) / "image.onnx"
        write_tiny_onnx(tiny)
        write_image_onnx(image)
        every_core = os.sched_getaffinity(0)
        for cores in (every_core, {min(every_core)}):
            os.sched_setaffinity(0, cores)
            for path in (tiny, image):
                report(path, len(cores))


def report(path: Path, cores: int) -> None:
    started = time.perf_counter()
    with closing(IsolatedModel(ENGINE, path, {}, Isolation())) as apart, closing(get_backend(ENGINE).load(path, {})) as here:
        opened_s = time.perf_counter() - started
        feed = {
            spec.name: np.random.default_rng(0).random([max(1, size) for size in spec.shape], np.float32) for spec in here.inputs
        }
        here_us, apart_us = in_turns(here, apart, feed)
        megabytes = resident_mb(apart.pid)
    print(
        f"{path.stem:6} {cores} cores: here {here_us:7.1f} us, apart {apart_us:7.1f} us, +{apart_us - here_us:6.1f} us; "
        f"opened in {opened_s:.2f} s, the process holds {megabytes:.0f} MB"
    )


def in_turns(here: LoadedModel, apart: LoadedModel, feed: Tensors) -> tuple[float, float]:
    """Median microseconds of each."""
    taken = np.empty((CALLS, 2))
    for call in range(CALLS):
        began = time.perf_counter_ns()
        here.infer(feed)
        between = time.perf_counter_ns()
        apart.infer(feed)
        taken[call] = between - began, time.perf_counter_ns() - between
    here_us, apart_us = np.median(taken[CALLS // 10 :], axis=0) / 1000
    return float(here_us), float(apart_us)


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def write_image_onnx(path: Path) -> None:
    """An image of 224 x 224 in, one number out: what is copied is what it costs."""
    from onnx import TensorProto, helper, save

    graph = helper.make_graph(
        [helper.make_node("ReduceMax", ["input"], ["output"], keepdims=0)],
        "image",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [])],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


if __name__ == "__main__":
    main()
