"""Metric 2: what a prompt token and a generated token cost, alpha and beta, and the power P0 that runs anyway.

Formula:  E_total = P0 T + alpha prompt + beta generated, or without P0 on E_active;  prompt: tokens not from the cache
Takes:    the fits of the summary (`analysis.fit`): coefficients, errors on windows left out, residuals, condition
          number, refusals, missing windows. They are in the summary and not repeated here.
Adds:     the standard error of each coefficient that has a value, u_c of its budget [unit of the coefficient], and the
          variance inflation factor of each column, VIF_j = [(X'X)^-1]_jj. X is the weighted design with columns of
          length one, not centered, since the models have no intercept. VIF is 1 for orthogonal columns; above 10, most
          of the coefficient's variance comes from telling the columns apart.
Source:   Belsley, Kuh, Welsch, Regression Diagnostics (1980), ch. 3.
Says:     nothing if the fit refuses: one workload alone is collinear.
"""

import numpy as np

from inference_energy.analysis.integration import Values
from inference_energy.contracts.documents.energy import FitDocument, FitModel, FitWindow
from inference_energy.contracts.documents.experiment import TokenCost, TokenCostModel

MAX_CONDITION = 1e8
"""Designs with a larger condition number are singular up to rounding."""


def token_cost(fit: FitDocument) -> TokenCost:
    """Return standard errors and VIF of each model of one server's fit, by term; None without one."""
    return TokenCost(
        machine=fit.machine,
        server=fit.server,
        models={
            name: TokenCostModel(
                standard_errors={
                    term: figure.budget.combined if figure.budget else None
                    for term, figure in model.coefficients.items()
                },
                vif=_inflation(model, fit.cells),
            )
            for name, model in fit.models.items()
        },
    )


def variance_inflation(design: Values) -> list[float] | None:
    """Return the VIF of each column of a weighted design, shape (windows, terms); None if two columns are equal."""
    lengths = np.linalg.norm(design, axis=0)
    if design.shape[0] < design.shape[1] or np.any(lengths == 0):
        return None
    normalized = design / lengths
    if np.linalg.cond(normalized) > MAX_CONDITION:
        return None
    return [float(value) for value in np.diag(np.linalg.inv(normalized.T @ normalized))]


def _inflation(model: FitModel, windows: list[FitWindow]) -> dict[str, float | None]:
    terms = list(model.coefficients)
    # Weighted as in the fit: by 1/E, so that relative residuals count.
    rows = [
        [_amount(window, term) / _energy_j(window, model) for term in terms]
        for window in windows
        if window.cell in model.cells
    ]
    factors = variance_inflation(np.array(rows, dtype=np.float64)) if rows else None
    return dict(zip(terms, factors, strict=True)) if factors else dict.fromkeys(terms)


def _amount(window: FitWindow, term: str) -> float:
    """Return the amount that a term's coefficient multiplies."""
    amounts = {
        "power": window.duration_s,
        "prompt": window.uncached_prompt_tokens,
        "generated": window.generated_tokens,
    }
    return amounts[term]


def _energy_j(window: FitWindow, model: FitModel) -> float:
    return window.energy_total_j if model.energy_basis == "total" else window.energy_active_j or 0.0
