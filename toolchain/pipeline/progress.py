"""What does a running build say, and to whom? Stages report here; they never print."""

from typing import Protocol, runtime_checkable

from toolchain.pipeline.record import EpochResult


class Progress(Protocol):
    """Told of each step as it happens. Implementations must be cheap: `tick` is called once per epoch or measured block."""

    def stage(self, name: str, *, ran: bool, why: str) -> None:
        """A stage starts (ran) or is taken from the cache (not ran)."""

    def done(self, name: str, seconds: float, summary: str) -> None:
        """The stage that started last has finished."""

    def tick(self, done: int, of: int, text: str) -> None:
        """Part `done` of `of` within the running stage."""

    def note(self, text: str) -> None:
        """Something the engineer should know although nothing failed."""


@runtime_checkable
class EpochWatcher(Protocol):
    """A progress that is also told what each epoch of a training reached, and may raise to stop it."""

    def epoch(self, result: EpochResult) -> None:
        """An epoch has been judged on the validation split."""


@runtime_checkable
class Forecaster(Protocol):
    """A progress that is also told, before a stage starts, how long that one took the last time in this project."""

    def expect(self, seconds: float | None) -> None:
        """None: it never ran here, or that is no longer known."""


class Silent:
    """Says nothing, but keeps the notes: for callers that only want the result."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, name: str, *, ran: bool, why: str) -> None:
        pass

    def done(self, name: str, seconds: float, summary: str) -> None:
        pass

    def tick(self, done: int, of: int, text: str) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)
