"""Polling /metrics, and what of it is logged."""

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest

from inference_energy.acquire.server.launch import launch_server
from inference_energy.acquire.server.metrics import (
    MetricsLog,
    MetricsPoller,
    PageReader,
    Series,
    TooManySeriesError,
    compact_metrics_log,
)
from inference_energy.acquire.server.settings import LaunchSpec
from inference_energy.contracts.engine_metrics import SGLANG, VLLM, engine_of
from inference_energy.contracts.io import read_metadata, read_table
from inference_energy.contracts.redaction import Redaction
from inference_energy.contracts.server_metrics import SCHEMA
from inference_energy.errors import RunError

PAGE = b"""\
# HELP python_info Python platform information
# TYPE python_info gauge
python_info{version="3.12"} 1.0
# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m",engine="0"} 4.0
# TYPE vllm:request_success_total counter
vllm:request_success_total{finished_reason="stop",engine="0",model_name="m"} 7.0
# TYPE vllm:request_success_created gauge
vllm:request_success_created{finished_reason="stop",engine="0",model_name="m"} 1.7e+09
# TYPE vllm:iteration_tokens_total histogram
vllm:iteration_tokens_total_bucket{engine="0",le="1.0",model_name="m"} 3.0
vllm:iteration_tokens_total_bucket{engine="0",le="+Inf",model_name="m"} 5.0
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 5.0
vllm:iteration_tokens_total_sum{engine="0",model_name="m"} 41.0
vllm:odd{text="with } and 2 spaces",engine="0"} NaN
sglang:token_usage 0.25
http_requests_total{handler="/v1/completions vllm:x"} 9.0
"""


def read(reader: PageReader, page: bytes) -> list[tuple[str, str, float]]:
    numbers, values = reader.read(page)
    named = [reader.series[number] for number in numbers]
    return [(one.name, one.labels, value) for one, value in zip(named, values, strict=True)]


def test_every_family_of_the_engine_is_kept_and_no_other() -> None:
    found = read(PageReader(), PAGE)
    assert found[:4] == [
        ("vllm:num_requests_running", '{"engine": "0", "model_name": "m"}', 4.0),
        ("vllm:request_success_total", '{"engine": "0", "finished_reason": "stop", "model_name": "m"}', 7.0),
        ("vllm:request_success_created", '{"engine": "0", "finished_reason": "stop", "model_name": "m"}', 1.7e9),
        ("vllm:iteration_tokens_total_bucket", '{"engine": "0", "le": "1.0", "model_name": "m"}', 3.0),
    ]
    assert found[-1] == ("sglang:token_usage", "{}", 0.25)
    assert found[-2][:2] == ("vllm:odd", '{"engine": "0", "text": "with } and 2 spaces"}')
    assert len(found) == 9
    assert read(PageReader(), b"") == []


def test_buckets_come_again_only_when_they_changed() -> None:
    reader = PageReader()
    first = read(reader, PAGE)
    again = read(reader, PAGE)
    assert [row[:2] for row in again] == [row[:2] for row in (*first[:2], *first[5:])]
    changed = PAGE.replace(b'le="+Inf",model_name="m"} 5.0', b'le="+Inf",model_name="m"} 6.0')
    third = read(reader, changed)
    labels = '{"engine": "0", "le": "+Inf", "model_name": "m"}'
    assert ("vllm:iteration_tokens_total_bucket", labels, 6.0) in third
    assert len(third) == len(again) + 1


def test_a_new_series_and_a_value_with_a_time_are_read_too() -> None:
    reader = PageReader()
    read(reader, PAGE)
    added = read(reader, b'vllm:new_total{engine="1"} 3 1700000000000\n')
    assert added == [("vllm:new_total", '{"engine": "1"}', 3.0)]
    assert read(reader, b'vllm:new_total{engine="1"} 4 1700000001000\n') == [("vllm:new_total", '{"engine": "1"}', 4.0)]
    assert reader.series.count(Series("vllm:new_total", '{"engine": "1"}')) == 1


