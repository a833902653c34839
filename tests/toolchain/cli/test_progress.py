"""Does a build say what it does: a tree with times and an estimate on a terminal, and bare lines anywhere else?"""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from toolchain.cli.estimate import Estimate
from toolchain.cli.live import LiveProgress, place
from toolchain.cli.progress import PlainProgress, open_progress
from toolchain.pipeline.cache import StageCache
from toolchain.pipeline.progress import Forecaster
from toolchain.pipeline.stage import Runner, Stage


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def build(progress: Any, clock: Clock) -> None:
    """A small build: two stages from the cache, one that trains, a branch of variants, a target."""
    progress.stage("load data", ran=False, why="nothing it depends on changed")
    progress.expect(21.0)
    progress.stage("train", ran=True, why="config epochs 12 -> 15")
    for epoch in range(1, 16):
        clock.now += 1.0
        progress.tick(epoch, 15, f"loss {1 / epoch:.4f}")
    progress.done("train", 15.0, "accuracy 0.9889")
    progress.note("openvino variants are left out")
    for name in ("make onnxruntime-int8", "make openvino-int8", "check onnxruntime-int8"):
        progress.stage(name, ran=False, why="nothing it depends on changed")
    progress.stage("measure x86-64-cpu", ran=True, why="first run")
    progress.done("measure x86-64-cpu", 75.0, "")
    progress.close()


def live(clock: Clock, *, explain: bool = False, encoding: str = "utf-8") -> tuple[LiveProgress, Callable[[], str]]:
    """A progress on a terminal of 100 columns, and what that shows once everything is drawn, without colours."""
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    console = Console(file=file, force_terminal=True, width=100, highlight=False, legacy_windows=False)
    return LiveProgress(explain=explain, console=console, clock=clock), lambda: re.sub(
        r"\x1b\[[0-9;?]*[a-zA-Z]", "", raw.getvalue().decode(encoding)
    )


def test_lines_of_a_log_hold_no_control_characters(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    build(PlainProgress(explain=True, clock=clock), clock)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.isascii()
    assert not [letter for letter in shown.err if ord(letter) < 32 and letter != "\n"]


def test_a_log_says_what_ran_how_long_and_how_long_still(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    build(PlainProgress(explain=False, clock=clock), clock)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "load data: reused"
    assert lines[1] == "train: runs (took 21.0 s last time)"
    assert "  1/15 loss 1.0000, about 14 s left" in lines
    assert "  15/15 loss 0.0667" in lines
    assert "train: accuracy 0.9889, 15.0 s" in lines
    assert "note: openvino variants are left out" in lines
    assert len([line for line in lines if re.match(r"  \d+/15 ", line)]) == 8  # one each two seconds, the last among them


def test_a_log_explains_when_asked(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    build(PlainProgress(explain=True, clock=clock), clock)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "load data: reused (nothing it depends on changed)"
    assert lines[1] == "train: runs (config epochs 12 -> 15, took 21.0 s last time)"


def test_a_terminal_shows_a_tree_with_times(clock: Clock) -> None:
    progress, shown = live(clock)
    build(progress, clock)
    lines = [line.rstrip() for line in shown().replace("\r", "\n").splitlines()]
    (trained,) = [line for line in lines if line.startswith("✓ train")]
    assert trained.endswith("15.0 s")
    assert "accuracy 0.9889" in trained
    assert "· make                               2 reused" in lines
    assert lines.index("  check") + 1 == lines.index("  · onnxruntime-int8                 reused")
    (measured,) = [line for line in lines if line.startswith("  ✓ measure")]
    assert "  x86-64-cpu" in lines[: lines.index(measured)]
    assert measured.endswith("1 min 15 s")


def test_a_long_summary_does_not_push_the_time_away(clock: Clock) -> None:
    progress, shown = live(clock)
    progress.done("choose x86-64-cpu", 75.0, "a reason " * 30)
    (line,) = [line for line in shown().splitlines() if "choose" in line]
    assert len(line) == 100
    assert line.endswith("…  1 min 15 s")


def test_the_living_line_is_gone_after_a_failure(clock: Clock) -> None:
    progress, shown = live(clock)
    progress.stage("train", ran=True, why="first run")
    progress.close()
    before = shown()
    progress.note("this line stays")
    assert "this line stays" in shown().removeprefix(before)
    assert progress._task is None


def test_every_reuse_is_explained_when_asked(clock: Clock) -> None:
    progress, shown = live(clock, explain=True)
    build(progress, clock)
    assert shown().count("nothing it depends on changed") == 4


def test_a_terminal_without_unicode_gets_other_marks(clock: Clock) -> None:
    progress, shown = live(clock, encoding="ascii")
    progress.stage("pack x86-64-cpu", ran=False, why="")
    progress.done("train", 1.0, "done")
    progress.close()
    assert "+ train" in shown()


def test_an_estimate_comes_from_the_last_time_until_there_are_ticks(clock: Clock) -> None:
    estimate = Estimate(20.0, clock)
    clock.now += 5
    assert estimate.remaining_s() == 15
    assert estimate.text() == "about 15 s left"
    clock.now += 5  # 10 s of preparation, then a tick a second
    estimate.tick(1, 11)
    clock.now += 1
    estimate.tick(2, 11)
    assert estimate.remaining_s() == pytest.approx(9)
    clock.now += 0.5
    assert estimate.remaining_s() == pytest.approx(8.5)


def test_an_estimate_says_nothing_it_does_not_know(clock: Clock) -> None:
    assert Estimate(None, clock).text() == ""
    late = Estimate(3.0, clock)
    clock.now += 4
    assert late.remaining_s() is None
    nearly = Estimate(None, clock)
    clock.now += 1
    nearly.tick(9, 10)
    assert nearly.text() == ""
    resumed = Estimate(None, clock)
    resumed.tick(0, 10)
    assert resumed.remaining_s() is None


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("train", ("", "train")),
        ("load data", ("", "load data")),
        ("convert to onnx", ("", "convert to onnx")),
        ("make pruned50-onnxruntime-int8", ("make", "pruned50-onnxruntime-int8")),
        ("measure x86-64-cpu", ("x86-64-cpu", "measure")),
    ],
)
def test_stages_have_their_place_in_the_tree(name: str, where: tuple[str, str]) -> None:
    assert place(name) == where


def test_pipes_get_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(open_progress(explain=False), PlainProgress)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert isinstance(open_progress(explain=False), LiveProgress)


def test_a_stage_is_announced_with_the_seconds_of_its_last_run(tmp_path: Path, clock: Clock) -> None:
    told: list[float | None] = []

    class Told(PlainProgress):
        def expect(self, seconds: float | None) -> None:
            told.append(seconds)

    progress = Told(explain=False, clock=clock)
    assert isinstance(progress, Forecaster)
    cache = StageCache(tmp_path)
    for revision in (1, 2):
        stage: Stage[int] = Stage(name="train", revision=revision, kind=int, make=lambda work, progress: 7)
        Runner(cache, progress, "digits").execute(stage)
    assert told[0] is None
    assert told[1] is not None
    assert told[1] < 5
