"""Published traces, read as they are and replayed at another speed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plan.plan_factory import cell, plan

from inference_energy.config.load.arrivals import TraceArrival
from inference_energy.errors import InputError
from inference_energy.plan.arrivals.trace_rows import Rows
from inference_energy.plan.arrivals.traces import cut_to_cell

AZURE_2023 = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
2023-11-16 18:15:56.6805900,91,16
"""
AZURE_2024 = """TIMESTAMP,ContextTokens,GeneratedTokens
2024-05-10 00:00:00.009930+00:00,2162,5
2024-05-10 00:00:00.017335+00:00,2399,6
2024-05-10 00:00:02+00:00,76,15
"""
BURSTGPT = """\ufeffTimestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45.5,ChatGPT,1087,230,1317,Conversation log
118,GPT-4,417,0,417,API log
120,GPT-4,417,276,693,API log
"""
SHARED = list(range(20, 22))
MOONCAKE = [
    {"timestamp": 0, "input_length": 1300, "output_length": 52, "hash_ids": [*SHARED, 22]},
    {"timestamp": 0, "input_length": 1100, "output_length": 7, "hash_ids": [*SHARED, 23]},
    {"timestamp": 3000, "input_length": 700, "output_length": 9, "hash_ids": [30, 21]},
]


def traced(path: Path, kind: str, **keys: Any) -> dict[str, Any]:
    return {"process": "trace", "format": kind, "path": str(path), **keys}


def planned(path: Path, kind: str, duration_s: float = 60.0, **keys: Any) -> list[dict[str, Any]]:
    arrival = traced(path, kind, **keys)
    return plan(cell(arrival=arrival, duration_s=duration_s, ignore_eos=True))[1].to_pylist()


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def three(rows: list[dict[str, Any]]) -> list[tuple[float, int, int]]:
    return [(round(row["arrival_ns"] / 1e9, 6), row["prompt_tokens"], row["max_tokens"]) for row in rows]


def test_azure_2023(tmp_path: Path) -> None:
    rows = planned(written(tmp_path / "t.csv", AZURE_2023), "azure")
    assert three(rows) == [(0.0, 374, 44), (4.314579, 396, 109), (4.541877, 879, 55), (10.0, 91, 16)]


def test_azure_2024_has_time_zones_and_times_without_a_fraction(tmp_path: Path) -> None:
    rows = planned(written(tmp_path / "t.csv", AZURE_2024), "azure")
    assert three(rows) == [(0.0, 2162, 5), (0.007405, 2399, 6), (1.99007, 76, 15)]


def test_burstgpt_without_its_failed_requests(tmp_path: Path) -> None:
    rows = planned(written(tmp_path / "t.csv", BURSTGPT), "burstgpt", duration_s=200)
    assert three(rows) == [(0.0, 472, 18), (40.5, 1087, 230), (115.0, 417, 276)]
    arrivals_only = planned(tmp_path / "t.csv", "burstgpt", duration_s=200, lengths=False)
    assert [row["max_tokens"] for row in arrivals_only] == [256] * 4


