"""What is one opened artifact while it serves: its engine, its monitor, and who still uses it?"""

import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from runtime.backends.base import LoadedModel, Tensors
from runtime.backends.datatypes import NUMPY_TYPES, zeros
from runtime.backends.fallback import EngineInUse, Opened
from runtime.contract.artifact import ArtifactRef, Manifest, TensorSpec
from runtime.contract.deployment import SHARE_WHOLE, Role
from runtime.contract.telemetry import Agreement
from runtime.errors import EngineCrashedError, EngineHungError, InferenceError, RequestError, RetiredError
from runtime.memory import give_back
from runtime.monitor.cells import latency_quantile
from runtime.monitor.monitor import Monitor
from runtime.serving.models.health import Health

# The running cost moves a sixteenth of the way to each new one, and takes none for more than double: a device's pauses (a
# call that took a hundred times its usual while something else ran) must not move a quick model to the pool.
_COST_WEIGHT = 16
_COST_GROWTH = 2
_COST_STEP_NS = 1000
_WARM_UP_RUNS = 5
_WARM_UP_NS = 50_000_000
UNKNOWN_COST_NS = 1_000_000_000
_NO_SHAPE = (-1,)
"""Equal to no array's shape."""

Mirror = Callable[["ServedModel", Tensors, Tensors, int], None]
"""Called with the version that answered, its inputs and outputs, and how many examples they are."""


class ServedModel:
    """Runs requests one at a time, whatever thread they come from, and watches every one.

    Once retired it refuses, and closes its engine as soon as no inference is under way: a request runs wholly on one version
    or is told to ask the next, and never meets a closed engine.
    """

    def __init__(
        self,
        manifest: Manifest,
        artifact: ArtifactRef,
        model: LoadedModel,
        monitor: Monitor,
        role: Role = "active",
        *,
        share: int = SHARE_WHOLE,
        engine: EngineInUse | None = None,
        is_apart: bool = False,
    ) -> None:
        """engine: what `model` is opened in, None for the one it was made for; is_apart: in a process of its own."""
        self.manifest = manifest
        self.artifact = artifact
        self.monitor = monitor
        self.role = role
        self.share = share
        self.failure = ""
        """Why this version is broken for good, or ""; see Health."""
        self.trial_directory: Path | None = None
        """Where its artifact lies while its engine runs apart from this process; see `Repository.settle`."""
        self.engine = engine or EngineInUse(manifest.requires.engine, options=manifest.engine_options)
        self.is_apart = is_apart
        self.mirror: Mirror | None = None
        """Who else looks at each answered request, such as a shadow; set by the repository."""
        self.agreement: Callable[[], Agreement] | None = None
        """Of a shadow: takes how its answers compared with the active version's."""
        self.takes_text = any(spec.datatype == "BYTES" for spec in manifest.inputs)
        """Whether an input is of strings, which take longer to read than they look."""
        self._model = model
        self._expected = [_Expected(spec) for spec in manifest.inputs]
        self._first = manifest.inputs[0].name
        self._usual_shape: tuple[int, ...] = _NO_SHAPE
        """The shape of the last request that passed, where a shape and a datatype are all there is to check."""
        self._usual_type = self._expected[0].plain_type if len(self._expected) == 1 else None
        self._running = threading.Lock()
        self._is_retired = False
        self._started_ns = 0
        self._taken_ns = 0
        self._cost_ns = UNKNOWN_COST_NS

    @property
    def is_retired(self) -> bool:
        return self._is_retired

    def retire(self) -> None:
        """Run nothing more, and close when the inference under way ends; does not wait for it. Twice is no error."""
        self._is_retired = True
        self._close_if_unused()

    def replace_engine(self, opened: Opened) -> None:
        """Run in another engine from the next request on, such as in this process after a trial outside; counts go on.

        Waits for the inference under way. Raises RetiredError, and closes the new engine, when this version serves no more.
        """
        model = opened.model
        with self._running:
            if not self._is_retired:
                self._model, model = model, self._model
                self.engine, self.is_apart = opened.engine, opened.is_apart
        model.close()
        if self._is_retired:
            self._close_if_unused()
            raise RetiredError(f"{self.manifest.model} {self.manifest.version} serves no more")
        give_back()

    def health(self) -> Health:
        totals = self.monitor.totals()
        cells = {cell: count for cell, count in enumerate(totals.latency_cells) if count}
        return Health(totals.requests, totals.errors, latency_quantile(cells, 0.5) or 0, self.failure, totals.examples)

    def infer(self, inputs: Tensors, rows: int = 0, requests: int = 1) -> dict[str, np.ndarray]:
        """Run once and watch it. inputs: have passed `check`; rows: what it returned, 0 to look again.

        requests: how many are joined here; 0 for a run whose latency tells nothing of a request's. Raises RetiredError when
        another version has taken over, InferenceError when the engine fails.
        """
        rows = rows or self._rows(inputs)
        try:
            with self._running:
                if self._is_retired:
                    raise RetiredError(f"{self.manifest.model} {self.manifest.version} serves no more")
                self._started_ns = started = perf_counter_ns()
                try:
                    outputs = self._model.infer(inputs)
                except Exception as error:
                    self._note(error)
                    raise
                ended = perf_counter_ns()
                # Inside the lock, so that the monitor needs none of its own for what every request costs.
                self.monitor.observe(inputs, outputs, rows, started, ended, requests)
        finally:
            if self._is_retired:
                self._close_if_unused()
        self._taken_ns = (ended - started) // rows
        return outputs

    def check(self, inputs: Tensors) -> int:
        """How many examples these are. Raises RequestError unless names, datatypes and shapes are those of the manifest."""
        array = inputs.get(self._first)
        # The usual request is one array like the one before it: NumPy has one object per plain datatype.
        if array is not None and array.dtype is self._usual_type and len(inputs) == 1:
            shape: tuple[int, ...] = array.shape
            if shape == self._usual_shape:
                return shape[0]
        for expected in self._expected:
            expected.check(inputs)
        if len(inputs) != len(self._expected):
            surplus = sorted(set(inputs) - {spec.name for spec in self.manifest.inputs})
            raise RequestError(f"{self.manifest.model} has no input {surplus[0]!r}")
        self._usual_shape = inputs[self._first].shape or _NO_SHAPE
        return self._rows(inputs)

    def stuck_s(self, now_ns: Callable[[], int] = perf_counter_ns) -> float:
        """For how long the inference under way has been in the engine; 0.0 when there is none."""
        started = self._started_ns
        return max(0.0, (now_ns() - started) / 1e9) if self._running.locked() and started else 0.0

    def fail(self, error: InferenceError) -> None:
        """This version is broken for good: its health says why from now on. The first reason stays."""
        self.failure = self.failure or f"{error.code}: {error}"

    def expected_ns(self, inputs: Tensors) -> int:
        """How long a request will take, by those before it. inputs: need not have passed `check`.

        An engine in a process of its own may hang until its time is up, and nothing but a request of its own may wait for it.
        """
        if self.is_apart:
            return UNKNOWN_COST_NS
        # Learnt here from the last run, not at every one: in-process callers never ask.
        taken, self._taken_ns = self._taken_ns, 0
        if taken:
            cost = self._cost_ns
            self._cost_ns = cost + (min(taken, _COST_GROWTH * cost + _COST_STEP_NS) - cost) // _COST_WEIGHT
        first = inputs.get(self._first)
        return self._cost_ns * (first.shape[0] if first is not None and first.shape else 1)

    def warm_up(self, clock_ns: Callable[[], int] = perf_counter_ns) -> None:
        """Run on zeros a few times, unwatched: the first run allocates, and the fastest tells the cost of one example.

        A model that refuses zeros is served all the same; its cost is learnt from requests. One that crashes over them in a
        process of its own is not: raises EngineCrashedError or EngineHungError.
        """
        inputs = {expected.name: expected.zeros() for expected in self._expected}
        stop = clock_ns() + _WARM_UP_NS
        taken: list[int] = []
        while len(taken) < _WARM_UP_RUNS and (not taken or clock_ns() < stop):
            started = clock_ns()
            try:
                self._model.infer(inputs)
            except (EngineCrashedError, EngineHungError):
                raise
            except InferenceError:
                return
            taken.append(clock_ns() - started)
        shape = inputs[self._first].shape
        self._cost_ns = min(taken) // (shape[0] if shape else 1)

    def _rows(self, inputs: Tensors) -> int:
        shape = inputs[self._first].shape
        return shape[0] if shape else 1

    def _note(self, error: Exception) -> None:
        self.monitor.observe_error()
        if isinstance(error, EngineCrashedError | EngineHungError) and error.is_final:
            self.fail(error)

    def _close_if_unused(self) -> None:
        """Whoever fails to get the lock leaves the closing to its holder, who looks for `_is_retired` when it is done."""
        if self._running.acquire(blocking=False):
            try:
                self._model.close()
            finally:
                self._running.release()
            give_back()


