"""How do numbers read to people: units, digits, intervals?"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from toolchain.pipeline.record import DropResult, LatencyResult, MetricResult

_TIMES = ((1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs"))
_SIZES = ((1_000_000_000, "GB"), (1_000_000, "MB"), (1_000, "kB"))


def latency(ns: float) -> str:
    """Three significant digits: 16.2 µs, 1.41 ms."""
    for unit, name in _TIMES:
        if ns >= unit:
            return f"{_three(ns / unit)} {name}"
    return f"{ns:.0f} ns"


def size(count: int) -> str:
    """Decimal units, as disks and networks count."""
    for unit, name in _SIZES:
        if count >= unit:
            return f"{_three(count / unit)} {name}"
    return f"{count} B"


def latency_tick(ns: float) -> str:
    return _tick(ns, _TIMES, "ns")


def size_tick(count: float) -> str:
    return _tick(count, _SIZES, "B")


def seconds_tick(value: float) -> str:
    return f"{value:g} s" if value else "0"


def plain_tick(value: float) -> str:
    return f"{value:g}"


def seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    return f"{int(value) // 60} min {int(value) % 60} s"


def quality(value: float) -> str:
    """A metric's value. Four decimals tell apart what a test set of some thousands can; large values need fewer."""
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.1f}"


def quality_interval(metric: MetricResult) -> str:
    return f"{quality(metric.low)} – {quality(metric.high)}"


def worsening(metrics: Sequence[MetricResult]) -> str:
    """What the deciding metric does when it gets worse."""
    return "rise" if metrics and metrics[0].goal == "min" else "drop"


def drop(result: DropResult) -> str:
    """In the metric's own unit; a minus sign means better than float."""
    return _signed(result.value)


def drop_interval(result: DropResult) -> str:
    return f"{_signed(result.low)} – {_signed(result.high)}"


def drop_claim(result: DropResult) -> str:
    """What the paired interval allows to be said, and no more."""
    interval = f"95 % interval {drop_interval(result)}, paired over {result.n:,} examples"
    if result.low > 0:
        return f"{quality(result.value)} worse than the float model ({interval})"
    if result.high < 0:
        return f"{quality(-result.value)} better than the float model ({interval})"
    if result.value == result.low == result.high == 0:
        return f"exactly as good as the float model, over {result.n:,} examples"
    return f"not to be told from the float model: {_difference(result.value)} ({interval})"


def speed(result: LatencyResult) -> str:
    return f"{result.ratio:.2f}×"


def speed_interval(result: LatencyResult) -> str:
    return f"{result.ratio_low:.2f} – {result.ratio_high:.2f}"


def speed_claim(result: LatencyResult) -> str:
    """What the interval allows to be said, and no more."""
    if result.ratio_low > 1:
        return f"{result.ratio:.2f}× as fast as float"
    if result.ratio_high < 1:
        return f"{1 / result.ratio:.2f}× slower than float"
    return "no faster than float, as far as this run can tell"


def count(value: int) -> str:
    """Multiplications, parameters: 78.0 k, 5.12 M."""
    for unit, name in ((1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")):
        if value >= unit:
            return f"{_three(value / unit)} {name}"
    return str(value)


def energy(uj: int) -> str:
    return f"{_three(uj / 1000)} mJ" if uj >= 1000 else f"{uj} µJ"


def share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "–"


def several(number: int, one: str, many: str = "") -> str:
    """ "1 variant", "3 variants"."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def listed(names: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


def sentence(text: str) -> str:
    """Reasons are written as half sentences; standing alone they get a capital and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".") if text else ""


def moment(text: str) -> str:
    """An ISO 8601 time in UTC, to the minute; anything else as it stands."""
    try:
        return f"{datetime.fromisoformat(text).astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    except ValueError:
        return text


def in_order(splits: Iterable[str]) -> list[str]:
    """Splits as they are used, whatever order they were written in."""
    known = ("train", "validation", "test")
    return sorted(splits, key=lambda name: known.index(name) if name in known else len(known))


def splits(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{sizes[name]:,} {name}" for name in in_order(sizes))


def short(digest: str) -> str:
    return digest[:12]


def _tick(value: float, units: tuple[tuple[int, str], ...], smallest: str) -> str:
    """A round number in the unit that suits it; ticks are exact, so no digits are added."""
    unit, name = next((each for each in units if value >= each[0]), (1, smallest))
    return f"{value / unit:g} {name}" if value else "0"


def _signed(value: float) -> str:
    shown = quality(value)
    return shown.replace("-", "\N{MINUS SIGN}" if shown.strip("-0.") else "")


def _difference(value: float) -> str:
    return f"{quality(abs(value))} {'worse' if value > 0 else 'better'}" if value else "no difference"


def _three(value: float) -> str:
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"
