"""Random prompts: their lengths, their vocabulary, what they share."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
from tests.plan.plan_factory import WORDS, cell, plan

from inference_energy.errors import InputError
from inference_energy.plan.prompts import synthetic

PREFIX = {"groups": 3, "tokens": 50, "share": 0.6}
FEW = {"process": "closed", "concurrency": 1, "pool": 20}


def test_lengths_follow_the_distribution() -> None:
    prompts, schedule = plan(cell())
    counts = [len(ids) for ids in prompts["token_ids"].to_pylist()]
    assert schedule["prompt_tokens"].to_pylist() == counts
    assert abs(np.mean(counts) - 256) < 5 * 64 / np.sqrt(len(counts))
    assert 55 < np.std(counts) < 73


def test_token_ids_lie_in_the_vocabulary_and_are_even() -> None:
    ids = np.concatenate(plan(cell(), vocabulary=5000)[0]["token_ids"].to_pylist())
    assert ids.min() == 1000
    assert ids.max() == 4999
    assert abs(ids.mean() - 2999.5) < 5 * 1155 / np.sqrt(len(ids))
    assert np.concatenate(plan(cell(), vocabulary=300)[0]["token_ids"].to_pylist()).max() == 299


def test_no_vocabulary_no_token_ids() -> None:
    with pytest.raises(InputError, match=r"workloads\.chat\.prompts\.form.*words"):
        plan(cell(), vocabulary=None)
    prompts, schedule = plan(cell(prompts=WORDS), vocabulary=None)
    assert {len(text.split()) for text in prompts["text"].to_pylist()} == set(range(3, 10))
    assert set(schedule["prompt_tokens"].to_pylist()) == {None}, "only the server can count words' tokens"


def test_what_is_made_at_a_time_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    for config in ({"source": "synthetic"}, {"source": "synthetic", "prefix": PREFIX}, WORDS):
        whole = plan(cell(prompts=config))[0]
        with monkeypatch.context() as patch:
            patch.setattr(synthetic, "_BATCH_TOKENS", 999)
            assert plan(cell(prompts=config))[0].equals(whole)


@pytest.mark.parametrize("form", ["token_ids", "words"])
def test_groups_share_their_beginnings(form: str) -> None:
    config = {"source": "synthetic", "form": form, "prefix": PREFIX, "length": {"distribution": "fixed", "tokens": 20}}
    prompts, schedule = plan(cell(prompts=config, prefix_reuse=True))
    column = "token_ids" if form == "token_ids" else "text"
    values = [one if form == "token_ids" else one.split() for one in prompts[column].to_pylist()]
    groups = prompts["group"].to_pylist()
    beginnings = {
        group: {tuple(v[:50]) for v, g in zip(values, groups, strict=True) if g == group} for group in range(3)
    }
    assert all(len(found) == 1 for found in beginnings.values())
    assert len(set.union(*beginnings.values())) == 3
    assert [len(v) for v in values] == [20 if group is None else 70 for group in groups]
    own = [tuple(v[-20:]) for v in values]
    assert len(set(own)) == len(own)
    share = np.mean([group is not None for group in groups])
    assert abs(share - 0.6) < 4 * np.sqrt(0.24 / len(groups))
    assert not any(schedule["salt"].to_pylist())
    if form == "token_ids":
        assert schedule["prompt_tokens"].to_pylist() == [len(v) for v in values]


def test_a_shared_beginning_counts_as_sent_before() -> None:
    config = {"source": "synthetic", "prefix": {"groups": 2, "tokens": 30}}
    prompts, schedule = plan(cell("a", prompts=config, arrival=FEW), cell("b", prompts=config, arrival=FEW))
    seen: set[int] = set()
    for group, salt in zip(prompts["group"].to_pylist(), schedule["salt"].to_pylist(), strict=True):
        assert salt == (group in seen)
        seen.add(group)
    other = plan(cell("a", prompts=config, arrival=FEW), cell("b", prompts=config, arrival=FEW, workload_name="other"))[
        1
    ]
    assert other["salt"].to_pylist().count(False) == 4, "each workload has its own beginnings"


def test_cells_of_a_workload_have_the_same_beginnings() -> None:
    config = {"source": "synthetic", "prefix": {"groups": 1, "tokens": 30}}
    ids = plan(cell("a", prompts=config, arrival=FEW), cell("b", prompts=config, arrival=FEW))[0][
        "token_ids"
    ].to_pylist()
    assert len({tuple(one[:30]) for one in ids}) == 1
    assert len({tuple(one[30:]) for one in ids}) == 40


def chats(**keys: Any) -> Any:
    conversations = {
        "turns": {"distribution": "uniform", "minimum": 1, "maximum": 4},
        "think": {"distribution": "uniform", "minimum_s": 2, "maximum_s": 5},
    }
    return cell(prompts={**WORDS, **keys.pop("prompts", {})}, conversations=conversations, api="chat", **keys)


def test_conversations_of_an_open_loop() -> None:
    prompts, schedule = plan(chats())
    rows = schedule.to_pylist()
    assert [row["conversation"] for row in rows if row["turn"] == 0] == list(range(rows[-1]["conversation"] + 1))
    assert [row["arrival_ns"] for row in rows if row["turn"] == 0] == sorted(
        row["arrival_ns"] for row in rows if row["arrival_ns"] is not None
    )
    for before, row in itertools.pairwise(rows):
        later = row["turn"] > 0
        assert later == (row["arrival_ns"] is None) == (row["think_ns"] is not None)
        assert not later or (row["conversation"], row["turn"]) == (before["conversation"], before["turn"] + 1)
        assert row["think_ns"] is None or 2e9 <= row["think_ns"] <= 5e9
        assert row["user"] is None
    turns = np.bincount([row["conversation"] for row in rows])
    assert np.unique(turns).tolist() == [1, 2, 3, 4]
    messages = [json.loads(text) for text in prompts["messages"].to_pylist()]
    assert {tuple(message["role"] for message in one) for one in messages} == {("user",)}


def test_a_planned_history_holds_all_that_was_said() -> None:
    asked = chats(history="planned", max_tokens=6, prompts={"prefix": {"groups": 2, "tokens": 11}})
    prompts, schedule = plan(asked)
    said: list[dict[str, str]] = []
    for text, turn, group in zip(
        prompts["messages"].to_pylist(), schedule["turn"].to_pylist(), prompts["group"].to_pylist(), strict=True
    ):
        messages = json.loads(text)
        if turn == 0:
            assert [message["role"] for message in messages] == ["system", "user"]
            assert len(messages[0]["content"].split()) == 11
        else:
            assert messages[: len(said)] == said
            assert [message["role"] for message in messages[len(said) :]] == ["assistant", "user"]
            assert len(messages[-2]["content"].split()) == 6, "an answer as long as it was asked for"
        assert group in (0, 1)
        said = messages
    actual = plan(chats(max_tokens=6, prompts={"prefix": {"groups": 2, "tokens": 11}}))[0]["messages"].to_pylist()
    assert [json.loads(text)[-1] for text in actual] == [
        json.loads(text)[-1] for text in prompts["messages"].to_pylist()
    ]


def test_conversations_are_numbered_through_a_session() -> None:
    schedule = plan(chats(name="a"), cell("b"), chats(name="c"))[1]
    found = [value for value in schedule["conversation"].to_pylist() if value is not None]
    assert sorted(set(found)) == list(range(max(found) + 1))
    assert found == sorted(found)
