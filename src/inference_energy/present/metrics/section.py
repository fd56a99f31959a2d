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


def power_figure(sweeps: Sweeps, cells: Cells) -> go.Figure | None:
    """Power against load of each sweep, with the line of a server whose power is proportional to its load."""
    figure = go.Figure(layout=page.layout("share of full load", "W"))
    for index, sweep in enumerate(sweep for sweep in sweeps if sweep["grid"]):
        levels = _levels(sweep, cells)
        colour, _ = page.series(index)
        full = sweep["grid"][-1]
        name = sweep_title(sweep, sweeps)
        figures = [cell["figures"][POWER] for cell in levels]
        shares = [cell["figures"][sweep["rate"]]["value"] / full["rate"] for cell in levels]
        figure.add_scatter(
            x=[0.0, *shares],
            y=[sweep["idle_w"], *[each["value"] for each in figures]],
            error_y=error_bars([{"value": sweep["idle_w"]}, *figures], colour),
            text=["no load", *[cell_load_text(cell) for cell in levels]],
            name=name + _graded(figures),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 9, "symbol": page.SYMBOLS[index % len(page.SYMBOLS)]},
            cliponaxis=False,
            hovertemplate="%{text}: %{y:.4g} W at %{x:.0%}",
        )
        figure.add_scatter(
            x=[0.0, 1.0],
            y=[0.0, full["power_w"]],
            name=f"{name}, if proportional{_graded(figures)}",
            mode="lines",
            line={"color": colour, "width": 1.4, "dash": "dash"},
            hoverinfo="skip",
        )
    figure.update_xaxes(rangemode="tozero", tickformat=".0%")
    figure.update_layout(showlegend=True)
    return figure if figure.data else None


def token_figure(sweeps: Sweeps, cells: Cells) -> go.Figure | None:
    """Energy per output token against throughput, over the floor that idle power alone makes."""
    figure = go.Figure(layout=page.layout("output tokens / s", "J / output token, total"))
    for index, sweep in enumerate(sweep for sweep in sweeps if sweep["grid"]):
        levels = [cell for cell in _levels(sweep, cells) if cell["figures"][ENERGY]["valid"]]
        levels.sort(key=lambda cell: float(cell["figures"][RATE]["value"]))
        if not levels:
            continue
        colour, _ = page.series(index)
        name = sweep_title(sweep, sweeps)
        figures, rates = [cell["figures"][ENERGY] for cell in levels], [c["figures"][RATE]["value"] for c in levels]
        figure.add_scatter(
            x=rates,
            y=[each["value"] for each in figures],
            error_y=error_bars(figures, colour),
            text=[
                f"{cell_load_text(cell)}: {format_figure(each).text}"
                for cell, each in zip(levels, figures, strict=True)
            ],
            name=name + _graded(figures),
            mode="lines+markers",
            line={"color": colour, "width": 2},
            marker={"size": 9, "symbol": page.SYMBOLS[index % len(page.SYMBOLS)]},
            hovertemplate="%{text}",
        )
        first, last = 0.8 * rates[0], rates[-1]
        along = [first * (last / first) ** (step / FLOOR_POINTS) for step in range(FLOOR_POINTS + 1)]
        figure.add_scatter(
            x=along,
            y=[sweep["idle_w"] / rate for rate in along],
            name=f"{name}, idle power alone{_graded(figures)}",
            mode="lines",
            line={"color": colour, "width": 1.4, "dash": "dot"},
            hovertemplate="%{y:.3g} J of idle power at %{x:.4g} tokens/s",
        )
    figure.update_xaxes(rangemode="tozero")
    figure.update_layout(showlegend=True)
    return figure if figure.data else None


