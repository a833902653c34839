"""Which accelerators does this machine have, as far as its files tell? No driver is loaded, so asking costs nothing.

"tegra234" is the chip of every Jetson Orin; "intel-npu" one of Intel's NPUs whose driver made its device file.
Sources: the device tree bindings of Linux (nvidia,tegra234), drivers/accel/ivpu.
"""

from pathlib import Path

_ROOT = Path("/")
_TEGRA_ORIN = b"nvidia,tegra234"


def accelerators(root: Path = _ROOT) -> frozenset[str]:
    """Names as target profiles use them. root: where the file system begins, for tests."""
    found = set()
    if _TEGRA_ORIN in _read(root / "proc/device-tree/compatible").split(b"\0"):
        found.add("tegra234")
    if (root / "sys/module/intel_vpu").is_dir() and any((root / "dev/accel").glob("accel*")):
        found.add("intel-npu")
    return frozenset(found)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
