"""The power trace of a session: power of every channel and their sum, with the phases shaded.

A trace keeps its peaks when it is thinned: each of up to 1,000 equal stretches of time is drawn as its smallest and
largest reading, in the order in which they came.
"""

from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from inference_energy.contracts.power import summed_domains
from inference_energy.present import page
from inference_energy.present.figures_text import Scale, format_figure
from inference_energy.present.page import figure_json, write_page
from inference_energy.present.report_inputs import SessionData, SessionFiles, device_label, read_session_page

Floats = npt.NDArray[np.float64]

STRETCHES = 1000
"""Two points each, so that no line has more than 2,000."""

PHASE_NAMES = {
    "launch": "launch",
    "loaded_idle": "loaded idle",
    "warmup": "warm-up",
    "window": "window",
    "drain": "drain",
    "stop": "stop",
    "post_idle": "post idle",
}
_FILLS = {"window": "phase_busy", "warmup": "phase_warm", "loaded_idle": "phase_idle", "post_idle": "phase_idle"}


@dataclass(frozen=True)
class TraceLine:
    """Power of one channel over time; `summed` when it is part of the sum."""

    name: str
    grade: str
    summed: bool
    time_s: Floats
    power_w: Floats


def trace_lines(table: pd.DataFrame, origin_ns: int, grades: dict[str, str]) -> list[TraceLine]:
    """The channels of a power log, in W against seconds since `origin_ns`.

    The reading is the average where the sensor has one, else the instant, else the slope of the energy counter.
    """
    found = []
    summed = summed_domains(table["domain"].dropna().unique())
    for (source, device, domain), rows in table.groupby(["source", "device", "domain"], sort=True):
        time_s, power_w = _readings(rows.sort_values("timestamp_ns"), origin_ns)
        if time_s.size:
            grade = grades.get(str(source), "")
            weak = f" ({grade})" if grade in ("modelled", "simulated") else ""
            label = device_label(str(domain), _short(str(device))) + weak
            found.append(TraceLine(label, grade, domain in summed, time_s, power_w))
    return found


def total(parts: list[TraceLine]) -> TraceLine | None:
    """The sum of the summed channels, on the times at which all of them had begun and none had ended."""
    inside = [part for part in parts if part.summed]
    if len(inside) < 2:
        return None
    begin, end = max(p.time_s[0] for p in inside), min(p.time_s[-1] for p in inside)
    densest = max(inside, key=lambda part: part.time_s.size).time_s
    grid = densest[(densest >= begin) & (densest <= end)]
    power_w = np.sum([np.interp(grid, part.time_s, part.power_w) for part in inside], axis=0)
    grade = next((part.grade for part in inside if part.grade in ("modelled", "simulated")), "")
    share = "" if all(part.grade == grade for part in inside) else "partly "
    return TraceLine("sum" + (f" ({share}{grade})" if grade else ""), grade, True, grid, power_w)


def thin(time_s: Floats, power_w: Floats, stretches: int = STRETCHES) -> tuple[Floats, Floats]:
    """The smallest and largest reading of each stretch of time, in order; short series stay as they are."""
    if time_s.size <= 2 * stretches:
        return time_s, power_w
    edges = np.linspace(time_s[0], time_s[-1], stretches + 1)[1:-1]
    bounds = np.concatenate([[0], np.searchsorted(time_s, edges), [time_s.size]])
    keep = {0, time_s.size - 1}
    for first, last in pairwise(bounds.tolist()):
        if last > first:
            piece = power_w[first:last]
            keep |= {int(first + piece.argmin()), int(first + piece.argmax())}
    index = np.array(sorted(keep))
    return time_s[index], power_w[index]


def trace_figure(data: SessionData, cold_idle: dict[str, Any] | None = None) -> go.Figure | None:
    """The figure, or None when the session has no power log or no reading in it.

    Args:
        data: the session's files.
        cold_idle: the figure of the cold idle power, in W; drawn where it is valid.
    """
    if data.power is None or data.power.empty:
        return None
    origin_ns = int(data.power["timestamp_ns"].min())
    if data.phases is not None and not data.phases.empty:
        origin_ns = int(data.phases["start_ns"].min())
    parts = trace_lines(data.power, origin_ns, source_grades(data))
    if not parts:
        return None
    figure = go.Figure(layout=page.layout("time since the session began (s)", "power (W)", height=420))
    figure.update_layout(hovermode="x unified", showlegend=True, margin={"t": 34})
    whole = total(parts)
    for index, part in enumerate([*parts, *([whole] if whole else [])]):
        colour, dash = (page.LIGHT["ink"], "solid") if part is whole else page.series(index)
        line = {"color": colour, "width": 1.8 if part is whole or whole is None else 1.1, "dash": dash}
        time_s, power_w = thin(part.time_s, part.power_w)
        name = escape(part.name) if part.summed else f"{escape(part.name)}, not in the sum"
        figure.add_scatter(
            x=np.round(time_s, 3),
            y=np.round(power_w, 2),
            name=name,
            mode="lines",
            line=line,
            hovertemplate="%{y:.1f} W",
            visible=True if part.summed else "legendonly",
        )
    cold = format_figure(cold_idle, Scale(1.0, "W"))
    if cold_idle is not None and cold.given:
        end = max(float(part.time_s[-1]) for part in parts)
        figure.add_scatter(
            x=[0, end],
            y=[cold_idle["value"]] * 2,
            name=f"cold idle, {cold.text}" + (f" ({cold.grade})" if cold.modelled else ""),
            mode="lines",
            line={"color": page.LIGHT["soft"], "width": 1.2, "dash": "dash"},
            hoverinfo="skip",
        )
    if data.phases is not None:
        _shade(figure, data.phases, origin_ns)
    return figure


