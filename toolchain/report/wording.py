"""How do numbers read to people: units, digits, intervals?"""

from toolchain.pipeline.record import LatencyResult, MetricResult

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


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "–"


def short(digest: str) -> str:
    return digest[:12]


def _three(value: float) -> str:
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"
