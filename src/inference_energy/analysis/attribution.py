"""Stage `attribute`: receipts, the energy that each request of a window is charged, by proportional attribution.

    E_i = E_window * w_i / sum(w)

with w_i the request's completion tokens inside the window (policy `completion_tokens`) or all its tokens inside
(`total_tokens`). The receipts sum to the window's energy.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.analysis.token_times import Integers, TokenTimes, read_chunks
from inference_energy.config.analysis import AttributionConfig
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts.documents.energy import EnergyDocument, EnergyWindow
from inference_energy.contracts.io import read_table
from inference_energy.contracts.receipts import SCHEMA


def attribute_session(*, requests: Path, energy: EnergyDocument, config: AttributionConfig) -> pd.DataFrame:
    """Return receipts.parquet of a session: a row for every request of every window, also for those without energy.

    `energy_j` is null where the window's energy is not valid, no request has tokens in it, or one that ended well has
    no token counts. `idle_energy_j` is the part of it that the cold idle would have taken anyway, by the same weights;
    null where there is no cold idle.
    `gco2e` stays null: the intensity is applied later, so that another zone repeats no attribution.

    Args:
        requests: requests.parquet; with chunks.parquet beside it, tokens count when they came.
        energy: energy.json of the session.
        config: the policy.
    """
    rows = read_table(requests, requests_contract.SCHEMA)
    chunks = read_chunks(requests)
    cold_w = energy.idle.cold_power_w.value
    parts = [
        _receipts(rows[rows["cell"] == name], chunks, name, window, cold_w, config.attribution)
        for name, window in energy.windows.items()
    ]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=SCHEMA.names)


def weights(
    requests: pd.DataFrame, start_ns: int, end_ns: int, policy: str, chunks: pd.DataFrame | None = None
) -> Integers:
    """Return the tokens of each request inside [start, end) that the policy charges by."""
    tokens = TokenTimes.from_requests(requests, chunks)
    completion = tokens.completion_inside(start_ns, end_ns)
    return completion + tokens.prompt_inside(start_ns, end_ns) if policy == "total_tokens" else completion


def proportional(energy_j: float, weights: NDArray[np.int64]) -> NDArray[np.float64] | None:
    """Return the energy of each request [J]; None where all weights are zero, because then nobody can be charged.

    Args:
        energy_j: the window's energy.
        weights: one count a request, none negative.

    Raises:
        ValueError: a weight is negative.
    """
    if np.any(weights < 0):
        raise ValueError("weights are counts and cannot be negative")
    total = int(weights.sum())
    if total == 0:
        return None
    shares: NDArray[np.float64] = energy_j * (weights.astype(np.float64) / total)
    return shares


def _uncounted(requests: pd.DataFrame, window: EnergyWindow, policy: str) -> bool:
    """Return whether a request of the window ended well without token counts: the others would pay its part."""
    begun_ns = requests["first_token_ns"].fillna(requests["sent_ns"])
    inside = requests["status"].eq("ok") & begun_ns.lt(window.end_ns) & requests["end_ns"].ge(window.start_ns)
    unknown = requests["completion_tokens"].isna()
    if policy == "total_tokens":
        unknown |= requests["prompt_tokens"].isna()
    return bool((inside.fillna(False) & unknown).any())


def _receipts(
    requests: pd.DataFrame,
    chunks: pd.DataFrame | None,
    name: str,
    window: EnergyWindow,
    cold_w: float | None,
    policy: str,
) -> pd.DataFrame:
    tokens = weights(requests, window.start_ns, window.end_ns, policy, chunks)
    energy_j = window.figures["energy_total_j"].value
    known = energy_j is not None and not _uncounted(requests, window, policy)
    charged = proportional(energy_j, tokens) if energy_j is not None and known else None
    idle_j = None
    if charged is not None and cold_w is not None:
        idle_j = proportional(cold_w * (window.end_ns - window.start_ns) / 1e9, tokens)
    nothing = np.full(len(requests), np.nan)
    return pd.DataFrame(
        {
            "request_id": requests["request_id"].to_numpy(),
            "cell": name,
            "policy": policy,
            "energy_j": nothing if charged is None else charged,
            "prefill_energy_j": nothing,
            "decode_energy_j": nothing,
            "idle_energy_j": nothing if idle_j is None else idle_j,
            "gco2e": nothing,
        }
    )
