"""Test of whether a window is steady.

The window is cut into equal blocks of at least `BLOCK_S`, long enough that their means hardly depend on each other.
Over the block means, the Mann-Kendall test (Kendall's tau against time) says whether there is a trend, and the
Theil-Sen slope times the window says how large it is. A window is not steady when a trend is both significant and too
large. Each p value is multiplied by the number of tests on the window (Bonferroni), at most seven. Few blocks catch
little then: over seven, a straight rise is detected in about half the windows when it is eight times the scatter of the
block means; over 29 (five minutes), in nine of ten when it is three times.

A trend test is blind to a level that changes and comes back, so the first fifth is also compared with the last half
(Geweke's diagnostic): a window is not steady either where those differ significantly and by more than the limit.

Where a window is not steady, its start is cut off as far as MSER-5 says, at most to its middle, and the rest is judged
again: a warm-up that was too short costs a part of the window, not the window.

Sources: Mann, Econometrica 13 (1945); Kendall, Rank Correlation Methods (1975); Sen, JASA 63 (1968). Geweke, in
Bayesian Statistics 4 (1992). White, Simulation 69 (1997); White, Cobb and Spratt, WSC 2000 (MSER-5).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import pandas as pd
from msgspec import structs
from numpy.typing import NDArray
from scipy import stats

from inference_energy.analysis.integration import Values
from inference_energy.analysis.power_series import PowerSeries
from inference_energy.analysis.server_metrics import ServerMetrics
from inference_energy.analysis.token_times import Integers, TokenTimes
from inference_energy.analysis.uncertainty.budget import ratio_error
from inference_energy.analysis.windows import Window, align_to_readings, bin_edges
from inference_energy.config.analysis import Steadiness
from inference_energy.contracts.documents.windows import LevelTest, SteadinessVerdict, Trend
from inference_energy.contracts.figure import Reason
from inference_energy.contracts.reason_codes import reason

Test = TypeVar("Test", Trend, LevelTest)

BLOCK_S = 10.0
MIN_BLOCKS = 7
"""With five only a strict rise or fall has p < 0.05; with seven, one of the 21 pairs of blocks may disagree where six
or seven tests share it (p = 0.0028 each)."""

GEWEKE_FIRST, GEWEKE_LAST = 0.2, 0.5
"""Shares of the window that Geweke's diagnostic compares."""

MSER_BATCH = 5
MSER_MIN_BATCHES = 5


@dataclass(frozen=True)
class WindowSeries:
    """The series that steadiness is judged by: requests of a window, times of their tokens, server and power.

    Attributes:
        requests: the window's rows of requests.parquet.
        tokens: times of their tokens.
        metrics: metrics of the session.
        power: the summed channels.
    """

    requests: pd.DataFrame
    tokens: TokenTimes
    metrics: ServerMetrics
    power: list[PowerSeries]

    def block_means(self, window: Window) -> dict[str, list[float] | None]:
        """Return the mean of each series over each block of a window; None for a series that is not known."""
        edges = block_edges(window.start_ns, window.end_ns)
        blocks = [(int(start_ns), int(end_ns)) for start_ns, end_ns in pairwise(edges.tolist())]
        lengths_s = (np.diff(edges) / 1e9).tolist()
        power_w = None
        if self.power and all(channel.spans(window.start_ns, window.end_ns) for channel in self.power):
            power_w = [
                sum(channel.energy_j(start_ns, end_ns) for channel in self.power) / length_s
                for (start_ns, end_ns), length_s in zip(blocks, lengths_s, strict=True)
            ]
        return {
            "power_w": power_w,
            "output_tokens_per_s": [
                int(self.tokens.completion_inside(start_ns, end_ns).sum()) / length_s
                for (start_ns, end_ns), length_s in zip(blocks, lengths_s, strict=True)
            ],
            "running_requests": self.metrics.block_means("running", edges),
            "requests_in_flight": requests_in_flight(self.requests, blocks),
            "kv_cache_use": self.metrics.block_means("kv_use", edges),
        }

    def bins(self, edges_ns: Integers) -> dict[str, Values]:
        """Return token rate and, where it is known, power in each bin of a window."""
        lengths_s = np.diff(edges_ns) / 1e9
        spans = [(int(start_ns), int(end_ns)) for start_ns, end_ns in pairwise(edges_ns.tolist())]
        generated = np.array([self.tokens.completion_inside(*span).sum() for span in spans], dtype=np.float64)
        series: dict[str, Values] = {"output_tokens_per_s": generated / lengths_s}
        if self.power and all(channel.spans(int(edges_ns[0]), int(edges_ns[-1])) for channel in self.power):
            energy_j = np.sum([channel.energies_j(edges_ns) for channel in self.power], axis=0)
            series["power_w"] = np.asarray(energy_j / lengths_s, dtype=np.float64)
        return series


