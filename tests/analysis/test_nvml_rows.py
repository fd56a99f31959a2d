"""Rows shaped as a real GPU gives them: nothing is flagged that is normal there, and the energy is right."""

import pytest
import synthetic
from nvml_rows import nvml_power
from synthetic import recompute

from inference_energy.analysis.sensor_checks import EVENTS
from inference_energy.contracts import power
from inference_energy.contracts.io import read_table


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    raw = tmp_path_factory.mktemp("nvml")
    return raw, synthetic.build_session(raw, windows=synthetic.DESIGNED, make_power=nvml_power)


def cells(recorded, **analysis):
    raw, truth = recorded
    plan = synthetic.plan([truth])
    plan["analysis"] |= analysis
    return recompute(raw, plan)["cells"]


def test_the_rows_are_what_they_are_meant_to_be(recorded):
    log = read_table(recorded[1].folder / "power.parquet", power.SCHEMA)
    gpu = log[log["domain"] == "gpu"]
    counted, fast = gpu[gpu["energy_counter_j"].notna()], gpu[gpu["power_average_w"].notna()]
    assert counted["power_average_w"].isna().all()
    assert fast["energy_counter_j"].isna().all()
    assert fast["clocks_event_reasons"].notna().mean() == pytest.approx(0.1, abs=0.01)
    assert (fast["power_average_w"].diff() == 0).sum() > 10  # a reading that is read twice
    assert counted["timestamp_ns"].diff().std() > 1e6


@pytest.mark.parametrize("reading", ["average", "instant"])
def test_nothing_is_flagged_and_the_energy_is_the_truth(recorded, reading):
    for cell in cells(recorded, power_reading=reading):
        truth = recorded[1].windows[cell["window"]["name"]]
        energy = cell["figures"]["energy_total_j"]
        assert (energy["reasons"], energy["grade"], energy["boundary"]) == ([], "counter", "gpu")
        assert energy["value"] == pytest.approx(truth["energy_j"], rel=0.01)
        (gpu,) = [device for device in cell["devices"] if device["domain"] == "gpu"]
        assert gpu["reading"] == "counter"
        assert gpu["counter_energy_j"] == energy["value"]
        assert gpu["ratios"] == {"average": pytest.approx(1, abs=0.005), "instant": pytest.approx(1, abs=0.01)}
        assert gpu["clocks_event_shares"] == dict.fromkeys(EVENTS, 0.0)
        (memory,) = [device for device in cell["devices"] if device["domain"] == "gpu_memory"]
        assert (memory["summed"], memory["counter_energy_j"]) == (False, None)


def test_steady_windows_are_judged_steady(recorded):
    verdicts = [cell["checks"]["steadiness"] for cell in cells(recorded) if cell["kind"] == "steady"]
    assert [(v["judged"], v["trends"]["power_w"]["exceeded"]) for v in verdicts] == [(True, False)] * 2


def test_idles_are_the_true_ones(recorded):
    # The phases follow each other without time to settle here, so the average still holds some of the phase before.
    raw, truth = recorded
    (idle,) = recompute(raw, synthetic.plan([truth]))["idle"]
    for kind, level in (("cold", truth.cold_w), ("post", truth.post_w)):
        assert idle[f"{kind}_power_w"]["value"] == pytest.approx(level, abs=6)


def without_counter(levels, sources):
    log = nvml_power(levels, sources)
    return log[log["energy_counter_j"].isna()].assign(energy_counter_j=None)


@pytest.mark.parametrize("reading", ["average", "instant"])
def test_without_a_counter_the_average_counts_for_half_a_second_earlier(tmp_path, reading):
    """The untrimmed window begins with the load: an average that trails would lack half a second of it."""
    truth = synthetic.build_session(tmp_path, windows=synthetic.DESIGNED[2:], make_power=without_counter)
    plan = synthetic.plan([truth])
    plan["analysis"] |= {"power_reading": reading, "trim_start_s": 0.0}
    (prefill, _) = recompute(tmp_path, plan)["cells"]
    energy, (gpu, *_) = prefill["figures"]["energy_total_j"], prefill["devices"]
    assert (energy["reasons"], energy["grade"], gpu["reading"], gpu["ratios"]) == ([], "sampled", reading, {})
    level_w = truth.windows["prefill"]["power_w"]
    # Half a second too late would be 0.5 s x (level - 160 W), 1.4 % of the energy.
    assert energy["value"] == pytest.approx(25.0 * level_w, rel=0.005)
    low, high = energy["interval_95"]
    assert low < 25.0 * level_w < high


def test_a_counter_that_stands_still_is_no_check(recorded, tmp_path):
    def stopped(levels, sources):
        log = nvml_power(levels, sources)
        return log.assign(energy_counter_j=log["energy_counter_j"].where(log["energy_counter_j"].isna(), 7.3e6))

    truth = synthetic.build_session(tmp_path, windows=synthetic.LOW_HIGH[:1], make_power=stopped)
    (reason,) = recompute(tmp_path, synthetic.plan([truth]))["cells"][0]["figures"]["energy_total_j"]["reasons"]
    assert reason["code"] == "counter_mismatch"
    assert "did not move" in reason["detail"]