BROKEN = (
    b'vllm:broken{engine="0" 1.0',
    b"vllm:broken 1e400x",
    b"vllm:broken " + b"9" * 400,
    b'vllm:broken{a="' + b"x" * 70_000 + b'"} 1',
    b'vllm:broken{a="\xff"} 1',
    b"vllm:broken{} {} 1",
    b'vllm:broken{a="1",a="2"} 1',
)


@pytest.mark.parametrize("line", BROKEN, ids=range(len(BROKEN)))
def test_a_line_that_is_none_costs_itself_and_a_page_of_them_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="no Prometheus text"):
        PageReader().read(line + b"\n")
    assert read(PageReader(), line + b"\nvllm:good 2\n" + line + b"\n") == [("vllm:good", "{}", 2.0)]


def test_a_value_that_becomes_none_costs_its_line() -> None:
    reader = PageReader()
    read(reader, b"vllm:a 1\nvllm:b 2\n")
    assert read(reader, b"vllm:a one\nvllm:b 3\n") == [("vllm:b", "{}", 3.0)]


def test_lines_end_and_names_begin_as_servers_write_them() -> None:
    page = b"sglang_num_running_reqs 3\r\nvllm_num_requests_running\t4 \r\nvllmx 5\r\n"
    assert read(PageReader(), page) == [
        ("sglang_num_running_reqs", "{}", 3.0),
        ("vllm_num_requests_running", "{}", 4.0),
    ]


def test_the_number_of_series_has_a_bound() -> None:
    reader = PageReader(max_series=3)
    read(reader, b"vllm:a 1\nvllm:b 1\nvllm:c 1\n")
    with pytest.raises(TooManySeriesError, match="more than 3 series"):
        reader.read(b"vllm:a 2\nvllm:d 1\n")
    with pytest.raises(TooManySeriesError, match="more than 3 lines"):
        reader.read(b"vllm:a 2\n" * 4)
    assert len(reader.series) == 3


def test_a_secret_that_is_echoed_stays_out_of_the_series() -> None:
    reader = PageReader(hide=Redaction(["sesame-4711"]))
    found = read(reader, b'vllm:a{model_name="m sesame-4711",key="sesame-4711"} 1\n')
    assert found == [("vllm:a", '{"key": "[API key]", "model_name": "m [API key]"}', 1.0)]


def newest(page: bytes, quantity: str) -> float | None:
    poller = MetricsPoller("http://127.0.0.1:1")
    numbers, values = poller._reader.read(page)
    poller._newest.update(zip(numbers, values, strict=True))
    return poller.newest(quantity)


def test_the_newest_value_counts_ranks_once_and_replicas_each() -> None:
    ranks = "".join(
        f'sglang:num_running_reqs{{model_name="m",dp_rank="{dp}",tp_rank="{tp}"}} {5 + dp}\n'
        for dp in range(2)
        for tp in range(4)
    )
    assert newest(ranks.encode(), "running") == 11
    models = b'vllm:num_requests_running{model_name="a"} 1\nvllm:num_requests_running{model_name="b"} 2\n'
    assert newest(models, "running") == 3
    assert newest(b"vllm:num_requests_running NaN\n", "running") is None
    assert newest(b"vllm:generation_tokens_total +Inf\n", "generated") is None


def test_the_engine_shows_in_the_names() -> None:
    assert engine_of({"vllm:generation_tokens_total", "vllm:num_requests_running"}) is VLLM
    assert engine_of({"sglang:generation_tokens_total", "other"}) is SGLANG
    assert engine_of(()) is VLLM
    assert VLLM.full("steps") == "vllm:iteration_tokens_total_count"
    assert SGLANG.full("steps") is None


