"""The sampler process: how it starts, what it leaves behind, and everything that ends it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pynvml
import pytest
from fake_nvml import FakeGpu, FakeNvml

from inference_energy.acquire.power import sampler as sampler_module
from inference_energy.acquire.power.power_log import by_instant, compact_power_log, read_stream
from inference_energy.acquire.power.sampler import FLUSH_PERIOD_S, Sampler, stats_path
from inference_energy.acquire.power.sampler_handle import SamplerProcess, start_timeout_s
from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.acquire.power.sources.nvml.power import SAMPLES_PERIOD_S
from inference_energy.acquire.power.sources.nvml.source import NvmlSource
from inference_energy.contracts import power
from inference_energy.errors import InputError, RunError

pytestmark = pytest.mark.slow

MODELLED = SamplerSpec.parse(
    {"sources": ["modelled"], "modelled": {"tdp_w": 65, "idle_w": 10}, "interval_s": 0.02, "server_pid": os.getpid()}
)
TIMEOUT_S = 30


@contextmanager
def raw_sampler(output: Path, spec: SamplerSpec = MODELLED) -> Iterator[subprocess.Popen[str]]:
    """The module's own command line, once it has said `ready`."""
    module = "inference_energy.acquire.power.sampler"
    command = [sys.executable, "-m", module, "--spec", spec.model_dump_json(), "--output", str(output)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "ready"
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_rows(output: Path, rows: int) -> None:
    until_s = time.monotonic() + TIMEOUT_S
    while time.monotonic() < until_s:
        if output.exists() and output.stat().st_size and read_stream(output)[0].num_rows >= rows:
            return
        time.sleep(0.05)
    raise AssertionError("no rows were flushed")


def test_sigkill_leaves_a_log_that_can_be_compacted(tmp_path: Path) -> None:
    output = tmp_path / "power.arrows"
    with raw_sampler(output) as process:
        wait_for_rows(output, 20)
        killed_ns = time.monotonic_ns()
        process.kill()
        process.wait(TIMEOUT_S)
    assert not stats_path(output).exists()
    assert compact_power_log(output, tmp_path / "power.parquet").rows >= 20
    kept_ns = read_stream(output)[0]["timestamp_ns"].to_numpy()
    assert FLUSH_PERIOD_S + SAMPLES_PERIOD_S <= 1.0, "nor is more than a second of a GPU's own samples"
    assert killed_ns - kept_ns[-1] < 5e9, "only what was read since the last flush is lost"
    assert max(kept_ns[1:] - kept_ns[:-1]) < 5e9, "and nothing before it"


def test_a_source_that_cannot_be_closed_does_not_cost_the_log(tmp_path: Path) -> None:
    nvml = FakeNvml([FakeGpu("GPU-a")])
    nvml.fail["nvmlShutdown"] = deque([pynvml.NVML_ERROR_GPU_IS_LOST])
    spec = SamplerSpec.parse({"interval_s": 0.02, "duration_s": 0.3})
    counts = Sampler(spec, [NvmlSource(nvml=nvml)], tmp_path / "power.arrows").run()
    assert counts["ended_by"] == "duration"
    assert read_stream(tmp_path / "power.arrows")[1].rows == sum(channel["rows"] for channel in counts["channels"])


@pytest.mark.parametrize("ending", ["stdin", "sigterm", "sighup"])
def test_it_ends_in_order(tmp_path: Path, ending: str) -> None:
    output = tmp_path / "power.arrows"
    with raw_sampler(output) as process:
        assert process.stdin is not None
        if ending == "stdin":
            process.stdin.close()
        else:
            process.send_signal(signal.SIGTERM if ending == "sigterm" else signal.SIGHUP)
        assert process.wait(TIMEOUT_S) == 0
        process.stdin = None
    counts = json.loads(stats_path(output).read_text())
    assert counts["ended_by"] == ("owner" if ending == "stdin" else "request")
    assert read_stream(output)[1].rows == sum(channel["reads"] for channel in counts["channels"])


def test_sigint_is_for_the_owner_and_the_duration_ends_it(tmp_path: Path) -> None:
    output = tmp_path / "power.arrows"
    with raw_sampler(output, MODELLED.model_copy(update={"duration_s": 1.0})) as process:
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT_S) == 0
    assert json.loads(stats_path(output).read_text())["ended_by"] == "duration"
    log, _ = read_stream(output)
    span_s = (log["timestamp_ns"][-1].as_py() - log["timestamp_ns"][0].as_py()) / 1e9
    assert 0.5 < span_s < 3.0, "the log does not outlast its duration by much"


def test_the_owner_follows_and_stops_it(tmp_path: Path) -> None:
    sampler = SamplerProcess(MODELLED, tmp_path / "new" / "power.arrows")
    sampler.start()
    until_s = time.monotonic() + TIMEOUT_S
    while not sampler.latest() and time.monotonic() < until_s:
        time.sleep(0.05)
    latest = sampler.latest()
    assert sampler.alive()
    stats = sampler.stop()
    assert set(latest) == {"cpu"}
    assert 10 <= latest["cpu"] <= 65
    assert stats.clean
    assert stats.ended_by == "request"
    assert stats.faults == []
    assert stats.channels[0].reads > 10
    assert not sampler.alive()


def test_a_sampler_that_died_is_reported_not_hidden(tmp_path: Path) -> None:
    sampler = SamplerProcess(MODELLED, tmp_path / "power.arrows")
    sampler.start()
    assert sampler.pid is not None
    os.kill(sampler.pid, signal.SIGKILL)
    stats = sampler.stop()
    assert not stats.clean
    assert "exit code -9" in stats.ended_by
    assert read_stream(tmp_path / "power.arrows")[1].rows >= 0


