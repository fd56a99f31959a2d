"""Pages and pictures of docs/ that the package makes from its own tables: reason codes, and how estimators score."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from inference_energy.contracts.reason_codes import CODES
from inference_energy.estimate.batch import Cases
from inference_energy.estimate.calibration import SHIPPED, EnergyCalibration, shipped_calibration
from inference_energy.estimate.calibration_fit import dense_16_bit, fit_rows
from inference_energy.estimate.reference_rows import MeasuredRow
from inference_energy.estimate.scorecard import Group, Score, Scorecard
from inference_energy.present.page import FONT, LIGHT, SERIES


def reasons_page() -> str:
    """Return docs/reference/reasons.md: every reason code with its meaning, effect and figures."""
    lines = [
        "# Reason codes",
        "",
        "Generated from `src/inference_energy/contracts/reason_codes.py` by `make docs`. A code that invalidates takes "
        "the figure's value away: its place says why. A note stands on a figure that keeps its value.",
        "",
        "| code | meaning | effect | figures |",
        "|---|---|---|---|",
        *(f"| `{name}` | {code.meaning} | {code.effect} | {code.figures} |" for name, code in sorted(CODES.items())),
    ]
    return "\n".join(lines) + "\n"


TEMPLATE = "estimators.md.j2"


EARLIER = {"byte": 182e-12, "flop": 2.27e-12, "token": 13e-3}
"""The energy roofline that was fitted to 64 rows of five models before this package existed."""


CONTEXTS = (250.0, 500.0, 1000.0)


PREFIXES = {
    "byte": (1e12, "pJ/byte"),
    "flop": (1e12, "pJ/FLOP"),
    "token": (1e3, "mJ/token"),
    "prefill": (1e12, "pJ/FLOP"),
}


def estimators_page(scorecard: Scorecard, command: str) -> str:
    """Return docs/validation/estimators.md.

    Args:
        scorecard: the scores.
        command: the command that makes the page.
    """
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    template = environment.from_string(files("inference_energy.estimate").joinpath("data", TEMPLATE).read_text())
    published = shipped_calibration(SHIPPED[0])
    return (
        template.render(
            command=command,
            groups=[
                {"title": group.title, "scores": _scores(group), "rows": _rows(group)} for group in scorecard.groups
            ],
            shown=[_shown(scorecard, index, row) for index, row in enumerate(scorecard.shown)],
            calibrations=[_calibration(shipped_calibration(name)) for name in SHIPPED],
            in_sample=100 * published.record["in_sample_mape"],
            left_out=100 * published.record["leave_one_model_out_mape"],
            models=len(published.models),
            rows=published.record["rows"],
            windows={line.label: 100 * line.mape for line in scorecard.groups[-1].scores},
            window_ratio=_median_ratio(scorecard.groups[-1], "energy-roofline"),
            earlier=[abs(100 * (_coefficient(published, term) / value - 1)) for term, value in EARLIER.items()],
            byte_ratio=100
            * (_coefficient(shipped_calibration(SHIPPED[1]), "byte") / _coefficient(published, "byte") - 1),
            by_context={context: 100 * in_sample_at(context) for context in CONTEXTS},
        ).rstrip()
        + "\n"
    )


def in_sample_at(context_tokens: float) -> float:
    """Return the mean in-sample error of the published calibration for rows of this mean context."""
    rows = [replace(row, context_tokens=context_tokens) for row in dense_16_bit()]
    return float(fit_rows(rows, "context", {})["in_sample_mape"])


def _coefficient(fitted: EnergyCalibration, term: str) -> float:
    return float(dict(zip(fitted.terms, fitted.values, strict=True))[term])


def _median_ratio(group: Group, name: str) -> float:
    measured = np.array([row.output_j for row in group.rows])
    return float(np.nanmedian(group.estimates[name] / measured))


def _scores(group: Group) -> list[str]:
    return [_score(line) for line in group.scores]


def _score(line: Score) -> str:
    if not line.rows:
        return f"| {line.label} | 0 | | | | | not scored: {line.why} |"
    covered = "" if line.covered is None else f"{100 * line.covered:.0f} %"
    return (
        f"| {line.label} | {line.rows} | {100 * line.mape:.1f} % | {line.log_error:.2f} | "
        f"{100 * line.within_two:.0f} % | {line.median_ratio:.2f} | {covered} |"
    )


def _rows(group: Group) -> dict[str, Any]:
    """Return a table with a row per measurement, and estimate / measured of each estimator."""
    names = [name for name, values in group.estimates.items() if not np.isnan(values).all()]
    lines = []
    for index, row in enumerate(group.rows):
        ratios = [group.estimates[name][index] / row.output_j for name in names]
        cells = " | ".join("" if math.isnan(ratio) else f"{ratio:.2f}" for ratio in ratios)
        lines.append(f"| {row.label} | {row.output_j:.3g} | {cells} |")
    return {"names": names, "lines": lines}


def _shown(scorecard: Scorecard, index: int, row: MeasuredRow) -> str:
    estimates = "; ".join(
        f"{name} {values[index]:.3g}"
        for name, values in scorecard.shown_estimates.items()
        if not math.isnan(values[index])
    )
    return f"| {row.label} | {row.output_j:.3g} | {row.use} | {estimates} | {row.note} |"


def _calibration(fitted: EnergyCalibration) -> dict[str, Any]:
    record = fitted.record
    return {
        "name": fitted.name,
        "models": ", ".join(fitted.models),
        "rows": record["rows"],
        "prompts": fitted.prompts,
        "sources": "; ".join(record["provenance"]["sources"]),
        "command": record["provenance"]["command"],
        "coefficients": [
            f"e_{entry['term']} = {PREFIXES[entry['term']][0] * entry['value']:.3g} ± "
            f"{PREFIXES[entry['term']][0] * entry['standard_error']:.2g} {PREFIXES[entry['term']][1]}"
            for entry in record["coefficients"]
        ],
        "in_sample": 100 * record["in_sample_mape"],
        "left_out": None if record["leave_one_model_out_mape"] is None else 100 * record["leave_one_model_out_mape"],
        "notes": record["notes"],
    }


BATCHES = (8, 16, 32, 64, 128, 256, 512)


FINE = np.geomspace(8, 512, 25)


CONTEXT = 500.0


RATIO_LABELS = {
    "flops": "flops",
    "roofline": "roofline",
    "ecologits": "ecologits",
    "scale": "scale (middle)",
    "lookup": "lookup",
    "energy-roofline": "energy-roofline",
}


def estimator_plots(scorecard: Scorecard) -> dict[str, str]:
    """Return the pictures of docs/reference/estimators.md as SVG text by file name."""
    return {
        "estimates-roofline.svg": plot_roofline(scorecard.groups[0]),
        "estimates-ratios.svg": plot_ratios(scorecard.groups[0]),
    }


def plot_roofline(group: Group) -> str:
    """Plot measured rows as points, and the shipped calibration with its 95 % prediction interval as lines."""
    fitted = shipped_calibration("h100-published")
    series = []
    for index, name in enumerate(dict.fromkeys(row.shape.name for row in group.rows)):
        rows = [row for row in group.rows if row.shape.name == name]
        cases = Cases.of([rows[0].shape], [rows[0].gpu], batch=FINE, context=CONTEXT)
        line = fitted.output_tokens(cases)
        color = SERIES[index % len(SERIES)]
        band = (line.low.tolist(), line.high.tolist())
        series.append(Series("", FINE.tolist(), line.energy_j.tolist(), color, "solid", band))
        label = f"{name} x{rows[0].tensor_parallel:g}"
        series.append(Series(label, [row.batch for row in rows], [row.output_j for row in rows], color))
    title = "Energy roofline (lines, modelled, 95 %) and published H100 rows (points)"
    return draw_log_log(title, "mean running batch", "J per output token, GPUs", series, x_ticks=BATCHES)


def plot_ratios(group: Group) -> str:
    """Plot the median over the models of estimate / measured, by batch."""
    batches = np.array([row.batch for row in group.rows])
    measured = np.array([row.output_j for row in group.rows])
    series = []
    for index, (name, label) in enumerate(RATIO_LABELS.items()):
        ratios = group.estimates[name] / measured
        batches_scored = [batch for batch in BATCHES if np.any(~np.isnan(ratios[batches == batch]))]
        medians = [float(np.nanmedian(ratios[batches == batch])) for batch in batches_scored]
        line = ("solid", "dash", "dot")[index % 3] if name != "energy-roofline" else "solid"
        color = LIGHT["ink"] if name == "energy-roofline" else SERIES[index]
        series.append(Series(label, batches_scored, medians, color, line))
    title = "Estimate over measured, median of the models, published H100 rows"
    return draw_log_log(title, "mean running batch", "estimate / measured", series, x_ticks=BATCHES, level=1.0)


WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 72, 210, 34, 52
_DASHES = {"solid": "", "dash": "7 4", "dot": "2 3"}
_STEPS = (1, 2, 5)


@dataclass(frozen=True)
class Series:
    """Points, or a line through them.

    Attributes:
        name: name in the legend; empty for none.
        x: above zero.
        y: above zero.
        color: a color of the theme.
        style: `solid`, `dash` or `dot`; None for points.
        band: lower and upper ends of a filled band, each as long as `x`.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str
    style: str | None = None
    band: tuple[Sequence[float], Sequence[float]] | None = None


