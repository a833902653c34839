"""What is one opened artifact while it serves: its engine, its monitor, and who still uses it?"""

import threading
import time
from collections.abc import Callable

import numpy as np

from runtime.backends.base import LoadedModel, Tensors
from runtime.backends.datatypes import NUMPY_TYPES
from runtime.contract.artifact import ArtifactRef, Manifest, TensorSpec
from runtime.contract.deployment import Role
from runtime.errors import InferenceError, RequestError
from runtime.monitor.monitor import Monitor

# The running cost moves a sixteenth of the way to each new one, and takes none for more than double: a device's pauses (a
# call that took a hundred times its usual while something else ran) must not move a quick model to the pool.
_COST_WEIGHT = 16
_COST_GROWTH = 2
_COST_STEP_NS = 1000
_WARM_UP_RUNS = 5
_WARM_UP_NS = 50_000_000
UNKNOWN_COST_NS = 1_000_000_000


class ServedModel:
    """Runs requests one at a time, whatever thread they come from, and watches every one.

    In use between `acquire` and `release`; closed once retired and unused, so no request ever meets a closed engine.
    """

    def __init__(
        self, manifest: Manifest, artifact: ArtifactRef, model: LoadedModel, monitor: Monitor, role: Role = "active"
    ) -> None:
        self.manifest = manifest
        self.artifact = artifact
        self.monitor = monitor
        self.role = role
        self._model = model
        self._expected = [_Expected(spec) for spec in manifest.inputs]
        self._first = manifest.inputs[0].name
        self._running = threading.Lock()
        self._users_lock = threading.Lock()
        self._users = 0
        self._is_retired = False
        self._cost_ns = UNKNOWN_COST_NS

    def acquire(self) -> bool:
        """Keep the engine open until `release`; False when it is retired and another version must be asked for."""
        with self._users_lock:
            if self._is_retired:
                return False
            self._users += 1
            return True

    def release(self) -> None:
        with self._users_lock:
            self._users -= 1
            is_last = self._is_retired and not self._users
        if is_last:
            self._model.close()

    def retire(self) -> None:
        """Take no new requests, and close when the last one ends. Retiring twice is no error."""
        with self._users_lock:
            is_unused = not self._is_retired and not self._users
            self._is_retired = True
        if is_unused:
            self._model.close()

    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """Run once and watch it. inputs: have passed `check`. The caller holds the model by `acquire`.

        Raises InferenceError when the engine fails.
        """
        try:
            with self._running:
                started = time.perf_counter_ns()
                outputs = self._model.infer(inputs)
                taken = time.perf_counter_ns() - started
        except Exception:
            self.monitor.observe_error()
            raise
        self.monitor.observe(inputs, outputs, taken)
        cost = self._cost_ns
        self._cost_ns += (min(taken // self.rows(inputs), _COST_GROWTH * cost + _COST_STEP_NS) - cost) // _COST_WEIGHT
        return outputs

    def check(self, inputs: Tensors) -> None:
        """Raise RequestError unless names, datatypes and shapes are those of the manifest."""
        for expected in self._expected:
            expected.check(inputs)
        if len(inputs) != len(self._expected):
            surplus = sorted(set(inputs) - {spec.name for spec in self.manifest.inputs})
            raise RequestError(f"{self.manifest.model} has no input {surplus[0]!r}")

    def rows(self, inputs: Tensors) -> int:
        """Examples in a checked request."""
        shape = inputs[self._first].shape
        return shape[0] if shape else 1

    def expected_ns(self, rows: int) -> int:
        """How long a request of so many examples will take, by those before it."""
        return self._cost_ns * rows

    def warm_up(self, clock_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        """Run on zeros a few times, unwatched: the first run allocates, and the fastest tells the cost of one example.

        A model that refuses zeros is served all the same; its cost is learnt from requests.
        """
        inputs = {expected.name: expected.zeros() for expected in self._expected}
        stop = clock_ns() + _WARM_UP_NS
        taken: list[int] = []
        while len(taken) < _WARM_UP_RUNS and (not taken or clock_ns() < stop):
            started = clock_ns()
            try:
                self._model.infer(inputs)
            except InferenceError:
                return
            taken.append(clock_ns() - started)
        self._cost_ns = min(taken) // self.rows(inputs)


class _Expected:
    """What one input must look like, prepared so that the usual check is three comparisons."""

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self._spec = spec
        self._type = NUMPY_TYPES[spec.datatype]
        self._has_free_batch = bool(spec.shape) and spec.shape[0] == -1
        self._tail = spec.shape[1:]

    def check(self, inputs: Tensors) -> None:
        array = inputs.get(self.name)
        if array is None:
            raise RequestError(f"input {self.name!r} is missing")
        if array.dtype != self._type:
            raise RequestError(f"input {self.name!r} must be {self._spec.datatype}, not {array.dtype}")
        shape = array.shape
        if self._has_free_batch and shape[1:] == self._tail and shape[0]:
            return
        wanted = self._spec.shape
        fits = len(shape) == len(wanted) and all(want in (-1, size) for size, want in zip(shape, wanted, strict=True))
        if not fits or 0 in shape:
            raise RequestError(f"input {self.name!r} must have shape {list(wanted)}, not {list(shape)}")

    def zeros(self) -> np.ndarray:
        return np.zeros([1 if size == -1 else size for size in self._spec.shape], self._type)
