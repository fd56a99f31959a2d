"""Workers share a schedule exactly, whatever it holds and however many they are."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.load.plans import Row, row, write_plan

from inference_energy.acquire.load.http.request import PlannedRequest
from inference_energy.acquire.load.schedule_partition import SchedulePartition, check_plan
from inference_energy.errors import InputError

APIS = {"a": "completions", "b": "completions"}
PROMPTS = [{"token_ids": [1, 2]}, {"text": 'say "hé"'}]


@st.composite
def schedules(draw: st.DrawFn) -> list[Row]:
    """Cells of single requests, conversations and users, mixed; ids with gaps."""
    rows: list[Row] = []
    for name in APIS:
        closed = draw(st.booleans())
        arrival_ns = 0
        for unit in range(draw(st.integers(0, 12))):
            arrival_ns += draw(st.integers(0, 5)) * 1_000_000
            turns = draw(st.integers(1, 3))
            for turn in range(turns):
                values: Row = {"cell": name, "prompt_id": draw(st.integers(0, 1)), "think_ns": turn}
                if turns > 1:
                    values |= {"conversation": 7 * unit, "turn": turn}
                if closed:
                    values["user"] = unit % 5
                elif turn == 0:
                    values["arrival_ns"] = arrival_ns
                rows.append(row(draw(st.integers(0, 3)) + 4 * len(rows), **values))
    return rows


def units(share: SchedulePartition) -> list[tuple[str, list[PlannedRequest]]]:
    return [
        (name, turns)
        for name, load in share.cells.items()
        for turns in [*load.arrivals, *(turns for own in load.users.values() for turns in own)]
    ]


@settings(max_examples=60)
@given(rows=schedules(), workers=st.integers(1, 5))
def test_the_union_is_the_schedule_and_what_belongs_together_stays_together(rows: list[Row], workers: int) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_plan(folder, rows, PROMPTS)
        shares = [
            SchedulePartition(folder / "schedule.parquet", folder / "prompts.parquet", APIS, worker, workers)
            for worker in range(workers)
        ]
    given_to: dict[int, int] = {}
    for worker, share in enumerate(shares):
        for cell, turns in units(share):
            for request in turns:
                assert request.request_id not in given_to, "sent twice"
                given_to[request.request_id] = worker
                assert request.cell == cell
                assert request.prompt == (b"[1,2]" if request.prompt_id == 0 else '"say \\"hé\\""'.encode())
            assert len({request.conversation for request in turns}) == 1
            assert [request.turn for request in turns] in ([None], list(range(len(turns))))
        assert share.first_id == max((one["request_id"] for one in rows), default=-1) + 1
    assert set(given_to) == {one["request_id"] for one in rows}
    for key in ("user", "conversation"):
        owners: dict[tuple[str, int], set[int]] = {}
        for one in rows:
            if one.get(key) is not None:
                owners.setdefault((one["cell"], one[key]), set()).add(given_to[one["request_id"]])
        assert all(len(workers_of_it) == 1 for workers_of_it in owners.values())


@settings(max_examples=20)
@given(rows=schedules())
def test_arrivals_are_in_order_and_users_keep_theirs(rows: list[Row]) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_plan(folder, rows, PROMPTS)
        share = SchedulePartition(folder / "schedule.parquet", folder / "prompts.parquet", APIS, 0, 1)
    for name, load in share.cells.items():
        due_ns = [turns[0].arrival_ns for turns in load.arrivals]
        assert due_ns == sorted(due_ns)
        for user, own in load.users.items():
            ids = [request.request_id for turns in own for request in turns]
            assert ids == [one["request_id"] for one in rows if one["cell"] == name and one.get("user") == user]


def test_cells_that_are_not_asked_for_are_left_out(tmp_path: Path) -> None:
    write_plan(tmp_path, [row(0, cell="a", arrival_ns=0), row(9, cell="other", arrival_ns=0)], PROMPTS)
    share = SchedulePartition(tmp_path / "schedule.parquet", tmp_path / "prompts.parquet", APIS, 0, 1)
    assert [request.request_id for _, turns in units(share) for request in turns] == [0]
    assert share.first_id == 10


def test_a_prompt_that_is_missing_or_does_not_fit_is_named(tmp_path: Path) -> None:
    files = tmp_path / "schedule.parquet", tmp_path / "prompts.parquet"
    write_plan(tmp_path, [row(0, cell="a", prompt_id=5, arrival_ns=0)], PROMPTS)
    with pytest.raises(InputError, match="prompt 5"):
        SchedulePartition(*files, APIS, 0, 1)
    write_plan(tmp_path, [row(0, cell="a", arrival_ns=0)], PROMPTS)
    with pytest.raises(InputError, match="token ids"):
        SchedulePartition(*files, {"a": "chat"}, 0, 1)


def test_a_plan_that_is_none_is_refused(tmp_path: Path) -> None:
    schedule, prompts = tmp_path / "schedule.parquet", tmp_path / "prompts.parquet"
    with pytest.raises(InputError, match="no such file"):
        check_plan(schedule, prompts)
    write_plan(tmp_path, [row(0)])
    check_plan(schedule, prompts)
    with pytest.raises(InputError, match="lacks the column"):
        check_plan(prompts, schedule)
    schedule.write_text("no table")
    with pytest.raises(InputError, match="Parquet"):
        check_plan(schedule, prompts)
