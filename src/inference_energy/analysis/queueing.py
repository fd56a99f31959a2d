"""How long requests waited in the server before it took them up, by its own histogram over the window.

    mean          sum / count of what the histogram gained: exact
    percentile    linear within its bucket, as if the waits lay evenly there: interpolated

A server's buckets are wide. A percentile in the first, which begins at 0, could be anything up to its bound, and one in
the last has no upper bound: these are not given. The others carry their bucket as interval.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from inference_energy.analysis.latency import figure_name
from inference_energy.analysis.percentiles import PERCENTILES
from inference_energy.analysis.server_counts import Histogram
from inference_energy.analysis.validity import judged, reason
from inference_energy.contracts.figure import Figure, Reason


def queue_figures(found: Histogram | None, reasons: Iterable[Reason], notes: Iterable[Reason]) -> dict[str, Figure]:
    """`queue_mean_s` and `queue_p50_s` to `queue_p99_9_s`; nothing where the server has no such histogram.

    Args:
        found: what the histogram of queue times gained in the window.
        reasons: what invalidates latencies in this window.
        notes: what is worth saying about them.
    """
    if found is None:
        return {}
    reasons, notes = [*reasons], [*notes]
    mean = found.total / found.count if found.count else None
    if mean is None:
        reasons.append(reason("no_requests", "The server ended no request in the window."))
    figures = {"queue_mean_s": judged(mean, "s", boundary="server", grade="counted", reasons=reasons, notes=notes)}
    for percentile in PERCENTILES:
        figures[figure_name("queue", percentile)] = _percentile(found, percentile, reasons, notes)
    return figures


def interpolated(found: Histogram, share: float) -> tuple[float | None, float, float]:
    """The value below which a share of the values lies, and the bounds of its bucket.

    None instead of the value in a bucket that begins at 0 or has no end. The histogram must not be empty.
    """
    rank = share * found.cumulated[-1]
    place = int(np.searchsorted(found.cumulated, rank, side="left"))
    low = float(found.bounds[place - 1]) if place else 0.0
    high = float(found.bounds[place])
    if not place or not np.isfinite(high):
        return None, low, high
    before = float(found.cumulated[place - 1])
    inside = float(found.cumulated[place]) - before
    return low + (high - low) * (rank - before) / inside, low, high


def _percentile(found: Histogram, percentile: float, reasons: list[Reason], notes: list[Reason]) -> Figure:
    value, bounds = None, None
    if found.count and found.cumulated[-1] > 0:
        value, low, high = interpolated(found, percentile / 100)
        bounds = (low, high)
        if value is None:
            where = f"above {low:g} s" if not np.isfinite(high) else f"at most {high:g} s"
            reasons = [*reasons, reason("wide_bucket", f"It is {where}: the server's histogram has no finer bucket.")]
        else:
            notes = [*notes, reason("interpolated", "Interpolated within a bucket of the server's histogram.")]
    elif found.count:
        reasons = [*reasons, reason("wide_bucket", "The server's histogram has no buckets.")]
    figure = judged(value, "s", boundary="server", grade="counted", reasons=reasons, notes=notes)
    return replace(figure, interval_95=bounds) if figure.valid else figure
