"""The client's token counts against the server's own counters, over the same window.

A counter is read once a scrape, so its value at a window's edge is interpolated between the two scrapes around it. The
true value lies between theirs; the largest possible error of both edges is allowed on top of the tolerance.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.analysis.validity import reason
from inference_energy.contracts.figure import Reason

GENERATED = "vllm:generation_tokens_total"
PROMPT = "vllm:prompt_tokens_total"
CACHED = "vllm:prompt_tokens_cached_total"
STEPS = "vllm:iteration_tokens_total_count"
PREEMPTIONS = "vllm:num_preemptions_total"
RUNNING = "vllm:num_requests_running"


def counter_rise(metrics: pd.DataFrame, name: str, start_ns: int, end_ns: int) -> tuple[float, float] | None:
    """How much a counter grew over a window, and how far interpolation can be off.

    Args:
        metrics: rows of server_metrics.parquet; a counter with several label sets is their sum.
        name: the counter.
        start_ns: start of the window.
        end_ns: end of the window.

    Returns:
        (rise, allowance), or None where the scrapes do not cover the window.
    """
    times_ns, values = series(metrics, name)
    if len(times_ns) < 2 or times_ns[0] > start_ns or times_ns[-1] < end_ns:
        return None
    start, start_off = _at(times_ns, values, start_ns)
    end, end_off = _at(times_ns, values, end_ns)
    return end - start, start_off + end_off


def series(metrics: pd.DataFrame, name: str) -> tuple["np.ndarray[Any, Any]", "np.ndarray[Any, Any]"]:
    """Times and values of a counter or gauge, summed over its label sets."""
    rows = metrics[metrics["name"] == name]
    total = rows.groupby("timestamp_ns", sort=True)["value"].sum()
    return total.index.to_numpy(dtype=np.int64), total.to_numpy(dtype=np.float64)


def block_means(metrics: pd.DataFrame, name: str, edges_ns: "np.ndarray[Any, Any]") -> list[float] | None:
    """Mean of a gauge's samples in each block; None where a block has no sample."""
    times_ns, values = series(metrics, name)
    means = []
    for start_ns, end_ns in pairwise(edges_ns.tolist()):
        inside = values[(times_ns >= start_ns) & (times_ns < end_ns)]
        if not len(inside):
            return None
        means.append(float(inside.mean()))
    return means


def reconcile(
    client: dict[str, int], metrics: pd.DataFrame, start_ns: int, end_ns: int, tolerance: float
) -> tuple[dict[str, Any], list[Reason]]:
    """Compare token counts.

    Args:
        client: tokens in the window by the client: `generated`, `prompt`, `cached`.
        metrics: rows of server_metrics.parquet.
        start_ns: start of the window.
        end_ns: end of the window.
        tolerance: largest difference as a share of the server's count.

    Returns:
        Per count `client`, `server`, `difference`, `share`, `allowance` and `agrees`, and the reasons. A difference in
        `cached` is reported and invalidates nothing: servers differ in what they call cached.
    """
    table: dict[str, Any] = {}
    reasons: list[Reason] = []
    for kind, name in (("generated", GENERATED), ("prompt", PROMPT), ("cached", CACHED)):
        rise = counter_rise(metrics, name, start_ns, end_ns)
        if rise is None:
            table[kind] = None
            continue
        server, allowance = rise
        difference = client[kind] - server
        agrees = abs(difference) <= tolerance * abs(server) + allowance
        table[kind] = {
            "client": client[kind],
            "server": server,
            "difference": difference,
            "share": difference / server if server else None,
            "allowance": allowance,
            "agrees": bool(agrees),
        }
        if not agrees and kind != "cached":
            reasons.append(
                reason(
                    "token_mismatch",
                    f"The client counted {client[kind]} {kind} tokens in the window, the server {server:.0f}: more "
                    f"apart than {100 * tolerance:g} % and the {allowance:.0f} tokens of possible reading error.",
                )
            )
    if table["generated"] is None or table["prompt"] is None:
        reasons.append(
            reason(
                "tokens_unreconciled", "The server's token counters do not cover the window, so nothing checks ours."
            )
        )
    return table, reasons


def _at(times_ns: "np.ndarray[Any, Any]", values: "np.ndarray[Any, Any]", time_ns: int) -> tuple[float, float]:
    """The interpolated value, and the largest error: the counter may have stepped right after or before a scrape."""
    after = int(np.clip(np.searchsorted(times_ns, time_ns, side="left"), 1, len(times_ns) - 1))
    span = int(times_ns[after] - times_ns[after - 1])
    share = int(time_ns - times_ns[after - 1]) / span
    rise = float(values[after] - values[after - 1])
    return float(values[after - 1]) + share * rise, max(share, 1 - share) * abs(rise) if 0 < share < 1 else 0.0
