"""How is a plot drawn: scales, ticks, axes, and marks that explain themselves when pointed at?

Colours are CSS classes, so one drawing serves light and dark. Every text is escaped here; nothing else builds markup.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from html import escape

import msgspec
from markupsafe import Markup

WIDE, HALF, NARROW = 1040, 500, 350
"""Widths in user units, close to the pixels of a whole card, of one of two beside each other, and of a phone's screen: each
plot is drawn once for the desk and once for the phone, so that its text is never shrunk."""
NAME_LETTER, BOLD_LETTER = 6.6, 7.3
"""Width of a letter of a name at 12 units, on the wide side for the common fonts."""


class Scale(msgspec.Struct, frozen=True):
    """Maps values in [low, high] to pixels in [start, end]."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.is_log:
            low, high, at = math.log(low), math.log(high), math.log(value)
        return round(self.start + (at - low) / (high - low) * (self.end - self.start), 2)

    def ticks(self, about: int) -> list[float]:
        """Round values inside the scale: 1, 2 or 5 times a power of ten apart, or at 1, 2, 5 of each decade."""
        if self.is_log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            found = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
            found = [value for value in found if self.low <= value <= self.high]
            if len(found) >= 3:
                return found
        step = _round_step((self.high - self.low) / max(about, 1))
        first = math.ceil(self.low / step - 1e-9)
        return [round(index * step, 12) for index in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _round_step(raw: float) -> float:
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)


class Frame(msgspec.Struct, frozen=True):
    """A drawing's size and the margins its axes need."""

    width: float
    height: float
    left: float = 56
    right: float = 16
    top: float = 14
    bottom: float = 40

    @property
    def x(self) -> tuple[float, float]:
        return self.left, self.width - self.right

    @property
    def y(self) -> tuple[float, float]:
        """Pixels of the lowest and the highest value; they grow downwards."""
        return self.height - self.bottom, self.top


def padded(values: Iterable[float], share: float = 0.08) -> tuple[float, float]:
    """Bounds around values with room at both ends, never empty."""
    found = list(values)
    low, high = min(found), max(found)
    room = (high - low) * share or abs(high) * share or 1.0
    return low - room, high + room


def responsive(draw: Callable[[float], str], label: str, wide: float = HALF) -> Markup:
    """The same plot for wide and for narrow screens; style sheets show one of them."""
    drawings = (f'<div class="{name}">{draw(width)}</div>' for name, width in (("wide", wide), ("narrow", NARROW)))
    return Markup(f'<div class="plot" role="group" aria-label="{escape(label)}">{"".join(drawings)}</div>')


def drawing(frame: Frame, parts: Iterable[str]) -> str:
    return f'<svg viewBox="0 0 {frame.width:g} {frame.height:g}" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'


def text(x: float, y: float, content: str, css: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:g}" y="{y:g}" class="{css}" text-anchor="{anchor}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, css: str) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="{css}"/>'


def rectangle(
    x: float, y: float, width: float, height: float, *, css: str, tip: Sequence[str] = (), key: str = "", name: str = ""
) -> str:
    more = point(key, name) if key else tips(tip)
    return f'<rect x="{x:g}" y="{y:g}" width="{max(width, 0.5):g}" height="{height:g}" rx="2" class="{css}"{more}/>'


def polyline(points: Iterable[tuple[float, float]], css: str) -> str:
    return f'<polyline points="{" ".join(f"{x:g},{y:g}" for x, y in points)}" class="{css}"/>'


def circle(x: float, y: float, radius: float, css: str, *, tip: Sequence[str] = ()) -> str:
    return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="{css}"{tips(tip)}/>'


def shape(
    sides: int, x: float, y: float, radius: float, css: str, *, name: str = "", key: str = "", tip: Sequence[str] = ()
) -> str:
    """A mark: a circle (0 sides) or a polygon of about the same area, a corner up. key, name: of what it stands for (`point`)."""
    more = point(key, name) if key else tips(tip)
    if not sides:
        return f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" class="{css}"{more}/>'
    reach = radius * math.sqrt(math.tau / (sides * math.sin(math.tau / sides)))
    turns = [math.tau * corner / sides - math.pi / 2 for corner in range(sides)]
    corners = " ".join(f"{x + reach * math.cos(turn):.5g},{y + reach * math.sin(turn):.5g}" for turn in turns)
    return f'<polygon points="{corners}" class="{css}"{more}/>'


def point(key: str, name: str) -> str:
    """Attributes of a mark whose explanation stands once on the page, at the table row with the same key."""
    return f' tabindex="0" data-key="{escape(key)}" aria-label="{escape(name)}"'


def tips(lines: Sequence[str]) -> str:
    """What pointing at a mark, touching it or moving the focus to it shows: a title and lines below."""
    if not lines:
        return ""
    return f' tabindex="0" data-tip="{escape(chr(10).join(lines))}" aria-label="{escape(", ".join(lines))}"'


def axes(
    frame: Frame, x: Scale | None, y: Scale | None, x_text: Callable[[float], str] = str, y_text: Callable[[float], str] = str
) -> list[str]:
    """Grid lines with their values, for the axes given."""
    parts = []
    bottom, top = frame.y
    left, right = frame.x
    if y:
        for value in y.ticks(5):
            parts += [line(left, y(value), right, y(value), "grid"), text(left - 8, y(value) + 4, y_text(value), "tick", "end")]
    if x:
        for value in _thinned(x.ticks(6), x, 52):
            parts += [line(x(value), top, x(value), bottom, "grid"), text(x(value), bottom + 17, x_text(value), "tick", "middle")]
    return [*parts, line(left, bottom, right, bottom, "axis")]


def clipped(name: str, width: float, *, from_start: bool = False) -> str:
    """A name cut to a width in user units; from_start: keep its end, which tells paths apart."""
    length = max(int(width / NAME_LETTER), 4)
    if len(name) <= length:
        return name
    return f"…{name[1 - length :]}" if from_start else f"{name[: length - 1]}…"


def _thinned(values: list[float], scale: Scale, room: float) -> list[float]:
    """Ticks far enough apart for their texts."""
    kept: list[float] = []
    for value in values:
        if not kept or abs(scale(value) - scale(kept[-1])) >= room:
            kept.append(value)
    return kept
