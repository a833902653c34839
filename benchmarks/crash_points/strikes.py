"""What happens to a device struck at one point, and did it come out as it must?

A kill leaves what the kernel was told; a failing call leaves a process that has to go on; a power cut leaves only what was
flushed: the device lies on an ext4 image mounted through a loop, and the image is copied while the struck process's last
writes still wait in the kernel.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from benchmarks.crash_points.paths import Bench, UpdatePath
from benchmarks.crash_points.points import Point, find_points, run_walk, strike
from benchmarks.crash_points.walk import MODEL, Walk, direct
from runtime.contract.deployment import Outcome
from runtime.update.lanes import lane_of

IMAGE_MB = 48
_LEFT = (".tmp", ".part")
_FAILED = (Outcome.REFUSED, Outcome.ROLLED_BACK)


class Fault(StrEnum):
    KILL = "kill"
    EIO = "eio"
    ENOSPC = "enospc"
    POWER = "power"


_INJECTED = {Fault.KILL: "signal=SIGKILL", Fault.EIO: "error=EIO", Fault.ENOSPC: "error=ENOSPC", Fault.POWER: "signal=SIGKILL"}


class Struck(NamedTuple):
    """wrong: what did not hold, empty when all did. ended: whether the process itself ended under the fault."""

    path: str
    fault: Fault
    point: Point
    ended: bool
    wrong: tuple[str, ...]


class Striker:
    """Strikes devices of one bench below `folder`."""

    def __init__(self, bench: Bench, folder: Path) -> None:
        self._bench = bench
        self._folder = folder

    def points(self, path: UpdatePath, fault: Fault) -> list[Point]:
        with self._device(path, fault, "trace") as device:
            return find_points(device, device.with_suffix(".acknowledged"))

    def strike(self, path: UpdatePath, fault: Fault, point: Point) -> Struck:
        with self._device(path, fault, f"{path.name}-{fault}-{point.call}-{point.number}") as device:
            acknowledged = self._folder / f"{path.name}-{fault}-{point.call}-{point.number}.acknowledged"
            acknowledged.touch()
            done = run_walk(device, acknowledged, strike(point, _INJECTED[fault]))
            wrong = list(self._while_struck(path, fault, done))
            if fault is Fault.POWER:
                with self._after_the_cut(device) as revived:
                    wrong += self._judge(path, fault, revived, acknowledged)
            else:
                wrong += self._judge(path, fault, device, acknowledged)
            acknowledged.unlink()
        return Struck(path.name, fault, point, done.returncode != 0, tuple(wrong))

    def _while_struck(self, path: UpdatePath, fault: Fault, done: "subprocess.CompletedProcess[str]") -> Iterator[str]:
        """What the struck process itself must have done."""
        if fault in (Fault.KILL, Fault.POWER):
            if done.returncode != -9:
                yield f"it was not killed: status {done.returncode} {done.stderr[-300:]}"
            return
        if done.returncode == 0:
            seen = json.loads(done.stdout)
            for moment in ("at_start", "at_end"):
                if seen[moment] not in path.may_serve:
                    yield f"under the fault, {moment}, {seen[moment]} answered"
        elif done.returncode != 1 or "StoreError" not in done.stderr:  # it may refuse to start; its supervisor tries again
            yield f"it ended with status {done.returncode}: {done.stderr[-300:]}"

    def _judge(self, path: UpdatePath, fault: Fault, device: Path, acknowledged: Path) -> Iterator[str]:
        """Start it again, undisturbed: what serves, what is reported, what lies about?"""
        with mock.patch("runtime.daemon.delegate", direct):
            walk = Walk(device, acknowledged)
            try:
                yield from self._judge_walk(path, fault, walk, acknowledged)
            finally:
                walk.close()
        left = [str(file.relative_to(device)) for file in device.rglob("*") if file.name.endswith(_LEFT)]
        if left:
            yield f"left behind: {', '.join(left)}"

    def _judge_walk(self, path: UpdatePath, fault: Fault, walk: Walk, acknowledged: Path) -> Iterator[str]:
        if walk.at_start not in path.may_serve:
            yield f"after the start, {walk.at_start} answers"
        walk.receive()
        seen, outcome = walk.settle(), self._outcome(path, walk)
        if fault in (Fault.EIO, Fault.ENOSPC) and outcome in _FAILED and outcome != path.ending.outcome:
            # The disk's fault ended the update, and said so; asked once more, it must go through.
            if seen.at_end != path.before:
                yield f"the update failed and {seen.at_end} answers"
            self._bench.ask_again(path, walk.daemon)
            seen, outcome = walk.settle(), self._outcome(path, walk)
        if (seen.at_end, outcome) != path.ending:
            yield f"in the end {seen.at_end} answers and {outcome} is reported"
        if seen.rounds_failed:
            yield f"{seen.rounds_failed} rounds failed after the start"
        blobs = list(walk.daemon.state.slots.blobs.iterdir())
        if any(blob.stat().st_nlink == 1 for blob in blobs):
            yield "a blob is kept that no slot uses"
        kept = {parcel.payload.hex() for parcel in walk.outbox.after(0, 10_000)}
        if lost := set(acknowledged.read_text().split()) - kept:
            yield f"{len(lost)} messages of the outbox are lost"

    @staticmethod
    def _outcome(path: UpdatePath, walk: Walk) -> Outcome:
        job = walk.daemon.state.store.jobs().get(lane_of(MODEL, path.role))
        return job.outcome if job else Outcome.NONE

    @contextmanager
    def _device(self, path: UpdatePath, fault: Fault, name: str) -> Iterator[Path]:
        place = self._folder / name
        place.mkdir()
        try:
            if fault is Fault.POWER:
                image = place / "disk"
                make_image(image)
                with mounted(image, place / "before") as mount:
                    device = self._bench.copy(path, mount / "device")
                    subprocess.run(["sync", "-f", str(mount)], check=True)
                    yield device
            else:
                yield self._bench.copy(path, place / "device")
        finally:
            subprocess.run(["rm", "-rf", str(place)], check=True)

    @contextmanager
    def _after_the_cut(self, device: Path) -> Iterator[Path]:
        """The same device on a disk that has only what was flushed."""
        place = device.parents[1]
        subprocess.run(["cp", "--sparse=always", str(place / "disk"), str(place / "cut")], check=True)
        with mounted(place / "cut", place / "after") as mount:
            yield mount / "device"


def make_image(image: Path) -> None:
    with image.open("wb") as file:
        file.truncate(IMAGE_MB * 1024 * 1024)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-J", "size=4", str(image)], check=True)


@contextmanager
def mounted(image: Path, point: Path) -> Iterator[Path]:
    """commit: the file system must flush nothing by itself while a walk lasts."""
    point.mkdir()
    subprocess.run(["mount", "-o", "loop,commit=600", str(image), str(point)], check=True, capture_output=True)
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


def can_mount(folder: Path) -> str:
    """Why no image can be mounted here; "" when one can."""
    image = folder / "try"
    try:
        make_image(image)
        with mounted(image, folder / "try-mount"):
            return ""
    except (OSError, subprocess.CalledProcessError) as error:
        reason = error.stderr.decode().strip() if isinstance(error, subprocess.CalledProcessError) and error.stderr else error
        return f"a loop image cannot be mounted here: {reason}"
    finally:
        image.unlink(missing_ok=True)
        if (folder / "try-mount").exists():
            (folder / "try-mount").rmdir()
