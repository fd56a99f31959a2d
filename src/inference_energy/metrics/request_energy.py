"""Metric 3: energy per request, its mean, percentiles and parts.

Formula:  E_i from the receipts, which sum to the window's energy;  mean = E / N_requests;
          idle share = P_cold T / E;  prefill and decode share = sum of their part / sum of E_i
Takes:    receipts.parquet (`analysis.attribution`); the mean is `energy_total_per_request_j` of the summary.
Needs:    for the shares of prefill and decode, a policy that separates them.
Interval: percentiles combine, in quadrature, the interval of the order statistics (`analysis.latency`) with that of the
          window's energy; in the idle share the gain of a card cancels, because it errs alike in both powers.
Says:     how a rule shares the energy: requests in a batch share every step. Percentiles count requests that lie wholly
          in the window, because others are also charged elsewhere; if requests last as long as windows, these are the
          short ones.
"""

import math

import numpy as np
import pandas as pd
from msgspec import structs

from inference_energy.analysis.figures import blocking_reasons
from inference_energy.analysis.latency import percentiles, values_needed
from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.figure import Figure
from inference_energy.contracts.reason_codes import reason
from inference_energy.metrics.inputs import WindowInputs
from inference_energy.metrics.uncertainty import LOAD, SCALE, bounded, half_width, like, scale_of, terms_of

PERCENTILES = (50.0, 90.0, 99.0)
PARTS = {"prefill": "prefill_energy_j", "decode": "decode_energy_j"}


def request_energy(window: WindowInputs, uncertainty: Uncertainty) -> dict[str, Figure]:
    """Return `request_energy_{p50,p90,p99}_j` and `request_energy_{prefill,decode,idle}_share`."""
    shares = {f"request_energy_{part}_share": _part(window, column) for part, column in PARTS.items()}
    return {**_percentiles(window), **shares, "request_energy_idle_share": idle_share(window, uncertainty)}


def whole_requests(window: WindowInputs) -> pd.DataFrame:
    """Return `energy_j` and `last_token_ns` of the charged requests that were sent and ended within the window."""
    rows = window.finished()
    whole = rows.loc[(rows["sent_ns"] >= window.times_ns[0]).fillna(False), ["request_id", "last_token_ns"]]
    charged = window.receipts[window.receipts["energy_j"] > 0]
    return whole.merge(charged[["request_id", "energy_j"]], on="request_id").dropna()


def _percentiles(window: WindowInputs) -> dict[str, Figure]:
    energy = window.figures["energy_total_j"]
    rows = pd.DataFrame() if energy.value is None else whole_requests(window)
    problems = [*blocking_reasons(energy), *blocking_reasons(window.figures["output_tokens"])]
    if not problems and rows.empty:
        problems.append(reason("no_requests", "No request that was charged lies wholly in the window."))
    names = [f"request_energy_p{rank:g}_j" for rank in PERCENTILES]
    if problems or energy.value is None:
        return {name: like(energy, None, "J/request", reasons=problems) for name in names}
    values = rows["energy_j"].to_numpy(dtype=np.float64)
    times_ns = rows["last_token_ns"].to_numpy(dtype=np.int64)
    relative, notes = half_width(energy) / energy.value, list(energy.reasons)
    charged = int((window.receipts["energy_j"] > 0).sum())
    if charged > len(rows):
        text = f"{len(rows)} of the {charged} requests that were charged lie wholly in the window."
        notes.append(reason("whole_requests_only", text))
    figures = {}
    for name, rank, estimate in zip(
        names, PERCENTILES, percentiles(values, times_ns, window.edges_ns, PERCENTILES), strict=True
    ):
        if estimate.interval_95 is None:
            needed = values_needed(rank)
            text = f"Percentile {rank:g} of {len(values):,} requests: an upper bound at 95 % needs {needed:,}."
            figures[name] = like(energy, None, "J/request", reasons=[reason("few_samples", text)])
            continue
        figure = like(energy, estimate.value, "J/request", notes=notes)
        if energy.budget is not None:
            below, above = (
                math.hypot(estimate.value - bound, relative * estimate.value) for bound in estimate.interval_95
            )
            figure = structs.replace(figure, interval_95=(estimate.value - below, estimate.value + above))
        figures[name] = figure
    return figures


def _part(window: WindowInputs, column: str) -> Figure:
    energy = window.figures["energy_total_j"]
    rows, policies = window.receipts, ", ".join(sorted(set(window.receipts["policy"])))
    problems = [*blocking_reasons(energy)]
    total_j = float(rows["energy_j"].sum())
    if not problems and (rows[column].isna().all() or total_j <= 0):
        problems.append(
            reason(
                "not_split",
                f"Receipts by {policies or 'no policy'} do not say which part is that of {column.partition('_')[0]}.",
            )
        )
    value = None if problems else float(rows[column].sum()) / total_j
    return like(energy, value, "share", reasons=problems, notes=energy.reasons)


def idle_share(window: WindowInputs, uncertainty: Uncertainty) -> Figure:
    """Return the share of the window's energy that the cold idle would have used anyway."""
    energy, idle = window.figures["energy_total_j"], window.idle["cold"]
    problems = [*blocking_reasons(energy), *blocking_reasons(idle)]
    if problems or not energy.value or idle.value is None:
        absent = problems or [reason("no_power_source", "The window took no energy.")]
        return like(energy, None, "share", reasons=absent)
    share = idle.value * window.duration_s / energy.value
    figure = like(energy, share, "share", notes=[*energy.reasons, *idle.reasons])
    if energy.budget is None or idle.budget is None:
        return figure
    devices = window.devices
    parts = {
        name: (devices.idle_w["cold"].get(name, 0.0) * window.duration_s - share * energy_j) / energy.value
        for name, energy_j in devices.energies_j.items()
    }
    amount = (1 - share) * window.duration_s / energy.value
    terms = [term.scaled(window.duration_s / energy.value) for term in terms_of(idle, *SCALE)]
    terms += [term.scaled(share / energy.value) for term in terms_of(energy, *SCALE, LOAD)]
    return bounded(figure, [*terms, *scale_of(parts, amount, devices.corrections, uncertainty)])
