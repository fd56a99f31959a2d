"""Requests and tokens that fell into a window: counts, rates and bins, and the reasons that qualify them."""

from itertools import pairwise

import numpy as np
import pandas as pd

from inference_energy.analysis.figures import make_figure
from inference_energy.analysis.session_facts import is_closed_loop
from inference_energy.analysis.token_times import TokenTimes
from inference_energy.analysis.windows import Window, bin_edges
from inference_energy.config.analysis import SteadyLoadConfig
from inference_energy.contracts.documents.session import WindowPlan
from inference_energy.contracts.documents.windows import ClientLag, WindowCounts
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.reason_codes import reason


def count_window(
    window: Window, requests: pd.DataFrame, tokens: TokenTimes, engine_steps: float | None
) -> tuple[WindowCounts, pd.DataFrame]:
    """Count what fell into a window.

    Args:
        window: the window.
        requests: its rows of requests.parquet.
        tokens: times of their tokens.
        engine_steps: steps of the engine in the window; None where the server does not count them.

    Returns:
        The counts, and the requests that ended well in the window.
    """
    start_ns, end_ns = window.start_ns, window.end_ns
    sent = within(requests["sent_ns"], window)
    cut_off = (requests["status"] == "aborted") & requests["sent_ns"].lt(end_ns).fillna(False)
    cut_off &= requests["end_ns"].ge(start_ns).fillna(True)
    ok = requests["status"] == "ok"
    finished = requests[ok & within(requests["last_token_ns"].fillna(requests["end_ns"]), window)]
    inside = tokens.first_inside(start_ns, end_ns) | (tokens.completion_inside(start_ns, end_ns) > 0)
    no_usage = requests["completion_tokens"].isna() | requests["prompt_tokens"].isna()
    cached_known = requests["cached_tokens"].notna()[tokens.first_inside(start_ns, end_ns)]
    counts = WindowCounts(
        output_tokens=int(tokens.completion_inside(start_ns, end_ns).sum()),
        prompt_tokens=int(tokens.prompt_inside(start_ns, end_ns).sum()),
        cached_tokens=int(tokens.cached_inside(start_ns, end_ns).sum()),
        cached_tokens_known=bool(cached_known.all()) if len(cached_known) else False,
        scheduled=int(within(requests["scheduled_ns"], window).sum()),
        started=int(sent.sum()),
        finished=len(finished),
        failed=int(((requests["status"] == "failed") & within(requests["end_ns"], window)).sum()),
        aborted=int(cut_off.sum()),
        without_usage=int((ok & no_usage & (inside | within(requests["end_ns"], window))).sum()),
        engine_steps=engine_steps,
    )
    return counts, finished


def count_bins(window: Window, tokens: TokenTimes, finished: pd.DataFrame) -> dict[str, list[int]]:
    """Count what fell into each bin of a window, under the names of the figures."""
    edges_ns = bin_edges(window.start_ns, window.end_ns)
    bins = list(pairwise(edges_ns.tolist()))
    ends_ns = finished["last_token_ns"].fillna(finished["end_ns"]).to_numpy(dtype=np.int64)
    return {
        "output_tokens": [int(tokens.completion_inside(start_ns, end_ns).sum()) for start_ns, end_ns in bins],
        "prompt_tokens": [int(tokens.prompt_inside(start_ns, end_ns).sum()) for start_ns, end_ns in bins],
        "cached_tokens": [int(tokens.cached_inside(start_ns, end_ns).sum()) for start_ns, end_ns in bins],
        "requests": np.histogram(ends_ns, bins=edges_ns)[0].tolist(),
    }


