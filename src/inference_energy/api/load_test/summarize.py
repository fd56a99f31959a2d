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
from inference_energy.acquire.server.attach import Access
from inference_energy.analysis.client_cost import client_energy
from inference_energy.analysis.figures import figure_from_dict
from inference_energy.analysis.log_energy import analyze_logs, read_power_log
from inference_energy.analysis.token_times import read_chunks
from inference_energy.api.load_test.figures import LoadRunRecord, summarize_run
from inference_energy.api.load_test.prepare import BEFORE, read_counters, scrape
from inference_energy.api.load_test.settings import LoadPlan, LoadTest, SentLoad
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.documents.windows import ClientCost
from inference_energy.contracts.io import copy_file, read_table
from inference_energy.contracts.requests import SCHEMA
from inference_energy.contracts.schedule import SCHEDULE
from inference_energy.errors import InputError

AFTER = "metrics-after"
POWER_LOG = "power.arrows"
ENERGY_FIGURES = ("power_mean_w", "energy_total_j", "energy_total_per_output_token_j", "energy_total_per_request_j")


def summarize(argument: dict[str, Any]) -> dict[str, Any]:
    """Write the files of a load test, and return its summary; the argument has `test`, `folder`, `plan` and `sent`.

    Raises:
        RunError: there is no log.
    """
    test, folder = LoadTest.model_validate(argument["test"]), Path(argument["folder"])
    plan, sent = LoadPlan.from_dict(argument["plan"]), SentLoad(**argument["sent"])
    access = Access.from_config(test.client, attached=True)
    asyncio.run(scrape(plan.endpoints, folder / AFTER, access))
    merged, measured = folder / "requests.parquet", folder / "measured.parquet"
    merge_request_logs(folder / LOGS, merged, clock_anchor=plan.clock_anchor)
    _select_cell(merged, measured, CELL)
    files = _write_files(test, folder, merged, measured)
    record = LoadRunRecord(
        requests=read_table(merged, SCHEMA),
        schedule=read_table(folder / "schedule.parquet", SCHEDULE),
        chunks=read_chunks(merged),
        sent=sent,
        scheduled=plan.scheduled,
    )
    counters = read_counters(folder / BEFORE, folder / AFTER, record.around_ns)
    summary = summarize_run(record, counters, test.limits, AnalysisConfig())
    if test.power:
        files["power"] = test.beside("power.parquet")
        compact_power_log(folder / POWER_LOG, files["power"])
        summary["energy"] = _energy(files["power"], measured, sent)
        if summary["client"] is not None and summary["energy"]["why"] is None:
            summary["client"]["figures"] |= _client_energy(summary["client"], summary["energy"], files["power"])
    return {
        "version": 1,
        "endpoints": plan.endpoints,
        "model": plan.model,
        "arrival": test.arrival.process,
        "duration_s": test.duration_s,
        "warmup_s": test.warmup_s,
        "seed": test.seed,
        "interrupted": sent.stopped_ns is not None and sent.failure is None,
        "failure": sent.failure,
        "notes": [str(note) for note in plan.notes],
        **summary,
        "files": {name: str(path) for name, path in files.items()},
    }


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


def _energy(power: Path, requests: Path, sent: SentLoad) -> dict[str, Any]:
    """Return the energy from the first request sent to the last ended, as `analyze` does, or `why` it is missing."""
    faults = (sent.power or {}).get("faults", [])
    try:
        result = analyze_logs(power, requests, None, AnalysisConfig())
    except InputError as error:
        return {"why": str(error), "faults": faults}
    return {
        "why": None,
        "boundary": result["boundary"],
        "grade": result["grade"],
        "window": {f"{edge}_ns": round(result["window"][f"{edge}_unix_s"] * 1e9) for edge in ("start", "end")},
        "faults": faults,
        "figures": {name: result["figures"][name] for name in ENERGY_FIGURES},
    }


def _client_energy(cost: dict[str, Any], energy: dict[str, Any], power: Path) -> dict[str, Any]:
    """Return the client's own part of the energy, modelled as in the pipeline, or why it is unknown."""
    series, _ = read_power_log(power, AnalysisConfig().power_reading)
    window, total = energy["window"], figure_from_dict(energy["figures"]["energy_total_j"])
    figures = client_energy(msgspec.convert(cost, ClientCost), series, window["start_ns"], window["end_ns"], total)
    return {name: figure.as_dict() for name, figure in figures.items()}
