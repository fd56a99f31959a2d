"""Of many events that came together only the ends are looked at, and that must change nothing."""

from itertools import pairwise
from typing import Any

import pytest
from exchange_server import DONE, Seen, event, token, usage_event
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.acquire.load.http import sse as answers
from inference_energy.acquire.load.http.events import decode_ends
from inference_energy.acquire.load.http.request import RequestRecord
from inference_energy.acquire.load.http.sse import ExchangeError, SseAnswer

ERROR = event({"error": {"message": "out of memory", "code": 500}})
ROLE = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]})
WORDS = [token(f" word{number} of some length that fills") for number in range(60)]
END, USAGE = token(" end", "length"), usage_event()


def outcome(pieces: list[bytes], *, keep_text: bool) -> tuple[Any, str | None, list[tuple[str, int]]]:
    """The record, why it failed, and what was observed. With its text kept every event is looked at."""
    record, seen = RequestRecord(0, "c", 0, "e", 0, None, 0), Seen()
    answer = SseAnswer(record, seen, stream=True, chunk_times=False, keep_text=keep_text)
    answer.start(200)
    for now_ns, piece in enumerate(pieces, 1):
        answer.feed(piece, now_ns)
    try:
        answer.finish(99)
    except ExchangeError as error:
        return record, str(error), seen.calls
    return record, None, seen.calls


def test_a_long_arrival_is_taken_by_its_ends() -> None:
    burst = b"".join([*WORDS, END, USAGE, DONE])
    assert len(burst) > answers.MANY_BYTES
    events = decode_ends(burst)
    assert events is not None
    assert len(events) < 8
    record, failure, calls = outcome([burst], keep_text=False)
    assert failure is None
    assert (record.first_token_ns, record.last_token_ns, record.completion_tokens) == (1, 1, 2)
    assert (record.finish_reason, calls) == ("length", [("first_token", 0)])


@pytest.mark.parametrize(
    "events",
    [
        [*WORDS[:30], ERROR, *WORDS[30:], END, USAGE, DONE],
        [*WORDS[:30], b"event: error\n" + ERROR, *WORDS[30:], DONE],
        [ROLE, *WORDS, END, USAGE, DONE],
        [*WORDS[:30], END, *WORDS[30:], USAGE, DONE],
        [*WORDS[:30], END, *WORDS[30:]],
        [*WORDS[:30], END.replace(b":", b": "), *WORDS[30:]],
        [*WORDS[:30], USAGE, *WORDS[30:]],
        [ROLE] * 60,
    ],
    ids=[
        *("error between", "named error between", "no content first", "finish between"),
        *("finish between, no end", "finish with blanks between", "usage between", "no content"),
    ],
)
def test_where_the_ends_do_not_suffice_all_is_looked_at(events: list[bytes]) -> None:
    assert decode_ends(b"".join(events)) is None


COMMENT = b": a comment\n\n"
ANY = st.sampled_from([*WORDS[:3], END, USAGE, ROLE, ERROR, COMMENT, token(""), usage_event({})])
# After an answer's last finish come only usage and the end.
BETWEEN = st.sampled_from([*WORDS[:3], ROLE, ERROR, COMMENT, token("")])
LAST = st.lists(st.sampled_from([END, USAGE, ERROR, COMMENT]), max_size=3)


@given(
    st.lists(ANY, max_size=6),
    st.lists(BETWEEN, max_size=4),
    LAST,
    st.booleans(),
    st.lists(st.integers(1, 6000), max_size=3),
)
def test_nothing_differs_from_looking_at_every_event(
    first: list[bytes], between: list[bytes], last: list[bytes], done: bool, cuts: list[int]
) -> None:
    data = b"".join([*first, *WORDS[:30], *between, *WORDS[30:], *last, DONE if done else b""])
    pieces = [data[begin:end] for begin, end in pairwise([0, *sorted(cuts), len(data)]) if begin < end]
    assert outcome(pieces, keep_text=False) == outcome(pieces, keep_text=True)
