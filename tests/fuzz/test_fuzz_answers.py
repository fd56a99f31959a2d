"""Whatever a server sends, a request ends well or with its reason, and its row can be written and read."""

import json
from typing import Any

import pyarrow as pa
from fuzzing import damaged, fuzz
from hypothesis import strategies as st

from inference_energy.acquire.load.http.request import RequestObserver
from inference_energy.acquire.load.http.sse import ExchangeError, SseAnswer
from inference_energy.contracts.outside import MAX_COUNT
from inference_energy.contracts.requests import SCHEMA, RequestRecord


def event(choice: dict[str, Any], **more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, **choice}], **more}).encode() + b"\n\n"


USAGE = {"prompt_tokens": 8, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}
CHAT = (
    event({"delta": {"role": "assistant", "content": ""}, "finish_reason": ""})
    + event({"delta": {"content": "h\u00e4 \U0001f600"}, "finish_reason": None})
    + event({"delta": {}, "finish_reason": {"type": "abort", "message": "no"}})
    + b'data: {"choices": [], "usage": '
    + json.dumps(USAGE).encode()
    + b"}\n\ndata: [DONE]\n\n"
)
TEXT = b"".join(event({"text": "w", "finish_reason": None}, usage=USAGE) for _ in range(60)) + event(
    {"text": "", "finish_reason": "length"}, usage=USAGE
)
ERROR = event({"text": "a"}) + b'event: error\r\ndata: {"error": {"message": "x", "code": 5}}\r\n\r\n'
WHOLE = json.dumps(
    {
        "choices": [{"index": 0, "message": {"content": "a", "tool_calls": None}, "finish_reason": "stop"}],
        "usage": USAGE,
    }
).encode()


class Watch:
    """An observer that remembers nothing."""

    def sent(self, record: RequestRecord) -> None: ...

    def first_token(self, record: RequestRecord) -> None: ...

    def chunk(self, record: RequestRecord, timestamp_ns: int, events: int, completion_tokens: int | None) -> None:
        assert completion_tokens is None or 0 <= completion_tokens <= MAX_COUNT

    def ended(self, record: RequestRecord, text: str | None) -> None: ...


OBSERVER: RequestObserver = Watch()


def test_any_answer_ends_well_or_with_a_reason_and_gives_a_row():
    def check(given: tuple[bytes, int, bool, bool]) -> None:
        content, step, stream, keep_text = given
        record = RequestRecord(0, "c", 0, "e", 0, None, 0)
        answer = SseAnswer(
            record, OBSERVER, stream=stream, chunk_times=keep_text, keep_text=keep_text, max_bytes=20_000
        )
        answer.start(200)
        try:
            for now_ns, start in enumerate(range(0, len(content), step), 1):
                answer.feed(content[start : start + step], now_ns)
            answer.finish(10**6)
        except ExchangeError as error:
            record.error = str(error)
            assert 0 < len(record.error) < 1000
        else:
            assert record.finish_reason
            assert (record.first_token_ns or 0) <= (record.last_token_ns or 0) <= 10**6
        for count in (record.prompt_tokens, record.completion_tokens, record.cached_tokens):
            assert count is None or 0 <= count <= MAX_COUNT
        assert (record.completion_tokens or 0) <= len(content) or "reasoning_tokens" in repr(content)
        pa.RecordBatch.from_pylist([{name: getattr(record, name) for name in SCHEMA.names}], SCHEMA)
        pa.array([answer.text], pa.string())

    steps = st.sampled_from([1, 7, 64, 5000, 10**6])
    fuzz(st.tuples(damaged([CHAT, TEXT, ERROR, WHOLE]), steps, st.booleans(), st.booleans()), check)
