"""Traces, prompt files and schedules of users are planned, with values that can be, or refused with an InputError."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fuzzing import damaged, fuzz
from hypothesis import strategies as st
from tests.plan.plan_factory import cell, plan

from inference_energy.errors import InputError

TRACES = {
    "mooncake": [
        {"timestamp": 0, "input_length": 700, "output_length": 52, "hash_ids": [1, 2]},
        {"timestamp": 3000, "input_length": 600, "output_length": 7, "hash_ids": [1, 2**63]},
    ],
    "bailian": [
        {"chat_id": 1, "timestamp": 0.25, "input_length": 20, "output_length": 5, "hash_ids": [1, "a"]},
        {"chat_id": 2, "timestamp": 9.5, "input_length": 17, "output_length": 7, "hash_ids": [1, 7]},
    ],
}
CSV_TRACES = {
    "azure": b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.68059,37,44\n2023-11-16 18:15:50,39,10\n",
    "burstgpt": b"Timestamp,Model,Request tokens,Response tokens\n5,ChatGPT,47,18\n45.5,GPT-4,10,23\n",
}
PROMPTS = {
    "file": [b"\xef\xbb\xbffirst\r\nsecond\nthird"],
    "jsonl": [
        b'{"prompt": "2+2?", "answer": 4, "max_tokens": 7}\n{"token_ids": [5, 6, 7]}\n',
        b'[{"prompt": "a"}, {"prompt": "b", "max_tokens": 3}]',
    ],
    "sharegpt": [
        b'[{"id": "x", "conversations": [{"from": "human", "value": "h"}, {"from": "gpt", "value": "g"}]}]',
        b'{"conversations": [{"role": "user", "content": "h"}, {"role": "assistant", "content": "g"}]}\n',
    ],
}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CHAT = {
    "messages": [
        {"role": "system", "content": "s", "name": "n"},
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
}
SCHEDULE = b"arrival_s,prompt_tokens,max_tokens\n0.5,10,3\n0.25,20,4\n"


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., None]:
    """Plan with a file, and check what the plan holds."""

    def check(content: bytes, **keys: Any) -> None:
        (tmp_path / "file").write_bytes(content)
        try:
            prompts, schedule = plan(cell(duration_s=60.0, ignore_eos=True, **keys))
        except InputError as error:
            assert len(str(error)) < 1000
            assert str(tmp_path) in str(error)
            return
        for name, lowest in (("arrival_ns", 0), ("prompt_tokens", 1), ("max_tokens", 1)):
            assert all(value is None or lowest <= value <= 60 * 10**9 for value in schedule[name].to_pylist())
        json.dumps(prompts.select(["text", "messages", "answer"]).to_pylist(), ensure_ascii=False).encode()

    return check


def test_traces_are_replayed_or_refused(planned: Callable[..., None], tmp_path: Path) -> None:
    documents = {kind: "\n".join(map(json.dumps, rows)).encode() for kind, rows in TRACES.items()} | CSV_TRACES
    files = st.one_of([st.tuples(st.just(kind), damaged([content])) for kind, content in documents.items()])

    def check(file: tuple[str, bytes]) -> None:
        kind, content = file
        # Lengths of the trace could be millions of tokens each, which are drawn in another test.
        arrival = {"process": "trace", "format": kind, "path": str(tmp_path / "file"), "max_requests": 3}
        planned(content, arrival={**arrival, "lengths": False})

    fuzz(files, check)


def test_prompts_are_sent_or_refused(planned: Callable[..., None], tmp_path: Path) -> None:
    kinds = [(kind, {}, documents) for kind, documents in PROMPTS.items()]
    kinds.append(("jsonl", {"api": "chat"}, [json.dumps(CHAT).encode()]))
    kinds.append(("sharegpt", {"api": "chat", "conversations": {}, "history": "planned"}, PROMPTS["sharegpt"]))
    files = st.one_of([st.tuples(st.just(kind), st.just(keys), damaged(documents)) for kind, keys, documents in kinds])

    def check(file: tuple[str, dict[str, Any], bytes]) -> None:
        kind, keys, content = file
        prompts = {"source": kind, "path": str(tmp_path / "file")}
        planned(content, prompts=prompts, arrival={"process": "closed", "concurrency": 2, "pool": 4}, **keys)

    fuzz(files, check)


def test_schedules_are_replayed_or_refused(planned: Callable[..., None], tmp_path: Path) -> None:
    csv = tmp_path / "mine.csv"
    csv.symlink_to(tmp_path / "file")
    prompts = {"source": "synthetic", "form": "words", "length": {"distribution": "fixed", "tokens": 3}}

    def check(content: bytes) -> None:
        # A length of a million tokens is drawn in full, which takes a second.
        if b"1" * 5 not in content and b"0" * 5 not in content:
            planned(content, arrival={"process": "schedule", "path": str(csv)}, prompts=prompts)

    fuzz(damaged([SCHEDULE]), check)