def logged(path: Path) -> pd.DataFrame:
    compact_metrics_log(path, path.with_suffix(".parquet"), clock_anchor={"monotonic_ns": 1})
    return read_table(path.with_suffix(".parquet"), SCHEMA)


def write_log(path: Path, scrapes: int) -> None:
    log, series = MetricsLog(path), []
    for number in range(scrapes):
        series.append(Series(f"vllm:s{number}", "{}"))  # one more each time
        log.append(10 + number, series, range(len(series)), [float(number)] * len(series))
    log.close()
    log.close()


def test_a_log_becomes_the_contracts_table_with_series_that_come_up_later(tmp_path: Path) -> None:
    write_log(tmp_path / "m.arrows", 40)
    found = logged(tmp_path / "m.arrows")
    assert len(found) == 40 * 41 // 2
    assert found["timestamp_ns"].is_monotonic_increasing
    last = found[found["timestamp_ns"] == 49]
    assert last["name"].tolist() == [f"vllm:s{number}" for number in range(40)]
    assert (last["value"] == 39).all()
    assert read_metadata(tmp_path / "m.parquet")["clock_anchor"] == {"monotonic_ns": 1}


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_a_log_that_was_cut_off_is_read_up_to_there(tmp_path: Path, share: float) -> None:
    path = tmp_path / "m.arrows"
    write_log(path, 40)
    whole = logged(path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert compact_metrics_log(path, tmp_path / "m.parquet").truncated
    cut = read_table(tmp_path / "m.parquet", SCHEMA)
    assert 0 < len(cut) < len(whole)
    pd.testing.assert_frame_equal(cut, whole[: len(cut)])


def test_an_empty_log_is_an_empty_table_and_none_is_an_error(tmp_path: Path) -> None:
    write_log(tmp_path / "m.arrows", 0)
    assert logged(tmp_path / "m.arrows").empty
    with pytest.raises(RunError, match="no such log"):
        compact_metrics_log(tmp_path / "missing.arrows", tmp_path / "m.parquet")
    (tmp_path / "m.arrows").write_bytes(b"")
    with pytest.raises(RunError, match="nothing can be read"):
        compact_metrics_log(tmp_path / "m.arrows", tmp_path / "m.parquet")


def test_poller_follows_a_server_and_outlives_it(stub_spec: Callable[..., LaunchSpec], tmp_path: Path) -> None:
    async def poll() -> tuple[MetricsPoller, int]:
        async with await launch_server(stub_spec()) as server:
            poller = MetricsPoller(server.base_url, 0.05, tmp_path / "m.arrows")
            poller.start()
            while poller.scrapes < 4:
                await asyncio.sleep(0.01)
            assert await poller.scrape_idle()
            errors_before = poller.errors
            await server.stop()
            while poller.errors < 2:
                await asyncio.sleep(0.01)
            await poller.stop()
            return poller, errors_before

    poller, errors_before = asyncio.run(asyncio.wait_for(poll(), 60))
    assert errors_before == 0
    assert poller.last_error
    assert poller.newest("generated") == 0
    assert poller.newest("cached") is None or poller.newest("cached") == 0
    rows = logged(tmp_path / "m.arrows")
    times_ns = sorted(set(rows["timestamp_ns"]))
    assert len(times_ns) >= 4
    assert all(later > earlier for earlier, later in pairwise(times_ns))
    assert set(rows["name"]) >= {"vllm:num_requests_running", "vllm:generation_tokens_total"}


def test_poller_counts_a_server_that_is_not_there(free_port: int, tmp_path: Path) -> None:
    async def poll() -> MetricsPoller:
        poller = MetricsPoller(f"http://127.0.0.1:{free_port}", log=tmp_path / "m.arrows")
        poller.start()
        await asyncio.sleep(0)
        assert not await poller.scrape_idle()
        await poller.stop()
        return poller

    poller = asyncio.run(poll())
    assert poller.errors >= 1
    assert poller.requests() is None
    assert logged(tmp_path / "m.arrows").empty
