"""The client's token counts against the server's own counters, over a window and over its whole cell.

**Over a window** a counter is read once a scrape, so its value at an edge is interpolated between the two scrapes
around it. The true value lies between theirs; the largest possible error of both edges is allowed on top of the
tolerance. Over a short window that error may exceed the tolerance itself: then a small difference proves nothing.

**Over a cell**, a window with its drain, there is no such error. Right before a cell and after its drain nothing is in
flight and the counters are read, so their rise is what the cell caused, token for token. It must equal the sum over the
cell's requests; where it does not, the table gives the difference and its possible causes:

- a request that was cut off, failed or gave no usage: its tokens stay in the server's counters, and the client does not
  know all of them; at most the answer's limit and the prompt's length each;
- preemptions, where the server counts a prompt again that it computed again;
- requests of others;
- a restart of the server, which sets its counters to zero: then nothing can be compared.

Only the first explains a difference away; the others are named.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from inference_energy.analysis.server_metrics import ServerMetrics, value_at
from inference_energy.contracts.documents.windows import (
    CellRequestTotals,
    CellTokens,
    CellTokenTotals,
    CellTotals,
    FinishedRequests,
    PromptLengths,
    TokenComparison,
    TokenReconciliation,
    WindowCounts,
)
from inference_energy.contracts.figure import Reason
from inference_energy.contracts.reason_codes import reason

COLUMNS = {"generated": "completion_tokens", "prompt": "prompt_tokens", "cached": "cached_tokens"}
"""Kinds of tokens, and their columns in requests.parquet."""

UNFINISHED = ("abort", "error")
"""Finish reasons of the server for requests that did not end well."""

WARMUP = "warmup"

MAX_ALLOWANCE = 2.0
"""Largest reading error, in tolerances, at which counts that lie within the tolerance are said to agree."""


@dataclass(frozen=True)
class CellSpan:
    """A cell's start, the end of its drain, and the start of the next cell, if any; monotonic ns."""

    start_ns: int
    drained_ns: int
    next_ns: int | None


def reconcile_window(
    counts: WindowCounts, metrics: ServerMetrics, start_ns: int, end_ns: int, tolerance: float
) -> tuple[TokenReconciliation, list[Reason]]:
    """Compare the token counts of a window.

    `agrees` is false where the counts differ by more than the tolerance and the reading error together, true where they
    differ by less than the tolerance and the reading error is at most `MAX_ALLOWANCE` of it, and None where neither can
    be told, which is noted. A difference in cached tokens is reported and gives no reason: servers differ in what they
    count as cached.

    Args:
        counts: the client's counts.
        metrics: metrics of the session.
        start_ns: start of the window.
        end_ns: end of the window.
        tolerance: largest difference as a share of the server's count.

    Returns:
        The comparison, and reasons of the token counts.
    """
    client = {"generated": counts.output_tokens, "prompt": counts.prompt_tokens, "cached": counts.cached_tokens}
    comparisons = {
        kind: _compare(count, metrics.rise(kind, start_ns, end_ns), tolerance) for kind, count in client.items()
    }
    reasons: list[Reason] = []
    for kind, comparison in comparisons.items():
        if comparison is None or kind == "cached" or comparison.agrees:
            continue
        if comparison.agrees is None:
            reasons.append(
                reason(
                    "tokens_unresolved",
                    f"The server's counter of {kind} tokens is read too seldom for this window: its rise of "
                    f"{comparison.server:.0f} may be off by {comparison.allowance:.0f}, so it cannot be told whether "
                    f"the client's count, {comparison.client}, is within {100 * tolerance:g} % of it.",
                )
            )
        else:
            reasons.append(
                reason(
                    "token_mismatch",
                    f"The client counted {comparison.client} {kind} tokens in the window, the server "
                    f"{comparison.server:.0f}: more apart than {100 * tolerance:g} % and the "
                    f"{comparison.allowance:.0f} tokens of possible reading error.",
                )
            )
    if comparisons["generated"] is None or comparisons["prompt"] is None:
        unclear = metrics.unclear("generated") or metrics.unclear("prompt")
        why = unclear or "The server's token counters do not cover the window."
        reasons.append(reason("tokens_unreconciled", f"{why} So nothing checks the client's counts."))
    return TokenReconciliation(**comparisons), reasons


def cell_spans(phases: pd.DataFrame) -> dict[str, CellSpan]:
    """Return the cells of a session by name, from phases.parquet."""
    starts = phases[phases["phase"].isin(("window", WARMUP))].sort_values("start_ns")
    drains = phases[phases["phase"] == "drain"]
    drained_ns = dict(zip(drains["cell"], drains["end_ns"], strict=True))
    starts_ns = [*starts["start_ns"].tolist(), None]
    cells = {}
    for position, row in enumerate(starts.itertuples()):
        end_ns = int(drained_ns.get(row.cell, int(str(row.end_ns))))
        cells[str(row.cell)] = CellSpan(int(str(row.start_ns)), end_ns, starts_ns[position + 1])
    return cells


