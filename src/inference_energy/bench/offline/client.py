"""Load client in virtual time: runs the engines through a schedule's requests and keeps the client's log."""

import heapq
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from inference_energy.bench.offline.plan import BenchCell
from inference_energy.bench.truth.engine import BenchEngine
from inference_energy.bench.truth.ledger import BenchRequest
from inference_energy.bench.truth.prefix_cache import block_hashes, output_length

RequestArrivals = list[tuple[int, int, BenchRequest]]
"""A heap of (time at the server [ns], order, request)."""

SEND_LAG_MEDIAN_S = 0.65e-3
SEND_LAG_P99_S = 2.0e-3
"""Send lag of the client, as measured on the first GPU run (docs/validation/first-gpu-run.md)."""
NETWORK_S = 0.3e-3
DELIVERY_S = 0.2e-3
"""Shortest delivery of a token to the client, and the mean of the additional delay; assumed for loopback."""
THINK_S = 0.5e-3
"""Time between a user's answer and the next request in a closed loop."""
ENDED_NS = 100_000
"""Time between the last token of an answer and its end."""
CUT_OFF = "cut off at the end of the drain"

_NORMAL_P99 = 2.3263


def serve(
    engine: BenchEngine,
    arrivals: RequestArrivals,
    until_ns: int,
    finished: Callable[[BenchRequest], None] | None = None,
) -> None:
    """Serve until all requests are answered, or until a time.

    A step under way at that time is completed, so the engine's clock may be up to one step later. If everything was
    answered before, the clock is at the last answer.

    Args:
        engine: its clock gives the present time.
        arrivals: requests to come; served ones are removed. `finished` may push more.
        until_ns: when to stop.
        finished: called with each request that got its last token.
    """
    add, begin, complete = engine.add, engine.begin, engine.complete
    pop = heapq.heappop
    while engine.now_ns < until_ns:
        if not engine.has_work:
            if not arrivals:
                return
            if arrivals[0][0] > engine.now_ns:
                engine.rest(min(arrivals[0][0], until_ns))
                continue
        while arrivals and arrivals[0][0] <= engine.now_ns:
            add(pop(arrivals)[2])
        begin()
        for request in complete():
            if finished is not None and request.generated >= request.output_tokens:
                finished(request)


@dataclass
class SentRequests:
    """The requests of a session in the order they were sent; lists of one length.

    `delays` are the delivery times of the first and the last token [ns]. `end_ns` is filled when a cell is over.
    """

    cell: list[str] = field(default_factory=list)
    node: list[int] = field(default_factory=list)
    row: list[int] = field(default_factory=list)
    user: list[int] = field(default_factory=list)
    scheduled_ns: list[int] = field(default_factory=list)
    sent_ns: list[int] = field(default_factory=list)
    request: list[BenchRequest] = field(default_factory=list)
    delays: list[tuple[int, int]] = field(default_factory=list)
    end_ns: list[int] = field(default_factory=list)

    def seen_ns(self, number: int) -> tuple[int, int]:
        """Return when the client saw a request's first and newest token; 0 where there is none."""
        request, (first_delay, last_delay) = self.request[number], self.delays[number]
        if not request.first_token_ns:
            return 0, 0
        first_ns = request.first_token_ns + first_delay
        if request.last_token_ns == request.first_token_ns:
            return first_ns, first_ns
        return first_ns, max(first_ns, request.last_token_ns + last_delay)


