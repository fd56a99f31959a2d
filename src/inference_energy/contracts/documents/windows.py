"""launch.json, warmup.json and steady_load.json: start and warm-up of a server, and the load of each window."""

from typing import Any, ClassVar

from msgspec import UNSET, UnsetType

from inference_energy.contracts.documents.document import DerivedDocument, Part
from inference_energy.contracts.documents.session import LoadClient, StopFacts
from inference_energy.contracts.figure import Figure, Reason


class LaunchDocument(DerivedDocument, frozen=True, kw_only=True):
    """How the server came up, and whether it left anything behind.

    Attributes:
        ok: whether it became ready; true for an attached server.
        mode: `launch` or `attach`.
        model: name of the served model.
        server_version: version that the server states.
        ready_after_s: time until the server answered; null for an attached server.
        command: its command line; null for an attached server.
        start_ns: start of the launch.
        end_ns: when the server was ready.
        stop: last status of the guardian; null for an attached server.
        reasons: what is wrong with the launch, or worth knowing.
    """

    FILE: ClassVar[str] = "launch.json"

    ok: bool
    mode: str
    model: str | None
    server_version: str | None
    ready_after_s: float | None
    command: list[str] | None
    start_ns: int | None
    end_ns: int | None
    stop: StopFacts | None
    reasons: list[Reason]


class WarmupThroughput(Part, frozen=True, kw_only=True):
    """Token rate over the warm-up.

    Attributes:
        quarters_tokens_per_s: generated tokens/s in each quarter of the time in which requests were sent; empty where
            there were too few requests.
        settled: whether the last two quarters are alike; null where there were too few tokens to tell.
    """

    quarters_tokens_per_s: list[float]
    settled: bool | None


class WarmupDocument(DerivedDocument, frozen=True, kw_only=True):
    """Requests of the warm-up, and whether the server had settled by its end.

    Attributes:
        requests: requests of the warm-up.
        ok: requests that ended well.
        failed: requests that failed.
        aborted: requests that were cut off at the end of the drain.
        output_tokens: generated tokens.
        duration_s: length of the warm-up; null without one.
        throughput: token rate over the warm-up.
        reasons: what is wrong with the warm-up.
    """

    FILE: ClassVar[str] = "warmup.json"

    requests: int
    ok: int
    failed: int
    aborted: int
    output_tokens: int
    duration_s: float | None
    throughput: WarmupThroughput
    reasons: list[Reason]


class WindowLoad(Part, frozen=True, kw_only=True):
    """The load that a window asked for.

    Attributes:
        kind: `steady`, `prefill` or `decode`.
        workload: its workload in the configuration.
        arrival: its `arrival` in the configuration.
        duration_s: how long requests were to be sent, before trimming.
        text: the load in words, such as `Poisson 0.5 req/s, chat`.
    """

    kind: str
    workload: str
    arrival: dict[str, Any]
    duration_s: float | None = None
    text: str


class WindowCounts(Part, frozen=True, kw_only=True):
    """What fell into a window.

    Attributes:
        output_tokens: generated tokens.
        prompt_tokens: prompt tokens of the requests whose first token falls into it.
        cached_tokens: those of the prompt tokens that came from the prefix cache.
        cached_tokens_known: whether the server told `cached_tokens` for every request.
        scheduled: requests that were due; null without a schedule.
        started: requests that were sent.
        finished: requests that ended well.
        failed: requests that failed.
        aborted: requests that were cut off at the end of the drain.
        without_usage: requests for which the server gave no token counts.
        engine_steps: steps of the engine; null where the server does not count them.
    """

    output_tokens: int
    prompt_tokens: int
    cached_tokens: int
    cached_tokens_known: bool
    scheduled: int | None
    started: int
    finished: int
    failed: int
    aborted: int
    without_usage: int
    engine_steps: float | None


class Trend(Part, frozen=True, kw_only=True):
    """A trend test over equal blocks of a window (Mann-Kendall, Theil-Sen).

    Attributes:
        change_share: Theil-Sen change from the window's start to its end over the mean.
        p_value: p value of all tests of the window together (Bonferroni).
        limit: largest |change_share| of a steady window.
        exceeded: whether the trend is both significant and too large.
        block_means: mean of each block.
    """

    change_share: float
    p_value: float
    limit: float
    exceeded: bool
    block_means: list[float]


