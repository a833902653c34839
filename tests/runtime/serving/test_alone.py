"""Is a caller taken for the only one while it is, and no longer once another waits for it?"""

import asyncio
import threading

import numpy as np
import pytest

from runtime.serving.alone import COMPANY_S, Alone
from runtime.serving.inference import Call, Inference

CALL = Call("tiny", {"input": np.zeros((1, 4), np.float32)})


class Clock:
    now_s = 100.0

    def __call__(self):
        return self.now_s


async def turns(count):
    for _ in range(count):
        await asyncio.sleep(0)


def test_one_who_asks_after_every_answer_is_alone():
    async def ask():
        alone = Alone()
        for _ in range(50):
            alone.asked()
            assert alone.is_so()
            alone.ran()
            await turns(3)

    asyncio.run(ask())


@pytest.mark.parametrize("turns_later", [0, 1])
def test_who_waits_for_a_run_twice_is_company_for_a_while(turns_later):
    clock = Clock()

    async def ask():
        alone = Alone(clock)
        for _ in range(2):
            alone.asked()
            assert alone.is_so()
            alone.ran()
            await turns(turns_later)
        alone.asked()
        assert not alone.is_so()
        clock.now_s += 0.99 * COMPANY_S
        assert not alone.is_so()
        clock.now_s += 0.01 * COMPANY_S
        assert alone.is_so()

    asyncio.run(ask())


def test_who_was_just_answered_and_asks_again_has_kept_nobody_waiting():
    async def ask():
        alone = Alone()
        for _ in range(10):
            alone.asked("one")
            alone.ran("one")
            await turns(1)
        assert alone.is_so()

    asyncio.run(ask())


@pytest.mark.parametrize(("callers", "turns_later"), [(("one", "other"), 1), (("one", "one"), 0), ((None, None), 1)])
def test_others_and_who_asks_before_its_answer_is_out_are_company(callers, turns_later):
    async def ask():
        alone = Alone()
        for caller in (*callers, *callers):
            alone.asked(caller)
            alone.ran(caller)
            await turns(turns_later)
        assert not alone.is_so()

    asyncio.run(ask())


def test_meetings_far_apart_are_none():
    async def ask():
        alone = Alone()
        for _ in range(10):
            for _ in range(2):
                alone.asked()
                alone.ran()
            await turns(3)
        assert alone.is_so()

    asyncio.run(ask())


def where(_answer):
    return threading.get_ident()


@pytest.mark.parametrize(
    ("options", "is_here"),
    [
        ({"alone_ns": 10**12}, True),
        ({"alone_ns": 0}, False),
        ({"alone_ns": 10**12, "inference_s": 30.0}, False),  # a bound that the loop could not keep
    ],
)
def test_a_lone_caller_s_call_runs_in_the_loop(repository, options, is_here):
    inference = Inference(repository, inline_ns=0, waiting=8, **options)

    async def ask():
        found = []
        for _ in range(4):
            running = inference.submit(CALL, where)
            found.append(await running if isinstance(running, asyncio.Future) else running)
            await turns(3)
        return {thread == threading.get_ident() for thread in found}

    try:
        assert asyncio.run(ask()) == {is_here}
    finally:
        inference.close()


def test_callers_who_meet_are_answered_in_threads(repository):
    inference = Inference(repository, inline_ns=0, alone_ns=10**12, waiting=8)

    async def ask():
        running = [inference.submit(CALL, where) for _ in range(6)]
        return [isinstance(one, asyncio.Future) for one in running], await asyncio.gather(
            *(one for one in running if isinstance(one, asyncio.Future))
        )

    try:
        handed_over, threads = asyncio.run(ask())
    finally:
        inference.close()
    assert handed_over == [False, False, True, True, True, True]
    assert threading.get_ident() not in threads