@dataclass(frozen=True)
class _Axis:
    """A logarithmic axis from `low` at pixel `start` to `high` at pixel `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        ticks = [step * 10.0**power for power in powers for step in _STEPS]
        return [value for value in ticks if self.low * 0.999 <= value <= self.high * 1.001]


def draw_log_log(
    title: str,
    x_title: str,
    y_title: str,
    series: Sequence[Series],
    *,
    x_ticks: Sequence[float] | None = None,
    level: float | None = None,
) -> str:
    """Draw points and lines on two logarithmic axes, as SVG.

    Equal numbers give equal text, so a picture in the repository changes only with its numbers.

    Args:
        title: title above the plot.
        x_title: title of the x axis, with its unit.
        y_title: title of the y axis, with its unit.
        series: at least one, with at least one point.
        x_ticks: ticks of the x axis; by default at 1, 2 and 5.
        level: a horizontal line, such as 1 for ratios.
    """
    ends = [value for line in series for value in (*line.y, *(line.band[0] if line.band else ()))]
    ends += [value for line in series if line.band for value in line.band[1]]
    xs = [value for line in series for value in line.x]
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
    for line in series:
        parts += _drawn(line, x, y)
    parts += _legend([line for line in series if line.name])
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


def _drawn(line: Series, x: _Axis, y: _Axis) -> list[str]:
    points = [(x.at(a), y.at(b)) for a, b in zip(line.x, line.y, strict=True)]
    parts = []
    if line.band:
        lower = [(x.at(a), y.at(b)) for a, b in zip(line.x, line.band[0], strict=True)]
        upper = [(x.at(a), y.at(b)) for a, b in zip(line.x, line.band[1], strict=True)]
        parts.append(f'<path d="{_path([*lower, *reversed(upper)])}Z" fill="{line.color}" fill-opacity="0.15"/>')
    if line.style is None:
        return [*parts, *(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.6" fill="{line.color}"/>' for a, b in points)]
    dash = f' stroke-dasharray="{_DASHES[line.style]}"' if _DASHES[line.style] else ""
    parts.append(f'<path d="{_path(points)}" fill="none" stroke="{line.color}" stroke-width="1.8"{dash}/>')
    return parts


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in points)


def _legend(series: Sequence[Series]) -> list[str]:
    parts = []
    left = WIDTH - RIGHT + 18
    for index, line in enumerate(series):
        top = TOP + 10 + 20 * index
        if line.style is None:
            parts.append(f'<circle cx="{left + 10}" cy="{top}" r="3.6" fill="{line.color}"/>')
        else:
            dash = f' stroke-dasharray="{_DASHES[line.style]}"' if _DASHES[line.style] else ""
            parts.append(f'<path d="M{left} {top}h20" stroke="{line.color}" stroke-width="1.8"{dash}/>')
        parts.append(_text(left + 27, top + 4, line.name, "start"))
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
