"""Bytes of an answer to times, counts and errors, without a network."""

import json
import tracemalloc
from typing import Any

import pytest
from exchange_server import DONE, GOOD, Seen, event, token, usage_event
from hypothesis import given
from hypothesis import strategies as st

from inference_energy.acquire.load.http.events import decode_events
from inference_energy.acquire.load.http.request import RequestRecord
from inference_energy.acquire.load.http.sse import ExchangeError, SseAnswer


def read(
    *pieces: bytes,
    stream: bool = True,
    chunk_times: bool = False,
    keep_text: bool = True,
    status: int = 200,
    max_bytes: int = 2**22,
) -> tuple[SseAnswer, Seen, Any]:
    """Feed pieces at times 1, 2, ...; returns the answer, what was observed, and the record."""
    record = RequestRecord(0, "c", 0, "e", 0, None, 0)
    seen = Seen()
    answer = SseAnswer(record, seen, stream=stream, chunk_times=chunk_times, keep_text=keep_text, max_bytes=max_bytes)
    answer.start(status)
    for now_ns, piece in enumerate(pieces, 1):
        answer.feed(piece, now_ns)
    return answer, seen, record


def failure(*pieces: bytes, **options: Any) -> str:
    answer, _, _ = read(*pieces, **options)
    with pytest.raises(ExchangeError) as error:
        answer.finish(99)
    return str(error.value)


def delta(finish_reason: Any = None, **content: Any) -> bytes:
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


NOTHING = ["", " ", "null", "NULL", "None", "not_finished", {}, {"type": None}, [], False, 0]


@pytest.mark.parametrize("nothing", NOTHING)
def test_a_finish_reason_that_says_nothing_is_none(nothing: Any) -> None:
    role, word = delta(nothing, role="assistant", content=""), delta(nothing, content="a")
    answer, seen, record = read(role, word, word, delta("length"), usage_event(), DONE)
    answer.finish(9)
    assert (record.first_token_ns, record.last_token_ns, record.finish_reason) == (2, 4, "length")
    assert seen.calls == [("first_token", 0)]
    assert failure(role, word, usage_event(), DONE) == "the answer ended without a finish_reason"


@pytest.mark.parametrize("nothing", NOTHING)
def test_a_finish_reason_that_says_nothing_ends_no_answer_that_is_no_stream(nothing: Any) -> None:
    body = {"choices": [{"index": 0, "text": "a", "finish_reason": nothing}], "usage": {"completion_tokens": 1}}
    assert failure(json.dumps(body).encode()) == "the answer ended without a finish_reason"


@pytest.mark.parametrize("word", ["stop", "LENGTH", "tool_calls", "function_call", "content_filter", "eos_token"])
@pytest.mark.parametrize("form", [lambda word: word, lambda word: {"type": word, "matched": 2}])
def test_a_good_end_is_one_in_any_form(word: str, form: Any) -> None:
    answer, _, record = read(delta(content="a"), delta(form(word)), usage_event(), DONE)
    answer.finish(9)
    assert record.finish_reason == word.lower()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("value", "reason", "error"),
    [
        ("abort", "abort", "finish_reason abort"),
        ("Error", "error", "finish_reason error"),
        ("cancelled", "cancelled", "finish_reason cancelled"),
        ("canceled", "canceled", "finish_reason canceled"),
        ("timed_out", "timed_out", "finish_reason timed_out"),
        ("insufficient_system_resource", "insufficient_system_resource", "finish_reason insufficient_system_resource"),
        ({"type": "abort", "message": "out of KV \ud83d", "status_code": 500}, "abort", "abort: out of KV \ufffd"),
        ({"type": "abort"}, "abort", "finish_reason abort"),
        ("rejected", "rejected", "finish_reason rejected"),
        ("Deadline_Exceeded", "deadline_exceeded", "finish_reason deadline_exceeded"),
        ("preempted", "preempted", "finish_reason preempted"),
        ("malformed_function_call", "malformed_function_call", "finish_reason malformed_function_call"),
        ({"reason": "ERROR", "message": {"code": 3}}, "error", "finish_reason error: {'code': 3}"),
    ],
)
def test_an_answer_that_the_server_gave_up_is_a_failure(value: Any, reason: str, error: str, stream: bool) -> None:
    choice = {"index": 0, "text": "a", "finish_reason": value}
    body = json.dumps({"choices": [choice], "usage": {"prompt_tokens": 8, "completion_tokens": 1}}).encode()
    pieces = [token("a"), b"data: " + body + b"\n\n", DONE] if stream else [body]
    assert failure(*pieces).endswith(error)
    _, _, record = read(*pieces, stream=stream)
    if stream:
        assert (record.finish_reason, record.completion_tokens) == (reason, 1)


