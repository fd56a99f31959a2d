"""Which prompt tokens come from the cache, and how the client learns it."""

from collections.abc import Callable

import pytest

from tests.bench.live_server.servers import LiveServer

pytestmark = pytest.mark.slow

DETAILS = "--enable-prompt-tokens-details"
PROMPT = list(range(100, 200))


def cached(server: LiveServer, prompt: list[int], **options: object) -> int:
    return int(server.complete(prompt, 1, **options)["usage"]["prompt_tokens_details"]["cached_tokens"])


def test_a_repeated_prompt_is_reused_in_whole_blocks(start: Callable[..., LiveServer]) -> None:
    server = start(DETAILS, "--block-size", "32")
    assert [cached(server, PROMPT), cached(server, PROMPT), cached(server, [*PROMPT[:50], 7])] == [0, 96, 32]
    server.request("/reset_prefix_cache", b"")
    assert cached(server, PROMPT) == 0


def test_salts_keep_prompts_apart(start: Callable[..., LiveServer]) -> None:
    server = start(DETAILS)
    salts = ["a", "b", "c", "b"]
    assert [cached(server, PROMPT, cache_salt=salt) for salt in salts] == [0, 0, 0, 96]
    assert cached(server, PROMPT) == 0


def test_without_prefix_caching_nothing_is_reused(start: Callable[..., LiveServer]) -> None:
    server = start(DETAILS, "--no-enable-prefix-caching")
    assert [cached(server, PROMPT), cached(server, PROMPT)] == [0, 0]


@pytest.mark.parametrize("stream", [False, True])
def test_details_come_only_when_asked_for(start: Callable[..., LiveServer], stream: bool) -> None:
    server = start()
    if stream:
        events = server.stream({"prompt": PROMPT, "max_tokens": 1, "stream_options": {"include_usage": True}})
        usage = events[-2]["usage"]
    else:
        usage = server.complete(PROMPT, 1)["usage"]
    assert usage == {"prompt_tokens": 100, "total_tokens": 101, "completion_tokens": 1}
