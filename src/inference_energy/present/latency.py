"""The report's sections on single requests: latencies, SLO attainment, and the energy charged to each request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from inference_energy.contracts.documents.experiment import SummaryWindow
from inference_energy.contracts.documents.windows import LimitCount
from inference_energy.contracts.figure import Figure
from inference_energy.present import page
from inference_energy.present.figures_text import (
    PERCENT,
    UNTRUSTED_GRADES,
    Scale,
    format_figure,
    scale_for,
    significant,
    whole,
)
from inference_energy.present.plots import Floats, buttons_menu
from inference_energy.present.report_inputs import Windows
from inference_energy.present.tables import Table, TableCell
from inference_energy.present.window_tables import window_title

RANKS = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99_9": "p99.9"}
LATENCIES = {
    "ttft": "TTFT from send",
    "ttft_from_schedule": "TTFT from schedule",
    "tpot": "TPOT",
    "itl": "ITL",
    "e2e": "end to end from send",
    "e2e_from_schedule": "end to end from schedule",
    "queue": "queueing in the server",
    "failed_ttft": "failed: TTFT",
    "failed_e2e": "failed: until the failure",
}
SLO_NAMES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "longest time between tokens", "e2e_s": "end to end"}


def latency_table(windows: Windows) -> Table:
    """Tabulate the percentiles of each latency of each window; a latency has one unit over all windows."""
    present = [name for name in LATENCIES if any(_percentile_figures(window, name) for window in windows)]
    ranks = [rank for rank in RANKS if any(_name(name, rank) in w.figures for w in windows for name in present)]
    scales = {name: _scale(windows, name) for name in present}
    table = Table(["latency", *[RANKS[rank] for rank in ranks], "mean"])
    for window in windows:
        table.heading(window_title(window, windows))
        for name in present:
            if not _percentile_figures(window, name):
                continue
            scale = scales[name]
            shown = [format_figure(window.figures.get(_name(name, rank)), scale) for rank in ranks]
            mean = window.figures.get(f"{name}_mean_s")
            table.add(
                TableCell(f"{LATENCIES[name]} ({scale.unit.split(' / ')[0]})", "head"),
                *table.numbers(shown),
                table.number(format_figure(mean, scale)) if mean else TableCell("–"),
            )
    return table


def slo_table(windows: Windows) -> Table | None:
    """Tabulate how many requests met all SLOs, and how many missed each; None if no SLO is configured."""
    with_slos = [(window, window.checks.limits) for window in windows if window.checks.limits]
    if not with_slos:
        return None
    names = [name for name in SLO_NAMES if any(name in slos for _, slos in with_slos)]
    energies = [window.figures.get("energy_active_per_good_request_j") for window, _ in with_slos]
    scale = scale_for([energy.value for energy in energies if energy], "J/request")
    bounds = with_slos[0][1]
    table = Table(
        [
            "load",
            "good requests (%)",
            "goodput, requests / s",
            f"active energy per good request ({scale.unit.split(' / ')[0]})",
            *[f"{SLO_NAMES[name]} over {bounds[name].limit:g} s" for name in names],
        ]
    )
    for (window, slos), energy in zip(with_slos, energies, strict=True):
        table.add(
            TableCell(window_title(window, windows), "head"),
            table.number(format_figure(window.figures.get("goodput_share"), PERCENT)),
            table.number(format_figure(window.figures.get("goodput_requests_per_s"))),
            table.number(format_figure(energy, scale)),
            *[_missed(slos[name]) for name in names],
        )
    return table


def _missed(slo: LimitCount) -> TableCell:
    return TableCell("not known") if slo.over is None else TableCell(f"{whole(slo.over)} of {whole(slo.of)}", "number")


def _percentile_figures(window: SummaryWindow, latency: str) -> list[Figure]:
    """Return the figures of a latency's percentiles; empty for latencies from a schedule in a closed loop."""
    figures = [figure for rank in RANKS if (figure := window.figures.get(_name(latency, rank)))]
    unscheduled = all(any(reason.code == "no_schedule" for reason in figure.reasons) for figure in figures)
    return [] if unscheduled else figures


