"""Figures of the metric family: power and energy per token against load, and Pareto fronts.

Figures of the metric family: power and energy per token against load, and Pareto fronts.

The report's section on the metric family: what the template takes, and its figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from inference_energy.present import page
from inference_energy.present.figures_text import UNTRUSTED_GRADES, format_figure, scale_for, significant
from inference_energy.present.metrics import tables
from inference_energy.present.metrics.tables import sweep_title
from inference_energy.present.plots import error_bars
from inference_energy.present.report_inputs import cell_load_text
from inference_energy.present.tables import Table

Cells = Sequence[dict[str, Any]]
Sweeps = Sequence[dict[str, Any]]

FLOOR_POINTS = 60
ENERGY, RATE, POWER = "energy_total_per_output_token_j", "output_tokens_per_s", "power_mean_w"


def plot_power_vs_load(sweeps: Sweeps, cells: Cells) -> go.Figure | None:
    """Power against load of each sweep, with the line of a server whose power is proportional to its load."""
    plot = go.Figure(layout=page.layout("share of full load", "W"))
    for index, sweep in enumerate(sweep for sweep in sweeps if sweep["grid"]):
        levels = _levels(sweep, cells)
        color, _ = page.series(index)
        full = sweep["grid"][-1]
        name = sweep_title(sweep, sweeps)
        figures = [cell["figures"][POWER] for cell in levels]
        shares = [cell["figures"][sweep["rate"]]["value"] / full["rate"] for cell in levels]
        plot.add_scatter(
            x=[0.0, *shares],
            y=[sweep["idle_w"], *[each["value"] for each in figures]],
            error_y=error_bars([{"value": sweep["idle_w"]}, *figures], color),
            text=["no load", *[cell_load_text(cell) for cell in levels]],
            name=name + _graded(figures),
            mode="lines+markers",
            line={"color": color, "width": 2},
            marker={"size": 9, "symbol": page.SYMBOLS[index % len(page.SYMBOLS)]},
            cliponaxis=False,
            hovertemplate="%{text}: %{y:.4g} W at %{x:.0%}",
        )
        plot.add_scatter(
            x=[0.0, 1.0],
            y=[0.0, full["power_w"]],
            name=f"{name}, if proportional{_graded(figures)}",
            mode="lines",
            line={"color": color, "width": 1.4, "dash": "dash"},
            hoverinfo="skip",
        )
    plot.update_xaxes(rangemode="tozero", tickformat=".0%")
    plot.update_layout(showlegend=True)
    return plot if plot.data else None


def plot_energy_per_token(sweeps: Sweeps, cells: Cells) -> go.Figure | None:
    """Energy per output token against throughput, over the floor that idle power alone makes."""
    plot = go.Figure(layout=page.layout("output tokens / s", "J / output token, total"))
    for index, sweep in enumerate(sweep for sweep in sweeps if sweep["grid"]):
        levels = [cell for cell in _levels(sweep, cells) if cell["figures"][ENERGY]["valid"]]
        levels.sort(key=lambda cell: float(cell["figures"][RATE]["value"]))
        if not levels:
            continue
        color, _ = page.series(index)
        name = sweep_title(sweep, sweeps)
        figures, rates = [cell["figures"][ENERGY] for cell in levels], [c["figures"][RATE]["value"] for c in levels]
        plot.add_scatter(
            x=rates,
            y=[each["value"] for each in figures],
            error_y=error_bars(figures, color),
            text=[
                f"{cell_load_text(cell)}: {format_figure(each).text}"
                for cell, each in zip(levels, figures, strict=True)
            ],
            name=name + _graded(figures),
            mode="lines+markers",
            line={"color": color, "width": 2},
            marker={"size": 9, "symbol": page.SYMBOLS[index % len(page.SYMBOLS)]},
            hovertemplate="%{text}",
        )
        first, last = 0.8 * rates[0], rates[-1]
        along = [first * (last / first) ** (step / FLOOR_POINTS) for step in range(FLOOR_POINTS + 1)]
        plot.add_scatter(
            x=along,
            y=[sweep["idle_w"] / rate for rate in along],
            name=f"{name}, idle power alone{_graded(figures)}",
            mode="lines",
            line={"color": color, "width": 1.4, "dash": "dot"},
            hovertemplate="%{y:.3g} J of idle power at %{x:.4g} tokens/s",
        )
    plot.update_xaxes(rangemode="tozero")
    plot.update_layout(showlegend=True)
    return plot if plot.data else None


def plot_front(front: dict[str, Any], cells: Cells) -> go.Figure | None:
    """The windows over the two figures of a front; filled points are on it. None with fewer than two points."""
    cells_by_name = {(cell["machine"], cell["cell"]): cell for cell in cells}
    points = [point for group in front["groups"] for point in group["points"]]
    if len(points) < 2:
        return None
    names = front["figures"]
    units = [cells_by_name[points[0]["machine"], points[0]["cell"]]["figures"][name]["unit"] for name in names]
    scales = [scale_for([point["values"][axis] for point in points], unit) for axis, unit in enumerate(units)]
    ways = ["more is better" if larger else "less is better" for larger in front["larger_is_better"]]
    titles = [f"{name} ({scale.unit}; {way})" for name, scale, way in zip(names, scales, ways, strict=True)]
    plot = go.Figure(layout=page.layout(*titles))
    for index, group in enumerate(front["groups"]):
        color, _ = page.series(index)
        on = sorted(
            (point for point in group["points"] if not point["dominated_by"]),
            key=lambda point: float(point["values"][0]),
        )
        off = [point for point in group["points"] if point["dominated_by"]]
        label = group["workload"] if len({each["workload"] for each in front["groups"]}) > 1 else ""
        for part, name, symbol in ((on, "on the front", "circle"), (off, "dominated", "circle-open")):
            if not part:
                continue
            drawn_cells = [cells_by_name[point["machine"], point["cell"]] for point in part]
            shown = [[cell["figures"][each] for cell in drawn_cells] for each in names]
            plot.add_scatter(
                x=[figure["value"] * scales[0].factor for figure in shown[0]],
                y=[figure["value"] * scales[1].factor for figure in shown[1]],
                error_x=error_bars(shown[0], color, scales[0].factor),
                error_y=error_bars(shown[1], color, scales[1].factor),
                text=[f"{cell_load_text(cell)} · {cell['cell']}" for cell in drawn_cells],
                name=", ".join(part for part in (label, name) if part) + _graded([*shown[0], *shown[1]]),
                mode="lines+markers" if part is on else "markers",
                line={"color": color, "width": 1, "dash": "dot"},
                marker={"size": 10, "symbol": symbol, "color": color, "line": {"width": 2, "color": color}},
                hovertemplate=f"%{{text}}: %{{x:.3g}} {scales[0].unit}, %{{y:.3g}} {scales[1].unit}",
            )
    plot.update_layout(showlegend=True, hovermode="closest")
    return plot


def plot_day(sweeps: Sweeps) -> go.Figure | None:
    """Power in each hour of the day's traffic."""
    plot = go.Figure(layout=page.layout("hour of the day", "W", height=300))
    for index, sweep in enumerate(sweep for sweep in sweeps if sweep["hours"]):
        color, dash = page.series(index)
        # The last hour has an end too.
        rows = [*sweep["hours"], {**sweep["hours"][-1], "hour": len(sweep["hours"])}]
        plot.add_scatter(
            x=[row["hour"] for row in rows],
            y=[row["power_w"] for row in rows],
            text=[f"{significant(row['rate'])} / s" for row in rows],
            name=sweep_title(sweep, sweeps) + _graded([sweep["figures"]["daily_energy_kwh"]]),
            mode="lines",
            line={"color": color, "dash": dash, "width": 2, "shape": "hv"},
            hovertemplate="%{y:.4g} W at %{text}",
        )
    plot.update_layout(showlegend=True)
    return plot if plot.data else None


