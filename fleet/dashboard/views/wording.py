"""How does the dashboard write numbers, times and digests for people?

Every function takes plain values and an explicit `now`; none reads a clock. Missing values are an en dash, so that a
column of figures never holds an empty cell that could be read as zero.
"""

import re
from datetime import UTC, datetime

MISSING = "–"
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")


def duration(seconds: float | None) -> str:
    """The two largest units, such as "2 h 5 min"; below a minute whole seconds."""
    if seconds is None:
        return MISSING
    left = int(max(seconds, 0))
    parts: list[tuple[int, str]] = []
    for size, unit in _UNITS:
        amount, left = divmod(left, size)
        if amount or parts:
            parts.append((amount, unit))
        if len(parts) == 2:
            break
    return " ".join(f"{amount} {unit}" for amount, unit in parts if amount) or "0 s"


def ago(moment: float | None, now: float) -> str:
    """Age of a Unix time in its largest unit, such as "5 min ago"; a time ahead of `now` is "just now"."""
    if moment is None:
        return "never"
    age = now - moment
    if age < 1:
        return "just now"
    size, unit = next((size, unit) for size, unit in _UNITS if age >= size)
    return f"{int(age // size)} {unit} ago"


def clock(moment: float | None) -> str:
    """A Unix time as UTC with the date, for tooltips and `datetime` attributes."""
    if moment is None:
        return MISSING
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def hour(moment: float) -> str:
    """A Unix time as UTC hours, minutes and seconds, for logs and axes."""
    return datetime.fromtimestamp(moment, UTC).strftime("%H:%M:%S")


def hour_minute(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%H:%M")


def day_hour(moment: float) -> str:
    """A Unix time as UTC day and time, for axes longer than a day."""
    return datetime.fromtimestamp(moment, UTC).strftime("%d %b %H:%M")


def count(value: float | None) -> str:
    """A whole number with thin groups of three."""
    return MISSING if value is None else f"{round(value):,}".replace(",", "\u2009")


def percent(ratio: float | None, digits: int = 1) -> str:
    """A ratio 0..1 as percent; a non-zero share never reads as zero."""
    if ratio is None:
        return MISSING
    smallest = 10**-digits
    if 0 < ratio * 100 < smallest:
        return f"< {smallest:g} %"
    return f"{ratio * 100:.{digits}f} %"


def latency(ns: float | None) -> str:
    """Nanoseconds with three significant figures in the unit that suits them."""
    if ns is None:
        return MISSING
    for size, unit in ((1e9, "s"), (1e6, "ms"), (1e3, "µs")):
        if ns >= size:
            return f"{significant(ns / size)} {unit}"
    return f"{ns:.0f} ns"


def size(size_bytes: float | None) -> str:
    if size_bytes is None:
        return MISSING
    amount = float(size_bytes)
    for unit in _BINARY[:-1]:
        if abs(amount) < 1024:
            return f"{significant(amount)} {unit}"
        amount /= 1024
    return f"{significant(amount)} {_BINARY[-1]}"


def significant(value: float, figures: int = 3) -> str:
    """Rounded to so many significant figures, never in exponent form for the sizes people read."""
    if value == 0:
        return "0"
    rounded = float(f"{value:.{figures}g}")
    if abs(rounded) >= 10 ** (figures - 1):
        return f"{rounded:,.0f}".replace(",", "\u2009")
    if abs(rounded) < 1e-4:
        return f"{rounded:.1e}"
    whole = len(str(int(abs(rounded)))) if abs(rounded) >= 1 else 0
    return f"{rounded:.{figures - whole}f}"


def without_zeros(text: str) -> str:
    """A written figure without trailing zeros behind its point: "4.00/s" as "4/s"."""
    return re.sub(r"(\d)(?:\.0+|(\.\d*?[1-9])0+)(?=\D|$)", r"\1\2", text)


def short(digest: str, length: int = 10) -> str:
    """The head of a digest, enough to tell two apart on a screen."""
    return digest[:length]


def plural(number: int, noun: str, many: str | None = None) -> str:
    return f"{count(number)} {noun if number == 1 else many or noun + 's'}"
