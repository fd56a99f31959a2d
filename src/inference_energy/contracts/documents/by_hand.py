"""Documents of the commands by hand: a load test, and the figures of two logs.

Their names are the user's, so FILE stands for what is written to `--json` and `--output`.
"""

from typing import ClassVar

from inference_energy.contracts.documents.document import Document, Part
from inference_energy.contracts.documents.windows import CellTotals, ClientCost, ClientLag, LimitCount, PromptLengths
from inference_energy.contracts.figure import Figure, Reason
from inference_energy.contracts.grades import Grade


class PlanFacts(Part, frozen=True, kw_only=True):
    """Counts of a load test's plan, in what `load-test --plan-only --json` writes.

    Attributes:
        requests: number of requests.
        prompts: number of different prompts.
        users: number of users of a closed loop; zero in an open loop.
        conversations: number of conversations.
        last_arrival_s: when the last request is due; null for a closed loop.
        prompt_tokens: prompt tokens of all requests; null where only the server can count them.
        most_output_tokens: most tokens that all requests together can generate.
    """

    requests: int
    prompts: int
    users: int
    conversations: int
    last_arrival_s: float | None
    prompt_tokens: int | None
    most_output_tokens: int


class RequestOutcomes(Part, frozen=True, kw_only=True):
    """Requests by outcome, without the warm-up's.

    Attributes:
        sent: requests that were sent.
        ok: requests that ended well.
        failed: requests that failed.
        aborted: requests that were cut off.
        skipped: later turns of a conversation that were never sent.
    """

    sent: int
    ok: int
    failed: int
    aborted: int
    skipped: int


class ErrorCount(Part, frozen=True, kw_only=True):
    """Failed requests with the same error.

    Attributes:
        error: the error.
        count: number of requests.
    """

    error: str
    count: int


class TokenTotals(Part, frozen=True, kw_only=True):
    """Tokens of the requests that ended well, by the `usage` of their answers; null where one of them has no count.

    Attributes:
        prompt: prompt tokens.
        completion: generated tokens.
        cached: those of the prompt tokens that came from the prefix cache.
    """

    prompt: int | None
    completion: int | None
    cached: int | None


class CounterComparison(CellTotals, frozen=True, kw_only=True):
    """The totals of all requests, with the warm-up's, against the servers' counters.

    Attributes:
        reasons: what the comparison found; absent where a server has no counters.
    """

    reasons: list[Reason] | None = None


class LoadPromptLengths(PromptLengths, frozen=True, kw_only=True):
    """Prompt lengths that were asked for against those that the server read.

    Attributes:
        note: the difference in a sentence; null without one.
    """

    note: str | None


class EnergyWindow(Part, frozen=True, kw_only=True):
    """The time from the first request sent to the last one ended.

    Attributes:
        start_ns: its start, Unix time.
        end_ns: its end, Unix time.
    """

    start_ns: int
    end_ns: int


class LoadEnergy(Part, frozen=True, kw_only=True):
    """Energy of a load test; only `why` and `faults` where it cannot be computed.

    Attributes:
        why: why it cannot be computed; null where it can.
        boundary: the power domains inside.
        grade: the weakest grade of the power sources.
        window: the time that it covers.
        faults: sentences about readings that cannot be right.
        figures: `power_mean_w`, `energy_total_j`, `energy_total_per_output_token_j` and `energy_total_per_request_j`.
    """

    why: str | None
    boundary: str | None = None
    grade: Grade | None = None
    window: EnergyWindow | None = None
    faults: list[str]
    figures: dict[str, Figure] | None = None


