"""How does the daemon have something done in the helper process, and what does it make of a crash or a hang there?"""

import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

import msgspec

from runtime.contract.errors import ContractError
from runtime.errors import DaemonError, HelperTimeoutError, SelfTestError, UpdateError
from runtime.update.requests import EXIT_DONE, EXIT_FAILED, EXIT_REFUSED, Reply, Request, Task

_ERRORS_KEPT = 2000


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
        with subprocess.Popen(command, stdin=reading, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as helper:
            os.close(reading)
            try:
                with suppress(BrokenPipeError):  # it died before it read: its exit status says more
                    _write_all(writing, request)
                out, err = helper.communicate(timeout=timeout_s)
            finally:
                helper.kill()
            return helper.returncode, out, err
    finally:
        os.close(writing)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _spell(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"exit status {status}"


def _last_line(err: bytes) -> str:
    lines = err[-_ERRORS_KEPT:].decode(errors="replace").strip().splitlines()
    return f": {lines[-1]}" if lines else ""


def _family(root: type[Any]) -> list[type[Any]]:
    return [root, *(cls for child in root.__subclasses__() for cls in _family(child))]


_BY_CODE: dict[str, type[DaemonError] | type[ContractError]] = {
    cls.code: cls for root in (DaemonError, ContractError) for cls in _family(root)
}
