"""The report's section on the metric family: what the template takes, and its figures."""

from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

from inference_energy.present.metrics import charts, tables
from inference_energy.present.tables import Table


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
        "metrics-power": charts.power_figure(sweeps, cells),
        "metrics-token": charts.token_figure(sweeps, cells),
        "metrics-day": charts.day_figure(sweeps),
    }
    shown = [front for front in found["fronts"] if front["groups"] or front["left_out"]]
    named = [f"metrics-front-{index}" for index in range(len(shown))]
    drawn |= {name: charts.front_figure(front, cells) for name, front in zip(named, shown, strict=True)}
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
