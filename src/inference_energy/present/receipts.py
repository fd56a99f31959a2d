"""Receipts: the energy that each request of a cell is charged, and whether they sum to the energy of its window."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from inference_energy.present import theme
from inference_energy.present.charts import Floats, add_ecdf, share_axis
from inference_energy.present.formats import UNTRUSTED_GRADES, place, scale_for, significant, whole
from inference_energy.present.tables import Cell, Table

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
    figure = go.Figure(layout=theme.layout(f"energy of a request (J{grades and ', ' + grades})", "share of requests"))
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
        head, policy = Cell(cell.label, "head"), Cell(cell.policy.replace("_", " "))
        if not cell.charged_j.size:
            why = place(cell.window).why or "No request has a token in the window."
            table.add(head, policy, Cell(f"not given: {why}", "missing", span=len(table.columns) - 2))
            continue
        shown = [float(cell.charged_j.mean()), *np.percentile(cell.charged_j, PERCENTILES).tolist()]
        whole_j = cell.window["value"] if cell.window else None
        bounds = (cell.window or {}).get("interval_95")
        off = f"{significant(50 * (bounds[1] - bounds[0]) / whole_j, 2)}\u00a0%" if bounds and whole_j else "–"
        table.add(
            head,
            policy,
            Cell(whole(cell.charged_j.size), "number"),
            *[Cell(significant(value * scale.factor), "number", tag=cell.weak_grade) for value in shown],
            Cell(f"{cell.energies_j.sum() / whole_j:.6f}" if whole_j else "–", "number"),
            Cell(off, "number"),
        )
    return table
