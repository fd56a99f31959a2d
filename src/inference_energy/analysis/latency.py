"""Latency percentiles of the requests that ended well and whose last token lies in the window.

TTFT = first token - sent; TPOT = (last token - first token) / (tokens - 1); end to end = last token - sent. From the
schedule, the client's own delay is inside, so a client that falls behind cannot hide it (coordinated omission). A
closed loop has no schedule, so there these are not given.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from inference_energy.analysis.validity import judged, reason
from inference_energy.contracts.figure import Figure, Reason

PERCENTILES = (50, 90, 99)
MIN_SAMPLES = {50: 5, 90: 20, 99: 200}
"""Fewer requests than two beyond a percentile (five for the median) bring a note."""


def latency_figures(
    requests: pd.DataFrame, reasons: Iterable[Reason], notes: Iterable[Reason], no_schedule: Iterable[Reason] = ()
) -> dict[str, Figure]:
    """The percentiles as figures.

    Args:
        requests: rows of requests.parquet that ended well in the window.
        reasons: what invalidates latencies in this window.
        notes: what is worth saying about them.
        no_schedule: what invalidates latencies from the schedule alone.
    """
    reasons, notes, no_schedule = [*reasons], [*notes], [*no_schedule]
    sent, scheduled = requests["sent_ns"], requests["scheduled_ns"]
    first, last = requests["first_token_ns"], requests["last_token_ns"]
    several = requests["completion_tokens"].fillna(0) > 1
    samples = {
        "ttft": first - sent,
        "ttft_from_schedule": first - scheduled,
        "tpot": (last - first)[several] / (requests["completion_tokens"][several] - 1),
        "e2e": last - sent,
        "e2e_from_schedule": last - scheduled,
    }
    figures = {}
    for name, nanoseconds in samples.items():
        values = nanoseconds.dropna().to_numpy(dtype=np.float64) / 1e9
        unit = "s/token" if name == "tpot" else "s"
        against = [*reasons, *(no_schedule if name.endswith("from_schedule") else [])]
        for percentile in PERCENTILES:
            figures[f"{name}_p{percentile}_s"] = _percentile(values, percentile, unit, against, notes)
    return figures


def lag_s(requests: pd.DataFrame) -> dict[str, float] | None:
    """Percentiles of sent minus scheduled over the requests that had a schedule, in s; None where none had."""
    lag = (requests["sent_ns"] - requests["scheduled_ns"]).dropna().to_numpy(dtype=np.float64) / 1e9
    if not len(lag):
        return None
    return {"p50": float(np.percentile(lag, 50)), "p99": float(np.percentile(lag, 99)), "max": float(lag.max())}


def _percentile(
    values: "np.ndarray[tuple[int], np.dtype[np.float64]]",
    percentile: int,
    unit: str,
    reasons: list[Reason],
    notes: list[Reason],
) -> Figure:
    value = None
    if not len(values):
        reasons = [*reasons, reason("no_requests", "No request that this could be taken from ended in the window.")]
    else:
        value = float(np.percentile(values, percentile))
        if len(values) < MIN_SAMPLES[percentile]:
            notes = [*notes, reason("few_samples", f"Percentile {percentile} of {len(values)} requests.")]
    return judged(value, unit, boundary="client", grade="counted", reasons=reasons, notes=notes)