def test_names_of_columns_may_be_spelled_otherwise(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", BURSTGPT.replace("Request tokens", " request_TOKENS ").replace("Model,", "M,"))
    assert three(planned(path, "burstgpt"))[0] == (0.0, 472, 18)


def test_a_part_of_a_trace_at_another_speed(tmp_path: Path) -> None:
    path = written(tmp_path / "t.csv", AZURE_2023)
    rows = planned(path, "azure", start_s=4.0, time_scale=10.0)
    assert three(rows) == [(3.14579, 396, 109), (5.41877, 879, 55)]
    assert len(planned(path, "azure", time_scale=0.5, duration_s=2.2)) == 2
    assert len(planned(path, "azure", max_requests=1)) == 1


def test_rows_that_are_not_in_order_are_sorted(tmp_path: Path) -> None:
    head, *lines = AZURE_2023.splitlines()
    path = written(tmp_path / "t.csv", "\n".join([head, lines[0], lines[2], lines[1]]))
    assert [row[1] for row in three(planned(path, "azure"))] == [374, 396, 879]


@settings(max_examples=60)
@given(
    gaps_s=st.lists(st.floats(0, 50), min_size=1, max_size=30),
    scale=st.floats(0.05, 20),
    start_s=st.floats(0, 100),
    duration_s=st.floats(1, 500),
)
def test_scaling_multiplies_every_gap(gaps_s: list[float], scale: float, start_s: float, duration_s: float) -> None:
    times_s = np.cumsum([1000.0, *gaps_s])
    ones = np.ones(len(times_s), dtype=np.int64)
    arrival = TraceArrival(process="trace", format="azure", path="t", start_s=start_s, time_scale=scale, lengths=False)
    expected = [(at_s - 1000 - start_s) * scale for at_s in times_s.tolist()]
    inside = [at_s for at_s in expected if 0 <= at_s < duration_s]
    if not inside:
        with pytest.raises(InputError, match="no request"):
            cut_to_cell(Rows(times_s, ones, ones), arrival, duration_s, "windows.w.arrival")
        return
    offsets = cut_to_cell(Rows(times_s, ones, ones), arrival, duration_s, "windows.w.arrival").offsets_ns
    assert offsets / 1e9 == pytest.approx(inside, abs=2e-9 * max(1, scale))
    assert offsets.max() < duration_s * 1e9


@pytest.mark.parametrize("form", ["token_ids", "words"])
def test_mooncake_prompts_share_the_blocks_whose_ids_are_equal(tmp_path: Path, form: str) -> None:
    path = written(tmp_path / "t.jsonl", "\n".join(json.dumps(row) for row in MOONCAKE))
    asked = cell(arrival=traced(path, "mooncake"), prompts={"source": "synthetic", "form": form}, ignore_eos=True)
    prompts, schedule = plan(asked)
    values = (
        prompts["token_ids"].to_pylist() if form == "token_ids" else [t.split() for t in prompts["text"].to_pylist()]
    )
    assert [len(one) for one in values] == [1300, 1100, 700]
    assert [round(at / 1e9) for at in schedule["arrival_ns"].to_pylist()] == [0, 0, 3]
    first, second, third = values
    assert first[:1024] == second[:1024]
    assert first[1024:1100] != second[1024:1100]
    assert third[512:700] == first[512:700], "block 21 is the same wherever it stands"
    assert third[:512] != first[:512]
    assert prompts["group"].to_pylist() == [20, 20, 30]
    assert schedule["salt"].to_pylist() == [False, True, False]
    if form == "token_ids":
        assert schedule["prompt_tokens"].to_pylist() == [1300, 1100, 700]
        assert min(map(min, values)) >= 1000
        assert max(map(max, values)) < 32_000
        assert len(set(first)) > 1200, "blocks are not all one value"


def test_a_prompt_longer_than_its_blocks_goes_on_alone(tmp_path: Path) -> None:
    long = [{**MOONCAKE[0], "input_length": 2000, "hash_ids": [20]} for _ in range(2)]
    path = written(tmp_path / "t.jsonl", "\n".join(json.dumps(row) for row in long))
    first, second = plan(cell(arrival=traced(path, "mooncake"), ignore_eos=True))[0]["token_ids"].to_pylist()
    assert first[:512] == second[:512]
    assert len(first) == 2000
    assert np.mean(np.array(first[512:]) == np.array(second[512:])) < 0.01


def test_block_contents_follow_the_seed(tmp_path: Path) -> None:
    path = written(tmp_path / "t.jsonl", json.dumps(MOONCAKE[0]))
    asked = cell(arrival=traced(path, "mooncake"), ignore_eos=True)
    first, second = (plan(asked, seed=seed)[0]["token_ids"].to_pylist()[0] for seed in (1, 2))
    assert np.mean(np.array(first) == np.array(second)) < 0.01


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        ("azure", BURSTGPT, ["lacks the column ContextTokens, GeneratedTokens", "found: Timestamp, Model"]),
        ("burstgpt", AZURE_2023, ["lacks the column Request tokens", "found: TIMESTAMP, ContextTokens"]),
        ("azure", AZURE_2023.replace("2023-11-16 18:15:50.9951690", "soon"), ["TIMESTAMP is no date"]),
        ("azure", AZURE_2023.replace(",396,", ",many,"), ["many"]),
        ("azure", "", ["is empty"]),
        ("mooncake", AZURE_2023, ["t:1: not JSON"]),
        ("mooncake", '{"timestamp": 1, "input_length": 3}', ["t:1: lacks output_length", "found: timestamp"]),
        ("mooncake", json.dumps({**MOONCAKE[0], "hash_ids": [["a"]]}), ["t:1: hash_ids", "['a'] is neither"]),
        ("mooncake", json.dumps({**MOONCAKE[0], "timestamp": "noon"}), ["timestamp: a number"]),
    ],
)
def test_another_format_is_named_with_what_was_found(
    tmp_path: Path, kind: str, content: str, expected: list[str]
) -> None:
    path = written(tmp_path / "t", content)
    with pytest.raises(InputError) as caught:
        planned(path, kind)
    for part in ["windows.w.arrival", *expected]:
        assert part in str(caught.value)


def test_a_missing_trace_is_named(tmp_path: Path) -> None:
    for kind in ("azure", "mooncake"):
        with pytest.raises(InputError, match=r"windows\.w\.arrival\.path: .*cannot be read"):
            planned(tmp_path / "none", kind)


def test_a_part_without_requests_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"windows\.w\.arrival: no request .* 10 s long"):
        planned(written(tmp_path / "t.csv", AZURE_2023), "azure", start_s=100)


def test_only_as_much_is_read_as_is_replayed(tmp_path: Path) -> None:
    """A broken row far beyond the cell's end is never reached."""
    rows = [
        f"2024-05-10 {hour:02}:{minute:02}:{second:02}+00:00,10,5"
        for hour in range(24)
        for minute in range(60)
        for second in range(60)
    ]
    text = "\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows, "tomorrow,x,y"])
    path = written(tmp_path / "t.csv", text)
    assert len(planned(path, "azure", duration_s=60)) == 60
    with pytest.raises(InputError):
        planned(path, "azure", duration_s=100_000)
