"""After a load test: the logs become the files that were asked for, and their figures a summary."""

import asyncio
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from inference_energy.acquire.load.request_log import merge_request_logs, write_csv
from inference_energy.acquire.load.standalone import CELL, LOGS
from inference_energy.acquire.power.power_log import compact_power_log
from inference_energy.acquire.server.attach import Access
from inference_energy.analysis.client_cost import client_energy
from inference_energy.analysis.figures import figure_from_dict
from inference_energy.analysis.log_energy import analyze_logs, read_power_log
from inference_energy.analysis.token_times import read_chunks
from inference_energy.cli.load.options import LoadOptions, LoadPlan, SentLoad
from inference_energy.cli.load.plan import limits_of, seed_of
from inference_energy.cli.load.prepare import BEFORE, read_counters, scrape
from inference_energy.cli.load.render import LoadRunRecord, summary_of
from inference_energy.cli.load.subprocess_call import serve_subprocess
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.config.load.client import ClientConfig
from inference_energy.contracts.io import copy_file, read_table
from inference_energy.contracts.requests import SCHEMA
from inference_energy.contracts.schedule import SCHEDULE
from inference_energy.errors import InputError

AFTER = "metrics-after"
POWER_LOG = "power.arrows"


def summarize(question: dict[str, Any]) -> dict[str, Any]:
    """`options`, `folder`, `prepared` and `sent` become files, and the summary that is returned.

    Raises:
        RunError: there is no log.
    """
    options, folder = LoadOptions.from_json(question["options"]), Path(question["folder"])
    prepared, sent = LoadPlan(**question["prepared"]), SentLoad(**question["sent"])
    access = Access.from_config(ClientConfig.model_validate(prepared.client), attached=True, setting="--api-key-env")
    asyncio.run(scrape(prepared.endpoints, folder / AFTER, access))
    merged, measured = folder / "requests.parquet", folder / "measured.parquet"
    merge_request_logs(folder / LOGS, merged, clock_anchor=prepared.clock_anchor)
    _only(merged, measured, CELL)
    files = _written(options, folder, merged, measured)
    test = LoadRunRecord(
        requests=read_table(merged, SCHEMA),
        schedule=read_table(folder / "schedule.parquet", SCHEDULE),
        chunks=read_chunks(merged),
        sent=sent,
        scheduled=prepared.scheduled,
    )
    counters = read_counters(folder / BEFORE, folder / AFTER, test.around_ns)
    summary = summary_of(test, counters, limits_of(options), AnalysisConfig())
    if options.power:
        summary["energy"] = _energy(options, folder, measured, sent, files)
        if summary["client"] is not None and summary["energy"]["why"] is None:
            summary["client"]["figures"] |= _clients_energy(summary["client"], summary["energy"], files["power"])
    return {
        "version": 1,
        "endpoints": prepared.endpoints,
        "model": prepared.model,
        "arrival": options.process,
        "duration_s": options.duration,
        "warmup_s": options.warmup,
        "seed": seed_of(options),
        "interrupted": sent.stopped_ns is not None and sent.failure is None,
        "failure": sent.failure,
        "notes": prepared.notes,
        **summary,
        "files": {name: str(path) for name, path in files.items()},
    }


def _written(options: LoadOptions, folder: Path, merged: Path, measured: Path) -> dict[str, Path]:
    """The logs where they are wanted, by what they hold."""
    output = Path(options.output)
    files = {"requests": output}
    _deliver(measured, output)
    if options.warmup:
        files["warm-up"] = options.beside(f"warmup{output.suffix}")
        _only(merged, folder / "warmup.parquet", "warmup")
        _deliver(folder / "warmup.parquet", files["warm-up"])
    for name in ("chunks", "answers"):
        if (folder / f"{name}.parquet").is_file():
            files[name] = options.beside(f"{name}.parquet")
            _deliver(folder / f"{name}.parquet", files[name])
    if options.saved:
        files |= dict(zip(("schedule", "prompts"), options.saved, strict=True))
    return files


def _only(source: Path, target: Path, cell: str) -> None:
    table: pa.Table = pq.read_table(source)
    pq.write_table(table.filter(pc.equal(table["cell"], cell)), target, compression="zstd")


def _deliver(source: Path, target: Path) -> None:
    """A log where it is wanted, as CSV where the name says so."""
    if target.suffix == ".csv":
        write_csv(source, target)
        return
    copy_file(source, target)


def _energy(
    options: LoadOptions, folder: Path, measured: Path, sent: SentLoad, files: dict[str, Path]
) -> dict[str, Any]:
    """Energy from the first request sent to the last ended, as `analyze` computes it; or `why` there is none."""
    stats = sent.power or {}
    files["power"] = options.beside("power.parquet")
    compact_power_log(folder / POWER_LOG, files["power"])
    try:
        found = analyze_logs(files["power"], measured, None, AnalysisConfig())
    except InputError as error:
        return {"why": str(error), "faults": stats.get("faults", [])}
    window = {f"{edge}_ns": round(found["window"][f"{edge}_unix_s"] * 1e9) for edge in ("start", "end")}
    kept = ("power_mean_w", "energy_total_j", "energy_total_per_output_token_j", "energy_total_per_request_j")
    return {
        "why": None,
        "boundary": found["boundary"],
        "grade": found["grade"],
        "window": window,
        "faults": stats.get("faults", []),
        "figures": {name: found["figures"][name] for name in kept},
    }


def _clients_energy(cost: dict[str, Any], energy: dict[str, Any], power: Path) -> dict[str, Any]:
    """The part of the energy that is the client's own, as the pipeline models it, or why it is not known."""
    found, _ = read_power_log(power, AnalysisConfig().power_reading)
    window, total = energy["window"], figure_from_dict(energy["figures"]["energy_total_j"])
    own = client_energy(cost, found, window["start_ns"], window["end_ns"], total)
    return {name: figure.as_dict() for name, figure in own.items()}


if __name__ == "__main__":
    serve_subprocess(summarize)
