"""Reading a stream: what counts as a token's time, what as a failure."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from inference_energy.acquire.load.request import RequestRecord
from inference_energy.acquire.load.stream import StreamError, read_stream


def event(text: str = "", finish: str | None = None) -> bytes:
    return f"data: {json.dumps({'choices': [{'text': text, 'finish_reason': finish}]})}\n\n".encode()


def usage(prompt: int, completion: int, cached: int | None = None) -> bytes:
    content = {"prompt_tokens": prompt, "completion_tokens": completion}
    if cached is not None:
        content["prompt_tokens_details"] = {"cached_tokens": cached}
    return f"data: {json.dumps({'choices': [], 'usage': content})}\n\n".encode()


DONE = b"data: [DONE]\n\n"


def read(*chunks: bytes, pause_s: float = 0.0) -> RequestRecord:
    record = RequestRecord(1, "w", 1, "http://e", 0)

    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk
            await asyncio.sleep(pause_s)

    asyncio.run(read_stream(body(), record))
    return record


def test_tokens_come_from_usage_not_from_events() -> None:
    record = read(event("a b c"), event("d", "length"), usage(7, 19, 4), DONE)
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (7, 19, 4)
    assert record.finish_reason == "length"


def test_any_split_of_the_bytes_gives_the_same() -> None:
    whole = event("a") + event("b", "stop") + usage(1, 2) + DONE
    for size in (1, 2, 3, 7, len(whole)):
        record = read(*(whole[i : i + size] for i in range(0, len(whole), size)))
        assert (record.completion_tokens, record.finish_reason) == (2, "stop")


def test_the_first_token_is_the_first_event_with_content() -> None:
    role = b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": null}]}\n\n'
    word = b'data: {"choices": [{"delta": {"content": "hi"}, "finish_reason": null}]}\n\n'
    end = b'data: {"choices": [{"delta": {}, "finish_reason": "stop"}]}\n\n'
    record = read(role, word, end, DONE, pause_s=0.02)
    assert record.last_token_ns - record.first_token_ns > 10_000_000
    alone = read(role, end, DONE)
    assert alone.first_token_ns == alone.last_token_ns


def test_the_usage_event_moves_no_time() -> None:
    record = read(event("a"), event("b", "length"), usage(1, 2), DONE, pause_s=0.02)
    assert 10_000_000 < record.last_token_ns - record.first_token_ns < 500_000_000
    assert record.completion_tokens == 2


def test_an_error_inside_the_stream_is_a_failure_that_keeps_what_came() -> None:
    record = RequestRecord(1, "w", 1, "http://e", 0)

    async def body() -> AsyncIterator[bytes]:
        yield event("a")
        yield b'data: {"error": {"message": "engine died", "code": 500}}\n\n'
        yield DONE

    with pytest.raises(StreamError, match="engine died"):
        asyncio.run(read_stream(body(), record))
    assert record.first_token_ns is not None


@pytest.mark.parametrize("tail", [b"", DONE, event("a"), b"data: {broken\n\n"])
def test_a_stream_that_ends_early_is_a_failure(tail: bytes) -> None:
    with pytest.raises(StreamError):
        read(event("a"), tail)
