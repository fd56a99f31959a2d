"""A session on the stub server, with everything else real: sampler, guardian, client, files."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.conftest import unused_port

from inference_energy.acquire.model_files import write_dummy
from inference_energy.acquire.server.locks import DIRECTORY_VARIABLE
from inference_energy.acquire.session.run import SessionFiles
from inference_energy.acquire.session.settings import SessionSpec
from inference_energy.config.load.client import ClientConfig
from inference_energy.config.load.workload import Workload
from inference_energy.contracts.io import write_json, write_table
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.plan.cells import Cell
from inference_energy.plan.schedule import make_schedule, prompt_tables, session_requests

FAKE_VLLM = Path(__file__).parents[1] / "fake_vllm"
LENGTH = {"distribution": "fixed", "tokens": 12}
OPEN = {"process": "constant", "rate_qps": 10.0}
CLOSED = {"process": "closed", "concurrency": 3, "pool": 5}


def cell(name: str, kind: str, arrival: dict[str, Any], duration_s: float) -> Cell:
    workload = Workload.model_validate({"prompts": {"source": "synthetic", "length": LENGTH}, "max_tokens": 6})
    return Cell.model_validate(
        {
            "name": name,
            "kind": kind,
            "workload_name": "chat",
            "workload": workload.model_dump(),
            "arrival": arrival,
            "duration_s": duration_s,
        }
    )


@pytest.fixture
def make_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[SessionSpec, SessionFiles]]:
    """Makes a session's spec and files; keywords but `workers` are STUB_ variables."""
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))

    def make(workers: int = 1, **stub: object) -> tuple[SessionSpec, SessionFiles]:
        cells = [
            cell("warmup", "warmup", OPEN, 1.0),
            cell("low", "steady", OPEN, 2.0),
            cell("high", "steady", CLOSED, 2.0),
        ]
        model = {"name": "stub", "path": str(write_dummy({"vocab_size": 64}, tmp_path)), "weights": "real"}
        prompts = pa.concat_tables(prompt_tables(cells, 1, 64))
        files = SessionFiles(
            environment=tmp_path / "server_environment.json",
            model=tmp_path / "model.json",
            prompts=tmp_path / "prompts.parquet",
            schedule=tmp_path / "schedule.parquet",
            output=tmp_path / "raw",
            logs=tmp_path / "logs",
        )
        write_json(files.model, model)
        write_json(files.environment, {"command": ["env", f"PYTHONPATH={FAKE_VLLM}", sys.executable]})
        write_table(files.prompts, prompts, PROMPTS)
        planned = session_requests(cells, 1)
        write_table(files.schedule, make_schedule(planned, prompts.to_batches()), SCHEDULE)
        settings = {
            "environment": "container",
            "host": "127.0.0.1",
            "port": unused_port(),
            "interpreter": None,
            "container": None,
            "gpus": "none",
            "back_end": "cpu",
            "arguments": {"max-num-seqs": 8},
            "variables": {f"STUB_{name.upper()}": str(value) for name, value in stub.items()},
            "ready_timeout_s": 30.0,
            "grace_s": 2.0,
        }
        spec = SessionSpec.from_dict(
            {
                "session": "main",
                "machine": "here",
                "server": "stub",
                "mode": "launch",
                "server_settings": settings,
                "power": {"interval_s": 0.1, "sources": ["modelled"], "modelled": {"tdp_w": 50.0, "idle_w": 5.0}},
                "loaded_idle_s": 1.0,
                "post_idle_s": 1.0,
                "settle_s": 0.2,
                "client": ClientConfig(request_timeout_s=10.0, drain_s=5.0, workers=workers).model_dump(),
                "metrics_interval_s": 0.2,
                "cells": [item.model_dump() for item in cells],
            }
        )
        return spec, files

    return make