def test_the_context_manager_ends_it_also_after_an_error(tmp_path: Path) -> None:
    sampler = SamplerProcess(MODELLED, tmp_path / "power.arrows")
    with pytest.raises(ZeroDivisionError), sampler:
        assert sampler.alive()
        raise ZeroDivisionError
    assert not sampler.alive()


def test_what_the_machine_lacks_is_an_input_error_at_the_start(tmp_path: Path) -> None:
    spec = SamplerSpec.parse({"sources": ["modelled"]})
    with pytest.raises(InputError, match=r"power\.modelled\.tdp_w"):
        SamplerProcess(spec, tmp_path / "power.arrows").start()


def test_an_output_that_cannot_be_written_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "power.arrows").mkdir()
    with pytest.raises(RunError, match=r"power\.arrows"):
        SamplerProcess(MODELLED, tmp_path / "power.arrows").start()


def test_no_reading_in_time_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no power reading within 0 s"):
        SamplerProcess(MODELLED, tmp_path / "power.arrows").start(timeout_s=0.0)


def test_what_is_set_up_has_more_time_to_answer_first() -> None:
    alone = start_timeout_s(MODELLED)
    assert alone >= 60
    bmc = SamplerSpec.parse({"redfish": {"endpoint": "https://bmc.example"}, "ipmi": {}})
    assert start_timeout_s(bmc) == alone + 120
    assert start_timeout_s(SamplerSpec.parse({"pcm_power": {"period_s": 60}})) > alone + 50


def test_two_gpus_are_logged_at_two_rates_and_nvml_is_shut_down(tmp_path: Path) -> None:
    nvml = FakeNvml([FakeGpu("GPU-a"), FakeGpu("GPU-b", average_w=300.0, memory_w=None)])
    spec = SamplerSpec.parse({"interval_s": 0.02, "duration_s": 1.3})
    counts = Sampler(spec, [NvmlSource(nvml=nvml)], tmp_path / "power.arrows").run()
    frame = read_stream(tmp_path / "power.arrows")[0].to_pandas()
    assert nvml.sessions == 0
    assert counts["ended_by"] == "duration"
    powers = frame.dropna(subset=["power_average_w"])
    assert set(powers[powers["device"] == "GPU-b"]["power_average_w"]) == {300.0}
    assert set(powers["domain"]) == {"gpu", "gpu_memory"}
    counters = frame.dropna(subset=["energy_counter_j"])
    assert 2 <= len(counters[counters["device"] == "GPU-a"]) < len(powers[powers["device"] == "GPU-b"]) / 3
    assert frame["timestamp_ns"].is_monotonic_increasing


def test_the_log_says_which_power_is_plausible_and_the_settings_come_first(tmp_path: Path) -> None:
    limits = {}
    for name, settings in (("driver", {}), ("user", {"plausible_power_w": {"gpu": 250.0}})):
        spec = SamplerSpec.parse({"interval_s": 0.02, "duration_s": 0.3, **settings})
        nvml = FakeNvml([FakeGpu("GPU-a", average_w=300.0, instant_w=3_735_928.55)])
        Sampler(spec, [NvmlSource(nvml=nvml)], tmp_path / name).run()
        log = read_stream(tmp_path / name)[0]
        facts = power.channel_facts(json.loads(log.schema.metadata[b"source"]))
        limits[name] = {key[2]: channel["plausible_power_w"] for key, channel in facts.items()}
        assert log.to_pandas()["power_instant_w"].max() > 3e6, "the log holds what the sensor said"
        assert by_instant(log)["power_W"].dropna().tolist() == (
            [] if name == "user" else [300.0] * len(by_instant(log))
        )
    assert limits["driver"]["gpu"] == 1050.0
    assert (limits["user"]["gpu"], limits["user"]["gpu_memory"]) == (250.0, 1050.0)


def test_garbage_is_collected_now_and_then_though_pythons_own_collections_are_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = SamplerSpec.parse({"interval_s": 0.02, "duration_s": 60})
    sampler = Sampler(spec, [NvmlSource(nvml=FakeNvml([FakeGpu("GPU-a")]))], tmp_path / "power.arrows")
    collected_s: list[float] = []

    def collect() -> None:
        collected_s.append(time.monotonic())
        if len(collected_s) == 3:
            sampler.request_stop()

    monkeypatch.setattr(sampler_module, "COLLECT_GARBAGE_PERIOD_S", 0.5)
    monkeypatch.setattr(sampler_module.gc, "collect", collect)
    begun_s = time.monotonic()
    assert sampler.run()["ended_by"] == "request"
    assert all(later_s - earlier_s >= 0.5 for earlier_s, later_s in pairwise([begun_s, *collected_s]))


def test_it_can_be_stopped_from_another_thread(tmp_path: Path) -> None:
    sampler = Sampler(SamplerSpec(), [NvmlSource(nvml=FakeNvml([FakeGpu("GPU-a")]))], tmp_path / "power.arrows")
    timer = threading.Timer(0.3, sampler.request_stop)
    timer.start()
    assert sampler.run()["ended_by"] == "request"
    timer.join()


def test_a_source_that_breaks_while_opening_is_a_run_error(tmp_path: Path) -> None:
    source = NvmlSource(nvml=FakeNvml([]))
    with pytest.raises(RunError, match=r"power source nvml: .*no GPU"):
        Sampler(SamplerSpec(), [source], tmp_path / "power.arrows").run()
