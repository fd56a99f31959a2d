"""Metric 5: the energy-delay product, which trades energy against latency.

Formula:  EDP = e_r L [J s], with e_r = E / N_requests and L the mean time from sending to the last token;
          token form  e_o TPOT [J s], with e_o = E / N_out and TPOT the mean over requests
Takes:    energies per request and per output token (`analysis.energy_per_unit`), latencies of requests.parquet.
Interval: energy, counts and latencies of a window fluctuate together, so the product's linearised series is resampled:
          dV / V = dE / E - dN / N + d(sum L) / sum L - dn / n.
Source:   Gonzalez and Horowitz, IEEE JSSC 31(9) 1996; for LLM serving per request and per token.
Says:     which of two configurations wastes less of energy and time together. It favors neither speed nor frugality,
          and does not replace the two numbers behind it.
"""

import numpy as np
import pandas as pd

from inference_energy.analysis.figures import blocking_reasons, scaled
from inference_energy.analysis.integration import Times, Values
from inference_energy.contracts.figure import Figure
from inference_energy.contracts.reason_codes import reason
from inference_energy.metrics.inputs import BASES, WindowInputs
from inference_energy.metrics.uncertainty import LOAD, bounded, fluctuation_of_sum, like, terms_of


def energy_delay(window: WindowInputs) -> dict[str, Figure]:
    """Return `energy_delay_{basis}_per_request_j_s` and `energy_delay_{basis}_per_token_j_s`."""
    finished = window.finished()
    taken_s = (finished["last_token_ns"] - finished["sent_ns"]) / 1e9
    has_several = finished["completion_tokens"].fillna(0) > 1
    multi_token = finished[has_several]
    tpot_s = (
        (multi_token["last_token_ns"] - multi_token["first_token_ns"]) / (multi_token["completion_tokens"] - 1) / 1e9
    )
    figures = {}
    for basis in BASES:
        request, token = (window.figures[f"energy_{basis}_per_{per}_j"] for per in ("request", "output_token"))
        figures[f"energy_delay_{basis}_per_request_j_s"] = _product(
            window, basis, request, "requests", finished, taken_s
        )
        figures[f"energy_delay_{basis}_per_token_j_s"] = _product(
            window, basis, token, "output_tokens", finished, tpot_s
        )
    return figures


def _product(
    window: WindowInputs, basis: str, energy: Figure, count: str, finished: pd.DataFrame, latency_s: "pd.Series[float]"
) -> Figure:
    latencies_s = latency_s.dropna().astype("float64")
    problems = [*blocking_reasons(energy), *blocking_reasons(window.figures["requests"])]
    if not problems and latencies_s.empty:
        problems.append(reason("no_requests", "No request that this could be taken from ended in the window."))
    if problems or energy.value is None:
        return like(energy, None, "J s", reasons=problems, counted=True)
    mean_s = float(latencies_s.mean())
    product = like(energy, energy.value * mean_s, "J s", notes=energy.reasons, counted=True)
    if energy.budget is None:
        return product
    ends_ns = finished.loc[latencies_s.index, "last_token_ns"].to_numpy(dtype=np.int64)
    series = _linear(window, basis, count, np.asarray(latencies_s, dtype=np.float64), ends_ns)
    energy_terms = terms_of(scaled(energy, mean_s, "J s"), LOAD)
    return bounded(
        product, [*energy_terms, *fluctuation_of_sum(None if series is None else energy.value * mean_s * series)]
    )


def _linear(window: WindowInputs, basis: str, count: str, latency_s: Values, ends_ns: Times) -> Values | None:
    """Return the relative change of the product due to each bin."""
    energy_j, counts = window.above_idle_j(basis), window.bins[count]
    if energy_j is None or len(energy_j) != len(counts):
        return None
    ended = np.histogram(ends_ns, bins=window.edges_ns)[0].astype(np.float64)
    summed_s = np.histogram(ends_ns, bins=window.edges_ns, weights=latency_s)[0]
    parts = ((energy_j, 1.0), (counts, -1.0), (summed_s, 1.0), (ended, -1.0))
    return np.asarray(sum(sign * part / part.sum() for part, sign in parts), dtype=np.float64)