def compare_cell(
    requests: pd.DataFrame, schedule: pd.DataFrame | None, metrics: ServerMetrics, cell: CellSpan, tolerance: float
) -> tuple[CellTotals, list[Reason]]:
    """Compare the totals of a cell.

    Args:
        requests: all of the cell's rows of requests.parquet.
        schedule: its rows of schedule.parquet, for the limits of lost requests; None where there is none.
        metrics: metrics of the session.
        cell: the cell.
        tolerance: largest unexplained difference as a share of the server's count.

    Returns:
        The totals, and reasons of the token counts.
    """
    if unclear := metrics.unclear("generated") or metrics.unclear("prompt"):
        return CellTotals(why=f"{unclear[0].lower()}{unclear[1:].removesuffix('.')}"), []
    scrapes = _scrapes(metrics, cell)
    if scrapes is None:
        return CellTotals(why="the server's counters were not read before the cell and after its drain"), []
    if metrics.restarted(*scrapes):
        why = "the server's counters began anew: it was restarted during the cell"
        return CellTotals(why=why), [reason("server_restarted", f"{why[0].upper()}{why[1:]}.")]
    lost = requests[requests["sent_ns"].notna() & (requests["completion_tokens"].isna() | (requests["status"] != "ok"))]
    rises = {quantity: _rise(metrics, quantity, scrapes) for quantity in (*COLUMNS, "finished", "preemptions")}
    foreign = {quantity: round(metrics.rise_of_others(quantity, *scrapes)) for quantity in rises}
    totals = _request_totals(requests, rises["finished"], len(lost), foreign["finished"])
    limits = _lost_limits(requests, lost, schedule)
    tokens = {kind: _cell_tokens(kind, requests, rises, limits[kind], totals) for kind in COLUMNS}
    table = CellTotals(
        why=None,
        engine=metrics.engine.name,
        from_ns=scrapes[0],
        to_ns=scrapes[1],
        tokens=CellTokenTotals(**tokens),
        finished=_finished(requests, metrics, scrapes),
        requests=totals,
        preemptions=rises["preemptions"],
    )
    return table, [*_cell_reasons(tokens, tolerance), *_other_models(foreign, rises, tolerance)]


def prompt_lengths(requests: pd.DataFrame, schedule: pd.DataFrame | None) -> tuple[PromptLengths | None, list[Reason]]:
    """Compare the prompt lengths that were asked for with those that the server read.

    Returns:
        The comparison, None where there is nothing to compare; and a note where lengths differ.
    """
    if schedule is None:
        return None, []
    planned = schedule.set_index("request_id")["prompt_tokens"].dropna()
    compared = requests[requests["prompt_tokens"].notna() & requests["request_id"].isin(planned.index)]
    if compared.empty:
        return None, []
    asked = planned.loc[compared["request_id"]].to_numpy(dtype=np.int64)
    difference = compared["prompt_tokens"].to_numpy(dtype=np.int64) - asked
    different = int((difference != 0).sum())
    lengths = PromptLengths(
        compared=len(compared),
        different=different,
        share=different / len(compared),
        mean_difference=float(difference.mean()),
    )
    if not different:
        return lengths, []
    return lengths, [
        reason(
            "prompt_length_differs",
            f"{different} of {len(compared)} prompts ({100 * different / len(compared):.1f} %) had another length at "
            f"the server than was asked for, {difference.mean():+.1f} tokens on average; the server's count is used.",
        )
    ]


def _compare(client: int, rise: tuple[float, float] | None, tolerance: float) -> TokenComparison | None:
    if rise is None:
        return None
    server, allowance = rise
    difference = client - server
    return TokenComparison(
        client=client,
        server=server,
        difference=difference,
        share=difference / server if server else None,
        allowance=allowance,
        agrees=_agree(abs(difference), tolerance * abs(server), allowance),
    )


def _agree(difference: float, tolerated: float, allowance: float) -> bool | None:
    """Return whether two counts agree; None where the reading error leaves it open."""
    if difference > tolerated + allowance:
        return False
    return True if difference <= tolerated and allowance <= MAX_ALLOWANCE * tolerated else None


def _scrapes(metrics: ServerMetrics, cell: CellSpan) -> tuple[int, int] | None:
    """Return the last scrape before the cell, and the last before the next one: the server has settled most by then."""
    times_ns, _ = metrics.series("generated")
    before = times_ns[times_ns <= cell.start_ns]
    after = times_ns[times_ns >= cell.drained_ns]
    if cell.next_ns is not None:
        after = after[after <= cell.next_ns]
    return (int(before[-1]), int(after[-1])) if len(before) and len(after) else None


