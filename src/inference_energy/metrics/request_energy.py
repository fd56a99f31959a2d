"""Metric 3: energy of a request, its mean, its percentiles, and its parts.

Formula:  E_i from the receipts, which sum to the window's energy;  mean = E / N_requests;
          idle share = P_cold T / E;  prefill and decode share = sum of their part / sum of E_i
Takes:    receipts.parquet (`analysis.attribution`); the mean is `energy_total_per_request_j`, which stands in the
          summary.
Needs:    for prefill and decode a policy that tells them apart.
Interval: of percentiles that of the order statistics (`analysis.percentiles`) and that of the window's energy, in
          quadrature; of the idle share the gain of a card cancels, as it errs in both powers.
Says:     a rule for sharing: requests in a batch share every step. Percentiles are of requests that lie wholly in the
          window, because the others pay a part elsewhere; where requests take as long as windows, these are the short.
"""

import math

import numpy as np
import pandas as pd
from msgspec import structs

from inference_energy.analysis.figures import blocking_reasons, reason
from inference_energy.analysis.latency import needed, percentiles
from inference_energy.config.analysis import Uncertainty
from inference_energy.contracts.figure import Figure
from inference_energy.metrics.inputs import WindowInputs
from inference_energy.metrics.uncertainty import LOAD, SCALE, bounded, half_width, like, scale_of, terms_of

PERCENTILES = (50.0, 90.0, 99.0)
PARTS = {"prefill": "prefill_energy_j", "decode": "decode_energy_j"}


def request_energy(window: WindowInputs, uncertainty: Uncertainty) -> dict[str, Figure]:
    """`request_energy_{p50,p90,p99}_j` and `request_energy_{prefill,decode,idle}_share`."""
    shares = {f"request_energy_{part}_share": _part(window, column) for part, column in PARTS.items()}
    return {**_percentiles(window), **shares, "request_energy_idle_share": idle_share(window, uncertainty)}


def whole_requests(window: WindowInputs) -> pd.DataFrame:
    """The charged requests that were sent and ended within the window: `energy_j` and `last_token_ns`."""
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
    found = {}
    for name, rank, own in zip(
        names, PERCENTILES, percentiles(values, times_ns, window.edges_ns, PERCENTILES), strict=True
    ):
        if own.interval_95 is None:
            text = f"Percentile {rank:g} of {len(values):,} requests: an upper bound at 95 % needs {needed(rank):,}."
            found[name] = like(energy, None, "J/request", reasons=[reason("few_samples", text)])
            continue
        figure = like(energy, own.value, "J/request", notes=notes)
        if energy.budget is not None:
            below, above = (math.hypot(own.value - bound, relative * own.value) for bound in own.interval_95)
            figure = structs.replace(figure, interval_95=(own.value - below, own.value + above))
        found[name] = figure
    return found


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
    """The share of the window's energy that the cold idle would have taken anyway."""
    energy, idle = window.figures["energy_total_j"], window.idle["cold"]
    problems = [*blocking_reasons(energy), *blocking_reasons(idle)]
    if problems or not energy.value or idle.value is None:
        absent = problems or [reason("no_power_source", "The window took no energy.")]
        return like(energy, None, "share", reasons=absent)
    share = idle.value * window.duration_s / energy.value
    found = like(energy, share, "share", notes=[*energy.reasons, *idle.reasons])
    if energy.budget is None or idle.budget is None:
        return found
    devices = window.devices
    parts = {
        name: (devices.idle_w["cold"].get(name, 0.0) * window.duration_s - share * energy_j) / energy.value
        for name, energy_j in devices.energies_j.items()
    }
    amount = (1 - share) * window.duration_s / energy.value
    own = [term.scaled(window.duration_s / energy.value) for term in terms_of(idle, *SCALE)]
    own += [term.scaled(share / energy.value) for term in terms_of(energy, *SCALE, LOAD)]
    return bounded(found, [*own, *scale_of(parts, amount, devices.corrections, uncertainty)])
