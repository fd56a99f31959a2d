"""A calibration against a meter: what it changes in a session's figures, what it leaves alone, when it is refused."""

import hashlib
import math

import pytest
import synthetic
from calibrated import GPU_CHANNEL, entry, plan_with, summary_with, terms, write
from nvml_rows import nvml_power
from synthetic import recompute

from inference_energy.analysis.attribution import attribute_session
from inference_energy.config.analysis import AnalysisConfig, ImpactConfig
from inference_energy.errors import InputError
from inference_energy.stages.chain import RawSession, session_parts

pytestmark = pytest.mark.slow

STATED = {"gain": 0.03, "offset_w": 2.0, "meter_gain": 0.004}
GAIN, OFFSET_W = 1.04, 3.0
UNSURE = {"u_gain": 0.002, "u_offset_w": 0.8, "covariance_w": -0.0012}
BASES = ("total", "active", "marginal")
NODE_CHANNELS = [GPU_CHANNEL, "rapl package-0 cpu_package", "rapl dram-0 dram"]


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    windows = synthetic.LOW_HIGH[1:]
    return folder, synthetic.build_session(folder / "raw", windows=windows, make_power=nvml_power)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    return folder, synthetic.build_session(folder / "raw", windows=synthetic.LOW_HIGH[1:], sources=synthetic.NODE)


@pytest.fixture(scope="module")
def plain(gpu):
    folder, truth = gpu
    plan = synthetic.plan([truth])
    plan["analysis"]["uncertainty"] = STATED
    return recompute(folder / "raw", plan)


def found(session, entries):
    folder, truth = session
    return summary_with(truth, folder, entries, uncertainty=STATED)


def values(summary):
    (cell,) = summary["cells"]
    given = {name: figure["value"] for name, figure in cell["figures"].items()}
    return given | {name: figure["value"] for name, figure in summary["idle"][0].items() if name.endswith("_w")}


def codes(figure):
    return [reason["code"] for reason in figure["reasons"]]


def test_one_that_changes_nothing_changes_the_terms_alone(gpu, plain):
    same = found(gpu, {"GPU-0": entry()})
    assert values(same) == values(plain)
    (cell,), (before,) = same["cells"], plain["cells"]
    for name in ("energy_total_j", "power_mean_w", "energy_active_per_output_token_j"):
        own, old = terms(cell["figures"][name]), terms(before["figures"][name])
        assert set(old) - set(own) == {"sensor gain", "sensor offset"} & set(old)
        assert set(own) - set(old) == {"meter"}, "u is 0, so only the meter's own doubt is left"
        assert {key: own[key] for key in own if key != "meter"} == {key: old[key] for key in own if key != "meter"}
    assert cell["figures"]["energy_total_j"]["boundary"] == "gpu"


def test_energies_and_powers_become_gain_times_themselves_and_offset_times_time(gpu, plain):
    before, after = values(plain), values(found(gpu, {"GPU-0": entry(gain=GAIN, offset_w=OFFSET_W)}))
    seconds = before["duration_s"]
    expected = {
        "energy_total_j": GAIN * before["energy_total_j"] + OFFSET_W * seconds,
        "power_mean_w": GAIN * before["power_mean_w"] + OFFSET_W,
        **{f"{kind}_power_w": GAIN * before[f"{kind}_power_w"] + OFFSET_W for kind in ("cold", "loaded", "post")},
        **{f"energy_{basis}_j": GAIN * before[f"energy_{basis}_j"] for basis in ("active", "marginal")},
    }
    for basis in BASES:
        scale = after[f"energy_{basis}_j"] / before[f"energy_{basis}_j"]
        for name in ("output_token_j", "prompt_token_j", "request_j"):
            key = f"energy_{basis}_per_{name}"
            expected[key] = scale * before[key]
        expected[f"carbon_{basis}_g"] = scale * before[f"carbon_{basis}_g"]
    assert {name: after[name] for name in expected} == pytest.approx(expected, rel=1e-9)
    untouched = ("output_tokens", "ttft_p50_s", "duration_s", "requests_per_s")
    assert {name: after[name] for name in untouched} == {name: before[name] for name in untouched}


