"""The report's estimates: every published method beside what was measured of each steady window.

The report's estimates: every published method beside what was measured of each steady window.

The plots of docs/reference/estimators.md: the energy roofline over published rows, and every estimator's ratio to them.
"""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

import numpy as np
import plotly.graph_objects as go

from inference_energy.estimate.batch import Cases
from inference_energy.estimate.calibration import shipped_calibration
from inference_energy.estimate.estimators.registry import ESTIMATORS
from inference_energy.estimate.scorecard import Group, Scorecard, score
from inference_energy.present import page
from inference_energy.present.cell_tables import cell_title
from inference_energy.present.figures_text import sentence, significant
from inference_energy.present.loglog_svg import Series, chart
from inference_energy.present.page import LIGHT, SERIES
from inference_energy.present.report_inputs import labels
from inference_energy.present.tables import Table, TableCell

TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


def estimates_table(content: dict[str, Any]) -> Table:
    """A group for each steady window: the measured energy of its GPUs, and each estimator with its ratio to it."""
    table = Table(
        ["estimator", "J / output token (modelled)", "range (modelled)", "estimate / measured", "contains, or why not"]
    )
    for cell, window in _windows(content):
        table.heading(f"{cell_title(cell, content['cells'])}: {_measured(window)}")
        for row in window["estimates"]:
            table.add(*_row(row))
    return table


def scores_table(content: dict[str, Any]) -> Table:
    """Each estimator over all windows that it may be scored on."""
    table = Table(["estimator", "windows", "MAPE", "factor", "within 2×", "estimate / measured, median"])
    windows = [window for _, window in _windows(content)]
    for place, one in enumerate(ESTIMATORS if windows else ()):
        pairs = [
            (window["estimates"][place]["compared_j"], window["measured"]["energy_per_output_token_j"])
            for window in windows
            if window["estimates"][place]["ratio"] is not None
        ]
        found = score(one.id, *np.array(pairs, dtype=np.float64).reshape(-1, 2).T)
        if not found.rows:
            whys = [window["estimates"][place]["not_scored"] or window["measured"]["unavailable"] for window in windows]
            why = "; ".join(dict.fromkeys(text for text in whys if text))
            table.add(TableCell(one.id, "head"), TableCell(f"not scored: {why}", "missing", span=5))
            continue
        table.add(
            TableCell(one.id, "head"),
            TableCell(str(found.rows), "number"),
            TableCell(f"{100 * found.mape:.1f} %", "number"),
            TableCell(f"{found.log_error:.2f}", "number"),
            TableCell(f"{100 * found.within_two:.0f} %", "number"),
            TableCell(f"{found.median_ratio:.2f}", "number"),
        )
    return table


def estimate_texts(content: dict[str, Any]) -> list[str]:
    """What was taken for granted, and why nothing can be estimated where that is so, for each session."""
    found = []
    for one in content.get("estimates") or []:
        name = f"{one['session']}: "
        if one["unknown"]:
            found.append(f"{name}no estimates. {' '.join(sentence(text) for text in one['unknown'])}")
            continue
        copies = f", {one['copies']} copies" if one["copies"] > 1 else ""
        facts = f"{one['model']['name']} on {one['gpus_per_copy']} × {one['gpu']['name']}{copies}"
        fitted = f"calibration {one['calibration']}" if one["calibration"] else "no calibration for this GPU"
        notes = " ".join(sentence(text) for text in (*one["model"]["notes"], *one["notes"]))
        found.append(f"{name}{facts}; {fitted}. {notes}".strip())
    return list(dict.fromkeys(found))


def estimates_figure(content: dict[str, Any]) -> go.Figure | None:
    """Estimate over measured of each window, on a logarithmic axis; None where no estimate can be compared."""
    cells = [cell for cell, _ in _windows(content)]
    windows = [window for _, window in _windows(content)]
    names = labels(cells)
    height = max(360, 190 + 34 * len(names))
    figure = go.Figure(layout=page.layout("estimate (modelled) / measured", "", height=height, hovermode="closest"))
    for place, one in enumerate(ESTIMATORS):
        ratios = [window["estimates"][place]["ratio"] for window in windows]
        known = [(name, ratio) for name, ratio in zip(names, ratios, strict=True) if ratio is not None]
        if not known:
            continue
        colour, _ = page.series(place)
        symbol = page.SYMBOLS[place % len(page.SYMBOLS)] + ("-open" if place >= len(page.SERIES) else "")
        figure.add_scatter(
            x=[ratio for _, ratio in known],
            y=[escape(name) for name, _ in known],
            name=one.id,
            mode="markers",
            marker={"size": 10, "symbol": symbol, "color": colour, "line": {"width": 2, "color": colour}},
            hovertemplate=f"{one.id}: %{{x:.2f}}<extra></extra>",
        )
    if not figure.data:
        return None
    figure.add_vline(x=1, line={"color": page.LIGHT["soft"], "width": 1, "dash": "dash"})
    figure.update_yaxes(autorange="reversed", rangemode="normal", showgrid=True)
    figure.update_xaxes(
        type="log", rangemode="normal", showgrid=True, tickvals=TICKS, ticktext=[f"{t:g}" for t in TICKS]
    )
    figure.update_layout(showlegend=True)
    return figure


