"""What fell into a window: requests and tokens, as counts, rates and bins, and what stands against them.

What fell into a window: requests and tokens, as counts, rates and bins, and what stands against them.

A cell's totals against the server's counters, exactly.

Right before a cell and after its drain nothing is in flight and the counters are read, so their rise is what the cell
caused, token for token. It must equal the sum over the cell's requests; where it does not, this says by how much and
what can explain it:

- a request that was cut off, failed or gave no usage: what it got stays in the server's counters, and the client does
  not know all of it; at most the answer's limit and the prompt's length each;
- preemptions, where the server counts a prompt again that it computed again;
- requests of others;
- a restart of the server, which sets its counters to zero: then nothing can be compared.

Only the first explains anything away; the others are named.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd

from inference_energy.analysis.figures import make_figure, reason
from inference_energy.analysis.server_metrics import ServerMetrics, value_at
from inference_energy.analysis.session_facts import is_closed_loop
from inference_energy.analysis.token_reconciliation import KINDS
from inference_energy.analysis.windows import TokenTimes, Window, bin_edges
from inference_energy.config.analysis import SteadyLoadConfig
from inference_energy.contracts.figure import Figure, Reason


def count_window(window: Window, requests: pd.DataFrame, tokens: TokenTimes) -> tuple[dict[str, Any], pd.DataFrame]:
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


def count_bins(window: Window, tokens: TokenTimes, finished: pd.DataFrame) -> dict[str, list[int]]:
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


def request_reasons(counts: dict[str, Any], config: SteadyLoadConfig, *, reconciled: bool) -> list[Reason]:
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


def lag_reasons(lag: dict[str, float] | None, config: SteadyLoadConfig) -> list[Reason]:
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
        return make_figure(counts[count], unit, boundary="client", grade="counted", reasons=against)

    def rate(count: str, unit: str, against: list[Reason], notes: list[Reason]) -> Figure:
        per_s = counts[count] / window.duration_s
        return make_figure(per_s, unit, boundary="client", grade="counted", reasons=against, notes=notes)

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
        "achieved_share": make_figure(
            achieved, "share", boundary="client", grade="counted", reasons=[*late, *no_schedule, *nothing_due]
        ),
    }


COLUMNS = {"generated": "completion_tokens", "prompt": "prompt_tokens", "cached": "cached_tokens"}
UNFINISHED = ("abort", "error")
"""Finish reasons of the server for requests that did not end well."""

WARMUP = "warmup"


@dataclass(frozen=True)
class Span:
    """A cell's start, the end of its drain, and the start of the next cell, if any; monotonic ns."""

    start_ns: int
    drained_ns: int
    next_ns: int | None


def spans(phases: pd.DataFrame) -> dict[str, Span]:
    """The cells of a session by name."""
    begun = phases[phases["phase"].isin(("window", WARMUP))].sort_values("start_ns")
    drains = phases[phases["phase"] == "drain"]
    drained = dict(zip(drains["cell"], drains["end_ns"], strict=True))
    starts = [*begun["start_ns"].tolist(), None]
    found = {}
    for place, row in enumerate(begun.itertuples()):
        end_ns = int(drained.get(row.cell, int(str(row.end_ns))))
        found[str(row.cell)] = Span(int(str(row.start_ns)), end_ns, starts[place + 1])
    return found


