"""The client's times against what the bench's server knows to be true: every token's send, on the same clock."""

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from exchange_server import Seen, client_of

from inference_energy.acquire.load.http.request import PlannedRequest, RequestRecord, WorkloadSettings, prompt_fragment
from inference_energy.bench.live.truth_files import EVENTS, REQUESTS, read_truth


class Arrivals(Seen):
    """Keeps the time of each token of each request."""

    def __init__(self) -> None:
        super().__init__()
        self.times_ns: dict[int, list[int]] = {}

    def chunk(self, record: RequestRecord, timestamp_ns: int, events: int, completion_tokens: int | None) -> None:
        self.times_ns.setdefault(record.request_id, []).extend([timestamp_ns] * events)


def drive(endpoint: str, rate_qps: float, duration_s: float, tokens: int, transport: str) -> Arrivals:
    """Send Poisson arrivals; returns what was seen."""
    seen = Arrivals()
    workload = WorkloadSettings(ignore_eos=True, chunk_times=True)
    draws = random.Random(1)

    async def run() -> None:
        async with client_of(endpoint, transport=transport, seen=seen, request_timeout_s=60.0) as client:
            tasks, due_s, number, began_s = [], 0.0, 0, time.monotonic()
            while (due_s := due_s + draws.expovariate(rate_qps)) < duration_s:
                # By its length the server's note of a request is found.
                prompt = prompt_fragment("completions", token_ids=[number % 500] * (8 + number))
                request = PlannedRequest(number, "cell", number, prompt, tokens)
                await asyncio.sleep(max(0.0, began_s + due_s - time.monotonic()))
                tasks.append(asyncio.create_task(client.send(request, workload, time.monotonic_ns(), 0)))
                number += 1
            await asyncio.gather(*tasks)

    uvloop.run(run())
    return seen


@dataclass(frozen=True)
class Spread:
    """The smallest of some values, and their median."""

    least: float
    p50: float

    @classmethod
    def of(cls, values: "np.ndarray[Any, Any]") -> "Spread":
        """Of some values."""
        return cls(float(values.min()), float(np.median(values)))


@dataclass(frozen=True)
class Errors:
    """Client less server [ms]: of each token, of the first ones, and without sign of the gaps; and the server's gaps.

    The server notes a sending right after it, perhaps even after the arrival; `since_made_ms` is since the end of the
    step that made the token.
    """

    requests: int
    since_made_ms: Spread
    token_ms: Spread
    first_ms: Spread
    itl_ms: Spread
    gap_ms: Spread


def compare(seen: Arrivals, truth: Path) -> Errors:
    """The client's times beside the server's truth, token by token."""
    records = {record.prompt_tokens: record for record, _ in seen.ended_with}
    assert {record.error for record in records.values()} == {None}
    asked = read_truth(truth, REQUESTS).to_pandas().set_index("request_id")["prompt_tokens"]
    assert sorted(asked) == sorted(number or 0 for number in records)
    told = read_truth(truth, EVENTS).to_pandas().sort_values(["request_id", "token"]).groupby("request_id")
    made, late, first, itl, gaps = [], [], [], [], []
    for number, tokens in told:
        record, sent_ns = records[asked[number]], tokens["sent_ns"].to_numpy()
        arrived_ns = np.array(seen.times_ns[record.request_id])
        assert len(arrived_ns) == len(sent_ns) == record.completion_tokens
        assert (record.first_token_ns, record.last_token_ns) == (arrived_ns[0], arrived_ns[-1])
        made.append((arrived_ns - tokens["due_ns"].to_numpy()) / 1e6)
        late.append((arrived_ns - sent_ns) / 1e6)
        first.append(late[-1][0])
        gaps.append(np.diff(sent_ns) / 1e6)
        itl.append(np.abs(np.diff(arrived_ns) / 1e6 - gaps[-1]))
    return Errors(
        len(late),
        Spread.of(np.concatenate(made)),
        Spread.of(np.concatenate(late)),
        Spread.of(np.array(first)),
        Spread.of(np.concatenate(itl)),
        Spread.of(np.concatenate(gaps)),
    )
