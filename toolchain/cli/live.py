"""How does a build look on a terminal? Finished stages as a tree with their times, below them the running one with its estimate.

Imported only where stderr is a terminal, because rich costs a tenth of a second.
"""

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from toolchain.cli.estimate import Clock, Estimate
from toolchain.report.wording import seconds as seconds_text

NAME_WIDTH = 34
MARKS = {"green": ("✓", "+"), "dim": ("·", "="), "yellow": ("!", "!")}
"""Style of a line -> its mark where the terminal speaks Unicode, and where it does not."""


BY_VERB = ("make", "check")
BY_TARGET = ("measure", "choose", "profile", "test", "pack")


class RestColumn(ProgressColumn):
    """What the estimate of the task says now."""

    def render(self, task: Task) -> Text:
        return Text(task.fields["estimate"].text(), style="cyan")


class LiveProgress:
    """A living line for the running stage below the tree of those that finished. explain: say why each ran or did not.

    Reused stages of one branch make one line unless they are to be explained.
    """

    def __init__(self, *, explain: bool, console: Console | None = None, clock: Clock = time.monotonic) -> None:
        self._explain = explain
        self._clock = clock
        self._console = console or Console(stderr=True, highlight=False)
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(20),
            TextColumn("{task.fields[text]}", style="dim"),
        )
        self._bar: Any = Bar(*columns, TimeElapsedColumn(), RestColumn(), console=self._console, transient=True)
        self._task: TaskID | None = None
        self._estimate = Estimate(clock=clock)
        self._expected_s: float | None = None
        self._branch = ""
        self._told = ""
        self._reused: list[str] = []

    def expect(self, seconds: float | None) -> None:
        self._expected_s = seconds

    def stage(self, name: str, *, ran: bool, why: str) -> None:
        branch, leaf = place(name)
        if branch != self._branch or ran:
            self._tell_reused()
        if not ran:
            self._branch = branch
            if self._explain:
                self._leaf("dim", branch, leaf, why)
            else:
                self._reused.append(leaf)
            return
        self._estimate = Estimate(self._expected_s, self._clock)
        self._expected_s = None
        self._bar.start()
        self._open(branch)
        self._task = self._bar.add_task(
            f"{'  ' if branch else ''}{leaf}", total=None, text=why if self._explain else "", estimate=self._estimate
        )

    def done(self, name: str, seconds: float, summary: str) -> None:
        self._stop()
        self._leaf("green", *place(name), summary or "done", seconds_text(seconds))

    def tick(self, done: int, of: int, text: str) -> None:
        self._estimate.tick(done, of)
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=of, text=text)

    def note(self, text: str) -> None:
        self._line("yellow", "", "note", text)

    def close(self) -> None:
        """Take the living line away, also when a stage has failed."""
        self._stop()
        self._tell_reused()

    def _stop(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._bar.stop()
            self._task = None

    def _tell_reused(self) -> None:
        reused, self._reused = self._reused, []
        if len(reused) == 1:
            self._leaf("dim", self._branch, reused[0], "reused")
        elif reused:
            self._line("dim", "", self._branch or f"{reused[0]} … {reused[-1]}", f"{len(reused)} reused")
            self._branch = ""

    def _leaf(self, style: str, branch: str, leaf: str, text: str, end: str = "") -> None:
        """One stage, indented below its branch, whose name is told before the first of them."""
        self._open(branch)
        self._line(style, "  " if branch else "", leaf, text, end)

    def _open(self, branch: str) -> None:
        """Tell the name of a branch before its first stage."""
        if branch and branch != self._told:
            self._line("", "", branch, "")
        self._told = self._branch = branch

    def _line(self, style: str, indent: str, name: str, text: str, end: str = "") -> None:
        is_unicode = self._console.encoding.lower().startswith("utf")
        mark = MARKS[style][0 if is_unicode else 1] if style else " "
        name = name.ljust(NAME_WIDTH - len(indent))
        faint = "dim" if style == "dim" else ""
        line = Text.assemble(indent, (f"{mark} ", style), (name, faint or "bold"), " ", (text, faint))
        if end:  # times stand below one another at the right; a text that would reach them is cut
            room = self._console.width - len(end) - 2
            line.truncate(room, overflow="ellipsis", pad=True)
            line.append(f"  {end}", "dim")
        self._console.print(line, no_wrap=bool(faint), overflow="ellipsis" if faint else "fold")


def place(name: str) -> tuple[str, str]:
    """Branch and leaf of a stage in the tree: what is done to many variants by verb, what is done for a target below it."""
    verb, _, rest = name.partition(" ")
    if rest and verb in BY_VERB:
        return verb, rest
    if rest and verb in BY_TARGET:
        return rest, verb
    return "", name
