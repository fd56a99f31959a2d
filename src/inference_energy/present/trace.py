"""The power trace of a session: power of every channel and their sum, with the phases shaded.

Thinning keeps the peaks of a trace: each of up to 1,000 equal spans of time is drawn as its smallest and largest
reading, in the order in which they were read.
"""

from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from inference_energy.contracts.documents.energy import CalibrationRecord
from inference_energy.contracts.figure import Figure
from inference_energy.contracts.plausible_power import domain_limit_w
from inference_energy.contracts.power import summed_domains
from inference_energy.present import page
from inference_energy.present.figures_text import UNTRUSTED_GRADES, Scale, format_figure
from inference_energy.present.page import plot_json, write_page
from inference_energy.present.plots import Floats, shade_span
from inference_energy.present.report_inputs import (
    SessionData,
    SessionFiles,
    device_label,
    read_session_files,
    short_device,
)

SPANS = 1000
"""Each span has two points, so a line has at most 2,000."""

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
    """Power of one channel over time; `summed` if it is part of the sum."""

    name: str
    grade: str
    summed: bool
    time_s: Floats
    power_w: Floats


def trace_lines(table: pd.DataFrame, origin_ns: int, grades: dict[str, str]) -> list[TraceLine]:
    """Return the channels of a power log, in W against seconds since `origin_ns`.

    A channel shows the sensor's average power if it has one, else its instant power, else the slope of its counter.
    """
    lines = []
    summed = summed_domains(table["domain"].dropna().unique())
    for (source, device, domain), rows in table.groupby(["source", "device", "domain"], sort=True):
        time_s, power_w = _readings(rows.sort_values("timestamp_ns"), origin_ns)
        if time_s.size:
            grade = grades.get(str(source), "")
            weak = f" ({grade})" if grade in UNTRUSTED_GRADES else ""
            label = device_label(str(domain), short_device(str(device))) + weak
            lines.append(TraceLine(label, grade, domain in summed, time_s, power_w))
    return lines


def total(parts: list[TraceLine]) -> TraceLine | None:
    """Return the sum of the summed channels over the time that all of them cover; None for fewer than two."""
    inside = [part for part in parts if part.summed]
    if len(inside) < 2:
        return None
    begin, end = max(p.time_s[0] for p in inside), min(p.time_s[-1] for p in inside)
    densest = max(inside, key=lambda part: part.time_s.size).time_s
    grid = densest[(densest >= begin) & (densest <= end)]
    power_w = np.sum([np.interp(grid, part.time_s, part.power_w) for part in inside], axis=0)
    grade = next((part.grade for part in inside if part.grade in UNTRUSTED_GRADES), "")
    share = "" if all(part.grade == grade for part in inside) else "partly "
    return TraceLine("sum" + (f" ({share}{grade})" if grade else ""), grade, True, grid, power_w)


def thin(time_s: Floats, power_w: Floats, spans: int = SPANS) -> tuple[Floats, Floats]:
    """Keep the smallest and largest reading of each span of time, in order; short series are returned unchanged."""
    if time_s.size <= 2 * spans:
        return time_s, power_w
    edges = np.linspace(time_s[0], time_s[-1], spans + 1)[1:-1]
    bounds = np.concatenate([[0], np.searchsorted(time_s, edges), [time_s.size]])
    keep = {0, time_s.size - 1}
    for first, last in pairwise(bounds.tolist()):
        if last > first:
            piece = power_w[first:last]
            keep |= {int(first + piece.argmin()), int(first + piece.argmax())}
    index = np.array(sorted(keep))
    return time_s[index], power_w[index]


def plot_power_trace(data: SessionData, cold_idle: Figure | None = None) -> go.Figure | None:
    """Plot the power of every channel and their sum; None without a power log or without readings.

    Args:
        data: the session's files.
        cold_idle: the cold idle power [W]; drawn if it is valid.
    """
    if data.power is None or data.power.empty:
        return None
    origin_ns = int(data.power["timestamp_ns"].min())
    if data.phases is not None and not data.phases.empty:
        origin_ns = int(data.phases["start_ns"].min())
    parts = trace_lines(data.power, origin_ns, source_grades(data))
    if not parts:
        return None
    plot = go.Figure(layout=page.layout("time since the session began (s)", "power (W)", height=420))
    plot.update_layout(hovermode="x unified", showlegend=True, margin={"t": 34})
    whole = total(parts)
    for index, part in enumerate([*parts, *([whole] if whole else [])]):
        color, dash = (page.LIGHT["ink"], "solid") if part is whole else page.series(index)
        line = {"color": color, "width": 1.8 if part is whole or whole is None else 1.1, "dash": dash}
        time_s, power_w = thin(part.time_s, part.power_w)
        name = escape(part.name) if part.summed else f"{escape(part.name)}, not in the sum"
        plot.add_scatter(
            x=np.round(time_s, 3),
            y=np.round(power_w, 2),
            name=name,
            mode="lines",
            line=line,
            hovertemplate="%{y:.1f} W",
            visible=True if part.summed else "legendonly",
        )
    cold = format_figure(cold_idle, Scale(1.0, "W"))
    if cold_idle is not None and cold.has_value:
        end = max(float(part.time_s[-1]) for part in parts)
        plot.add_scatter(
            x=[0, end],
            y=[cold_idle.value] * 2,
            name=f"cold idle, {cold.text}" + (f" ({cold.grade})" if cold.untrusted else ""),
            mode="lines",
            line={"color": page.LIGHT["soft"], "width": 1.2, "dash": "dash"},
            hoverinfo="skip",
        )
    if data.phases is not None:
        _shade_phases(plot, data.phases, origin_ns)
    return plot