@pytest.mark.parametrize(
    "usage",
    [
        {},
        {"prompt_tokens": None, "completion_tokens": None},
        {"input_tokens": 3, "output_tokens": 2},
        {"prompt_tokens": "3", "completion_tokens": "2"},
        {"prompt_tokens": -3, "completion_tokens": -2},
        {"prompt_tokens": True, "completion_tokens": True},
        {"prompt_tokens": 1e18, "completion_tokens": 1e18},
        {"prompt_tokens": 10**30, "completion_tokens": 10**30},
        {"prompt_tokens": 3.5, "completion_tokens": 2.5},
        {"prompt_tokens": float("nan"), "completion_tokens": float("inf")},
        {"prompt_tokens": 0, "completion_tokens": 0},
        {"prompt_tokens": None, "completion_tokens": 5000},
        {"prompt_tokens": [3], "completion_tokens": {"n": 2}},
        "3",
        7,
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_counts_that_cannot_be_are_none(usage: Any, stream: bool) -> None:
    choice = {"index": 0, "text": "ab", "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": usage}).encode()
    answer, _, record = read(*([b"data: " + body + b"\n\n", DONE] if stream else [body]), stream=stream)
    answer.finish(9)
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (None, None, None)
    assert (record.finish_reason, answer.text) == ("stop", "ab")


def test_counts_are_taken_one_by_one() -> None:
    details = {"prompt_tokens_details": {"cached_tokens": 9}}
    answer, _, record = read(
        token("ab", "stop"), usage_event({"prompt_tokens": 8.0, "completion_tokens": "2", **details})
    )
    answer.finish(9)
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (8, None, None)


def test_tokens_that_are_not_sent_may_exceed_the_bytes() -> None:
    usage = {"completion_tokens": 5000, "completion_tokens_details": {"reasoning_tokens": 4990}}
    answer, _, record = read(token("ab", "stop"), usage_event(usage))
    answer.finish(9)
    assert record.completion_tokens == 5000


@pytest.mark.parametrize("keep_text", [True, False])
@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00", "\\ude00\\ud83d"])
def test_half_a_surrogate_pair_is_a_replacement_character(half: str, keep_text: bool) -> None:
    cut = token("hi X").replace(b"X", half.encode())
    answer, _, record = read(cut, token("", "stop"), usage_event(), DONE, keep_text=keep_text)
    answer.finish(9)
    assert (record.first_token_ns, record.finish_reason, record.completion_tokens) == (1, "stop", 2)
    if keep_text:
        assert answer.text == "hi " + "\ufffd" * half.count("u")
    error = event({"error": {"message": "bad X"}}).replace(b"X", half.encode())
    assert failure(token("a"), error).startswith("bad \ufffd")


@pytest.mark.parametrize(
    ("pieces", "options"),
    [
        ([b"data: "] + [b"x" * 1000] * 11, {}),
        ([token("x" * 1000)] * 11, {}),
        ([b'{"choices": ['] + [b"0," * 500] * 11, {"stream": False}),
        ([b": comment\n\n" * 100] * 11, {}),
    ],
)
def test_an_answer_without_end_fails_at_its_limit(pieces: list[bytes], options: Any) -> None:
    with pytest.raises(ExchangeError, match=r"^the answer is larger than the client's limit of 0.00954 MiB an answer$"):
        read(*pieces, max_bytes=10_000, **options)


def test_an_errors_body_without_end_fails_with_its_status() -> None:
    with pytest.raises(ExchangeError, match=r"^status 500, larger than .*: Internal "):
        read(*[b"Internal Server Error "] * 1000, status=500, max_bytes=10_000)


@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"a":' * 100_000, b'{"error":' + b"[" * 900 + b"]" * 900 + b"}"])
@pytest.mark.parametrize("stream", [True, False])
def test_json_without_bottom_is_a_failure(deep: bytes, stream: bool) -> None:
    assert len(failure(*([token("a"), b"data: " + deep + b"\n\n"] if stream else [deep]), stream=stream)) < 700


def test_a_byte_order_mark_is_no_part_of_the_first_event() -> None:
    answer, _, record = read(b"\xef\xbb\xbf" + token("a"), token("b", "stop"))
    answer.finish(9)
    assert (record.first_token_ns, answer.text) == (1, "ab")


def test_small_parts_of_an_event_take_little_more_memory_than_their_bytes() -> None:
    tracemalloc.start()
    try:
        answer, _, _ = read(b"data: ", *(b"xy" for _ in range(100_000)))
        held, _ = tracemalloc.get_traced_memory()
        assert held < 1_500_000
    finally:
        tracemalloc.stop()
    answer.feed(b"\n\n", 1)


@pytest.mark.parametrize("form", ["text", "message", "delta"])
def test_a_large_answer_that_is_no_stream_is_read(form: str) -> None:
    words = "word " * 2_000_000
    content = words if form == "text" else {"role": "assistant", "content": words}
    body = {"choices": [{"index": 0, form: content, "finish_reason": "stop"}], "usage": {"completion_tokens": 5}}
    answer, _, record = read(json.dumps(body).encode(), stream=False, max_bytes=2**24)
    answer.finish(9)
    assert (answer.text, record.completion_tokens) == (words, 5)


def test_a_large_answer_of_another_form_is_not_decoded() -> None:
    body = b'{"result": [' + b"{}," * 2_000_000 + b"{}]}"
    tracemalloc.start()
    try:
        message = failure(body, stream=False, max_bytes=2**24)
        assert message.startswith("the answer is not a JSON object (of an unknown form and larger than 4 MiB): {")
        assert tracemalloc.get_traced_memory()[1] < 16e6
    finally:
        tracemalloc.stop()
