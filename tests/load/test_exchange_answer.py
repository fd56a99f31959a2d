"""Bytes of an answer to times, counts and errors, without a network."""

import json
from typing import Any

import pytest
from exchange_server import DONE, GOOD, Seen, event, token, usage_event
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.acquire.load.http.request import RequestRecord
from inference_energy.acquire.load.http.sse import ExchangeError, SseAnswer, decode_events


def read(
    *pieces: bytes, stream: bool = True, chunk_times: bool = False, status: int = 200
) -> tuple[SseAnswer, Seen, Any]:
    """Feed pieces at times 1, 2, ...; returns the answer, what was observed, and the record."""
    record = RequestRecord(0, "c", 0, "e", 0, None, 0)
    seen = Seen()
    answer = SseAnswer(record, seen, stream=stream, chunk_times=chunk_times, keep_text=True)
    answer.start(status)
    for now_ns, piece in enumerate(pieces, 1):
        answer.feed(piece, now_ns)
    return answer, seen, record


def failure(*pieces: bytes, **options: Any) -> str:
    answer, _, _ = read(*pieces, **options)
    with pytest.raises(ExchangeError) as error:
        answer.finish(99)
    return str(error.value)


def delta(finish_reason: str | None = None, **content: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": content, "finish_reason": finish_reason}]})


def test_times_counts_and_text() -> None:
    answer, seen, record = read(token("a"), token("b"), token("c", "stop"), usage_event(), DONE)
    answer.finish(9)
    assert (record.first_token_ns, record.last_token_ns, record.end_ns) == (1, 3, 9)
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (3, 2, 1)
    assert record.finish_reason == "stop"
    assert answer.text == "abc"
    assert seen.calls == [("first_token", 0)]


def test_the_role_the_usage_and_done_are_no_tokens() -> None:
    role, last = delta(role="assistant", content=""), delta("stop", content="")
    answer, _, record = read(role, delta(content="x"), last, usage_event(), DONE)
    answer.finish(9)
    assert (record.first_token_ns, record.last_token_ns) == (2, 3)


@pytest.mark.parametrize(
    "content",
    [
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"refusal": "no"},
    ],
)
def test_reasoning_and_tool_calls_are_content_but_not_text(content: dict[str, Any]) -> None:
    answer, _, record = read(delta(role="assistant", content=None), delta(**content), delta("stop"))
    answer.finish(9)
    assert record.first_token_ns == 2
    assert answer.text == ""


def test_without_content_the_finish_is_the_first_token() -> None:
    answer, seen, record = read(delta(role="assistant"), delta("stop"), usage_event())
    answer.finish(9)
    assert (record.first_token_ns, record.last_token_ns) == (2, 2)
    assert seen.calls == [("first_token", 0)]


def test_text_that_looks_like_an_event() -> None:
    trap = 'data: [DONE]\n\ndata: {"error": "no"} "text":"x" "finish_reason":"stop"'
    answer, _, record = read(token(""), token(trap), token("", "length"))
    answer.finish(9)
    assert (record.first_token_ns, record.last_token_ns, record.finish_reason) == (2, 3, "length")
    assert answer.text == trap


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
@given(data=st.data())
def test_any_cut_gives_the_same(line_end: bytes, data: st.DataObject) -> None:
    """Bytes come in any pieces; a token counts when its event is complete."""
    texts = data.draw(st.lists(st.text(max_size=4), min_size=1, max_size=5))
    # The lone carriage return of a last line is known to be one only when something follows it.
    stream = b"".join(token(text) for text in texts) + token("", "stop") + usage_event() + DONE + b": end\n"
    stream = stream.replace(b"\n", line_end)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(stream) - 1), max_size=12)))
    pieces = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    answer, seen, record = read(*pieces, chunk_times=True)
    answer.finish(99)
    assert answer.text == "".join(texts)
    assert (record.finish_reason, record.completion_tokens) == ("stop", 2)
    assert sum(events for _, events, _ in seen.chunks) == sum(map(bool, texts))
    ends = [index for index in range(len(stream)) if stream[: index + 1].endswith(2 * line_end)]
    finish_at = len(texts)
    piece_of = [sum(cut <= end for cut in cuts) + 1 for end in ends]
    if line_end != b"\r":
        first = next((place for place, text in enumerate(texts) if text), finish_at)
        assert (record.first_token_ns, record.last_token_ns) == (piece_of[first], piece_of[finish_at])


@given(st.binary(max_size=300), st.integers(0, 300))
def test_garbage_never_raises_anything_else(garbage: bytes, cut: int) -> None:
    stream = GOOD[:cut] + garbage
    answer, _, _ = read(*([stream] if stream else []))
    try:
        answer.finish(9)
    except ExchangeError as error:
        assert str(error)


def test_unusual_but_valid_streams() -> None:
    odd = b": a comment\n\nid: 7\nevent: message\nretry: 3\ndata:" + token("a")[6:]
    several_lines = b'data: {"choices":\ndata: [{"text": "b", "finish_reason": "stop"}]}\n\n'
    answer, _, record = read(b"\n\n" + odd + several_lines + b"event: end\n\n" + usage_event() + DONE)
    answer.finish(9)
    assert answer.text == "ab"
    assert record.completion_tokens == 2


