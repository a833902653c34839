"""When does the stream start? Once the first model serves, so that its broker client costs the first inference nothing."""

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from runtime.serving.inference import Inference
from runtime.serving.limits import LimitSettings
from runtime.serving.models.repository import Repository
from runtime.serving.stream.settings import StreamSettings

if TYPE_CHECKING:
    from runtime.serving.stream.stream import Stream

log = logging.getLogger(__name__)

_LOOK_S = 0.5


class StreamStarter:
    """Waits, starts and stops the stream in the running event loop. stream: None until it has started."""

    def __init__(self, settings: StreamSettings, limits: LimitSettings, repository: Repository, inference: Inference) -> None:
        """settings: have passed `check_stream`."""
        self._settings = settings
        self._limits = limits
        self._repository = repository
        self._inference = inference
        self._stopping = asyncio.Event()
        self.stream: Stream | None = None
        self.counts: dict[str, int] = {}
        """For /metrics."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self, grace_s: float) -> None:
        """Answer what was taken, for so long at most; then leave the rest to the broker."""
        self._stopping.set()
        if self.stream is not None:
            await self.stream.stop(grace_s)
        await self._task

    async def _run(self) -> None:
        while not self._repository.models():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _LOOK_S)
            if self._stopping.is_set():
                return
        kind = await asyncio.to_thread(_stream_class)
        if self._stopping.is_set():
            return
        self.stream = kind(self._settings, self._limits, self._repository, self._inference, counts=self.counts)
        log.info("stream of %s: %s -> %s", self._settings.model, self._settings.topic_in, self._settings.topic_out)
        try:
            await self.stream.run()
        except Exception:  # the worker's edge: the daemon goes on serving
            log.exception("the stream has ended")


def _stream_class() -> "type[Stream]":
    from runtime.serving.stream.stream import Stream  # paho: memory and time that serving does not need

    return Stream
