"""Stage `steady_load`: the windows after trimming, what fell into them, and whether their load can be trusted."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from inference_energy.analysis import counts as cell_counts
from inference_energy.analysis.client_cost import client_cost
from inference_energy.analysis.counts import (
    count_bins,
    count_figures,
    count_window,
    lag_reasons,
    no_schedule_reasons,
    request_reasons,
    within,
)
from inference_energy.analysis.figures import reason
from inference_energy.analysis.latency import Goodput, failed_samples, goodput, lag_s, latency_figures, samples
from inference_energy.analysis.power_series import PowerSeries, read_channels, summed
from inference_energy.analysis.sensor_checks import without_lost_counters
from inference_energy.analysis.server_metrics import ServerMetrics, queue_figures
from inference_energy.analysis.session_facts import identity, load_description, read_session, window_facts
from inference_energy.analysis.steadiness import align_to_counter, steadiness_of, steady_part, steady_reasons
from inference_energy.analysis.token_reconciliation import reconcile
from inference_energy.analysis.token_times import arrivals, read_chunks
from inference_energy.analysis.windows import TokenTimes, Window, trimmed_windows
from inference_energy.config.analysis import SteadyLoadConfig
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts import schedule as schedule_contract
from inference_energy.contracts import server_metrics as metrics_contract
from inference_energy.contracts.figure import Reason
from inference_energy.contracts.io import read_table


def steady_load(
    *, session: Path, phases: Path, requests: Path, server_metrics: Path, power: Path, config: SteadyLoadConfig
) -> dict[str, Any]:
    """steady_load.json of a session.

    Args:
        session: session.json.
        phases: phases.parquet.
        requests: requests.parquet; schedule.parquet and chunks.parquet beside it are used where they are there.
        server_metrics: server_metrics.parquet.
        power: power.parquet.
        config: trimming, limits and tolerances.

    Returns:
        `windows`: for each, `start_ns`, `end_ns`, `kind`, `load`, `counts`, `checks`, `client`, `figures` (counts,
        rates and latencies) and `reasons`, which says what stands against `energy` and against `tokens`.

    Raises:
        InputError: a file cannot be used, or a window is shorter than what is cut from it.
    """
    recorded = read_session(session)
    asked = read_table(requests, requests_contract.SCHEMA)
    chunks, schedule = read_chunks(requests), _schedule(requests)
    metrics = ServerMetrics(read_table(server_metrics, metrics_contract.SCHEMA))
    channels = summed(read_channels(power, config.power_reading))
    interval_s = float(recorded["power"]["interval_s"])
    timeline = read_table(phases, phases_contract.SCHEMA)
    spans = cell_counts.spans(timeline)
    windows = {}
    for trimmed in trimmed_windows(timeline, config):
        window = align_to_counter(trimmed, channels)
        rows = asked[asked["cell"] == window.name]
        own = None if schedule is None else schedule[schedule["cell"] == window.name]
        windows[window.name] = _window(
            window,
            window_facts(recorded, window.name),
            _WindowRequests(rows, TokenTimes.of(rows, chunks), chunks),
            checked=_whole_cell(rows, own, metrics, spans[window.name], config),
            cost=client_cost(recorded, window.name, int(rows["completion_tokens"].fillna(0).sum())),
            metrics=metrics,
            power=without_lost_counters(channels, window.start_ns, window.end_ns, interval_s, config),
            config=config,
        )
    return {"version": 1, **identity(recorded), "client": recorded.get("client"), "windows": windows}


@dataclass(frozen=True)
class _WindowRequests:
    """The requests of a cell, the times of their tokens, and all chunks of the session."""

    rows: pd.DataFrame
    tokens: TokenTimes
    chunks: pd.DataFrame | None


@dataclass(frozen=True)
class _CellTotals:
    """What the whole cell shows: its totals against the server's counters, and the lengths of its prompts."""

    table: dict[str, Any]
    lengths: dict[str, Any] | None
    reasons: list[Reason]
    length_notes: list[Reason]


def _whole_cell(
    requests: pd.DataFrame,
    schedule: pd.DataFrame | None,
    metrics: ServerMetrics,
    span: cell_counts.Span,
    config: SteadyLoadConfig,
) -> _CellTotals:
    table, reasons = cell_counts.compare_totals(requests, schedule, metrics, span, config.token_tolerance)
    lengths, notes = cell_counts.prompt_lengths(requests, schedule)
    return _CellTotals(table, lengths, reasons, notes)


