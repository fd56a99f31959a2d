"""Whether a window is steady: a test, not a number of minutes.

Whether a window is steady: a test, not a number of minutes.

The window is cut into equal blocks of at least `BLOCK_S`, long enough that their means hardly depend on each other.
Over the block means, the Mann-Kendall test (Kendall's tau against time) says whether there is a trend, and the
Theil-Sen slope times the window says how large it is. A window is not steady when a trend is both significant and too
large. Each p value is multiplied by the number of tests on the window (Bonferroni), at most seven. Few blocks catch
little then: over seven, a straight rise is found in about half the windows when it is eight times the scatter of the
block means, over 29 (five minutes) in nine of ten when it is three times.

A trend test is blind to a level that changes and comes back, so the first fifth is also compared with the last half
(Geweke's diagnostic): a window is not steady either where those differ significantly and by more than the limit.

Where a window is not steady, its start is cut off as far as MSER-5 says, at most to its middle, and what is left is
judged again: a warm-up that was too short costs a part of the window, not the window.

Sources: Mann, Econometrica 13 (1945); Kendall, Rank Correlation Methods (1975); Sen, JASA 63 (1968). Geweke, in
Bayesian Statistics 4 (1992). White, Simulation 69 (1997); White, Cobb and Spratt, WSC 2000 (MSER-5).

Whether a window was steady, and its steady part where it was not as a whole.
"""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from inference_energy.analysis.figures import reason
from inference_energy.analysis.integration import Values
from inference_energy.analysis.power_series import PowerSeries
from inference_energy.analysis.server_metrics import ServerMetrics
from inference_energy.analysis.uncertainty.budget import ratio_error
from inference_energy.analysis.windows import Integers, TokenTimes, Window, align_to_readings, bin_edges
from inference_energy.config.analysis import Steadiness, SteadyLoadConfig
from inference_energy.contracts.figure import Reason

BLOCK_S = 10.0
MIN_BLOCKS = 7
"""With five only a strict rise or fall has p < 0.05; with seven, one of the 21 pairs of blocks may disagree where six
or seven tests share it (p = 0.0028 each)."""


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


GEWEKE_FIRST, GEWEKE_LAST = 0.2, 0.5
MSER_BATCH = 5
MSER_KEPT = 5


def geweke(bins: Values, limit: float, significance: float) -> dict[str, Any]:
    """Whether the first fifth of a series has another mean than its last half.

    Args:
        bins: the series, one value a second; shape (bins,).
        limit: largest difference, as a share of the series' mean.
        significance: p value below which a difference counts.

    Returns:
        `difference_share` (first less last, over the mean), `z`, `p_value`, `limit` and `exceeded`. The standard error
        is that of the block bootstrap, where Geweke takes the spectral density at zero, and from the last half alone:
        a start of another level must not hide itself in the scatter.
    """
    count = len(bins)
    first, last = bins[: max(int(GEWEKE_FIRST * count), 1)], bins[count - max(int(GEWEKE_LAST * count), 1) :]
    mean = float(bins.mean())
    error = ratio_error(last, np.ones(len(last)), longest=True)
    difference = float(first.mean() - last.mean())
    if mean == 0 or error is None or difference == 0:
        return {"difference_share": 0.0, "z": 0.0, "p_value": 1.0, "limit": limit, "exceeded": False}
    spread = error.value * np.sqrt(1 + len(last) / len(first))
    # A last half without any scatter, as of a model, makes each difference significant.
    z = difference / max(float(spread), 1e-12 * abs(difference))
    p_value = float(2 * stats.t.sf(abs(z), max(error.dof, 1.0)))
    return {
        "difference_share": difference / mean,
        "z": z,
        "p_value": p_value,
        "limit": limit,
        "exceeded": bool(abs(difference / mean) > limit and p_value < significance),
    }


