"""What fell into a window: requests and tokens, as counts, rates and bins, and what stands against them."""

from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.analysis.bins import bin_edges
from inference_energy.analysis.recorded import is_closed_loop
from inference_energy.analysis.validity import judged, reason
from inference_energy.analysis.windows import TokenTimes, Window
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.figure import Figure, Reason


def counts_of(window: Window, requests: pd.DataFrame, tokens: TokenTimes) -> tuple[dict[str, Any], pd.DataFrame]:
    """What fell into the window, and the requests that ended well in it."""
    start_ns, end_ns = window.start_ns, window.end_ns
    sent = within(requests["sent_ns"], window)
    cut_off = (requests["status"] == "aborted") & requests["sent_ns"].lt(end_ns).fillna(False)
    cut_off &= requests["end_ns"].ge(start_ns).fillna(True)
    ok = requests["status"] == "ok"
    finished = requests[ok & within(requests["last_token_ns"].fillna(requests["end_ns"]), window)]
    inside = tokens.first_inside(start_ns, end_ns) | (tokens.completion_inside(start_ns, end_ns) > 0)
    no_usage = requests["completion_tokens"].isna() | requests["prompt_tokens"].isna()
    cached_known = requests["cached_tokens"].notna()[tokens.first_inside(start_ns, end_ns)]
    counts = {
        "output_tokens": int(tokens.completion_inside(start_ns, end_ns).sum()),
        "prompt_tokens": int(tokens.prompt_inside(start_ns, end_ns).sum()),
        "cached_tokens": int(tokens.cached_inside(start_ns, end_ns).sum()),
        "cached_tokens_known": bool(cached_known.all()) if len(cached_known) else False,
        "scheduled": int(within(requests["scheduled_ns"], window).sum()),
        "started": int(sent.sum()),
        "finished": len(finished),
        "failed": int(((requests["status"] == "failed") & within(requests["end_ns"], window)).sum()),
        "aborted": int(cut_off.sum()),
        "without_usage": int((ok & no_usage & (inside | within(requests["end_ns"], window))).sum()),
    }
    return counts, finished


def bins_of(window: Window, tokens: TokenTimes, finished: pd.DataFrame) -> dict[str, list[int]]:
    """What fell into each bin of the window, under the names of the figures."""
    edges_ns = bin_edges(window.start_ns, window.end_ns)
    spans = [(int(a), int(b)) for a, b in pairwise(edges_ns.tolist())]
    ends_ns = finished["last_token_ns"].fillna(finished["end_ns"]).to_numpy(dtype=np.int64)
    return {
        "output_tokens": [int(tokens.completion_inside(a, b).sum()) for a, b in spans],
        "prompt_tokens": [int(tokens.prompt_inside(a, b).sum()) for a, b in spans],
        "cached_tokens": [int(tokens.cached_inside(a, b).sum()) for a, b in spans],
        "requests": np.histogram(ends_ns, bins=edges_ns)[0].tolist(),
    }


def no_schedule_reasons(facts: dict[str, Any], counts: dict[str, Any]) -> list[Reason]:
    """The reason for which nothing can be said of a schedule; empty in an open loop."""
    if is_closed_loop(facts):
        return [reason("no_schedule", "In a closed loop a request is sent when the last has ended: nothing is due.")]
    if not counts["scheduled"] and counts["started"]:
        return [reason("no_schedule", "The requests have no time at which they were due.")]
    return []


def within(times_ns: "pd.Series[int]", window: Window) -> "pd.Series[bool]":
    """Which of the times lie in the window; one that is not there does not."""
    return ((times_ns >= window.start_ns) & (times_ns < window.end_ns)).fillna(False).astype(bool)


def request_reasons(counts: dict[str, Any], config: AnalysisConfig, *, reconciled: bool) -> list[Reason]:
    """What is against token counts; `reconciled`: the server's counters were read too."""
    found = []
    ended = counts["finished"] + counts["failed"]
    if not reconciled and counts["aborted"] > config.max_failed_share * (ended + counts["aborted"]):
        # With the server's counters, their tokens would be missed there.
        found.append(
            reason(
                "token_counts_missing",
                f"{counts['aborted']} request(s) were cut off and gave no token counts, and the server's counters "
                "could not be read.",
            )
        )
    if ended and counts["failed"] / ended > config.max_failed_share:
        found.append(
            reason("failed_requests", f"{counts['failed']} of {ended} requests that ended in the window failed.")
        )
    if counts["aborted"]:
        found.append(
            reason(
                "aborted_requests",
                f"{counts['aborted']} request(s) of the window were cut off at the end of the drain; their tokens are "
                "not counted.",
            )
        )
    if counts["without_usage"]:
        found.append(
            reason("token_counts_missing", f"The server gave no token counts for {counts['without_usage']} request(s).")
        )
    return found


def lag_reasons(lag: dict[str, float] | None, config: AnalysisConfig) -> list[Reason]:
    """What is against all that depends on when requests were sent."""
    if lag is None or lag["p99"] <= config.max_client_lag_s:
        return []
    return [
        reason(
            "client_lag",
            f"The client sent 1 % of the requests {lag['p99']:.3f} s or more after schedule; at most "
            f"{config.max_client_lag_s:g} s is allowed.",
        )
    ]


def count_figures(
    window: Window,
    counts: dict[str, Any],
    reasons: list[Reason],
    no_schedule: list[Reason],
    trends: list[Reason],
    lengths: list[Reason],
) -> dict[str, Figure]:
    """Counts and rates.

    Args:
        window: the window.
        counts: what fell into it.
        reasons: what is against or worth saying of token counts.
        no_schedule: what is against the offered rate, and what was achieved of it.
        trends: notes on the rates.
        lengths: notes on the prompts' lengths.
    """
    late = [r for r in reasons if r.code == "client_lag"]
    unknown = []
    if counts["prompt_tokens"] and not counts["cached_tokens_known"]:
        unknown.append(reason("cached_tokens_unknown", "The responses do not say how many prompt tokens were cached."))

    def counted(count: str, unit: str, against: list[Reason]) -> Figure:
        return judged(counts[count], unit, boundary="client", grade="counted", reasons=against)

    def rate(count: str, unit: str, against: list[Reason], notes: list[Reason]) -> Figure:
        per_s = counts[count] / window.duration_s
        return judged(per_s, unit, boundary="client", grade="counted", reasons=against, notes=notes)

    achieved = counts["started"] / counts["scheduled"] if counts["scheduled"] else None
    nothing_due = [] if achieved is not None or no_schedule else [reason("no_requests", "No request was due.")]
    return {
        "output_tokens": counted("output_tokens", "token", reasons),
        "prompt_tokens": counted("prompt_tokens", "token", [*reasons, *lengths]),
        "cached_tokens": counted("cached_tokens", "token", [*reasons, *unknown]),
        "requests": counted("finished", "request", late),
        "output_tokens_per_s": rate("output_tokens", "token/s", reasons, trends),
        "prompt_tokens_per_s": rate("prompt_tokens", "token/s", reasons, trends),
        "requests_per_s": rate("finished", "request/s", late, trends),
        "offered_requests_per_s": rate("scheduled", "request/s", no_schedule, []),
        "sent_requests_per_s": rate("started", "request/s", late, []),
        "achieved_share": judged(
            achieved, "share", boundary="client", grade="counted", reasons=[*late, *no_schedule, *nothing_due]
        ),
    }
