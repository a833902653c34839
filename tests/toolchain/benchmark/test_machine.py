"""Is the priority given back, and does a measurement go on where none is to be had?"""

import os
import threading
from pathlib import Path

import pytest

from toolchain.benchmark import machine
from toolchain.benchmark.machine import Watch


def test_the_priority_ends_with_the_watch_even_when_the_measurement_fails() -> None:
    before = os.sched_getscheduler(0)
    with pytest.raises(ValueError, match="engine"), Watch():
        raise ValueError("engine")
    assert os.sched_getscheduler(0) == before


def test_threads_started_meanwhile_do_not_keep_it() -> None:
    found: list[int] = []
    with Watch():
        thread = threading.Thread(target=lambda: found.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()
    assert found == [os.SCHED_OTHER]


def test_an_ordinary_user_measures_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(machine.os, "sched_setscheduler", refused)
    with Watch() as watch:
        pass
    assert watch.seen["priority"] == "ordinary"


def test_the_governor_is_named_where_it_can_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:

    path = tmp_path / "scaling_governor"
    path.write_text("powersave\n")
    monkeypatch.setattr(machine, "GOVERNOR", path)
    with Watch() as watch:
        pass
    assert watch.seen["governor"] == "powersave"
