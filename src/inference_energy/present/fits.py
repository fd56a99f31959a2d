"""The report's section on fits: coefficients, errors, and predicted over measured energy of each window."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from inference_energy.present import page
from inference_energy.present.figures_text import FormattedFigure, format_figure, sentence, significant

TITLES = {"two_term": "Two terms", "power_term": "With a power term"}
TERMS = {"power": "P0, whatever the load", "prompt": "a, per uncached prompt token", "generated": "b, per output token"}

WITHIN = "The 95\u00a0% intervals hold what measuring leaves open; how wrong the model is, the cells held out say."


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
    missing_cells: list[str]


def fit_groups(fits: Sequence[dict[str, Any]]) -> list[FitGroup]:
    """Return the fits in the order of the summary."""
    return [
        FitGroup(
            title=" on ".join(str(fit[key]) for key in ("server", "machine") if fit.get(key)),
            views=[_view(model) for model in fit["models"].values()],
            excluded=[
                (str(entry["cell"]), " ".join(sentence(str(reason["detail"])) for reason in entry["reasons"]))
                for entry in fit.get("excluded") or []
            ],
            missing_cells=[str(text) for text in fit.get("missing_cells") or []],
        )
        for fit in fits
    ]


def ratios(fits: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[str, float]]]]:
    """Return predicted over measured energy of each window: for each model in sample, then with the window held out.

    The two come in pairs; a model without ratios is left out, and without held-out ratios the second is empty.
    """
    series: list[tuple[str, list[tuple[str, float]]]] = []
    for fit in fits:
        for model in fit["models"].values():
            name = model_title(model) + (f", {fit['server']} on {fit['machine']}" if len(fits) > 1 else "")
            rows = {row["cell"]: row["ratio"] for row in model.get("residuals") or []}
            held_out = (model.get("leave_one_out") or {}).get("ratios") or {}
            if rows:
                series += [(name, list(rows.items())), (f"{name}, cell held out", list(held_out.items()))]
    return series


def model_title(model: dict[str, Any]) -> str:
    """Return a model's name in words."""
    name = str(model["name"])
    return TITLES.get(name, name.replace("_", " "))


def _view(model: dict[str, Any]) -> FitView:
    rows = [(TERMS.get(name, name), format_figure(figure)) for name, figure in model["coefficients"].items()]
    reasons = [sentence(str(reason["detail"])) for reason in model.get("refused") or []]
    reasons += [reason for _, shown in rows for reason in (*shown.reasons, shown.no_interval_reason) if reason]
    if any(shown.interval for _, shown in rows):
        reasons.append(WITHIN)
    # Prediction first, then fit; R² of a refused fit is left out, because it would look like a result.
    facts = [("fitted to", f"{len(model['cells'])} cells, {model.get('energy_basis', '')} energy")]
    held_out = model.get("leave_one_out") or {}
    for name, value, share in (
        ("mean error, cell held out", held_out.get("mean_abs_relative_error"), True),
        ("worst error, cell held out", held_out.get("worst_abs_relative_error"), True),
        ("mean error, own cells", model.get("mean_abs_relative_error"), True),
        ("R², own cells", None if model.get("refused") else model.get("r2"), False),
        ("condition number", model.get("condition_number"), False),
    ):
        if value is not None:
            facts.append((name, f"{significant(100 * value, 2)} %" if share else significant(float(value), 3)))
    return FitView(model_title(model), str(model.get("formula") or ""), rows, facts, list(dict.fromkeys(reasons)))


def plot_fit(fits: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> go.Figure | None:
    """Plot predicted over measured energy of each window; None without windows.

    Args:
        fits: see `ratios`; labels of the windows with their ratios, by the model's name.
    """
    if not any(cells for _, cells in fits):
        return None
    height = 150 + 26 * len({label for _, cells in fits for label, _ in cells})
    plot = go.Figure(layout=page.layout("predicted / measured energy", "", height=height, hovermode="y unified"))
    for index, (name, cells) in enumerate(fits):
        # Names come in pairs, in sample and held out: one color, filled and open.
        color, _ = page.series(index // 2)
        symbol = page.SYMBOLS[index // 2 % len(page.SYMBOLS)] + ("-open" if index % 2 else "")
        plot.add_scatter(
            x=[ratio for _, ratio in cells],
            y=[escape(label) for label, _ in cells],
            name=escape(name),
            mode="markers",
            marker={"size": 10, "symbol": symbol, "color": color, "line": {"width": 2, "color": color}},
            hovertemplate="%{x:.3f}",
        )
    plot.add_vline(x=1, line={"color": page.LIGHT["soft"], "width": 1, "dash": "dash"})
    plot.update_yaxes(autorange="reversed", rangemode="normal", showgrid=True)
    plot.update_xaxes(rangemode="tozero")
    return plot
