"""The token counters of the servers under test, read before and after the load.

The token counters of the servers under test, read before and after the load.

Before a load test: look at the endpoints, draw the plan, and read the servers' counters.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from inference_energy.acquire.load.settings import workload_settings
from inference_energy.acquire.server.attach import Access, AttachedServer, attach
from inference_energy.acquire.server.metrics import MetricsPoller, compact_metrics_log
from inference_energy.cli.load.options import LoadOptions, LoadPlan, refuse_contradictions
from inference_energy.cli.load.plan import as_options, cells_of, client_of, limits_of, seed_of
from inference_energy.cli.load.subprocess_call import serve_subprocess
from inference_energy.contracts.io import clock_anchor, copy_file, read_json, read_table, write_json
from inference_energy.contracts.schedule import PROMPTS, SCHEDULE
from inference_energy.contracts.server_metrics import ON_CHANGE, SCHEMA
from inference_energy.errors import InputError
from inference_energy.plan.cells import Cell, plan_files
from inference_energy.plan.schedule import make_schedule, prompt_tables, schedule_notes, session_requests
from inference_energy.plan.tables import digests, read_prompts, write_plan


async def scrape(endpoints: Sequence[str], folder: Path, access: Access) -> None:
    """Read /metrics of each endpoint once nothing runs there, or after two seconds, into files of the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    await asyncio.gather(*(_scrape(url, folder, number, access) for number, url in enumerate(dict.fromkeys(endpoints))))


def read_counters(before: Path, after: Path, times_ns: tuple[int, int]) -> tuple[pd.DataFrame | None, str | None]:
    """The scrapes as rows of server_metrics.parquet, those of all endpoints under one time each: so they add up.

    Args:
        before: a folder of `scrape`.
        after: another.
        times_ns: the times as which the rows are given.

    Returns:
        The rows, or None and why there are none.
    """
    frames = []
    for facts in map(read_json, [*sorted(before.glob("*.json")), *sorted(after.glob("*.json"))]):
        if facts["error"]:
            return None, f"no /metrics at {facts['endpoint']} ({facts['error']})"
    for path in sorted(before.glob("*.parquet")):
        first, last = _newest(path), _newest(after / path.name)
        # A row of these says that something changed.
        known = first.index.intersection(last.index)
        same = known[(first.loc[known, "value"] == last.loc[known, "value"]).to_numpy()]
        last = last.drop(index=[key for key in same if key[0].endswith(ON_CHANGE)])
        frames += [rows.assign(timestamp_ns=time) for rows, time in zip((first, last), times_ns, strict=True)]
    return pd.concat(frames).reset_index(), None


def _newest(path: Path) -> pd.DataFrame:
    """The last value of each series, by name and labels."""
    rows = read_table(path, SCHEMA).drop_duplicates(["name", "labels"], keep="last")
    return rows.set_index(["name", "labels"])


async def _scrape(endpoint: str, folder: Path, number: int, access: Access) -> None:
    log = folder / f"{number}.arrows"
    poller = MetricsPoller(endpoint, log=log, access=access)
    await poller.scrape_idle()
    error = poller.last_error if poller.errors == poller.scrapes else None
    await poller.stop()
    compact_metrics_log(log, folder / f"{number}.parquet")
    write_json(folder / f"{number}.json", {"endpoint": endpoint, "error": error})


BEFORE = "metrics-before"


def prepare(question: dict[str, Any]) -> dict[str, Any]:
    """`options` and `folder` become a `Prepared`; the plan and the counters lie in the folder then.

    Raises:
        InputError: an option cannot be used, or an endpoint does not answer or lacks the model.
    """
    options, folder = LoadOptions.from_json(question["options"]), Path(question["folder"])
    refuse_contradictions(options)
    cells, client = cells_of(options), client_of(options)
    limits_of(options)
    access = Access.from_config(client, attached=True, setting="--api-key-env") if not options.plan_only else None
    servers = asyncio.run(_attached(options, access)) if access else []
    plan, notes = _planned(options, cells, folder)
    if access:
        asyncio.run(scrape([server.base_url for server in servers], folder / BEFORE, access))
    settings = cells[-1].workload.model_dump()
    pids = [server.server_pid for server in servers]
    return asdict(
        LoadPlan(
            endpoints=tuple(server.base_url for server in servers),
            model=options.model,
            workload=asdict(workload_settings(settings)),
            client=client.model_dump(),
            server_pid=pids[0] if len(pids) == 1 else None,
            scheduled=bool(plan.pop("scheduled")),
            plan=plan,
            notes=tuple(notes),
            clock_anchor=clock_anchor(),
        )
    )


async def _attached(options: LoadOptions, access: Access) -> list[AttachedServer]:
    try:
        return [await attach("", endpoint, options.model, access) for endpoint in options.endpoint]
    except InputError as error:
        raise InputError(_of_options(str(error))) from None


def _of_options(message: str) -> str:
    """A message about a server of the configuration as one about options."""
    message = message.replace("servers..", "--").replace("client.api_key_env", "--api-key-env")
    return message.replace("write in --api-key-env", "name in --api-key-env").replace("client.ca_file", "--ca-file")


def _planned(options: LoadOptions, cells: list[Cell], folder: Path) -> tuple[dict[str, float | None], list[str]]:
    """Write prompts.parquet and schedule.parquet, and copies where they are to be kept; what is planned, and notes."""
    prompts, schedule, seed = folder / "prompts.parquet", folder / "schedule.parquet", seed_of(options)
    try:
        sources = digests(plan_files(cells))
        planned = session_requests(cells, seed)
        write_plan(prompts, prompt_tables(cells, seed, options.vocabulary), PROMPTS, sources)
        table = make_schedule(planned, read_prompts(prompts))
        write_plan(schedule, [table], SCHEDULE, sources)
    except InputError as error:
        raise InputError(as_options(str(error), options)) from error
    if options.saved:
        for source, target in zip((schedule, prompts), options.saved, strict=True):
            copy_file(source, target)
    own = table.filter(pc.equal(table["cell"], cells[-1].name))
    return _facts(own), [as_options(str(note), options) for note in schedule_notes(planned)]


def _facts(rows: pa.Table) -> dict[str, float | None]:
    last_ns = pc.max(rows["arrival_ns"]).as_py()
    lengths = pc.sum(rows["prompt_tokens"]).as_py() if not rows["prompt_tokens"].null_count else None
    return {
        "scheduled": last_ns is not None,
        "requests": rows.num_rows,
        "prompts": pc.count_distinct(rows["prompt_id"]).as_py(),
        "users": pc.count_distinct(rows["user"], mode="only_valid").as_py(),
        "conversations": pc.count_distinct(rows["conversation"], mode="only_valid").as_py(),
        "last_arrival_s": None if last_ns is None else last_ns / 1e9,
        "prompt_tokens": lengths,
        "most_output_tokens": pc.sum(rows["max_tokens"]).as_py(),
    }


if __name__ == "__main__":
    serve_subprocess(prepare)