def test_energy_above_idle_does_not_know_the_offset(gpu):
    here, there = (found(gpu, {"GPU-0": entry(gain=GAIN, offset_w=w, **UNSURE)}) for w in (0.0, 40.0))
    for basis in ("active", "marginal"):
        one, other = (s["cells"][0]["figures"][f"energy_{basis}_j"] for s in (here, there))
        assert other["value"] == pytest.approx(one["value"], rel=1e-9)
        assert other["interval_95"] == pytest.approx(one["interval_95"], rel=1e-9)
    (one,), (other,) = here["cells"], there["cells"]
    seconds = one["figures"]["duration_s"]["value"]
    rise_j = other["figures"]["energy_total_j"]["value"] - one["figures"]["energy_total_j"]["value"]
    assert rise_j == pytest.approx(40.0 * seconds, rel=1e-9)


def test_a_sensors_readings_against_its_counter_stay_as_they_were(gpu, plain):
    (before,), (after,) = plain["cells"], found(gpu, {"GPU-0": entry(gain=1.3)})["cells"]
    for old, new in zip(before["devices"], after["devices"], strict=True):
        assert (new["ratios"], new["counter_energy_j"]) == (old["ratios"], old["counter_energy_j"])
        own = new["calibration"]
        assert own == ({"name": "GPU-0", "gain": 1.3, "offset_w": 0.0} if new["summed"] else None)
        assert new["energy_j"] == pytest.approx((1.3 if new["summed"] else 1.0) * old["energy_j"])
    assert after["figures"]["energy_total_j"]["valid"], "30 % are more than analysis.counter_tolerance"


def test_bins_and_receipts_sum_to_the_calibrated_energy(gpu):
    folder, truth = gpu
    path = write(folder / "sums.json", {"GPU-0": entry(gain=GAIN, offset_w=-7.0)})
    plan = plan_with(truth)
    config = AnalysisConfig.model_validate(plan["analysis"])
    files = RawSession.below(folder / "raw", "bench", "base", "small")
    parts = session_parts(files, config, ImpactConfig.model_validate(plan["impact"]), path)
    receipts = attribute_session(requests=files.requests, energy=parts.energy, config=config)
    for name, window in parts.energy.windows.items():
        total_j = window.figures["energy_total_j"].value
        seconds = window.figures["duration_s"].value
        assert sum(window.bins.energy_total_j) == pytest.approx(total_j, rel=1e-12)
        own = receipts[receipts["cell"] == name]
        assert own["energy_j"].sum() == pytest.approx(total_j, rel=1e-12)
        cold_w = parts.energy.idle.cold_power_w.value
        assert own["idle_energy_j"].sum() == pytest.approx(cold_w * seconds, rel=1e-12)
        assert sum(device.energy_j for device in window.devices if device.summed) == pytest.approx(total_j, rel=1e-12)


def test_its_uncertainty_stands_for_the_stated_gain_and_offset(gpu, plain):
    before = plain["cells"][0]["figures"]
    summary = found(gpu, {"GPU-0": entry(gain=GAIN, offset_w=OFFSET_W, **UNSURE)})
    figures = summary["cells"][0]["figures"]
    seconds = figures["duration_s"]["value"]

    def expected(raw, time):
        return math.sqrt((0.002 * raw) ** 2 + (0.8 * time) ** 2 + 2 * raw * time * -0.0012)

    raw_j = before["energy_total_j"]["value"]
    for name, raw, time in [
        ("energy_total_j", raw_j, seconds),
        ("power_mean_w", raw_j / seconds, 1.0),
        *[(f"energy_{basis}_j", before[f"energy_{basis}_j"]["value"], 0.0) for basis in ("active", "marginal")],
    ]:
        own = terms(figures[name])
        assert {"sensor gain", "sensor offset"}.isdisjoint(own)
        assert own["calibration"]["u"] == pytest.approx(expected(raw, time), rel=1e-9)
        assert own["calibration"]["kind"] == "B" and own["calibration"]["dof"] is None
        assert own["calibration"]["basis"] == "comparison with smart-plug (http://plug.lan), 2026-11-20"
        assert own["meter"]["u"] == pytest.approx(0.004 * figures[name]["value"], rel=1e-9)
    cold = summary["idle"][0]["cold_power_w"]
    raw_w = (cold["value"] - OFFSET_W) / GAIN
    assert terms(cold)["calibration"]["u"] == pytest.approx(expected(raw_w, 1.0), rel=1e-9)
    widths = [f["energy_total_j"]["budget"]["expanded"] for f in (figures, before)]
    assert widths[0] < widths[1] / 3