def _levels(sweep: dict[str, Any], cells: Cells) -> list[dict[str, Any]]:
    cells_by_name = {cell["cell"]: cell for cell in cells if cell["machine"] == sweep["machine"]}
    return [cells_by_name[name] for name in sweep["levels"]]


def _graded(figures: Sequence[dict[str, Any]]) -> str:
    grades = sorted({str(each["grade"]) for each in figures} & set(UNTRUSTED_GRADES))
    return "".join(f" ({grade})" for grade in grades)


@dataclass(frozen=True)
class MetricSection:
    """Tables by their place in the template, fronts with their figures' names, and what is not in a sweep."""

    efficiency: Table
    served: Table
    requests: Table
    costs: Table
    sweeps: Table
    daily: Table
    hours: Table | None
    impact: Table
    quality: Table
    fronts: list[tuple[str, str, Table]]
    left_out: list[tuple[str, str]]
    plots: dict[str, go.Figure] = field(default_factory=dict)


def metric_section(summary: dict[str, Any]) -> MetricSection | None:
    """The section; None where the summary has no metrics or no steady window."""
    if not summary.get("metrics"):
        return None
    cells = tables.metric_cells(summary)
    if not cells:
        return None
    metrics = summary["metrics"]
    sweeps = metrics["sweeps"]
    drawn = {
        "metrics-power": plot_power_vs_load(sweeps, cells),
        "metrics-token": plot_energy_per_token(sweeps, cells),
        "metrics-day": plot_day(sweeps),
    }
    shown = [front for front in metrics["fronts"] if front["groups"] or front["left_out"]]
    named = [f"metrics-front-{index}" for index in range(len(shown))]
    drawn |= {name: plot_front(front, cells) for name, front in zip(named, shown, strict=True)}
    return MetricSection(
        efficiency=tables.efficiency_table(cells),
        served=tables.served_table(cells),
        requests=tables.request_table(cells),
        costs=tables.cost_table(summary),
        sweeps=tables.sweep_table(sweeps),
        daily=tables.daily_table(sweeps),
        hours=tables.hours_table(sweeps),
        impact=tables.impact_table(cells),
        quality=tables.quality_table(cells),
        fronts=[
            (name, title, table)
            for name, (title, table) in zip(named, tables.front_tables(summary, cells), strict=True)
        ],
        left_out=tables.left_out(sweeps),
        plots={name: plot for name, plot in drawn.items() if plot is not None},
    )