class LoadTestHeader(Document, frozen=True, kw_only=True):
    """The settings of a load test, and how it ended.

    Attributes:
        version: version of the document.
        endpoints: base URLs.
        model: model name at the endpoints.
        arrival: the arrival process, such as `poisson` or `closed`.
        duration_s: how long requests were to be sent.
        warmup_s: length of the warm-up; zero without one.
        seed: seed of every random draw.
        interrupted: whether the user ended it early.
        failure: why it broke off; null if it did not.
        notes: what the plan left out.
    """

    FILE: ClassVar[str] = "<load-test>.json"

    version: int
    endpoints: list[str]
    model: str
    arrival: str
    duration_s: float
    warmup_s: float
    seed: int
    interrupted: bool
    failure: str | None
    notes: list[str]


class LoadTestDocument(LoadTestHeader, frozen=True, kw_only=True):
    """The summary of a load test, which `load-test --json <load-test>.json` writes.

    Latencies and goodput cover all requests that were due in the sending time, whenever they ended; rates count what
    fell into that time.

    Attributes:
        requests: requests by outcome.
        errors: the most frequent errors.
        tokens: tokens of the requests that ended well.
        sent_s: how long requests were sent.
        drained_s: time from then to the end of the last request.
        lateness_s: how late requests were sent; null for a closed loop, which has no schedule, and where nothing was
            sent.
        figures: rates and latencies, named as in summary.json; empty where nothing was sent.
        samples: number of values of each latency.
        limits: requests against each limit of `--limits`; null without limits.
        client: what the load processes took; null where it was not recorded. With power, its figures include
            `energy_j` and `share_of_energy`.
        counters: totals against the servers' counters.
        prompt_lengths: prompt lengths against those asked for; null where they cannot be compared.
        energy: energy by the power log; absent without `--power`.
        files: path of each file that was written, by content.
    """

    requests: RequestOutcomes
    errors: list[ErrorCount]
    tokens: TokenTotals
    sent_s: float
    drained_s: float
    lateness_s: ClientLag | None
    figures: dict[str, Figure]
    samples: dict[str, int]
    limits: dict[str, LimitCount] | None
    client: ClientCost | None
    counters: CounterComparison
    prompt_lengths: LoadPromptLengths | None
    energy: LoadEnergy | None = None
    files: dict[str, str]


class LogWindow(Part, frozen=True, kw_only=True):
    """The time from the first request of a log to the end of the last.

    Attributes:
        start_unix_s: its start, Unix time.
        end_unix_s: its end, Unix time.
        duration_s: its length.
    """

    start_unix_s: float
    end_unix_s: float
    duration_s: float


class LogRequests(Part, frozen=True, kw_only=True):
    """Requests of a log by outcome.

    Attributes:
        ok: requests that ended well.
        failed: the others.
    """

    ok: int
    failed: int


class LogCarbon(Part, frozen=True, kw_only=True):
    """Factors of the carbon figures.

    Attributes:
        intensity_g_per_kwh: carbon intensity [gCO2e/kWh].
        pue: power usage effectiveness.
    """

    intensity_g_per_kwh: float
    pue: float


class LogAnalysisDocument(Document, frozen=True, kw_only=True):
    """Energy of a power log and a request log, which `analyze --output <analysis>.json` writes.

    Attributes:
        version: version of the document.
        power_log: name of the power log.
        requests_log: name of the request log.
        window: the time that the figures cover.
        requests: requests by outcome.
        boundary: the power domains inside.
        grade: the weakest grade of the power readings.
        idle_power_w: idle power as the user states it; null: not stated, so no figure is active.
        uncertainty: what is taken as the error of the sensor, in words.
        assumptions: sentences on what was taken for granted in the logs of other tools.
        figures: figures by name, as in energy.json.
        carbon: factors of the carbon figures; absent without `--intensity`.
    """

    FILE: ClassVar[str] = "<analysis>.json"

    version: int
    power_log: str
    requests_log: str
    window: LogWindow
    requests: LogRequests
    boundary: str
    grade: Grade
    idle_power_w: float | None
    uncertainty: str
    assumptions: list[str]
    figures: dict[str, Figure]
    carbon: LogCarbon | None = None