def judge_window(window: Window, series: WindowSeries, config: Steadiness, *, required: bool) -> SteadinessVerdict:
    """Return the verdict on a window; see `judge`."""
    means = series.block_means(window)
    blocks = len(block_edges(window.start_ns, window.end_ns)) - 1
    bins = series.bins(bin_edges(window.start_ns, window.end_ns))
    return judge(means, blocks, config, bins, required=required)


def steady_part(
    window: Window, verdict: SteadinessVerdict, series: WindowSeries, config: Steadiness
) -> tuple[Window, SteadinessVerdict, list[Reason]]:
    """Cut off the start of a window that is not steady as a whole.

    Returns:
        The steady part, its verdict, and a note on the cut; the window as it was where no part of it is steady.
    """
    edges_ns = bin_edges(window.start_ns, window.end_ns)
    cuts = [mser5(values) for values in series.bins(edges_ns).values()]
    longest = max((cut for cut in cuts if cut), default=0)
    if not longest:
        return window, verdict, []
    shorter = align_to_counter(Window(window.name, int(edges_ns[longest]), window.end_ns), series.power)
    second_verdict = judge_window(shorter, series, config, required=verdict.required)
    if not second_verdict.steady:
        return window, verdict, []
    cut_s = (shorter.start_ns - window.start_ns) / 1e9
    note = reason(
        "steady_from", f"The first {cut_s:.0f} s of the window were still settling and were cut off (MSER-5)."
    )
    return shorter, second_verdict, [note]


def steady_reasons(verdict: SteadinessVerdict) -> list[Reason]:
    """Return the reasons of energy and power that follow from a verdict."""
    if not verdict.judged:
        return [reason("steadiness_not_judged", f"Whether the load was steady is not known: {verdict.why_not_judged}.")]
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
            f"Over the window {words[name]} changed by {100 * test.change_share:+.0f} % of the mean "
            f"(p = {test.p_value:.3f}); at most {100 * test.limit:g} % is steady.",
        )
        for name, test in verdict.trends.items()
        if test.exceeded
    ] + [
        reason(
            "not_steady",
            f"The first fifth of the window had {100 * level.difference_share:+.0f} % other {words[name]} than its "
            f"last half (p = {level.p_value:.3f}); at most {100 * level.limit:g} % is steady.",
        )
        for name, level in verdict.stationarity.items()
        if level.exceeded
    ]


def judge(
    series: dict[str, list[float] | None],
    blocks: int,
    config: Steadiness,
    bins: dict[str, Values] | None = None,
    *,
    required: bool = True,
) -> SteadinessVerdict:
    """Return the verdict on a window, with the p values of all its tests together.

    Args:
        series: block means of `power_w`, `output_tokens_per_s`, `running_requests`, `requests_in_flight` and
            `kv_cache_use`; None for a series that is not known.
        blocks: number of blocks of the window.
        config: the limits.
        bins: values of each second, of the series that have them, for Geweke's diagnostic.
        required: whether the window should be steady.
    """
    limits = {
        "power_w": config.max_power_trend,
        "output_tokens_per_s": config.max_throughput_trend,
        "running_requests": config.max_running_trend,
        "requests_in_flight": config.max_running_trend,
        "kv_cache_use": config.max_running_trend,
    }
    if blocks < MIN_BLOCKS:
        return SteadinessVerdict(
            judged=False,
            steady=None,
            blocks=blocks,
            why_not_judged=(
                f"{blocks} block(s) of at least {BLOCK_S:g} s fit into the window; the test needs {MIN_BLOCKS}"
            ),
            trends={},
            stationarity={},
            required=required,
        )
    trends = {
        name: trend(means, limits[name], config.significance) for name, means in series.items() if means is not None
    }
    levels = {name: geweke(values, limits[name], config.significance) for name, values in (bins or {}).items()}
    # Bonferroni: with several tests on one window, one of them fails by chance more often than each.
    tests = len(trends) + len(levels)
    trends = {name: _corrected(test, tests, config.significance) for name, test in trends.items()}
    levels = {name: _corrected(test, tests, config.significance) for name, test in levels.items()}
    return SteadinessVerdict(
        judged=True,
        steady=not any(test.exceeded for test in trends.values())
        and not any(test.exceeded for test in levels.values()),
        blocks=blocks,
        why_not_judged=None,
        trends=trends,
        stationarity=levels,
        required=required,
    )


def _corrected(test: Test, tests: int, significance: float) -> Test:
    """Return one of several tests with its p value multiplied by their number (Bonferroni)."""
    p_value = min(1.0, test.p_value * tests)
    exceeded = test.exceeded and p_value < significance
    corrected: Test = structs.replace(test, p_value=p_value, exceeded=exceeded)
    return corrected