def source_grades(data: SessionData) -> dict[str, str]:
    """Source name to grade, from the power log's metadata."""
    sources = data.power_metadata.get("source") or []
    return {str(s["name"]): str(s.get("grade", "")) for s in sources if isinstance(s, dict) and "name" in s}


def beside_readings(cold_idle: dict[str, Any] | None, calibration: dict[str, Any] | None) -> dict[str, Any] | None:
    """The cold idle power where it may be drawn beside readings: a calibrated one is on another scale than they are."""
    return None if (calibration or {}).get("applied") else cold_idle


def write_trace_page(output: Path, files: SessionFiles, *, cold_idle: dict[str, Any] | None = None) -> None:
    """Write a page of its own with one session's power trace, for `snakemake --report`.

    Raises:
        InputError: a file is missing or is not what its name says.
    """
    data = read_session_page(files)
    figure = trace_figure(data, cold_idle)
    modelled = sorted({grade for grade in source_grades(data).values() if grade in ("modelled", "simulated")})
    write_page(
        output,
        "trace.html.j2",
        title=f"Power trace: {files.label}",
        figures={"trace": figure_json(figure)} if figure else {},
        untrusted=modelled,
    )


def _readings(rows: pd.DataFrame, origin_ns: int) -> tuple[Floats, Floats]:
    for column in ("power_average_w", "power_instant_w"):
        chosen = rows[rows[column].notna()]
        if not chosen.empty:
            return _seconds(chosen, origin_ns), chosen[column].to_numpy(dtype=float)
    counted = rows[rows["energy_counter_j"].notna()]
    time_s, energy_j = _seconds(counted, origin_ns), counted["energy_counter_j"].to_numpy(dtype=float)
    step_s, step_j = np.diff(time_s), np.diff(energy_j)
    usable = (step_s > 0) & (step_j >= 0)
    return time_s[1:][usable], step_j[usable] / step_s[usable]


def _seconds(rows: pd.DataFrame, origin_ns: int) -> Floats:
    seconds: Floats = (rows["timestamp_ns"].to_numpy(dtype=np.int64) - origin_ns) / 1e9
    return seconds


def _short(device: str) -> str:
    return device[:12] if device.upper().startswith("GPU-") else device


def _shade(figure: go.Figure, phases: pd.DataFrame, origin_ns: int) -> None:
    labels: list[dict[str, Any]] = []
    span_s = max((int(phases["end_ns"].max()) - origin_ns) / 1e9, 1e-9)
    for phase, cell, start_ns, end_ns in zip(
        phases["phase"].astype(str), phases["cell"], phases["start_ns"], phases["end_ns"], strict=True
    ):
        start_s, end_s = (int(start_ns) - origin_ns) / 1e9, (int(end_ns) - origin_ns) / 1e9
        if phase in _FILLS:
            fill = page.LIGHT[_FILLS[phase]]
            figure.add_shape(
                type="rect", xref="x", yref="paper", x0=start_s, x1=end_s, y0=0, y1=1, fillcolor=fill, line_width=0
            )
            figure.layout.shapes[-1].layer = "below"
        text = str(cell) if phase == "window" else PHASE_NAMES.get(phase, phase)
        # The name is the label's share of the axis: the page's script drops labels that have no room.
        share = f"{(end_s - start_s) / span_s:.4f}"
        labels.append({"x": (start_s + end_s) / 2, "text": escape(text.rsplit(".", 1)[-1]), "name": share})
    for label in labels:
        figure.add_annotation(
            **label,
            xref="x",
            yref="paper",
            y=1,
            yanchor="bottom",
            showarrow=False,
            font={"size": 11, "color": page.LIGHT["soft"]},
        )
    figure.update_layout(legend={"y": -0.2, "yanchor": "top"}, margin={"b": 90})
