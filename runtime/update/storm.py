"""When the daemon dies again and again with no update under way: what is a start to do without?

Pure. Deaths are counted over starts, whatever their pace by the wall clock, until an orderly stop or an orderly period ends
the row. A death of the process, or one while a model was being opened, weighs three times as much as a power cut at rest,
which says little about the models. At LIMIT what is suspected gives way to its previous version, for good; at twice that it
is left out of this start, and the device lives on without it. Suspected is what was being opened, else everything.
"""

from pathlib import Path
from typing import Literal

import msgspec

ORDERLY_S = 600.0
"""A start that lasts so long was none of a storm."""
LIMIT = 15
DEATH, POWER_CUT = 3, 1
_KERNEL_BOOT = Path("/proc/sys/kernel/random/boot_id")

Treatment = Literal["open", "previous", "leave out"]


class Storm(msgspec.Struct, frozen=True):
    """strain: weight of the unclean stops in a row; opening: the lane being opened when the last one came, or "".

    kernel_boot: of the last start, to tell a death of this process from one of the machine; fallen: lanes that gave way.
    """

    strain: int = 0
    opening: str = ""
    kernel_boot: str = ""
    fallen: tuple[str, ...] = ()

    @property
    def is_calm(self) -> bool:
        return not (self.strain or self.fallen)


def after_start(storm: Storm, *, clean: bool, is_updating: bool, kernel_boot: str) -> Storm:
    """The row with this start. is_updating: an update under way counts its own interruptions, and is rolled back before."""
    if clean:
        return Storm(kernel_boot=kernel_boot)
    if is_updating:
        return msgspec.structs.replace(storm, kernel_boot=kernel_boot)
    died_alone = bool(kernel_boot) and kernel_boot == storm.kernel_boot
    weight = DEATH if died_alone or storm.opening else POWER_CUT
    return msgspec.structs.replace(storm, strain=storm.strain + weight, kernel_boot=kernel_boot)


def treatment(storm: Storm, lane: str, *, has_previous: bool) -> Treatment:
    """What this start does with a lane. has_previous: its other slot holds a version."""
    if storm.strain < LIMIT or (storm.opening and storm.opening != lane):
        return "open"
    if storm.strain >= 2 * LIMIT:
        return "leave out"
    if lane in storm.fallen:
        return "open"
    return "previous" if has_previous else "leave out"


def kernel_boot() -> str:
    """Names this run of the machine; "" where the kernel does not say."""
    try:
        return _KERNEL_BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""