def count_figures(
    window: Window,
    counts: WindowCounts,
    reasons: list[Reason],
    no_schedule: list[Reason],
    trends: list[Reason],
    length_notes: list[Reason],
) -> dict[str, Figure]:
    """Return counts and rates as figures.

    Args:
        window: the window.
        counts: what fell into it.
        reasons: reasons of token counts, blocking ones and notes.
        no_schedule: reasons that block the offered rate, and the achieved share of it.
        trends: notes on the rates.
        length_notes: notes on the prompts' lengths.
    """
    late = [why for why in reasons if why.code == "client_lag"]
    unknown = []
    if counts.prompt_tokens and not counts.cached_tokens_known:
        unknown.append(reason("cached_tokens_unknown", "The responses do not say how many prompt tokens were cached."))

    def counted(count: int, unit: str, why: list[Reason]) -> Figure:
        return make_figure(count, unit, boundary="client", grade="counted", reasons=why)

    def rate(count: int, unit: str, why: list[Reason], notes: list[Reason]) -> Figure:
        per_s = count / window.duration_s
        return make_figure(per_s, unit, boundary="client", grade="counted", reasons=why, notes=notes)

    scheduled = counts.scheduled or 0
    achieved = counts.started / scheduled if scheduled else None
    nothing_due = [] if achieved is not None or no_schedule else [reason("no_requests", "No request was due.")]
    return {
        "output_tokens": counted(counts.output_tokens, "token", reasons),
        "prompt_tokens": counted(counts.prompt_tokens, "token", [*reasons, *length_notes]),
        "cached_tokens": counted(counts.cached_tokens, "token", [*reasons, *unknown]),
        "requests": counted(counts.finished, "request", late),
        "output_tokens_per_s": rate(counts.output_tokens, "token/s", reasons, trends),
        "prompt_tokens_per_s": rate(counts.prompt_tokens, "token/s", reasons, trends),
        "requests_per_s": rate(counts.finished, "request/s", late, trends),
        "offered_requests_per_s": rate(scheduled, "request/s", no_schedule, []),
        "sent_requests_per_s": rate(counts.started, "request/s", late, []),
        "achieved_share": make_figure(
            achieved, "share", boundary="client", grade="counted", reasons=[*late, *no_schedule, *nothing_due]
        ),
    }


def no_schedule_reasons(plan: WindowPlan, counts: WindowCounts) -> list[Reason]:
    """Return the reason why nothing can be compared with a schedule; empty in an open loop."""
    if is_closed_loop(plan):
        return [reason("no_schedule", "In a closed loop a request is sent when the last has ended: nothing is due.")]
    if not counts.scheduled and counts.started:
        return [reason("no_schedule", "The requests have no time at which they were due.")]
    return []


def request_reasons(counts: WindowCounts, config: SteadyLoadConfig, *, reconciled: bool) -> list[Reason]:
    """Return reasons of the token counts that lie in the requests, blocking ones and notes.

    Args:
        counts: what fell into the window.
        config: tolerances.
        reconciled: whether the server's counters were read too.
    """
    reasons = []
    ended = counts.finished + counts.failed
    if not reconciled and counts.aborted > config.max_failed_share * (ended + counts.aborted):
        # With the server's counters, their tokens would be missed there.
        reasons.append(
            reason(
                "token_counts_missing",
                f"{counts.aborted} request(s) were cut off and gave no token counts, and the server's counters "
                "could not be read.",
            )
        )
    if ended and counts.failed / ended > config.max_failed_share:
        reasons.append(
            reason("failed_requests", f"{counts.failed} of {ended} requests that ended in the window failed.")
        )
    if counts.aborted:
        reasons.append(
            reason(
                "aborted_requests",
                f"{counts.aborted} request(s) of the window were cut off at the end of the drain; their tokens are "
                "not counted.",
            )
        )
    if counts.without_usage:
        reasons.append(
            reason("token_counts_missing", f"The server gave no token counts for {counts.without_usage} request(s).")
        )
    return reasons


def missing_counts(ended_well: pd.DataFrame, kind: str) -> list[Reason]:
    """Return the reason that blocks what is made of a count of tokens; empty where every request has it.

    Args:
        ended_well: rows of requests.parquet.
        kind: `completion` or `prompt`.
    """
    unknown = int(ended_well[f"{kind}_tokens"].isna().sum())
    if not unknown:
        return []
    text = f"The server gave no usable count of {kind} tokens for {unknown} of {len(ended_well)} request(s)."
    return [reason("token_counts_missing", text)]


def send_lag(requests: pd.DataFrame) -> ClientLag | None:
    """Return percentiles of sent minus scheduled [s] over the requests that had a schedule; None where none had."""
    lag_s = (requests["sent_ns"] - requests["scheduled_ns"]).dropna().to_numpy(dtype=np.float64) / 1e9
    if not len(lag_s):
        return None
    return ClientLag(p50=float(np.percentile(lag_s, 50)), p99=float(np.percentile(lag_s, 99)), max=float(lag_s.max()))


def lag_reasons(lag: ClientLag | None, config: SteadyLoadConfig) -> list[Reason]:
    """Return the reason that blocks all figures which depend on when requests were sent."""
    if lag is None or lag.p99 <= config.max_client_lag_s:
        return []
    return [
        reason(
            "client_lag",
            f"The client sent 1 % of the requests {lag.p99:.3f} s or more after schedule; at most "
            f"{config.max_client_lag_s:g} s is allowed.",
        )
    ]


def within(times_ns: "pd.Series[int]", window: Window) -> "pd.Series[bool]":
    """Return which of the times lie in a window; a missing time does not."""
    return ((times_ns >= window.start_ns) & (times_ns < window.end_ns)).fillna(False).astype(bool)