def trend(block_means: list[float], limit: float, significance: float) -> Trend:
    """Test a series for a trend over equal blocks; a series that is zero throughout has none.

    Args:
        block_means: the series, one mean a block.
        limit: largest change over the window, as a share of the mean.
        significance: p value below which a trend counts.
    """
    values = np.asarray(block_means, dtype=np.float64)
    mean = float(values.mean())
    if mean == 0 or np.all(values == values[0]):
        change, p_value = 0.0, 1.0
    else:
        position = (np.arange(len(values)) + 0.5) / len(values)
        change = float(stats.theilslopes(values, position).slope) / mean
        p_value = float(stats.kendalltau(position, values).pvalue)
    return Trend(
        change_share=change,
        p_value=p_value,
        limit=limit,
        exceeded=bool(abs(change) > limit and p_value < significance),
        block_means=values.tolist(),
    )


def geweke(bins: Values, limit: float, significance: float) -> LevelTest:
    """Test whether the first fifth of a series has another mean than its last half.

    The standard error is that of the block bootstrap, where Geweke takes the spectral density at zero, and from the
    last half alone: a start of another level must not hide itself in the scatter.

    Args:
        bins: the series, one value a second; shape (bins,).
        limit: largest difference, as a share of the series' mean.
        significance: p value below which a difference counts.
    """
    count = len(bins)
    first, last = bins[: max(int(GEWEKE_FIRST * count), 1)], bins[count - max(int(GEWEKE_LAST * count), 1) :]
    mean = float(bins.mean())
    error = ratio_error(last, np.ones(len(last)), longest=True)
    difference = float(first.mean() - last.mean())
    if mean == 0 or error is None or difference == 0:
        return LevelTest(difference_share=0.0, z=0.0, p_value=1.0, limit=limit, exceeded=False)
    spread = error.value * np.sqrt(1 + len(last) / len(first))
    # A last half without any scatter, as of a model, makes each difference significant.
    z = difference / max(float(spread), 1e-12 * abs(difference))
    p_value = float(2 * stats.t.sf(abs(z), max(error.dof, 1.0)))
    return LevelTest(
        difference_share=difference / mean,
        z=z,
        p_value=p_value,
        limit=limit,
        exceeded=bool(abs(difference / mean) > limit and p_value < significance),
    )


def mser5(bins: Values) -> int | None:
    """Return how many bins to cut off the start so that the mean of the rest has the smallest standard error.

    The series is averaged in batches of five; the cut d minimises s^2(d) / (n - d). At least 40 % and five batches
    are left, because a few may be alike by chance (Hoad, Robinson and Davies, JORS 61 (2010)). None where the cut is
    beyond the middle: such a series never settled.
    """
    batches = bins[: len(bins) // MSER_BATCH * MSER_BATCH].reshape(-1, MSER_BATCH).mean(axis=1)
    kept = max(MSER_MIN_BATCHES, 2 * len(batches) // 5)
    if len(batches) < 2 * kept:
        return None
    scores = [float(batches[cut:].var() / (len(batches) - cut)) for cut in range(len(batches) - kept + 1)]
    best = int(np.argmin(scores))
    return best * MSER_BATCH if best <= len(batches) // 2 else None


def block_edges(start_ns: int, end_ns: int) -> NDArray[np.int64]:
    """Return the edges of as many equal blocks as fit, at least one; one more than there are blocks."""
    blocks = max(int((end_ns - start_ns) / 1e9 // BLOCK_S), 1)
    return np.linspace(start_ns, end_ns, blocks + 1).round().astype(np.int64)


def requests_in_flight(requests: pd.DataFrame, blocks: list[tuple[int, int]]) -> list[float]:
    """Return the mean number of requests between their sending and their end, for each block.

    An overloaded server runs a full batch at steady power while the number of waiting requests grows: only this
    series shows it.
    """
    was_sent = requests["sent_ns"].notna()
    sent = requests.loc[was_sent, "sent_ns"].to_numpy(dtype=np.int64)
    ended = requests.loc[was_sent, "end_ns"].fillna(blocks[-1][1]).to_numpy(dtype=np.int64)
    return [
        float(np.maximum(np.minimum(ended, end_ns) - np.maximum(sent, start_ns), 0).sum() / (end_ns - start_ns))
        for start_ns, end_ns in blocks
    ]


def align_to_counter(window: Window, power: list[PowerSeries]) -> Window:
    """Cut a window to readings at which the first counter had just moved, where there is a counter."""
    moved_ns = [channel.counter_moved_ns for channel in power if channel.uses_counter]
    return align_to_readings(window, moved_ns[0]) if moved_ns else window