def _window(
    window: Window,
    facts: dict[str, Any],
    asked: _WindowRequests,
    *,
    checked: _CellTotals,
    cost: dict[str, Any] | None,
    metrics: ServerMetrics,
    power: list[PowerSeries],
    config: SteadyLoadConfig,
) -> dict[str, Any]:
    requests, tokens = asked.rows, asked.tokens
    steady = steadiness_of(window, requests, tokens, metrics, power, config)
    cut: list[Reason] = []
    if facts["kind"] == "steady" and steady["steady"] is False:
        window, steady, cut = steady_part(window, steady, requests, tokens, metrics, power, config)
    start_ns, end_ns = window.start_ns, window.end_ns
    counts, finished = count_window(window, requests, tokens)
    no_schedule = no_schedule_reasons(facts, counts)
    lag = None if no_schedule else lag_s(requests[within(requests["scheduled_ns"], window)])
    table, token_reasons = reconcile(
        {"generated": counts["output_tokens"], "prompt": counts["prompt_tokens"], "cached": counts["cached_tokens"]},
        metrics,
        start_ns,
        end_ns,
        config.token_tolerance,
    )
    known = all(r.code != "tokens_unreconciled" for r in token_reasons)
    token_reasons += [*request_reasons(counts, config, reconciled=known), *checked.reasons]
    run_reasons = lag_reasons(lag, config)
    against = steady_reasons(steady) if facts["kind"] == "steady" else []
    preemptions, steps = metrics.rise("preemptions", start_ns, end_ns), metrics.rise("steps", start_ns, end_ns)
    notes = list(cut)
    if preemptions and preemptions[0] > 0:
        notes.append(reason("preemptions", f"About {preemptions[0]:.0f} preemptions in the window."))
    trends = [*(r for r in against if r.code == "not_steady"), *cut]
    on_latency = [*notes, *trends]
    figures = count_figures(window, counts, [*run_reasons, *token_reasons], no_schedule, trends, checked.length_notes)
    found = {**samples(finished, arrivals(finished, asked.chunks)), **failed_samples(_failed(requests, window))}
    figures |= latency_figures(found, window, run_reasons, on_latency, no_schedule)
    waits = metrics.histogram("queue_time", start_ns, end_ns)
    figures |= queue_figures(waits, run_reasons, on_latency)
    bins, limits = count_bins(window, tokens, finished), None
    if config.slo is not None:
        good = _goodput(window, asked, config, bool(not no_schedule), run_reasons, on_latency)
        figures, bins, limits = figures | good.figures, bins | good.bins, good.table
    return {
        "kind": facts["kind"],
        "load": {**facts, "text": load_description(facts)},
        "start_ns": start_ns,
        "end_ns": end_ns,
        "duration_s": window.duration_s,
        "counts": {
            **counts,
            "scheduled": None if no_schedule else counts["scheduled"],
            "engine_steps": steps[0] if steps else None,
        },
        "checks": {
            "steadiness": {**steady, "required": facts["kind"] == "steady"},
            "reconciliation": table,
            "whole_cell": checked.table,
            "prompt_lengths": checked.lengths,
            "client_lag_s": lag,
            "limits": limits,
            "preemptions": preemptions[0] if preemptions else None,
        },
        "client": cost,
        "bins": bins,
        "figures": {name: figure.as_dict() for name, figure in figures.items()},
        "reasons": {
            "energy": _dicts([*run_reasons, *against, *notes]),
            "tokens": _dicts([*run_reasons, *token_reasons]),
        },
    }


def _failed(requests: pd.DataFrame, window: Window) -> pd.DataFrame:
    return requests[(requests["status"] == "failed") & within(requests["end_ns"], window)]


def _goodput(
    window: Window,
    asked: _WindowRequests,
    config: SteadyLoadConfig,
    scheduled: bool,
    reasons: list[Reason],
    notes: list[Reason],
) -> Goodput:
    """Of all requests that ended in the window, whatever came of them."""
    rows = asked.rows
    ok = rows["status"] == "ok"
    ends = rows["last_token_ns"].where(ok, rows["end_ns"]).fillna(rows["end_ns"])
    ended = rows[rows["sent_ns"].notna() & within(ends, window)]
    assert config.slo is not None
    return goodput(
        ended,
        arrivals(ended, asked.chunks),
        config.slo,
        window,
        scheduled=scheduled,
        reasons=reasons,
        notes=notes,
    )


def _schedule(requests: Path) -> pd.DataFrame | None:
    path = requests.with_name("schedule.parquet")
    return read_table(path, schedule_contract.SCHEDULE) if path.is_file() else None


def _dicts(reasons: list[Reason]) -> list[dict[str, str]]:
    return [{"code": r.code, "detail": r.detail} for r in reasons]
