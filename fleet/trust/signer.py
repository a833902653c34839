"""Who keeps the release metadata fresh while nobody publishes?

Timestamp and snapshot expire on purpose, so that a frozen copy is noticed. A look every few minutes signs what is past
half its life; the service may be down for half a timestamp's life before a device refuses to start an update.
"""

import asyncio
import contextlib
import logging

from fleet.trust.store import TrustStore

log = logging.getLogger(__name__)

LOOK_S = 300.0


class MetadataSigner:
    """Runs in the service's event loop; one that runs twice does no harm, the store takes a lock."""

    def __init__(self, trust: TrustStore) -> None:
        self._trust = trust
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """The first look is over when this returns. Raises what it meets: a store that cannot sign at the start needs a person."""
        await asyncio.to_thread(self._trust.refresh)
        self._task = asyncio.create_task(self._run(), name="metadata-signer")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await asyncio.to_thread(self._trust.refresh)
            except Exception:  # the edge of this worker: a full disk may have room again at the next look
                log.exception("release metadata could not be signed anew")
