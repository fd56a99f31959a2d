"""Whether a window was steady, and its steady part where it was not as a whole."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.analysis import steadiness
from inference_energy.analysis.bins import bin_edges
from inference_energy.analysis.channels import Channel
from inference_energy.analysis.server_counts import ServerMetrics
from inference_energy.analysis.trapezoid import Values
from inference_energy.analysis.validity import reason
from inference_energy.analysis.windows import Integers, TokenTimes, Window, snapped
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.figure import Reason


def settled(
    window: Window,
    steady: dict[str, Any],
    requests: pd.DataFrame,
    tokens: TokenTimes,
    metrics: ServerMetrics,
    power: list[Channel],
    config: AnalysisConfig,
) -> tuple[Window, dict[str, Any], list[Reason]]:
    """The steady part of a window that is not steady as a whole; the window as it was where there is none."""
    edges_ns = bin_edges(window.start_ns, window.end_ns)
    cuts = [steadiness.mser5(values) for values in _second_by_second(edges_ns, tokens, power).values()]
    longest = max((cut for cut in cuts if cut), default=0)
    if not longest:
        return window, steady, []
    shorter = on_counter(Window(window.name, int(edges_ns[longest]), window.end_ns), power)
    again = steadiness_of(shorter, requests, tokens, metrics, power, config)
    if not again["steady"]:
        return window, steady, []
    cut_s = (shorter.start_ns - window.start_ns) / 1e9
    note = reason(
        "steady_from", f"The first {cut_s:.0f} s of the window were still settling and were cut off (MSER-5)."
    )
    return shorter, again, [note]


def on_counter(window: Window, power: list[Channel]) -> Window:
    """The window between two readings at which the first counter had just moved, where there is one."""
    counted = [channel.counter_moved_ns for channel in power if channel.counted]
    return snapped(window, counted[0]) if counted else window


def steadiness_of(
    window: Window,
    requests: pd.DataFrame,
    tokens: TokenTimes,
    metrics: ServerMetrics,
    power: list[Channel],
    config: AnalysisConfig,
) -> dict[str, Any]:
    """The verdict on a window; see `steadiness.judge`."""
    edges = steadiness.block_edges(window.start_ns, window.end_ns)
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
    return steadiness.judge(series, len(blocks), config.steadiness, bins)


def _second_by_second(edges_ns: Integers, tokens: TokenTimes, power: list[Channel]) -> dict[str, Values]:
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
