"""A schedule file is replayed as it is, with its own prompts or with new ones of the same lengths."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.plan.plan_factory import WORDS, cell, plan

from inference_energy.config.load.workload import Workload
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.errors import InputError
from inference_energy.plan.cells import Cell, plan_files
from inference_energy.plan.tables import write_plan

CLOSED = {
    "process": "closed",
    "concurrency": 3,
    "pool": 7,
    "stagger_s": 1.0,
    "think": {"distribution": "exponential", "mean_s": 2},
}
CHATS = {"api": "chat", "prompts": WORDS, "conversations": {"turns": {"distribution": "fixed", "turns": 3}}}


def recorded(folder: Path, *cells: Cell, seed: int = 5) -> tuple[Path, Path]:
    prompts, schedule = plan(*cells, seed=seed)
    write_plan(folder / "p.parquet", [prompts], PROMPTS, {})
    write_plan(folder / "s.parquet", [schedule], SCHEDULE, {})
    return folder / "p.parquet", folder / "s.parquet"


def replay(path: Path, **keys: Any) -> dict[str, Any]:
    return {"process": "schedule", "path": str(path), **keys}


@pytest.mark.parametrize(
    "original",
    [
        cell("a"),
        cell("a", arrival=CLOSED, duration_s=1.0),
        cell("a", **CHATS),
        cell("a", output_length={"distribution": "uniform", "minimum": 1, "maximum": 9}, ignore_eos=True),
    ],
    ids=["open", "closed", "conversations", "lengths"],
)
def test_with_its_prompts_a_schedule_comes_out_as_it_was(tmp_path: Path, original: Cell) -> None:
    prompts, schedule = recorded(tmp_path, cell("before"), original)
    api = original.workload.api
    again = cell("b", arrival=replay(schedule, cell="a", prompts=str(prompts)), api=api, prompts=WORDS)
    new_prompts, new = plan(again, seed=77)
    old = pq.read_table(schedule).filter(pq.read_table(schedule)["cell"].to_numpy(zero_copy_only=False) == "a")
    same = ("arrival_ns", "user", "turn", "think_ns", "prompt_tokens", "max_tokens")
    assert [new[name].to_pylist() for name in same] == [old[name].to_pylist() for name in same]
    contents = {row["prompt_id"]: row for row in pq.read_table(prompts).to_pylist()}
    for old_id, row in zip(old["prompt_id"].to_pylist(), new_prompts.to_pylist(), strict=True):
        for name in ("token_ids", "text", "messages", "group", "answer"):
            assert row[name] == contents[old_id][name]


def test_without_them_new_prompts_have_the_lengths(tmp_path: Path) -> None:
    _, schedule = recorded(tmp_path, cell("a"))
    prompts, new = plan(cell("b", arrival=replay(schedule)), seed=77)
    old = pq.read_table(schedule)
    assert new["prompt_tokens"].to_pylist() == old["prompt_tokens"].to_pylist()
    assert [len(ids) for ids in prompts["token_ids"].to_pylist()] == old["prompt_tokens"].to_pylist()


def test_requests_that_shared_a_prompt_share_it_again(tmp_path: Path) -> None:
    text = tmp_path / "prompts.txt"
    text.write_text("one\ntwo\nthree\n")
    _, schedule = recorded(tmp_path, cell("a", prompts={"source": "file", "path": str(text)}))
    prompts, new = plan(cell("b", arrival=replay(schedule)), seed=3)
    assert prompts.num_rows == 3
    old_ids, new_ids = pq.read_table(schedule)["prompt_id"].to_pylist(), new["prompt_id"].to_pylist()
    assert len(set(zip(old_ids, new_ids, strict=True))) == 3


def test_what_begins_after_the_cells_end_is_left_out(tmp_path: Path) -> None:
    _, schedule = recorded(tmp_path, cell("a", **CHATS))
    kept = plan(cell("b", arrival=replay(schedule), duration_s=5.0, api="chat", prompts=WORDS))[1]
    old = pq.read_table(schedule).to_pylist()
    begins = {row["conversation"]: row["arrival_ns"] for row in old if row["turn"] == 0}
    expected = [row for row in old if begins[row["conversation"]] < 5e9]
    assert 0 < len(expected) < len(old)
    assert kept["turn"].to_pylist() == [row["turn"] for row in expected]


def test_a_csv_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("arrival_s,prompt_tokens,max_tokens,remark\n0.5,10,3,a\n0.25,20,4,b\n")
    prompts, schedule = plan(cell(arrival=replay(path)))
    assert schedule.select(["arrival_ns", "prompt_tokens", "max_tokens"]).to_pylist() == [
        {"arrival_ns": 250_000_000, "prompt_tokens": 20, "max_tokens": 4},
        {"arrival_ns": 500_000_000, "prompt_tokens": 10, "max_tokens": 3},
    ]
    assert [len(ids) for ids in prompts["token_ids"].to_pylist()] == [20, 10]
    path.write_text("arrival_s\n0\n1\n")
    assert plan(cell(arrival=replay(path), max_tokens=9))[1]["max_tokens"].to_pylist() == [9, 9]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("time\n1\n", ["lacks the column arrival_s", "found: time"]),
        ("arrival_s\n-1\n", ["arrival_s must be 0 or more"]),
        ("arrival_s,max_tokens\n1,0\n", ["max_tokens must be"]),
        ("arrival_s\n99\n", ["no request in the first 60 s"]),
    ],
)
def test_a_wrong_csv_is_refused(tmp_path: Path, content: str, expected: list[str]) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        plan(cell(arrival=replay(path)))
    for part in ["windows.w.arrival.path", *expected]:
        assert part in str(caught.value)


def test_which_cell_must_be_said_where_there_are_several(tmp_path: Path) -> None:
    prompts, schedule = recorded(tmp_path, cell("a"), cell("b"))
    with pytest.raises(InputError, match=r"windows\.w\.arrival\.cell: .*there are: a, b"):
        plan(cell(arrival=replay(schedule)))
    with pytest.raises(InputError, match="lacks the column"):
        plan(cell(arrival=replay(prompts)))
    (tmp_path / "other").mkdir()
    others, _ = recorded(tmp_path / "other", cell("a", duration_s=1.0))
    with pytest.raises(InputError, match=r"arrival\.prompts: .*lacks prompt"):
        plan(cell(arrival=replay(schedule, cell="b", prompts=str(others))))


def test_lengths_need_synthetic_prompts(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("arrival_s,prompt_tokens\n0,10\n")
    text = tmp_path / "prompts.txt"
    text.write_text("one\n")
    with pytest.raises(InputError, match=r"windows\.w\.arrival\.path: .*synthetic"):
        plan(cell(arrival=replay(path), prompts={"source": "file", "path": str(text)}))


def test_every_file_of_a_plan_is_an_input(tmp_path: Path) -> None:
    lengths = {"distribution": "empirical", "path": "l.txt"}
    cells = [
        cell("a", arrival=replay(Path("s.parquet"), prompts="p.parquet")),
        cell("b", prompts={"source": "sharegpt", "path": "s.json"}),
        cell(
            "c",
            prompts={"source": "synthetic", "length": lengths},
            ignore_eos=True,
            output_length={**lengths, "path": "o.txt"},
        ),
        cell("d", arrival={"process": "trace", "format": "azure", "path": "t.csv"}),
        cell("e"),
    ]
    assert plan_files(cells) == ["l.txt", "o.txt", "p.parquet", "s.json", "s.parquet", "t.csv"]
    assert isinstance(cells[0].workload, Workload)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("arrival_s\n0\n1e30\n", "arrival_s must be 0 or more, at most 31536000, in every row; row 2 has 1e+30"),
        ("arrival_s\n1700000000\n", "row 1 has 1.7e+09"),
        ("arrival_s\ninf\n", "row 1 has inf"),
        ("arrival_s,x\nnan,1\n", "row 1 has none"),
        ("arrival_s,x\n1,1\n,1\n", "row 2 has none"),
        ("arrival_s,max_tokens\n1,1000000000\n", "max_tokens must be a whole number from 1 up, at most 10000000"),
        ("arrival_s,prompt_tokens\n1,\n", "row 1 has none"),
        (f"arrival_s,prompt_tokens\n1,{10**30}\n", "conversion error to int64"),
        ("arrival_s,prompt_tokens\n1,1.5\n", "conversion error to int64"),
        ("arrival_s,arrival_s\n1,2\n", "has the column arrival_s 2 times"),
        ("arrival_s\n1,2\n", "Expected 1 columns, got 2"),
        ("x" * (2 << 20), "a line longer than 1 MiB"),
        ("\0", "lacks the column arrival_s"),
    ],
    ids=lambda text: text[:40],
)
def test_values_that_cannot_be_in_a_csv_are_refused_with_their_row(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        plan(cell(arrival=replay(path)))
    assert str(caught.value).startswith("windows.w.arrival.path: ")
    assert expected in str(caught.value)


def changed(path: Path, **columns: list[Any]) -> Path:
    """A file with its first rows' values replaced, of whatever type they are."""
    table = pq.read_table(path)
    for name, values in columns.items():
        index = table.column_names.index(name)
        table = table.slice(0, len(values)).set_column(index, name, pa.array(values))
    changed_path = path.with_name(f"changed-{path.name}")
    pq.write_table(table, changed_path)
    return changed_path


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("arrival_ns", [-5], "arrival_ns: a number from 0 to"),
        ("arrival_ns", [2**62], "arrival_ns: a number from 0 to"),
        ("arrival_ns", ["soon"], "is no schedule"),
        ("max_tokens", [0], "max_tokens: a number from 1 to 10000000 is expected, got 0"),
        ("max_tokens", [None], "got none"),
        ("prompt_tokens", [10**9], "prompt_tokens: a number from 1 to 10000000"),
        ("prompt_id", [None], "prompt_id: a number from 0"),
        ("conversation", [2**63 - 1], "conversation: a number from 0"),
        ("user", [-1], "user: a number from 0"),
        ("salt", [[1]], "is no schedule"),
    ],
)
def test_values_that_cannot_be_in_a_schedule_are_refused(
    tmp_path: Path, name: str, values: list[Any], expected: str
) -> None:
    _, schedule = recorded(tmp_path, cell("a"))
    with pytest.raises(InputError) as caught:
        plan(cell("b", arrival=replay(changed(schedule, **{name: values}))))
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"token_ids": [None]}, "row 1: exactly one of text, token_ids and messages"),
        ({"text": ["x"]}, "row 1: exactly one of"),
        ({"token_ids": [[-1]]}, "token_ids: whole numbers from 0 up"),
        ({"token_ids": [[2**40]]}, "holds no prompts"),
        ({"token_ids": [["a"]]}, "holds no prompts"),
        ({"prompt_id": [None]}, "prompt_id: a number"),
        ({"token_ids": [None], "messages": ["[" * 5000]}, "row 1: messages: nested more than"),
        ({"token_ids": [None], "messages": ['{"a": 1}']}, "row 1: messages: a list of objects"),
    ],
)
def test_values_that_cannot_be_in_prompts_are_refused(
    tmp_path: Path, columns: dict[str, list[Any]], expected: str
) -> None:
    prompts, schedule = recorded(tmp_path, cell("a", duration_s=1.0))
    with pytest.raises(InputError) as caught:
        plan(cell("b", arrival=replay(schedule, prompts=str(changed(prompts, **columns)))))
    assert "windows.b.arrival.prompts: " in str(caught.value)
    assert expected in str(caught.value)


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "a\0b.csv", f"{'x' * 300}.csv", "folder"])
def test_a_name_that_cannot_be_one_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"windows\.w\.arrival\.path: .*(cannot be read|lacks the column)"):
        plan(cell(arrival=replay(tmp_path / name)))
