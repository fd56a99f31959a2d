"""A load from Python: the same plan, files and summary as of `load-test`."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from inference_energy import LoadTest, plan_load, run_load
from inference_energy.errors import InputError


def load(endpoint: str, folder: Path, **settings: object) -> LoadTest:
    return LoadTest.model_validate(
        {
            "endpoints": [endpoint],
            "model": "stub",
            "output": folder / "requests.parquet",
            "duration_s": 2,
            "workload": {"prompts": {"source": "synthetic", "form": "words"}, "max_tokens": 5},
            "arrival": {"process": "constant", "rate_qps": 10},
            **settings,
        }
    )


def test_a_load_is_sent_and_summed_up(stub_endpoint: Callable[..., str], tmp_path: Path) -> None:
    summary = run_load(load(stub_endpoint(tokens_per_s=100), tmp_path))
    assert summary.requests.ok == len(pd.read_parquet(tmp_path / "requests.parquet")) == 20
    assert summary.figures["offered_requests_per_s"].value == 10


def test_an_error_names_the_key(tmp_path: Path) -> None:
    absent = {"prompts": {"source": "file", "path": "absent.txt"}}
    with pytest.raises(InputError, match=r"prompts\.path: absent\.txt cannot be read"):
        plan_load(load("http://127.0.0.1:9", tmp_path, workload=absent))


def test_a_plan_says_what_it_holds_and_sends_nothing(tmp_path: Path) -> None:
    test = load("http://127.0.0.1:9", tmp_path)
    plan = plan_load(test)
    assert len(pd.read_parquet(tmp_path / "schedule.parquet")) == plan.plan.requests == 20
    assert not test.output.exists()
    with pytest.raises(InputError, match=r"plan_only: .*plan_load"):
        run_load(load("http://127.0.0.1:9", tmp_path, plan_only=True))
