"""What runs in an engine's own process: one model, fed through shared memory by the daemon it must not harm?

    python -m runtime.backends.engine_process REQUESTS ANSWERS LIFE INPUTS OUTPUTS

The arguments are inherited handles: two pipes for bells, one that ends with the daemon, an arena per direction. The first
message says what to open. Nothing else of the daemon's comes along: no socket, no other file, no capability, no right to more.
"""

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from runtime.backends.arena import TOLD, Arena, Reader, Writer
from runtime.backends.base import LoadedModel, get_backend
from runtime.contract.artifact import OptionValue, TensorSpec
from runtime.errors import DaemonError, InferenceError

FAILED = b"f"
"""The bell of a failed inference, or of a model that does not open; a `Failure` is in the arena's head."""
EXIT_MEMORY = 9
"""Exit status of a process that needed more memory than its cap. Python's own are 0 to 2 and those of signals above 128."""

_OPEN_FILES = 256
_NEARLY_ALL = 0.9
_FIRST_TO_GO = "500"
"""Of 1000: when the system runs out of memory, this process is killed and not the daemon."""
_F_SETSIG = 10
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
_CAP_DAC_READ_SEARCH = 2
"""All from Linux's headers. The one capability that is kept lets a daemon of root's go on reading what it may read."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to open. memory_bytes: cap on the process's data; 0 for none."""

    engine: str
    model: str
    options: dict[str, OptionValue]
    memory_bytes: int


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """The model is open."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A stable code of runtime/errors.py and a line for people."""

    code: str
    detail: str


def main(argv: list[str]) -> int:
    requests, answers, life, inputs, outputs = map(int, argv)
    die_with(life)
    confine()
    incoming, outgoing = Arena(inputs), Arena(outputs)
    order = msgspec.msgpack.decode(incoming.told(), type=Order)
    if order.memory_bytes:
        limit_memory(order.memory_bytes)
    try:
        model = get_backend(order.engine).load(Path(order.model), order.options)
    except DaemonError as error:
        outgoing.tell(msgspec.msgpack.encode(Failure(code=error.code, detail=str(error))))
        os.write(answers, FAILED)
        return 0
    outgoing.tell(msgspec.msgpack.encode(Ready(inputs=model.inputs, outputs=model.outputs)))
    os.write(answers, TOLD)
    serve(model, incoming, outgoing, requests=requests, answers=answers)
    return 0


def serve(model: LoadedModel, incoming: Arena, outgoing: Arena, *, requests: int, answers: int) -> None:
    """Answer bells until the daemon's end of the pipe is closed."""
    reader, writer = Reader(incoming, model.inputs), Writer(outgoing, model.outputs)
    while bell := os.read(requests, 1):
        try:
            reply = writer.write(model.infer(reader.read(bell)))
        except MemoryError:
            raise
        except Exception as error:  # the edge of the worker: the daemon says it to its client
            if is_memory_spent():
                raise MemoryError from error
            outgoing.tell(msgspec.msgpack.encode(Failure(code=InferenceError.code, detail=_words(error))))
            reply = FAILED
        os.write(answers, reply)


def die_with(life: int) -> None:
    """Have the kernel kill this process when the other end of a pipe is closed, whatever the engine is doing then.

    PR_SET_PDEATHSIG would do it at the end of the thread that started us, which is not the end of the daemon.
    """
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC | os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):  # nothing to read: it is open
        if not os.read(life, 1):  # it was closed before the signal was armed
            os._exit(1)


def confine() -> None:
    """Give up what an engine does not need. A stop is the daemon's to announce: its signals reach the whole group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a dump of its memory could fill the device's disk
    lower_limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    with contextlib.suppress(OSError):  # where /proc is not to be written, the kernel's own guess decides
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")
    system = ctypes.CDLL(None, use_errno=True)
    system.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    held = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice
    if system.capget(header, held) == 0:
        permitted = held[1] & (1 << _CAP_DAC_READ_SEARCH)
        system.capset(header, (ctypes.c_uint32 * 6)(permitted, permitted, 0, 0, 0, 0))


def limit_memory(memory_bytes: int) -> None:
    # DATA, not AS: engines reserve far more address space than they ever touch.
    lower_limit(resource.RLIMIT_DATA, memory_bytes)


def lower_limit(kind: int, wanted: int) -> None:
    """Set soft and hard limit, never above the hard one inherited."""
    _, hard = resource.getrlimit(kind)
    bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (bound, bound))


def is_memory_spent() -> bool:
    """Whether so little is left under the cap that a failure is the cap's: engines tell of it in words of their own."""
    cap, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if cap == resource.RLIM_INFINITY:
        return False
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    used_kib = next((int(line.split()[1]) for line in lines if line.startswith("VmData:")), 0)
    return used_kib * 1024 >= _NEARLY_ALL * cap


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, InferenceError) else f"{type(error).__name__}: {error}"


def _guarded(run: Callable[[], int]) -> int:
    try:
        return run()
    except MemoryError:
        os._exit(EXIT_MEMORY)  # at once: whatever else is done now may need memory too
    except BrokenPipeError:  # the daemon has closed the model
        return 0


if __name__ == "__main__":
    sys.exit(_guarded(lambda: main(sys.argv[1:])))