def _windows(content: dict[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Each estimated window with its cell of the summary, in the cells' order."""
    sessions = {(one["machine"], one["session"]): one["windows"] for one in content.get("estimates") or []}
    for cell in content["cells"]:
        windows = sessions.get((cell.get("machine"), cell.get("session")), {})
        window = windows.get(str(cell["cell"]).split(".", 1)[-1])
        if window is not None:
            yield cell, window


def _measured(window: dict[str, Any]) -> str:
    measured, load = window["measured"], window["load"]
    energy_j = measured["energy_per_output_token_j"]
    said = (
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
    return "; ".join([said, *facts])


def _row(row: dict[str, Any]) -> Sequence[TableCell]:
    name = TableCell(row["id"], "head", tip=row["formula"])
    if row["unavailable"]:
        return name, TableCell(f"unavailable: {row['unavailable']}", "missing", span=4)
    point, low, high = row["energy_per_output_token_j"], row["low"], row["high"]
    in_sample = row["ratio"] is None and row["not_scored"]
    return (
        name,
        TableCell("a band" if point is None else significant(point), "number"),
        TableCell("–" if low is None else f"{significant(low)} to {significant(high)}", "number"),
        TableCell("–" if row["ratio"] is None else f"{row['ratio']:.2f}", "number"),
        TableCell(f"{row['boundary']}; {row['not_scored']}" if in_sample else row["boundary"], tip=_tip(row)),
    )


def _tip(row: dict[str, Any]) -> str:
    return f"Assumes: {'; '.join(row['assumptions'])}. Leaves out: {'; '.join(row['leaves_out'])}."


BATCHES = (8, 16, 32, 64, 128, 256, 512)
FINE = np.geomspace(8, 512, 25)
CONTEXT = 500.0
RATIO_LABELS = {
    "flops": "flops",
    "roofline": "roofline",
    "ecologits": "ecologits",
    "scale": "scale (middle)",
    "lookup": "lookup",
    "energy-roofline": "energy-roofline",
}


def estimate_plots(found: Scorecard) -> dict[str, str]:
    """SVG text by file name."""
    return {
        "estimates-roofline.svg": roofline_plot(found.groups[0]),
        "estimates-ratios.svg": ratio_plot(found.groups[0]),
    }


def roofline_plot(group: Group) -> str:
    """Measured rows as points, the shipped calibration with its 95 % prediction interval as lines."""
    fitted = shipped_calibration("h100-published")
    series = []
    for place, name in enumerate(dict.fromkeys(row.shape.name for row in group.rows)):
        rows = [row for row in group.rows if row.shape.name == name]
        cases = Cases.of([rows[0].shape], [rows[0].gpu], batch=FINE, context=CONTEXT)
        line = fitted.output_tokens(cases)
        colour = SERIES[place % len(SERIES)]
        band = (line.low.tolist(), line.high.tolist())
        series.append(Series("", FINE.tolist(), line.energy_j.tolist(), colour, "solid", band))
        label = f"{name} x{rows[0].tensor_parallel:g}"
        series.append(Series(label, [row.batch for row in rows], [row.output_j for row in rows], colour))
    title = "Energy roofline (lines, modelled, 95 %) and published H100 rows (points)"
    return chart(title, "mean running batch", "J per output token, GPUs", series, x_ticks=BATCHES)


def ratio_plot(group: Group) -> str:
    """Median over the models of estimate / measured, by batch."""
    batches = np.array([row.batch for row in group.rows])
    measured = np.array([row.output_j for row in group.rows])
    series = []
    for place, (name, label) in enumerate(RATIO_LABELS.items()):
        ratios = group.estimates[name] / measured
        known = [batch for batch in BATCHES if np.any(~np.isnan(ratios[batches == batch]))]
        medians = [float(np.nanmedian(ratios[batches == batch])) for batch in known]
        line = ("solid", "dash", "dot")[place % 3] if name != "energy-roofline" else "solid"
        colour = LIGHT["ink"] if name == "energy-roofline" else SERIES[place]
        series.append(Series(label, known, medians, colour, line))
    title = "Estimate over measured, median of the models, published H100 rows"
    return chart(title, "mean running batch", "estimate / measured", series, x_ticks=BATCHES, level=1.0)
