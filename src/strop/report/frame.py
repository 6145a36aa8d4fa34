"""Where a plot's values stand on paper: the frame, its grid and ticks, and the SVG around them."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup

from strop.report.series import tick_words, ticks

WIDTH, HEIGHT = 520, 250
LEFT, RIGHT, TOP, BOTTOM = 54, 14, 14, 30


@dataclass(frozen=True, slots=True)
class Frame:
    """The values at the edges of a plot."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x_low) / (self.x_high - self.x_low) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y_low) / (self.y_high - self.y_low) * (HEIGHT - TOP - BOTTOM)


def grid(frame: Frame, *, whole: bool = False) -> Markup:
    """Lines across at round values, with what they are; `whole` where only steps stand below."""
    parts = []
    up, across = ticks(frame.y_low, frame.y_high, 4), ticks(frame.x_low, frame.x_high, 6)
    for value, words in zip(up, tick_words(up), strict=True):
        y = f"{frame.y(value):.1f}"
        parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(LEFT, y, WIDTH - RIGHT))
        text = Markup('<text class="tick" x="{}" y="{}" text-anchor="end" dy=".32em">{}</text>')
        parts.append(text.format(LEFT - 8, y, words))
    for value, words in zip(across, tick_words(across), strict=True):
        if not whole or (value == int(value) and value >= 0):
            text = Markup('<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
            parts.append(text.format(frame.x(value), HEIGHT - 9, words))
    parts.append(Markup('<path class="axis" d="M{} {}H{}"/>').format(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT))
    return Markup("").join(parts)


def svg_of(height: int, label: str, body: Markup, frame: Frame | None = None) -> Markup:
    """The picture: drawn to WIDTH, named by `label` for who cannot see it, its step axis for the script."""
    scale = ""
    if frame is not None:
        scale = Markup(' data-x="{} {} {} {}"').format(frame.x_low, frame.x_high, LEFT, WIDTH - RIGHT)
    return Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}"{}>{}</svg>').format(
        WIDTH, height, label, scale, body
    )


def whisker(frame: Frame, index: int, x: float, low: float | None, high: float | None) -> Markup:
    """An interval as a thin upright line."""
    if low is None or high is None:
        return Markup("")
    ends = f"{frame.x(x):.1f}", f"{frame.y(low):.1f}", f"{frame.y(high):.1f}"
    return Markup('<path class="line c{} raw" d="M{} {}V{}"/>').format(index, *ends)


def dot(frame: Frame, index: int, x: float, y: float) -> Markup:
    """A measured value."""
    place = f"{frame.x(x):.1f}", f"{frame.y(y):.1f}"
    return Markup('<circle class="dot c{}" cx="{}" cy="{}" r="2.6"/>').format(index, *place)
