"""Whether a window is steady: a test, not a number of minutes.

The window is cut into equal blocks of at least `BLOCK_S`, long enough that their means hardly depend on each other.
Over the block means, the Mann-Kendall test (Kendall's tau against time) says whether there is a trend, and the
Theil-Sen slope times the window says how large it is. A window is not steady when a trend is both significant and too
large. Few blocks catch little: over seven, a straight rise is found in about half the windows when it is four times the
scatter of the block means and in four of five when it is six times, over 29 (five minutes) in nearly all from three
times on.

Sources: Mann, Econometrica 13 (1945); Kendall, Rank Correlation Methods (1975); Sen, JASA 63 (1968).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from inference_energy.config.analysis import Steadiness

BLOCK_S = 10.0
MIN_BLOCKS = 7
"""With five only a strict rise or fall has p < 0.05; with seven, up to 3 of the 21 pairs of blocks may disagree."""


def block_edges(start_ns: int, end_ns: int) -> NDArray[np.int64]:
    """Edges of the blocks, one more than there are blocks; as many blocks as fit, at least one."""
    blocks = max(int((end_ns - start_ns) / 1e9 // BLOCK_S), 1)
    return np.linspace(start_ns, end_ns, blocks + 1).round().astype(np.int64)


def trend(block_means: list[float], limit: float, significance: float) -> dict[str, Any]:
    """The trend over equal blocks.

    Args:
        block_means: the series, one mean a block.
        limit: largest change over the window, as a share of the mean.
        significance: p value below which a trend counts.

    Returns:
        `change_share` (Theil-Sen change from the window's start to its end / mean), `p_value`, `limit`, `exceeded` and
        the `block_means`. A series that is zero throughout has no trend.
    """
    values = np.asarray(block_means, dtype=np.float64)
    mean = float(values.mean())
    if mean == 0 or np.all(values == values[0]):
        change, p_value = 0.0, 1.0
    else:
        position = (np.arange(len(values)) + 0.5) / len(values)
        change = float(stats.theilslopes(values, position).slope) / mean
        p_value = float(stats.kendalltau(position, values).pvalue)
    return {
        "change_share": change,
        "p_value": p_value,
        "limit": limit,
        "exceeded": bool(abs(change) > limit and p_value < significance),
        "block_means": values.tolist(),
    }


def judge(series: dict[str, list[float] | None], blocks: int, config: Steadiness) -> dict[str, Any]:
    """The verdict on a window.

    Args:
        series: block means of `power_w`, `output_tokens_per_s`, `running_requests` and `requests_in_flight`; None where
            there is no series.
        blocks: how many blocks the window has.
        config: the limits.

    Returns:
        `judged`, `steady` (None when not judged), `blocks`, `why_not_judged` and `trends`, one a series that there is.
    """
    limits = {
        "power_w": config.max_power_trend,
        "output_tokens_per_s": config.max_throughput_trend,
        "running_requests": config.max_running_trend,
        "requests_in_flight": config.max_running_trend,
    }
    if blocks < MIN_BLOCKS:
        why = f"{blocks} block(s) of at least {BLOCK_S:g} s fit into the window; the test needs {MIN_BLOCKS}"
        return {"judged": False, "steady": None, "blocks": blocks, "why_not_judged": why, "trends": {}}
    trends = {
        name: trend(means, limits[name], config.significance) for name, means in series.items() if means is not None
    }
    steady = not any(t["exceeded"] for t in trends.values())
    return {"judged": True, "steady": steady, "blocks": blocks, "why_not_judged": None, "trends": trends}
