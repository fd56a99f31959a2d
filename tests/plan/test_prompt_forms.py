"""Prompt files as people have them: line ends, byte order marks, OpenAI's messages, ShareGPT, broken ones."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.plan.plan_factory import cell, plan

from inference_energy.errors import InputError
from inference_energy.plan.schedule import schedule_notes, session_requests

USER = {"role": "user", "content": "hi"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CALLS = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "1", "content": "42"}
ONCE = {"process": "constant", "rate_qps": 1}


def prompts(path: Path, content: str | bytes, source: str, count: int = 2, **keys: Any) -> list[Any]:
    """The prompts of the first requests, in the order of the file."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    config = {"source": source, "path": str(path), "order": "file"}
    api = {} if source != "jsonl" or b"messages" not in path.read_bytes() else {"api": "chat"}
    one = cell(prompts=config, arrival=ONCE, duration_s=float(count), **{**api, **keys})
    contents, schedule = plan(one)
    rows = contents.to_pylist()
    return [
        row["text"] or row["token_ids"] or json.loads(row["messages"])
        for row in (rows[prompt_id] for prompt_id in schedule["prompt_id"].to_pylist())
    ]


def notes(path: Path, source: str) -> list[str]:
    one = cell(prompts={"source": source, "path": str(path)}, arrival=ONCE, duration_s=1.0)
    return [note.text for note in schedule_notes(session_requests([one], 1))]


def refusal(path: Path, content: str | bytes, source: str, **keys: Any) -> str:
    with pytest.raises(InputError) as caught:
        prompts(path, content, source, **keys)
    message = str(caught.value)
    assert message.startswith("workloads.chat.prompts.path: ")
    assert len(message) < 600
    return message


@pytest.mark.parametrize("inner", ["\u2028", "\u2029", "\x85", "\x0c", "\x0b", "\x1c", "\r"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_ends_with_a_line_feed_only(tmp_path: Path, inner: str, end: str) -> None:
    for mark in ("", "\ufeff"):
        text = f"{mark}first{inner}part{end}{end}second{end}"
        assert prompts(tmp_path / "p", text, "file") == [f"first{inner}part", "second"]
    lines = [json.dumps({"prompt": f"a{inner}b"}, ensure_ascii=False), json.dumps({"prompt": "c"})]
    assert prompts(tmp_path / "p", end.join(lines), "jsonl") == [f"a{inner}b", "c"]


def test_a_byte_order_mark_is_dropped_everywhere(tmp_path: Path) -> None:
    talk = [{"conversations": [{"from": "human", "value": "x"}]}]
    for content, source in (('{"prompt": "x"}', "jsonl"), (json.dumps(talk), "sharegpt"), ("x", "file")):
        assert prompts(tmp_path / "p", f"\ufeff{content}", source, 1) == ["x"]


def test_halves_of_surrogate_pairs_become_replacement_characters(tmp_path: Path) -> None:
    assert prompts(tmp_path / "p", r'{"prompt": "a\ud83d"}', "jsonl", 1) == ["a\ufffd"]


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "system", "content": "s"}, {**USER, "name": "bob"}],
        [{"role": "developer", "content": "s"}, USER],
        [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
        [USER, CALLS, RESULT, {"role": "user", "content": "and?"}],
        [USER, {**CALLS, "content": "wait"}, RESULT],
        [USER, {**CALLS, "tool_calls": [CALL, {**CALL, "id": "2"}]}, RESULT, {**RESULT, "tool_call_id": "2"}],
    ],
)
def test_openai_fields_are_sent_as_they_are(tmp_path: Path, messages: list[dict[str, Any]]) -> None:
    assert prompts(tmp_path / "p", json.dumps({"messages": messages}), "jsonl", 1) == [messages]


def test_fields_that_are_null_are_left_out(tmp_path: Path) -> None:
    given = {**USER, "name": None, "tool_calls": None, "refusal": None, "annotations": []}
    assert prompts(tmp_path / "p", json.dumps({"messages": [given]}), "jsonl", 1) == [[USER]]


