"""Prompts and schedules: lengths, order, and what a change leaves alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from inference_energy.config.load import Workload
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.contracts.tables import read_table, write_table
from inference_energy.errors import InputError, RunError
from inference_energy.plan.cells import Cell
from inference_energy.plan.prompts import make_prompts
from inference_energy.plan.schedule import make_schedule

NORMAL = {"source": "synthetic", "length": {"distribution": "normal", "mean": 256, "std": 64, "maximum": 512}}


def cell(name: str = "w", prompts: dict[str, Any] = NORMAL, arrival: dict[str, Any] | None = None) -> Cell:
    workload = Workload.model_validate({"prompts": prompts, "max_tokens": 32})
    arrival = arrival or {"process": "poisson", "rate_qps": 20}
    return Cell.from_dict(
        {
            "name": name,
            "kind": "steady",
            "workload_name": "chat",
            "workload": workload.model_dump(),
            "arrival": arrival,
            "duration_s": 60.0,
        }
    )


def test_lengths_follow_the_distribution() -> None:
    counts = [len(ids) for ids in make_prompts([cell()], 1, 32000)["token_ids"]]
    assert abs(np.mean(counts) - 256) < 5 * 64 / np.sqrt(len(counts))
    assert 50 < np.std(counts) < 78
    assert max(counts) <= 512


def test_token_ids_lie_in_the_vocabulary() -> None:
    ids = np.concatenate(make_prompts([cell()], 1, 5000)["token_ids"])
    assert ids.min() >= 1000
    assert ids.max() < 5000
    assert np.concatenate(make_prompts([cell()], 1, 300)["token_ids"]).max() < 300


def test_no_vocabulary_no_token_ids() -> None:
    with pytest.raises(InputError, match=r"workloads\.chat\.prompts\.form.*words"):
        make_prompts([cell()], 1, None)
    words = make_prompts([cell(prompts=NORMAL | {"form": "words"})], 1, None)
    assert words["text"].str.split().str.len().mean() == pytest.approx(256, abs=15)


def test_a_file_uses_every_prompt_before_one_again(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\n\n two \nthree\n")
    made = make_prompts([cell(prompts={"source": "file", "path": str(path)})], 1, None)["text"].tolist()
    assert len(made) > 100
    for start in range(0, len(made) - 3, 3):
        assert sorted(made[start : start + 3]) == ["one", "three", "two"]


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_or_missing_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "prompts.txt"
    with pytest.raises(InputError, match=r"workloads\.chat\.prompts\.path.*cannot be read"):
        make_prompts([cell(prompts={"source": "file", "path": str(path)})], 1, None)
    path.write_text(content)
    with pytest.raises(InputError, match="holds no prompt"):
        make_prompts([cell(prompts={"source": "file", "path": str(path)})], 1, None)


def test_another_window_changes_none_of_the_others() -> None:
    alone = make_prompts([cell("a")], 1, 32000)
    both = make_prompts([cell("b"), cell("a")], 1, 32000)
    assert both["token_ids"].tolist()[-len(alone) :] == alone["token_ids"].tolist()
    schedule = make_schedule([cell("b"), cell("a")], 1, both)
    same = schedule[schedule["cell"] == "a"]["arrival_ns"].tolist()
    assert same == make_schedule([cell("a")], 1, alone)["arrival_ns"].tolist()


def test_the_schedule_matches_its_prompts_and_survives_parquet(tmp_path: Path) -> None:
    closed = cell("c", arrival={"process": "closed", "concurrency": 2, "pool": 7})
    cells = [cell("a"), closed]
    prompts = make_prompts(cells, 1, 32000)
    write_table(tmp_path / "p.parquet", prompts, PROMPTS)
    schedule = make_schedule(cells, 1, read_table(tmp_path / "p.parquet", PROMPTS))
    write_table(tmp_path / "s.parquet", schedule, SCHEDULE)
    read = read_table(tmp_path / "s.parquet", SCHEDULE)
    assert read["request_id"].tolist() == list(range(len(prompts)))
    assert read["prompt_tokens"].tolist() == [len(ids) for ids in prompts["token_ids"]]
    assert read[read["cell"] == "c"]["arrival_ns"].isna().sum() == 7
    assert read[read["cell"] == "a"]["arrival_ns"].notna().all()


@pytest.mark.parametrize("form", ["words", "token_ids"])
def test_prompts_survive_parquet(tmp_path: Path, form: str) -> None:
    made = make_prompts([cell(prompts=NORMAL | {"form": form})], 1, 32000)
    write_table(tmp_path / "p.parquet", made, PROMPTS)
    read = read_table(tmp_path / "p.parquet", PROMPTS)
    texts = [None if pd.isna(text) else text for text in made["text"]]
    assert [None if pd.isna(text) else text for text in read["text"]] == texts
    assert (None in texts) == (form == "token_ids")
    ids = [None if row is None else list(row) for row in read["token_ids"]]
    assert ids == [list(row) if form == "token_ids" else None for row in made["token_ids"]]


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_table(tmp_path / name, make_prompts([cell()], 5, 32000), PROMPTS)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_prompts_of_other_cells_are_refused() -> None:
    prompts = make_prompts([cell("a")], 1, 32000)
    with pytest.raises(RunError, match="prompts for"):
        make_schedule([cell("a"), cell("b")], 1, prompts)
