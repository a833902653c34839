"""Is every trial run by one worker, once, and again only when that worker died? With real processes on one study."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.toolchain.tune.desk_worker import NAME, open_desk, outcome, work
from toolchain.errors import RecipeError
from toolchain.tune import claims
from toolchain.tune.desk import Desk
from toolchain.tune.storage import JournalLock

ROOT = Path(__file__).parents[3]


def start(root: Path, sampler: str, trials: int, seconds: float, storage: str = "") -> "subprocess.Popen[bytes]":
    arguments = [str(root), sampler, str(trials), str(seconds), storage]
    return subprocess.Popen([sys.executable, "-m", "tests.toolchain.tune.desk_worker", *arguments], cwd=ROOT)


def log(root: Path, word: str) -> list[str]:
    path = root / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.removeprefix(f"{word} ") for line in lines if line.startswith(f"{word} ")]


def wait_for(root: Path, word: str, count: int, process: "subprocess.Popen[bytes]") -> None:
    until = time.monotonic() + 90
    while len(log(root, word)) < count:
        assert process.poll() is None, "the worker ended too early"
        assert time.monotonic() < until, "the worker is stuck"
        time.sleep(0.01)


def settings_of(desk: Desk) -> list[tuple[object, ...]]:
    return [tuple(item.trial.settings.values()) for item in desk.finished()]


def run_alone(desk: Desk, root: Path) -> None:
    work(desk, root / "log", 0.0)


@pytest.mark.parametrize("storage", ["", pytest.param("sqlite:///{root}/study.db", marks=pytest.mark.slow)])
def test_workers_share_a_grid_and_a_killed_one_s_trial_runs_again(tmp_path: Path, storage: str) -> None:
    storage = storage.format(root=tmp_path)
    first = start(tmp_path, "grid", 12, 0.3, storage)
    wait_for(tmp_path, "begin", 4, first)
    first.send_signal(signal.SIGKILL)  # in the middle of its fourth trial: it has begun, and lasts
    first.wait()
    done, begun = log(tmp_path, "end"), log(tmp_path, "begin")
    assert len(begun) == len(done) + 1
    others = [start(tmp_path, "grid", 12, 0.02, storage) for _ in range(2)]
    assert [process.wait(timeout=120) for process in others] == [0, 0]
    desk = open_desk(tmp_path, sampler="grid", trials=12, storage=storage)
    assert desk.is_over
    settings = settings_of(desk)
    assert len(settings) == len(set(settings)) == 12
    assert [item.trial.number for item in desk.finished()] == list(range(12))
    runs = Counter(line.split("{")[1].split("}")[0] for line in log(tmp_path, "begin"))
    killed = begun[-1].split("{")[1].split("}")[0]
    assert runs == Counter({name: 1 + (name == killed) for name in runs})
    assert len(runs) == 12
    assert all(
        item.outcome.values == (float(item.trial.settings["model.options.width"] * item.trial.settings["model.options.depth"]),)
        for item in desk.finished()
    )


def test_a_live_worker_s_trial_is_left_alone(tmp_path: Path) -> None:
    worker = start(tmp_path, "random", 1, 60.0)
    try:
        wait_for(tmp_path, "begin", 1, worker)
        desk = open_desk(tmp_path, sampler="random", trials=1)
        assert desk.claim() is None
        assert not desk.is_over
    finally:
        worker.kill()
        worker.wait()
    claim = desk.claim()
    assert claim is not None
    assert claim.is_written
    assert claim.params == {"model.options.depth": 1, "model.options.width": 16}


def test_a_process_number_used_again_is_no_life_sign(tmp_path: Path) -> None:
    stamp = claims.own_stamp()
    assert claims.is_alive(stamp)
    assert not claims.is_alive(claims.Stamp(place=stamp.place, pid=stamp.pid, started="1", beat=stamp.beat))
    elsewhere = claims.Stamp(place="another machine", pid=1, started="1", beat=time.time())
    assert claims.is_alive(elsewhere)
    silent = claims.Stamp(place="another machine", pid=1, started="1", beat=time.time() - claims.SILENCE_SECONDS - 1)
    assert not claims.is_alive(silent)


def test_an_outcome_that_was_written_counts_though_its_worker_died(tmp_path: Path) -> None:
    desk = open_desk(tmp_path, trials=2)
    claim = desk.claim()
    assert claim is not None
    claim.trial.set_user_attr("outcome", {"state": "complete", "seconds": 1.0, "values": [16.0]})
    claim.trial.set_user_attr("worker", {"place": claims.own_stamp().place, "pid": 2**22 + 1, "started": "1", "beat": 0.0})
    desk = open_desk(tmp_path, trials=2)
    following = desk.claim()
    assert following is not None
    assert not following.is_written
    assert [item.outcome.values for item in desk.finished()] == [(16.0,)]


def test_work_broken_off_is_free_for_others(tmp_path: Path) -> None:
    desk = open_desk(tmp_path, trials=2)
    claim = desk.claim()
    assert claim is not None
    with pytest.raises(KeyboardInterrupt), desk.working(claim):
        raise KeyboardInterrupt
    again = desk.claim()
    assert again is not None
    assert again.params == claim.params
    desk.finish(again, outcome(again.params))
    assert [item.trial.number for item in desk.finished()] == [0]


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2"])
def test_the_same_settings_are_not_tried_twice(tmp_path: Path, sampler: str) -> None:
    desk = open_desk(tmp_path, sampler=sampler, trials=40)
    run_alone(desk, tmp_path)
    tried = [line.split("{")[1] for line in log(tmp_path, "begin")]
    assert len({line.split("}")[0] for line in tried}) == len(tried) <= 12
    found = desk.finished()
    assert len(found) == 40 or len(tried) == 12  # all of the space is known
    for item in found:
        if item.trial.same_as is not None:
            original = next(other for other in found if other.trial.number == item.trial.same_as)
            assert original.trial.settings == item.trial.settings
            assert original.outcome.values == item.outcome.values
            assert item.outcome.seconds == 0


def test_more_trials_go_on_and_fewer_take_the_first(tmp_path: Path) -> None:
    run_alone(open_desk(tmp_path, sampler="grid", trials=4), tmp_path)
    before = settings_of(open_desk(tmp_path, sampler="grid", trials=4))
    run_alone(open_desk(tmp_path, sampler="grid", trials=7), tmp_path)
    after = settings_of(open_desk(tmp_path, sampler="grid", trials=7))
    assert len(log(tmp_path, "begin")) == len(after) == 7
    assert after[:4] == before == settings_of(open_desk(tmp_path, sampler="grid", trials=4))


def test_a_search_broken_off_goes_on_as_it_would_have_gone(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for root in (whole, parts):
        root.mkdir()
    run_alone(open_desk(whole, sampler="tpe", trials=8), whole)
    run_alone(open_desk(parts, sampler="tpe", trials=3), parts)
    desk = open_desk(parts, sampler="tpe", trials=8)
    claim = desk.claim()
    assert claim is not None
    with pytest.raises(KeyboardInterrupt), desk.working(claim):
        raise KeyboardInterrupt
    run_alone(desk, parts)
    assert settings_of(desk) == settings_of(open_desk(whole, sampler="tpe", trials=8))


def test_seconds_end_a_search_too(tmp_path: Path) -> None:
    desk = open_desk(tmp_path, sampler="grid", trials=12, seconds=10.0)
    for _ in range(2):
        claim = desk.claim()
        assert claim is not None
        desk.finish(claim, outcome(claim.params, seconds=5.0))
    assert desk.claim() is None
    assert desk.is_over
    assert open_desk(tmp_path, sampler="grid", trials=12, seconds=11.0).claim() is not None


def test_what_the_first_model_cannot_be_compared_with_waits_for_it(tmp_path: Path) -> None:
    desk = open_desk(tmp_path, sampler="grid", trials=12)
    first = desk.claim()
    assert first is not None
    assert first.is_written
    assert desk.claim() is None
    assert not desk.is_over
    desk.finish(first, outcome(first.params))
    assert desk.claim() is not None


def test_half_a_line_of_a_killed_writer_costs_nothing_else(tmp_path: Path) -> None:
    run_alone(open_desk(tmp_path, sampler="grid", trials=3), tmp_path)
    journal = tmp_path / "studies" / f"{NAME}.journal"
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    run_alone(open_desk(tmp_path, sampler="grid", trials=5), tmp_path)
    assert len(settings_of(open_desk(tmp_path, sampler="grid", trials=5))) == 5
    assert len(log(tmp_path, "begin")) == 5


def test_the_journal_s_lock_dies_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    holder = os.fork()
    if holder == 0:
        JournalLock(path).acquire()
        os._exit(0)  # without release, as one that was killed
    os.waitpid(holder, 0)
    lock = JournalLock(path)
    assert lock.acquire()
    lock.release()


def test_a_storage_that_cannot_be_opened_is_a_recipe_error_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"tune\.storage: nosuch://ada:…@host/db") as found:
        open_desk(tmp_path, storage="nosuch://ada:secret@host/db")
    assert "secret" not in str(found.value)
