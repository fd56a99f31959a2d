"""The report's plot of energy against load, and the pieces that all plots share."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from inference_energy.present import page
from inference_energy.present.figures_text import UNTRUSTED_GRADES, Scale, format_figure, significant
from inference_energy.present.report_inputs import cell_load_text

Floats = npt.NDArray[np.float64]


def plot_energy_vs_load(cells: Sequence[dict[str, Any]]) -> go.Figure | None:
    """Plot energy per output token against throughput, by server and basis; None with fewer than two loads.

    Points are joined only if they share one arrival process and one workload.
    """
    plot = go.Figure(layout=page.layout("output tokens / s", "J / output token"))
    owners = list(dict.fromkeys((str(cell.get("server")), str(cell.get("machine"))) for cell in cells))
    for number, owner in enumerate(owners):
        server_cells = [cell for cell in cells if (str(cell.get("server")), str(cell.get("machine"))) == owner]
        for index, basis in enumerate(("active", "total", "marginal")):
            name = _ENERGY.format(basis)
            values = [(_value(cell, _RATE), _value(cell, name), cell) for cell in server_cells]
            points = sorted(((x, y, cell) for x, y, cell in values if x is not None and y is not None), key=_first)
            if len(points) < 2:
                continue
            grades = sorted({cell["figures"][name]["grade"] for *_, cell in points} & set(UNTRUSTED_GRADES))
            label = basis + (f", {' on '.join(owner)}" if len(owners) > 1 else "")
            color = page.SERIES[(number if len(owners) > 1 else index) % len(page.SERIES)]
            plot.add_scatter(
                x=[x for x, _, _ in points],
                y=[y for _, y, _ in points],
                error_y=error_bars([cell["figures"][name] for *_, cell in points], color),
                text=[escape(_tooltip(cell, name)) for *_, cell in points],
                name=escape(label) + "".join(f" ({grade})" for grade in grades),
                mode="lines+markers" if len({_kind_of_load(cell) for *_, cell in points}) == 1 else "markers",
                line={"color": color, "dash": page.DASHES[index], "width": 2},
                marker={"size": 9, "symbol": page.SYMBOLS[index]},
                hovertemplate="%{text}",
            )
    plot.update_xaxes(rangemode="tozero")
    return plot if plot.data else None


_RATE = "output_tokens_per_s"
_ENERGY = "energy_{}_per_output_token_j"


def _tooltip(cell: dict[str, Any], name: str) -> str:
    """Return the tooltip of a point: load, energy per output token with its interval, and throughput."""
    shown = format_figure(cell["figures"][name], Scale(1.0, "J / token"), per="output token")
    level = " (95 %)" if shown.interval else ""
    return f"{cell_load_text(cell)}: {shown.text}{level} at {significant(cell['figures'][_RATE]['value'], 4)} tokens/s"


def error_bars(figures: Sequence[dict[str, Any]], color: str, factor: float = 1.0) -> dict[str, Any] | None:
    """Return bars from each value to the bounds of its interval, times a factor; None if no value has an interval."""
    values_and_bounds = [(f["value"], *(f.get("interval_95") or (f["value"], f["value"]))) for f in figures]
    bounds = [tuple(factor * bound for bound in row) for row in values_and_bounds]
    if all(low == high for _, low, high in bounds):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, _, high in bounds],
        "arrayminus": [value - low for value, low, _ in bounds],
        "color": color,
        "thickness": 1.4,
        "width": 5,
    }


def _kind_of_load(cell: dict[str, Any]) -> tuple[str, str]:
    """Return the arrival process and workload of a window."""
    load = cell.get("load") or {}
    return str((load.get("arrival") or {}).get("process")), str(load.get("workload"))


def _first(point: tuple[float, float, dict[str, Any]]) -> tuple[float, float]:
    return point[:2]


def _value(cell: dict[str, Any], name: str) -> float | None:
    figure = cell["figures"].get(name)
    return figure["value"] if figure and figure["valid"] else None


def buttons_menu(buttons: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a row of buttons above a plot that choose what it shows."""
    return {
        "type": "buttons",
        "direction": "right",
        "buttons": buttons,
        "x": 0,
        "xanchor": "left",
        "y": 1.03,
        "yanchor": "bottom",
        "pad": {"b": 4},
        "bgcolor": page.LIGHT["panel"],
        "bordercolor": page.LIGHT["line"],
        "font": {"color": page.LIGHT["ink"], "size": 12},
    }


def shade_span(plot: go.Figure, start_s: float, end_s: float, fill: str) -> None:
    """Shade a span of the x axis over the whole height, below the lines; `fill` is a color of `page.LIGHT`."""
    plot.add_shape(
        type="rect",
        xref="x",
        yref="paper",
        x0=start_s,
        x1=end_s,
        y0=0,
        y1=1,
        layer="below",
        line_width=0,
        fillcolor=page.LIGHT[fill],
    )