def test_phases_that_scatter_leave_few_degrees_of_freedom(gpu):
    summary = found(gpu, {"GPU-0": entry(u_gain=0.01, chi2_per_dof=2.5)})
    assert terms(summary["cells"][0]["figures"]["energy_total_j"])["calibration"]["dof"] == 2


def test_devices_without_an_entry_keep_what_is_stated(tmp_path):
    both = (synthetic.Source(), synthetic.Source(device="GPU-1"))
    truth = synthetic.build_session(tmp_path / "raw", windows=synthetic.LOW_HIGH[1:], sources=both)
    entries = {"GPU-0": entry(gain=GAIN, **UNSURE)}
    (cell,) = summary_with(truth, tmp_path, entries, uncertainty=STATED)["cells"]
    energies_j = {d["device"]: d["energy_j"] for d in cell["devices"]}
    assert energies_j["GPU-0"] == pytest.approx(GAIN * energies_j["GPU-1"], rel=1e-9)
    figure, seconds = cell["figures"]["energy_total_j"], cell["figures"]["duration_s"]["value"]
    own = terms(figure)
    assert own["sensor gain"]["u"] == pytest.approx(0.03 * energies_j["GPU-1"], rel=1e-9)
    assert own["sensor offset"]["u"] == pytest.approx(2.0 * seconds, rel=1e-9)
    assert own["meter"]["u"] == pytest.approx(0.004 * energies_j["GPU-0"], rel=1e-9)


def test_what_was_applied_is_recorded_with_the_files_digest(gpu):
    folder, _ = gpu
    made = entry(gain=GAIN, offset_w=OFFSET_W, **UNSURE)
    summary = found(gpu, {"GPU-0": made, "GPU-9": entry(channels=["nvml GPU-9 gpu"])})
    calibration = summary["sessions"][0]["calibration"]
    assert calibration["sha256"] == hashlib.sha256((folder / "calibration.json").read_bytes()).hexdigest()
    (applied,) = calibration["applied"]
    kept = ("gain", "offset_w", "u_gain", "u_offset_w", "covariance_w", "grade", "date", "channels")
    assert applied == applied | {key: made[key] for key in kept} | {"name": "GPU-0", "phases": 4}
    assert applied["meter"] == "smart-plug (http://plug.lan)"
    assert [note["code"] for note in calibration["notes"]] == ["calibration_elsewhere"]
    assert "GPU-9" in calibration["notes"][0]["detail"]
    assert (
        "base: the power of GPU-0 is calibrated against smart-plug (http://plug.lan), 2026-11-20." in summary["notes"]
    )
    assert any("GPU-9" in note for note in summary["notes"])
    assert codes(summary["cells"][0]["figures"]["energy_total_j"]) == []


def test_without_one_nothing_is_recorded(plain):
    assert plain["sessions"][0]["calibration"] is None
    assert {device["calibration"] for device in plain["cells"][0]["devices"]} == {None}