class _Expected:
    """What one input must look like, prepared so that the usual check is three comparisons."""

    def __init__(self, spec: TensorSpec) -> None:
        self.name = spec.name
        self._spec = spec
        self._type = NUMPY_TYPES[spec.datatype]
        self._is_text = spec.datatype == "BYTES"
        self.plain_type = self._type if not self._is_text and self._type.names is None else None
        """The type where comparing it and the shape is the whole check; None for others."""
        self._has_free_batch = bool(spec.shape) and spec.shape[0] == -1
        self._tail = spec.shape[1:]

    def check(self, inputs: Tensors) -> None:
        array = inputs.get(self.name)
        if array is None:
            raise RequestError(f"input {self.name!r} is missing")
        if array.dtype != self._type:
            raise RequestError(f"input {self.name!r} must be {self._spec.datatype}, not {array.dtype}")
        if self._is_text:
            self._require_text(array)
        shape = array.shape
        if self._has_free_batch and shape[1:] == self._tail and shape[0]:
            return
        wanted = self._spec.shape
        fits = len(shape) == len(wanted) and all(want in (-1, size) for size, want in zip(shape, wanted, strict=True))
        if not fits or 0 in shape:
            raise RequestError(f"input {self.name!r} must have shape {list(wanted)}, not {list(shape)}")

    def zeros(self) -> np.ndarray:
        return zeros(self._spec.datatype, tuple(1 if size == -1 else size for size in self._spec.shape))

    def _require_text(self, array: np.ndarray) -> None:
        """Engines take strings as UTF-8 only, and whoever sends others is at fault, not the engine."""
        try:
            for element in array.flat:
                element.decode()
        except UnicodeDecodeError as error:
            raise RequestError(f"input {self.name!r} has BYTES that are not UTF-8: {error}") from error
