"""What a run takes is told before it begins."""

import copy
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from inference_energy.cli.main import app
from inference_energy.config.loader import read_merged, validate
from inference_energy.stages.run_estimate import PAGES_BYTES, disk_shortage, duration_text, estimate_run, size_text

ROOT = Path(__file__).parents[2]
RAW: dict[str, Any] = yaml.safe_load((ROOT / "config.yaml").read_text())


def test_durations_are_those_of_the_configuration() -> None:
    expected = estimate_run(validate(RAW))
    loads_s = 15 + 78 + 78 + 25 + 25 + 25
    idle_s = 20 + 15 + 15 + 2 * 3
    assert expected.duration_s == pytest.approx(loads_s + idle_s + 6 * 5 + 60 + 5)
    protocol = estimate_run(read_merged([ROOT / "config.yaml", ROOT / "config/protocol.yaml"]))
    assert 40 * 60 < protocol.duration_s < 60 * 60


def test_the_baseline_of_a_server_counts_once_and_an_attached_one_has_none() -> None:
    raw = copy.deepcopy(RAW)
    raw["sessions"]["again"] = {"server": "vllm", "windows": ["low"]}
    raw["run"] = ["main", "again"]
    both = estimate_run(validate(raw))
    raw["run"] = ["again", "main"]
    assert estimate_run(validate(raw)).duration_s == pytest.approx(both.duration_s)
    raw["servers"]["vllm"] = {"mode": "attach", "endpoint": "http://127.0.0.1:1"}
    for workload in raw["workloads"].values():
        workload["prompts"]["form"] = "words"
    assert estimate_run(validate(raw)).duration_s < both.duration_s - raw["idle"]["cold_s"]


def test_data_grow_with_requests_kept_answers_and_prompts() -> None:
    small = estimate_run(validate(RAW)).data_bytes
    raw = copy.deepcopy(RAW)
    raw["windows"]["low"]["arrival"]["rate_qps"] = 1000
    many = estimate_run(validate(raw)).data_bytes
    raw["workloads"]["chat"] |= {"keep_answers": True, "chunk_times": True}
    kept = estimate_run(validate(raw)).data_bytes
    assert PAGES_BYTES < small < 100e6
    assert many > small + 78_000 * 100
    assert kept > many + 78_000 * 32


def test_requests_of_a_file_are_left_out_and_said(tmp_path: Path) -> None:
    raw = copy.deepcopy(RAW)
    raw["windows"]["low"]["arrival"] = {"process": "trace", "format": "azure", "path": "t.csv"}
    assert estimate_run(validate(raw)).replayed == ("windows.low",)


@pytest.mark.parametrize(("free_bytes", "said"), [(5e6, "only 5 MB are free"), (1e9, None)])
def test_a_disk_with_too_little_room_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_bytes: float, said: str | None
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free_bytes))
    shortage = disk_shortage(estimate_run(validate(RAW)), tmp_path)
    assert shortage is None if said is None else said in str(shortage)


def test_durations_and_sizes_are_readable() -> None:
    assert [duration_text(value) for value in (45, 420, 12000, 2 * 86400 + 10800)] == [
        "45 s",
        "7 min",
        "3 h 20 min",
        "2 days 3 h",
    ]
    assert [size_text(value) for value in (1e3, 28e6, 1.84e9)] == ["1 MB", "28 MB", "1.8 GB"]


def test_check_says_how_long_the_run_takes_and_how_much_it_writes() -> None:
    result = CliRunner().invoke(app, ["check", "--files-only", str(ROOT / "config.yaml")], catch_exceptions=False)
    assert result.exit_code == 0
    assert "7 min of measuring" in result.output
    assert "MB of results" in result.output
    assert result.output.splitlines()[-1] == "default: nothing wrong was found in the files"
