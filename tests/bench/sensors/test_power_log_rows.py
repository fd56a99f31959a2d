"""The offline power log against what the real sampler writes."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from inference_energy.acquire.power.sources import rapl
from inference_energy.acquire.power.sources.nvml import power as nvml
from inference_energy.bench.config import Node
from inference_energy.bench.sensors import power_log as module
from inference_energy.bench.sensors.power_log import gpu_sensor, gpu_truth, power_log, sources
from inference_energy.bench.truth.power_trace import host_power
from inference_energy.contracts.grades import POWER_GRADES
from inference_energy.contracts.io import read_table, write_table
from inference_energy.contracts.power import DOMAINS, SCHEMA
from tests.bench.sensors.waves import ORIGIN_NS, at, between_j, trace, trapezoid_j

STARTS_S = np.arange(0, 130, 0.7).tolist()
TRACE = trace(STARTS_S, [640.0, 230.0] * 93, [150.0, 95.0] * 93)
START_NS, END_NS = at(2.0).item(), at(122.0).item()


def log(traces: list[Any] | None = None, interval_s: float = 0.1, **node: Any) -> pd.DataFrame:
    settings = Node.parse(node)
    table = power_log(
        traces or [TRACE] * settings.nodes,
        settings,
        origin_ns=ORIGIN_NS,
        start_ns=START_NS,
        end_ns=END_NS,
        interval_s=interval_s,
        wall_ns=10**18,
    )
    assert table.schema == SCHEMA
    frame: pd.DataFrame = table.to_pandas()
    return frame


def powers(frame: pd.DataFrame, domain: str = "gpu") -> pd.DataFrame:
    return frame[(frame["domain"] == domain) & frame["power_average_w"].notna()]


RAPL = {"rapl": {"present": True, "with_psys": True, "max_energy_range_j": 5000.0}}


def test_periods_are_those_of_the_real_channels() -> None:
    assert module.COUNTER_PERIOD_S == nvml.COUNTER_PERIOD_S
    assert module.EXTRAS_PERIOD_S == nvml.EXTRAS_PERIOD_S
    assert module.STALLED_AFTER_S == rapl.STALLED_AFTER_S


def test_rows_are_those_of_the_contract_and_in_order() -> None:
    frame = log(sensors=RAPL)
    assert (np.diff(frame["timestamp_ns"]) >= 0).all()
    assert set(frame["domain"]) <= set(DOMAINS)
    counts = frame.groupby(["source", "domain"]).size().to_dict()
    assert counts == {
        ("nvml", "gpu"): 1200 + 240,
        ("nvml", "gpu_memory"): 1200,
        ("rapl", "cpu_package"): 1200,
        ("rapl", "dram"): 1200,
        ("rapl", "psys"): 1200,
    }


def test_columns_stand_in_the_rows_in_which_the_sampler_writes_them() -> None:
    frame = log()
    gpu = frame[frame["domain"] == "gpu"]
    counter = gpu["energy_counter_j"].notna()
    fields = ["driver_timestamp_us", "power_average_w", "power_instant_w"]
    extras = ["utilization", "memory_used_bytes", "sm_clock_mhz", "temperature_c", "clocks_event_reasons"]
    assert gpu.loc[~counter, fields].notna().all(axis=None)
    assert gpu.loc[counter, [*fields, *extras]].isna().all(axis=None)
    rich = gpu["utilization"].notna()
    assert (gpu[extras].notna().sum(axis=1).isin([0, len(extras)])).all()
    assert rich.sum() == 120
    assert np.diff(gpu.loc[rich, "timestamp_ns"]).mean() == pytest.approx(1e9, rel=1e-3)
    memory = frame[frame["domain"] == "gpu_memory"]
    assert memory["power_average_w"].notna().all()
    assert (
        memory.drop(columns=["timestamp_ns", "source", "device", "domain", "power_average_w", "read_latency_us"])
        .isna()
        .all(axis=None)
    )
    assert frame["read_latency_us"].gt(0).all()


def test_a_ga100_has_no_average_and_no_memory_power() -> None:
    frame = log(gpu="a100")
    assert set(frame["domain"]) == {"gpu"}
    assert frame["power_average_w"].isna().all()
    assert frame["power_instant_w"].notna().sum() == 1200


def test_energies_of_all_readings_are_the_truth() -> None:
    frame = log(sensors=RAPL)
    truth = gpu_truth(Node(), TRACE, 0, 0, ORIGIN_NS)
    power = powers(frame)
    times_ns = power["timestamp_ns"].to_numpy()
    true_j = between_j(truth, times_ns[0], times_ns[-1])
    assert trapezoid_j(times_ns, power["power_average_w"].to_numpy()) == pytest.approx(true_j, rel=0.01)
    assert trapezoid_j(times_ns, power["power_instant_w"].to_numpy()) == pytest.approx(true_j, rel=0.05)
    counter = frame[(frame["source"] == "nvml") & frame["energy_counter_j"].notna()]
    ends_ns = counter["timestamp_ns"].to_numpy()[[0, -1]]
    counted_j = np.ptp(counter["energy_counter_j"])
    assert counted_j == pytest.approx(between_j(truth, *ends_ns), abs=0.12 * 640)


def test_rapl_rows_count_from_zero_through_wraps_and_hold_the_mean_since_the_row_before() -> None:
    package = log(sensors=RAPL).query("domain == 'cpu_package'")
    assert set(package["device"]) == {"package-0"}
    energy_j, times_ns = package["energy_counter_j"].to_numpy(), package["timestamp_ns"].to_numpy()
    assert energy_j[0] == 0
    host_j = between_j(host_power(TRACE), times_ns[0], times_ns[-1])
    assert energy_j[-1] > 2 * 5000
    assert energy_j[-1] == pytest.approx(host_j, abs=0.5)
    assert np.isnan(package["power_average_w"].iloc[0])
    means_w = np.diff(energy_j) / (np.diff(times_ns) / 1e9)
    assert np.allclose(package["power_average_w"].iloc[1:], means_w, rtol=1e-6)


def test_a_rapl_counter_slower_than_the_polls_shows_no_false_zero_and_a_frozen_one_goes_silent() -> None:
    slow = log(interval_s=0.02, sensors={"rapl": {"present": True, "update_period_s": 0.1}}).query("domain == 'dram'")
    assert slow["power_average_w"].notna().mean() == pytest.approx(0.2, abs=0.01)
    assert slow["power_average_w"].mean() == pytest.approx(18.0, rel=0.05)
    frozen = log(sensors={"rapl": {"present": True, "update_period_s": 5.0}}).query("domain == 'dram'")
    gaps_s = np.diff(frozen["timestamp_ns"]) / 1e9
    assert gaps_s.max() == pytest.approx(3.0, abs=0.2)


def test_each_row_shows_what_a_live_poll_at_its_time_would() -> None:
    node = Node(seed=9)
    power = powers(log(seed=9))
    sensor = gpu_sensor(node, gpu_truth(node, TRACE, 0, 0, ORIGIN_NS), 0, 0, ORIGIN_NS, wall_ns=10**18)
    for row in power.iloc[::150].itertuples():
        poll = np.array([row.timestamp_ns], dtype=np.int64)
        assert row.power_average_w == sensor.average_w(poll).item()
        assert row.power_instant_w == sensor.instant_w(poll).item()
        assert row.driver_timestamp_us == sensor.driver_timestamp_us(poll).item()


def test_polls_keep_their_grid_a_little_late_and_slow_calls_later_by_their_own_time() -> None:
    frame = log(tensor_parallel=2)
    name = sorted(set(frame["device"]))[0]
    power = powers(frame)
    late_s = (power.loc[power["device"] == name, "timestamp_ns"].to_numpy() - START_NS) / 1e9 - np.arange(1200) * 0.1
    assert late_s.min() > 0
    assert np.median(late_s) == pytest.approx(57e-6, abs=15e-6)
    counter = frame[frame["energy_counter_j"].notna() & (frame["device"] == name)]
    counter_late_us = ((counter["timestamp_ns"] - START_NS) / 1e3 - np.arange(240) * 0.5e6).to_numpy()
    own_us = counter["read_latency_us"].to_numpy()
    assert np.median(own_us) == pytest.approx(3200, rel=0.3)
    assert np.median(counter_late_us - own_us / 2) == pytest.approx(50, abs=15)


def test_one_thread_reads_gpus_their_memories_and_zones_in_turn() -> None:
    frame = log(tensor_parallel=2, sensors=RAPL)
    channel = frame["device"].str[-5:] + " " + frame["domain"]
    polls = channel[frame["energy_counter_j"].isna() | (frame["source"] == "rapl")]
    turn = ["sim-0 gpu", "sim-0 gpu_memory", "sim-1 gpu", "sim-1 gpu_memory"]
    turn += ["age-0 cpu_package", "age-0 dram", "psys psys"]
    assert polls.tolist() == turn * 1200


def test_a_failed_reading_leaves_no_row_and_the_state_comes_with_the_next() -> None:
    faults = {"sensors": [{"kind": "error", "start_s": 30, "end_s": 32.55}]}
    frame = log(faults=faults)
    gone = frame["timestamp_ns"].between(at(30.0).item(), at(32.54).item())
    assert gone.sum() == 0
    after = powers(frame[frame["timestamp_ns"] > at(32.0).item()]).iloc[0]
    assert not np.isnan(after["utilization"])
    assert len(powers(frame)) == 1200 - 26


def test_the_state_follows_the_trace() -> None:
    rows = trace([0.0, 40.0, 60.0, 80.0], [70.0, 122.0, 600.0, 700.0])
    rows["busy"] = [0, 0, 1, 1]
    rows["events"] = [1, 1, 0, 4]
    rows["temperature_c"] = [33.85, 33.85, 33.85, 61.4]
    state = log([rows]).dropna(subset=["utilization"]).set_index("timestamp_ns")
    columns = ["utilization", "memory_used_bytes", "sm_clock_mhz", "temperature_c", "clocks_event_reasons"]
    cold, loaded, busy, capped = (state.loc[at(second).item() :, columns].iloc[0] for second in (30, 50, 70, 90))
    device = Node().device
    assert [cold["utilization"], loaded["utilization"], busy["utilization"]] == [0, 0, 1]
    assert cold["memory_used_bytes"] < 1e9
    assert loaded["memory_used_bytes"] == busy["memory_used_bytes"] == round(0.9 * device.memory_bytes)
    assert [cold["sm_clock_mhz"], loaded["sm_clock_mhz"]] == [device.idle_clock_mhz, device.sm_clock_mhz]
    assert capped["sm_clock_mhz"] < device.sm_clock_mhz
    assert [cold["clocks_event_reasons"], busy["clocks_event_reasons"], capped["clocks_event_reasons"]] == [1, 0, 4]
    assert [cold["temperature_c"], capped["temperature_c"]] == [34, 61]


def test_heat_is_not_taken_for_a_model_nor_a_weak_step_for_its_absence() -> None:
    hot_w = 70.0 + 0.3 * (140.0 - 33.85)
    rows = trace([0.0, 60.0], [hot_w, 90.0])
    rows["temperature_c"] = [140.0, 33.85]
    rows["busy"] = [0, 1]
    used = log([rows]).dropna(subset=["memory_used_bytes"]).set_index("timestamp_ns")["memory_used_bytes"]
    assert used.loc[: at(59.0).item()].max() < 1e9
    assert used.loc[at(61.0).item() :].min() > 1e9


def test_utilization_is_the_share_of_the_last_second_in_whole_percent() -> None:
    rows = trace(np.arange(0, 130, 0.025).tolist(), [500.0] * 5200)
    rows["busy"] = np.tile([1, 0, 0, 1], 1300)
    used = log([rows])["utilization"].dropna()
    assert used.between(0.47, 0.53).all()
    assert np.allclose(used * 100, np.rint(used * 100))


def test_devices_say_that_they_are_simulated_and_nodes_are_told_apart() -> None:
    one = log(tensor_parallel=2)
    names = sorted(set(one["device"]))
    assert [name[-6:] for name in names] == ["-sim-0", "-sim-1"]
    assert all(name.startswith("GPU-") and "/" not in name for name in names)
    assert names != sorted(set(log(tensor_parallel=2, seed=2)["device"]))
    two = log(nodes=2, sensors=RAPL)
    assert sorted({name.split("/")[0] for name in two["device"]}) == ["node0", "node1"]
    assert {"node0/package-0", "node1/package-0", "node1/psys"} <= set(two["device"])


def test_each_gpu_draws_its_own_card_also_on_other_nodes() -> None:
    frame = log(nodes=2, tensor_parallel=2, sensors={"nvml": {"gain_std": 0.1}})
    means_w = powers(frame).groupby("device")["power_average_w"].mean()
    assert len(means_w) == 4
    assert np.diff(np.sort(means_w)).min() > 0.1


def test_a_tenant_and_a_fault_go_by_the_gpus_number_through_all_nodes() -> None:
    faults = {
        "tenants": [{"device": 1, "power_w": 90, "start_s": 0, "end_s": 1000}],
        "sensors": [{"kind": "zero", "device": 0, "start_s": 0}],
    }
    means_w = powers(log(nodes=2, faults=faults)).groupby("device")["power_average_w"].mean()
    assert means_w.iloc[0] == 0
    assert means_w.iloc[1] == pytest.approx(435 + 90, rel=0.01)


def test_a_card_without_instant_or_counter_has_no_such_values() -> None:
    frame = log(sensors={"nvml": {"has_instant": False, "has_counter": False}})
    assert frame[["power_instant_w", "energy_counter_j"]].isna().all(axis=None)
    assert len(powers(frame)) == 1200


def test_the_same_node_writes_the_same_log_and_another_seed_another() -> None:
    assert log(seed=3).equals(log(seed=3))
    assert not log(seed=3)["power_average_w"].equals(log(seed=4)["power_average_w"])


def test_a_stretch_of_the_log_is_the_log_of_the_stretch() -> None:
    node = Node()
    late_ns = START_NS + 60 * 10**9
    whole, part = (
        power_log([TRACE], node, origin_ns=ORIGIN_NS, start_ns=start_ns, end_ns=END_NS).to_pandas()
        for start_ns in (START_NS, late_ns)
    )
    rest = whole[whole["timestamp_ns"] >= late_ns].reset_index(drop=True)
    assert rest.equals(part)


def test_the_log_can_be_written_as_a_power_file(tmp_path: Path) -> None:
    table = power_log([TRACE], Node(), origin_ns=ORIGIN_NS, start_ns=START_NS, end_ns=END_NS)
    write_table(tmp_path / "power.parquet", table, SCHEMA, source=sources(Node()))
    assert len(read_table(tmp_path / "power.parquet", SCHEMA)) == table.num_rows


def test_sources_are_simulated() -> None:
    assert [(source["name"], source["grade"]) for source in sources(Node())] == [("nvml", "simulated")]
    assert [source["name"] for source in sources(Node.parse({"sensors": RAPL}))] == ["nvml", "rapl"]
    assert "simulated" in POWER_GRADES
