"""What does an artifact do on the machine it lies on? Needs `runtime`, its engine and NumPy, and nothing else of ours.

`toolchain bench` calls `answer` in its own process; with `--on HOST` it copies this module and the three it imports to the host and runs
`python3 -m toolchain.benchmark.device` there: a request as JSON on stdin, the answer as JSON on stdout.
"""

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np

from runtime.backends.base import get_backend
from runtime.contract.artifact import GOLDEN_NAME, MANIFEST_NAME, Manifest, read_manifest
from runtime.contract.errors import ContractError, MalformedError
from runtime.errors import DaemonError
from toolchain.benchmark import scenarios
from toolchain.benchmark.machine import Watch
from toolchain.benchmark.timing import Call, figures, run_rounds

MODULES = ("device", "machine", "scenarios", "timing")
"""What has to be copied for this module to run elsewhere."""


def answer(request: dict[str, Any], tick: Callable[[int, int, str], None]) -> list[dict[str, Any]]:
    """request: {artifacts: folders, threads or null, blocks, scenario or null, duration_s, bound_ns or null}.

    Per artifact {figures, threads, batch, conditions}, figures of `timing` or of `scenarios`; the first artifact is the yardstick.
    Raises EngineError, MalformedError or OSError.
    """
    opened = [Opened(Path(folder), request["threads"]) for folder in request["artifacts"]]
    with Watch() as watch:
        if request["scenario"]:
            found = [_scenario(each, request) for each in opened]
        else:
            openers = {str(index): each.opener for index, each in enumerate(opened)}
            times = run_rounds(openers, tick, threads=max(each.threads for each in opened), blocks=request["blocks"])
            found = [figures(each, times["0"]) for each in times.values()]
    return [
        {"figures": result, "threads": each.threads, "batch": each.batch, "conditions": watch.seen}
        for each, result in zip(opened, found, strict=True)
    ]


class Opened:
    """An artifact, its inputs, and the options it is served with. batch: how many examples one inference takes at least."""

    def __init__(self, folder: Path, threads: int | None) -> None:
        self.manifest: Manifest = read_manifest((folder / MANIFEST_NAME).read_bytes()).value
        self.threads = threads or int(self.manifest.engine_options.get("threads", 1))
        self.batch = max(1, self.manifest.inputs[0].shape[0])
        self.free = self.manifest.inputs[0].shape[0] < 0
        self._folder = folder
        self._inputs = self._golden()

    def opener(self, stack: ExitStack) -> Call:
        infer = self.infer(stack)
        return lambda: infer(self.batch)

    def infer(self, stack: ExitStack) -> scenarios.Infer:
        """Runs so many examples: at once where the batch is free, else one batch after the other."""
        options = self.manifest.engine_options | {"threads": self.threads}
        backend = get_backend(self.manifest.requires.engine)
        model = stack.enter_context(closing(backend.load(self._folder / self.manifest.model_file, options)))
        feeds = {count: self._feed(count) for count in (self.batch, scenarios.STREAMS, scenarios.OFFLINE_BATCH)}
        if self.free:
            return lambda count: model.infer(feeds[count])
        size, feed = self.batch, feeds[self.batch]

        def repeat(count: int) -> None:
            for _ in range(-(-count // size)):
                model.infer(feed)

        return repeat

    def _feed(self, count: int) -> dict[str, np.ndarray]:
        """The golden inputs, over and over."""
        return {name: np.ascontiguousarray(np.resize(array, (count, *array.shape[1:]))) for name, array in self._inputs.items()}

    def _golden(self) -> dict[str, np.ndarray]:
        file = self._folder / GOLDEN_NAME
        try:
            with np.load(file) as arrays:
                return {spec.name: arrays[f"in.{spec.name}"] for spec in self.manifest.inputs}
        except (OSError, ValueError, KeyError) as error:
            raise MalformedError(f"{file} holds no inputs to measure with: {error}") from error


def _scenario(artifact: Opened, request: dict[str, Any]) -> dict[str, Any]:
    bound = request["bound_ns"] or artifact.manifest.limits.max_latency_ns
    with ExitStack() as stack:
        return scenarios.run(request["scenario"], artifact.infer(stack), request["duration_s"], bound)


def main() -> int:
    try:
        result = answer(json.load(sys.stdin), lambda *_: None)
    except (ContractError, DaemonError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 4
    sys.stdout.write(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
