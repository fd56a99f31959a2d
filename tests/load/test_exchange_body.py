"""The bytes of a request."""

import json
from typing import Any

import pytest

from inference_energy.acquire.load.http.request import (
    BodyMaker,
    ClientSettings,
    PlannedRequest,
    WorkloadSettings,
    assistant_message,
    prompt_fragment,
)
from inference_energy.errors import InputError


def body(workload: WorkloadSettings, prompt: bytes, history: bytes = b"", **options: Any) -> Any:
    return json.loads(BodyMaker("m").body(PlannedRequest(7, "c", 1, prompt, 64, **options), workload, history))


def test_a_completion_of_token_ids() -> None:
    found = body(WorkloadSettings(), prompt_fragment("completions", token_ids=[1, 2, 3]))
    assert found == {
        "model": "m",
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "prompt": [1, 2, 3],
        "max_tokens": 64,
    }


def test_a_completion_of_text_that_needs_escapes() -> None:
    text = 'A "quoted"\nline, half é, 日本, \x00'
    assert body(WorkloadSettings(), prompt_fragment("completions", text=text))["prompt"] == text


def test_a_chat_of_text_is_one_user_message() -> None:
    found = body(WorkloadSettings(api="chat", stream=False), prompt_fragment("chat", text="hi"))
    assert found["messages"] == [{"role": "user", "content": "hi"}]
    assert found["stream"] is False
    assert "stream_options" not in found
    assert "prompt" not in found


def test_a_conversation_puts_what_was_said_before_the_prompt() -> None:
    first = prompt_fragment("chat", messages=[{"role": "system", "content": "s"}, {"role": "user", "content": "q"}])
    history = first + b"," + assistant_message('an "answer"')
    found = body(WorkloadSettings(api="chat"), prompt_fragment("chat", text="more"), history)
    assert [message["role"] for message in found["messages"]] == ["system", "user", "assistant", "user"]
    assert found["messages"][2]["content"] == 'an "answer"'


def test_extensions_are_sent_only_where_they_are_needed() -> None:
    prompt = prompt_fragment("completions", text="x")
    assert not {"ignore_eos", "cache_salt"} & set(body(WorkloadSettings(), prompt))
    found = body(WorkloadSettings(ignore_eos=True), prompt, salt=True)
    assert found["ignore_eos"] is True
    assert found["cache_salt"].endswith("-7")


def test_salts_differ_between_clients_and_requests() -> None:
    prompt, workload = prompt_fragment("completions", text="x"), WorkloadSettings()
    makers = [BodyMaker("m"), BodyMaker("m")]
    bodies = [maker.body(PlannedRequest(n, "c", 1, prompt, 1, salt=True), workload) for maker in makers for n in (1, 2)]
    assert len({json.loads(each)["cache_salt"] for each in bodies}) == 4


def test_parameters_go_into_the_body() -> None:
    parameters = {"temperature": None, "top_p": 0.9, "stream_options": {"continuous_usage_stats": True}}
    found = body(WorkloadSettings(parameters=parameters), prompt_fragment("completions", text="x"))
    assert "temperature" not in found
    assert found["top_p"] == 0.9
    assert found["stream_options"] == {"continuous_usage_stats": True, "include_usage": True}


def test_parameters_cannot_replace_what_the_client_decides() -> None:
    with pytest.raises(InputError, match=r"parameters\.max_tokens"):
        body(WorkloadSettings(parameters={"max_tokens": 3}), b'"x"')


def test_forms_that_do_not_fit_the_api() -> None:
    with pytest.raises(InputError, match="token ids"):
        prompt_fragment("chat", token_ids=[1])
    with pytest.raises(InputError, match="messages"):
        prompt_fragment("completions", messages=[])


def test_a_long_prompt_is_copied_not_encoded() -> None:
    prompt = prompt_fragment("completions", token_ids=list(range(50_000)))
    assert body(WorkloadSettings(), prompt)["prompt"][-1] == 49_999


def test_the_key_is_not_shown() -> None:
    assert "sk-1" not in repr(ClientSettings(api_key="sk-1"))
