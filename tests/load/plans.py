"""Plans for tests, and a load test on an endpoint."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from inference_energy.acquire.load.request_log import merge_request_logs
from inference_energy.acquire.load.settings import CellSettings, LoadSpec
from inference_energy.acquire.load.standalone import CELL, LoadRun, LoadRunResult, run_plan
from inference_energy.acquire.load.worker_pool import WorkerPool
from inference_energy.config.load.client import ClientConfig
from inference_energy.contracts.io import read_table, write_table
from inference_energy.contracts.load_client import WorkloadSettings
from inference_energy.contracts.requests import SCHEMA
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE

Row = dict[str, Any]


def row(number: int, **values: Any) -> Row:
    """A row of a schedule: one single request of the first prompt, unless said otherwise."""
    return {"request_id": number, "cell": CELL, "prompt_id": 0, "max_tokens": 5, "salt": False, **values}


def open_rows(count: int, gap_s: float, **values: Any) -> list[Row]:
    """Requests at even distances."""
    return [row(number, arrival_ns=round(number * gap_s * 1e9), **values) for number in range(count)]


def closed_rows(count: int, users: int, **values: Any) -> list[Row]:
    """Requests dealt out to users."""
    return [row(number, user=number % users, **values) for number in range(count)]


def write_plan(folder: Path, rows: Sequence[Row], prompts: Sequence[Row] = ({"token_ids": [1, 2, 3]},)) -> None:
    """Write a plan's files; a prompt's id is its place."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = [{"prompt_id": number, "workload": "w", **prompt} for number, prompt in enumerate(prompts)]
    write_table(folder / "prompts.parquet", contents, PROMPTS)
    write_table(folder / "schedule.parquet", list(rows), SCHEDULE)


def settings(endpoint: str, duration_s: float, workload: Row | None = None, **client: Any) -> LoadRun:
    """A load test on a stub server; `client` are settings of the client."""
    return LoadRun(
        endpoints=(endpoint,),
        model="stub",
        workload=WorkloadSettings(**{"ignore_eos": True, **(workload or {})}),
        client=ClientConfig(**{"request_timeout_s": 20.0, "drain_s": 10.0, **client}),
        duration_s=duration_s,
    )


async def run_cells(
    endpoint: str, model: str, folder: Path, cells: Mapping[str, tuple[float, Row]], **client: Any
) -> pd.DataFrame:
    """Run cells (duration [s] and settings of the workload) of a plan in a folder, one after another."""
    async with WorkerPool(load_spec(endpoint, model, folder, cells, **client)) as pool:
        for name in cells:
            await pool.run_cell(name)
    return logged(folder)


def load_spec(
    endpoint: str, model: str, folder: Path, cells: Mapping[str, tuple[float, Row]], **client: Any
) -> LoadSpec:
    """The spec of a pool for a plan in a folder."""
    return LoadSpec.from_config(
        ClientConfig(**client),
        None,
        endpoints=(endpoint,),
        model=model,
        cells={
            name: CellSettings(duration_s, WorkloadSettings(**workload))
            for name, (duration_s, workload) in cells.items()
        },
        prompts=folder / "prompts.parquet",
        schedule=folder / "schedule.parquet",
        folder=folder / "load",
    )


def logged(folder: Path) -> pd.DataFrame:
    """What the processes logged."""
    merge_request_logs(folder / "load", folder / "requests.parquet")
    return read_table(folder / "requests.parquet", SCHEMA)


def run(
    endpoint: str,
    folder: Path,
    rows: Sequence[Row],
    duration_s: float,
    prompts: Sequence[Row] = ({"token_ids": [1, 2, 3]},),
    workload: Row | None = None,
    **client: Any,
) -> tuple[pd.DataFrame, LoadRunResult]:
    """Write a plan, run it, and read what was recorded."""
    write_plan(folder, rows, prompts)
    result = asyncio.run(run_plan(folder, settings(endpoint, duration_s, workload, **client)))
    return logged(folder), result