def _scale(windows: Windows, latency: str) -> Scale:
    figures = [figure for window in windows for figure in _percentile_figures(window, latency)]
    return scale_for([figure.value for figure in figures], figures[0].unit)


def _name(latency: str, rank: str) -> str:
    return f"{latency}_{rank}_s"


RECEIPT_PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Receipts:
    """The receipts of one window under one policy [J]; `window` is the figure of the window's energy."""

    label: str
    policy: str
    energies_j: Floats
    window: Figure | None

    @property
    def charged_j(self) -> Floats:
        """The receipts above zero: requests without a token in the window are charged nothing."""
        return self.energies_j[self.energies_j > 0]

    @property
    def weak_grade(self) -> str:
        """The grade of the window's energy if it is untrusted, else empty."""
        grade = self.window.grade if self.window else ""
        return grade if grade in UNTRUSTED_GRADES else ""


def receipts_by_policy(label: str, window: Figure | None, rows: pd.DataFrame) -> list[Receipts]:
    """Return the receipts of a window by policy, from its rows of receipts.parquet."""
    return [
        Receipts(label, str(policy), part["energy_j"].dropna().to_numpy(dtype=np.float64), window)
        for policy, part in rows.groupby("policy")
    ]


def plot_receipts(receipts: Sequence[Receipts]) -> go.Figure | None:
    """Plot the distribution of energy per request by window and policy; None if nothing was charged."""
    filled = [each for each in receipts if each.charged_j.size]
    if not filled:
        return None
    grades = " and ".join(sorted({each.weak_grade for each in filled} - {""}))
    plot = go.Figure(layout=page.layout(f"energy of a request (J{grades and ', ' + grades})", "share of requests"))
    policies = len({each.policy for each in filled})
    for index, each in enumerate(filled):
        label = each.label + (f", by {each.policy}" if policies > 1 else "")
        add_ecdf(plot, label, each.charged_j, index, visible=True, unit=" J")
    share_axis(plot)
    plot.update_xaxes(rangemode="tozero")
    return plot


def receipts_table(receipts: Sequence[Receipts]) -> Table:
    """Tabulate mean and percentiles of each window's receipts, and their sum over the window's energy."""
    scale = scale_for([float(np.median(each.charged_j)) for each in receipts if each.charged_j.size], "J")
    ranks = [f"p{rank} ({scale.unit})" for rank in RECEIPT_PERCENTILES]
    table = Table(
        ["load", "charged by", "requests", f"mean ({scale.unit})", *ranks, "sum / window energy", "± of the energy"]
    )
    for each in receipts:
        head, policy = TableCell(each.label, "head"), TableCell(each.policy.replace("_", " "))
        if not each.charged_j.size:
            why = format_figure(each.window).why or "No request has a token in the window."
            table.add(head, policy, TableCell(f"not given: {why}", "missing", span=len(table.columns) - 2))
            continue
        shown = [float(each.charged_j.mean()), *np.percentile(each.charged_j, RECEIPT_PERCENTILES).tolist()]
        whole_j = each.window.value if each.window else None
        bounds = each.window.interval_95 if each.window else None
        off = f"{significant(50 * (bounds[1] - bounds[0]) / whole_j, 2)}\u00a0%" if bounds and whole_j else "–"
        table.add(
            head,
            policy,
            TableCell(whole(each.charged_j.size), "number"),
            *[TableCell(significant(value * scale.factor), "number", tag=each.weak_grade) for value in shown],
            TableCell(f"{each.energies_j.sum() / whole_j:.6f}" if whole_j else "–", "number"),
            TableCell(off, "number"),
        )
    return table


