"""What of a blob that is to come lies on this device already, and where?

The files of the model's slots are cut by the same rule as the store's (`runtime.contract.chunks`); chunks that are equal
need not travel. The plan that comes of it is kept beside the blob's `.part`, so that a fetch cut short neither asks nor
searches again. It is a hint throughout: a chunk is hashed before it is used, and the whole has the signed digest or goes.
"""

import logging
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import msgspec

from runtime.contract.chunks import MIN_BYTES, Chunk, chunk_digest, cut
from runtime.update.lanes import ROLES, lane_of
from runtime.update.slots import ACTIVE, SLOTS

log = logging.getLogger(__name__)

SEARCH_S = 10.0
"""Of a fetch's slice of 30 s: enough for 1 GB on a Raspberry Pi 5. What is found by then is used."""
FETCHED = -1
_STRIKES = 3
"""Wrong chunks after which a file is not the one that was searched: one damaged sector is no reason to fetch the rest."""


class Step(msgspec.Struct, frozen=True, array_like=True):
    """The next bytes of the blob. source: the place in `Plan.sources` of the file that has them at `offset`, or FETCHED."""

    length: int
    digest: bytes
    source: int = FETCHED
    offset: int = 0


class Plan(msgspec.Struct, frozen=True):
    """How a blob is put together. No steps: all of it is fetched. is_second: it came out wrong once before."""

    sources: tuple[str, ...] = ()
    steps: tuple[Step, ...] = ()
    is_second: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(step.length for step in self.steps)

    @property
    def local_bytes(self) -> int:
        return sum(step.length for step in self.steps if step.source != FETCHED)

    @property
    def saves_more_than_half(self) -> bool:
        return 2 * self.local_bytes > self.size_bytes


class Place(NamedTuple):
    path: Path
    offset: int


class LocalChunks:
    """The chunks of some files, cut when first looked for, each file at most once. The likeliest files should come first."""

    def __init__(self, paths: Iterable[Path], *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._monotonic_s = monotonic_s
        self._known: dict[Chunk, Place] = {}
        self._rest = _chunks_of(paths)

    def plan(self, chunks: list[Chunk]) -> Plan:
        """Which of these are here. Searches for SEARCH_S at most."""
        wanted = set(chunks) - self._known.keys()
        until_s = self._monotonic_s() + SEARCH_S
        while wanted and (found := next(self._rest, None)):
            chunk, place = found
            self._known.setdefault(chunk, place)
            wanted.discard(chunk)
            if self._monotonic_s() > until_s:
                log.warning("the search for what is here already took %g s; what was found by now is used", SEARCH_S)
                break
        sources: dict[Path, int] = {}
        steps: list[Step] = []
        for chunk in chunks:
            if (here := self._known.get(chunk)) is None:
                steps.append(Step(*chunk))
            else:
                steps.append(Step(*chunk, sources.setdefault(here.path, len(sources)), here.offset))
        return Plan(tuple(map(str, sources)), tuple(steps))


class Assembly:
    """Hands out a blob by its plan. Chunks that turn out not to be here any more, or not to be right, are fetched after all."""

    def __init__(self, plan: Plan) -> None:
        self._sources = [Path(source) for source in plan.sources]
        self._steps = list(plan.steps)
        self._ends = list(accumulate(step.length for step in plan.steps))
        self._strikes: Counter[int] = Counter()

    def following(self, have: int) -> tuple[bytes, int]:
        """The bytes behind the first `have` that this device has; where it has none, b"" and up to where to fetch."""
        number = bisect_right(self._ends, have)
        step = self._steps[number]
        if step.source != FETCHED:
            if (data := self._read(step)) is not None:
                return data[have - (self._ends[number] - step.length) :], self._ends[number]
            self._drop(number)
        while number + 1 < len(self._steps) and self._steps[number + 1].source == FETCHED:
            number += 1
        return b"", self._ends[number]

    def _read(self, step: Step) -> bytes | None:
        try:
            with self._sources[step.source].open("rb") as file:
                file.seek(step.offset)
                data = file.read(step.length)
        except (OSError, IndexError, ValueError) as error:
            log.warning("what was here already cannot be read and is fetched: %s", error)
            self._strikes[step.source] = _STRIKES
            return None
        if chunk_digest(data) != step.digest:
            log.warning("%s is not what it was; its chunk at %d is fetched", self._sources[step.source], step.offset)
            self._strikes[step.source] += 1
            return None
        return data

    def _drop(self, number: int) -> None:
        """Have a chunk fetched; with it all of a source that is not to be relied on."""
        source = self._steps[number].source
        is_useless = self._strikes[source] >= _STRIKES
        for place in range(number, len(self._steps)) if is_useless else (number,):
            step = self._steps[place]
            if step.source == source:
                self._steps[place] = Step(step.length, step.digest)


def write_plan(plan: Plan) -> bytes:
    return msgspec.msgpack.encode(plan)


def read_plan(raw: bytes, size_bytes: int) -> Plan:
    """A plan for a blob of this size. One that is damaged, or for another size, counts as having no steps."""
    try:
        plan = msgspec.msgpack.decode(raw, type=Plan)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        log.warning("the plan of a fetch is unreadable (%s): the rest comes whole", error)
        return Plan()
    if plan.size_bytes != size_bytes or any(step.length <= 0 for step in plan.steps):
        return Plan()
    return plan


def files_of_model(models: Path, model: str) -> list[Path]:
    """Files in the slots of a model, the serving version's first, large ones first. Hard links to one file count once.

    models: the folder of all lanes, see `slots.py`.
    """
    unique: dict[tuple[int, int], Path] = {}
    for slot in _slots_of(models, model):
        sizes = {path: path.stat().st_size for path in slot.iterdir()}
        for path in sorted(sizes, key=lambda path: (-sizes[path], path.name)):
            if sizes[path] >= MIN_BYTES:
                unique.setdefault((path.stat().st_dev, path.stat().st_ino), path)
    return list(unique.values())


def _slots_of(models: Path, model: str) -> Iterator[Path]:
    for lane in (models / lane_of(model, role) for role in ROLES):
        link = lane / ACTIVE
        serving = str(link.readlink()) if link.is_symlink() else ""
        yield from (lane / slot for slot in sorted(SLOTS, key=lambda slot: slot != serving) if (lane / slot).is_dir())


def _chunks_of(paths: Iterable[Path]) -> Iterator[tuple[Chunk, Place]]:
    for path in paths:
        offset = 0
        try:
            with path.open("rb") as file:
                for chunk in cut(file.read):
                    yield chunk, Place(path, offset)
                    offset += chunk.length
        except OSError as error:
            log.warning("%s cannot be read and saves nothing: %s", path, error)
