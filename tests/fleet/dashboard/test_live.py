"""The stream behind live pages: it speaks up at once, then with measure, and only about what a page watches."""

import asyncio
import time

import httpx

from fleet.changes import Change, Changes
from fleet.dashboard.live import CHANGED, is_watched, stream
from tests.fleet.dashboard.conftest import signed_in
from tests.fleet.dashboard.story import Story


async def welcome() -> bool:
    return True


def test_what_is_watched() -> None:
    watch = {"rollout:r-1", "device"}
    assert is_watched(Change("rollout", "r-1"), watch)
    assert is_watched(Change("device", "anything"), watch)
    assert not is_watched(Change("rollout", "r-2"), watch)
    assert not is_watched(Change("window", "r-1"), watch)


def test_first_event_comes_unasked_and_a_burst_becomes_one() -> None:
    async def scenario() -> list[str]:
        changes = Changes()
        events = stream(changes, {"rollout:r-1"}, 0.05, welcome, tick_s=30)
        heard = [await anext(events)]
        for number in range(40):
            changes.publish("device", f"gw-{number}")
            changes.publish("rollout", "r-1")
        heard.append(await asyncio.wait_for(anext(events), 10))
        pending = asyncio.ensure_future(anext(events, "the end"))
        await asyncio.sleep(0.15)  # longer than the pause: a second event of the same burst would be there by now
        assert not pending.done()
        changes.publish("rollout", "r-1")
        heard.append(await asyncio.wait_for(pending, 10))
        changes.close()
        heard.append(await asyncio.wait_for(anext(events, "the end"), 10))
        return heard

    assert asyncio.run(scenario()) == [CHANGED, CHANGED, CHANGED, "the end"]


def test_quiet_stream_ticks_and_ends_for_those_no_longer_welcome() -> None:
    async def scenario() -> list[str]:
        answers = iter([True, True, False])

        async def still_welcome() -> bool:
            return next(answers)

        return [event async for event in stream(Changes(), {"rollout"}, 0.01, still_welcome, tick_s=0.01)]

    assert asyncio.run(scenario()) == [CHANGED] * 3, "two while welcome, and one to find out"


def test_stream_over_http_speaks_when_something_changes(empty: Story) -> None:
    rollout = "r-1"
    with (
        signed_in(empty.url, "viewer") as browser,
        browser.stream("GET", f"/live?watch=rollout:{rollout}&pause_ms=100") as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = (line for line in answer.iter_lines() if line.startswith("event"))
        assert next(lines) == "event: changed"
        deadline = time.monotonic() + 10
        while empty.services.changes.listeners == 0:
            assert time.monotonic() < deadline
        empty.services.changes.publish("rollout", rollout)
        assert next(lines) == "event: changed"


def test_stream_is_for_those_signed_in(empty: Story) -> None:
    assert httpx.get(f"{empty.url}/live?watch=device").status_code == 401