def test_a_conversation_with_tools_has_a_turn_after_their_results(tmp_path: Path) -> None:
    answer, more = {"role": "assistant", "content": "it is 42"}, {"role": "user", "content": "sure?"}
    content = json.dumps({"messages": [USER, CALLS, RESULT, answer, more]})
    turns = prompts(tmp_path / "p", content, "jsonl", 1, conversations={}, history="planned")
    assert turns == [[USER], [USER, CALLS, RESULT], [USER, CALLS, RESULT, answer, more]]
    message = refusal(tmp_path / "p", content, "jsonl", conversations={}, history="actual")
    assert message.endswith("write history: planned")


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({**USER, "audio": {"id": "1"}}, "messages: message 2: audio: this field is not sent"),
        ({**USER, "reasoning_content": "hm"}, "message 2: reasoning_content: this field is not sent"),
        ({**USER, "function_call": {}}, "message 2: function_call: this field is not sent"),
        ({**USER, "role": "function"}, "message 2: role: one of system, developer, user, assistant, tool"),
        ({**USER, "role": 5}, "message 2: role: one of"),
        ({**USER, "content": 5}, "message 2: content: a text or a list of parts is expected, got 5"),
        ({**USER, "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "type 'image_url' is not sent"),
        ({**USER, "content": [{"type": "input_audio"}]}, "type 'input_audio' is not sent"),
        ({**USER, "content": ["text"]}, "content: a part of the type 'text' is not sent"),
        ({**USER, "content": [{"type": "text", "text": "a", "cache_control": {}}]}, "found: type, text, cache_control"),
        ({**USER, "name": 3}, "name: a text is expected, got 3"),
        ({**USER, "tool_calls": [CALL]}, "tool_calls: only a message of the assistant"),
        ({**CALLS, "tool_calls": [{"id": "1"}]}, "tool_calls: a list of objects with id, type and function"),
        ({**CALLS, "tool_calls": 3}, "tool_calls: a list of objects"),
        (RESULT, "tool_call_id: no earlier message has the call '1'"),
        ({"role": "tool", "content": "x"}, "tool_call_id belongs to"),
        ({**USER, "tool_call_id": "1"}, "tool_call_id belongs to"),
        ("hi", "message 2 is a text"),
        (None, "message 2 is null"),
    ],
)
def test_a_message_that_cannot_be_sent_as_it_is_is_refused_by_name(
    tmp_path: Path, message: object, expected: str
) -> None:
    text = refusal(tmp_path / "p", json.dumps({"messages": [USER, message]}), "jsonl")
    assert "p:1: messages: " in text
    assert expected in text


@pytest.mark.parametrize("as_lines", [False, True])
@pytest.mark.parametrize(
    "entries",
    [
        [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}],
        [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}],
        [{"from": "system", "value": "s"}, {"from": "User", "value": "hi"}, {"from": "assistant", "value": "yo"}],
        [{"from": "human", "value": "hi", "markdown": None}],
    ],
)
@pytest.mark.parametrize("key", ["conversations", "conversation"])
def test_sharegpt_variants(tmp_path: Path, entries: list[dict[str, Any]], key: str, *, as_lines: bool) -> None:
    talk = {"id": "a", key: entries}
    content = "\n".join(map(json.dumps, [talk, talk])) if as_lines else json.dumps([talk, talk])
    assert prompts(tmp_path / "p", content, "sharegpt") == ["hi", "hi"]
    chats = prompts(tmp_path / "p", content, "sharegpt", 1, conversations={}, history="planned", api="chat")
    assert [message["role"] for message in chats[-1]][-1] == "user"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([{"speaker": "a", "text": "b"}], "role and content, are expected; found: speaker, text"),
        ([{"from": "prompter", "value": "b"}], "from: 'prompter' is no known role"),
        ([{"role": "user", "content": [{"type": "text", "text": "a"}]}], "content is empty or no text"),
        ([["user", "hi"]], "found: a list"),
        ("hi", "conversations is not a list"),
        ([{"from": 3, "value": "b"}], "from: 3 is no known role"),
    ],
)
def test_an_unknown_form_of_sharegpt_is_refused_by_its_keys(tmp_path: Path, entries: object, expected: str) -> None:
    content = json.dumps([{"conversations": entries}])
    assert expected in refusal(tmp_path / "p", content, "sharegpt")
    good = [{"from": "human", "value": "hi"}]
    assert prompts(tmp_path / "p", json.dumps([{"conversations": good}, json.loads(content)[0]]), "sharegpt", 1)
    assert any("conversations end early" in note and expected in note for note in notes(tmp_path / "p", "sharegpt"))


