"""The report's section on the metric family: its tables, power and energy against load, and Pareto fronts."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go

from inference_energy.contracts.documents.experiment import (
    LoadLevel,
    LoadSweep,
    ParetoFront,
    SummaryDocument,
    SummaryWindow,
    TrafficHour,
)
from inference_energy.contracts.figure import Figure
from inference_energy.present import page
from inference_energy.present.figures_text import UNTRUSTED_GRADES, format_figure, scale_for, significant
from inference_energy.present.metrics import tables
from inference_energy.present.metrics.tables import Sweeps, sweep_title
from inference_energy.present.plots import error_bars
from inference_energy.present.report_inputs import Windows
from inference_energy.present.tables import Table

FLOOR_POINTS = 60
ENERGY, RATE, POWER = "energy_total_per_output_token_j", "output_tokens_per_s", "power_mean_w"


def plot_power_vs_load(sweeps: Sweeps, windows: Windows) -> go.Figure | None:
    """Plot power against load of each sweep, and the line of a server whose power is proportional to its load."""
    plot = go.Figure(layout=page.layout("share of full load", "W"))
    for index, (sweep, idle_w, full) in enumerate(_curves(sweeps)):
        levels = _levels(sweep, windows)
        color, _ = page.series(index)
        name = sweep_title(sweep, sweeps)
        figures = [window.figures[POWER] for window in levels]
        shares = [(window.figures[sweep.rate].value or 0.0) / full.rate for window in levels]
        plot.add_scatter(
            x=[0.0, *shares],
            y=[idle_w, *[figure.value for figure in figures]],
            error_y=error_bars([Figure(idle_w, "W", "none", "", "sampled"), *figures], color),
            text=["no load", *[window.load.text for window in levels]],
            name=name + _graded(figures),
            mode="lines+markers",
            line={"color": color, "width": 2},
            marker={"size": 9, "symbol": page.SYMBOLS[index % len(page.SYMBOLS)]},
            cliponaxis=False,
            hovertemplate="%{text}: %{y:.4g} W at %{x:.0%}",
        )
        plot.add_scatter(
            x=[0.0, 1.0],
            y=[0.0, full.power_w],
            name=f"{name}, if proportional{_graded(figures)}",
            mode="lines",
            line={"color": color, "width": 1.4, "dash": "dash"},
            hoverinfo="skip",
        )
    plot.update_xaxes(rangemode="tozero", tickformat=".0%")
    plot.update_layout(showlegend=True)
    return plot if plot.data else None


def plot_energy_per_token(sweeps: Sweeps, windows: Windows) -> go.Figure | None:
    """Plot energy per output token against throughput, and the floor set by the idle power alone."""
    plot = go.Figure(layout=page.layout("output tokens / s", "J / output token, total"))
    for index, (sweep, idle_w, _) in enumerate(_curves(sweeps)):
        levels = [window for window in _levels(sweep, windows) if window.figures[ENERGY].valid]
        levels.sort(key=_rate)
        if not levels:
            continue
        color, _ = page.series(index)
        name = sweep_title(sweep, sweeps)
        figures, rates = [window.figures[ENERGY] for window in levels], [_rate(window) for window in levels]
        plot.add_scatter(
            x=rates,
            y=[figure.value for figure in figures],
            error_y=error_bars(figures, color),
            text=[
                f"{window.load.text}: {format_figure(figure).text}"
                for window, figure in zip(levels, figures, strict=True)
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
            y=[idle_w / rate for rate in along],
            name=f"{name}, idle power alone{_graded(figures)}",
            mode="lines",
            line={"color": color, "width": 1.4, "dash": "dot"},
            hovertemplate="%{y:.3g} J of idle power at %{x:.4g} tokens/s",
        )
    plot.update_xaxes(rangemode="tozero")
    plot.update_layout(showlegend=True)
    return plot if plot.data else None


def plot_front(front: ParetoFront, windows: Windows) -> go.Figure | None:
    """Plot windows over the two figures of a front; filled points are on it. None with fewer than two points."""
    windows_by_name = {(window.machine, window.cell): window for window in windows}
    points = [point for group in front.groups for point in group.points]
    if len(points) < 2:
        return None
    names = front.figures
    first = windows_by_name[points[0].machine, points[0].cell]
    units = [first.figures[name].unit for name in names]
    scales = [scale_for([point.values[axis] for point in points], unit) for axis, unit in enumerate(units)]
    ways = ["more is better" if larger else "less is better" for larger in front.larger_is_better]
    titles = [f"{name} ({scale.unit}; {way})" for name, scale, way in zip(names, scales, ways, strict=True)]
    plot = go.Figure(layout=page.layout(*titles))
    for index, group in enumerate(front.groups):
        color, _ = page.series(index)
        on = sorted(
            (point for point in group.points if not point.dominated_by),
            key=lambda point: point.values[0] or 0.0,
        )
        off = [point for point in group.points if point.dominated_by]
        label = group.workload if len({other.workload for other in front.groups}) > 1 else ""
        for part, name, symbol in ((on, "on the front", "circle"), (off, "dominated", "circle-open")):
            if not part:
                continue
            drawn_windows = [windows_by_name[point.machine, point.cell] for point in part]
            shown = [[window.figures[figure] for window in drawn_windows] for figure in names]
            plot.add_scatter(
                x=[(figure.value or 0.0) * scales[0].factor for figure in shown[0]],
                y=[(figure.value or 0.0) * scales[1].factor for figure in shown[1]],
                error_x=error_bars(shown[0], color, scales[0].factor),
                error_y=error_bars(shown[1], color, scales[1].factor),
                text=[f"{window.load.text} · {window.cell}" for window in drawn_windows],
                name=", ".join(part for part in (label, name) if part) + _graded([*shown[0], *shown[1]]),
                mode="lines+markers" if part is on else "markers",
                line={"color": color, "width": 1, "dash": "dot"},
                marker={"size": 10, "symbol": symbol, "color": color, "line": {"width": 2, "color": color}},
                hovertemplate=f"%{{text}}: %{{x:.3g}} {scales[0].unit}, %{{y:.3g}} {scales[1].unit}",
            )
    plot.update_layout(showlegend=True, hovermode="closest")
    return plot


def plot_day(sweeps: Sweeps) -> go.Figure | None:
    """Plot power in each hour of the day's traffic."""
    plot = go.Figure(layout=page.layout("hour of the day", "W", height=300))
    for index, (sweep, hours) in enumerate((sweep, sweep.hours) for sweep in sweeps if sweep.hours):
        color, dash = page.series(index)
        last = hours[-1]
        # The step of the last hour needs an end.
        rows = [*hours, TrafficHour(hour=len(hours), rate=last.rate, power_w=last.power_w)]
        plot.add_scatter(
            x=[row.hour for row in rows],
            y=[row.power_w for row in rows],
            text=[f"{significant(row.rate)} / s" for row in rows],
            name=sweep_title(sweep, sweeps) + _graded([sweep.figures["daily_energy_kwh"]]),
            mode="lines",
            line={"color": color, "dash": dash, "width": 2, "shape": "hv"},
            hovertemplate="%{y:.4g} W at %{text}",
        )
    plot.update_layout(showlegend=True)
    return plot if plot.data else None


