"""Prepare a load test in a separate process: check the endpoints, draw the plan, read the servers' token counters."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from inference_energy.acquire.load.settings import workload_settings
from inference_energy.acquire.load.standalone import CELL
from inference_energy.acquire.server.attach import AttachedServer, attach
from inference_energy.acquire.server.metrics import MetricsPoller, compact_metrics_log
from inference_energy.acquire.server.pages import Access
from inference_energy.api.load_test.settings import LoadPlan, LoadTest
from inference_energy.config.load.arrivals import Arrival, ClosedArrival, ScheduleArrival
from inference_energy.config.load.prompts import SyntheticPrompts
from inference_energy.contracts.documents.by_hand import PlanFacts
from inference_energy.contracts.figure import json_values
from inference_energy.contracts.io import clock_anchor, copy_file, read_json, read_table, write_json
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.contracts.server_metrics import ON_CHANGE, SCHEMA
from inference_energy.errors import Notice
from inference_energy.plan.cells import WARMUP, Cell, plan_files
from inference_energy.plan.prompts.registry import prompt_source
from inference_energy.plan.schedule import make_schedule, prompt_tables, schedule_notes, session_requests
from inference_energy.plan.tables import digests, read_prompts, write_plan

BEFORE = "metrics-before"
FILE_POOL = 10_000
"""Largest number of prompts that a closed loop takes from a file."""


def prepare(argument: dict[str, Any]) -> dict[str, Any]:
    """Return the `LoadPlan` of `test`, as JSON; write the plan's files and the servers' counters into `folder`.

    Raises:
        InputError: an option cannot be used, or an endpoint does not answer or lacks the model.
    """
    test, folder = LoadTest.model_validate(argument["test"]), Path(argument["folder"])
    cells = build_cells(test)
    access = None if test.plan_only else Access.from_config(test.client, attached=True)
    servers = asyncio.run(_attach(test, access)) if access else []
    facts, notes = _write_plan(test, cells, folder)
    if access:
        asyncio.run(scrape([server.base_url for server in servers], folder / BEFORE, access))
    workload = cells[-1].workload.model_dump()
    pids = [server.server_pid for server in servers]
    content: dict[str, Any] = json_values(
        LoadPlan(
            endpoints=tuple(server.base_url for server in servers),
            model=test.model,
            workload=workload_settings(workload),
            server_pid=pids[0] if len(pids) == 1 else None,
            scheduled=facts.last_arrival_s is not None,
            plan=facts,
            notes=tuple(notes),
            clock_anchor=clock_anchor(),
        )
    )
    return content


def build_cells(test: LoadTest) -> list[Cell]:
    """Return the cells to plan: `load-test`, after `warmup` if there is one.

    Raises:
        InputError: a file of prompts cannot be used.
    """
    cell = Cell(
        name=CELL,
        kind="steady",
        workload_name=CELL,
        workload=test.workload,
        arrival=test.arrival,
        duration_s=test.duration_s,
    )
    cell = cell.model_copy(update={"arrival": _completed(cell, test.seed)})
    if not test.warmup_s:
        return [cell]
    return [cell.model_copy(update={"name": WARMUP, "kind": WARMUP, "duration_s": test.warmup_s}), cell]


def _completed(cell: Cell, seed: int) -> Arrival:
    """Return the arrival with the keys that depend on the content of files.

    A closed loop takes all prompts of a file, up to a limit, so that none is repeated before all were sent. If a
    schedule has a warm-up, only its measured cell is replayed.
    """
    arrival = cell.arrival
    if isinstance(arrival, ClosedArrival) and "pool" not in arrival.model_fields_set:
        if not isinstance(cell.workload.prompts, SyntheticPrompts):
            pool = min(max(prompt_source(cell, seed).size, 1), FILE_POOL)
            return arrival.model_copy(update={"pool": pool})
    elif isinstance(arrival, ScheduleArrival) and arrival.cell is None and arrival.path.endswith(".parquet"):
        try:
            cells = pq.read_table(arrival.path, columns=["cell"])["cell"].unique().to_pylist()
        except (OSError, ValueError, KeyError, pa.ArrowException):
            return arrival  # planning says what is wrong with the file
        return arrival.model_copy(update={"cell": CELL if CELL in cells else None})
    return arrival


async def _attach(test: LoadTest, access: Access) -> list[AttachedServer]:
    return [await attach("", endpoint, test.model, access) for endpoint in test.endpoints]


def _write_plan(test: LoadTest, cells: list[Cell], folder: Path) -> tuple[PlanFacts, list[Notice]]:
    """Write prompts.parquet and schedule.parquet, and copies to keep if requested; return facts and notes."""
    prompts, schedule = folder / "prompts.parquet", folder / "schedule.parquet"
    requests = session_requests(cells, test.seed)  # first, because its errors name the key of a file
    sources = digests(plan_files(cells))
    write_plan(prompts, prompt_tables(cells, test.seed, test.vocabulary), PROMPTS, sources)
    table = make_schedule(requests, read_prompts(prompts))
    write_plan(schedule, [table], SCHEDULE, sources)
    if test.saved:
        for source, target in zip((schedule, prompts), test.saved, strict=True):
            copy_file(source, target)
    return plan_facts(table.filter(pc.equal(table["cell"], cells[-1].name))), schedule_notes(requests)


def plan_facts(rows: pa.Table) -> PlanFacts:
    """Return the facts about a cell's schedule."""
    last_ns = pc.max(rows["arrival_ns"]).as_py()
    lengths = pc.sum(rows["prompt_tokens"]).as_py() if not rows["prompt_tokens"].null_count else None
    return PlanFacts(
        requests=rows.num_rows,
        prompts=pc.count_distinct(rows["prompt_id"]).as_py(),
        users=pc.count_distinct(rows["user"], mode="only_valid").as_py(),
        conversations=pc.count_distinct(rows["conversation"], mode="only_valid").as_py(),
        last_arrival_s=None if last_ns is None else last_ns / 1e9,
        prompt_tokens=lengths,
        most_output_tokens=pc.sum(rows["max_tokens"]).as_py() or 0,
    )