def test_a_list_of_prompts_is_read_as_their_lines_are(tmp_path: Path) -> None:
    assert prompts(tmp_path / "p", json.dumps([{"prompt": "a"}, {"token_ids": [1, 2]}]), "jsonl") == ["a", [1, 2]]
    assert "p: entry 2: an object is expected" in refusal(tmp_path / "p", '[{"prompt": "a"}, 3]', "jsonl")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": "x", "max_tokens": "5"}', "max_tokens: a whole number from 1 up is expected"),
        ('{"prompt": "x", "max_tokens": 1e400}', "max_tokens: a whole number"),
        ('{"prompt": "x", "max_tokens": NaN}', "NaN is no number of JSON"),
        (f'{{"prompt": "x", "max_tokens": {10**30}}}', "max_tokens: a whole number"),
        (f'{{"prompt": "x", "max_tokens": {"9" * 5000}}}', "more than 4300 digits"),
        ('{"prompt": "x", "max_tokens": true}', "max_tokens: a whole number"),
        ('{"token_ids": [4294967296]}', "token_ids: a list of whole numbers from 0 up is expected, below 2^31"),
        ('{"conversations": [{"from": "human", "value": "x"}]}', "write prompts.source: sharegpt"),
        (json.dumps({f"{'k' * 60}{number}": 1 for number in range(500)}), "..."),
        ("[" * 100_000, "nested more than 64 levels"),
        ('{"prompt": ' * 2000, "nested more than 64 levels"),
        ("\0", "not JSON"),
        ('{"prompt": "', "not JSON"),
    ],
    ids=lambda text: text[:40],
)
def test_a_line_that_cannot_be_used_is_refused_with_its_number(tmp_path: Path, line: str, expected: str) -> None:
    message = refusal(tmp_path / "p", f'{{"prompt": "fine"}}\n{line}\n', "jsonl")
    assert "p:2: " in message
    assert expected in message


@pytest.mark.parametrize("source", ["file", "jsonl", "sharegpt"])
def test_bytes_that_are_no_utf_8_are_refused_with_their_line(tmp_path: Path, source: str) -> None:
    assert "p:2: not UTF-8 at byte 4" in refusal(
        tmp_path / "p", b"[]\r\nnot \xff" if source == "file" else b"\r\nnot \xff", source
    )
    assert "p:1: not UTF-8 at byte 0 of the line; save" in refusal(tmp_path / "p", "x".encode("utf-16"), source)


def test_deep_json_in_a_list_is_refused(tmp_path: Path) -> None:
    for content in ("[" * 100_000, "[" + '{"conversations":' * 100_000, "[" * 3000 + "]" * 3000):
        assert "nested more than 64 levels" in refusal(tmp_path / "p", content, "sharegpt")


def test_a_note_stands_for_each_of_the_commonest_ignored_keys(tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": "x", "tag": 1, f"key{number}": 2}) for number in range(100)]
    (tmp_path / "p").write_text("\n".join(lines))
    assert len(notes(tmp_path / "p", "jsonl")) == 10
    assert "`tag` is ignored, in 100 lines" in notes(tmp_path / "p", "jsonl")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
@pytest.mark.parametrize("source", ["file", "jsonl", "sharegpt"])
def test_a_name_that_cannot_be_one_is_refused(tmp_path: Path, source: str, name: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        plan(cell(prompts={"source": source, "path": str(tmp_path / name)}))
