"""Figures of a load test, computed as in the analysis but over the whole test instead of a window.

Latencies and goodput cover all requests that were due in the sending time, whenever they ended, so they include the
slow ones that end in the drain. Rates count events within the sending time.
"""

from collections import Counter
from dataclasses import dataclass

import msgspec
import numpy as np
import pandas as pd

from inference_energy.acquire.load.standalone import CELL
from inference_energy.analysis.client_cost import client_cost
from inference_energy.analysis.counts import missing_counts, send_lag
from inference_energy.analysis.figures import make_figure
from inference_energy.analysis.latency import goodput, latency_figures, samples
from inference_energy.analysis.server_metrics import ServerMetrics, queue_times
from inference_energy.analysis.token_reconciliation import CellSpan, compare_cell, prompt_lengths
from inference_energy.analysis.token_times import TokenTimes, chunk_times
from inference_energy.analysis.windows import Window
from inference_energy.api.load_test.settings import SentLoad
from inference_energy.config.analysis import AnalysisConfig, Slo
from inference_energy.contracts.documents.by_hand import (
    CounterComparison,
    ErrorCount,
    LoadPromptLengths,
    LoadTestDocument,
    LoadTestHeader,
    RequestOutcomes,
    TokenTotals,
)
from inference_energy.contracts.documents.windows import ClientLag
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.reason_codes import reason

ERRORS_SHOWN = 5


@dataclass(frozen=True)
class LoadRunRecord:
    """The recorded data of a load test.

    Attributes:
        requests: rows of requests.parquet, including the warm-up's.
        schedule: rows of schedule.parquet.
        chunks: rows of chunks.parquet, if the test records them.
        sent: the parent's record.
        scheduled: whether requests had times of their own.
        files: path of each file that is written, by content.
    """

    requests: pd.DataFrame
    schedule: pd.DataFrame
    chunks: pd.DataFrame | None
    sent: SentLoad
    scheduled: bool
    files: dict[str, str]

    @property
    def around_ns(self) -> tuple[int, int]:
        """Return the times just before the first request and just after the end of the last."""
        ended = [self.sent.drained_ns, self.sent.stopped_ns, *self.requests["end_ns"].dropna()]
        last_ns = max((int(time) for time in ended if time is not None), default=1)
        begun_ns = self.requests["scheduled_ns"].min() if len(self.requests) else last_ns
        return int(begun_ns) - 1, last_ns + 1

    @property
    def measured(self) -> pd.DataFrame:
        """Return the requests of the cell `load-test`."""
        return self.requests[self.requests["cell"] == CELL].reset_index(drop=True)

    @property
    def window(self) -> Window | None:
        """Return the time in which requests were sent; None if none was."""
        if self.sent.start_ns is not None and self.sent.end_ns is not None:
            return Window(CELL, self.sent.start_ns, self.sent.end_ns)
        requests = self.measured
        if requests.empty or self.sent.stopped_ns is None:
            return None
        return Window(
            CELL,
            int(requests["scheduled_ns"].min()),
            max(self.sent.stopped_ns, int(requests["scheduled_ns"].max()) + 1),
        )


def summarize_run(
    header: LoadTestHeader,
    test: LoadRunRecord,
    counters: tuple[pd.DataFrame | None, str | None],
    limits: Slo | None,
    config: AnalysisConfig,
) -> LoadTestDocument:
    """Return counts, figures, send lag, the client's cost, and token totals compared with the servers' counters.

    Args:
        header: the settings.
        test: the records.
        counters: rows of server_metrics.parquet at the times of `around_ns`, or None and why there are none.
        limits: for goodput.
        config: largest send lag and tolerances, the same as the pipeline's.
    """
    requests, window = _ended(test.measured), test.window
    ok = requests[requests["status"] == "ok"]
    summary = LoadTestDocument(
        **msgspec.structs.asdict(header),
        requests=_outcomes(requests),
        errors=_errors(requests),
        tokens=TokenTotals(
            prompt=_tokens(ok, "prompt"), completion=_tokens(ok, "completion"), cached=_tokens(ok, "cached")
        ),
        sent_s=window.duration_s if window else 0.0,
        drained_s=_drained_s(test, window),
        lateness_s=None,
        figures={},
        samples={},
        limits=None,
        client=client_cost(
            test.sent.client,
            test.sent.machine_busy_s,
            CELL,
            int(requests["completion_tokens"].fillna(0).sum()),
            _missing_tokens(requests, config),
        ),
        counters=_against_counters(test, counters, header.model, config),
        prompt_lengths=_prompt_lengths(test),
        files=test.files,
    )
    if window is None or window.duration_s <= 0:
        return summary
    lag = send_lag(requests) if test.scheduled else None
    late = _late(lag, config)
    no_schedule = [] if test.scheduled else [reason("no_schedule", "A closed loop has no schedule.")]
    latencies = samples(ok, chunk_times(ok, test.chunks))
    figures = _rates(requests, ok, window, late, no_schedule, _missing_tokens(requests, config))
    figures |= latency_figures(latencies, window, late, [], no_schedule)
    figures |= _queueing(test, counters[0], header.model)
    slo = None
    if limits is not None:
        slo = goodput(
            requests,
            chunk_times(requests, test.chunks),
            limits,
            window,
            scheduled=test.scheduled,
            reasons=late,
            notes=[],
        )
        figures |= slo.figures
        figures["goodput_requests_per_s"] = _beside(slo.figures["goodput_requests_per_s"], figures["requests_per_s"])
    return msgspec.structs.replace(
        summary,
        lateness_s=lag,
        figures=figures,
        samples={name: len(sample.values_s) for name, sample in latencies.items()},
        limits=slo.limits if slo else None,
    )