def compare_totals(
    requests: pd.DataFrame, schedule: pd.DataFrame | None, metrics: ServerMetrics, span: Span, tolerance: float
) -> tuple[dict[str, Any], list[Reason]]:
    """The table of a cell, and what follows for its token counts.

    Args:
        requests: all of the cell's rows of requests.parquet.
        schedule: its rows of schedule.parquet, for the limits of what requests may have cost; None where there is none.
        metrics: of the session.
        span: the cell.
        tolerance: largest unexplained difference as a share of the server's count.

    Returns:
        `why` (None, or why nothing could be compared), `from_ns` and `to_ns` (of the scrapes), `tokens` (for
        `generated`, `prompt`, `cached`: `client`, `server`, `difference`, `explained`, `unexplained`, `causes`),
        `finished` (by finish reason: `client`, `server`), `requests` (`sent`, `not_whole`, `of_others`) and
        `preemptions`.
    """
    scrapes = _scrapes(metrics, span)
    if scrapes is None:
        why = "the server's counters were not read before the cell and after its drain"
        return {"why": why}, []
    if metrics.restarted(*scrapes):
        why = "the server's counters began anew: it was restarted during the cell"
        return {"why": why}, [reason("server_restarted", f"{why[0].upper()}{why[1:]}.")]
    lost = requests[requests["sent_ns"].notna() & (requests["completion_tokens"].isna() | (requests["status"] != "ok"))]
    rise = {quantity: _rise(metrics, quantity, scrapes) for quantity in (*KINDS, "finished", "preemptions")}
    asked = _asked(requests, rise["finished"], len(lost))
    limits = _limits(requests, lost, schedule)
    tokens = {kind: _row(kind, requests, rise, limits, asked) for kind in KINDS}
    table = {
        "why": None,
        "engine": metrics.engine.name,
        "from_ns": scrapes[0],
        "to_ns": scrapes[1],
        "tokens": tokens,
        "finished": _finished(requests, metrics, scrapes),
        "requests": asked,
        "preemptions": rise["preemptions"],
    }
    return table, _reasons(tokens, tolerance)


def prompt_lengths(requests: pd.DataFrame, schedule: pd.DataFrame | None) -> tuple[dict[str, Any] | None, list[Reason]]:
    """The lengths of prompts that were asked for against what the server read.

    Returns:
        `compared`, `different`, `share` and `mean_difference` (tokens, server's less asked), None where nothing can be
        compared; and a note where there are different ones.
    """
    if schedule is None:
        return None, []
    planned = schedule.set_index("request_id")["prompt_tokens"].dropna()
    own = requests[requests["prompt_tokens"].notna() & requests["request_id"].isin(planned.index)]
    if own.empty:
        return None, []
    difference = own["prompt_tokens"].to_numpy(dtype=np.int64) - planned.loc[own["request_id"]].to_numpy(dtype=np.int64)
    different = int((difference != 0).sum())
    found = {
        "compared": len(own),
        "different": different,
        "share": different / len(own),
        "mean_difference": float(difference.mean()),
    }
    if not different:
        return found, []
    return found, [
        reason(
            "prompt_length_differs",
            f"{different} of {len(own)} prompts ({100 * different / len(own):.1f} %) had another length at the server "
            f"than was asked for, {difference.mean():+.1f} tokens on average; the server's count is used.",
        )
    ]


def _scrapes(metrics: ServerMetrics, span: Span) -> tuple[int, int] | None:
    """The last scrape before the cell, and the last before the next one: the server has settled most by then."""
    times_ns, _ = metrics.series("generated")
    before = times_ns[times_ns <= span.start_ns]
    after = times_ns[times_ns >= span.drained_ns]
    if span.next_ns is not None:
        after = after[after <= span.next_ns]
    return (int(before[-1]), int(after[-1])) if len(before) and len(after) else None


def _rise(metrics: ServerMetrics, quantity: str, scrapes: tuple[int, int]) -> int | None:
    series = metrics.series(quantity)
    return round(value_at(series, scrapes[1]) - value_at(series, scrapes[0])) if len(series[0]) else None


def _asked(requests: pd.DataFrame, finished: int | None, lost: int) -> dict[str, Any]:
    """Requests that were sent, those that were cut off, failed or gave no usage, and what the server ended beyond."""
    sent = int(requests["sent_ns"].notna().sum())
    return {
        "sent": sent,
        "not_whole": lost,
        "of_others": None if finished is None else max(finished - sent, 0),
    }


