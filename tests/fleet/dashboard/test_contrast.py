"""The colours hold WCAG 2.2 AA in both themes: 4.5 for text, 3 for shapes and lines that carry meaning."""

import re

import pytest

from fleet.dashboard.assets import STATIC

TOKENS = {
    name: (light, dark)
    for name, light, dark in re.findall(
        r"--([a-z0-9-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\)", (STATIC / "tokens.css").read_text()
    )
}
GROUNDS = ("bg", "surface", "raised")
TONES = ("ok", "busy", "warn", "bad", "idle")
TEXT = (
    [(text, ground) for text in ("text", "muted", "accent", *TONES) for ground in GROUNDS]
    + [(tone, f"{tone}-soft") for tone in TONES]
    + [("text", f"{tone}-soft") for tone in TONES]
    + [("accent", "accent-soft"), ("on-accent", "accent"), ("on-accent", "bad"), ("muted", "idle-soft")]
)
SHAPES = [(f"series-{number}", "surface") for number in range(1, 6)]


def luminance(colour: str) -> float:
    """Relative luminance. Source: WCAG 2.2, definition."""
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def test_the_formula_gives_the_known_ends() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(("front", "ground", "least"), [(*pair, 4.5) for pair in TEXT] + [(*pair, 3.0) for pair in SHAPES])
def test_contrast_is_enough(front: str, ground: str, least: float, theme: int) -> None:
    assert contrast(TOKENS[front][theme], TOKENS[ground][theme]) >= least
