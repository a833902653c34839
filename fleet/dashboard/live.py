"""When should an open page fetch itself again?

A page names the notices it cares for; the stream sends "changed" when one of them comes in, at once after a calm and
otherwise at most once per pause, so that a busy fleet costs every open page a bounded number of renderings. Each
connection begins with one "changed", which closes the gap between the page's rendering and this stream. Every TICK_S it
sends one even without a notice: ages such as "5 min ago" go on, and a dead connection is found out.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection

from fleet.changes import Change, Changes

CHANGED = "event: changed\ndata:\n\n"
TICK_S = 15.0


def is_watched(change: Change, watch: Collection[str]) -> bool:
    """watch: "kind" for all of a kind, "kind:id" for one."""
    return change.kind in watch or f"{change.kind}:{change.id}" in watch


async def stream(
    changes: Changes, watch: Collection[str], pause_s: float, still_welcome: Callable[[], Awaitable[bool]], tick_s: float = TICK_S
) -> AsyncIterator[str]:
    """Server-sent events, until the service closes or the visitor is no longer welcome."""
    with changes.listen() as notices:
        while await still_welcome():
            yield CHANGED
            heard = await _listen(notices, watch, pause_s, first_only=False)
            if heard is False:
                heard = await _listen(notices, watch, tick_s, first_only=True)
            if heard is None:
                return
        yield CHANGED  # the page fetches itself, learns that nobody is signed in any more, and goes to the login


async def _listen(notices: AsyncIterator[Change], watch: Collection[str], seconds: float, *, first_only: bool) -> bool | None:
    """Whether a watched notice came within so many seconds; None when there will be no more."""
    heard = False
    try:
        async with asyncio.timeout(seconds):
            async for change in notices:
                heard = heard or is_watched(change, watch)
                if heard and first_only:
                    return True
    except TimeoutError:
        return heard
    return None
