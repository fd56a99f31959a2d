"""What a load test comes to: its figures, its words on a terminal, and the servers' counters."""

import asyncio
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from msgspec import structs
from rich.console import Console

from inference_energy.acquire.server.pages import Access
from inference_energy.api.load_test.figures import LoadRunRecord, summarize_run
from inference_energy.api.load_test.prepare import read_counters, scrape
from inference_energy.api.load_test.settings import SentLoad
from inference_energy.config.analysis import AnalysisConfig, Slo
from inference_energy.contracts.documents.by_hand import ErrorCount, LoadEnergy, LoadTestDocument, LoadTestHeader
from inference_energy.contracts.documents.document import document_from_dict
from inference_energy.contracts.documents.session import LoadCell, LoadClient
from inference_energy.contracts.figure import Figure, Reason, json_values, missing_figure
from inference_energy.contracts.requests import SCHEMA
from inference_energy.contracts.schedule import SCHEDULE
from inference_energy.present.load_summary import load_summary

S = 1_000_000_000
START = 1000 * S


def requests(count: int, *, late_s: float = 0.0, **changes: Any) -> pd.DataFrame:
    """Requests every tenth of a second: first token after 50 ms, ten more at 10 ms, of 11 tokens."""
    rows = []
    for number in range(count):
        due = START + number * S // 10
        sent = due + round(late_s * S)
        row = {
            **{"request_id": number, "cell": "load-test", "worker": 0, "endpoint": "e", "prompt_id": 0, "attempts": 1},
            **{"scheduled_ns": due, "sent_ns": sent, "first_token_ns": sent + S // 20},
            **dict.fromkeys(("last_token_ns", "end_ns"), sent + 3 * S // 20),
            **{"prompt_tokens": 7, "cached_tokens": 0, "completion_tokens": 11},
            **{"finish_reason": "length", "status": "ok", "status_code": 200, **changes},
        }
        rows.append(row)
    frame = pd.DataFrame(rows).reindex(columns=SCHEMA.names)
    texts = [field.name for field in SCHEMA if str(field.type) == "string"]
    integers = [field.name for field in SCHEMA if str(field.type) == "int64"]
    return frame.astype({**dict.fromkeys(integers, "Int64"), **dict.fromkeys(texts, object)})


def counters(rise: dict[str, int]) -> pd.DataFrame:
    """Two scrapes around everything."""
    names = {"generated": "generation_tokens_total", "prompt": "prompt_tokens_total"}
    names["cached"] = "prompt_tokens_cached_total"
    rows = [
        {"timestamp_ns": at, "name": f"vllm:{names[kind]}", "labels": "{}", "value": 100.0 + gained}
        for kind, value in rise.items()
        for at, gained in ((START - 1, 0), (10**15, value))
    ]
    return pd.DataFrame(rows)


CLIENT = LoadClient(cells={"load-test": LoadCell(cpu_s=2.0)})
HEADER = LoadTestHeader(
    version=1,
    endpoints=["e"],
    model="m",
    arrival="constant",
    duration_s=100.0,
    warmup_s=0.0,
    seed=1,
    interrupted=False,
    failure=None,
    notes=[],
)
WHOLE = SentLoad(START, START + 100 * S, START + 101 * S, client=CLIENT)


def summary(
    rows: pd.DataFrame,
    *,
    scheduled: bool = True,
    limits: Slo | None = None,
    sent: SentLoad = WHOLE,
    scrapes: pd.DataFrame | None = None,
    schedule: pd.DataFrame | None = None,
) -> LoadTestDocument:
    """The summary as it was written and read again."""
    planned = pd.DataFrame(columns=SCHEDULE.names) if schedule is None else schedule
    test = LoadRunRecord(rows, planned, None, sent, scheduled, {"requests": "r.csv"})
    read = (scrapes, None if scrapes is not None else "no /metrics at e (404)")
    document = summarize_run(HEADER, test, read, limits, AnalysisConfig())
    again = document_from_dict(json_values(document), LoadTestDocument, "summary.json")
    assert json_values(again) == json_values(document)
    return again


def shown(result: LoadTestDocument) -> str:
    written = io.StringIO()
    Console(file=written, width=140).print(load_summary(result))
    return written.getvalue()


def test_rates_latencies_goodput_and_cost() -> None:
    result = summary(requests(1000), limits=Slo(ttft_s=0.06, tpot_s=0.02))
    values = {name: figure.value for name, figure in result.figures.items()}
    assert values["offered_requests_per_s"] == pytest.approx(10)
    assert values["requests_per_s"] == pytest.approx(10, abs=0.02)
    assert values["output_tokens_per_s"] == pytest.approx(110, rel=0.01)
    assert values["ttft_p99_s"] == pytest.approx(0.05)
    assert values["tpot_p50_s"] == pytest.approx(0.01)
    assert values["e2e_from_schedule_p90_s"] == pytest.approx(0.15)
    assert values["goodput_share"] == 1
    assert values["goodput_requests_per_s"] == pytest.approx(10)
    assert result.samples["tpot"] == 1000
    assert result.client is not None
    assert result.client.figures["cpu_s_per_1k_output_tokens"].value == pytest.approx(2 / 11)
    text = shown(result)
    for part in ("1,000 sent: 1,000 ok", "no /metrics at e (404)", "100 %", "50.0 ms", "from schedule", "p99.9"):
        assert part in text
    assert "How long the machine's CPUs were busy was not recorded" in text


def test_percentiles_stand_above_their_intervals_within_80_columns() -> None:
    rows = requests(5000)
    rows["first_token_ns"] += (pd.Series(range(5000)) * 7919 % 5000 * 20_000).astype("Int64")
    figure = summary(rows).figures["ttft_p99_9_s"]
    assert figure.interval_95 is not None
    assert figure.value is not None
    low, high = figure.interval_95
    assert low < figure.value < high
    written = io.StringIO()
    Console(file=written, width=80).print(load_summary(summary(rows)))
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    head = next(line.split() for line in lines if line.startswith("latency"))
    assert head == ["latency", "p50", "p90", "p99", "p99.9", "n"]
    place = next(number for number, line in enumerate(lines) if line.startswith("TTFT"))
    assert lines[place].split()[-1] == "5,000"
    assert lines[place].count(" ms") == 4
    assert lines[place + 1].startswith("from schedule")
    assert lines[place + 1].count("–") == 4


def test_a_percentile_that_no_latency_has_is_said_once() -> None:
    text = " ".join(shown(summary(requests(100))).split())
    assert text.count("not given: p99.9 of all latencies: Percentile 99.9 of 100 values") == 1
    rows = requests(100)
    rows["first_token_ns"] = pd.NA
    text = " ".join(shown(summary(rows)).split())
    assert "p99.9 of TTFT" in text
    assert "p99.9 of end to end" in text


def test_the_clients_share_of_the_machine_and_of_its_energy() -> None:
    result = summary(requests(1000), sent=replace(WHOLE, machine_busy_s=40.0))
    client = result.client
    assert client is not None
    assert client.figures["share_of_busy_cpu"].value == pytest.approx(0.05)
    assert "5.00 % of this machine's busy CPU time" in shown(result)

    def shown_with(share: Figure) -> str:
        figures = {**client.figures, "share_of_energy": share}
        return shown(structs.replace(result, client=structs.replace(client, figures=figures)))

    known = Figure(0.012, "share", "none", "gpu + cpu_package", "modelled")
    assert "1.20 % of the energy (modelled)" in shown_with(known)
    unknown = Reason("client_energy_unknown", "No sensor measured the CPU.")
    missing = missing_figure("share", "none", "gpu + cpu_package", "modelled", unknown)
    assert "of the energy: No sensor measured the CPU." in shown_with(missing)


def test_queueing_is_the_servers_histogram_unless_a_warm_up_is_in_it() -> None:
    def queued(at: int, count: float, seconds: float) -> list[dict[str, Any]]:
        name = "vllm:request_queue_time_seconds"
        values = {"_count": ("{}", count), "_sum": ("{}", seconds), "_bucket": ('{"le": "+Inf"}', count)}
        return [
            {"timestamp_ns": at, "name": name + end, "labels": labels, "value": value}
            for end, (labels, value) in values.items()
        ]

    exact = counters({"generated": 11_000, "prompt": 7_000, "cached": 0})
    rows = requests(1000)
    scrapes = pd.concat([exact, pd.DataFrame([*queued(START - 1, 5, 1.0), *queued(START + 101 * S + 1, 1005, 21.0)])])
    assert summary(rows, scrapes=scrapes).figures["queue_mean_s"].value == pytest.approx(0.02)
    assert "mean 20.0 ms" in shown(summary(rows, scrapes=scrapes))
    rows.loc[0, "cell"] = "warmup"
    assert "queue_mean_s" not in summary(rows, scrapes=scrapes).figures


def test_limits_count_from_the_schedule() -> None:
    rows = requests(1000)
    rows.loc[rows.index[:100], "scheduled_ns"] -= S // 20
    result = summary(rows, limits=Slo(ttft_s=0.06))
    assert result.figures["goodput_share"].value == pytest.approx(0.9)


def test_a_client_that_was_too_late_gives_no_latencies() -> None:
    result = summary(requests(1000, late_s=0.2), limits=Slo(ttft_s=0.06))
    assert result.lateness_s is not None
    assert result.lateness_s.p99 == pytest.approx(0.2)
    for name in ("ttft_p50_s", "requests_per_s", "output_tokens_per_s", "goodput_share"):
        figure = result.figures[name]
        assert figure.value is None
        assert figure.reasons[0].code == "client_lag"
    assert result.figures["offered_requests_per_s"].value == pytest.approx(10)
    text = " ".join(shown(result).split())
    assert "0.200 s or more after schedule" in text
    assert "50.0 ms" not in text


def test_a_closed_loop_has_no_lateness_and_no_offered_rate() -> None:
    result = summary(requests(1000, late_s=0.2), scheduled=False)
    assert result.lateness_s is None
    assert result.figures["ttft_p50_s"].value == pytest.approx(0.05)
    text = shown(result)
    assert "offered" not in text
    assert "from schedule" not in text


def test_without_a_stream_the_end_to_end_time_is_that_of_the_answer() -> None:
    result = summary(requests(1000, first_token_ns=None, last_token_ns=None), limits=Slo(e2e_s=0.2))
    assert result.figures["e2e_p50_s"].value == pytest.approx(0.15)
    assert result.figures["ttft_p50_s"].value is None
    assert result.figures["goodput_share"].value == 1


def test_totals_agree_exactly_or_say_by_how_much_and_why() -> None:
    rows = requests(1000)
    exact = {"generated": 11_000, "prompt": 7_000, "cached": 0}
    assert shown(summary(rows, scrapes=counters(exact))).count("agrees exactly") == 3
    rows.loc[rows.index[-1], "status"] = "aborted"
    rows.loc[rows.index[-1], ["completion_tokens", "prompt_tokens", "last_token_ns"]] = pd.NA
    text = " ".join(shown(summary(rows, scrapes=counters(exact))).split())
    assert "10,989, server 11,000: the server counted 11 more: 1 request(s)" in text
    more = {**exact, "generated": 12_000}
    text = " ".join(shown(summary(requests(1000), scrapes=counters(more))).split())
    assert "the server counted 1,000 more, and nothing recorded explains it" in text


@pytest.mark.parametrize("order", [1, -1])
def test_the_counters_of_another_model_on_the_page_are_not_the_loads(order: int) -> None:
    """Of series that differ in `model_name` alone, vLLM pull request 11117 and routers, one was taken for the other."""
    own = counters({"generated": 11_000, "prompt": 7_000, "cached": 0}).assign(labels='{"model_name":"m"}')
    idle = counters({"generated": 0, "prompt": 0, "cached": 0}).assign(labels='{"model_name":"other"}')
    scrapes = pd.concat([own, idle][::order]).sort_values("timestamp_ns", kind="stable")
    assert shown(summary(requests(1000), scrapes=scrapes)).count("agrees exactly") == 3


def test_failures_are_counted_by_what_they_say() -> None:
    rows = requests(1000)
    rows.loc[rows.index[:3], ["status", "error"]] = ["failed", "HTTP 500: out of memory"]
    rows.loc[rows.index[3:4], ["status", "error"]] = ["failed", "timed out"]
    result = summary(rows)
    assert result.errors == [
        ErrorCount(error="HTTP 500: out of memory", count=3),
        ErrorCount(error="timed out", count=1),
    ]
    assert result.requests.failed == 4
    assert "3 failed: HTTP 500: out of memory." in shown(result)


def test_prompts_of_another_length_at_the_server_are_told() -> None:
    rows = requests(1000)
    planned = pd.DataFrame({"request_id": range(1000), "prompt_tokens": [7] * 990 + [5] * 10, "max_tokens": 11})
    result = summary(rows, schedule=planned)
    assert result.prompt_lengths is not None
    assert result.prompt_lengths.different == 10
    assert "10 of 1000 prompts" in " ".join(shown(result).split())
    assert summary(rows).prompt_lengths is None


def test_nothing_sent_is_no_error() -> None:
    result = summary(requests(1000).iloc[:0], sent=SentLoad(stopped_ns=START))
    assert result.figures == {}
    assert "0 sent: none ended" in shown(result)


def test_an_interrupted_load_counts_up_to_when_it_was_stopped() -> None:
    result = summary(requests(100), sent=SentLoad(stopped_ns=START + 20 * S))
    assert result.sent_s == pytest.approx(20)
    assert result.figures["offered_requests_per_s"].value == pytest.approx(5)


def test_counters_of_all_endpoints_add_up(stub_endpoint: Any, tmp_path: Path) -> None:
    endpoints = [stub_endpoint(), stub_endpoint()]
    asyncio.run(scrape(endpoints, tmp_path / "before", Access()))
    asyncio.run(scrape(endpoints, tmp_path / "after", Access()))
    rows, why = read_counters(tmp_path / "before", tmp_path / "after", (1, 2))
    assert why is None
    assert rows is not None
    assert set(rows["timestamp_ns"]) == {1, 2}
    assert (rows["name"] == "vllm:generation_tokens_total").sum() == 4
    assert not ((rows["timestamp_ns"] == 2) & rows["name"].str.endswith("_created")).any(), "no server was restarted"


def test_no_metrics_is_said(tmp_path: Path) -> None:
    for name in ("before", "after"):
        asyncio.run(scrape(["http://127.0.0.1:9"], tmp_path / name, Access()))
    rows, why = read_counters(tmp_path / "before", tmp_path / "after", (1, 2))
    assert rows is None
    assert why is not None
    assert why.startswith("no /metrics at http://127.0.0.1:9 (")


def test_an_energy_that_cannot_be_trusted_says_why_in_place_of_a_number() -> None:
    """As with a sensor that stood still; what `analyze` withholds is never shown."""
    stuck = Reason("stuck_sensor", "The power of gpu did not change for 9.0 s.")
    units = {"energy_total_j": "J", "power_mean_w": "W"}
    figures = {name: missing_figure(unit, "total", "gpu", "counter", stuck) for name, unit in units.items()}
    text = shown(structs.replace(summary(requests(100)), energy=LoadEnergy(why=None, faults=[], figures=figures)))
    assert "not given: energy, power" in text
    assert "The power of gpu did not change for 9.0 s." in text


PER_TOKEN = ("output_tokens_per_s", "tpot_p50_s")


@pytest.mark.parametrize("uncounted", [1, 500, 1000])
def test_without_counts_of_all_answers_nothing_is_made_of_those_that_there_are(uncounted: int) -> None:
    rows = requests(1000)
    rows.loc[rows.index[:uncounted], ["completion_tokens", "prompt_tokens", "cached_tokens"]] = pd.NA
    result = summary(rows, limits=Slo(tpot_s=0.02))
    assert (result.tokens.prompt, result.tokens.completion, result.tokens.cached) == (None, None, None)
    assert result.client is not None
    assert result.client.output_tokens is None
    figures = {**result.figures, **result.client.figures}
    for name in (
        *PER_TOKEN,
        "cpu_s_per_1k_output_tokens",
        "goodput_share",
        "goodput_requests_per_s",
        "good_output_tokens",
    ):
        assert figures[name].value is None, name
        assert [reason.code for reason in figures[name].reasons] == ["token_counts_missing"], name
    assert result.limits is not None
    assert result.limits["tpot_s"].over is None
    assert result.figures["requests_per_s"].value == pytest.approx(10, abs=0.02)
    assert result.figures["ttft_p50_s"].value == pytest.approx(0.05)
    text = " ".join(shown(result).split())
    assert f"no usable count of completion tokens for {uncounted} of 1000 request(s)" in text


@pytest.mark.parametrize(("column", "kind"), [("prompt_tokens", "prompt"), ("cached_tokens", "cached")])
def test_a_kind_of_tokens_that_was_not_counted_costs_that_kind_alone(column: str, kind: str) -> None:
    result = summary(requests(1000, **{column: None}))
    totals = {"prompt": 7000, "completion": 11_000, "cached": 0, kind: None}
    assert json_values(result.tokens) == totals
    assert result.figures["output_tokens_per_s"].value == pytest.approx(110, rel=0.01)


def test_answers_that_broke_off_uncounted_are_let_pass_only_if_few() -> None:
    rows = requests(1000)
    most = round(1000 * AnalysisConfig().max_failed_share)
    few, many = rows.index[:most], rows.index[: most + 1]
    rows.loc[few, ["status", "completion_tokens", "finish_reason"]] = ["failed", pd.NA, "abort"]
    assert summary(rows).figures["output_tokens_per_s"].value is not None
    rows.loc[many, ["status", "completion_tokens"]] = ["aborted", pd.NA]
    (reason,) = summary(rows).figures["output_tokens_per_s"].reasons
    assert (reason.code, reason.detail.split()[:3]) == ("token_counts_missing", [str(most + 1), "of", "1000"])


def test_answers_that_the_server_gave_up_are_in_no_latency_and_no_goodput() -> None:
    rows = requests(1000)
    given_up = rows.index[::2]
    rows.loc[given_up, ["status", "error", "finish_reason"]] = ["failed", "finish_reason abort", "abort"]
    rows.loc[given_up, "first_token_ns"] += 5 * S
    result = summary(rows, limits=Slo(e2e_s=1.0))
    assert (result.requests.ok, result.requests.failed) == (500, 500)
    assert result.errors == [ErrorCount(error="finish_reason abort", count=500)]
    assert result.figures["ttft_p90_s"].value == pytest.approx(0.05)
    assert result.figures["goodput_share"].value == pytest.approx(0.5)
    assert result.tokens.completion == 5500


def test_goodput_above_the_achieved_rate_says_why() -> None:
    rows = requests(1000)
    late = rows.index[500:]
    rows.loc[late, ["last_token_ns", "end_ns"]] += 60 * S
    result = summary(rows, limits=Slo(ttft_s=0.06))
    good, achieved = (result.figures[name] for name in ("goodput_requests_per_s", "requests_per_s"))
    assert good.value is not None
    assert achieved.value is not None
    assert good.value > achieved.value
    assert [reason.code for reason in good.reasons] == ["ended_in_drain"]
    assert "goodput: Goodput exceeds the achieved rate" in " ".join(shown(result).split())
    assert summary(requests(1000), limits=Slo(ttft_s=0.01)).figures["goodput_requests_per_s"].reasons == ()


def test_the_table_names_the_causes_that_the_document_has_and_no_others() -> None:
    rows = requests(1000)
    rows.loc[rows.index[-1], ["status", "completion_tokens"]] = ["failed", pd.NA]
    for surplus in (5, 4000):
        result = summary(rows, scrapes=counters({"generated": 11_000 - 11 + surplus, "prompt": 7000}))
        assert result.counters.tokens is not None
        row = result.counters.tokens.generated
        assert row is not None
        text = " ".join(shown(result).split())
        assert f"the server counted {surplus:,} more: {'; '.join(row.causes)}" in text
        assert (f"which can explain {row.explained:,}" in text) is bool(row.unexplained)
    rows = requests(1000, first_token_ns=None, last_token_ns=None)
    rows.loc[rows.index[-1], "status"] = "failed"  # its tokens are counted, so it explains nothing
    result = summary(rows, scrapes=counters({"generated": 11_005, "prompt": 7000}))
    assert result.counters.tokens is not None
    assert result.counters.tokens.generated is not None
    expected = result.counters.tokens.generated.causes or ["and nothing recorded explains it"]
    assert expected[0] in " ".join(shown(result).split())