def plot_latency(
    series: Sequence[tuple[str, dict[str, Floats]]], limits: Mapping[str, float] | None = None
) -> go.Figure | None:
    """Plot distributions of latency with a button for each measure; None without latencies.

    Args:
        series: label and latencies [s] by measure for each window.
        limits: SLOs by name (`ttft_s`, `tpot_s`, `e2e_s`); drawn as lines.
    """
    measures = [name for name in PLOTTED if any(values.get(name, _NONE).size for _, values in series)]
    if not measures:
        return None
    plot = go.Figure(layout=page.layout("seconds", "share of requests", height=400))
    shown: list[str] = []
    for measure in measures:
        for index, (label, values) in enumerate(series):
            if values.get(measure, _NONE).size:
                add_ecdf(plot, label, values[measure], index, visible=measure == measures[0], unit=" s")
                shown.append(measure)
        limit_s = (limits or {}).get(f"{measure.partition('_')[0]}_s")
        if limit_s is not None:
            _add_limit(plot, limit_s, visible=measure == measures[0])
            shown.append(measure)
    buttons = [
        {"label": LATENCIES[measure], "method": "restyle", "args": [{"visible": [name == measure for name in shown]}]}
        for measure in measures
    ]
    share_axis(plot)
    plot.update_xaxes(rangemode="tozero")
    if len(buttons) > 1:
        plot.update_layout(updatemenus=[buttons_menu(buttons)], margin={"t": 44}, legend={"y": -0.2, "yanchor": "top"})
    return plot


PLOTTED = ("ttft", "ttft_from_schedule", "tpot", "e2e")
"""The latencies that are plotted, by their names in `LATENCIES`."""


def latencies(
    requests: pd.DataFrame, start_ns: int | None = None, end_ns: int | None = None, *, scheduled: bool = True
) -> dict[str, Floats]:
    """Return latencies [s] of the successful requests whose last token is in [start, end), as in the summary.

    TTFT = first token - sent (or - scheduled); TPOT = (last - first token) / (tokens - 1);
    end to end = last token - sent. `scheduled` is false in a closed loop, which has no schedule.
    """
    good = requests[(requests["status"] == "ok") & requests["last_token_ns"].notna()]
    if start_ns is not None and end_ns is not None:
        good = good[(good["last_token_ns"] >= start_ns) & (good["last_token_ns"] < end_ns)]
    first, last = good["first_token_ns"], good["last_token_ns"]
    tokens = good["completion_tokens"]
    intervals_ns = {
        "ttft": first - good["sent_ns"],
        **({"ttft_from_schedule": first - good["scheduled_ns"]} if scheduled else {}),
        "tpot": (last - first) / (tokens - 1).where(tokens > 1),
        "e2e": last - good["sent_ns"],
    }
    return {
        name: values.astype("Float64").dropna().to_numpy(dtype=np.float64) / np.float64(1e9)
        for name, values in intervals_ns.items()
    }


_NONE: Floats = np.empty(0)


ECDF_POINTS = 500
"""Longer distributions are drawn at this many evenly spaced ranks, the smallest and the largest included."""


def add_ecdf(plot: go.Figure, label: str, values: Floats, index: int, *, visible: bool, unit: str) -> None:
    """Add the share of `values` up to x, against x."""
    ordered = np.sort(values)
    ranks = np.unique(np.linspace(0, ordered.size - 1, min(ordered.size, ECDF_POINTS)).round().astype(int))
    color, dash = page.series(index)
    plot.add_scatter(
        x=ordered[ranks],
        y=(ranks + 1) / ordered.size,
        name=escape(label),
        mode="lines",
        line={"color": color, "dash": dash, "width": 2, "shape": "hv"},
        hovertemplate="%{y:.0%} up to %{x:.3g}" + unit,
        visible=visible,
    )


def _add_limit(plot: go.Figure, limit_s: float, *, visible: bool) -> None:
    plot.add_scatter(
        x=[limit_s, limit_s],
        y=[0, 1],
        name=f"limit, {limit_s:g} s",
        mode="lines",
        line={"color": page.LIGHT["bad"], "width": 1.4, "dash": "dash"},
        hovertemplate="%{x:.3g} s",
        visible=visible,
    )


def share_axis(plot: go.Figure) -> None:
    """Format the y axis for shares, and show the legend even for one line."""
    plot.update_yaxes(range=[0, 1.02], tickformat=".0%")
    plot.update_layout(showlegend=True)
