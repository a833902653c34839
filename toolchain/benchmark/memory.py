"""How much memory does a model take in its engine? Asked of a process that has nothing else to do.

Run as `python -m toolchain.benchmark.memory`, it reads {engine, model, options, inputs} from stdin and answers with bytes. The figure is
the highest resident set while the model was opened and run, less that of the same process with only the engine imported.
"""

import json
import sys
from contextlib import closing
from pathlib import Path

STATUS = Path("/proc/self/status")
_MODULES = {"onnxruntime": "onnxruntime", "openvino": "openvino"}
_RUNS = 3


def main() -> None:
    """Needs NumPy, the engine and `runtime` only."""
    import importlib

    import numpy as np

    from runtime.backends.base import get_backend

    question = json.load(sys.stdin)
    backend = get_backend(question["engine"])
    if question["engine"] in _MODULES:
        importlib.import_module(_MODULES[question["engine"]])
    with np.load(question["inputs"]) as arrays:
        feed = {name: arrays[name] for name in arrays.files}
    before = resident("VmRSS")
    with closing(backend.load(Path(question["model"]), question["options"])) as model:
        for _ in range(_RUNS):
            model.infer(feed)
    sys.stdout.write(json.dumps(max(0, resident("VmHWM") - before)))


def resident(field: str, status: Path = STATUS) -> int:
    """VmRSS or VmHWM in bytes; Linux counts them in KiB. Source: proc_pid_status(5)."""
    line = next(line for line in status.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
