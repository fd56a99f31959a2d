"""The report's section on estimates: every published method beside the measured energy of each steady window."""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from inference_energy.estimate.compare import ESTIMATORS
from inference_energy.estimate.scorecard import score
from inference_energy.present import page
from inference_energy.present.cell_tables import cell_title
from inference_energy.present.figures_text import sentence, significant
from inference_energy.present.report_inputs import labels
from inference_energy.present.tables import Table, TableCell

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def estimates_table(content: dict[str, Any]) -> Table:
    """Tabulate, for each steady window, the measured energy of its GPUs, and each estimate with its ratio to it."""
    table = Table(
        ["estimator", "J / output token (modelled)", "range (modelled)", "estimate / measured", "contains, or why not"]
    )
    for cell, window in _windows(content):
        table.heading(f"{cell_title(cell, content['cells'])}: {_measured(window)}")
        for row in window["estimates"]:
            table.add(*_row(row))
    return table


def scores_table(content: dict[str, Any]) -> Table:
    """Tabulate the scores of each estimator over all windows on which it may be scored."""
    table = Table(["estimator", "windows", "MAPE", "factor", "within 2×", "estimate / measured, median"])
    windows = [window for _, window in _windows(content)]
    for index, estimator in enumerate(ESTIMATORS if windows else ()):
        pairs = [
            (window["estimates"][index]["compared_j"], window["measured"]["energy_per_output_token_j"])
            for window in windows
            if window["estimates"][index]["ratio"] is not None
        ]
        result = score(estimator.id, *np.array(pairs, dtype=np.float64).reshape(-1, 2).T)
        if not result.rows:
            whys = [window["estimates"][index]["not_scored"] or window["measured"]["unavailable"] for window in windows]
            why = "; ".join(dict.fromkeys(text for text in whys if text))
            table.add(TableCell(estimator.id, "head"), TableCell(f"not scored: {why}", "missing", span=5))
            continue
        table.add(
            TableCell(estimator.id, "head"),
            TableCell(str(result.rows), "number"),
            TableCell(f"{100 * result.mape:.1f} %", "number"),
            TableCell(f"{result.log_error:.2f}", "number"),
            TableCell(f"{100 * result.within_two:.0f} %", "number"),
            TableCell(f"{result.median_ratio:.2f}", "number"),
        )
    return table


def estimate_texts(content: dict[str, Any]) -> list[str]:
    """Return the assumptions for each session, or why nothing can be estimated."""
    texts = []
    for session in content.get("estimates") or []:
        name = f"{session['session']}: "
        if session["unknown"]:
            texts.append(f"{name}no estimates. {' '.join(sentence(text) for text in session['unknown'])}")
            continue
        copies = f", {session['copies']} copies" if session["copies"] > 1 else ""
        facts = f"{session['model']['name']} on {session['gpus_per_copy']} × {session['gpu']['name']}{copies}"
        fitted = f"calibration {session['calibration']}" if session["calibration"] else "no calibration for this GPU"
        notes = " ".join(sentence(text) for text in (*session["model"]["notes"], *session["notes"]))
        texts.append(f"{name}{facts}; {fitted}. {notes}".strip())
    return list(dict.fromkeys(texts))


def plot_estimates(content: dict[str, Any]) -> go.Figure | None:
    """Plot estimate over measured of each window on a logarithmic axis; None if no estimate can be compared."""
    cells = [cell for cell, _ in _windows(content)]
    windows = [window for _, window in _windows(content)]
    names = labels(cells)
    height = max(360, 190 + 34 * len(names))
    plot = go.Figure(layout=page.layout("estimate (modelled) / measured", "", height=height, hovermode="closest"))
    for index, estimator in enumerate(ESTIMATORS):
        ratios = [window["estimates"][index]["ratio"] for window in windows]
        points = [(name, ratio) for name, ratio in zip(names, ratios, strict=True) if ratio is not None]
        if not points:
            continue
        color, _ = page.series(index)
        symbol = page.SYMBOLS[index % len(page.SYMBOLS)] + ("-open" if index >= len(page.SERIES) else "")
        plot.add_scatter(
            x=[ratio for _, ratio in points],
            y=[escape(name) for name, _ in points],
            name=estimator.id,
            mode="markers",
            marker={"size": 10, "symbol": symbol, "color": color, "line": {"width": 2, "color": color}},
            hovertemplate=f"{estimator.id}: %{{x:.2f}}<extra></extra>",
        )
    if not plot.data:
        return None
    plot.add_vline(x=1, line={"color": page.LIGHT["soft"], "width": 1, "dash": "dash"})
    plot.update_yaxes(autorange="reversed", rangemode="normal", showgrid=True)
    plot.update_xaxes(type="log", rangemode="normal", showgrid=True, tickvals=TICKS, ticktext=[f"{t:g}" for t in TICKS])
    plot.update_layout(showlegend=True)
    return plot


def _windows(content: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each window of the summary that has estimates, with these."""
    sessions = {
        (session["machine"], session["session"]): session["windows"] for session in content.get("estimates") or []
    }
    for cell in content["cells"]:
        windows = sessions.get((cell.get("machine"), cell.get("session")), {})
        window = windows.get(str(cell["cell"]).split(".", 1)[-1])
        if window is not None:
            yield cell, window


def _measured(window: dict[str, Any]) -> str:
    measured, load = window["measured"], window["load"]
    energy_j = measured["energy_per_output_token_j"]
    energy_text = (
        f"not given: {measured['unavailable']}"
        if energy_j is None
        else f"{significant(energy_j)} J / output token ({measured['boundary']}, {measured['basis']}, "
        f"{measured['grade']})"
    )
    facts = [
        f"{words} {significant(load[key])}"
        for key, words in (("batch", "mean batch"), ("context_tokens", "mean context"))
        if load[key] is not None
    ]
    return "; ".join([energy_text, *facts])


def _row(row: dict[str, Any]) -> Sequence[TableCell]:
    name = TableCell(row["id"], "head", tooltip=row["formula"])
    if row["unavailable"]:
        return name, TableCell(f"unavailable: {row['unavailable']}", "missing", span=4)
    point, low, high = row["energy_per_output_token_j"], row["low"], row["high"]
    in_sample = row["ratio"] is None and row["not_scored"]
    return (
        name,
        TableCell("a band" if point is None else significant(point), "number"),
        TableCell("–" if low is None else f"{significant(low)} to {significant(high)}", "number"),
        TableCell("–" if row["ratio"] is None else f"{row['ratio']:.2f}", "number"),
        TableCell(f"{row['boundary']}; {row['not_scored']}" if in_sample else row["boundary"], tooltip=_tip(row)),
    )


def _tip(row: dict[str, Any]) -> str:
    return f"Assumes: {'; '.join(row['assumptions'])}. Leaves out: {'; '.join(row['leaves_out'])}."