def source_grades(data: SessionData) -> dict[str, str]:
    """Return the grade of each source, from the power log's metadata."""
    sources = data.power_metadata.get("source") or []
    return {str(s["name"]): str(s.get("grade", "")) for s in sources if isinstance(s, dict) and "name" in s}


def uncalibrated_idle(cold_idle: Figure, calibration: CalibrationRecord | None) -> Figure | None:
    """Return the cold idle power unless it is calibrated: readings are not, so its scale differs from theirs."""
    return None if calibration and calibration.applied else cold_idle


def write_trace_page(output: Path, files: SessionFiles, *, cold_idle: Figure | None = None) -> None:
    """Write a page with one session's power trace, for `snakemake --report`.

    Raises:
        InputError: a file is missing or is not what its name says.
    """
    data = read_session_files(files)
    plot = plot_power_trace(data, cold_idle)
    untrusted = sorted({grade for grade in source_grades(data).values() if grade in UNTRUSTED_GRADES})
    write_page(
        output,
        "trace.html.j2",
        title=f"Power trace: {files.label}",
        plots={"trace": plot_json(plot)} if plot else {},
        untrusted=untrusted,
    )


def _readings(rows: pd.DataFrame, origin_ns: int) -> tuple[Floats, Floats]:
    # A single reading of megawatts would flatten all others.
    highest_w = domain_limit_w(str(rows["domain"].iloc[0]))
    for column in ("power_average_w", "power_instant_w"):
        chosen = rows[rows[column].between(0, highest_w).fillna(False)]
        if not chosen.empty:
            return _seconds(chosen, origin_ns), chosen[column].to_numpy(dtype=float)
    counted = rows[rows["energy_counter_j"].notna()]
    time_s, energy_j = _seconds(counted, origin_ns), counted["energy_counter_j"].to_numpy(dtype=float)
    step_s, step_j = np.diff(time_s), np.diff(energy_j)
    usable = (step_s > 0) & (step_j >= 0) & (step_j <= highest_w * step_s)
    return time_s[1:][usable], step_j[usable] / step_s[usable]


def _seconds(rows: pd.DataFrame, origin_ns: int) -> Floats:
    seconds: Floats = (rows["timestamp_ns"].to_numpy(dtype=np.int64) - origin_ns) / 1e9
    return seconds


def _shade_phases(plot: go.Figure, phases: pd.DataFrame, origin_ns: int) -> None:
    labels: list[dict[str, Any]] = []
    span_s = max((int(phases["end_ns"].max()) - origin_ns) / 1e9, 1e-9)
    for phase, cell, start_ns, end_ns in zip(
        phases["phase"].astype(str), phases["cell"], phases["start_ns"], phases["end_ns"], strict=True
    ):
        start_s, end_s = (int(start_ns) - origin_ns) / 1e9, (int(end_ns) - origin_ns) / 1e9
        if phase in _FILLS:
            shade_span(plot, start_s, end_s, _FILLS[phase])
        text = str(cell) if phase == "window" else PHASE_NAMES.get(phase, phase)
        # The name holds the label's share of the axis: the page's script drops labels that do not fit.
        share = f"{(end_s - start_s) / span_s:.4f}"
        labels.append({"x": (start_s + end_s) / 2, "text": escape(text.rsplit(".", 1)[-1]), "name": share})
    for label in labels:
        plot.add_annotation(
            **label,
            xref="x",
            yref="paper",
            y=1,
            yanchor="bottom",
            showarrow=False,
            font={"size": 11, "color": page.LIGHT["soft"]},
        )
    plot.update_layout(legend={"y": -0.2, "yanchor": "top"}, margin={"b": 90})
