"""The truth of fitted terms over the windows of a load, by the windows that a fit was made to.

A fit to other windows estimates other coefficients: no model of the family holds exactly, and without the window of a
low load, in which the device is often idle, a token costs less and the power is higher. Where the pipeline left out a
window that was not steady, its terms are therefore set beside those of the windows that it kept.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from inference_energy.analysis.fit.models import MODELS, fit_model
from inference_energy.analysis.fit.stage import WEIGHTING
from inference_energy.validation.trial import Outcome, Trial


class FitTruth:
    """Mean true terms over the trials of one scenario.

    Args:
        trials: those of one scenario.
    """

    def __init__(self, trials: Sequence[Trial]) -> None:
        self._trials = trials
        self._means = cache(self._mean_terms)

    def of(self, outcome: Outcome) -> float | None:
        """The mean truth of a fitted term over all trials that have the windows of this fit; None where none has."""
        model, _, term = outcome.quantity.partition(": ")
        return self._means(model, outcome.fitted_to).get(term)

    def _mean_terms(self, name: str, fitted_to: tuple[str, ...]) -> dict[str, float]:
        model = next(model for model in MODELS if model.name == name)
        values: dict[str, list[float]] = {}
        for trial in self._trials:
            held = {cell.name: cell for cell in trial.true_cells}
            if not all(cell in held for cell in fitted_to):
                continue
            fitted = fit_model(model, [held[cell] for cell in fitted_to], WEIGHTING)["coefficients"]
            for term, figure in fitted.items():
                if figure["value"] is not None:
                    values.setdefault(term, []).append(figure["value"])
        return {term: float(np.mean(found)) for term, found in values.items()}