def mser5(bins: Values) -> int | None:
    """How many bins to cut off the start, so that what is left has the smallest standard error of its mean.

    The series is averaged in batches of five; the cut d minimises s^2(d) / (n - d). At least 40 % and five batches
    are left, because a few may be alike by chance (Hoad, Robinson and Davies, JORS 61 (2010)). None where the cut is
    beyond the middle, which says that the series never settled.
    """
    batches = bins[: len(bins) // MSER_BATCH * MSER_BATCH].reshape(-1, MSER_BATCH).mean(axis=1)
    kept = max(MSER_KEPT, 2 * len(batches) // 5)
    if len(batches) < 2 * kept:
        return None
    scores = [float(batches[cut:].var() / (len(batches) - cut)) for cut in range(len(batches) - kept + 1)]
    best = int(np.argmin(scores))
    return best * MSER_BATCH if best <= len(batches) // 2 else None


def judge(
    series: dict[str, list[float] | None],
    blocks: int,
    config: Steadiness,
    bins: dict[str, Values] | None = None,
) -> dict[str, Any]:
    """The verdict on a window.

    Args:
        series: block means of `power_w`, `output_tokens_per_s`, `running_requests`, `requests_in_flight` and
            `kv_cache_use`; None where there is no series.
        blocks: how many blocks the window has.
        config: the limits.
        bins: second by second, of the series that there are so, for Geweke's diagnostic.

    Returns:
        `judged`, `steady` (None when not judged), `blocks`, `why_not_judged`, `trends`, one a series that there is, and
        `stationarity`, one a series of `bins`. Their p values are those of all tests together.
    """
    limits = {
        "power_w": config.max_power_trend,
        "output_tokens_per_s": config.max_throughput_trend,
        "running_requests": config.max_running_trend,
        "requests_in_flight": config.max_running_trend,
        "kv_cache_use": config.max_running_trend,
    }
    verdict: dict[str, Any] = {"judged": False, "steady": None, "blocks": blocks, "why_not_judged": None}
    if blocks < MIN_BLOCKS:
        why = f"{blocks} block(s) of at least {BLOCK_S:g} s fit into the window; the test needs {MIN_BLOCKS}"
        return verdict | {"why_not_judged": why, "trends": {}, "stationarity": {}}
    trends = {
        name: trend(means, limits[name], config.significance) for name, means in series.items() if means is not None
    }
    levels = {name: geweke(values, limits[name], config.significance) for name, values in (bins or {}).items()}
    # Bonferroni: with several tests on one window, one of them fails by chance more often than each.
    for test in (*trends.values(), *levels.values()):
        test["p_value"] = min(1.0, test["p_value"] * (len(trends) + len(levels)))
        test["exceeded"] = test["exceeded"] and test["p_value"] < config.significance
    steady = not any(test["exceeded"] for test in [*trends.values(), *levels.values()])
    return verdict | {"judged": True, "steady": steady, "trends": trends, "stationarity": levels}


def steady_part(
    window: Window,
    steady: dict[str, Any],
    requests: pd.DataFrame,
    tokens: TokenTimes,
    metrics: ServerMetrics,
    power: list[PowerSeries],
    config: SteadyLoadConfig,
) -> tuple[Window, dict[str, Any], list[Reason]]:
    """The steady part of a window that is not steady as a whole; the window as it was where there is none."""
    edges_ns = bin_edges(window.start_ns, window.end_ns)
    cuts = [mser5(values) for values in _second_by_second(edges_ns, tokens, power).values()]
    longest = max((cut for cut in cuts if cut), default=0)
    if not longest:
        return window, steady, []
    shorter = align_to_counter(Window(window.name, int(edges_ns[longest]), window.end_ns), power)
    again = steadiness_of(shorter, requests, tokens, metrics, power, config)
    if not again["steady"]:
        return window, steady, []
    cut_s = (shorter.start_ns - window.start_ns) / 1e9
    note = reason(
        "steady_from", f"The first {cut_s:.0f} s of the window were still settling and were cut off (MSER-5)."
    )
    return shorter, again, [note]


def align_to_counter(window: Window, power: list[PowerSeries]) -> Window:
    """The window between two readings at which the first counter had just moved, where there is one."""
    counted = [channel.counter_moved_ns for channel in power if channel.counted]
    return align_to_readings(window, counted[0]) if counted else window


def steadiness_of(
    window: Window,
    requests: pd.DataFrame,
    tokens: TokenTimes,
    metrics: ServerMetrics,
    power: list[PowerSeries],
    config: SteadyLoadConfig,
) -> dict[str, Any]:
    """The verdict on a window; see `steadiness.judge`."""
    edges = block_edges(window.start_ns, window.end_ns)
    blocks = [(int(a), int(b)) for a, b in pairwise(edges.tolist())]
    lengths_s = np.diff(edges) / 1e9
    covered = bool(power) and all(channel.covers(window.start_ns, window.end_ns) for channel in power)
    power_w = (
        [
            sum(channel.energy_j(a, b) for channel in power) / float(s)
            for (a, b), s in zip(blocks, lengths_s, strict=True)
        ]
        if covered
        else None
    )
    rates = [int(tokens.completion_inside(a, b).sum()) / float(s) for (a, b), s in zip(blocks, lengths_s, strict=True)]
    running = metrics.block_means("running", edges)
    series = {
        "power_w": power_w,
        "output_tokens_per_s": rates,
        "running_requests": running,
        "requests_in_flight": requests_in_flight(requests, blocks),
        "kv_cache_use": metrics.block_means("kv_use", edges),
    }
    bins = _second_by_second(bin_edges(window.start_ns, window.end_ns), tokens, power)
    return judge(series, len(blocks), config.steadiness, bins)


def _second_by_second(edges_ns: Integers, tokens: TokenTimes, power: list[PowerSeries]) -> dict[str, Values]:
    """Power and token rate in each bin."""
    lengths_s = np.diff(edges_ns) / 1e9
    spans = [(int(a), int(b)) for a, b in pairwise(edges_ns.tolist())]
    generated = np.array([tokens.completion_inside(a, b).sum() for a, b in spans], dtype=np.float64)
    found: dict[str, Values] = {"output_tokens_per_s": generated / lengths_s}
    if power and all(channel.covers(int(edges_ns[0]), int(edges_ns[-1])) for channel in power):
        energy_j = np.sum([channel.energies_j(edges_ns) for channel in power], axis=0)
        found["power_w"] = np.asarray(energy_j / lengths_s, dtype=np.float64)
    return found


def requests_in_flight(requests: pd.DataFrame, blocks: list[tuple[int, int]]) -> list[float]:
    """Mean number of requests between their sending and their end, for each block.

    A server asked for more than it can do runs a full batch at steady power, while those that wait grow in number:
    only this series shows it.
    """
    was_sent = requests["sent_ns"].notna()
    sent = requests.loc[was_sent, "sent_ns"].to_numpy(dtype=np.int64)
    ended = requests.loc[was_sent, "end_ns"].fillna(blocks[-1][1]).to_numpy(dtype=np.int64)
    return [
        float(np.maximum(np.minimum(ended, end_ns) - np.maximum(sent, start_ns), 0).sum() / (end_ns - start_ns))
        for start_ns, end_ns in blocks
    ]


def steady_reasons(steady: dict[str, Any]) -> list[Reason]:
    """What the verdict is against."""
    if not steady["judged"]:
        return [
            reason("steadiness_not_judged", f"Whether the load was steady is not known: {steady['why_not_judged']}.")
        ]
    words = {
        "power_w": "power",
        "output_tokens_per_s": "generated tokens/s",
        "running_requests": "running requests",
        "requests_in_flight": "requests in flight, which wait if they do not run,",
        "kv_cache_use": "use of the KV cache",
    }
    return [
        reason(
            "not_steady",
            f"Over the window {words[name]} changed by {100 * t['change_share']:+.0f} % of the mean "
            f"(p = {t['p_value']:.3f}); at most {100 * t['limit']:g} % is steady.",
        )
        for name, t in steady["trends"].items()
        if t["exceeded"]
    ] + [
        reason(
            "not_steady",
            f"The first fifth of the window had {100 * t['difference_share']:+.0f} % other {words[name]} than its last "
            f"half (p = {t['p_value']:.3f}); at most {100 * t['limit']:g} % is steady.",
        )
        for name, t in steady["stationarity"].items()
        if t["exceeded"]
    ]