def front_figure(front: dict[str, Any], cells: Cells) -> go.Figure | None:
    """The windows over the two figures of a front; filled points are on it. None with fewer than two points."""
    known = {(cell["machine"], cell["cell"]): cell for cell in cells}
    points = [point for group in front["groups"] for point in group["points"]]
    if len(points) < 2:
        return None
    names = front["figures"]
    units = [known[points[0]["machine"], points[0]["cell"]]["figures"][name]["unit"] for name in names]
    scales = [scale_for([point["values"][place] for point in points], unit) for place, unit in enumerate(units)]
    ways = ["more is better" if larger else "less is better" for larger in front["larger_is_better"]]
    titles = [f"{name} ({scale.unit}; {way})" for name, scale, way in zip(names, scales, ways, strict=True)]
    figure = go.Figure(layout=page.layout(*titles))
    for index, group in enumerate(front["groups"]):
        colour, _ = page.series(index)
        on = sorted((p for p in group["points"] if not p["dominated_by"]), key=lambda p: float(p["values"][0]))
        off = [p for p in group["points"] if p["dominated_by"]]
        label = group["workload"] if len({each["workload"] for each in front["groups"]}) > 1 else ""
        for part, name, symbol in ((on, "on the front", "circle"), (off, "dominated", "circle-open")):
            if not part:
                continue
            own = [known[p["machine"], p["cell"]] for p in part]
            shown = [[cell["figures"][each] for cell in own] for each in names]
            figure.add_scatter(
                x=[figure_["value"] * scales[0].factor for figure_ in shown[0]],
                y=[figure_["value"] * scales[1].factor for figure_ in shown[1]],
                error_x=error_bars(shown[0], colour, scales[0].factor),
                error_y=error_bars(shown[1], colour, scales[1].factor),
                text=[f"{cell_load_text(cell)} · {cell['cell']}" for cell in own],
                name=", ".join(part for part in (label, name) if part) + _graded([*shown[0], *shown[1]]),
                mode="lines+markers" if part is on else "markers",
                line={"color": colour, "width": 1, "dash": "dot"},
                marker={"size": 10, "symbol": symbol, "color": colour, "line": {"width": 2, "color": colour}},
                hovertemplate=f"%{{text}}: %{{x:.3g}} {scales[0].unit}, %{{y:.3g}} {scales[1].unit}",
            )
    figure.update_layout(showlegend=True, hovermode="closest")
    return figure


def day_figure(sweeps: Sweeps) -> go.Figure | None:
    """Power in each hour of the day's traffic."""
    figure = go.Figure(layout=page.layout("hour of the day", "W", height=300))
    for index, sweep in enumerate(sweep for sweep in sweeps if sweep["hours"]):
        colour, dash = page.series(index)
        # The last hour has an end too.
        rows = [*sweep["hours"], {**sweep["hours"][-1], "hour": len(sweep["hours"])}]
        figure.add_scatter(
            x=[row["hour"] for row in rows],
            y=[row["power_w"] for row in rows],
            text=[f"{significant(row['rate'])} / s" for row in rows],
            name=sweep_title(sweep, sweeps) + _graded([sweep["figures"]["daily_energy_kwh"]]),
            mode="lines",
            line={"color": colour, "dash": dash, "width": 2, "shape": "hv"},
            hovertemplate="%{y:.4g} W at %{text}",
        )
    figure.update_layout(showlegend=True)
    return figure if figure.data else None


def _levels(sweep: dict[str, Any], cells: Cells) -> list[dict[str, Any]]:
    own = {cell["cell"]: cell for cell in cells if cell["machine"] == sweep["machine"]}
    return [own[name] for name in sweep["levels"]]


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
    figures: dict[str, go.Figure] = field(default_factory=dict)


def metric_section(summary: dict[str, Any]) -> MetricSection | None:
    """The section; None where the summary has no metrics or no steady window."""
    if not summary.get("metrics"):
        return None
    cells = tables.metric_cells(summary)
    if not cells:
        return None
    found = summary["metrics"]
    sweeps = found["sweeps"]
    drawn = {
        "metrics-power": power_figure(sweeps, cells),
        "metrics-token": token_figure(sweeps, cells),
        "metrics-day": day_figure(sweeps),
    }
    shown = [front for front in found["fronts"] if front["groups"] or front["left_out"]]
    named = [f"metrics-front-{index}" for index in range(len(shown))]
    drawn |= {name: front_figure(front, cells) for name, front in zip(named, shown, strict=True)}
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
        figures={name: figure for name, figure in drawn.items() if figure is not None},
    )
