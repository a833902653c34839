"""How does a new version see live traffic without anybody waiting for it?

A sampled share of what the active version answered is copied into a bounded queue; a thread of the lowest priority runs the
shadow on it and compares. It paces itself by a CPU budget, and what finds the queue full is dropped and counted. What waits
is run joined, where the model takes batches: each turn of the interpreter that the shadow takes may delay a live request.
"""

import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Annotated, NamedTuple, TypeVar

import msgspec
from msgspec import Meta

from runtime.backends.base import Tensors
from runtime.contract.telemetry import Agreement
from runtime.errors import DaemonError, RetiredError
from runtime.monitor.monitor import MonitorLimits
from runtime.serving.batching import has_free_batch, join
from runtime.serving.models.agreement import agreeing_rows
from runtime.serving.models.model import ServedModel
from runtime.serving.models.split import turns

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_LOWEST = 19
_GATHER_S = 0.02
"""How long the first sample waits for others to be run with it."""
_LONGEST_PAUSE_S = 60.0
_WATCHED_ROWS = 1000
"""Of a window: enough for cell shares within 1.6 points."""
_WATCHED_BYTES = 1 << 20
_ALONE_EVERY = 8
"""One run in so many is of a single sample: it delays nearly as many live requests as one of 32."""


class ShadowSettings(msgspec.Struct, frozen=True, kw_only=True):
    """cpu_permille: of wall time that one shadow may use; waiting_*: a queue that holds as much takes nothing more;
    joined_rows: run at once at most.

    Far below 10 permille fewer than one live request in a hundred meets the shadow at work. waiting_rows: two runs' worth,
    for each that waits was copied by a live request: with 1,024 the p99 of a 16 us model asked without a pause rose
    1.4-fold (`benchmarks.shadow`).
    """

    cpu_permille: Annotated[int, Meta(ge=1, le=1000)] = 5
    waiting_rows: Annotated[int, Meta(ge=1)] = 64
    waiting_bytes: Annotated[int, Meta(ge=1)] = 8 << 20
    joined_rows: Annotated[int, Meta(ge=1)] = 32


def monitor_limits(limits: MonitorLimits | None) -> MonitorLimits:
    """How closely a shadow is watched, beside limits for others: its monitor counts seldom, and many rows at once.

    Each count is a dozen calls of NumPy that give the interpreter away and want it back, and delays some 25 live requests;
    a run of the shadow delays 5 (`benchmarks.shadow`).
    """
    limits = limits or MonitorLimits()
    return msgspec.structs.replace(
        limits,
        rows_per_window=min(limits.rows_per_window, _WATCHED_ROWS),
        block_bytes=max(limits.block_bytes, _WATCHED_BYTES),
        cpu_permille=min(limits.cpu_permille, 1),
    )


class _Settled(NamedTuple):
    """What the shadow's thread has found out, in examples."""

    compared: int = 0
    agreed: int = 0
    failed: int = 0


class _Sample(NamedTuple):
    active: ServedModel
    inputs: Tensors
    outputs: Tensors
    rows: int
    size_bytes: int

    def joins(self, first: "_Sample") -> bool:
        """Whether it may run in one inference with another: the same active version answered, on the same forms."""
        pairs = ((self.inputs, first.inputs), (self.outputs, first.outputs))
        return self.active is first.active and all(
            (array.shape[:1], theirs[name].shape[:1]) == ((self.rows,), (first.rows,))
            and array.shape[1:] == theirs[name].shape[1:]
            for ours, theirs in pairs
            for name, array in ours.items()
        )


