"""What each endpoint answers, and what it refuses."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from inference_energy.bench.truth.prefix_cache import natural_length
from tests.bench.live_server.servers import LiveServer

pytestmark = pytest.mark.slow

USAGE = {"include_usage": True}


def test_it_says_what_it_is(server: LiveServer) -> None:
    assert server.request("/health") == (200, "")
    assert server.json("/version") == {"version": "0.25.1+simulated"}
    (card,) = server.json("/v1/models")["data"]
    assert (card["id"], card["object"], card["max_model_len"]) == ("m", "model", 2048)
    assert {"created", "owned_by", "root", "parent", "permission"} <= card.keys()


def test_unknown_flags_are_named(server: LiveServer) -> None:
    assert "flags that the simulation does not know: --mystery-flag 7" in server.log()


def test_texts_to_tokens_and_back(server: LiveServer) -> None:
    found = server.json("/tokenize", {"model": "m", "prompt": "t5 t17\n t5", "return_token_strs": True})
    assert found == {"count": 3, "max_model_len": 2048, "tokens": [5, 17, 5], "token_strs": ["t5", "t17", "t5"]}
    assert server.json("/detokenize", {"tokens": [5, 17, 5]}) == {"prompt": "t5 t17 t5"}
    chat = server.json("/tokenize", {"messages": [{"role": "user", "content": "one two"}]})
    answer = server.json(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "one two"}], "max_tokens": 1}
    )
    assert answer["usage"]["prompt_tokens"] == chat["count"]


@pytest.mark.parametrize(
    ("prompt", "prompt_tokens", "choices"),
    [("t1 t2 t3", 3, 1), (["t1 t2", "t3"], 3, 2), ([1, 2, 3, 4], 4, 1), ([[1, 2], [3], [4, 5]], 5, 3)],
)
def test_every_kind_of_prompt(server: LiveServer, prompt: Any, prompt_tokens: int, choices: int) -> None:
    answer = server.complete(prompt, 3, ignore_eos=True)
    assert answer["object"] == "text_completion"
    assert [choice["index"] for choice in answer["choices"]] == list(range(choices))
    assert {choice["finish_reason"] for choice in answer["choices"]} == {"length"}
    assert {len(choice["text"].split()) for choice in answer["choices"]} == {3}
    assert answer["usage"] == {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": 3 * choices,
        "total_tokens": prompt_tokens + 3 * choices,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    events = server.stream({"prompt": prompt, "max_tokens": 3, "ignore_eos": True, "stream_options": USAGE})
    assert events.pop() == "[DONE]"
    assert events.pop()["usage"] == answer["usage"]
    for index, choice in enumerate(answer["choices"]):
        own = [event["choices"][0] for event in events if event["choices"][0]["index"] == index]
        assert "".join(event["text"] for event in own) == choice["text"]
        assert [event["finish_reason"] for event in own] == [None, None, "length"]


def test_one_event_a_token_and_as_many_words(server: LiveServer) -> None:
    events = server.stream({"prompt": "t1", "max_tokens": 50, "ignore_eos": True})
    choices = [event["choices"][0] for event in events[:-1]]
    text = "".join(choice["text"] for choice in choices)
    assert len(choices) == 50
    assert all(choice["text"] for choice in choices)
    assert server.json("/tokenize", {"prompt": text})["count"] == 50
    assert all("usage" not in event for event in events[:-1])


def test_usage_with_every_event(server: LiveServer) -> None:
    options = USAGE | {"continuous_usage_stats": True}
    events = server.stream({"prompt": [1, 2], "max_tokens": 4, "ignore_eos": True, "stream_options": options})
    assert [event["usage"]["completion_tokens"] for event in events[:-1]] == [1, 2, 3, 4, 4]


def test_a_chat_names_the_role_before_its_first_token(server: LiveServer) -> None:
    body = {"messages": [{"role": "user", "content": "t1 t2"}], "max_completion_tokens": 3, "ignore_eos": True}
    events = server.stream(body | {"stream_options": USAGE}, "/v1/chat/completions")
    assert events.pop() == "[DONE]"
    usage = events.pop()["usage"]
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert len(deltas) == 4
    whole = server.json("/v1/chat/completions", {"model": "m", **body})
    assert whole["object"] == "chat.completion"
    assert whole["choices"][0]["message"]["content"] == "".join(delta["content"] for delta in deltas)
    assert whole["usage"] == usage
    parts = [{"type": "text", "text": "t1"}, {"type": "text", "text": "t2"}]
    again = server.json("/v1/chat/completions", {**body, "messages": [{"role": "user", "content": parts}]})
    assert again["usage"]["prompt_tokens"] == usage["prompt_tokens"]


def test_the_models_own_lengths_follow_from_prompt_and_seed(start: Callable[..., LiveServer]) -> None:
    prompts = [[number, 7, 8] for number in range(12)]
    found = {}
    for seed in (1, 2):
        server = start("--seed", str(seed))
        choices = server.complete(prompts, 80)["choices"]
        found[seed] = [(len(choice["text"].split()), choice["finish_reason"]) for choice in choices]
        own = [natural_length(prompt, seed) for prompt in prompts]
        assert found[seed] == [(min(80, length), "stop" if length <= 80 else "length") for length in own]
        (longer,) = server.complete([prompts[0]], 80, min_tokens=79)["choices"]
        assert len(longer["text"].split()) >= 79
    assert found[1] != found[2]
    assert {reason for pairs in found.values() for _, reason in pairs} == {"stop", "length"}


@pytest.mark.parametrize(
    ("status", "change", "part", "param"),
    [
        (404, {"model": "other"}, "The model `other` does not exist.", "model"),
        (400, {"max_tokens": 0}, "max_tokens must be at least 1, got 0.", "max_tokens"),
        (400, {"max_tokens": 5000}, "cannot be greater than max_model_len=2048", "max_tokens"),
        (400, {"prompt": [1] * 2048}, "This model's maximum context length is 2048 tokens.", "input_tokens"),
        (400, {"prompt": [1] * 1000, "max_tokens": 1049}, "maximum context length is 2048", "input_tokens"),
        (400, {"prompt": ""}, "The decoder prompt cannot be empty", "prompt"),
        (400, {"prompt": []}, "The decoder prompt cannot be empty", "prompt"),
        (400, {"prompt": [512]}, "Token id 512 is out of vocabulary", "prompt"),
        (400, {"prompt": [-1]}, "validation error", "prompt.0"),
        (400, {"prompt": {"a": 1}}, "validation errors", "prompt"),
        (
            400,
            {"max_tokens": 4, "min_tokens": 5},
            "min_tokens must be less than or equal to max_tokens=4",
            "min_tokens",
        ),
        (400, {"n": 2}, "one answer a prompt", "n"),
        (400, {"stream_options": {}}, "Stream options can only be defined when `stream=True`.", None),
    ],
)
def test_what_is_refused(server: LiveServer, status: int, change: dict[str, Any], part: str, param: str | None) -> None:
    got, text = server.request("/v1/completions", {"model": "m", "prompt": [1], **change})
    error = json.loads(text)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert part in error["message"]
    assert (got, error["code"], error["param"]) == (status, status, param)


@pytest.mark.parametrize(("path", "status"), [("/v1/completions", 400), ("/v1/chat/completions", 400), ("/v1/x", 404)])
def test_no_json_and_no_such_path(server: LiveServer, path: str, status: int) -> None:
    got, text = server.request(path, b"not json")
    assert (got, json.loads(text)["error"]["code"]) == (status, status)


def test_a_request_is_known_by_the_clients_id(server: LiveServer) -> None:
    _, text = server.request("/v1/completions", {"prompt": [1], "max_tokens": 1}, {"X-Request-Id": "mine"})
    assert json.loads(text)["id"] == "cmpl-mine"
