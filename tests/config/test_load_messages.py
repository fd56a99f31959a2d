"""A load that cannot be is refused before anything runs, with the key and what to write."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from inference_energy.config.loader import validate
from inference_energy.errors import InputError

ROOT = Path(__file__).parents[2]
RAW = yaml.safe_load((ROOT / "config.yaml").read_text())
LOW, CHAT = "windows.low.arrival", "workloads.chat"
TRACE = {"process": "trace", "format": "azure", "path": "t.csv"}
WORDS = {"source": "synthetic", "form": "words"}
TALK = {"turns": {"distribution": "fixed", "turns": 3}}


def configured(changes: dict[str, Any]) -> dict[str, Any]:
    content = copy.deepcopy(RAW)
    for path, value in changes.items():
        node = content
        *parents, last = path.split(".")
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return content


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({f"{LOW}.process": "gamma"}, [f"{LOW}.burstiness", "required"]),
        ({LOW: {"process": "gamma", "rate_qps": 1, "burstiness": 0}}, [f"{LOW}.burstiness", "0.01"]),
        ({LOW: {"process": "poisson", "rate_qps": 1e6}}, ["windows.low: about 7.8e+07 requests", "lower rate"]),
        (
            {
                LOW: {
                    "process": "piecewise",
                    "steps": [{"rate_qps": 1e8, "duration_s": 2}, {"rate_qps": 0, "duration_s": 1e6}],
                }
            },
            ["windows.low: about 2e+08 requests"],
        ),
        ({LOW: {"process": "ramp", "from_qps": 0, "to_qps": 0}}, [LOW, "nothing would be sent"]),
        ({LOW: {"process": "piecewise", "steps": []}}, [f"{LOW}.steps"]),
        ({LOW: {"process": "piecewise", "steps": [{"rate_qps": 0, "duration_s": 2}]}}, [LOW, "nothing would be sent"]),
        ({LOW: {"process": "piecewise", "steps": [{"rate": 1, "duration_s": 2}]}}, ["steps.0", "rate_qps"]),
        ({LOW: {"process": "day", "mean_qps": 1, "amplitude": 1.5}}, [f"{LOW}.amplitude", "less than or equal to 1"]),
        (
            {LOW: {"process": "ramp", "from_qps": 1, "to_qps": 2, "burstiness": 0.5}},
            [LOW, "burstiness: has no meaning", "kind: gamma"],
        ),
        ({LOW: {**TRACE, "format": "csv"}}, [f"{LOW}.format", "'azure'"]),
        ({LOW: TRACE, f"{CHAT}.ignore_eos": False}, [f"{LOW}.lengths", f"{CHAT}.ignore_eos: true"]),
        ({LOW: TRACE, f"{CHAT}.prompts": {"source": "file", "path": "p"}}, [f"{LOW}.lengths", "synthetic"]),
        (
            {LOW: {"process": "closed", "concurrency": 2, "think": {"distribution": "lognormal", "mean_s": 3}}},
            [f"{LOW}.think.std_s", "required"],
        ),
        (
            {
                LOW: {
                    "process": "closed",
                    "concurrency": 2,
                    "think": {"distribution": "uniform", "minimum_s": 3, "maximum_s": 1},
                }
            },
            [f"{LOW}.think", "minimum (3) must not be above maximum (1)"],
        ),
        (
            {f"{CHAT}.prompts.length": {"distribution": "normal", "mean": 9000}},
            [f"{CHAT}.prompts.length", "mean (9000)"],
        ),
        (
            {f"{CHAT}.output_length": {"distribution": "fixed", "tokens": 3}, f"{CHAT}.ignore_eos": False},
            [CHAT, "output_length", "ignore_eos: true"],
        ),
        (
            {f"{CHAT}.output_length": {"distribution": "fixed", "tokens": 3}, f"{CHAT}.max_tokens": 32},
            [CHAT, "max_tokens: output_length takes its place"],
        ),
        ({f"{CHAT}.api": "chat"}, [CHAT, "no token ids", "form: words"]),
        ({f"{CHAT}.conversations": TALK}, [CHAT, "write workloads.chat.api: chat"]),
        (
            {f"{CHAT}.conversations": TALK, f"{CHAT}.api": "chat"},
            [CHAT, "conversations: messages are texts", "form: words"],
        ),
        (
            {f"{CHAT}.conversations": TALK, f"{CHAT}.api": "chat", f"{CHAT}.prompts": {"source": "file", "path": "p"}},
            [CHAT, "single prompts", "jsonl"],
        ),
        (
            {f"{CHAT}.conversations": TALK, f"{CHAT}.api": "chat", f"{CHAT}.prompts": WORDS, LOW: TRACE},
            [f"{LOW}.lengths", "no conversations"],
        ),
        (
            {
                f"{CHAT}.conversations": TALK,
                f"{CHAT}.api": "chat",
                f"{CHAT}.prompts": WORDS,
                LOW: {"process": "schedule", "path": "s.parquet"},
            },
            [LOW, "leave out workloads.chat.conversations"],
        ),
        ({f"{CHAT}.parameters": {"max_tokens": 3}}, [CHAT, "parameters.max_tokens", "use max_tokens"]),
        ({f"{CHAT}.parameters": {"n": 3}}, [CHAT, "parameters.n", "one answer"]),
        ({f"{CHAT}.prompts": {"source": "hub", "path": "x"}}, [f"{CHAT}.prompts.source", "'jsonl'", "'sharegpt'"]),
        ({"client.workers": 0}, ["client.workers"]),
        ({"client.transport": "http2"}, ["client.transport", "'plain'"]),
        ({"client.api_key_env": "sk-1234"}, ["client.api_key_env: write the name of an environment variable"]),
        ({"client.ca_file": "ca.pem", "client.verify": False}, ["client", "ca_file"]),
        ({f"{CHAT}.prompts.length": {"distribution": "fixed", "tokens": 10**17}}, [f"{CHAT}.prompts.length.tokens"]),
        ({f"{CHAT}.max_tokens": 10**12}, [f"{CHAT}.max_tokens", "10000000"]),
        ({f"{CHAT}.output_length": {"distribution": "uniform", "minimum": 1, "maximum": 10**9}}, ["maximum"]),
        ({"windows.low.duration_s": 1e20}, ["windows.low.duration_s", "less than or equal to"]),
        ({"idle.cold_s": 1e300}, ["idle.cold_s", "less than or equal to"]),
        ({LOW: {"process": "poisson", "rate_qps": 10**400}}, [f"{LOW}.rate_qps: this number is too large"]),
        ({LOW: {"process": "poisson", "rate_qps": "1e400"}}, [f"{LOW}.rate_qps", "finite"]),
        ({LOW: {"process": "closed", "concurrency": True}}, [f"{LOW}.concurrency: write a number, not true"]),
        (
            {
                LOW: {
                    "process": "closed",
                    "concurrency": 2,
                    "think": {"distribution": "lognormal", "mean_s": 1e-300, "std_s": 1},
                }
            },
            [f"{LOW}.think", "1000 times"],
        ),
        (
            {
                f"{CHAT}.prompts.length": {"distribution": "fixed", "tokens": 10**6},
                LOW: {"process": "poisson", "rate_qps": 100},
            },
            [f"{CHAT}.prompts.length", "would not fit"],
        ),
    ],
)
def test_the_message_names_the_key_and_what_to_write(changes: dict[str, Any], expected: list[str]) -> None:
    changes = {f"{CHAT}.max_tokens": 256, **changes}
    with pytest.raises(InputError) as caught:
        validate(configured(changes))
    for part in expected:
        assert part in str(caught.value)


def test_a_key_written_by_mistake_is_not_repeated() -> None:
    with pytest.raises(InputError) as caught:
        validate(configured({"client.api_key_env": "sk-1234"}))
    assert "1234" not in str(caught.value)


@pytest.mark.parametrize(
    "arrival",
    [
        {"process": "gamma", "rate_qps": 3, "burstiness": 0.5},
        {"process": "ramp", "from_qps": 0, "to_qps": 9, "kind": "constant"},
        {"process": "piecewise", "steps": [{"rate_qps": 1, "duration_s": 3}], "kind": "gamma", "burstiness": 2},
        {"process": "day", "mean_qps": 3, "amplitude": 0.5, "phase": 0.25},
        {"process": "closed", "concurrency": 2, "stagger_s": 1, "think": {"distribution": "exponential", "mean_s": 1}},
        {**TRACE, "time_scale": 0.5, "start_s": 60, "max_requests": 10},
        {"process": "schedule", "path": "s.parquet", "prompts": "p.parquet", "cell": "low"},
    ],
    ids=lambda arrival: arrival["process"],
)
def test_every_process_can_be_written(arrival: dict[str, Any]) -> None:
    assert validate(configured({LOW: arrival})).windows["low"].arrival.model_dump(exclude_unset=True) == arrival


def test_a_replay_of_prompts_needs_no_vocabulary() -> None:
    """An attached server does not tell its vocabulary, which only new token ids need."""
    attached = {
        "servers.there": {"mode": "attach", "endpoint": "http://localhost:1"},
        "sessions.main": {"server": "there", "windows": ["low"]},
        LOW: {"process": "schedule", "path": "s.parquet"},
    }
    with pytest.raises(InputError, match="form: words"):
        validate(configured(attached))
    attached[LOW] = {**attached[LOW], "prompts": "p.parquet"}
    assert validate(configured(attached)).run == ["main"]
