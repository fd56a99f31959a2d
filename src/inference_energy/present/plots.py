"""The report's figures beside the power trace: load against energy, latency, receipts and the fit."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from inference_energy.present import page
from inference_energy.present.figures_text import UNTRUSTED_GRADES, Scale, format_figure, significant
from inference_energy.present.report_inputs import cell_load_text

Floats = npt.NDArray[np.float64]

ECDF_POINTS = 500
"""Longer distributions are drawn at this many evenly spaced ranks; the smallest and the largest are kept."""


def plot_energy_vs_load(cells: Sequence[dict[str, Any]]) -> go.Figure | None:
    """Energy per output token against throughput, by server and basis, with intervals; None with fewer than two loads.

    Points are joined only where their loads differ in nothing but size: one arrival process and one workload.
    """
    figure = go.Figure(layout=page.layout("output tokens / s", "J / output token"))
    owners = list(dict.fromkeys((str(cell.get("server")), str(cell.get("machine"))) for cell in cells))
    for number, owner in enumerate(owners):
        own = [cell for cell in cells if (str(cell.get("server")), str(cell.get("machine"))) == owner]
        for index, basis in enumerate(("active", "total", "marginal")):
            name = _ENERGY.format(basis)
            values = [(_value(cell, _RATE), _value(cell, name), cell) for cell in own]
            points = sorted(((x, y, cell) for x, y, cell in values if x is not None and y is not None), key=_first)
            if len(points) < 2:
                continue
            grades = sorted({cell["figures"][name]["grade"] for *_, cell in points} & set(UNTRUSTED_GRADES))
            label = basis + (f", {' on '.join(owner)}" if len(owners) > 1 else "")
            colour = page.SERIES[(number if len(owners) > 1 else index) % len(page.SERIES)]
            figure.add_scatter(
                x=[x for x, _, _ in points],
                y=[y for _, y, _ in points],
                error_y=error_bars([cell["figures"][name] for *_, cell in points], colour),
                text=[_html(_told(cell, name)) for *_, cell in points],
                name=_html(label) + "".join(f" ({grade})" for grade in grades),
                mode="lines+markers" if len({_sort(cell) for *_, cell in points}) == 1 else "markers",
                line={"color": colour, "dash": page.DASHES[index], "width": 2},
                marker={"size": 9, "symbol": page.SYMBOLS[index]},
                hovertemplate="%{text}",
            )
    figure.update_xaxes(rangemode="tozero")
    return figure if figure.data else None


def latency_figure(
    series: Sequence[tuple[str, dict[str, Floats]]], limits: Mapping[str, float] | None = None
) -> go.Figure | None:
    """Distributions of latency with a button for each measure.

    Args:
        series: for each cell its label and, by the measure's name, the latencies in s.
        limits: `ttft_s`, `tpot_s` and `e2e_s` where there are any; drawn as lines.
    """
    measures = [name for name in LATENCIES if any(values.get(name, _NONE).size for _, values in series)]
    if not measures:
        return None
    figure = go.Figure(layout=page.layout("seconds", "share of requests", height=400))
    shown: list[str] = []
    for measure in measures:
        for index, (label, values) in enumerate(series):
            if values.get(measure, _NONE).size:
                add_ecdf(figure, label, values[measure], index, visible=measure == measures[0], unit=" s")
                shown.append(measure)
        limit_s = (limits or {}).get(f"{measure.partition('_')[0]}_s")
        if limit_s is not None:
            _add_limit(figure, limit_s, visible=measure == measures[0])
            shown.append(measure)
    buttons = [
        {"label": LATENCIES[measure], "method": "restyle", "args": [{"visible": [name == measure for name in shown]}]}
        for measure in measures
    ]
    share_axis(figure)
    figure.update_xaxes(rangemode="tozero")
    if len(buttons) > 1:
        figure.update_layout(
            updatemenus=[buttons_menu(buttons)], margin={"t": 44}, legend={"y": -0.2, "yanchor": "top"}
        )
    return figure


def fit_figure(fits: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> go.Figure | None:
    """Predicted over measured energy of each cell.

    Args:
        fits: for each fit its name and, for each cell, the cell's label and the ratio.
    """
    if not any(cells for _, cells in fits):
        return None
    height = 150 + 26 * len({label for _, cells in fits for label, _ in cells})
    figure = go.Figure(layout=page.layout("predicted / measured energy", "", height=height, hovermode="y unified"))
    for index, (name, cells) in enumerate(fits):
        # Names come in pairs, the fit and the fit with the cell held out: one colour, filled and open.
        colour, _ = page.series(index // 2)
        symbol = page.SYMBOLS[index // 2 % len(page.SYMBOLS)] + ("-open" if index % 2 else "")
        figure.add_scatter(
            x=[ratio for _, ratio in cells],
            y=[_html(label) for label, _ in cells],
            name=_html(name),
            mode="markers",
            marker={"size": 10, "symbol": symbol, "color": colour, "line": {"width": 2, "color": colour}},
            hovertemplate="%{x:.3f}",
        )
    figure.add_vline(x=1, line={"color": page.LIGHT["soft"], "width": 1, "dash": "dash"})
    figure.update_yaxes(autorange="reversed", rangemode="normal", showgrid=True)
    figure.update_xaxes(rangemode="tozero")
    return figure


LATENCIES = {
    "ttft": "TTFT from send",
    "ttft_from_schedule": "TTFT from schedule",
    "tpot": "TPOT",
    "e2e": "end to end from send",
}


def latencies(
    requests: pd.DataFrame, start_ns: int | None = None, end_ns: int | None = None, *, scheduled: bool = True
) -> dict[str, Floats]:
    """Latencies in s of the requests that ended well and whose last token lies in [start, end), as the summary's are.

    TTFT = first token - sent (or - scheduled); TPOT = (last - first token) / (tokens - 1);
    end to end = last token - sent. Without a schedule, as in a closed loop, `scheduled` is false.
    """
    good = requests[(requests["status"] == "ok") & requests["last_token_ns"].notna()]
    if start_ns is not None and end_ns is not None:
        good = good[(good["last_token_ns"] >= start_ns) & (good["last_token_ns"] < end_ns)]
    first, last = good["first_token_ns"], good["last_token_ns"]
    tokens = good["completion_tokens"]
    found = {
        "ttft": first - good["sent_ns"],
        **({"ttft_from_schedule": first - good["scheduled_ns"]} if scheduled else {}),
        "tpot": (last - first) / (tokens - 1).where(tokens > 1),
        "e2e": last - good["sent_ns"],
    }
    return {
        name: values.astype("Float64").dropna().to_numpy(dtype=np.float64) / np.float64(1e9)
        for name, values in found.items()
    }


_RATE = "output_tokens_per_s"
_ENERGY = "energy_{}_per_output_token_j"
_NONE: Floats = np.empty(0)


def _told(cell: dict[str, Any], name: str) -> str:
    """The load, its energy per output token with the interval, and its throughput."""
    shown = format_figure(cell["figures"][name], Scale(1.0, "J / token"), per="output token")
    level = " (95 %)" if shown.interval else ""
    return f"{cell_load_text(cell)}: {shown.text}{level} at {significant(cell['figures'][_RATE]['value'], 4)} tokens/s"


def error_bars(figures: Sequence[dict[str, Any]], colour: str, factor: float = 1.0) -> dict[str, Any] | None:
    """From the point to both bounds of its interval, times a factor; a point without one has no bar."""
    found = [(f["value"], *(f.get("interval_95") or (f["value"], f["value"]))) for f in figures]
    bounds = [tuple(factor * each for each in row) for row in found]
    if all(low == high for _, low, high in bounds):
        return None
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - value for value, _, high in bounds],
        "arrayminus": [value - low for value, low, _ in bounds],
        "color": colour,
        "thickness": 1.4,
        "width": 5,
    }


def _sort(cell: dict[str, Any]) -> tuple[str, str]:
    """Arrival process and workload of a cell."""
    load = cell.get("load") or {}
    return str((load.get("arrival") or {}).get("process")), str(load.get("workload"))


def _first(point: tuple[float, float, dict[str, Any]]) -> tuple[float, float]:
    return point[:2]


def _value(cell: dict[str, Any], name: str) -> float | None:
    figure = cell["figures"].get(name)
    return figure["value"] if figure and figure["valid"] else None


def add_ecdf(figure: go.Figure, label: str, values: Floats, index: int, *, visible: bool, unit: str) -> None:
    """Add the share of `values` that are at most x, against x."""
    ordered = np.sort(values)
    ranks = np.unique(np.linspace(0, ordered.size - 1, min(ordered.size, ECDF_POINTS)).round().astype(int))
    colour, dash = page.series(index)
    figure.add_scatter(
        x=ordered[ranks],
        y=(ranks + 1) / ordered.size,
        name=_html(label),
        mode="lines",
        line={"color": colour, "dash": dash, "width": 2, "shape": "hv"},
        hovertemplate="%{y:.0%} up to %{x:.3g}" + unit,
        visible=visible,
    )


def _add_limit(figure: go.Figure, limit_s: float, *, visible: bool) -> None:
    figure.add_scatter(
        x=[limit_s, limit_s],
        y=[0, 1],
        name=f"limit, {limit_s:g} s",
        mode="lines",
        line={"color": page.LIGHT["bad"], "width": 1.4, "dash": "dash"},
        hovertemplate="%{x:.3g} s",
        visible=visible,
    )


def share_axis(figure: go.Figure) -> None:
    """Make the y axis one of shares, and show the legend for one line too."""
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    figure.update_layout(showlegend=True)


def buttons_menu(buttons: list[dict[str, Any]]) -> dict[str, Any]:
    """Buttons in a row above a figure, which choose what it shows."""
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


def _html(text: str) -> str:
    """Plotly reads a little markup in names, so what comes from outside loses its angle brackets."""
    return escape(text)
