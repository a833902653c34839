"""Does the polling loop see what arrives, keep its timers, and rest when nothing does?"""

import asyncio
import os
import selectors
import socket
import time

import pytest

from runtime.serving.limits import ServingSettings
from runtime.serving.polling import PollingSelector, loop_factory, run

POLL_NS = 200_000


@pytest.fixture
def pair():
    with PollingSelector(POLL_NS) as selector:
        here, there = socket.socketpair()
        with here, there:
            selector.register(here, selectors.EVENT_READ)
            yield selector, there


def test_what_is_there_is_returned_at_once(pair):
    selector, there = pair
    there.send(b"x")
    assert [events for _, events in selector.select(None)] == [selectors.EVENT_READ]


def test_after_the_moment_it_blocks_as_long_as_asked(pair):
    selector, _ = pair
    began = time.perf_counter_ns()
    assert selector.select(0.01) == []
    assert time.perf_counter_ns() - began >= 10_000_000


def test_a_timer_shorter_than_the_moment_is_kept(pair, monkeypatch):
    selector, _ = pair
    now = iter(range(0, 10**9, 10_000))
    monkeypatch.setattr("runtime.serving.polling.perf_counter_ns", lambda: next(now))
    looks = []
    monkeypatch.setattr(os, "sched_yield", lambda: looks.append(1))
    selector.select(0.00005)
    assert len(looks) == 4  # of 10 us each, before the timer's 50 us are over


def test_an_idle_loop_rests():
    async def idle():
        spent = time.process_time()
        for _ in range(5):
            await asyncio.sleep(0.02)
        return time.process_time() - spent

    assert run(idle(), 100) < 0.05


def test_where_there_is_one_core_nothing_polls(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    assert loop_factory(100) is None
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert loop_factory(0) is None


@pytest.mark.parametrize(
    ("given", "polls_us"),
    [({}, 100), ({"grpc": True}, 300), ({"grpc": True, "poll_us": 500}, 500), ({"grpc": True, "poll_us": 0}, 0)],
)
def test_grpc_is_looked_for_longer_unless_nothing_is_to_be_polled(given, polls_us):
    assert ServingSettings(**given).loop_poll_us == polls_us