class Shadow:
    """Runs one version beside the active one. `offer` may be called from any thread; it never waits for the shadow.

    What both sides write has one writer each, so that a thread of the lowest priority never holds a lock a live request
    wants: it might be kept from running for long.
    """

    def __init__(
        self,
        served: ServedModel,
        settings: ShadowSettings = ShadowSettings(),  # noqa: B008 - frozen
        *,
        cpu_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self.served = served
        self._settings = settings
        self._cpu_s = cpu_s
        self._joins = has_free_batch(served.manifest)
        threads = served.manifest.engine_options.get("threads", 1)
        self._threads = threads if isinstance(threads, int) else 1
        self._turns = turns(served.share)
        self._waiting: deque[_Sample] = deque()
        self._put_rows = self._put_bytes = self._dropped = 0  # written under _offering
        self._got_rows = self._got_bytes = 0  # written by the shadow's thread
        self._settled = _Settled()
        self._runs = 0
        self._offering = threading.Lock()
        self._taking = threading.Lock()
        self._taken = Agreement()
        self._arrived = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"shadow-{served.manifest.model}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Compare nothing more; what waits counts as dropped. Does not wait for the run under way."""
        with self._offering:
            self._ended.set()
            self._waiting.clear()  # stays in the counts of what was put and never got
        self._arrived.set()

    def offer(self, active: ServedModel, inputs: Tensors, outputs: Tensors, rows: int) -> None:
        """Take a live request as a sample if it is its turn: copy it, for its arrays are the caller's; or count it dropped."""
        if not next(self._turns):
            return
        with self._offering:
            settings = self._settings
            waiting_rows, waiting_bytes = self._put_rows - self._got_rows, self._put_bytes - self._got_bytes
            # Before its size is looked at: whether a sample is dropped depends on those before it alone, never on itself.
            if waiting_rows >= settings.waiting_rows or waiting_bytes >= settings.waiting_bytes or self._ended.is_set():
                self._dropped += rows
                return
            size_bytes = sum([array.nbytes for array in inputs.values()]) + sum([array.nbytes for array in outputs.values()])
            self._put_rows += rows
            self._put_bytes += size_bytes
            copies = {name: array.copy() for name, array in inputs.items()}
            answer = {name: array.copy() for name, array in outputs.items()}
            self._waiting.append(_Sample(active, copies, answer, rows, size_bytes))
        if not waiting_rows:
            self._arrived.set()

    @property
    def queued(self) -> int:
        """Examples that wait."""
        return self._put_rows - self._got_rows

    def totals(self) -> Agreement:
        """What came of the samples since the shadow began; those that still wait or run are in none of the counts."""
        settled, dropped = self._settled, self._dropped
        if self._ended.is_set():
            dropped += self.queued
        return Agreement(sampled=settled.compared + settled.failed + dropped, dropped=dropped, **settled._asdict())

    def take(self) -> Agreement:
        """What came of them since the last call."""
        with self._taking:
            before, self._taken = self._taken, self.totals()
            now = self._taken
        return Agreement(**{name: getattr(now, name) - getattr(before, name) for name in Agreement.__struct_fields__})

    def _run(self) -> None:
        lower_priority()
        rested = time.monotonic()  # when what was spent is made up for: nothing runs before, and samples that trickle join
        while not self._ended.is_set():
            self._arrived.wait()
            self._arrived.clear()
            while self.queued and not self._ended.wait(max(_GATHER_S, rested - time.monotonic())):
                # The CPU time of an engine in a process of its own is not this thread's: its wall time stands for it.
                clock = time.monotonic if self.served.is_apart else self._cpu_s
                before = clock()
                try:
                    self.run_some()
                except Exception:  # the worker's edge: a bug here must end no daemon, and no shadow
                    log.exception("the shadow of %s meets an unexpected error", self.served.manifest.model)
                spent_s = (clock() - before) * self._threads
                rested = time.monotonic() + min(_LONGEST_PAUSE_S, spent_s * (1000 / self._settings.cpu_permille - 1))

    def run_some(self) -> None:
        """Run the shadow once on what waits: joined, as far as it joins, but first and now and then one alone, for a latency that
        compares.
        """
        first = self._next()
        if first is None:
            return
        is_alone, self._runs = self._runs % _ALONE_EVERY == 0, self._runs + 1
        samples, rows = [first], first.rows
        most_rows = self._settings.joined_rows if self._joins and not is_alone else 0
        while (head := self._peek()) is not None and rows + head.rows <= most_rows and head.joins(first):
            if self._next() is None:  # closed meanwhile
                break
            samples.append(head)
            rows += head.rows
        self._compare(samples)

    def _compare(self, samples: list[_Sample]) -> None:
        """Run samples of one form as one inference and count how many rows agree."""
        rows = sum(sample.rows for sample in samples)
        active, shadow = samples[0].active.manifest, self.served.manifest
        try:
            inputs = samples[0].inputs if len(samples) == 1 else join([sample.inputs for sample in samples])
            self.served.check(inputs)
            outputs = self.served.infer(inputs, requests=1 if len(samples) == 1 else 0)
        except RetiredError:
            self._drop(rows)
            return
        except DaemonError as error:
            if not self._settled.failed:
                log.warning("the shadow %s %s gives no answer: %s", shadow.model, shadow.version, error)
            self._settled = self._settled._replace(failed=self._settled.failed + rows)
            return
        answer = samples[0].outputs if len(samples) == 1 else join([sample.outputs for sample in samples])
        agreed = agreeing_rows(active, answer, shadow, outputs, rows)
        settled = self._settled
        self._settled = settled._replace(compared=settled.compared + rows, agreed=settled.agreed + agreed)

    def _next(self) -> _Sample | None:
        try:
            sample = self._waiting.popleft()
        except IndexError:
            return None
        self._got_rows += sample.rows
        self._got_bytes += sample.size_bytes
        return sample

    def _peek(self) -> _Sample | None:
        try:
            return self._waiting[0]
        except IndexError:
            return None

    def _drop(self, rows: int) -> None:
        with self._offering:
            self._dropped += rows


def lower_priority() -> None:
    """Give the calling thread, and those it starts, the lowest priority. Said aloud where the system has none for threads."""
    if not sys.platform.startswith("linux"):
        log.warning("shadows run at the usual priority: this system has none for single threads")
        return
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST)
    except OSError as error:
        log.warning("shadows run at the usual priority: %s", error.strerror)


def at_lowest_priority(work: Callable[[], Result]) -> Result:
    """What `work` returns or raises, done in a thread of the lowest priority; waits for it."""

    def run() -> None:
        lower_priority()
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again where it was called
            failed.append(error)

    done: list[Result] = []
    failed: list[BaseException] = []
    thread = threading.Thread(target=run, name="open-shadow")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
