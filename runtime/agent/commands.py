"""Which diagnostics may an operator ask of a device, and what does each answer?

Bounded, signed and never more than once each. A kind this version does not offer is answered, not ignored.
"""

import json
from collections import deque
from collections.abc import Callable

from runtime.contract.telemetry import Command
from runtime.errors import CommandError, CommandUnknownError
from runtime.update.actions import Delegate
from runtime.update.requests import Task, TestRequest
from runtime.update.slots import Slots

BODY_LIMIT = 60 * 1024
BENCHMARK_REPEATS = 1000
BENCHMARK_TIMEOUT_S = 60.0


class Commands:
    """log_lines: newest last; delegate: as of `actions`; restart: asks the daemon to stop in order and start again."""

    def __init__(self, slots: Slots, delegate: Delegate, log_lines: deque[str], restart: Callable[[], None]) -> None:
        self._slots = slots
        self._delegate = delegate
        self._log_lines = log_lines
        self._restart = restart
        self._by_kind: dict[str, Callable[[Command], bytes]] = {
            "benchmark": self._benchmark,
            "log_tail": self._log_tail,
            "restart": self._do_restart,
        }

    def run(self, command: Command) -> bytes:
        """The body of the result. Raises CommandUnknownError or CommandError, or what the helper raises."""
        act = self._by_kind.get(command.kind)
        if act is None:
            raise CommandUnknownError(f"this version does not offer {command.kind!r}; it offers {', '.join(self._by_kind)}")
        return act(command)

    def _log_tail(self, command: Command) -> bytes:
        count = command.options.get("lines", 100)
        if not isinstance(count, int) or count < 1:
            raise CommandError(f"log_tail: lines = {count!r} is not a positive integer")
        text = "\n".join(list(self._log_lines)[-count:])
        return text.encode()[-BODY_LIMIT:]

    def _benchmark(self, command: Command) -> bytes:
        """Latency of the served version on its golden input, in a process of its own: p50, p90, p99 in nanoseconds."""
        model = str(command.options.get("model", ""))
        slot = self._slots.active(model) if model in self._slots.models() else None
        if slot is None:
            raise CommandError(f"benchmark: no model {model!r} here; serving: {', '.join(self._slots.models()) or 'none'}")
        request = TestRequest(directory=str(self._slots.directory(model, slot)), repeats=BENCHMARK_REPEATS)
        reply = self._delegate(Task.TEST, request, BENCHMARK_TIMEOUT_S)
        return json.dumps({"model": model, **reply.figures}, sort_keys=True).encode()

    def _do_restart(self, _command: Command) -> bytes:
        self._restart()
        return b""
