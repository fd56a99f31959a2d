"""What the measuring code makes of a node: the virtual machine through the same doors as a real one."""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pynvml as real
import pytest

from inference_energy.acquire.gpus import gpu_uuids
from inference_energy.acquire.machine_environment import capture
from inference_energy.acquire.power import simulated
from inference_energy.acquire.power.base import PowerSource, SensorChannel, SourceError
from inference_energy.acquire.power.choose import candidates, choose
from inference_energy.acquire.power.power_log import read_stream
from inference_energy.acquire.power.settings import SamplerSpec
from inference_energy.acquire.power.simulated import labelled, simulated_node
from inference_energy.acquire.power.sources.nvml.source import NvmlSource
from inference_energy.acquire.power.sources.rapl import RaplSource
from inference_energy.acquire.server.preflight import check_gpus
from inference_energy.bench.live import cli_wrapper
from inference_energy.bench.live import node as node_module
from inference_energy.bench.live.cli_wrapper import PowercapUpdater
from inference_energy.bench.live.node import VARIABLE, NodeFolder
from inference_energy.bench.live.power_trace_file import TraceWriter
from inference_energy.bench.sensors.power_log import sources as offline_sources
from inference_energy.bench.shims import pynvml as virtual
from inference_energy.errors import InputError

pytestmark = pytest.mark.slow

Make = Callable[..., NodeFolder]
Run = Callable[..., str]
QUIET = {"noise_std_w": 0.0}
RAPL = {"present": True, "with_psys": True, "packages": 2}


