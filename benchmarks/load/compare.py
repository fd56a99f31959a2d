"""A client's times beside the server's own: what the client added."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from inference_energy.acquire.load.request_log import merge_request_logs
from inference_energy.acquire.load.standalone import LOGS
from load.plans import FIRST_KEY


@dataclass
class Seen:
    """What a client says of one request; `name` is by what the server's note of it is found."""

    name: tuple[str, int]
    scheduled_ns: int
    sent_ns: int
    ttft_s: float
    itl_s: list[float]


@dataclass
class Result:
    """What a client says of a run; `tokens` of all its requests."""

    from_ns: int
    until_ns: int
    completed: int
    failed: int
    tokens: int
    seen: list[Seen]


def of_ours(folder: Path) -> Result:
    """From the logs of the load processes."""
    merge_request_logs(folder / LOGS, folder / "requests.parquet")
    chunks = folder / "chunks.parquet"
    return read(folder / "requests.parquet", chunks if chunks.exists() else None)


def read(requests: Path, chunks: Path | None) -> Result:
    """From the log of requests, and that of arrivals if there is one."""
    sent = [row for row in pq.read_table(requests).to_pylist() if row["status"] != "skipped"]
    good = [row for row in sent if row["status"] == "ok"]
    times: dict[int, list[int]] = defaultdict(list)
    if chunks is not None:
        for row in pq.read_table(chunks).to_pylist():
            times[row["request_id"]] += [row["timestamp_ns"]] * row["events"]
    seen = [
        Seen(
            ("key", FIRST_KEY + row["prompt_id"]),
            row["scheduled_ns"],
            row["sent_ns"],
            (row["first_token_ns"] - row["sent_ns"]) / 1e9,
            gaps_s(times[row["request_id"]]),
        )
        for row in good
    ]
    return Result(
        min(row["sent_ns"] for row in sent),
        max(row["end_ns"] for row in sent),
        len(good),
        len(sent) - len(good),
        sum(row["completion_tokens"] for row in good),
        seen,
    )


def of_aiohttp_loop(folder: Path) -> Result:
    """From what `aiohttp_loop.py` wrote."""
    rows = json.loads((folder / "rows.json").read_text())
    seen = [
        Seen(
            ("key", row["key"]),
            row["scheduled_ns"],
            row["sent_ns"],
            (row["times_ns"][0] - row["sent_ns"]) / 1e9,
            gaps_s(row["times_ns"]),
        )
        for row in rows
        if "key" in row
    ]
    tokens = sum(row.get("tokens") or len(row["times_ns"]) for row in rows)
    return Result(min(row["sent_ns"] for row in rows), max(row["end_ns"] for row in rows), len(rows), 0, tokens, seen)


def of_vllm(folder: Path, arrivals_ns: list[int]) -> Result:
    """From the result of `vllm bench serve --save-detailed`, whose times are those of the monotonic clock too."""
    result = json.loads((folder / "result.json").read_text())
    seen = []
    if arrivals_ns:
        start_ns = json.loads((folder / "start.json").read_text())
        names = ("start_times", "ttfts", "itls", "generated_texts")
        for arrival_ns, start_s, ttft_s, itl_s, text in zip(
            arrivals_ns, *(result[name] for name in names), strict=True
        ):
            serial = int(text.split()[0][1:])
            seen.append(Seen(("serial", serial), start_ns + arrival_ns, round(start_s * 1e9), ttft_s, itl_s))
    ends_s = [
        start_s + ttft_s + sum(itl_s)
        for start_s, ttft_s, itl_s in zip(result["start_times"], result["ttfts"], result["itls"], strict=True)
    ]
    return Result(
        round(min(result["start_times"]) * 1e9),
        round(max(ends_s) * 1e9),
        result["completed"],
        result.get("failed", 0),
        result["total_output_tokens"],
        seen,
    )


def fidelity(result: Result, truth: Path) -> dict[str, Any]:
    """Errors of the client [ms]; see `load_clients.py`."""
    true: dict[tuple[str, int], tuple[int, list[int]]] = {}
    for serial, key, arrival_ns, sent_ns in json.loads(truth.read_text()):
        true["serial", serial] = arrival_ns, sent_ns
        if key is not None:
            true["key", key] = arrival_ns, sent_ns
    ttft, itl, lag, late, arrived, due = [], [], [], [], [], []
    for one in result.seen:
        arrival_ns, sent_ns = true[one.name]
        ttft.append(one.ttft_s * 1e3 - (sent_ns[0] - arrival_ns) / 1e6)
        if len(one.itl_s) == len(sent_ns) - 1:
            itl += [abs(mine - gap) * 1e3 for mine, gap in zip(one.itl_s, gaps_s(sent_ns), strict=True)]
        lag.append((arrival_ns - one.scheduled_ns) / 1e6)
        late.append((one.sent_ns - one.scheduled_ns) / 1e6)
        arrived.append(arrival_ns)
        due.append(one.scheduled_ns)
    return {
        "requests": len(result.seen),
        "failed": result.failed,
        "ttft_error_ms": spread(ttft),
        "itl_error_ms": spread(itl),
        "send_lag_ms": spread(lag),
        "own_lateness_ms": spread(late),
        "achieved_per_offered": (max(due) - min(due)) / (max(arrived) - min(arrived)) if len(due) > 1 else None,
    }


def gaps_s(times_ns: Sequence[int]) -> list[float]:
    """Times between neighbours."""
    return [(after_ns - before_ns) / 1e9 for before_ns, after_ns in pairwise(times_ns)]


def spread(values: list[float]) -> dict[str, float] | None:
    """Mean, median, 99th percentile and the most."""
    if not values:
        return None
    p50, p99 = (float(value) for value in np.percentile(values, [50, 99]))
    return {"mean": float(np.mean(values)), "p50": p50, "p99": p99, "max": float(np.max(values))}