@pytest.mark.parametrize("channel", ["dcgm GPU-0 gpu", "nvml GPU-0 node"])
def test_one_of_another_source_or_domain_is_noted_and_not_applied(gpu, plain, channel):
    summary = found(gpu, {"GPU-0": entry(gain=2.0, channels=[channel])})
    assert values(summary) == values(plain)
    figure = summary["cells"][0]["figures"]["energy_active_per_output_token_j"]
    assert "calibration_not_applied" in codes(figure)
    assert any(channel in reason["detail"] for reason in figure["reasons"])
    assert summary["sessions"][0]["calibration"]["applied"] == []
    assert "sensor gain" in terms(figure)


def test_the_nodes_own_is_for_all_that_is_summed(node):
    before = found(node, {"GPU-7": entry(channels=["nvml GPU-7 gpu"])})
    made = entry(gain=1.1, offset_w=90.0, channels=NODE_CHANNELS, **UNSURE)
    after = found(node, {"GPU-0": entry(gain=5.0), "node": made})
    old, new = values(before), values(after)
    seconds = old["duration_s"]
    assert new["energy_total_j"] == pytest.approx(1.1 * old["energy_total_j"] + 90.0 * seconds, rel=1e-9)
    assert new["energy_active_j"] == pytest.approx(1.1 * old["energy_active_j"], rel=1e-9)
    assert new["cold_power_w"] == pytest.approx(1.1 * old["cold_power_w"] + 90.0, rel=1e-9)
    figure = after["cells"][0]["figures"]["energy_total_j"]
    assert figure["boundary"] == "node from gpu + cpu_package + dram"
    assert not any("outside" in note for note in after["notes"]), "the meter saw the whole machine"
    raw_j = old["energy_total_j"]
    u2 = (0.002 * raw_j) ** 2 + (0.8 * seconds) ** 2 + 2 * raw_j * seconds * -0.0012
    assert terms(figure)["calibration"]["u"] == pytest.approx(math.sqrt(u2), rel=1e-9), "one entry, not three"
    assert {"sensor gain", "sensor offset"}.isdisjoint(terms(figure))
    assert "calibration_not_applied" in codes(figure), "that of GPU-0 is within the node's"


def test_a_node_entry_of_other_channels_is_noted_and_the_devices_own_is_applied(node):
    before = found(node, {"GPU-7": entry(channels=["nvml GPU-7 gpu"])})
    after = found(node, {"node": entry(gain=9.0), "GPU-0": entry(gain=1.5)})
    old, new = ({d["domain"]: d["energy_j"] for d in s["cells"][0]["devices"]} for s in (before, after))
    assert new["gpu"] == pytest.approx(1.5 * old["gpu"])
    assert new["cpu_package"] == old["cpu_package"]
    figure = after["cells"][0]["figures"]["energy_total_j"]
    assert figure["boundary"] == "gpu + cpu_package + dram"
    (note,) = [reason for reason in figure["reasons"] if reason["code"] == "calibration_not_applied"]
    assert note["detail"].startswith("The calibration of node was not applied: it is of nvml GPU-0 gpu, but ")


@pytest.mark.parametrize("name", ["GPU-0", "node"])
def test_one_of_the_virtual_bench_is_refused_for_measured_power(gpu, name):
    with pytest.raises(InputError, match=rf"analysis.calibration: .*calibration.json: the entry {name} is simulated"):
        found(gpu, {name: entry(grade="simulated")})


def test_a_measured_one_is_refused_for_simulated_power(tmp_path):
    source = (synthetic.Source(grade="simulated"),)
    truth = synthetic.build_session(tmp_path / "raw", windows=synthetic.LOW_HIGH[1:], sources=source)
    with pytest.raises(InputError, match=r"GPU-0 is metered, but the power of session base was simulated; name"):
        summary_with(truth, tmp_path, {"GPU-0": entry()})
    summary = summary_with(truth, tmp_path, {"GPU-0": entry(grade="simulated", gain=1.5)})
    assert summary["sessions"][0]["calibration"]["applied"][0]["gain"] == 1.5


def test_a_plan_that_names_one_needs_it(gpu):
    folder, truth = gpu
    with pytest.raises(InputError, match=r"analysis.calibration: the plan names calibration.json"):
        recompute(folder / "raw", plan_with(truth))
