"""The report's plot of energy against load, and the pieces that all plots share."""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

from inference_energy.contracts.documents.experiment import SummaryWindow
from inference_energy.contracts.figure import Figure
from inference_energy.present import page
from inference_energy.present.figures_text import UNTRUSTED_GRADES, Scale, format_figure, significant
from inference_energy.present.report_inputs import Windows

Floats = npt.NDArray[np.float64]

RATE = "output_tokens_per_s"


def plot_energy_vs_load(windows: Windows) -> go.Figure | None:
    """Plot energy per output token against throughput, by server and basis; None with fewer than two loads.

    Points are joined only if they share one arrival process and one workload.
    """
    plot = go.Figure(layout=page.layout("output tokens / s", "J / output token"))
    servers = list(dict.fromkeys((window.server, window.machine) for window in windows))
    for number, server in enumerate(servers):
        for index, basis in enumerate(("active", "total", "marginal")):
            name = f"energy_{basis}_per_output_token_j"
            points = sorted(
                (rate, energy_j, place)
                for place, window in enumerate(windows)
                if (window.server, window.machine) == server
                and (rate := _value(window, RATE)) is not None
                and (energy_j := _value(window, name)) is not None
            )
            if len(points) < 2:
                continue
            plotted = [windows[place] for *_, place in points]
            figures = [window.figures[name] for window in plotted]
            grades = sorted({figure.grade for figure in figures} & set(UNTRUSTED_GRADES))
            label = basis + (f", {' on '.join(server)}" if len(servers) > 1 else "")
            color = page.SERIES[(number if len(servers) > 1 else index) % len(page.SERIES)]
            plot.add_scatter(
                x=[rate for rate, *_ in points],
                y=[energy_j for _, energy_j, _ in points],
                error_y=error_bars(figures, color),
                text=[escape(_tooltip(window, name)) for window in plotted],
                name=escape(label) + "".join(f" ({grade})" for grade in grades),
                mode="lines+markers" if len({_kind_of_load(window) for window in plotted}) == 1 else "markers",
                line={"color": color, "dash": page.DASHES[index], "width": 2},
                marker={"size": 9, "symbol": page.SYMBOLS[index]},
                hovertemplate="%{text}",
            )
    plot.update_xaxes(rangemode="tozero")
    return plot if plot.data else None


def _tooltip(window: SummaryWindow, name: str) -> str:
    """Return the tooltip of a point: load, energy per output token with its interval, and throughput."""
    shown = format_figure(window.figures[name], Scale(1.0, "J / token"), per="output token")
    level = " (95 %)" if shown.interval else ""
    return f"{window.load.text}: {shown.text}{level} at {significant(_value(window, RATE) or 0.0, 4)} tokens/s"


def _kind_of_load(window: SummaryWindow) -> tuple[str, str]:
    """Return the arrival process and workload of a window."""
    return str(window.load.arrival.get("process")), window.load.workload


def _value(window: SummaryWindow, name: str) -> float | None:
    figure = window.figures.get(name)
    return figure.value if figure else None


def error_bars(figures: Sequence[Figure], color: str, factor: float = 1.0) -> dict[str, Any] | None:
    """Return bars from each value to the bounds of its interval, times a factor; None if no value has an interval."""
    bounds = []
    for figure in figures:
        value = figure.value or 0.0
        low, high = figure.interval_95 or (value, value)
        bounds.append((factor * value, factor * low, factor * high))
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
