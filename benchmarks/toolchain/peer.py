"""What does Microsoft Olive make of the same float model and the same data, and what does it take?

It gets the float32 ONNX our build exported, our calibration and validation examples, and its own default static quantization for
ONNX Runtime on the CPU. Its result is then timed beside that float model by our interleaved measurement.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from benchmarks.figures import Figure
from benchmarks.process import Cost, run_measured
from benchmarks.toolchain.work import BASELINE, Work
from runtime.backends.base import get_backend
from toolchain.benchmark.latency import summarize
from toolchain.benchmark.timing import Call, Opener, figures, run_rounds
from toolchain.pipeline.cache import FILES_NAME, RECORD_NAME, Record
from toolchain.pipeline.products import DataSplits, Split
from toolchain.pipeline.record import LatencyResult, TargetResult

VERSION = "0.13.0"
REQUIREMENTS = (f"olive-ai=={VERSION}", "onnxruntime==1.31.1", "onnxscript", "requests", "torch", "torchvision")
"""requests: Olive imports it without asking for it."""
HOME = Path(os.environ.get("EDGEWRIGHT_PEERS", Path(tempfile.gettempdir()) / "edgewright-peers")) / f"olive-{VERSION}"
CALIBRATION_ROWS = 256
TASK = Path(__file__).parent / "olive_task.py"


def compare(work: Work, target: TargetResult, root: Path) -> Iterator[Figure]:
    """Olive's speed-up on this work, its two builds, and its start."""
    program = _environment() / "bin" / "olive"
    folder = root / f"{work.name}-olive"
    model = Path(next(each.path for each in target.variants if each.name == BASELINE))
    config = _configure(folder, model, _data(root / f"{work.name}-cache"))
    command = [str(program), "run", "--config", str(config)]
    cold, again = _run(command, folder), _run(command, folder)
    start = _run([str(program), "--help"], folder)
    how = f"Olive {VERSION}, OnnxStaticQuantization by its defaults"
    quantized = next(iter((folder / "out").rglob("*.onnx")), None)
    if quantized is None:
        yield Figure(name=f"olive, {work.name}: exit code without a model", value=cold.exit_code, unit="", how=how)
    else:
        latency = _beside(model, quantized)
        interval = f"{latency.ratio_low:.2f} to {latency.ratio_high:.2f}"
        yield Figure(name=f"olive, {work.name}: int8", value=latency.ratio, unit="x", how=f"{how}; {interval}")
    yield Figure(name=f"olive, {work.name}: cold run", value=cold.wall_s, unit="s", how="quantize and evaluate, no training")
    yield Figure(name=f"olive, {work.name}: the same again", value=again.wall_s, unit="s", how="nothing changed")
    yield Figure(name="olive --help, CPU", value=start.cpu_s, unit="s")
    yield Figure(name="olive --help, memory", value=start.peak_mb, unit="MB")


def _environment() -> Path:
    """A virtual environment of its own, made once: its dependencies are not ours."""
    done = HOME / "installed.txt"
    if not done.exists():
        print(f"installing Olive {VERSION} into {HOME} ...", file=sys.stderr)
        uv = str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(HOME)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(HOME / "bin" / "python"), *REQUIREMENTS], check=True)
        done.write_text("\n".join(REQUIREMENTS) + "\n")
    return HOME


def _data(cache: Path) -> tuple[DataSplits, Path]:
    """What our build loaded, from its own cache."""
    for record_file in cache.glob(f"stages/*/{RECORD_NAME}"):
        record = msgspec.json.decode(record_file.read_bytes(), type=Record)
        if record.name == "load data":
            return msgspec.json.decode(record.value, type=DataSplits), record_file.parent / FILES_NAME
    raise RuntimeError(f"{cache} holds no loaded data")


def _configure(folder: Path, model: Path, data: tuple[DataSplits, Path]) -> Path:
    """Olive's run as a file: quantize with the training split, judge accuracy and latency on the validation split."""
    folder.mkdir()
    splits, files = data
    name = splits.steering.inputs[0].name
    calibration = _save(folder / "train.npz", files, splits.steering.train)
    judging = _save(folder / "validation.npz", files, splits.steering.validation)
    accuracy = {
        "name": "accuracy_score",
        "priority": 1,
        "metric_config": {"task": "multiclass", "num_classes": len(splits.steering.classes)},
    }
    metrics = [
        {"name": "accuracy", "type": "accuracy", "backend": "torch_metrics", "data_config": "judging", "sub_types": [accuracy]},
        {"name": "latency", "type": "latency", "data_config": "judging", "sub_types": [{"name": "avg", "priority": 2}]},
    ]
    system = {"type": "LocalSystem", "accelerators": [{"device": "cpu", "execution_providers": ["CPUExecutionProvider"]}]}
    config: dict[str, Any] = {
        "input_model": {"type": "ONNXModel", "model_path": str(model)},
        "systems": {"here": system},
        "data_configs": [
            _loader("calibration", calibration, CALIBRATION_ROWS, name),
            _loader("judging", judging, splits.steering.validation.rows, name),
        ],
        "evaluators": {"usual": {"type": "OnnxEvaluator", "metrics": metrics}},
        "passes": {"quantize": {"type": "OnnxStaticQuantization", "data_config": "calibration"}},
        "evaluator": "usual", "host": "here", "target": "here", "cache_dir": str(folder / "cache"), "output_dir": str(folder / "out"),
    }  # fmt: skip
    path = folder / "config.json"
    path.write_text(json.dumps(config, indent=1))
    return path


def _loader(label: str, file: Path, rows: int, name: str) -> dict[str, Any]:
    return {
        "name": label, "type": "DataContainer", "user_script": str(TASK), "dataloader_config": {"batch_size": 1},
        "load_dataset_config": {"type": "arrays", "file": str(file), "rows": rows, "name": name},
        "post_process_data_config": {"type": "best_class"},
    }  # fmt: skip


def _save(path: Path, files: Path, split: Split) -> Path:
    np.savez(path, x=np.load(files / split.inputs[0]), y=np.load(files / split.targets))
    return path


def _run(command: list[str], folder: Path) -> Cost:
    """As whole processes, quiet, nothing sent anywhere."""
    started = time.monotonic()
    cost = run_measured(
        command, {"OLIVE_DISABLE_TELEMETRY": "1", "PATH": f"{HOME / 'bin'}:{os.environ['PATH']}", "HOME": str(folder)}
    )
    print(f"olive: exit {cost.exit_code} after {time.monotonic() - started:.0f} s", file=sys.stderr)
    return cost


def _beside(model: Path, quantized: Path) -> LatencyResult:
    """Both models in ONNX Runtime, in turns, batch 1, one thread."""
    times = run_rounds({"float": _opener(model), "olive": _opener(quantized)}, lambda done, of, text: None, threads=1)
    return summarize(figures(times["olive"], times["float"]), 1, 1)


def _opener(path: Path) -> Opener:
    def open_model(stack: ExitStack) -> Call:
        loaded = stack.enter_context(closing(get_backend("onnxruntime").load(path, {"threads": 1})))
        (spec,) = loaded.inputs
        feed = {spec.name: np.zeros([1, *spec.shape[1:]], np.float32)}
        return lambda: loaded.infer(feed)

    return open_model