def _limits(requests: pd.DataFrame, lost: pd.DataFrame, schedule: pd.DataFrame | None) -> dict[str, int]:
    """The most tokens that requests which did not end well can have cost the server beyond what they told.

    Repeated requests of a closed loop have ids that are not in the schedule: for these the largest of the cell counts.
    """
    most = {}
    for kind, column in (("generated", "max_tokens"), ("prompt", "prompt_tokens")):
        seen = int(requests[COLUMNS[kind]].max()) if requests[COLUMNS[kind]].notna().any() else 0
        told = int(lost[COLUMNS[kind]].fillna(0).sum())
        if schedule is None or schedule.empty:
            most[kind] = max(seen * len(lost) - told, 0)
            continue
        planned = schedule.drop_duplicates("request_id").set_index("request_id")[column]
        largest = max(seen, int(planned.max()) if planned.notna().any() else 0)
        own = planned.reindex(lost["request_id"]).fillna(largest)
        most[kind] = max(int(own.sum()) - told, 0)
    return {**most, "cached": most["prompt"]}


def _row(
    kind: str,
    requests: pd.DataFrame,
    rise: dict[str, int | None],
    limits: dict[str, int],
    asked: dict[str, Any],
) -> dict[str, Any] | None:
    server, column = rise[kind], requests[COLUMNS[kind]]
    answered = requests["completion_tokens"].notna()
    if server is None or (kind == "cached" and bool(column[answered].isna().any())):
        return None
    client = int(column.fillna(0).sum())
    surplus = server - client
    lost, preemptions, others = asked["not_whole"], rise["preemptions"], asked["of_others"]
    explained = min(max(surplus, 0), limits[kind])
    causes = []
    if surplus and lost and explained:
        causes.append(f"{lost} request(s) that were cut off, failed or gave no usage")
    if surplus and preemptions and kind != "generated":
        causes.append(f"{preemptions} preemption(s), after which a prompt is computed again")
    if surplus and others:
        causes.append(f"{others} request(s) of others")
    return {
        "client": client,
        "server": server,
        "difference": -surplus,
        "explained": explained,
        "unexplained": surplus - explained,
        "causes": causes,
    }


def _finished(requests: pd.DataFrame, metrics: ServerMetrics, scrapes: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Requests by finish reason; those that did not end well are together under `not ok`."""
    ok = requests["status"] == "ok"
    client = {str(name): int(count) for name, count in requests.loc[ok, "finish_reason"].value_counts().items()}
    server: dict[str, int] = {}
    engine = metrics.engine
    if engine.finish_label is not None:
        for name, series in metrics.labelled("finished", engine.finish_label).items():
            server[name] = round(value_at(series, scrapes[1]) - value_at(series, scrapes[0]))
    elif (total := _rise(metrics, "finished", scrapes)) is not None:
        aborted = _rise(metrics, "aborted", scrapes) or 0
        client = {"ended": int(ok.sum())}
        server = {"ended": total - aborted, "abort": aborted}
    unfinished = int((requests["sent_ns"].notna() & ~ok).sum())
    found = {
        name: {"client": client.get(name, 0), "server": server.get(name) if server else None}
        for name in dict.fromkeys((*client, *(n for n in server if n not in UNFINISHED and server[n])))
    }
    cut = sum(server.get(name, 0) for name in UNFINISHED)
    if unfinished or cut:
        found["not ok"] = {"client": unfinished, "server": cut if server else None}
    return found


def _reasons(tokens: dict[str, dict[str, Any] | None], tolerance: float) -> list[Reason]:
    found = []
    for kind, row in tokens.items():
        if row is None or not row["difference"]:
            continue
        more = f"{abs(row['difference']):,} {kind} tokens {'fewer' if row['difference'] > 0 else 'more'}"
        causes = f": {'; '.join(row['causes'])}" if row["causes"] else ", and nothing recorded explains it"
        text = f"Over the whole cell the server counted {more} than the client ({row['server']:,})"
        # Servers differ in what they call cached.
        beyond = kind != "cached" and abs(row["unexplained"]) > tolerance * max(abs(row["server"]), 1)
        if beyond and row["explained"]:
            causes += f", which can explain {row['explained']:,}"
        found.append(reason("token_mismatch" if beyond else "tokens_differ", f"{text}{causes}."))
    return found
