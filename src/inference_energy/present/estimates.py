"""The report's section on estimates: every published method beside the measured energy of each steady window."""

from collections.abc import Iterator, Sequence
from html import escape

import numpy as np
import plotly.graph_objects as go

from inference_energy.contracts.documents.estimates import ComparedEstimate, EstimatedWindow
from inference_energy.contracts.documents.experiment import SummaryDocument, SummaryWindow
from inference_energy.estimate.compare import ESTIMATORS
from inference_energy.estimate.scorecard import score
from inference_energy.present import page
from inference_energy.present.figures_text import sentence, significant
from inference_energy.present.report_inputs import labels
from inference_energy.present.tables import Table, TableCell
from inference_energy.present.window_tables import window_title

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def estimates_table(summary: SummaryDocument) -> Table:
    """Tabulate, for each steady window, the measured energy of its GPUs, and each estimate with its ratio to it."""
    table = Table(
        ["estimator", "J / output token (modelled)", "range (modelled)", "estimate / measured", "contains, or why not"]
    )
    for window, estimated in _estimated_windows(summary):
        table.heading(f"{window_title(window, summary.cells)}: {_measured(estimated)}")
        for row in estimated.estimates:
            table.add(*_row(row))
    return table


def scores_table(summary: SummaryDocument) -> Table:
    """Tabulate the scores of each estimator over all windows on which it may be scored."""
    table = Table(["estimator", "windows", "MAPE", "factor", "within 2×", "estimate / measured, median"])
    windows = [window for _, window in _estimated_windows(summary)]
    for index, estimator in enumerate(ESTIMATORS if windows else ()):
        rows = [(window.estimates[index], window.measured) for window in windows]
        pairs = [
            (row.compared_j, measured.energy_per_output_token_j) for row, measured in rows if row.ratio is not None
        ]
        result = score(estimator.id, *np.array(pairs, dtype=np.float64).reshape(-1, 2).T)
        if not result.rows:
            whys = [row.not_scored or measured.unavailable for row, measured in rows]
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


def estimate_texts(summary: SummaryDocument) -> list[str]:
    """Return the assumptions for each session, or why nothing can be estimated."""
    texts = []
    for session in summary.estimates or []:
        name = f"{session.session}: "
        if session.model is None or session.gpu is None:
            texts.append(f"{name}no estimates. {' '.join(sentence(text) for text in session.unknown)}")
            continue
        copies = f", {session.copies} copies" if session.copies > 1 else ""
        facts = f"{session.model.name} on {session.gpus_per_copy} × {session.gpu.name}{copies}"
        calibration = f"calibration {session.calibration}" if session.calibration else "no calibration for this GPU"
        notes = " ".join(sentence(text) for text in (*session.model.notes, *session.notes))
        texts.append(f"{name}{facts}; {calibration}. {notes}".strip())
    return list(dict.fromkeys(texts))


def plot_estimates(summary: SummaryDocument) -> go.Figure | None:
    """Plot estimate over measured of each window on a logarithmic axis; None if no estimate can be compared."""
    windows = list(_estimated_windows(summary))
    names = labels([window for window, _ in windows])
    height = max(360, 190 + 34 * len(names))
    plot = go.Figure(layout=page.layout("estimate (modelled) / measured", "", height=height, hovermode="closest"))
    for index, estimator in enumerate(ESTIMATORS):
        ratios = [(name, window.estimates[index].ratio) for name, (_, window) in zip(names, windows, strict=True)]
        points = [(name, ratio) for name, ratio in ratios if ratio is not None]
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


def _estimated_windows(summary: SummaryDocument) -> Iterator[tuple[SummaryWindow, EstimatedWindow]]:
    """Yield each window of the summary that has estimates, with these."""
    sessions = {(session.machine, session.session): session.windows for session in summary.estimates or []}
    for window in summary.cells:
        estimated = sessions.get((window.machine, window.session), {}).get(window.cell.split(".", 1)[-1])
        if estimated is not None:
            yield window, estimated


def _measured(window: EstimatedWindow) -> str:
    measured, load = window.measured, window.load
    energy_j = measured.energy_per_output_token_j
    energy_text = (
        f"{significant(energy_j)} J / output token ({measured.boundary}, {measured.basis}, {measured.grade})"
        if isinstance(energy_j, float)
        else f"not given: {measured.unavailable}"
    )
    facts = [
        f"{words} {significant(value)}"
        for words, value in (("mean batch", load.batch), ("mean context", load.context_tokens))
        if value is not None
    ]
    return "; ".join([energy_text, *facts])


def _row(row: ComparedEstimate) -> Sequence[TableCell]:
    name = TableCell(row.id, "head", tooltip=row.formula)
    if row.unavailable:
        return name, TableCell(f"unavailable: {row.unavailable}", "missing", span=4)
    point, low, high = row.energy_per_output_token_j, row.low, row.high
    in_sample = row.ratio is None and row.not_scored
    return (
        name,
        TableCell("a band" if point is None else significant(point), "number"),
        TableCell("–" if low is None or high is None else f"{significant(low)} to {significant(high)}", "number"),
        TableCell("–" if row.ratio is None else f"{row.ratio:.2f}", "number"),
        TableCell(f"{row.boundary}; {row.not_scored}" if in_sample else row.boundary, tooltip=_tooltip(row)),
    )


def _tooltip(row: ComparedEstimate) -> str:
    return f"Assumes: {'; '.join(row.assumptions)}. Leaves out: {'; '.join(row.leaves_out)}."
