"""The schedule of a session: its columns, its users, its bytes, and what a change leaves alone."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.plan.plan_factory import WORDS, cell, plan, rows

from inference_energy.contracts.io import read_metadata, read_table
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.errors import InputError, RunError
from inference_energy.plan.cells import Cell
from inference_energy.plan.schedule import make_prompts, make_schedule, session_requests
from inference_energy.plan.stage_configs import PlanConfig
from inference_energy.plan.tables import digests, read_prompts, write_plan

ROOT = Path(__file__).parents[2]
THINK = {"distribution": "exponential", "mean_s": 3.0}
UNIFORM = {"distribution": "uniform", "minimum": 5, "maximum": 50}


def closed(users: int = 3, pool: int = 10, **keys: Any) -> dict[str, Any]:
    return {"process": "closed", "concurrency": users, "pool": pool, **keys}


def test_a_session_survives_its_files(tmp_path: Path) -> None:
    cells = [cell("a"), cell("b", arrival=closed()), cell("c", prompts=WORDS)]
    prompts, schedule = plan(*cells)
    write_plan(tmp_path / "p.parquet", [prompts.slice(0, 100), prompts.slice(100)], PROMPTS, {"x": "y"})
    again = make_schedule(session_requests(cells, 1), read_prompts(tmp_path / "p.parquet"))
    assert again.equals(schedule)
    write_plan(tmp_path / "s.parquet", [schedule], SCHEDULE, {})
    assert pq.read_table(tmp_path / "s.parquet").equals(schedule)
    read = read_table(tmp_path / "s.parquet", SCHEDULE)
    assert read["request_id"].tolist() == list(range(schedule.num_rows))
    assert read["cell"].unique().tolist() == ["a", "b", "c"]
    assert read_metadata(tmp_path / "p.parquet") == {"version": 1, "sources": {"x": "y"}}
    assert not list(tmp_path.glob("*.partial"))


def test_exactly_one_content_is_set_and_the_others_are_null_not_nan(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "x"}\n{"messages": [{"role": "user", "content": "y"}]}')
    files = {"source": "jsonl", "path": str(tmp_path / "p.jsonl")}
    prompts, _ = plan(cell("a"), cell("b", prompts=WORDS), cell("c", prompts=files, api="chat"))
    kinds = set()
    for row in rows(prompts, ["token_ids", "text", "messages"]):
        kinds.add(tuple(type(value).__name__ for value in row))
    assert kinds == {
        ("list", "NoneType", "NoneType"),
        ("NoneType", "str", "NoneType"),
        ("NoneType", "NoneType", "str"),
    }
    frame = prompts.to_pandas()
    assert frame["text"][frame["token_ids"].notna()].isna().all()


def test_users_of_a_closed_loop_take_prompts_in_turn() -> None:
    schedule = plan(cell(arrival=closed(3, 10)))[1]
    assert schedule["user"].to_pylist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert set(schedule["arrival_ns"].to_pylist()) == {None}
    assert set(schedule["think_ns"].to_pylist()) == {0}
    assert set(schedule["turn"].to_pylist()) == {None}


def test_every_user_has_a_prompt_of_its_own() -> None:
    assert plan(cell(arrival=closed(40, 10)))[1]["user"].to_pylist() == list(range(40))


def test_users_begin_evenly_and_then_think() -> None:
    schedule = plan(cell(arrival=closed(4, 4000, stagger_s=8.0, think=THINK)))[1]
    think_s = np.array(schedule["think_ns"].to_pylist()) / 1e9
    assert think_s[:4].tolist() == [0, 2, 4, 6]
    assert abs(think_s[4:].mean() - 3) < 4 * 3 / np.sqrt(3996)
    few = plan(cell(arrival=closed(4, 1, think=THINK)))[1]
    assert few["user"].to_pylist() == [0, 1, 2, 3] * 2, "a second request, whose wait is that of a repeated first"


def test_conversations_of_a_closed_loop_belong_to_its_users() -> None:
    conversations = {"turns": {"distribution": "fixed", "turns": 2}, "think": {"distribution": "fixed", "time_s": 1}}
    chats = cell(arrival=closed(2, 4), prompts=WORDS, conversations=conversations, api="chat")
    schedule = plan(chats)[1]
    assert rows(schedule, ["user", "conversation", "turn", "think_ns"]) == [
        (0, 0, 0, 0),
        (0, 0, 1, 10**9),
        (1, 1, 0, 0),
        (1, 1, 1, 10**9),
        (0, 2, 0, 0),
        (0, 2, 1, 10**9),
        (1, 3, 0, 0),
        (1, 3, 1, 10**9),
    ]


def test_answers_have_exact_lengths_if_they_are_drawn() -> None:
    schedule = plan(cell(output_length=UNIFORM, ignore_eos=True))[1]
    assert set(schedule["max_tokens"].to_pylist()) == set(range(5, 51))
    assert set(plan(cell(max_tokens=77))[1]["max_tokens"].to_pylist()) == {77}


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], set[str]]] = {
    "prompt lengths": ({}, {"prompts": {"source": "synthetic", "length": UNIFORM}}, {"prompt_tokens"}),
    "answer lengths": (
        {"output_length": UNIFORM, "ignore_eos": True},
        {"output_length": {**UNIFORM, "maximum": 60}, "ignore_eos": True},
        {"max_tokens"},
    ),
    "think time": (
        {"arrival": closed(think=THINK)},
        {"arrival": closed(think={**THINK, "mean_s": 1.0})},
        {"think_ns"},
    ),
    "rate": ({}, {"arrival": {"process": "poisson", "rate_qps": 20.5}}, {"arrival_ns"}),
    "shared prefix": (
        {},
        {"prompts": {"source": "synthetic", "prefix": {"groups": 2, "tokens": 5}}},
        {"prompt_tokens", "salt"},
    ),
    "form": ({}, {"prompts": {**WORDS, "length": {"distribution": "normal"}}}, {"prompt_tokens"}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_leaves_all_other_draws_alone(change: str) -> None:
    before, after, touched = CHANGES[change]
    first, second = (plan(cell(**keys))[1].to_pydict() for keys in (before, after))
    count = min(len(first["cell"]), len(second["cell"]))
    changed = {name for name in SCHEDULE.names if first[name][:count] != second[name][:count]}
    assert changed == touched


def test_prompt_contents_do_not_depend_on_arrivals_or_answers() -> None:
    first = plan(cell())[0]
    others = [
        cell(arrival={"process": "gamma", "rate_qps": 25, "burstiness": 0.5}),
        cell(output_length=UNIFORM, ignore_eos=True),
        cell(arrival=closed(3, 1000)),
    ]
    for other in others:
        second = plan(other)[0]
        count = min(first.num_rows, second.num_rows)
        assert first.slice(0, 500).equals(second.slice(0, 500))
        assert count > 500


def test_another_window_changes_none_of_the_others() -> None:
    alone_prompts, alone = plan(cell("a"))
    both_prompts, both = plan(cell("b"), cell("a"))
    assert both_prompts["token_ids"].to_pylist()[-alone.num_rows :] == alone_prompts["token_ids"].to_pylist()
    same = ["arrival_ns", "prompt_tokens", "max_tokens"]
    assert rows(both, same)[-alone.num_rows :] == rows(alone, same)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**63),
    rate=st.floats(0.5, 30),
    kind=st.sampled_from(["poisson", "constant"]),
    users=st.integers(1, 20),
    pool=st.integers(1, 50),
)
def test_a_schedule_is_whole(seed: int, rate: float, kind: str, users: int, pool: int) -> None:
    cells = [
        cell("a", arrival={"process": kind, "rate_qps": rate}, duration_s=5.0),
        cell("b", arrival=closed(users, pool), prompts=WORDS),
    ]
    prompts, schedule = plan(*cells, seed=seed)
    assert schedule["request_id"].to_pylist() == list(range(schedule.num_rows))
    assert prompts["prompt_id"].to_pylist() == list(range(prompts.num_rows))
    assert set(schedule["prompt_id"].to_pylist()) == set(range(prompts.num_rows))
    arrivals = [at for at in schedule["arrival_ns"].to_pylist() if at is not None]
    assert arrivals == sorted(arrivals)
    assert all(0 <= at < 5e9 for at in arrivals)
    assert plan(*cells, seed=seed)[1].equals(schedule)


def test_prompts_of_other_cells_are_refused() -> None:
    prompts = make_prompts([cell("a")], 1, 32_000)
    with pytest.raises(RunError, match="prompts where"):
        make_schedule(session_requests([cell("a"), cell("b")], 1), prompts.to_batches())
    with pytest.raises(RunError, match="prompts where"):
        make_schedule(session_requests([cell("a", duration_s=1.0)], 1), prompts.to_batches())


def test_a_file_of_another_kind_is_no_prompts(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "p.parquet")
    with pytest.raises(InputError, match=r"lacks the column\(s\) prompt_id"):
        read_prompts(tmp_path / "p.parquet")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read_prompts(tmp_path / "none.parquet")
    (tmp_path / "x").write_text("abc")
    assert digests([str(tmp_path / "x")]) == {str(tmp_path / "x"): hashlib.sha256(b"abc").hexdigest()}


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    """The commands of the pipeline, under different seeds of Python's own hashes."""
    from inference_energy.contracts.io import write_json

    text = tmp_path / "prompts.txt"
    text.write_text("one\ntwo\n")
    cells: list[Cell] = [
        cell("a", arrival={"process": "gamma", "rate_qps": 50, "burstiness": 0.5}),
        cell("b", arrival=closed(think=THINK), prompts={"source": "synthetic", "prefix": {"groups": 2, "tokens": 9}}),
        cell("c", prompts=WORDS, conversations={}, history="planned", api="chat"),
        cell("d", prompts={"source": "file", "path": str(text)}),
    ]
    spec = PlanConfig(seed=5, cells=cells).model_dump_json()
    write_json(tmp_path / "model.json", {"vocabulary": 32_000})
    made = []
    for run in ("1", "2"):
        folder = tmp_path / run
        folder.mkdir()
        stage = [sys.executable, "-c", "from inference_energy.cli.main import main; main()", "stage"]
        environment = {"PATH": "", "PYTHONHASHSEED": run, "HOSTNAME": f"host-{run}"}
        prompts, schedule = folder / "prompts.parquet", folder / "schedule.parquet"
        for name, inputs, output in (
            ("prompts", ["--model", tmp_path / "model.json"], prompts),
            ("schedule", ["--prompts", prompts], schedule),
        ):
            command = [*stage, name, "--spec", spec, *inputs, "--output", output]
            subprocess.run(command, cwd=ROOT, check=True, env=environment)
        made.append((prompts.read_bytes(), schedule.read_bytes()))
    assert made[0] == made[1]
    assert read_metadata(tmp_path / "1/schedule.parquet")["sources"] == digests([str(text)])
    other = PlanConfig(seed=6, cells=cells).model_dump_json()
    assert other != spec
    assert not plan(*cells, seed=6)[1].equals(pq.read_table(tmp_path / "1/schedule.parquet"))
