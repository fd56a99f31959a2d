"""The fits side by side: coefficients, errors, and how far each misses the cells it was fitted to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from inference_energy.present.figures_text import FormattedFigure, format_figure, sentence, significant

TITLES = {"two_term": "Two terms", "power_term": "With a power term"}
TERMS = {"power": "P0, whatever the load", "prompt": "a, per uncached prompt token", "generated": "b, per output token"}

WITHIN = "The 95\u00a0% intervals hold what measuring leaves open; how wrong the model is, the cells held out say."


@dataclass(frozen=True)
class FitView:
    """One model of a fit as it is shown; a refused one has places without numbers, and the reasons."""

    title: str
    formula: str
    rows: list[tuple[str, FormattedFigure]]
    facts: list[tuple[str, str]]
    reasons: list[str]


@dataclass(frozen=True)
class FitGroup:
    """The models fitted to the cells of one server on one machine, and what would make them better."""

    title: str
    views: list[FitView]
    excluded: list[tuple[str, str]]
    missing_cells: list[str]


def fit_groups(fits: Sequence[dict[str, Any]]) -> list[FitGroup]:
    """The fits in the summary's order."""
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
    """Predicted over measured energy: each model's name with its cells' ratios, then the same with each cell held out.

    The two come in pairs; a model without ratios is left out, and one without held-out ratios has an empty second.
    """
    found: list[tuple[str, list[tuple[str, float]]]] = []
    for fit in fits:
        for model in fit["models"].values():
            name = title(model) + (f", {fit['server']} on {fit['machine']}" if len(fits) > 1 else "")
            rows = {row["cell"]: row["ratio"] for row in model.get("residuals") or []}
            held_out = (model.get("leave_one_out") or {}).get("ratios") or {}
            if rows:
                found += [(name, list(rows.items())), (f"{name}, cell held out", list(held_out.items()))]
    return found


def title(model: dict[str, Any]) -> str:
    """A model's name in words."""
    name = str(model["name"])
    return TITLES.get(name, name.replace("_", " "))


def _view(model: dict[str, Any]) -> FitView:
    rows = [(TERMS.get(name, name), format_figure(figure)) for name, figure in model["coefficients"].items()]
    reasons = [sentence(str(reason["detail"])) for reason in model.get("refused") or []]
    reasons += [reason for _, shown in rows for reason in (*shown.reasons, shown.unbounded) if reason]
    if any(shown.interval for _, shown in rows):
        reasons.append(WITHIN)
    # First what it predicts, then how it fits: R² of a refused fit would only make it look like a result.
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
    return FitView(title(model), str(model.get("formula") or ""), rows, facts, list(dict.fromkeys(reasons)))
