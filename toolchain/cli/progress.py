"""How does a build show its progress on stderr? One line a stage; on a terminal the running one is alive."""

import sys
from typing import TYPE_CHECKING, Any

from toolchain.cli.output import say
from toolchain.pipeline.progress import Progress

if TYPE_CHECKING:
    from rich.progress import TaskID


class PlainProgress:
    """Lines for logs and pipes. explain: also say why each stage ran or did not."""

    def __init__(self, *, explain: bool) -> None:
        self._explain = explain

    def stage(self, name: str, *, ran: bool, why: str) -> None:
        if not ran:
            say(f"{name}: reused{f' ({why})' if self._explain else ''}")
        elif self._explain:
            say(f"{name}: runs ({why})")

    def done(self, name: str, seconds: float, summary: str) -> None:
        say(f"{name}: {summary or 'done'}, {seconds:.1f} s")

    def tick(self, done: int, of: int, text: str) -> None:
        if text:
            say(f"  {done}/{of} {text}")

    def note(self, text: str) -> None:
        say(f"note: {text}")


class RichProgress:
    """A live line for the running stage above the finished ones."""

    def __init__(self, *, explain: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._explain = explain
        self._console = Console(stderr=True, highlight=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(20), TextColumn("{task.fields[text]}"))
        self._bar: Any = Bar(*columns, TimeElapsedColumn(), console=self._console, transient=True)
        self._task: TaskID | None = None

    def stage(self, name: str, *, ran: bool, why: str) -> None:
        if ran:
            self._bar.start()
            self._task = self._bar.add_task(name, total=None, text=why)
        else:
            self._line("dim", "=", name, why if self._explain else "reused")

    def done(self, name: str, seconds: float, summary: str) -> None:
        self.close()
        self._line("green", "+", name, f"{summary or 'done'}, {seconds:.1f} s")

    def tick(self, done: int, of: int, text: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=of, text=text)

    def note(self, text: str) -> None:
        self._line("yellow", "!", "note", text)

    def close(self) -> None:
        """Take the live line away, also when a stage has failed."""
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._bar.stop()
            self._task = None

    def _line(self, style: str, mark: str, name: str, text: str) -> None:
        from rich.text import Text

        self._console.print(Text.assemble((f"{mark} ", style), (f"{name}  ", "bold"), text))


def open_progress(*, explain: bool) -> "PlainProgress | RichProgress":
    """For a terminal the live one, else plain lines."""
    return RichProgress(explain=explain) if sys.stderr.isatty() else PlainProgress(explain=explain)


def close_progress(progress: Progress) -> None:
    if isinstance(progress, RichProgress):
        progress.close()
