"""Stages `launch` and `warmup`: how the server came up and went down, and whether it had settled after the warm-up.

The token rates of the third and the last quarter of the warm-up, by the times at which requests were sent, are
compared: in a settled server they are alike.
"""

from itertools import pairwise
from pathlib import Path

import pandas as pd

from inference_energy.analysis.session_facts import read_session, session_names
from inference_energy.analysis.token_times import TokenTimes
from inference_energy.analysis.windows import phase_times
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts.documents.session import StopFacts
from inference_energy.contracts.documents.windows import LaunchDocument, WarmupDocument, WarmupThroughput
from inference_energy.contracts.figure import Reason
from inference_energy.contracts.io import read_table
from inference_energy.contracts.reason_codes import blocking, reason

SETTLED_WITHIN = 0.25
"""Largest difference of the two quarters, as a share of the larger, of a settled server."""

MIN_TOKENS = 200
"""Fewer generated tokens in the second half are too few to detect a change of this size."""


def launch(*, session: Path, phases: Path) -> LaunchDocument:
    """Return launch.json of a session. An attached server is ok and has neither a command nor a time to readiness.

    Args:
        session: session.json.
        phases: phases.parquet.
    """
    recorded = read_session(session)
    times_ns = phase_times(read_table(phases, phases_contract.SCHEMA), "launch")
    started = recorded.launch
    ready_after_s = started.ready_after_s if started else None
    reasons: list[Reason] = []
    if recorded.mode == "attach":
        reasons.append(reason("attached", "The server was already running, so its start was not measured."))
    elif ready_after_s is None or times_ns is None:
        reasons.append(reason("launch_failed", "The session records no time at which the server was ready."))
    reasons += _stop_reasons(recorded.stop)
    return LaunchDocument(
        **session_names(recorded),
        ok=not blocking(reasons),
        mode=recorded.mode,
        model=recorded.model,
        server_version=recorded.server.version,
        ready_after_s=ready_after_s,
        command=started.command if started else None,
        start_ns=times_ns[0] if times_ns else None,
        end_ns=times_ns[1] if times_ns else None,
        stop=recorded.stop,
        reasons=reasons,
    )


def warmup(*, session: Path, phases: Path, requests: Path) -> WarmupDocument:
    """Return warmup.json of a session.

    Args:
        session: session.json.
        phases: phases.parquet.
        requests: requests.parquet.
    """
    rows = read_table(requests, requests_contract.SCHEMA)
    rows = rows[rows["cell"] == "warmup"]
    times_ns = phase_times(read_table(phases, phases_contract.SCHEMA), "warmup")
    reasons = []
    if times_ns is None:
        reasons.append(
            reason("no_warmup", "The session had no warm-up; its first window may hold the server's first steps.")
        )
    failed = int((rows["status"] == "failed").sum())
    if failed:
        errors = rows.loc[rows["status"] == "failed", "error"].dropna()
        first = f"; the first: {errors.iloc[0]}" if len(errors) else ""
        reasons.append(reason("warmup_failures", f"{failed} of {len(rows)} warm-up requests failed{first}."))
    throughput = _throughput(rows)
    if throughput.settled is False:
        third, last = throughput.quarters_tokens_per_s[2:]
        reasons.append(reason("warmup_too_short", f"The last two quarters made {third:.1f} and {last:.1f} tokens/s."))
    return WarmupDocument(
        **session_names(read_session(session)),
        requests=len(rows),
        ok=int((rows["status"] == "ok").sum()),
        failed=failed,
        aborted=int((rows["status"] == "aborted").sum()),
        output_tokens=int(rows["completion_tokens"].fillna(0).sum()),
        duration_s=(times_ns[1] - times_ns[0]) / 1e9 if times_ns else None,
        throughput=throughput,
        reasons=reasons,
    )


def _stop_reasons(stop: StopFacts | None) -> list[Reason]:
    """Return notes on processes that did not end when the guardian (`acquire.server.guardian`) stopped the server."""
    if stop is None:
        return []
    notes = []
    for pids, what in ((stop.leftover_pids, "are still there"), (stop.killed_pids, "had to be killed")):
        if pids:
            listed = ", ".join(map(str, pids))
            notes.append(reason("leftover_processes", f"{len(pids)} process(es) of the server {what}: {listed}."))
    return notes


def _throughput(requests: pd.DataFrame) -> WarmupThroughput:
    sent = requests["sent_ns"].dropna()
    if len(sent) < 2 or sent.min() == sent.max():
        return WarmupThroughput(quarters_tokens_per_s=[], settled=None)
    start_ns, end_ns = int(sent.min()), int(sent.max())
    edges_ns = [start_ns + (end_ns - start_ns) * quarter // 4 for quarter in range(5)]
    tokens = TokenTimes.from_requests(requests)
    counts = [int(tokens.completion_inside(*quarter).sum()) for quarter in pairwise(edges_ns)]
    rates = [count / ((end - start) / 1e9) for count, (start, end) in zip(counts, pairwise(edges_ns), strict=True)]
    settled = None
    if counts[2] + counts[3] >= MIN_TOKENS:
        settled = abs(rates[2] - rates[3]) <= SETTLED_WITHIN * max(rates[2], rates[3])
    return WarmupThroughput(quarters_tokens_per_s=rates, settled=settled)
