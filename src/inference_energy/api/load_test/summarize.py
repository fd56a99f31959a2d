"""Sum up a load test in a separate process, and write its files."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pyarrow.compute as pc
import pyarrow.parquet as pq

from inference_energy.acquire.load.request_log import merge_request_logs, write_csv
from inference_energy.acquire.load.standalone import CELL, LOGS, WARMUP
from inference_energy.acquire.power.power_log import compact_power_log
from inference_energy.acquire.server.pages import Access
from inference_energy.analysis.client_cost import client_energy
from inference_energy.analysis.log_energy import analyze_logs
from inference_energy.analysis.power_log_file import read_power_log
from inference_energy.analysis.token_times import read_chunks
from inference_energy.api.load_test.figures import LoadRunRecord, summarize_run
from inference_energy.api.load_test.prepare import BEFORE, read_counters, scrape
from inference_energy.api.load_test.settings import LoadPlan, LoadTest, SentLoad
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.documents.by_hand import EnergyWindow, LoadEnergy, LoadTestDocument, LoadTestHeader
from inference_energy.contracts.documents.document import VERSION
from inference_energy.contracts.figure import json_values
from inference_energy.contracts.io import copy_file, read_table
from inference_energy.contracts.requests import SCHEMA
from inference_energy.contracts.schedule import SCHEDULE
from inference_energy.errors import InputError

AFTER = "metrics-after"
POWER_LOG = "power.arrows"
ENERGY_FIGURES = ("power_mean_w", "energy_total_j", "energy_total_per_output_token_j", "energy_total_per_request_j")


def summarize(argument: dict[str, Any]) -> dict[str, Any]:
    """Write the files of a load test, and return its `LoadTestDocument`, as JSON.

    Args:
        argument: `test`, `folder`, `plan` and `sent`, as JSON.

    Raises:
        RunError: there is no log, or it lacks requests that were sent.
    """
    test, folder = LoadTest.model_validate(argument["test"]), Path(argument["folder"])
    plan, sent = LoadPlan.from_dict(argument["plan"]), msgspec.convert(argument["sent"], SentLoad)
    access = Access.from_config(test.client, attached=True)
    asyncio.run(scrape(plan.endpoints, folder / AFTER, access))
    merged, measured = folder / "requests.parquet", folder / "measured.parquet"
    counted = sent.client.logged_requests if sent.client else {}
    merge_request_logs(folder / LOGS, merged, counted, clock_anchor=plan.clock_anchor)
    _select_cell(merged, measured, CELL)
    files = _write_files(test, folder, merged, measured)
    if test.power:
        files["power"] = test.beside("power.parquet")
        compact_power_log(folder / POWER_LOG, files["power"])
    record = LoadRunRecord(
        requests=read_table(merged, SCHEMA),
        schedule=read_table(folder / "schedule.parquet", SCHEDULE),
        chunks=read_chunks(merged),
        sent=sent,
        scheduled=plan.scheduled,
        files={name: str(path) for name, path in files.items()},
    )
    header = LoadTestHeader(
        version=VERSION,
        endpoints=list(plan.endpoints),
        model=plan.model,
        arrival=test.arrival.process,
        duration_s=test.duration_s,
        warmup_s=test.warmup_s,
        seed=test.seed,
        interrupted=sent.stopped_ns is not None and sent.failure is None,
        failure=sent.failure,
        notes=[str(note) for note in plan.notes],
    )
    counters = read_counters(folder / BEFORE, folder / AFTER, record.around_ns)
    summary = summarize_run(header, record, counters, test.limits, AnalysisConfig())
    if test.power:
        summary = _with_energy(summary, files["power"], measured, sent.power_faults)
    content: dict[str, Any] = json_values(summary)
    return content


def _write_files(test: LoadTest, folder: Path, merged: Path, measured: Path) -> dict[str, Path]:
    """Write the logs to the files of the test; return these by content."""
    files = {"requests": test.output}
    _write_log(measured, test.output)
    if test.warmup_s:
        files["warm-up"] = test.beside(f"warmup{test.output.suffix}")
        _select_cell(merged, folder / "warmup.parquet", WARMUP)
        _write_log(folder / "warmup.parquet", files["warm-up"])
    for name in ("chunks", "answers"):
        if (folder / f"{name}.parquet").is_file():
            files[name] = test.beside(f"{name}.parquet")
            copy_file(folder / f"{name}.parquet", files[name])
    if test.saved:
        files |= dict(zip(("schedule", "prompts"), test.saved, strict=True))
    return files


def _select_cell(source: Path, target: Path, cell: str) -> None:
    table = pq.read_table(source)
    pq.write_table(table.filter(pc.equal(table["cell"], cell)), target, compression="zstd")


def _write_log(source: Path, target: Path) -> None:
    if target.suffix == ".csv":
        write_csv(source, target)
    else:
        copy_file(source, target)


def _with_energy(summary: LoadTestDocument, power: Path, requests: Path, faults: list[str]) -> LoadTestDocument:
    """Add the energy from the first request sent to the last ended, as `analyze` does, and the client's part of it."""
    try:
        log = analyze_logs(power, requests, None, AnalysisConfig())
    except InputError as error:
        return msgspec.structs.replace(summary, energy=LoadEnergy(why=str(error), faults=faults))
    start_ns, end_ns = (round(time_s * 1e9) for time_s in (log.window.start_unix_s, log.window.end_unix_s))
    energy = LoadEnergy(
        why=None,
        boundary=log.boundary,
        grade=log.grade,
        window=EnergyWindow(start_ns=start_ns, end_ns=end_ns),
        faults=faults,
        figures={name: log.figures[name] for name in ENERGY_FIGURES},
    )
    client = summary.client
    if client is not None:
        series = read_power_log(power, AnalysisConfig().power_reading).channels
        modelled = client_energy(client, series, start_ns, end_ns, log.figures["energy_total_j"])
        client = msgspec.structs.replace(client, figures={**client.figures, **modelled})
    return msgspec.structs.replace(summary, energy=energy, client=client)