def test_the_last_event_may_lack_its_end() -> None:
    answer, _, record = read(token("a"), token("b", "stop")[:-2])
    answer.finish(9)
    assert (record.last_token_ns, record.finish_reason) == (9, "stop")


def test_odd_types_are_read_as_far_as_possible() -> None:
    parts = event({"choices": [{"delta": {"content": [{"type": "text", "text": "a"}]}, "finish_reason": "stop"}]})
    usage = event({"choices": [], "usage": {"prompt_tokens": 1e30, "completion_tokens": 5, "total": -1}})
    answer, _, record = read(parts, usage)
    answer.finish(9)
    assert answer.text == "a"
    assert (record.prompt_tokens, record.completion_tokens) == (None, 5)


def test_text_that_is_not_utf_8() -> None:
    answer, _, _ = read(token("aXb", "stop").replace(b"X", b"\xff"))
    answer.finish(9)
    assert answer.text == "a�b"


def test_usage_in_each_event() -> None:
    def counted(text: str, number: int, reason: str | None = None) -> bytes:
        return token(text, reason, usage={"prompt_tokens": 3, "completion_tokens": number})

    _, seen, record = read(counted("a", 1) + counted("b", 2), counted("c", 3), chunk_times=True)
    assert seen.chunks == [(1, 2, 2), (2, 1, 3)]
    assert record.completion_tokens == 3


def test_an_error_event_is_a_failure_and_keeps_what_came() -> None:
    error = event({"error": {"message": "out of memory", "code": 500}})
    answer, _, record = read(token("a"), error, DONE)
    with pytest.raises(ExchangeError, match=r"^out of memory$"):
        answer.finish(9)
    assert (record.first_token_ns, record.last_token_ns) == (1, 1)
    assert answer.text == "a"


@pytest.mark.parametrize(
    "error",
    [
        event({"object": "error", "message": "boom", "code": 400}),
        event({"error": "boom"}),
        b'event: error\ndata: {"message": "boom"}\n\n',
    ],
)
def test_other_forms_of_an_error(error: bytes) -> None:
    assert failure(token("a"), error, DONE) == "boom"


def test_malformed_events() -> None:
    assert failure(token("a"), b'data: {"choices": [\n\n', token("b", "stop")).startswith("an event is not JSON")
    assert failure(token("a") + b"data: 17\n\n").startswith("an event is not a JSON object: 17")
    assert failure(b"data: " + b"[" * 10_000 + b"\n\n").startswith("an event is not")


def test_a_stream_that_ends_too_early() -> None:
    assert failure(token("a"), DONE) == "the answer ended without a finish_reason"
    assert failure() == "the answer holds no event"
    assert failure(b"<html>Sorry") == "the answer holds no event: <html>Sorry"


def test_other_statuses_keep_500_characters() -> None:
    assert failure(b"x" * 10, b"y" * 10_000, b"z" * 10_000, status=503) == "status 503: " + "x" * 10 + "y" * 490


def test_an_answer_that_is_no_stream() -> None:
    message = {"choices": [{"index": 0, "message": {"content": "hi"}, "finish_reason": "stop"}], "usage": {}}
    body = json.dumps(message | {"usage": {"prompt_tokens": 4, "completion_tokens": 1}}, indent=1).encode()
    for stream in (False, True):  # a server may not stream though it was asked to
        answer, seen, record = read(body[:20], body[20:], stream=stream)
        answer.finish(9)
        assert (record.first_token_ns, record.last_token_ns, record.end_ns) == (None, None, 9)
        assert (record.prompt_tokens, record.completion_tokens, record.finish_reason) == (4, 1, "stop")
        assert answer.text == "hi"
        assert seen.calls == []
    assert failure(b'{"error": {"message": "no"}}', stream=False) == "no"
    assert failure(b"nonsense", stream=False) == "the answer is not a JSON object: nonsense"
    assert failure(b'{"choices": []}', stream=False) == "the answer ended without a finish_reason"


def test_an_event_of_a_megabyte_in_small_pieces_is_joined_once() -> None:
    """Each byte is copied a fixed number of times: pieces wait in a list, whatever their number."""
    big = token("x" * 2**20, "stop")
    answer, _, record = read(*(big[at : at + 100] for at in range(0, len(big), 100)))
    assert record.last_token_ns == -(-len(big) // 100)
    answer.finish(10**6)
    assert len(answer.text or "") == 2**20


@given(st.lists(st.tuples(st.text(max_size=6), st.sampled_from([None, "stop"])), max_size=6))
def test_a_whole_arrival_is_decoded_as_its_events_are_one_by_one(tokens: list[tuple[str, str | None]]) -> None:
    events = [token(text, reason) for text, reason in tokens]
    together = decode_events(b"".join(events) + DONE)
    assert list(together) == [each for one in events for each in decode_events(b": so it is read slowly\n" + one)]
