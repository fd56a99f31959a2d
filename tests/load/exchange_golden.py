"""The client's times against what the bench's server knows to be true: every token's send, on the same clock."""

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from exchange_server import Seen, client_of

from inference_energy.acquire.load.exchange.body import prompt_fragment
from inference_energy.acquire.load.exchange.request import PlannedRequest, RequestRecord
from inference_energy.acquire.load.exchange.settings import WorkloadSettings
from inference_energy.bench.live.truth_files import EVENTS, REQUESTS, read

LENGTHS = 100


class Arrivals(Seen):
    """Keeps the time of each token of each request."""

    def __init__(self) -> None:
        super().__init__()
        self.times_ns: dict[int, list[int]] = {}

    def chunk(self, record: RequestRecord, timestamp_ns: int, events: int, completion_tokens: int | None) -> None:
        self.times_ns.setdefault(record.request_id, []).extend([timestamp_ns] * events)


def drive(
    endpoint: str, rate_qps: float, duration_s: float, tokens: int, transport: str, seed: int = 1
) -> tuple[Arrivals, float]:
    """Send Poisson arrivals; returns what was seen, and the CPU time used [s]."""
    seen = Arrivals()
    workload = WorkloadSettings(ignore_eos=True, chunk_times=True)
    draws = random.Random(seed)

    async def run() -> None:
        async with client_of(endpoint, transport=transport, seen=seen, request_timeout_s=60.0) as client:
            tasks, due_s, number, began_s = [], 0.0, 0, time.monotonic()
            while (due_s := due_s + draws.expovariate(rate_qps)) < duration_s:
                prompt = prompt_fragment("completions", token_ids=[number % 500] * (8 + number % LENGTHS))
                request = PlannedRequest(number, "cell", number, prompt, tokens)
                await asyncio.sleep(max(0.0, began_s + due_s - time.monotonic()))
                tasks.append(asyncio.create_task(client.send(request, workload, time.monotonic_ns(), 0)))
                number += 1
            await asyncio.gather(*tasks)

    before_s = time.process_time()
    uvloop.run(run())
    return seen, time.process_time() - before_s


def compare(seen: Arrivals, truth: Path) -> dict[str, Any]:
    """Errors of the client's times [ms]: of the first token, and of each gap between tokens."""
    records = [record for record, _ in seen.ended_with]
    assert [record.error for record in records] == [None] * len(records)
    true = read(truth, REQUESTS).to_pandas().sort_values(["prompt_tokens", "arrival_ns"])
    mine = sorted(records, key=lambda record: (record.prompt_tokens or 0, record.sent_ns or 0))
    assert true["prompt_tokens"].tolist() == [record.prompt_tokens for record in mine]
    events = read(truth, EVENTS).to_pandas().sort_values(["request_id", "token"])
    sent = {number: group.to_numpy() for number, group in events.groupby("request_id")["sent_ns"]}
    first, gaps = [], []
    for record, number in zip(mine, true["request_id"], strict=True):
        arrived_ns = np.array(seen.times_ns[record.request_id])
        assert len(arrived_ns) == len(sent[number]) == record.completion_tokens
        assert record.first_token_ns == arrived_ns[0]
        first.append((arrived_ns[0] - sent[number][0]) / 1e6)
        gaps.append((np.diff(arrived_ns) - np.diff(sent[number])) / 1e6)
    return {"requests": len(mine), "ttft": summary(first), "itl": summary(np.abs(np.concatenate(gaps)))}


def summary(errors_ms: "Sequence[float] | np.ndarray[Any, Any]") -> dict[str, float]:
    found = np.asarray(errors_ms)
    p50, p99 = (float(value) for value in np.percentile(found, [50, 99]))
    return {"mean_ms": float(found.mean()), "p50_ms": p50, "p99_ms": p99, "max_ms": float(found.max())}
