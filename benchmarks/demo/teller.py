"""How is a story told in a terminal? One line a step: the time since the start, what happened, and what showed it."""

import sys
import time


class Teller:
    """Prints acts and steps with times; colours only on a terminal."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._is_terminal = sys.stdout.isatty()

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._start

    def act(self, title: str) -> None:
        print(f"\n{self._paint('1', title)}", flush=True)

    def step(self, text: str, detail: str = "") -> None:
        minutes, seconds = divmod(int(self.elapsed_s), 60)
        print(f"  {self._paint('2', f'{minutes}:{seconds:02d}')}  {text}", flush=True)
        for line in detail.splitlines():
            print(f"        {self._paint('2', line)}", flush=True)

    def end(self, text: str, *, ok: bool) -> None:
        print(f"\n{self._paint('1;32' if ok else '1;31', text)}", flush=True)

    def _paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._is_terminal else text
