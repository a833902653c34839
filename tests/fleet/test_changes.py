"""Notices reach every listener from any thread, and a slow one loses the oldest, never its place."""

import asyncio
import threading

from fleet.changes import BACKLOG, Change, Changes


def test_every_listener_hears_what_any_thread_says() -> None:
    async def story() -> list[list[Change]]:
        changes = Changes()
        with changes.listen() as first, changes.listen() as second:
            threads = [threading.Thread(target=changes.publish, args=("device", f"gw-{n}")) for n in range(5)]
            for thread in threads:
                thread.start()
            heard = [[await anext(notices) for _ in threads] for notices in (first, second)]
            for thread in threads:
                thread.join()
        assert changes.listeners == 0
        return heard

    for heard in asyncio.run(story()):
        assert sorted(heard) == [Change("device", f"gw-{n}") for n in range(5)]


def test_a_repeat_that_was_not_read_yet_is_dropped_and_the_oldest_goes_first_when_it_is_too_much() -> None:
    async def story() -> list[Change]:
        changes = Changes()
        with changes.listen() as notices:
            for n in range(BACKLOG + 10):
                changes.publish("window", f"gw-{n}")
                changes.publish("window", f"gw-{n}")
            await asyncio.sleep(0)  # lets the loop take the notices in
            changes.close()
            return [change async for change in notices]

    heard = asyncio.run(story())
    assert [change.id for change in heard] == [f"gw-{n}" for n in range(10, BACKLOG + 10)]


def test_a_listener_whose_loop_is_gone_is_forgotten() -> None:
    changes = Changes()

    async def leave_behind() -> None:
        changes.listen().__enter__()

    asyncio.run(leave_behind())
    changes.publish("device", "gw-1")
    assert changes.listeners == 0
    changes.close()
