"""A chart with two logarithmic axes as SVG text: points and lines, for pictures in the documentation.

The same numbers give the same text, so that a picture in the repository changes only when its numbers do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from inference_energy.present.page import FONT, LIGHT

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 72, 210, 34, 52
_DASHES = {"solid": "", "dash": "7 4", "dot": "2 3"}
_STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Series:
    """Points, or a line through them.

    Attributes:
        name: in the legend; empty for none.
        x: above zero.
        y: above zero.
        colour: of the theme.
        line: `solid`, `dash` or `dot`; None for points.
        band: lower and upper ends of a filled band, of the length of `x`.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    line: str | None = None
    band: tuple[Sequence[float], Sequence[float]] | None = None


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis from `low` to `high`, from pixel `start` to pixel `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        found = [step * 10.0**power for power in powers for step in _STEPS]
        return [value for value in found if self.low * 0.999 <= value <= self.high * 1.001]


def chart(
    title: str,
    x_title: str,
    y_title: str,
    series: Sequence[Series],
    *,
    x_ticks: Sequence[float] | None = None,
    level: float | None = None,
) -> str:
    """The chart.

    Args:
        title: above it.
        x_title: title of the x axis, with its unit.
        y_title: title of the y axis, with its unit.
        series: at least one, with at least one point.
        x_ticks: where the x axis is marked; at 1, 2 and 5 unless given.
        level: a level line across, such as 1 for ratios.
    """
    ends = [value for one in series for value in (*one.y, *(one.band[0] if one.band else ()))]
    ends += [value for one in series if one.band for value in one.band[1]]
    xs = [value for one in series for value in one.x]
    x = _Axis(min(xs) / 1.15, max(xs) * 1.15, LEFT, WIDTH - RIGHT)
    y = _Axis(min(ends) / 1.2, max(ends) * 1.2, HEIGHT - BOTTOM, TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}" font-family="{escape(FONT)}" font-size="12" fill="{LIGHT["ink"]}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{LIGHT["panel"]}"/>',
        f'<text x="{LEFT}" y="20" font-size="14" font-weight="600">{escape(title)}</text>',
        *_grid(x, y, x_ticks),
    ]
    if level is not None:
        at = f"{y.at(level):.1f}"
        parts.append(f'<path d="M{LEFT} {at}H{WIDTH - RIGHT}" stroke="{LIGHT["ink"]}" stroke-width="1"/>')
    for one in series:
        parts += _drawn(one, x, y)
    parts += _legend([one for one in series if one.name])
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_title, "middle"))
    parts.append(f'<g transform="rotate(-90 16 {middle:.0f})">{_text(16, middle, y_title, "middle")}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _grid(x: _Axis, y: _Axis, x_ticks: Sequence[float] | None) -> list[str]:
    parts = []
    for value in y.ticks():
        at = y.at(value)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="{LIGHT["grid"]}"/>')
        parts.append(_text(LEFT - 8, at + 4, f"{value:g}", "end"))
    for value in x_ticks or x.ticks():
        at = x.at(value)
        parts.append(f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="{LIGHT["grid"]}"/>')
        parts.append(_text(at, HEIGHT - BOTTOM + 17, f"{value:g}", "middle"))
    return parts


def _drawn(one: Series, x: _Axis, y: _Axis) -> list[str]:
    places = [(x.at(a), y.at(b)) for a, b in zip(one.x, one.y, strict=True)]
    parts = []
    if one.band:
        lower = [(x.at(a), y.at(b)) for a, b in zip(one.x, one.band[0], strict=True)]
        upper = [(x.at(a), y.at(b)) for a, b in zip(one.x, one.band[1], strict=True)]
        parts.append(f'<path d="{_path([*lower, *reversed(upper)])}Z" fill="{one.colour}" fill-opacity="0.15"/>')
    if one.line is None:
        return [*parts, *(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.6" fill="{one.colour}"/>' for a, b in places)]
    dash = f' stroke-dasharray="{_DASHES[one.line]}"' if _DASHES[one.line] else ""
    parts.append(f'<path d="{_path(places)}" fill="none" stroke="{one.colour}" stroke-width="1.8"{dash}/>')
    return parts


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in places)


def _legend(series: Sequence[Series]) -> list[str]:
    parts = []
    left = WIDTH - RIGHT + 18
    for place, one in enumerate(series):
        top = TOP + 10 + 20 * place
        if one.line is None:
            parts.append(f'<circle cx="{left + 10}" cy="{top}" r="3.6" fill="{one.colour}"/>')
        else:
            dash = f' stroke-dasharray="{_DASHES[one.line]}"' if _DASHES[one.line] else ""
            parts.append(f'<path d="M{left} {top}h20" stroke="{one.colour}" stroke-width="1.8"{dash}/>')
        parts.append(_text(left + 27, top + 4, one.name, "start"))
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