def _ended(requests: pd.DataFrame) -> pd.DataFrame:
    """Fill in the time of the last token: without a stream, the end of the answer."""
    unstreamed = requests["status"].eq("ok") & requests["last_token_ns"].isna()
    return requests.assign(last_token_ns=requests["last_token_ns"].mask(unstreamed, requests["end_ns"]))


def _outcomes(requests: pd.DataFrame) -> RequestOutcomes:
    by_status = requests["status"].value_counts()
    counts = {name: int(by_status.get(name, 0)) for name in ("ok", "failed", "aborted", "skipped")}
    return RequestOutcomes(sent=int(requests["sent_ns"].notna().sum()), **counts)


def _errors(requests: pd.DataFrame) -> list[ErrorCount]:
    texts = Counter(map(str, requests.loc[requests["status"] == "failed", "error"]))
    return [ErrorCount(error=text, count=count) for text, count in texts.most_common(ERRORS_SHOWN)]


def _tokens(ok: pd.DataFrame, kind: str) -> int | None:
    counts = ok[f"{kind}_tokens"]
    return None if counts.isna().any() else int(counts.sum())


def _missing_tokens(requests: pd.DataFrame, config: AnalysisConfig) -> list[Reason]:
    """Return the reason if generated tokens were counted for too few requests.

    A request that failed or was cut off after its first token mostly has no count; a few of them are let pass.
    """
    reasons = missing_counts(requests[requests["status"] == "ok"], "completion")
    begun = requests[requests["first_token_ns"].notna()]
    lost = int((begun["status"].ne("ok") & begun["completion_tokens"].isna()).sum())
    if lost > config.max_failed_share * len(begun):
        text = (
            f"{lost} of {len(begun)} request(s) were cut off or failed after their first token, without a token count."
        )
        reasons.append(reason("token_counts_missing", text))
    return reasons


def _drained_s(test: LoadRunRecord, window: Window | None) -> float:
    """Return the time from the end of sending to the end of the last request."""
    return max(0.0, (test.around_ns[1] - 1 - window.end_ns) / 1e9) if window else 0.0


def _late(lag: ClientLag | None, config: AnalysisConfig) -> list[Reason]:
    """Return the reason if the client was too late to offer the planned load, by the rule of the pipeline."""
    if lag is None or lag.p99 <= config.max_client_lag_s:
        return []
    text = (
        f"The client sent 1 % of the requests {lag.p99:.3f} s or more after schedule; at most "
        f"{config.max_client_lag_s:g} s is allowed. Use more workers, or give the client a core of its own."
    )
    return [reason("client_lag", text)]


def _rates(
    requests: pd.DataFrame,
    ok: pd.DataFrame,
    window: Window,
    late: list[Reason],
    no_schedule: list[Reason],
    missing: list[Reason],
) -> dict[str, Figure]:
    """Return the rates of due requests, successful requests and tokens in the sending time."""
    due = int(requests["scheduled_ns"].between(window.start_ns, window.end_ns, inclusive="left").sum())
    ends_ns = ok["last_token_ns"].fillna(ok["end_ns"]).to_numpy(dtype=np.int64)
    ended = int(((ends_ns >= window.start_ns) & (ends_ns < window.end_ns)).sum())
    tokens = int(TokenTimes.from_requests(requests).completion_inside(window.start_ns, window.end_ns).sum())

    def rate(count: int, unit: str, reasons: list[Reason]) -> Figure:
        return make_figure(count / window.duration_s, unit, boundary="client", grade="counted", reasons=reasons)

    return {
        "offered_requests_per_s": rate(due, "request/s", no_schedule),
        "requests_per_s": rate(ended, "request/s", late),
        "output_tokens_per_s": rate(tokens, "token/s", [*late, *missing]),
    }


def _beside(good: Figure, achieved: Figure) -> Figure:
    """Return the goodput, with a note where it exceeds the achieved rate."""
    if good.value is None or achieved.value is None or good.value <= achieved.value:
        return good
    text = (
        f"Goodput exceeds the achieved rate, {achieved.value:.3g} request/s: it includes requests that were due in the "
        "sending time and ended after it."
    )
    return msgspec.structs.replace(good, reasons=(*good.reasons, reason("ended_in_drain", text)))


def _queueing(test: LoadRunRecord, rows: pd.DataFrame | None, model: str) -> dict[str, Figure]:
    """Return the increase of the servers' queue-time histogram, if it covers only the measured requests."""
    if rows is None or len(test.measured) < len(test.requests):
        return {}
    return queue_times(ServerMetrics(rows, model), *test.around_ns, [], [])


def _prompt_lengths(test: LoadRunRecord) -> LoadPromptLengths | None:
    """Compare planned prompt lengths with the server's count; return None if none was planned."""
    lengths, reasons = prompt_lengths(test.measured, test.schedule)
    if lengths is None:
        return None
    return LoadPromptLengths(**msgspec.structs.asdict(lengths), note=reasons[0].detail if reasons else None)


def _against_counters(
    test: LoadRunRecord, counters: tuple[pd.DataFrame | None, str | None], model: str, config: AnalysisConfig
) -> CounterComparison:
    """Compare the token totals of all requests, including the warm-up's, with the increase of the servers' counters."""
    rows, why = counters
    if rows is None:
        return CounterComparison(why=why)
    before_ns, after_ns = test.around_ns
    span = CellSpan(before_ns + 1, after_ns - 1, None)
    metrics = ServerMetrics(rows, model)
    table, reasons = compare_cell(test.requests, test.schedule, metrics, span, config.token_tolerance)
    return CounterComparison(**msgspec.structs.asdict(table), reasons=reasons)
