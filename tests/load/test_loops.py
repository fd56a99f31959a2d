"""When the loops send, with a sender that answers after a set time: conversations, users, and the drain.

On a clock that stands still while code runs: every time is exact.
"""

import asyncio
import time
from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from tests.load.virtual_time import run_virtually

from inference_energy.acquire.load.http.client import RequestResult
from inference_energy.acquire.load.http.request import PlannedRequest, RequestRecord
from inference_energy.acquire.load.loops import (
    CELL_OVER,
    TURN_CUT_OFF,
    TURN_FAILED,
    CellLoad,
    CellTimes,
    RequestRepeater,
    run_cell,
)
from inference_energy.acquire.load.pacer import Pacer

MS = 1_000_000


def planned(number: int, **values: object) -> PlannedRequest:
    return PlannedRequest(number, "c", number, b"q%d" % number, 1, **values)


def conversation(number: int, turns: int, think_ms: int = 0, **first: object) -> list[PlannedRequest]:
    """Turns with ids 10 * number, and on."""
    requests = [
        planned(10 * number + turn, conversation=number, turn=turn, think_ns=think_ms * MS) for turn in range(turns)
    ]
    for name, value in first.items():
        setattr(requests[0], name, value)
    return requests


@dataclass
class Sender:
    """Answers after `answer_ms`; requests in `failing` fail, those in `breaking` raise."""

    answer_ms: float = 10
    failing: set[int] = field(default_factory=set)
    breaking: set[int] = field(default_factory=set)
    records: list[RequestRecord] = field(default_factory=list)
    requests: list[PlannedRequest] = field(default_factory=list)
    histories: dict[int, bytes] = field(default_factory=dict)
    skipped: dict[int, str] = field(default_factory=dict)

    async def send(self, request: PlannedRequest, scheduled_ns: int, history: bytes = b"") -> RequestResult:
        record = RequestRecord(request.request_id, "c", 0, "e", 0, request.turn, scheduled_ns, user=request.user)
        record.sent_ns = time.monotonic_ns()
        self.records.append(record)
        self.requests.append(request)
        self.histories[request.request_id] = history
        try:
            if request.request_id in self.breaking:
                raise RuntimeError("ours")
            await asyncio.sleep(self.answer_ms / 1e3)
            record.status = "failed" if request.request_id in self.failing else "ok"
        finally:
            record.end_ns = time.monotonic_ns()
        return RequestResult(record, f"a{request.request_id}")

    def skip(self, request: PlannedRequest, scheduled_ns: int, reason: str) -> None:
        assert scheduled_ns > 0
        self.skipped[request.request_id] = reason

    def extended(self, history: bytes, request: PlannedRequest, text: str | None) -> bytes:
        return history + request.prompt + (text or "").encode()

    def ids(self) -> list[int]:
        return [record.request_id for record in self.records]


def run(
    load: CellLoad, sender: Sender, duration_ms: int, drain_s: float = 2.0, *, history: bool = True, stop_ms: int = 0
) -> CellTimes:
    async def main() -> CellTimes:
        pacer = Pacer(kernel=False)
        work = run_cell(
            load,
            pacer,
            sender,
            RequestRepeater(1000, 1, 3),
            start_ns=time.monotonic_ns() + 5 * MS,
            duration_s=duration_ms / 1e3,
            drain_s=drain_s,
            keep_history=history,
        )
        try:
            return await asyncio.wait_for(work, stop_ms / 1e3 if stop_ms else 30)
        finally:
            pacer.close()

    return run_virtually(main())


