"""The report's section on fits: coefficients, errors, and predicted over measured energy of each window."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import plotly.graph_objects as go

from inference_energy.contracts.documents.energy import FitDocument, FitModel
from inference_energy.present import page
from inference_energy.present.figures_text import FormattedFigure, format_figure, sentence, significant

TITLES = {"two_term": "Two terms", "power_term": "With a power term"}
TERMS = {"power": "P0, whatever the load", "prompt": "a, per uncached prompt token", "generated": "b, per output token"}

WITHIN = "The 95\u00a0% intervals hold what measuring leaves open; how wrong the model is, the windows held out say."


@dataclass(frozen=True)
class FitView:
    """One model of a fit as it is shown; a refused one has figures without values, and reasons."""

    title: str
    formula: str
    rows: list[tuple[str, FormattedFigure]]
    facts: list[tuple[str, str]]
    reasons: list[str]


@dataclass(frozen=True)
class FitGroup:
    """The models fitted to the windows of one server on one machine, and windows that would improve them."""

    title: str
    views: list[FitView]
    excluded: list[tuple[str, str]]
    missing_windows: list[str]


def fit_groups(fits: Sequence[FitDocument]) -> list[FitGroup]:
    """Return the fits in the order of the summary."""
    return [
        FitGroup(
            title=" on ".join(name for name in (fit.server, fit.machine) if name),
            views=[_view(model) for model in fit.models.values()],
            excluded=[
                (window.cell, " ".join(sentence(reason.detail) for reason in window.reasons)) for window in fit.excluded
            ],
            missing_windows=fit.missing_cells,
        )
        for fit in fits
    ]


def ratios(fits: Sequence[FitDocument]) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return predicted over measured energy of each window: for each model in sample, then with the window held out.

    The two come in pairs; a model without ratios is left out, and without held-out ratios the second is empty.
    """
    series: list[tuple[str, list[tuple[str, float]]]] = []
    for fit in fits:
        for model in fit.models.values():
            name = model_title(model) + (f", {fit.server} on {fit.machine}" if len(fits) > 1 else "")
            in_sample = [(row.cell, row.ratio) for row in model.residuals]
            held_out = list(model.leave_one_out.ratios.items()) if model.leave_one_out else []
            if in_sample:
                series += [(name, in_sample), (f"{name}, window held out", held_out)]
    return series


def model_title(model: FitModel) -> str:
    """Return a model's name in words."""
    return TITLES.get(model.name, model.name.replace("_", " "))


def _view(model: FitModel) -> FitView:
    rows = [(TERMS.get(name, name), format_figure(figure)) for name, figure in model.coefficients.items()]
    reasons = [sentence(reason.detail) for reason in model.refused]
    reasons += [reason for _, shown in rows for reason in (*shown.reasons, shown.no_interval_reason) if reason]
    if any(shown.interval for _, shown in rows):
        reasons.append(WITHIN)
    held_out = model.leave_one_out
    # Prediction first, then fit; R² of a refused fit is left out, because it would look like a result.
    shares = (
        ("mean error, window held out", held_out.mean_abs_relative_error if held_out else None),
        ("worst error, window held out", held_out.worst_abs_relative_error if held_out else None),
        ("mean error, own cells", model.mean_abs_relative_error),
    )
    numbers = (("R², own cells", None if model.refused else model.r2), ("condition number", model.condition_number))
    facts = [
        ("fitted to", f"{len(model.cells)} cells, {model.energy_basis} energy"),
        *((name, f"{significant(100 * value, 2)} %") for name, value in shares if value is not None),
        *((name, significant(value, 3)) for name, value in numbers if value is not None),
    ]
    return FitView(model_title(model), model.formula, rows, facts, list(dict.fromkeys(reasons)))


def plot_fit(fits: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> go.Figure | None:
    """Plot predicted over measured energy of each window; None without windows.

    Args:
        fits: see `ratios`; labels of the windows with their ratios, by the model's name.
    """
    if not any(windows for _, windows in fits):
        return None
    height = 150 + 26 * len({label for _, windows in fits for label, _ in windows})
    plot = go.Figure(layout=page.layout("predicted / measured energy", "", height=height, hovermode="y unified"))
    for index, (name, windows) in enumerate(fits):
        # Names come in pairs, in sample and held out: one color, filled and open.
        color, _ = page.series(index // 2)
        symbol = page.SYMBOLS[index // 2 % len(page.SYMBOLS)] + ("-open" if index % 2 else "")
        plot.add_scatter(
            x=[ratio for _, ratio in windows],
            y=[escape(label) for label, _ in windows],
            name=escape(name),
            mode="markers",
            marker={"size": 10, "symbol": symbol, "color": color, "line": {"width": 2, "color": color}},
            hovertemplate="%{x:.3f}",
        )
    plot.add_vline(x=1, line={"color": page.LIGHT["soft"], "width": 1, "dash": "dash"})
    plot.update_yaxes(autorange="reversed", rangemode="normal", showgrid=True)
    plot.update_xaxes(rangemode="tozero")
    return plot
