"""How does a model run where it can harm nobody: in a process of its own?

The daemon copies tensors into shared memory, rings, and waits; if the engine crashes, hangs or eats more memory than it may,
its process ends and the request under way gets an error, nothing more. What comes back is copied out: the caller owns it.
"""

import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from runtime.backends.arena import Arena, Reader, Writer
from runtime.backends.base import Tensors
from runtime.backends.engine_process import EXIT_MEMORY, FAILED, Failure, Order, Ready
from runtime.backends.fallback import Opened, open_engine
from runtime.contract.artifact import Manifest, OptionValue
from runtime.errors import DaemonError, EngineCrashedError, EngineError, EngineHungError, InferenceError, ModelLoadError

log = logging.getLogger(__name__)

LOAD_S = 600.0
"""How long opening may take: TensorRT may have to build its engine first. The self-test has opened it before."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 60.0
_STEADY_S = 300.0
"""A process that lasted this long before it failed is started again at once the next time."""
_REAP_S = 5.0
_STDERR = 2
"""What an engine prints is for the log."""
# What is not for a model's process: where our supervisor listens, and this program's own settings.
_WITHHELD = ("NOTIFY_", "WATCHDOG_", "LISTEN_", "EDGEWRIGHT_", "CREDENTIALS_")


class Isolation(msgspec.Struct, frozen=True, kw_only=True):
    """timeout_s: an inference that takes longer hangs. memory_bytes: cap on the process's data; 0 for none.

    restarts: start it again after a failure, ever more slowly; otherwise the first failure is final.
    """

    timeout_s: float = 30.0
    memory_bytes: int = 0
    restarts: bool = False


class IsolatedModel:
    """A model in a child process. Not for concurrent `infer`, like most backends' models.

    failure: why it is broken for good, as "code: words"; "" while it is not.
    """

    def __init__(self, engine: str, model: Path, options: Mapping[str, OptionValue], isolation: Isolation) -> None:
        """Start the process and open the model in it. Raises what the backend's `load` does, or ModelLoadError for a crash."""
        self._order = Order(engine=engine, model=str(model), options=dict(options), memory_bytes=isolation.memory_bytes)
        self._isolation = isolation
        self._changing = threading.Lock()
        self._closed = threading.Event()
        self._wait_s = _FIRST_WAIT_S
        self._error: EngineCrashedError | EngineHungError | None = None
        self.failure = ""
        self._process = _EngineProcess(self._order)
        self.inputs = self._process.inputs
        self.outputs = self._process.outputs

    @property
    def pid(self) -> int:
        return self._process.pid

    def infer(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """As every model's. Raises EngineCrashedError and EngineHungError besides, for the request that meets it and,
        until the process is there again, for those behind it."""
        if self._error is not None:
            again = type(self._error)(str(self._error))
            again.is_final = not self._isolation.restarts
            raise again
        try:
            return self._process.infer(inputs, self._isolation.timeout_s)
        except (EngineCrashedError, EngineHungError) as error:
            error.is_final = not self._isolation.restarts
            self._fail(error)
            raise

    def close(self) -> None:
        with self._changing:
            self._closed.set()
            self._process.end()

    def _fail(self, error: EngineCrashedError | EngineHungError) -> None:
        with self._changing:
            if self._closed.is_set():
                return
            lasted_s = time.monotonic() - self._process.started_s
            self._process.end()
            self._error = error
        if not self._isolation.restarts:
            self.failure = f"{error.code}: {error}"
            log.error("%s runs no more: %s", self._order.model, error)
            return
        if lasted_s >= _STEADY_S:
            self._wait_s = _FIRST_WAIT_S
        log.error("%s: %s; starting its process again in %g s", self._order.model, error, self._wait_s)
        threading.Thread(target=self._start_again, name="engine-restart", daemon=True).start()

    def _start_again(self) -> None:
        while not self._closed.wait(self._wait_s):
            self._wait_s = min(_LONGEST_WAIT_S, 2 * self._wait_s)
            try:
                process = _EngineProcess(self._order)
            except EngineError as error:
                log.error("%s: %s; trying again in %g s", self._order.model, error, self._wait_s)
                continue
            with self._changing:
                if self._closed.is_set():
                    process.end()
                    return
                self._process, self._error = process, None
            log.info("%s runs again, as process %d", self._order.model, process.pid)
            return


def open_apart(manifest: Manifest, directory: Path, isolation: Isolation) -> Opened:
    """As `open_engine`, the model in a process of its own."""

    def load(engine: str, model: Path, options: Mapping[str, OptionValue]) -> IsolatedModel:
        return IsolatedModel(engine, model, options, isolation)

    return open_engine(manifest, directory, load)._replace(is_apart=True)


class _EngineProcess:
    """One child from its start to its end. Raises EngineError when the model does not open in it."""

    def __init__(self, order: Order) -> None:
        self.started_s = time.monotonic()
        self._incoming, self._outgoing = Arena.create("edgewright-in"), Arena.create("edgewright-out")
        requests, self._bell = os.pipe()
        self._answers, answers = os.pipe()
        life, self._life = os.pipe()
        self._waiting = select.poll()
        self._waiting.register(self._answers, select.POLLIN)
        self._is_open = True
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._incoming.tell(msgspec.msgpack.encode(order))
        handles = (requests, answers, life, self._incoming.handle, self._outgoing.handle)
        command = [sys.executable, "-X", "faulthandler", "-m", "runtime.backends.engine_process", *map(str, handles)]
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=_STDERR, pass_fds=handles, env=_environment()
            )
        except OSError as error:
            self._let_go()
            raise ModelLoadError(f"no process for {order.engine} can be started: {error}") from error
        finally:
            for handle in (requests, answers, life):
                os.close(handle)
        try:
            ready = self._opened(order)
        except BaseException:
            self.end()
            raise
        self.inputs, self.outputs = ready.inputs, ready.outputs
        self._writer, self._reader = Writer(self._incoming, self.inputs), Reader(self._outgoing, self.outputs)

    @property
    def pid(self) -> int:
        return self._child.pid

    def infer(self, inputs: Tensors, timeout_s: float) -> dict[str, np.ndarray]:
        if self._writer is None or self._reader is None:
            raise InferenceError("the model is closed")
        bell = self._writer.write(inputs)
        try:
            os.write(self._bell, bell)
        except BrokenPipeError:
            raise EngineCrashedError(self._last_words()) from None
        if not self._waiting.poll(timeout_s * 1000):
            raise EngineHungError(f"no answer within {timeout_s:g} s")
        bell = os.read(self._answers, 1)
        if not bell:
            raise EngineCrashedError(self._last_words())
        if bell == FAILED:
            raise InferenceError(self._failure().detail)
        return {name: view.copy() for name, view in self._reader.read(bell).items()}

    def end(self) -> None:
        """Kill it: an engine has nothing to put in order, and waiting for one that hangs would take the caller along."""
        if self._is_open:
            self._let_go()
            self._child.kill()
            self._child.wait()
            self._writer, self._reader = None, None

    def _opened(self, order: Order) -> Ready:
        if not self._waiting.poll(LOAD_S * 1000):
            raise ModelLoadError(f"{order.engine} has not opened {Path(order.model).name} within {LOAD_S:g} s")
        bell = os.read(self._answers, 1)
        if not bell:
            raise EngineCrashedError(f"while it opened {Path(order.model).name}: {self._last_words()}")
        if bell == FAILED:
            failure = self._failure()
            raise _error_of(failure.code)(failure.detail)
        try:
            return msgspec.msgpack.decode(self._outgoing.told(), type=Ready)
        except msgspec.MsgspecError as error:
            raise ModelLoadError(f"{order.engine}'s process answers unreadably: {error}") from error

    def _failure(self) -> Failure:
        try:
            return msgspec.msgpack.decode(self._outgoing.told(), type=Failure)
        except msgspec.MsgspecError as error:
            raise InferenceError(f"the engine's process answers unreadably: {error}") from error

    def _last_words(self) -> str:
        """How it ended, by its status: the pipe closes a moment before the process is gone."""
        try:
            status = self._child.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            return "the engine's process has closed its line"
        if status == EXIT_MEMORY:
            return "the engine's process needed more memory than it may have"
        if status < 0:
            by = " (or the system was out of memory)" if status == -signal.SIGKILL else ""
            return f"the engine's process ended by {signal.Signals(-status).name}{by}"
        return f"the engine's process ended with exit status {status}"

    def _let_go(self) -> None:
        self._is_open = False
        for handle in (self._bell, self._answers, self._life):
            os.close(handle)
        self._incoming.close()
        self._outgoing.close()


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(_WITHHELD)}


def _error_of(code: str) -> Callable[[str], DaemonError]:
    """The class of an engine's error; ModelLoadError for a code that is none of theirs."""
    kinds: list[type[EngineError]] = [EngineError]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    return next((kind for kind in kinds if kind.code == code), ModelLoadError)
