"""What does one inference cost in energy, where the machine counts it itself?

The counters see the whole package or board, whatever else runs on it included; so the figure compares variants of one run and
is no property of a model. Sources: Linux Documentation/power/powercap/powercap.rst (RAPL) and Documentation/hwmon/ina3221.rst.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

Call = Callable[[], Any]

_TOTAL_RAIL = "VDD_IN"
"""What a Jetson draws as a whole; the other rails are parts of it. Source: Jetson Linux Developer Guide, power management."""
_SAMPLE_NS = 10_000_000


class Meter(Protocol):
    def measure(self, call: Call, span_ns: int) -> int | None:
        """Microjoules of one call, over calls that fill span_ns; None when the counter cannot be read any more."""


def find_meter(sys_root: Path = Path("/sys")) -> Meter | None:
    """The machine's counter, or None where there is none or it may not be read (RAPL is often root's alone)."""
    packages = [
        folder for folder in sorted(sys_root.glob("class/powercap/intel-rapl:*")) if _text(folder / "name").startswith("package")
    ]
    if packages and all(_number(folder / "energy_uj") is not None for folder in packages):
        return Rapl(packages)
    rails = [
        (path.parent / path.name.replace("_label", "_input"), path.parent / path.name.replace("in", "curr").replace("_label", "_input"))
        for path in sorted(sys_root.glob("bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label"))
        if _text(path) == _TOTAL_RAIL
    ]  # fmt: skip
    readable = [rail for rail in rails if all(_number(path) is not None for path in rail)]
    return Ina3221(*readable[0]) if readable else None


class Rapl:
    """Counters that only grow, in microjoules, one a CPU package, and start again at their range."""

    def __init__(self, packages: list[Path]) -> None:
        self._packages = packages

    def measure(self, call: Call, span_ns: int) -> int | None:
        before = [_number(folder / "energy_uj") for folder in self._packages]
        count = _repeat(call, span_ns)
        after = [_number(folder / "energy_uj") for folder in self._packages]
        spent = 0
        for folder, start, end in zip(self._packages, before, after, strict=True):
            if start is None or end is None:
                return None
            spent += end - start if end >= start else end - start + (_number(folder / "max_energy_range_uj") or 0)
        return round(spent / count)


class Ina3221:
    """Voltage (mV) and current (mA) of a rail, sampled while the calls run: mean power times time."""

    def __init__(self, volts: Path, amperes: Path) -> None:
        self._volts, self._amperes = volts, amperes

    def measure(self, call: Call, span_ns: int) -> int | None:
        powers: list[int] = []
        start = sampled = time.perf_counter_ns()
        count = 0
        while (now := time.perf_counter_ns()) - start < span_ns or not powers:
            call()
            count += 1
            if now - sampled >= _SAMPLE_NS or not powers:
                sampled = now
                millivolts, milliamperes = _number(self._volts), _number(self._amperes)
                if millivolts is None or milliamperes is None:
                    return None
                powers.append(millivolts * milliamperes)  # microwatts
        seconds = (time.perf_counter_ns() - start) / 1e9
        return round(sum(powers) / len(powers) * seconds / count)


def _repeat(call: Call, span_ns: int) -> int:
    start, count = time.perf_counter_ns(), 0
    while time.perf_counter_ns() - start < span_ns or not count:
        call()
        count += 1
    return count


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdigit() else None