class LevelTest(Part, frozen=True, kw_only=True):
    """The first fifth of a window against its last half (Geweke's diagnostic).

    Attributes:
        difference_share: difference of the two means over the window's mean.
        z: difference over its standard error.
        p_value: p value of all tests of the window together (Bonferroni).
        limit: largest |difference_share| of a steady window.
        exceeded: whether the difference is both significant and too large.
    """

    difference_share: float
    z: float
    p_value: float
    limit: float
    exceeded: bool


class SteadinessVerdict(Part, frozen=True, kw_only=True):
    """Whether the load of a window was steady.

    Attributes:
        judged: whether the window was long enough for the tests.
        steady: the verdict; null where it was not judged.
        blocks: number of blocks.
        why_not_judged: why it was not judged.
        trends: trend test of `power_w`, `output_tokens_per_s`, `running_requests`, `requests_in_flight` and
            `kv_cache_use`, as far as they are known.
        stationarity: level test of `output_tokens_per_s` and `power_w`.
        required: whether the window should be steady, as those of kind `steady` should.
    """

    judged: bool
    steady: bool | None
    blocks: int
    why_not_judged: str | None
    trends: dict[str, Trend]
    stationarity: dict[str, LevelTest]
    required: bool


class TokenComparison(Part, frozen=True, kw_only=True):
    """The client's tokens of one kind in a window against the rise of the server's counter.

    Attributes:
        client: tokens by the client.
        server: rise of the server's counter, interpolated at the window's edges.
        difference: client less server.
        share: difference over the server's count; null where that is zero.
        allowance: largest error that reading the counter once a scrape can have at both edges together.
        agrees: whether the counts agree; null where the allowance is too large to tell.
    """

    client: int
    server: float
    difference: float
    share: float | None
    allowance: float
    agrees: bool | None


class TokenReconciliation(Part, frozen=True, kw_only=True):
    """The client's token counts in a window against the server's; null where its counter does not cover the window.

    Attributes:
        generated: generated tokens.
        prompt: prompt tokens.
        cached: prompt tokens from the prefix cache.
    """

    generated: TokenComparison | None
    prompt: TokenComparison | None
    cached: TokenComparison | None


class CellTokens(Part, frozen=True, kw_only=True):
    """Tokens of one kind over a whole window and its drain, client against server.

    Attributes:
        client: tokens by the client.
        server: rise of the server's counter.
        difference: client less server.
        explained: the part of the server's surplus that lost requests can explain.
        unexplained: the rest of it.
        causes: what can cause a difference, in words.
    """

    client: int
    server: int
    difference: int
    explained: int
    unexplained: int
    causes: list[str]


class CellTokenTotals(Part, frozen=True, kw_only=True):
    """Tokens over a whole window and its drain; null where a count is not known.

    Attributes:
        generated: generated tokens.
        prompt: prompt tokens.
        cached: prompt tokens from the prefix cache.
    """

    generated: CellTokens | None
    prompt: CellTokens | None
    cached: CellTokens | None


class FinishedRequests(Part, frozen=True, kw_only=True):
    """Requests with one finish reason.

    Attributes:
        client: number by the client.
        server: number by the server's counter; null where it has none.
    """

    client: int
    server: int | None


class CellRequestTotals(Part, frozen=True, kw_only=True):
    """Requests over a whole window and its drain.

    Attributes:
        sent: requests that were sent.
        not_whole: requests that were cut off, failed or gave no usage.
        of_others: requests that the server ended beyond those sent; null where it does not count them.
    """

    sent: int
    not_whole: int
    of_others: int | None


class CellTotals(Part, frozen=True, kw_only=True):
    """A whole window and its drain, client against server; only `why` where they cannot be compared.

    Attributes:
        why: why they cannot be compared; null where they can.
        engine: name of the serving engine.
        from_ns: scrape before the window.
        to_ns: last scrape before the next window.
        tokens: tokens.
        finished: requests by finish reason; those that did not end well are together under `not ok`.
        requests: requests.
        preemptions: preemptions by the server's counter; null where it has none.
    """

    why: str | None
    engine: str | None = None
    from_ns: int | None = None
    to_ns: int | None = None
    tokens: CellTokenTotals | None = None
    finished: dict[str, FinishedRequests] | None = None
    requests: CellRequestTotals | None = None
    preemptions: int | UnsetType | None = UNSET