class OfflineClient:
    """Sends a schedule's requests to the nodes, each in turn.

    Args:
        engines: one for each node.
        schedule: schedule of the whole session.
        prompts: contents as far as they matter; see `SessionPlan`.
        seed: draws the client's delays and the lengths of answers.
    """

    def __init__(
        self, engines: Sequence[BenchEngine], schedule: pd.DataFrame, prompts: pd.DataFrame | None, seed: int
    ) -> None:
        self._engines = engines
        self._cells = schedule["cell"].to_numpy()
        self._arrival_ns = schedule["arrival_ns"].to_numpy(dtype=np.float64, na_value=np.nan)
        self._max_tokens = schedule["max_tokens"].to_numpy(dtype=np.int64)
        self._lengths = schedule["prompt_tokens"].to_numpy(dtype=np.float64, na_value=np.nan)
        self._contents = _contents(prompts, schedule["prompt_id"])
        self._seed = seed
        self._random = np.random.default_rng([seed, 0xC11E27])
        self.sent = SentRequests()

    def run(self, cell: BenchCell, start_ns: int, drain_s: float) -> int:
        """Run one cell and return when its last request ended.

        Args:
            cell: what to run.
            start_ns: when it begins; the engines stand there.
            drain_s: how long after the cell's end answers are waited for; what is open then is cut off.
        """
        sent = self.sent
        rows = np.flatnonzero(self._cells == cell.name)
        end_ns = start_ns + round(cell.duration_s * 1e9)
        limit_ns = end_ns + round(drain_s * 1e9)
        if cell.users is None:
            self._open_loop(cell, rows, start_ns, limit_ns)
        else:
            self._closed_loop(cell, rows, cell.users, start_ns, end_ns, limit_ns)
        for engine in self._engines:
            for request in [*engine.running.values(), *engine.waiting]:
                engine.abort(request)
        before = len(sent.end_ns)
        for number in range(before, len(sent.request)):
            _, last_ns = sent.seen_ns(number)
            # A request that is cut off ends with the drain, or with a later token of the step under way.
            done = sent.request[number].finished
            sent.end_ns.append(last_ns + ENDED_NS if done else max(limit_ns, last_ns))
        return max(end_ns, *(engine.now_ns for engine in self._engines), *sent.end_ns[before:])

    def _open_loop(self, cell: BenchCell, rows: NDArray[np.intp], start_ns: int, limit_ns: int) -> None:
        count = len(self._engines)
        due_ns = start_ns + self._arrival_ns[rows].astype(np.int64)
        sent_ns = due_ns + self._lag_ns(len(rows))
        arrivals: list[RequestArrivals] = [[] for _ in self._engines]
        for order, (row, due, at) in enumerate(zip(rows.tolist(), due_ns.tolist(), sent_ns.tolist(), strict=True)):
            node = order % count
            request = self._record(cell, row, node, 0, due, at)
            arrivals[node].append((request.arrival_ns, order, request))
        for engine, node_arrivals in zip(self._engines, arrivals, strict=True):
            node_arrivals.sort()
            serve(engine, node_arrivals, limit_ns)

    def _closed_loop(
        self, cell: BenchCell, rows: NDArray[np.intp], users: int, start_ns: int, end_ns: int, limit_ns: int
    ) -> None:
        count, pool = len(self._engines), rows.tolist()
        for node, engine in enumerate(self._engines):
            node_users = range(node, users, count)
            self._run_users(cell, pool, node_users, node, engine, start_ns=start_ns, end_ns=end_ns, limit_ns=limit_ns)

    def _run_users(
        self,
        cell: BenchCell,
        pool: list[int],
        users: Sequence[int],
        node: int,
        engine: BenchEngine,
        *,
        start_ns: int,
        end_ns: int,
        limit_ns: int,
    ) -> None:
        arrivals: RequestArrivals = []
        owner: dict[int, int] = {}
        drawn = node  # the nodes take the pool's rows in turn

        def send(user: int, free_ns: int) -> None:
            nonlocal drawn
            if free_ns >= end_ns:
                return
            row = pool[drawn % len(pool)]
            drawn += len(self._engines)
            request = self._record(cell, row, node, user, free_ns, free_ns + 50_000)
            owner[request.request_id] = user
            heapq.heappush(arrivals, (request.arrival_ns, request.request_id, request))

        def answered(request: BenchRequest) -> None:
            _, last_ns = self.sent.seen_ns(request.request_id)
            send(owner.pop(request.request_id), last_ns + ENDED_NS + round(THINK_S * 1e9))

        for user in users:
            send(user, start_ns)
        serve(engine, arrivals, limit_ns, answered)

    def _record(self, cell: BenchCell, row: int, node: int, user: int, due_ns: int, at_ns: int) -> BenchRequest:
        """Make a request and record that it was sent."""
        most = int(self._max_tokens[row])
        hashes: tuple[int, ...] = ()
        tokens: int | None = None if np.isnan(self._lengths[row]) else int(self._lengths[row])
        content = self._contents[row]
        if content is not None:
            tokens = len(content.split()) if isinstance(content, str) else len(content)
            if not cell.ignore_eos:
                most, _ = output_length(content, self._seed, most)
            if cell.prefix_reuse:
                words = [zlib.crc32(word.encode()) for word in content.split()] if isinstance(content, str) else content
                hashes = block_hashes(words, self._engines[node].blocks.block_size)
        number = len(self.sent.row)
        request = BenchRequest(number, max(1, tokens or 1), most, hashes, at_ns + round(NETWORK_S * 1e9))
        sent = self.sent
        sent.cell.append(cell.name)
        sent.node.append(node)
        sent.row.append(row)
        sent.user.append(user)
        sent.scheduled_ns.append(due_ns)
        sent.sent_ns.append(at_ns)
        sent.request.append(request)
        first, last = (DELIVERY_S * 1e9 * (1.0 + self._random.standard_exponential(2))).tolist()
        sent.delays.append((round(first), round(last)))
        return request

    def _lag_ns(self, count: int) -> NDArray[np.int64]:
        sigma = np.log(SEND_LAG_P99_S / SEND_LAG_MEDIAN_S) / _NORMAL_P99
        lag_s = SEND_LAG_MEDIAN_S * np.exp(sigma * self._random.standard_normal(count))
        return np.asarray(np.round(lag_s * 1e9), dtype=np.int64)

    def log(self, schedule: pd.DataFrame) -> pd.DataFrame:
        """Return requests.parquet of everything that was sent."""
        sent, requests = self.sent, self.sent.request
        count = len(requests)
        rows = np.array(sent.row, dtype=np.intp)
        done = np.array([request.finished for request in requests], dtype=bool)
        seen_ns = np.array([sent.seen_ns(number) for number in range(count)], dtype=np.int64).reshape(count, 2)
        begun = seen_ns[:, 0] > 0
        most = self._max_tokens[rows] if count else rows
        generated = np.array([request.generated for request in requests], dtype=np.int64)
        columns: dict[str, Any] = {
            "request_id": np.arange(count),
            "cell": sent.cell,
            "worker": 0,
            "endpoint": [f"http://127.0.0.1:{8000 + node}" for node in sent.node],
            "prompt_id": schedule["prompt_id"].to_numpy()[rows],
            "scheduled_ns": sent.scheduled_ns,
            "sent_ns": sent.sent_ns,
            "first_token_ns": _masked(seen_ns[:, 0], begun),
            "last_token_ns": _masked(seen_ns[:, 1], begun),
            "end_ns": sent.end_ns,
            "prompt_tokens": _masked([request.prompt_tokens for request in requests], done),
            "cached_tokens": _masked([request.cached_tokens for request in requests], done),
            "completion_tokens": _masked(generated, done),
            "finish_reason": pd.Series(np.where(generated < most, "stop", "length"), dtype=object).where(done, None),
            "status": np.where(done, "ok", "aborted"),
            "error": [None if ended else CUT_OFF for ended in done],
            # A schedule has no arrival for requests that users send.
            "user": _masked(sent.user, np.isnan(self._arrival_ns[rows]) if count else done),
            "attempts": 1,
            "status_code": 200,
        }
        return pd.DataFrame(columns)


def _contents(prompts: pd.DataFrame | None, prompt_ids: "pd.Series[Any]") -> list[Any]:
    """Return the prompt of each scheduled request: token ids, a text, or None where it is not given."""
    if prompts is None:
        return [None] * len(prompt_ids)
    by_id = {
        # A missing value is None or NaN, depending on how the frame was made.
        int(number): text if isinstance(text, str) else ids
        for number, ids, text in zip(prompts["prompt_id"], prompts["token_ids"], prompts["text"], strict=True)
    }
    return [by_id.get(int(number)) for number in prompt_ids]


def _masked(values: Any, valid: NDArray[np.bool_]) -> Any:
    """Return integers that are null where not valid."""
    return pd.arrays.IntegerArray(np.array(values, dtype=np.int64), ~valid)