def _rise(metrics: ServerMetrics, quantity: str, scrapes: tuple[int, int]) -> int | None:
    series = metrics.series(quantity)
    return round(value_at(series, scrapes[1]) - value_at(series, scrapes[0])) if len(series[0]) else None


def _request_totals(requests: pd.DataFrame, finished: int | None, lost: int, of_other_models: int) -> CellRequestTotals:
    sent = int(requests["sent_ns"].notna().sum())
    others = None if finished is None else max(finished - sent, 0) + of_other_models
    return CellRequestTotals(sent=sent, not_whole=lost, of_others=others)


def _lost_limits(requests: pd.DataFrame, lost: pd.DataFrame, schedule: pd.DataFrame | None) -> dict[str, int]:
    """Return the most tokens that lost requests can have cost the server beyond those that they reported.

    Repeated requests of a closed loop have ids that are not in the schedule: for these the largest of the cell counts.
    """
    limits = {}
    for kind, column in (("generated", "max_tokens"), ("prompt", "prompt_tokens")):
        seen = int(requests[COLUMNS[kind]].max()) if requests[COLUMNS[kind]].notna().any() else 0
        reported = int(lost[COLUMNS[kind]].fillna(0).sum())
        if schedule is None or schedule.empty:
            limits[kind] = max(seen * len(lost) - reported, 0)
            continue
        planned = schedule.drop_duplicates("request_id").set_index("request_id")[column]
        largest = max(seen, int(planned.max()) if planned.notna().any() else 0)
        possible = planned.reindex(lost["request_id"]).fillna(largest)
        limits[kind] = max(int(possible.sum()) - reported, 0)
    return {**limits, "cached": limits["prompt"]}


def _cell_tokens(
    kind: str, requests: pd.DataFrame, rises: dict[str, int | None], limit: int, totals: CellRequestTotals
) -> CellTokens | None:
    server, column = rises[kind], requests[COLUMNS[kind]]
    answered = requests["completion_tokens"].notna()
    if server is None or (kind == "cached" and bool(column[answered].isna().any())):
        return None
    whole = column[requests["status"] == "ok"]
    if len(whole) and column.isna().all():
        return None  # the server counts for nobody, which is no count of zero; of requests cut off, it is expected
    client = int(column.fillna(0).sum())
    surplus = server - client
    preemptions = rises["preemptions"]
    explained = min(max(surplus, 0), limit)
    causes = []
    if surplus and totals.not_whole and explained:
        causes.append(f"{totals.not_whole} request(s) that were cut off, failed or gave no usage")
    if surplus and preemptions and kind != "generated":
        causes.append(f"{preemptions} preemption(s), after which a prompt is computed again")
    if surplus and totals.of_others:
        causes.append(f"{totals.of_others} request(s) of others")
    return CellTokens(
        client=client,
        server=server,
        difference=-surplus,
        explained=explained,
        unexplained=surplus - explained,
        causes=causes,
    )


def _finished(requests: pd.DataFrame, metrics: ServerMetrics, scrapes: tuple[int, int]) -> dict[str, FinishedRequests]:
    """Return requests by finish reason; those that did not end well are together under `not ok`."""
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
    names = dict.fromkeys((*client, *(name for name in server if name not in UNFINISHED and server[name])))
    finished = {
        name: FinishedRequests(client=client.get(name, 0), server=server.get(name) if server else None)
        for name in names
    }
    cut = sum(server.get(name, 0) for name in UNFINISHED)
    if unfinished or cut:
        finished["not ok"] = FinishedRequests(client=unfinished, server=cut if server else None)
    return finished


def _other_models(foreign: dict[str, int], own: dict[str, int | None], tolerance: float) -> list[Reason]:
    """Return the reason if the server also worked for other models, whose energy nothing tells apart."""
    work = {kind: foreign[kind] for kind in ("generated", "prompt") if foreign[kind] > tolerance * (own[kind] or 0)}
    if not work:
        return []
    tokens = " and ".join(f"{count:,} {kind} tokens" for kind, count in work.items())
    return [
        reason("other_models", f"Meanwhile the server counted {tokens} of other models; the energy holds theirs too.")
    ]


def _cell_reasons(tokens: dict[str, CellTokens | None], tolerance: float) -> list[Reason]:
    reasons = []
    for kind, row in tokens.items():
        if row is None or not row.difference:
            continue
        more = f"{abs(row.difference):,} {kind} tokens {'fewer' if row.difference > 0 else 'more'}"
        causes = f": {'; '.join(row.causes)}" if row.causes else ", and nothing recorded explains it"
        text = f"Over the whole cell the server counted {more} than the client ({row.server:,})"
        # Servers differ in what they call cached.
        beyond = kind != "cached" and abs(row.unexplained) > tolerance * max(abs(row.server), 1)
        if beyond and row.explained:
            causes += f", which can explain {row.explained:,}"
        reasons.append(reason("token_mismatch" if beyond else "tokens_differ", f"{text}{causes}."))
    return reasons
