"""Stage `steady_load`: the windows after trimming, what fell into them, and whether their load can be trusted."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from msgspec import structs

from inference_energy.analysis.client_cost import client_cost
from inference_energy.analysis.counts import (
    count_bins,
    count_figures,
    count_window,
    lag_reasons,
    missing_counts,
    no_schedule_reasons,
    request_reasons,
    send_lag,
    within,
)
from inference_energy.analysis.latency import Goodput, failed_samples, goodput, latency_figures, samples
from inference_energy.analysis.power_series import PowerSeries, read_power_series, summed
from inference_energy.analysis.sensor_checks import without_lost_counters
from inference_energy.analysis.server_metrics import ServerMetrics, queue_times
from inference_energy.analysis.session_facts import describe_load, read_session, session_names, window_plan
from inference_energy.analysis.steadiness import (
    WindowSeries,
    align_to_counter,
    judge_window,
    steady_part,
    steady_reasons,
)
from inference_energy.analysis.token_reconciliation import (
    CellSpan,
    cell_spans,
    compare_cell,
    prompt_lengths,
    reconcile_window,
)
from inference_energy.analysis.token_times import TokenTimes, chunk_times, read_chunks
from inference_energy.analysis.windows import Window, trimmed_windows
from inference_energy.config.analysis import SteadyLoadConfig
from inference_energy.contracts import phases as phases_contract
from inference_energy.contracts import requests as requests_contract
from inference_energy.contracts import schedule as schedule_contract
from inference_energy.contracts import server_metrics as metrics_contract
from inference_energy.contracts.documents.session import SessionDocument
from inference_energy.contracts.documents.windows import (
    ClientCost,
    LoadWindow,
    SteadyLoadDocument,
    WindowChecks,
    WindowLoad,
    WindowReasons,
)
from inference_energy.contracts.figure import Reason
from inference_energy.contracts.io import read_table
from inference_energy.contracts.reason_codes import reason


def steady_load(
    *, session: Path, phases: Path, requests: Path, server_metrics: Path, power: Path, config: SteadyLoadConfig
) -> SteadyLoadDocument:
    """Return steady_load.json of a session.

    Args:
        session: session.json.
        phases: phases.parquet.
        requests: requests.parquet; schedule.parquet and chunks.parquet beside it are used where they exist.
        server_metrics: server_metrics.parquet.
        power: power.parquet.
        config: trimming, limits and tolerances.

    Raises:
        InputError: a file cannot be used, or a window is shorter than its trim.
    """
    recorded = read_session(session)
    logs = _SessionLogs(
        recorded=recorded,
        requests=read_table(requests, requests_contract.SCHEMA),
        chunks=read_chunks(requests),
        schedule=_schedule(requests),
        metrics=ServerMetrics(read_table(server_metrics, metrics_contract.SCHEMA), recorded.model),
        power=summed(read_power_series(power, config.power_reading)),
    )
    timeline = read_table(phases, phases_contract.SCHEMA)
    cells = cell_spans(timeline)
    windows = {
        window.name: _window(align_to_counter(window, logs.power), logs, cells[window.name], config)
        for window in trimmed_windows(timeline, config)
    }
    return SteadyLoadDocument(**session_names(recorded), client=recorded.client, windows=windows)


@dataclass(frozen=True)
class _SessionLogs:
    """The raw files of a session, in memory."""

    recorded: SessionDocument
    requests: pd.DataFrame
    chunks: pd.DataFrame | None
    schedule: pd.DataFrame | None
    metrics: ServerMetrics
    power: list[PowerSeries]


@dataclass
class _Reasons:
    """Reasons of a window: `run` for everything, `steady` and `cut` of the steadiness, and those of token counts.

    Attributes:
        run: reasons of all figures that depend on when requests were sent.
        steady: reasons of energy and power.
        cut: notes on a start that was cut off.
        preemptions: notes on preemptions.
        tokens: reasons of token counts.
        lengths: notes on the prompts' lengths.
        no_schedule: reasons of figures that compare with a schedule.
    """

    run: list[Reason] = field(default_factory=list)
    steady: list[Reason] = field(default_factory=list)
    cut: list[Reason] = field(default_factory=list)
    preemptions: list[Reason] = field(default_factory=list)
    tokens: list[Reason] = field(default_factory=list)
    lengths: list[Reason] = field(default_factory=list)
    no_schedule: list[Reason] = field(default_factory=list)

    @property
    def trends(self) -> list[Reason]:
        """Notes on rates."""
        return [*(why for why in self.steady if why.code == "not_steady"), *self.cut]

    @property
    def latency(self) -> list[Reason]:
        """Notes on latencies."""
        return [*self.cut, *self.preemptions, *self.trends]

    def for_later_stages(self) -> WindowReasons:
        """Return the reasons of energy and of tokens."""
        return WindowReasons(
            energy=[*self.run, *self.steady, *self.cut, *self.preemptions], tokens=[*self.run, *self.tokens]
        )


def _window(window: Window, logs: _SessionLogs, cell: CellSpan, config: SteadyLoadConfig) -> LoadWindow:
    name, metrics = window.name, logs.metrics
    plan = window_plan(logs.recorded, name)
    requests = logs.requests[logs.requests["cell"] == name]
    schedule = None if logs.schedule is None else logs.schedule[logs.schedule["cell"] == name]
    tokens = TokenTimes.from_requests(requests, logs.chunks)
    reasons = _Reasons()

    interval_s = float(logs.recorded.power.interval_s or 0.0)
    power = without_lost_counters(logs.power, window.start_ns, window.end_ns, interval_s, config)
    series = WindowSeries(requests, tokens, metrics, power)
    required = plan.kind == "steady"
    verdict = judge_window(window, series, config.steadiness, required=required)
    if required and verdict.steady is False:
        window, verdict, reasons.cut = steady_part(window, verdict, series, config.steadiness)
    reasons.steady = steady_reasons(verdict) if required else []
    start_ns, end_ns = window.start_ns, window.end_ns

    steps = metrics.rise("steps", start_ns, end_ns)
    counts, finished = count_window(window, requests, tokens, steps[0] if steps else None)
    reasons.no_schedule = no_schedule_reasons(plan, counts)
    lag = None if reasons.no_schedule else send_lag(requests[within(requests["scheduled_ns"], window)])
    reasons.run = lag_reasons(lag, config)

    reconciliation, token_reasons = reconcile_window(counts, metrics, start_ns, end_ns, config.token_tolerance)
    totals, cell_reasons = compare_cell(requests, schedule, metrics, cell, config.token_tolerance)
    lengths, reasons.lengths = prompt_lengths(requests, schedule)
    reconciled = all(why.code != "tokens_unreconciled" for why in token_reasons)
    reasons.tokens = [*token_reasons, *request_reasons(counts, config, reconciled=reconciled), *cell_reasons]

    preemptions = metrics.rise("preemptions", start_ns, end_ns)
    if preemptions and preemptions[0] > 0:
        reasons.preemptions.append(reason("preemptions", f"About {preemptions[0]:.0f} preemptions in the window."))

    figures = count_figures(
        window, counts, [*reasons.run, *reasons.tokens], reasons.no_schedule, reasons.trends, reasons.lengths
    )
    latencies = {
        **samples(finished, chunk_times(finished, logs.chunks)),
        **failed_samples(requests[(requests["status"] == "failed") & within(requests["end_ns"], window)]),
    }
    figures |= latency_figures(latencies, window, reasons.run, reasons.latency, reasons.no_schedule)
    figures |= queue_times(metrics, start_ns, end_ns, reasons.run, reasons.latency)
    bins = count_bins(window, tokens, finished)
    good = _goodput(window, requests, logs.chunks, reasons, config)
    if good is not None:
        figures, bins = figures | good.figures, bins | good.bins
    return LoadWindow(
        kind=plan.kind,
        load=WindowLoad(
            kind=plan.kind,
            workload=plan.workload,
            arrival=plan.arrival,
            duration_s=plan.duration_s,
            text=describe_load(plan),
        ),
        start_ns=start_ns,
        end_ns=end_ns,
        duration_s=window.duration_s,
        counts=structs.replace(counts, scheduled=None) if reasons.no_schedule else counts,
        checks=WindowChecks(
            steadiness=verdict,
            reconciliation=reconciliation,
            whole_cell=totals,
            prompt_lengths=lengths,
            client_lag_s=lag,
            limits=good.limits if good else None,
            preemptions=preemptions[0] if preemptions else None,
        ),
        client=_cost(logs.recorded, name, requests),
        bins=bins,
        figures=figures,
        reasons=reasons.for_later_stages(),
    )


def _cost(recorded: SessionDocument, cell: str, requests: pd.DataFrame) -> ClientCost | None:
    busy = (recorded.machine_cpu or {}).get(cell)
    output_tokens = int(requests["completion_tokens"].fillna(0).sum())
    missing = missing_counts(requests[requests["status"] == "ok"], "completion")
    return client_cost(recorded.client, busy.busy_s if busy else None, cell, output_tokens, missing)


def _goodput(
    window: Window, requests: pd.DataFrame, chunks: pd.DataFrame | None, reasons: _Reasons, config: SteadyLoadConfig
) -> Goodput | None:
    """Return the goodput of all requests that ended in the window, well or not; None without limits."""
    if config.slo is None:
        return None
    ok = requests["status"] == "ok"
    ends = requests["last_token_ns"].where(ok, requests["end_ns"]).fillna(requests["end_ns"])
    ended = requests[requests["sent_ns"].notna() & within(ends, window)]
    return goodput(
        ended,
        chunk_times(ended, chunks),
        config.slo,
        window,
        scheduled=not reasons.no_schedule,
        reasons=reasons.run,
        notes=reasons.latency,
    )


def _schedule(requests: Path) -> pd.DataFrame | None:
    path = requests.with_name("schedule.parquet")
    return read_table(path, schedule_contract.SCHEDULE) if path.is_file() else None