def _curves(sweeps: Sweeps) -> list[tuple[LoadSweep, float, LoadLevel]]:
    """Return the sweeps that have a curve, with their idle power and their full load."""
    return [
        (sweep, sweep.idle_w, sweep.grid[-1]) for sweep in sweeps if sweep.grid is not None and sweep.idle_w is not None
    ]


def _rate(window: SummaryWindow) -> float:
    return window.figures[RATE].value or 0.0


def _levels(sweep: LoadSweep, windows: Windows) -> list[SummaryWindow]:
    windows_by_name = {window.cell: window for window in windows if window.machine == sweep.machine}
    return [windows_by_name[name] for name in sweep.levels]


def _graded(figures: Sequence[Figure]) -> str:
    grades = sorted({figure.grade for figure in figures} & set(UNTRUSTED_GRADES))
    return "".join(f" ({grade})" for grade in grades)


@dataclass(frozen=True)
class MetricSection:
    """Tables and plots of the section; `fronts` have name, title and table, `left_out` the windows in no sweep."""

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


def metric_section(summary: SummaryDocument) -> MetricSection | None:
    """Return the section; None if the summary has no metrics or no steady window."""
    metrics = summary.metrics
    windows = tables.metric_windows(summary, metrics) if metrics else []
    if metrics is None or not windows:
        return None
    sweeps = metrics.sweeps
    drawn = {
        "metrics-power": plot_power_vs_load(sweeps, windows),
        "metrics-token": plot_energy_per_token(sweeps, windows),
        "metrics-day": plot_day(sweeps),
    }
    shown = [front for front in metrics.fronts if front.groups or front.left_out]
    named = [f"metrics-front-{index}" for index in range(len(shown))]
    drawn |= {name: plot_front(front, windows) for name, front in zip(named, shown, strict=True)}
    return MetricSection(
        efficiency=tables.efficiency_table(windows),
        served=tables.served_table(windows),
        requests=tables.request_table(windows),
        costs=tables.cost_table(summary, metrics),
        sweeps=tables.sweep_table(sweeps),
        daily=tables.daily_table(sweeps),
        hours=tables.hours_table(sweeps),
        impact=tables.impact_table(windows),
        quality=tables.quality_table(windows),
        fronts=[
            (name, title, table)
            for name, (title, table) in zip(named, tables.front_tables(metrics, windows), strict=True)
        ],
        left_out=tables.left_out(sweeps),
        plots={name: plot for name, plot in drawn.items() if plot is not None},
    )
