"""How does the daemon have something done in the helper process, and what does it make of a crash or a hang there?"""

import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

import msgspec

from runtime.contract.errors import ContractError
from runtime.errors import DaemonError, HelperTimeoutError, SelfTestError, UpdateError
from runtime.update.requests import EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, Reply, Request, Task

log = logging.getLogger(__name__)

_ERRORS_KEPT = 2000
_LISTEN_S = 1.0


def delegate(task: Task, request: Request, timeout_s: float) -> Reply:
    """Run one helper to its end and return its reply. Blocks up to timeout_s.

    Raises the error the helper names, as if it had happened here; HelperTimeoutError when its time is up; UpdateError when it
    crashed or answered with nothing. For `test`, either of the last two is a SelfTestError: the model did it.
    """
    failure = SelfTestError if task is Task.TEST else UpdateError
    try:
        status, out, err = _run(task, msgspec.json.encode(request) + b"\n", timeout_s)
    except subprocess.TimeoutExpired as error:
        hang = SelfTestError if task is Task.TEST else HelperTimeoutError
        raise hang(f"{task}: no answer within {timeout_s:g} s") from error
    if status not in (EXIT_DONE, EXIT_FAILED, EXIT_REFUSED):
        raise failure(f"{task}: the helper ended with {_spell(status)}{_last_line(err)}")
    try:
        reply = msgspec.json.decode(out, type=Reply)
    except msgspec.MsgspecError as error:
        raise failure(f"{task}: the helper's answer is unreadable: {error}") from error
    if reply.code:
        raise error_of(reply.code)(reply.detail)
    return reply


def error_of(code: str) -> type[DaemonError] | type[ContractError]:
    """The error class of a stable code; UpdateError for one this version does not know."""
    return _BY_CODE.get(code, UpdateError)


def _run(task: Task, request: bytes, timeout_s: float) -> tuple[int, bytes, bytes]:
    """Exit status, stdout and stderr. stdin stays open meanwhile: its end would tell the helper that the daemon is gone."""
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "runtime.update.helper", task.value]
    try:
        with (
            _Listener(is_logged=task is Task.FETCH) as listener,
            subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE, stderr=listener.writing) as helper,
        ):
            os.close(reading)
            listener.start()
            try:
                with suppress(BrokenPipeError):  # it died before it read: its exit status says more
                    _write_all(writing, request)
                out, _ = helper.communicate(timeout=timeout_s)
            finally:
                helper.kill()
        return helper.returncode, out, listener.end
    finally:
        os.close(writing)


class _Listener:
    """Reads the helper's stderr while it runs. is_logged: every line goes to our log as it comes; end: its last bytes."""

    def __init__(self, *, is_logged: bool) -> None:
        self._is_logged = is_logged
        self._reading, self.writing = os.pipe()
        self._thread = threading.Thread(target=self._listen, name="helper-log", daemon=True)
        self.end = b""

    def __enter__(self) -> "_Listener":
        return self

    def start(self) -> None:
        """The other end is the helper's now."""
        os.close(self.writing)
        self.writing = -1
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        if self.writing < 0:
            # Not for ever: a process that the helper left behind may hold the other end open.
            self._thread.join(_LISTEN_S)
            return
        os.close(self.writing)
        os.close(self._reading)

    def _listen(self) -> None:
        with os.fdopen(self._reading, "rb") as lines:
            while line := lines.readline(_ERRORS_KEPT):
                self.end = (self.end + line)[-_ERRORS_KEPT:]
                if self._is_logged:
                    log.info("%s", line.decode(errors="replace").rstrip())


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _spell(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _last_line(err: bytes) -> str:
    lines = err.decode(errors="replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""


def _family(root: type[Any]) -> list[type[Any]]:
    return [root, *(cls for child in root.__subclasses__() for cls in _family(child))]


_BY_CODE: dict[str, type[DaemonError] | type[ContractError]] = {
    cls.code: cls for root in (DaemonError, ContractError) for cls in _family(root)
}
