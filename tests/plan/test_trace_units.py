"""Traces in other units of time, with other blocks, and with values that cannot be."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.plan.plan_factory import cell, plan

from inference_energy.errors import InputError
from inference_energy.plan.schedule import schedule_notes, session_requests

BAILIAN = [
    {"chat_id": 159, "parent_chat_id": -1, "timestamp": 61.114, "input_length": 33, "hash_ids": [1089, 1090, 1091]},
    {"chat_id": 160, "parent_chat_id": 159, "timestamp": 75.5, "input_length": 40, "hash_ids": [1089, 2, 3]},
    {"chat_id": 161, "parent_chat_id": -1, "timestamp": 118.0, "input_length": 20, "hash_ids": [1090, 3]},
]
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens"


def jsonl(path: Path, rows: Sequence[dict[str, Any]], **more: Any) -> Path:
    lines = [json.dumps({"timestamp": 0, "input_length": 10, "output_length": 3} | row | more) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def timed(path: Path, times: Sequence[object], **more: Any) -> Path:
    return jsonl(path, [{"timestamp": time} for time in times], **more)


def csv(path: Path, head: str, *rows: str) -> Path:
    path.write_text("\n".join([head, *rows]), encoding="utf-8")
    return path


def arrival(path: Path, kind: str, **keys: Any) -> dict[str, Any]:
    return {"process": "trace", "format": kind, "path": str(path), **keys}


def seconds(path: Path, kind: str, duration_s: float = 600.0, **keys: Any) -> list[float]:
    asked = cell(arrival=arrival(path, kind, **keys), duration_s=duration_s, ignore_eos=True)
    return [round(at_ns / 1e9, 6) for at_ns in plan(asked)[1]["arrival_ns"].to_pylist()]


def notes(path: Path, kind: str, **keys: Any) -> list[str]:
    asked = cell(arrival=arrival(path, kind, **keys), duration_s=600.0, ignore_eos=True)
    return [str(note) for note in schedule_notes(session_requests([asked], 1))]


def refusal(path: Path, kind: str, **keys: Any) -> str:
    with pytest.raises(InputError) as caught:
        seconds(path, kind, **keys)
    message = str(caught.value)
    assert message.startswith("windows.w.arrival")
    assert len(message) < 600
    return message


def test_a_bailian_trace_is_in_seconds_and_has_blocks_of_16_tokens(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t", BAILIAN)
    assert seconds(path, "bailian") == [0.0, 14.386, 56.886]
    prompts = plan(cell(arrival=arrival(path, "bailian"), ignore_eos=True))[0]
    first, second, third = prompts["token_ids"].to_pylist()
    assert first[:16] == second[:16]
    assert first[16:32] != second[16:32]
    assert third[:16] == first[16:32], "block 1090 is the same wherever it stands"
    assert third[16:] == second[32:36]


def test_a_bailian_trace_is_no_mooncake_trace_unless_unit_and_block_are_stated(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t", BAILIAN)
    message = refusal(path, "mooncake")
    assert "t:1: chat_id is a key of Qwen-Bailian" in message
    assert message.endswith("write windows.w.arrival.format: bailian")
    assert seconds(path, "mooncake", time_unit="s", block_tokens=16) == [0.0, 14.386, 56.886]


@pytest.mark.parametrize(
    ("kind", "times", "write"),
    [
        ("mooncake", [0.2, 12.75, 40.5], ["s", "ms"]),
        ("mooncake", [0, 12, 40], ["ms", "s"]),
        ("mooncake", [*range(0, 3600, 3)], ["ms", "s"]),
        ("mooncake", [0, 14_386_000, 56_886_000], ["ms", "us", "ns"]),
        ("mooncake", [1_700_000_000, 1_700_000_012, 1_700_000_040], ["s"]),
        ("mooncake", [1_700_000_000_000_000, 1_700_000_012_000_000], ["us"]),
        ("mooncake", [1_700_000_000_000_000_000, 1_700_000_012_000_000_000], ["ns"]),
        ("bailian", [0, 14_386, 56_886], ["s", "ms", "us", "ns"]),
        ("bailian", [1_700_000_000_000, 1_700_000_001_000], ["ms"]),
    ],
)
def test_times_that_are_hardly_in_the_formats_unit_are_refused_until_it_is_stated(
    tmp_path: Path, kind: str, times: list[float], write: list[str]
) -> None:
    path = timed(tmp_path / "t", times)
    message = refusal(path, kind)
    assert message.endswith("write " + ", or ".join(f"windows.w.arrival.time_unit: {unit}" for unit in write))
    scale = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
    for unit in write:
        expected = [round((time - times[0]) * scale[unit], 6) for time in times]
        assert seconds(path, kind, 1e5, time_unit=unit) == [at_s for at_s in expected if at_s < 1e5]


@pytest.mark.parametrize(
    ("kind", "times"),
    [
        ("mooncake", [0, 0, 3000]),
        ("mooncake", [5.0, 2005.0]),
        ("mooncake", [1_700_000_000_000, 1_700_000_012_000]),
        ("mooncake", [7]),
        ("mooncake", [7, 7]),
        ("bailian", [1_700_000_000.25, 1_700_000_012.5]),
    ],
)
def test_times_that_fit_the_format_need_no_unit(tmp_path: Path, kind: str, times: list[float]) -> None:
    unit_s = 1e-3 if kind == "mooncake" else 1.0
    expected = [round((time - times[0]) * unit_s, 6) for time in times]
    assert seconds(timed(tmp_path / "t", times), kind) == expected


def test_times_in_ns_since_1970_are_exact(tmp_path: Path) -> None:
    path = timed(tmp_path / "t", [1_700_000_000_123_456_789, 1_700_000_000_123_456_790])
    schedule = plan(cell(arrival=arrival(path, "mooncake", time_unit="ns"), ignore_eos=True))[1]
    assert schedule["arrival_ns"].to_pylist() == [0, 1]


def test_burstgpt_in_other_units(tmp_path: Path) -> None:
    path = csv(tmp_path / "t", BURSTGPT, "5000,a,1,1", "4000000,a,1,1", "9000000,a,1,1")
    assert "BurstGPT" not in refusal(path, "burstgpt")
    assert seconds(path, "burstgpt", 1e4, time_unit="ms") == [0.0, 3995.0, 8995.0]
    path = csv(tmp_path / "t", BURSTGPT, "1700000000000,a,1,1", "1700000004000,a,1,1")
    assert refusal(path, "burstgpt").endswith("write windows.w.arrival.time_unit: ms")
    path = csv(tmp_path / "t", BURSTGPT, "1700000000,a,1,1", "1700000004,a,1,1")
    assert seconds(path, "burstgpt") == [0.0, 4.0]


def test_azure_times_that_are_numbers_need_a_unit(tmp_path: Path) -> None:
    path = csv(tmp_path / "t", AZURE, "1700000000000,1,1", "1700000004500,1,1")
    assert "TIMESTAMP 1700000000000 is a number" in refusal(path, "azure")
    assert seconds(path, "azure", time_unit="ms") == [0.0, 4.5]
    assert "beyond the year 2096" in refusal(path, "azure", time_unit="s")
    assert "is a number" in refusal(csv(tmp_path / "t", AZURE, "2023,1,1"), "azure")
    assert "is of the year 9999" in refusal(csv(tmp_path / "t", AZURE, "9999-12-31,1,1"), "azure")
    assert seconds(csv(tmp_path / "t", AZURE, "2023-11-16T18:15:46Z,1,1", "2023-11-16T18:15:48Z,1,1"), "azure") == [
        0.0,
        2.0,
    ]


def test_ids_of_blocks_are_names(tmp_path: Path) -> None:
    ids = [13835058055282163712, 2**64 - 1, -1, -5, "a", "-5", "\U0001f600", 10**30, 7]
    rows = [{"input_length": 512, "hash_ids": [block]} for block in [*ids, *ids, 7.0]]
    prompts = plan(cell(arrival=arrival(jsonl(tmp_path / "t", rows), "mooncake"), ignore_eos=True))[0]
    contents = [tuple(tokens) for tokens in prompts["token_ids"].to_pylist()]
    assert contents[: len(ids)] == contents[len(ids) : 2 * len(ids)]
    assert contents[-1] == contents[len(ids) - 1], "7.0 is 7"
    assert len(set(contents)) == len(ids)
    groups = prompts["group"].to_pylist()
    assert groups[len(ids) - 1] == 7
    assert len(set(groups)) == len(ids)
    assert min(groups) >= 0


@pytest.mark.parametrize(
    "ids", [3, "ab", {"a": 1}, [True], [None], [3.5], [1e19], [[1]], [1, {}], ["x" * 500, False]], ids=str
)
def test_what_cannot_be_an_id_is_refused_with_its_line(tmp_path: Path, ids: object) -> None:
    path = jsonl(tmp_path / "t", [{}, {"hash_ids": ids}])
    assert "t:2: hash_ids: a list of whole numbers or texts is expected" in refusal(path, "mooncake")


def test_ids_that_do_not_fit_the_size_of_a_block_are_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t", [{"input_length": 521, "hash_ids": [*range(33)]}])
    message = refusal(path, "mooncake")
    assert "t:1: 33 hash_ids of 521 tokens are not blocks of 512 tokens" in message
    assert message.endswith("write windows.w.arrival.block_tokens: 16")
    assert seconds(path, "mooncake", block_tokens=16) == [0.0]
    path = jsonl(tmp_path / "t", [{"input_length": 8000, "hash_ids": [*range(8)]}] * 3)
    assert refusal(path, "mooncake").endswith("write windows.w.arrival.block_tokens: 1024")


def test_blocks_may_be_named_where_they_are_whole_only(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "t", [{"input_length": 1300, "hash_ids": [1, 2]}])
    assert notes(path, "mooncake") == []
    path = jsonl(tmp_path / "t", [{"input_length": 1300, "hash_ids": [1]}])
    assert notes(path, "mooncake") == [
        "windows.w.arrival: 1 prompts are longer than their hash_ids say; the rest of each is like no other prompt"
    ]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ('{"timestamp": -1, "input_length": 1, "output_length": 1}', "timestamp: a number from 0 up"),
        ('{"timestamp": NaN, "input_length": 1, "output_length": 1}', "NaN is no number of JSON"),
        ('{"timestamp": 1e400, "input_length": 1, "output_length": 1}', "timestamp: a number from 0 up"),
        ('{"timestamp": 1%s, "input_length": 1, "output_length": 1}' % ("0" * 300), "more than 40 digits"),
        ('{"timestamp": 1%s, "input_length": 1, "output_length": 1}' % ("0" * 5000), "more than 4300 digits"),
        ('{"timestamp": "2024-05-10", "input_length": 1, "output_length": 1}', "timestamp: a number"),
        ('{"timestamp": true, "input_length": 1, "output_length": 1}', "timestamp: a number"),
        ('{"timestamp": 1, "input_length": 1000000000, "output_length": 1}', "input_length: a number is expected"),
        ('{"timestamp": 1, "input_length": 1, "output_length": -4}', "output_length: a number is expected"),
        ('{"timestamp": 1, "input_length": 1.5, "output_length": 1}', "input_length: a number is expected"),
        ('{"timestamp": 1, "input_length": 1e999, "output_length": 1}', "input_length: a number is expected"),
        ('{"delay": 1, "input_length": 1, "output_length": 1}', "lacks timestamp; found: delay, input_length"),
        ("[" * 100_000, "nested more than 64 levels"),
        ("[1, 2]", "found: a list"),
        ("null", "found: null"),
        ('{"a": "\xff', "not UTF-8"),
        ("\0", "not JSON"),
        (json.dumps({f"{'k' * 60}{number}": 1 for number in range(500)}), "..."),
    ],
    ids=lambda text: text[:40],
)
def test_a_line_that_cannot_be_used_is_refused_with_its_number(tmp_path: Path, row: str, expected: str) -> None:
    good = '{"timestamp": 0, "input_length": 1, "output_length": 1}'
    (tmp_path / "t").write_bytes(f"{good}\r\n\n{row}\n".encode("latin-1"))
    message = refusal(tmp_path / "t", "mooncake")
    assert "t:3: " in message
    assert expected in message


@pytest.mark.parametrize(
    ("head", "row", "expected"),
    [
        (BURSTGPT, "inf,a,1,1", "row 2: Timestamp: a finite time"),
        (BURSTGPT, "1,a,1000000000,1", "row 2: Request tokens: a whole number of tokens from 0 to 10000000"),
        (BURSTGPT, "1,a,1,-1", "row 2: Response tokens"),
        (BURSTGPT, "1,a,inf,1", "row 2: Request tokens"),
        (BURSTGPT, "1,a,1.5,1", "row 2: Request tokens"),
        (BURSTGPT, "-1,a,1,1", "Timestamp -1: from 0 up"),
        (AZURE, "2023-11-16 18:15:46,1e18,1", "row 2: ContextTokens"),
        (AZURE, "2023-11-16 18:15:46,1,1,1", "Expected 3 columns, got 4"),
        (f"{AZURE},TIMESTAMP", "2023-11-16 18:15:46,1,1,1", "has the column TIMESTAMP 2 times"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused_with_its_number(
    tmp_path: Path, head: str, row: str, expected: str
) -> None:
    good = "5,a,1,1" if head == BURSTGPT else "2023-11-16 18:15:40,1,1" + ",2023" * head.count(",TIMESTAMP")
    kind = "burstgpt" if head == BURSTGPT else "azure"
    assert expected in refusal(csv(tmp_path / "t", head, good, row), kind)


def test_rows_without_a_time_are_counted(tmp_path: Path) -> None:
    path = csv(tmp_path / "t", BURSTGPT, "5,a,1,1", ",a,1,1", "nan,a,1,1", "9,a,1,1")
    assert seconds(path, "burstgpt") == [0.0, 4.0]
    assert notes(path, "burstgpt") == [f"windows.w.arrival: 2 rows of {path} without a time are left out"]


def test_a_trace_that_is_not_in_order_is_read_whole(tmp_path: Path) -> None:
    path = timed(tmp_path / "t", [0, 500_000, 1000, 2000])
    assert seconds(path, "mooncake", duration_s=60) == [0.0, 1.0, 2.0]
    times = [*range(0, 100_000_000, 20_000)]
    path = timed(tmp_path / "t", [*times[::2], *times[1::2]])
    assert seconds(path, "mooncake", duration_s=101) == [float(at_s) for at_s in range(0, 101, 20)]
    rows = [f"{at_s % 90_000},a,1,1" for at_s in range(0, 90_000 * 7, 7)]
    path = csv(tmp_path / "t", BURSTGPT, *rows)
    assert seconds(path, "burstgpt", duration_s=5) == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_a_trace_in_order_is_read_little_further_than_the_cells_end(tmp_path: Path) -> None:
    path = timed(tmp_path / "t", [*range(0, 24_000_000, 1000)])
    with path.open("a") as file:
        file.write("\nbroken")
    assert len(seconds(path, "mooncake", duration_s=60)) == 60
    assert "t:24001: not JSON" in refusal(path, "mooncake", start_s=20_000)


def test_a_line_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference_energy.contracts.outside.read_lines.__defaults__", (1000, None))
    path = jsonl(tmp_path / "t", [{}, {"hash_ids": [*range(1000)]}])
    assert "t:2: a line longer than" in refusal(path, "mooncake")
    (tmp_path / "t").write_text("x" * (2 << 20))
    assert "t:1: a line longer than 1 MiB" in refusal(path, "azure")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
@pytest.mark.parametrize("kind", ["azure", "burstgpt", "mooncake", "bailian"])
def test_a_name_that_cannot_be_one_is_refused(tmp_path: Path, kind: str, name: str) -> None:
    assert "cannot be read" in refusal(tmp_path / name, kind)