@pytest.fixture(autouse=True)
def stood_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process `import pynvml` gives the stand-in, as PYTHONPATH does in others."""
    monkeypatch.setitem(sys.modules, "pynvml", virtual)
    monkeypatch.delenv(VARIABLE, raising=False)


def by_name(spec: SamplerSpec) -> dict[str, PowerSource]:
    return {source.name: source for source in candidates(spec)}


def test_both_sides_mean_the_same_variable() -> None:
    assert simulated.VARIABLE == node_module.VARIABLE == VARIABLE


def test_nvml_shows_every_gpu_and_its_channels(here: Make) -> None:
    made = here(tensor_parallel=2, sensors={"nvml": QUIET})
    source = by_name(SamplerSpec())["nvml"]
    state = source.probe()
    assert state.available and len(state.devices) == 2
    channels = source.channels()
    try:
        assert [channel.domain for channel in channels] == ["gpu", "gpu", "gpu_memory", "gpu_samples"] * 2
        assert {channel.grade for channel in channels} == {source.grade} == {"simulated"}
        readings = [channel.read() for channel in channels if not channel.optional]
    finally:
        source.close()
    device = made.node.device
    cold_w, rest_c = device.cold_idle_w, round(device.ambient_c + device.k_per_w * device.cold_idle_w)
    for board, counter, memory in (readings[:3], readings[3:]):
        assert (board.power_average_w, board.power_instant_w) == (cold_w, cold_w)
        assert (board.utilization, board.temperature_c, board.clocks_event_reasons) == (0.0, rest_c, 1)
        assert board.sm_clock_mhz == made.node.device.idle_clock_mhz
        assert board.driver_timestamp_us == pytest.approx(time.time_ns() / 1e3, abs=5e6)
        assert counter.energy_counter_j is not None and counter.energy_counter_j > 0
        assert memory.power_average_w == made.node.device.memory_idle_w


def test_a_ga100_shows_no_average_and_says_that_its_power_is_instantaneous(here: Make) -> None:
    made = here(gpu="a100", sensors={"nvml": {**QUIET, "has_instant": False}})
    source = by_name(SamplerSpec())["nvml"]
    channels = source.channels()
    try:
        assert [channel.domain for channel in channels] == ["gpu", "gpu", "gpu_samples"]
        reading = channels[0].read()
        handle = virtual.nvmlDeviceGetHandleByIndex(0)
        usage_w = virtual.nvmlDeviceGetPowerUsage(handle) / 1e3
    finally:
        source.close()
    assert (reading.power_average_w, reading.power_instant_w) == (None, made.node.device.cold_idle_w)
    assert usage_w == made.node.device.cold_idle_w
    assert channels[0].metadata["averaging_window_s"] == 0.0
    assert offline_sources(made.node)[0]["channels"][0]["averaging_window_s"] == 0.0


def test_an_nvml_error_is_a_reading_that_failed(here: Make) -> None:
    here(faults={"sensors": [{"kind": "error"}]})
    time.sleep(0.02)
    source = NvmlSource()
    board = source.channels()[0]
    try:
        with pytest.raises(SourceError, match="Unknown Error"):
            board.read()
    finally:
        source.close()


def test_no_source_is_labelled_as_if_it_were_real(here: Make) -> None:
    made = here(sensors={"rapl": RAPL})
    spec = SamplerSpec.parse({"modelled": {"tdp_w": 65}})
    with PowercapUpdater(made):
        sources = by_name(spec)
        assert list(sources) == ["nvml", "rapl", "modelled"]
        for source in sources.values():
            assert source.probe().available, source.probe().reason
            channels = source.channels()
            assert {channel.grade for channel in channels} == {source.grade} == {source.describe()["grade"]}
            assert source.grade == "simulated"
            source.close()
        # What models does not join what measures, though both have one grade now.
        assert [source.name for source in choose("auto", candidates(spec))] == ["nvml", "rapl"]
        assert [source.name for source in choose(["modelled"], candidates(spec))] == ["modelled"]
    assert sources["modelled"].describe()["tdp_w"] == 65
    gpus = by_name(SamplerSpec.parse({"gpus": ["GPU-none"]}))["nvml"]
    assert gpus.required_by_key == "power.gpus"
    with pytest.raises(InputError, match=r"power\.gpus: no GPU here"):
        choose("auto", [gpus])


def test_on_a_real_machine_nothing_is_relabelled(monkeypatch: pytest.MonkeyPatch) -> None:
    assert simulated_node() is None
    sources = by_name(SamplerSpec.parse({"modelled": {"tdp_w": 65}}))
    grades = {name: source.grade for name, source in sources.items()}
    assert (grades["nvml"], grades["rapl"], grades["modelled"]) == ("counter", "counter", "modelled")
    assert "simulated" not in grades.values()
    assert "NVIDIA driver" in sources["nvml"].probe().reason
    assert labelled(sources["rapl"]) is sources["rapl"]
    monkeypatch.setenv(VARIABLE, "")
    assert simulated_node() is None


def test_rapl_reads_the_nodes_tree(here: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = here(sensors={"rapl": RAPL})
    writer = TraceWriter(made.traces, os.getpid())
    writer.append(made.origin_ns, 300.0, 160.0, 50.0, 0, True)

    def read(channels: list[SensorChannel]) -> dict[tuple[str, str], float]:
        return {(c.device, c.domain): c.read().energy_counter_j or 0.0 for c in channels}

    shown_ns, calls = cli_wrapper._shown_ns, Counter[int | None]()
    held_ns: int | None = None

    def show() -> int:
        calls[now_ns := held_ns] += 1
        return shown_ns() if now_ns is None else now_ns

    def read_at(at_ns: int) -> dict[tuple[str, str], float]:
        nonlocal held_ns
        held_ns, until_s = at_ns, time.monotonic() + 20
        while calls[at_ns] < 2:  # the tree was refreshed whole once it is about to be refreshed again
            assert time.monotonic() < until_s
            time.sleep(0.01)
        return read(channels)

    monkeypatch.setattr(cli_wrapper, "_shown_ns", show)
    with PowercapUpdater(made):
        channels = by_name(SamplerSpec())["rapl"].channels()
        begun_ns = time.monotonic_ns() + 1_000_000_000
        first, second = read_at(begun_ns), read_at(begun_ns + 1_000_000_000)
    power_w = {zone: second[zone] - first[zone] for zone in first}
    assert set(power_w) == {
        *(("package-0", "cpu_package"), ("package-0", "dram")),
        *(("package-1", "cpu_package"), ("package-1", "dram")),
        ("psys", "psys"),
    }
    # Half of the host's power each; RAPL counts in steps of a millisecond.
    assert power_w["package-0", "cpu_package"] == pytest.approx(80, rel=0.01)
    assert power_w["package-1", "dram"] == pytest.approx(made.node.engine.dram_w / 2, rel=0.01)


def test_without_rapl_there_is_no_tree_and_the_source_says_so(here: Make) -> None:
    made = here()
    with PowercapUpdater(made):
        state = by_name(SamplerSpec())["rapl"].probe()
    assert not state.available
    assert "powercap" in state.reason
    assert not made.powercap.exists()
    assert isinstance(RaplSource(made.powercap), RaplSource)


def test_uuids_and_a_foreign_process(here: Make) -> None:
    tenant = {"device": 1, "power_w": 50, "start_s": 0, "end_s": 1e6, "pid": 987654321}
    here(tensor_parallel=2, faults={"tenants": [tenant]})
    first, second = gpu_uuids("all", "a")
    assert gpu_uuids([1], "a") == [second]
    check_gpus([first], nvml=virtual)
    with pytest.raises(InputError, match=rf"server\.gpus: in use by others: process 987654321 .* on {second}"):
        check_gpus([first, second], nvml=virtual, release_limit_s=0)
    check_gpus([second], own_pids={987654321}, nvml=virtual)
    with pytest.raises(InputError, match=f"no GPU GPU-0 here .*{first}"):
        check_gpus(["GPU-0"], nvml=virtual)


def test_a_server_that_is_still_there_is_foreign_to_the_next(here: Make) -> None:
    made = here()
    writer = TraceWriter(made.traces, os.getpid())
    writer.append(time.monotonic_ns(), 120.0, 95.0, 40.0, 1, False)
    uuids = gpu_uuids("all", "a")
    with pytest.raises(InputError, match=f"process {os.getpid()} "):
        check_gpus(uuids, nvml=virtual, release_limit_s=0)
    writer.close()
    check_gpus(uuids, nvml=virtual, release_limit_s=0)


def test_the_environment_says_that_it_is_simulated(here: Make) -> None:
    here(power_limit_w=500)
    found = capture()
    assert found["simulated"] is True
    (gpu,) = found["gpus"]
    assert gpu["name"] == "NVIDIA H100 80GB HBM3 (simulated)"
    assert (gpu["compute_capability"], gpu["streaming_multiprocessors"]) == ("9.0", 132)
    assert (gpu["power_limit_enforced_w"], gpu["power_limit_default_w"]) == (500, 700)
    assert (gpu["driver"], gpu["vbios"]) == ("simulated", "simulated")
    assert not [key for key in found["missing"] if key.startswith(("gpus", "cuda"))]


def test_a_real_machines_environment_says_so_too() -> None:
    found = capture()
    assert found["simulated"] is False
    assert found["gpus"] is None


def test_other_processes_find_the_stand_ins_by_their_path(make: Make, python: Run) -> None:
    made = make(tensor_parallel=2)
    count = "from inference_energy.acquire.vllm_environment import gpu_count, installed_interpreter as found\n"
    assert python(made, count + "print(gpu_count(), found())") == f"2 {sys.executable}"
    describe = "import json, sys; from inference_energy.acquire.vllm_environment import describe\n"
    facts = json.loads(python(made, describe + "print(json.dumps(describe([sys.executable])))"))
    assert facts["vllm_version"] == "0.25.1+simulated"
    assert "vllm_version" not in facts["missing"]


def test_without_the_variable_a_stand_in_on_the_path_finds_nothing(make: Make, python: Run) -> None:
    count = "from inference_energy.acquire.vllm_environment import gpu_count; print(gpu_count())"
    assert python(make(), count, **{VARIABLE: ""}) == "0"
    assert real.__name__ == "pynvml" and real is not virtual


def test_the_sampler_logs_a_node_as_simulated(make: Make, python: Run, tmp_path: Path) -> None:
    log = tmp_path / "power.arrows"
    code = (
        "from pathlib import Path; import sys\n"
        "from inference_energy.acquire.power.sampler_handle import SamplerProcess\n"
        "from inference_energy.acquire.power.settings import SamplerSpec\n"
        f"with SamplerProcess(SamplerSpec(duration_s=1.5), Path({str(log)!r})) as sampler:\n"
        "    import time; time.sleep(1.2)\n"
    )
    made = make()
    python(made, code)
    table, _ = read_stream(log)
    sources = json.loads(table.schema.metadata[b"source"])
    (source,) = sources
    assert (source["name"], source["grade"]) == ("nvml", "simulated")
    said = [facts for facts in source["channels"] if "averaging_window_s" in facts]
    assert said == offline_sources(made.node)[0]["channels"], "the bench in virtual time says the same"
    rows = table.to_pandas()
    powers = rows.loc[rows["domain"] == "gpu", "power_average_w"].dropna()
    assert len(powers) >= 5
    assert powers.to_numpy() == pytest.approx(made.node.device.cold_idle_w, abs=5)
    assert rows["energy_counter_j"].notna().any()