def test_turns_follow_in_order_after_the_answer_and_a_pause() -> None:
    sender = Sender(answer_ms=20)
    load = CellLoad(arrivals=[conversation(1, 3, 30, arrival_ns=0), conversation(2, 2, 0, arrival_ns=5 * MS)])
    times = run(load, sender, 400)
    for number, turns, think_ns in ((1, 3, 30 * MS), (2, 2, 0)):
        own = [record for record in sender.records if record.request_id // 10 == number]
        assert [record.request_id for record in own] == [10 * number + turn for turn in range(turns)]
        for before, after in pairwise(own):
            assert after.scheduled_ns == before.end_ns + think_ns
            assert after.sent_ns == after.scheduled_ns
    assert sender.records[0].scheduled_ns == times.start_ns
    assert sender.skipped == {}


@pytest.mark.parametrize("keep", [True, False])
def test_a_later_turn_has_what_was_said_before_it(keep: bool) -> None:
    sender = Sender(answer_ms=1)
    run(CellLoad(arrivals=[conversation(1, 3, arrival_ns=0)]), sender, 100, history=keep)
    expected = {10: b"", 11: b"q10a10", 12: b"q10a10q11a11"}
    assert sender.histories == (expected if keep else dict.fromkeys(expected, b""))


def test_after_a_turn_that_failed_the_rest_is_recorded_as_skipped() -> None:
    sender = Sender(failing={11})
    run(CellLoad(arrivals=[conversation(1, 4, arrival_ns=0), [planned(5, arrival_ns=MS)]]), sender, 150)
    assert sender.ids() == [10, 5, 11]
    assert sender.skipped == {12: TURN_FAILED, 13: TURN_FAILED}


def test_what_the_cells_end_cuts_away_is_recorded_as_skipped() -> None:
    sender = Sender(answer_ms=80)
    late = [planned(7, arrival_ns=500 * MS)]
    run(CellLoad(arrivals=[conversation(1, 3, arrival_ns=0), late]), sender, 100)
    assert sender.ids() == [10, 11], "the second turn is due before the end, the third is not"
    assert sender.skipped == {12: CELL_OVER, 7: CELL_OVER}


def test_the_drain_waits_then_cuts_off() -> None:
    sender = Sender(answer_ms=5_000)
    times = run(CellLoad(arrivals=[conversation(1, 2, arrival_ns=0)]), sender, 50, drain_s=0.1)
    assert [record.status for record in sender.records] == ["aborted"]
    assert times.drained_ns == times.end_ns + 100 * MS
    assert sender.skipped == {11: TURN_CUT_OFF}
    quick = Sender(answer_ms=100)
    times = run(CellLoad(arrivals=[[planned(0, arrival_ns=0)]]), quick, 50, drain_s=20.0)
    assert quick.records[0].status == "ok"
    assert times.drained_ns == times.start_ns + 100 * MS


@pytest.mark.parametrize("closed", [True, False])
def test_cancelled_nothing_stays_in_flight(closed: bool) -> None:
    sender = Sender(answer_ms=60_000)
    requests = [[planned(number, arrival_ns=0)] for number in range(4)]
    load = CellLoad(users={number: [turns] for number, turns in enumerate(requests)} if closed else {})
    if not closed:
        load.arrivals = requests
    with pytest.raises(TimeoutError):
        run(load, sender, 60_000, drain_s=60.0, stop_ms=200)
    assert [record.status for record in sender.records] == ["aborted"] * 4
    assert all(record.end_ns for record in sender.records)


def users(number: int, requests: int, **values: object) -> dict[int, list[list[PlannedRequest]]]:
    return {
        user: [[planned(10 * user + place, user=user, **values)] for place in range(requests)] for user in range(number)
    }


def test_a_user_sends_its_own_requests_in_order_and_then_again_under_new_ids() -> None:
    sender = Sender(answer_ms=5)
    times = run(CellLoad(users=users(2, 3)), sender, 200)
    for user in range(2):
        own = [request for request in sender.requests if request.user == user]
        assert [request.request_id for request in own[:3]] == [10 * user, 10 * user + 1, 10 * user + 2]
        assert len(own) == 40, "200 ms, an answer each 5 ms"
        assert [request.prompt for request in own[3:6]] == [request.prompt for request in own[:3]]
        assert not any(request.salt for request in own[:3])
        assert all(request.salt for request in own[3:])
    ids = sender.ids()
    assert len(set(ids)) == len(ids)
    assert all(number % 3 == 1001 % 3 for number in ids if number >= 1000), "worker 1 of 3"
    assert all(record.sent_ns < times.end_ns for record in sender.records)


def test_repeats_of_a_workload_that_reuses_prefixes_carry_no_salt() -> None:
    repeater = RequestRepeater(100, 0, 1)
    repeater.salt = False
    assert [request.salt for request in repeater.repeat([planned(1), planned(2, salt=True)])] == [False, True]


def test_a_user_waits_after_a_failure() -> None:
    sender = Sender(answer_ms=1, failing={0, 1000 + 1})
    run(CellLoad(users=users(1, 1)), sender, 350)
    first, second = sender.records[:2]
    assert second.sent_ns == second.scheduled_ns == first.end_ns + 200 * MS
    assert first.status == "failed"


def test_a_user_goes_on_with_the_next_conversation_after_one_that_failed() -> None:
    sender = Sender(answer_ms=1, failing={10})
    load = CellLoad(users={0: [conversation(1, 3, user=0), conversation(2, 2, user=0)]})
    run(load, sender, 300)
    assert sender.ids()[:3] == [10, 20, 21]
    assert sender.skipped[11] == sender.skipped[12] == TURN_FAILED


def test_users_that_start_after_a_while_do_so() -> None:
    sender = Sender(answer_ms=1)
    load = CellLoad(users={0: [[planned(0, think_ns=0)]], 1: [[planned(1, think_ns=100 * MS)]]})
    times = run(load, sender, 150)
    first = {record.request_id: record.scheduled_ns for record in reversed(sender.records)}
    assert first[0] == times.start_ns
    assert first[1] == times.start_ns + 100 * MS


def test_an_error_of_ours_ends_the_cell_and_is_raised() -> None:
    sender = Sender(breaking={1})
    with pytest.raises(RuntimeError, match="ours"):
        run(CellLoad(arrivals=[[planned(number, arrival_ns=0)] for number in range(3)]), sender, 60_000)
    assert max(record.end_ns for record in sender.records) < sender.records[0].sent_ns + 1000 * MS


def test_a_staggered_start_is_not_a_pause_when_a_user_starts_over() -> None:
    sender = Sender(answer_ms=1)
    rows = users(1, 2)
    rows[0][0][0].think_ns, rows[0][1][0].think_ns = 60 * MS, 10 * MS
    times = run(CellLoad(users=rows), sender, 300)
    assert sender.records[0].scheduled_ns == times.start_ns + 60 * MS
    assert len(sender.records) == 22, "60 ms, then each 11 ms up to 300 ms"
    for before, after in pairwise(sender.records):
        assert after.scheduled_ns == before.end_ns + 10 * MS