class PromptLengths(Part, frozen=True, kw_only=True):
    """Prompt lengths that were asked for against those that the server read.

    Attributes:
        compared: prompts that were compared.
        different: prompts with another length.
        share: different over compared.
        mean_difference: mean of server's less asked length [token].
    """

    compared: int
    different: int
    share: float
    mean_difference: float


class ClientLag(Part, frozen=True, kw_only=True):
    """How late requests of a window were sent after they were due [s].

    Attributes:
        p50: median.
        p99: 99th percentile.
        max: largest.
    """

    p50: float
    p99: float
    max: float


class LimitCount(Part, frozen=True, kw_only=True):
    """Requests of a window against one limit of `analysis.limits`.

    Attributes:
        limit: the limit [s].
        over: requests over it; null where the latency was not recorded.
        of: requests that ended well.
    """

    limit: float
    over: int | None
    of: int


class WindowChecks(Part, frozen=True, kw_only=True):
    """Results of the checks of a window.

    Attributes:
        steadiness: whether the load was steady.
        reconciliation: token counts against the server's counters, over the window.
        whole_cell: totals against the server's counters, over the whole window and its drain.
        prompt_lengths: prompt lengths against those asked for; null where they cannot be compared.
        client_lag_s: how late requests were sent; null without a schedule.
        limits: requests against each configured limit; null without limits.
        preemptions: preemptions in the window; null where the server does not count them.
    """

    steadiness: SteadinessVerdict
    reconciliation: TokenReconciliation
    whole_cell: CellTotals
    prompt_lengths: PromptLengths | None
    client_lag_s: ClientLag | None
    limits: dict[str, LimitCount] | None
    preemptions: float | None


class ClientCost(Part, frozen=True, kw_only=True):
    """What the load client took in a window and its drain.

    Attributes:
        cpu_s: CPU time of the load processes.
        busy_cpu_s: busy CPU time of the machine; null where it was not recorded.
        output_tokens: generated tokens; null where the server did not count them for every request.
        workers: number of load processes.
        peak_rss_bytes: sum of their largest resident memories; null where it was not recorded.
        figures: `cpu_s_per_1k_output_tokens` and `share_of_busy_cpu`; in summary.json also the modelled `energy_j` and
            `share_of_energy`.
    """

    cpu_s: float
    busy_cpu_s: float | None
    output_tokens: int | None
    workers: int
    peak_rss_bytes: int | None
    figures: dict[str, Figure]


class WindowReasons(Part, frozen=True, kw_only=True):
    """Reasons of a window for later stages.

    Attributes:
        energy: reasons of energy and power.
        tokens: reasons of token counts.
    """

    energy: list[Reason]
    tokens: list[Reason]


class LoadWindow(Part, frozen=True, kw_only=True):
    """The load of one window.

    Attributes:
        kind: `steady`, `prefill` or `decode`.
        load: the load that was asked for.
        start_ns: start after trimming.
        end_ns: end after trimming.
        duration_s: length after trimming.
        counts: what fell into it.
        checks: results of its checks.
        client: what the load client took; null where it was not recorded.
        bins: counts in each bin of the window (one second): `output_tokens`, `prompt_tokens`, `cached_tokens`,
            `requests`, and with limits `good_requests` and `good_output_tokens`.
        figures: counts, rates and latencies, by name.
        reasons: reasons for later stages.
    """

    kind: str
    load: WindowLoad
    start_ns: int
    end_ns: int
    duration_s: float
    counts: WindowCounts
    checks: WindowChecks
    client: ClientCost | None
    bins: dict[str, list[int]]
    figures: dict[str, Figure]
    reasons: WindowReasons


class SteadyLoadDocument(DerivedDocument, frozen=True, kw_only=True):
    """The windows of a session after trimming: counts, checks, latencies.

    Attributes:
        client: what the load client took over the session, as in session.json.
        windows: each window by name.
    """

    FILE: ClassVar[str] = "steady_load.json"

    client: LoadClient | None
    windows: dict[str, LoadWindow]
