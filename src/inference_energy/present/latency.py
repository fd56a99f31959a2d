"""Tables of latency: percentiles with their intervals, and the limits that requests kept or broke.

Tables of latency: percentiles with their intervals, and the limits that requests kept or broke.

Receipts: the energy that each request of a cell is charged, and whether they sum to the energy of its window.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from inference_energy.present import page
from inference_energy.present.cell_tables import cell_title
from inference_energy.present.figures_text import UNTRUSTED_GRADES, Scale, format_figure, scale_for, significant, whole
from inference_energy.present.plots import Floats, add_ecdf, share_axis
from inference_energy.present.tables import Table, TableCell

Cells = Sequence[dict[str, Any]]

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
LIMITS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "itl_s": "longest time between tokens", "e2e_s": "end to end"}
PERCENT_AXIS = Scale(100.0, "%")


def latency_table(cells: Cells) -> Table:
    """A row for each latency of a cell; one unit for each latency over all cells."""
    present = [name for name in LATENCIES if any(_figures(cell, name) for cell in cells)]
    ranks = [rank for rank in RANKS if any(_name(latency, rank) in c["figures"] for c in cells for latency in present)]
    scales = {name: _scale(cells, name) for name in present}
    table = Table(["latency", *[RANKS[rank] for rank in ranks], "mean"])
    for cell in cells:
        table.heading(cell_title(cell, cells))
        for name in present:
            if not _figures(cell, name):
                continue
            scale = scales[name]
            shown = [format_figure(cell["figures"].get(_name(name, rank)), scale) for rank in ranks]
            unit = scale.unit.split(" / ")[0] if scale else ""
            label = f"{LATENCIES[name]} ({unit})" if unit else LATENCIES[name]
            mean = cell["figures"].get(f"{name}_mean_s")
            table.add(
                TableCell(label, "head"),
                *table.numbers(shown),
                table.number(format_figure(mean, scale)) if mean else TableCell("–"),
            )
    return table


def limits_table(cells: Cells) -> Table | None:
    """How many requests kept all limits, and how many broke each; None where no limit is configured."""
    limited = [cell for cell in cells if (cell.get("checks") or {}).get("limits")]
    if not limited:
        return None
    names = [name for name in LIMITS if any(name in cell["checks"]["limits"] for cell in limited)]
    scale = scale_for([_value(cell, "energy_active_per_good_request_j") for cell in limited], "J/request")
    bounds = limited[0]["checks"]["limits"]
    table = Table(
        [
            "load",
            "good requests (%)",
            "goodput, requests / s",
            f"active energy per good request ({scale.unit.split(' / ')[0]})",
            *[f"{LIMITS[name]} over {bounds[name]['limit']:g} s" for name in names],
        ]
    )
    for cell in limited:
        figures, limits = cell["figures"], cell["checks"]["limits"]
        table.add(
            TableCell(cell_title(cell, cells), "head"),
            table.number(format_figure(figures.get("goodput_share"), PERCENT_AXIS)),
            table.number(format_figure(figures.get("goodput_requests_per_s"))),
            table.number(format_figure(figures.get("energy_active_per_good_request_j"), scale)),
            *[_over(limits[name]) for name in names],
        )
    return table


def _over(row: dict[str, Any]) -> TableCell:
    if row["over"] is None:
        return TableCell("not known")
    return TableCell(f"{whole(row['over'])} of {whole(row['of'])}", "number")


def _figures(cell: dict[str, Any], latency: str) -> list[dict[str, Any]]:
    """A latency's percentiles; a cell without a schedule has none from it."""
    found = [figure for rank in RANKS if (figure := cell["figures"].get(_name(latency, rank)))]
    unscheduled = all(any(r["code"] == "no_schedule" for r in figure.get("reasons") or ()) for figure in found)
    return [] if unscheduled else found


def _scale(cells: Cells, latency: str) -> Scale | None:
    found = [figure for cell in cells for figure in _figures(cell, latency)]
    return scale_for([figure["value"] for figure in found], found[0]["unit"]) if found else None


def _name(latency: str, rank: str) -> str:
    return f"{latency}_{rank}_s"


def _value(cell: dict[str, Any], name: str) -> float | None:
    figure = cell["figures"].get(name)
    return figure["value"] if figure else None


PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Receipts:
    """The receipts of one cell under one policy, in J; `window` is the figure of its energy in the summary."""

    label: str
    policy: str
    energies_j: Floats
    window: dict[str, Any] | None

    @property
    def charged_j(self) -> Floats:
        """The receipts of requests that had a share: requests without a token in the window are charged nothing."""
        return self.energies_j[self.energies_j > 0]

    @property
    def weak_grade(self) -> str:
        """The grade of the window's energy where it must be seen at once, else empty."""
        grade = str(self.window["grade"]) if self.window else ""
        return grade if grade in UNTRUSTED_GRADES else ""


def of_cell(label: str, window: dict[str, Any] | None, rows: pd.DataFrame) -> list[Receipts]:
    """The receipts of a cell, by policy, from its rows of receipts.parquet."""
    return [
        Receipts(label, str(policy), part["energy_j"].dropna().to_numpy(dtype=np.float64), window)
        for policy, part in rows.groupby("policy")
    ]


def receipts_figure(cells: Sequence[Receipts]) -> go.Figure | None:
    """Distribution of the energy of a request, one line a cell and policy; None where nothing was charged."""
    filled = [cell for cell in cells if cell.charged_j.size]
    if not filled:
        return None
    grades = " and ".join(sorted({cell.weak_grade for cell in filled} - {""}))
    figure = go.Figure(layout=page.layout(f"energy of a request (J{grades and ', ' + grades})", "share of requests"))
    policies = len({cell.policy for cell in filled})
    for index, cell in enumerate(filled):
        label = cell.label + (f", by {cell.policy}" if policies > 1 else "")
        add_ecdf(figure, label, cell.charged_j, index, visible=True, unit=" J")
    share_axis(figure)
    figure.update_xaxes(rangemode="tozero")
    return figure


def receipts_table(cells: Sequence[Receipts]) -> Table:
    """Mean and percentiles of each cell, and the sum of its receipts over the energy of its window."""
    scale = scale_for([float(np.median(cell.charged_j)) for cell in cells if cell.charged_j.size], "J")
    ranks = [f"p{rank} ({scale.unit})" for rank in PERCENTILES]
    table = Table(
        ["load", "charged by", "requests", f"mean ({scale.unit})", *ranks, "sum / window energy", "± of the energy"]
    )
    for cell in cells:
        head, policy = TableCell(cell.label, "head"), TableCell(cell.policy.replace("_", " "))
        if not cell.charged_j.size:
            why = format_figure(cell.window).why or "No request has a token in the window."
            table.add(head, policy, TableCell(f"not given: {why}", "missing", span=len(table.columns) - 2))
            continue
        shown = [float(cell.charged_j.mean()), *np.percentile(cell.charged_j, PERCENTILES).tolist()]
        whole_j = cell.window["value"] if cell.window else None
        bounds = (cell.window or {}).get("interval_95")
        off = f"{significant(50 * (bounds[1] - bounds[0]) / whole_j, 2)}\u00a0%" if bounds and whole_j else "–"
        table.add(
            head,
            policy,
            TableCell(whole(cell.charged_j.size), "number"),
            *[TableCell(significant(value * scale.factor), "number", tag=cell.weak_grade) for value in shown],
            TableCell(f"{cell.energies_j.sum() / whole_j:.6f}" if whole_j else "–", "number"),
            TableCell(off, "number"),
        )
    return table