async def scrape(endpoints: Sequence[str], folder: Path, access: Access) -> None:
    """Read /metrics of each endpoint into files of the folder, as soon as it is idle or after two seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    await asyncio.gather(*(_scrape(url, folder, number, access) for number, url in enumerate(dict.fromkeys(endpoints))))


async def _scrape(endpoint: str, folder: Path, number: int, access: Access) -> None:
    log = folder / f"{number}.arrows"
    poller = MetricsPoller(endpoint, log=log, access=access)
    await poller.scrape_idle()
    error = poller.last_error if poller.errors == poller.scrapes else None
    await poller.stop()
    compact_metrics_log(log, folder / f"{number}.parquet")
    write_json(folder / f"{number}.json", {"endpoint": endpoint, "error": error})


def read_counters(before: Path, after: Path, times_ns: tuple[int, int]) -> tuple[pd.DataFrame | None, str | None]:
    """Return two scrapes as rows of server_metrics.parquet; the endpoints share the times, so their counters add up.

    Of several endpoints, each has its number as the label `endpoint`.

    Args:
        before: folder that `scrape` wrote before the load.
        after: folder that it wrote after the load.
        times_ns: times for the rows of the two.

    Returns:
        The rows, or None and why there are none.
    """
    for endpoint in map(read_json, [*sorted(before.glob("*.json")), *sorted(after.glob("*.json"))]):
        if endpoint["error"]:
            return None, f"no /metrics at {endpoint['endpoint']} ({endpoint['error']})"
    frames = []
    paths = sorted(before.glob("*.parquet"))
    for path in paths:
        label = {"endpoint": path.stem} if len(paths) > 1 else {}
        first, last = _newest(path, label), _newest(after / path.name, label)
        # A series that is logged on change must not get a second row without one.
        before_rows = set(first[["name", "labels", "value"]].itertuples(index=False, name=None))
        same = [row in before_rows for row in last[["name", "labels", "value"]].itertuples(index=False, name=None)]
        last = last[~(last["name"].str.endswith(ON_CHANGE) & pd.Series(same, last.index, dtype=bool))]
        frames += [rows.assign(timestamp_ns=time) for rows, time in zip((first, last), times_ns, strict=True)]
    return pd.concat(frames, ignore_index=True), None


def _newest(path: Path, label: dict[str, str]) -> pd.DataFrame:
    """Return the rows of the last scrape, with `label` added to their labels.

    A series that is logged on change has its last value from an earlier one. A series that is twice on the last page
    stays so.
    """
    rows = read_table(path, SCHEMA)
    on_change = rows["name"].str.endswith(ON_CHANGE)
    last = rows[on_change].drop_duplicates(["name", "labels"], keep="last")
    rows = pd.concat([rows[~on_change & (rows["timestamp_ns"] == rows["timestamp_ns"].max())], last])
    texts = {text: json.dumps(json.loads(text) | label, sort_keys=True) for text in rows["labels"].unique()}
    labelled: pd.DataFrame = rows.assign(labels=rows["labels"].map(texts))
    return labelled
