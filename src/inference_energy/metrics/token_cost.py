"""Metric 2: what a prompt token and a generated token cost, alpha and beta, and the power P0 that runs anyway.

Formula:  E_total = P0 T + alpha prompt + beta generated, or without P0 on E_active;  prompt: tokens not from the cache
Takes:    the fits of the summary (`analysis.fit`): coefficients, errors on windows left out, residuals, condition
          number, refusals, missing windows. They stand there and are not repeated.
Adds:     the standard error of each coefficient that is given, u_c of its budget [unit of the coefficient], and the
          variance inflation factor of each column, VIF_j = [(X'X)^-1]_jj, with X the weighted design, its columns of
          length one and not centred, since the models have no intercept: 1 for columns at right angles; above 10, the
          coefficient's variance is mostly that of telling the columns apart.
Source:   Belsley, Kuh, Welsch, Regression Diagnostics (1980), ch. 3.
Says:     nothing where the fit refuses: one workload alone is collinear.
"""

from typing import Any

import numpy as np

from inference_energy.analysis.figures import figure_from_dict
from inference_energy.analysis.integration import Values
from inference_energy.analysis.uncertainty.budget import Budget

_COLUMNS = {"power": "duration_s", "prompt": "uncached_prompt_tokens", "generated": "generated_tokens"}
MAX_CONDITION = 1e8
"""Designs that are singular but for rounding have no inverse."""


def token_cost(fit: dict[str, Any]) -> dict[str, Any]:
    """For each model of one server's fit: `standard_errors` and `vif` by term, None where there is none.

    Args:
        fit: fit.json.
    """
    return {
        "machine": fit["machine"],
        "server": fit["server"],
        "models": {
            name: {
                "standard_errors": {term: _standard_error(figure) for term, figure in model["coefficients"].items()},
                "vif": _inflation(model, fit["cells"]),
            }
            for name, model in fit["models"].items()
        },
    }


def variance_inflation(design: Values) -> list[float] | None:
    """VIF of each column of a weighted design, shape (windows, terms); None where two columns are one."""
    lengths = np.linalg.norm(design, axis=0)
    if design.shape[0] < design.shape[1] or np.any(lengths == 0):
        return None
    even = design / lengths
    if np.linalg.cond(even) > MAX_CONDITION:
        return None
    return [float(value) for value in np.diag(np.linalg.inv(even.T @ even))]


def _inflation(model: dict[str, Any], windows: list[dict[str, Any]]) -> dict[str, float | None]:
    terms, energy = list(model["coefficients"]), f"energy_{model['energy_basis']}_j"
    used = [window for window in windows if window["cell"] in model["cells"]]
    # As the fit weights them: by 1/E, so that relative residuals count.
    rows = [[window[_COLUMNS[term]] / window[energy] for term in terms] for window in used]
    found = variance_inflation(np.array(rows, dtype=np.float64)) if rows else None
    return {term: found[place] if found else None for place, term in enumerate(terms)}


def _standard_error(content: dict[str, Any]) -> float | None:
    figure = figure_from_dict(content)
    return None if figure.budget is None else Budget.from_record(figure.budget).combined
