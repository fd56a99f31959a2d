"""Prompts of files: text lines, JSONL, ShareGPT."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.plan.plan_factory import cell, plan

from inference_energy.errors import InputError
from inference_energy.plan.schedule import schedule_notes, session_requests

CHAT = {"api": "chat"}
TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "u1"},
    {"role": "assistant", "content": "a1"},
    {"role": "user", "content": "u2"},
    {"role": "assistant", "content": "a2"},
]
SHAREGPT = [
    {
        "id": "x",
        "conversations": [
            {"from": "human", "value": "h1"},
            {"from": "gpt", "value": "g1"},
            {"from": "human", "value": "h2"},
        ],
    },
    {"id": "y", "conversations": [{"from": "gpt", "value": "g0"}, {"from": "user", "value": "k1"}]},
    {"id": "z", "conversations": [{"from": "gpt", "value": "alone"}]},
]
ONE_USER = {"process": "closed", "concurrency": 1, "pool": 2}


def text_file(path: Path, text: str = "one\n\n two \nthree\n") -> dict[str, Any]:
    path.write_text(text, encoding="utf-8")
    return {"source": "file", "path": str(path)}


def jsonl(path: Path, *lines: object, **keys: Any) -> dict[str, Any]:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return {"source": "jsonl", "path": str(path), **keys}


def sharegpt(path: Path, content: object = SHAREGPT, **keys: Any) -> dict[str, Any]:
    path.write_text(json.dumps(content))
    return {"source": "sharegpt", "path": str(path), **keys}


def asked(*cells: Any, column: str = "text") -> list[Any]:
    prompts, schedule = plan(*cells)
    contents = prompts[column].to_pylist()
    return [contents[prompt_id] for prompt_id in schedule["prompt_id"].to_pylist()]


def test_a_text_file_uses_every_prompt_before_one_again(tmp_path: Path) -> None:
    texts = asked(cell(prompts=text_file(tmp_path / "p")))
    assert len(texts) > 1000
    for start in range(0, len(texts) - 3, 3):
        assert sorted(texts[start : start + 3]) == ["one", "three", "two"]
    assert len({tuple(texts[start : start + 3]) for start in range(0, len(texts) - 3, 3)}) == 6


def test_the_order_of_the_file_if_wanted(tmp_path: Path) -> None:
    texts = asked(cell(prompts={**text_file(tmp_path / "p"), "order": "file"}))
    assert texts[:7] == ["one", "two", "three", "one", "two", "three", "one"]


def test_each_prompt_is_kept_once_and_its_repeats_are_salted(tmp_path: Path) -> None:
    config = text_file(tmp_path / "p")
    prompts, schedule = plan(cell("a", prompts=config, duration_s=1.0), cell("b", prompts=config, duration_s=1.0))
    assert prompts.num_rows == 3
    assert schedule.num_rows > 6
    assert schedule["salt"].to_pylist() == [False] * 3 + [True] * (schedule.num_rows - 3)
    wanted = plan(cell("a", prompts=config, prefix_reuse=True))[1]
    assert not any(wanted["salt"].to_pylist())


def test_the_same_line_twice_and_in_another_workload_is_the_same_content(tmp_path: Path) -> None:
    first = text_file(tmp_path / "p", "same\nsame\nother")
    second = text_file(tmp_path / "q", "other\nnew")
    fixed = {"process": "constant", "rate_qps": 1}
    _, schedule = plan(
        cell("a", prompts={**first, "order": "file"}, arrival=fixed, duration_s=3.0),
        cell("b", prompts={**second, "order": "file"}, arrival=fixed, duration_s=2.0, workload_name="elsewhere"),
    )
    assert schedule["salt"].to_pylist() == [False, True, False, True, False]


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_or_missing_file_is_named(tmp_path: Path, content: str) -> None:
    for source in ("file", "jsonl", "sharegpt"):
        with pytest.raises(InputError, match=r"workloads\.chat\.prompts\.path.*cannot be read"):
            plan(cell(prompts={"source": source, "path": str(tmp_path / "none")}))
    for make in (text_file, jsonl):
        with pytest.raises(InputError, match="holds no prompt"):
            plan(cell(prompts=make(tmp_path / "p", content)))


def test_jsonl_prompts_ids_answers_and_lengths(tmp_path: Path) -> None:
    config = jsonl(
        tmp_path / "p",
        {"prompt": "2+2?", "answer": 4, "max_tokens": 7, "tag": "sum"},
        "",
        {"token_ids": [5, 6, 7]},
        order="file",
    )
    one = cell(prompts=config, arrival=ONE_USER)
    prompts, schedule = plan(one)
    columns = ["text", "token_ids", "messages", "answer"]
    assert prompts.select(columns).to_pylist() == [
        {"text": "2+2?", "token_ids": None, "messages": None, "answer": "4"},
        {"text": None, "token_ids": [5, 6, 7], "messages": None, "answer": None},
    ]
    assert schedule["max_tokens"].to_pylist() == [7, 256]
    assert schedule["prompt_tokens"].to_pylist() == [None, 3]
    assert [*map(str, schedule_notes(session_requests([one], 1)))] == [
        "workloads.chat.prompts.path: `tag` is ignored, in 1 lines"
    ]


def test_a_list_of_messages_is_one_request_without_conversations(tmp_path: Path) -> None:
    config = jsonl(tmp_path / "p", {"messages": TALK, "answer": "x"})
    messages = asked(cell(prompts=config, arrival={**ONE_USER, "pool": 1}, **CHAT), column="messages")
    assert [json.loads(text) for text in messages] == [TALK[:4]], "up to the last message of the user"


@pytest.mark.parametrize("history", ["actual", "planned"])
def test_recorded_conversations_are_cut_into_turns(tmp_path: Path, history: str) -> None:
    config = jsonl(tmp_path / "p", {"messages": TALK, "answer": "end"}, {"prompt": "single"}, order="file")
    chats = cell(prompts=config, arrival=ONE_USER, conversations={}, history=history, **CHAT)
    prompts, schedule = plan(chats)
    second = TALK[3:4] if history == "actual" else TALK[:4]
    expected = [TALK[:2], second, [{"role": "user", "content": "single"}]]
    assert [json.loads(text) for text in prompts["messages"].to_pylist()] == expected
    assert prompts["answer"].to_pylist() == [None, "end", None]
    assert schedule["conversation"].to_pylist() == [0, 0, 1]
    assert schedule["turn"].to_pylist() == [0, 1, 0]
    assert schedule["salt"].to_pylist() == [False, True, False], "a later turn repeats what was said"


def test_sharegpt_alone_is_its_first_question(tmp_path: Path) -> None:
    config = sharegpt(tmp_path / "p", order="file")
    one = cell(prompts=config, arrival=ONE_USER)
    assert asked(one) == ["h1", "k1"]
    assert any("1 of 3 conversations" in str(note) for note in schedule_notes(session_requests([one], 1)))


def test_sharegpt_conversations(tmp_path: Path) -> None:
    config = sharegpt(tmp_path / "p", order="file")
    common: dict[str, Any] = {"prompts": config, "arrival": ONE_USER, **CHAT}
    planned = asked(cell(conversations={}, history="planned", **common), column="messages")
    assert [[m["content"] for m in json.loads(text)] for text in planned] == [["h1"], ["h1", "g1", "h2"], ["k1"]]
    short = {"turns": {"distribution": "fixed", "turns": 1}}
    capped = asked(cell(conversations=short, **common), column="messages")
    assert [[m["content"] for m in json.loads(text)] for text in capped] == [["h1"], ["k1"]]


@pytest.mark.parametrize(
    ("line", "keys", "expected"),
    [
        ("not json", {}, "p:2: not JSON"),
        ("[1]", {}, "p:2: an object is expected"),
        ({"question": "x"}, {}, "exactly one of prompt, token_ids, messages; found: question"),
        ({"prompt": "x", "token_ids": [1]}, {}, "exactly one of"),
        ({"prompt": ["x"]}, {}, "prompt: a text is expected"),
        ({"prompt": "x", "max_tokens": 0}, {}, "max_tokens: a whole number"),
        ({"prompt": "x", "answer": ["a"]}, {}, "answer: a text or a number"),
        ({"token_ids": [1, -1]}, {}, "token_ids: a list of whole numbers"),
        ({"token_ids": [40_000]}, {}, "token id 40000 does not exist in a vocabulary of 32000"),
        ({"token_ids": [1]}, CHAT, "a chat takes no token ids"),
        ({"messages": TALK}, {}, "write api: chat"),
        ({"messages": [{"role": "user"}]}, CHAT, "messages: message 1: content: a text or a list of parts"),
        ({"messages": [{"content": "x"}]}, CHAT, "messages: a list of objects with role and content is expected"),
        ({"messages": [{"role": "system", "content": "x"}]}, CHAT, "no message has the role user"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: object, keys: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(cell(prompts=jsonl(tmp_path / "p", {"prompt": "fine"}, line), **keys))
    assert "workloads.chat.prompts.path" in str(caught.value)
    assert "p:2" in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"conversations": []}, "holds no conversation with a message `from` human"),
        ({"text": []}, "no object has `conversations`; found: text"),
        ([{"text": "x"}], "no object has `conversations`; found: text"),
        ([{"conversations": [{"from": "gpt", "value": "x"}]}], "holds no conversation with a message `from` human"),
    ],
)
def test_another_json_is_no_sharegpt(tmp_path: Path, content: object, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        plan(cell(prompts=sharegpt(tmp_path / "p", content)))
    assert expected in str(caught.value)
