"""Stage `launch`: did the server come up, how long did it take, and did it leave anything behind.

Stage `launch`: did the server come up, how long did it take, and did it leave anything behind.

Stage `warmup`: what the warm-up asked and whether the server had settled by its end.

Throughput is compared between the third and the last quarter of the time in which requests were sent: had it
settled, both would be alike.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from inference_energy.analysis.figures import blocking, reason
from inference_energy.analysis.session_facts import identity, read_session
from inference_energy.analysis.windows import TokenTimes, phase_times
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts.figure import Reason
from inference_energy.contracts.io import read_table


def launch(*, session: Path, phases: Path) -> dict[str, Any]:
    """launch.json of a session.

    Args:
        session: session.json.
        phases: phases.parquet.

    Returns:
        `ok`, `mode`, `ready_after_s`, `command`, `server_version`, `model`, `start_ns`, `end_ns`, `stop` and `reasons`.
        An attached server is ok and has neither a command nor a time to readiness.
    """
    recorded = read_session(session)
    times = phase_times(read_table(phases, phases_contract.SCHEMA), "launch")
    started = recorded.get("launch") or {}
    mode = recorded["mode"]
    reasons: list[Reason] = []
    if mode == "attach":
        reasons.append(reason("attached", "The server was already running, so its start was not measured."))
    elif started.get("ready_after_s") is None or times is None:
        reasons.append(reason("launch_failed", "The session records no time at which the server was ready."))
    reasons += _not_stopped_cleanly(recorded.get("stop") or {})
    return {
        "version": 1,
        **identity(recorded),
        "ok": not blocking(reasons),
        "mode": mode,
        "model": recorded.get("model"),
        "server_version": recorded["server"].get("version"),
        "ready_after_s": started.get("ready_after_s"),
        "command": started.get("command"),
        "start_ns": times[0] if times else None,
        "end_ns": times[1] if times else None,
        "stop": recorded.get("stop"),
        "reasons": [{"code": r.code, "detail": r.detail} for r in reasons],
    }


def _not_stopped_cleanly(stop: dict[str, Any]) -> list[Reason]:
    """What the guardian's last status (see acquire.server.guardian) says of processes that did not end when asked."""
    found = []
    for key, what in (("leftover_pids", "are still there"), ("killed_pids", "had to be killed")):
        if pids := stop.get(key) or []:
            listed = ", ".join(map(str, pids))
            found.append(reason("leftover_processes", f"{len(pids)} process(es) of the server {what}: {listed}."))
    return found


SETTLED_WITHIN = 0.25
"""Largest difference of the two quarters, as a share of the larger, that counts as settled."""

MIN_TOKENS = 200
"""Fewer generated tokens in the second half say nothing about a change of this size."""


def warmup(*, session: Path, phases: Path, requests: Path) -> dict[str, Any]:
    """warmup.json of a session.

    Args:
        session: session.json.
        phases: phases.parquet.
        requests: requests.parquet.

    Returns:
        `requests`, `ok`, `failed`, `aborted`, `output_tokens`, `duration_s`, `throughput` (tokens/s in each quarter,
        `settled`: true, false, or null where there was too little to tell) and `reasons`.
    """
    asked = read_table(requests, requests_contract.SCHEMA)
    asked = asked[asked["cell"] == "warmup"]
    times = phase_times(read_table(phases, phases_contract.SCHEMA), "warmup")
    reasons = []
    if times is None:
        reasons.append(
            reason("no_warmup", "The session had no warm-up; its first window may hold the server's first steps.")
        )
    failed = int((asked["status"] == "failed").sum())
    if failed:
        first = asked.loc[asked["status"] == "failed", "error"].dropna()
        because = f"; the first: {first.iloc[0]}" if len(first) else ""
        reasons.append(reason("warmup_failures", f"{failed} of {len(asked)} warm-up requests failed{because}."))
    quarters, settled = _throughput(asked)
    if settled is False:
        reasons.append(
            reason("warmup_too_short", f"The last two quarters made {quarters[2]:.1f} and {quarters[3]:.1f} tokens/s.")
        )
    return {
        "version": 1,
        **identity(read_session(session)),
        "requests": len(asked),
        "ok": int((asked["status"] == "ok").sum()),
        "failed": failed,
        "aborted": int((asked["status"] == "aborted").sum()),
        "output_tokens": int(asked["completion_tokens"].fillna(0).sum()),
        "duration_s": (times[1] - times[0]) / 1e9 if times else None,
        "throughput": {"quarters_tokens_per_s": quarters, "settled": settled},
        "reasons": [{"code": r.code, "detail": r.detail} for r in reasons],
    }


def _throughput(requests: pd.DataFrame) -> tuple[list[float], bool | None]:
    """Tokens/s in each quarter, and whether the last two are alike."""
    sent = requests["sent_ns"].dropna()
    if len(sent) < 2 or sent.min() == sent.max():
        return [], None
    start_ns, end_ns = int(sent.min()), int(sent.max())
    edges = [start_ns + (end_ns - start_ns) * quarter // 4 for quarter in range(5)]
    tokens = TokenTimes.of(requests)
    counts = [int(tokens.completion_inside(a, b).sum()) for a, b in pairwise(edges)]
    quarters = [count / ((b - a) / 1e9) for count, (a, b) in zip(counts, pairwise(edges), strict=True)]
    if counts[2] + counts[3] < MIN_TOKENS:
        return quarters, None
    return quarters, abs(quarters[2] - quarters[3]) <= SETTLED_WITHIN * max(quarters[2], quarters[3])
