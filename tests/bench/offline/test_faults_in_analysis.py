"""Sensor faults through the whole analysis: the figure is withheld with a fitting reason, or it is right."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from inference_energy.bench.hardware import DEVICES, H100
from inference_energy.bench.offline.session import SimulatedSession, simulate
from inference_energy.config.analysis import AnalysisConfig
from inference_energy.contracts.figure import json_values
from inference_energy.contracts.reason_codes import CODES
from inference_energy.stages.chain import session_parts
from inference_energy.validation.bench_trial import IMPACT
from tests.bench.offline.plans import Load, node, phase, plan, written

pytestmark = pytest.mark.slow

TRIM_S = 8.0
LOAD = Load(duration_s=60.0, rate_qps=6.0, prompt=256, output=128)
LIGHT = Load(duration_s=60.0, rate_qps=1.0, prompt=256, output=128)
"""About one request at a time: power goes up and down between loaded idle and a busy GPU."""
LONG = Load(duration_s=60.0, rate_qps=0.5, prompt=64, output=6000)
"""Each request takes longer than the window and the drain."""
NEVER_S = 1e5
LASTS_S = LOAD.duration_s - TRIM_S


@dataclass(frozen=True)
class Analysed:
    """The measured window beside the truth."""

    session: SimulatedSession
    energy: dict[str, Any]
    window: dict[str, Any]
    true_j: float
    load: dict[str, Any]
    """The window in steady_load.json."""

    def figure(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.window["figures"][name]
        return found

    @property
    def error(self) -> float:
        """Relative, of a figure that was given."""
        value = self.figure("energy_total_j")["value"]
        assert value is not None, self.codes
        return float(value / self.true_j - 1)

    @property
    def codes(self) -> set[str]:
        return {reason["code"] for reason in self.figure("energy_total_j")["reasons"]}


def opening_s() -> float:
    """When the trimmed window begins, in seconds since the node began: faults change nothing of it."""
    session = simulate(plan(LOAD), node())
    return (phase(session, "window", "load")[0] - session.origin_ns) / 1e9 + TRIM_S


@pytest.fixture(scope="module")
def opens_s() -> float:
    return opening_s()


def fault(kind: str, start_s: float, end_s: float = 1e6, **more: Any) -> dict[str, Any]:
    """A fault; times in seconds since the trimmed window began."""
    return {"kind": kind, "start_s": start_s, "end_s": end_s, **more}


def analysed(
    opens_s: float,
    *faults: dict[str, Any],
    tenants: tuple[dict[str, Any], ...] = (),
    load: Load = LOAD,
    config: dict[str, Any] | None = None,
    **settings: Any,
) -> Analysed:
    def placed(spells: tuple[dict[str, Any], ...]) -> list[dict[str, Any]]:
        return [
            {**one, "start_s": max(0.0, one["start_s"] + opens_s), "end_s": one["end_s"] + opens_s} for one in spells
        ]

    own = node(faults={"sensors": placed(faults), "tenants": placed(tenants)}, **settings)
    session = simulate(plan(load), own)
    with tempfile.TemporaryDirectory() as folder:
        files = written(session, Path(folder))
        parts = session_parts(files, AnalysisConfig(trim_start_s=TRIM_S, **(config or {})), IMPACT)
    energy = json_values(parts.energy)
    window = energy["windows"]["load"]
    true_j = session.truth.energy_j(window["start_ns"], window["end_ns"])
    return Analysed(session, energy, window, true_j, json_values(parts.steady)["windows"]["load"])


def test_without_a_fault_the_figure_is_right_and_nothing_is_said(opens_s: float) -> None:
    found = analysed(opens_s)
    assert abs(found.error) < 0.002
    assert found.codes == {"steadiness_not_judged"}
    assert found.energy["grade"] == "simulated"
    # The window goes from counter reading to counter reading, which come every half second.
    late_s = (found.window["start_ns"] - found.session.origin_ns) / 1e9 - opens_s
    assert 0 <= late_s < 0.6
    low, high = found.figure("energy_total_j")["interval_95"]
    assert low < found.true_j < high


NO_COUNTER: dict[str, Any] = {"sensors": {"nvml": {"has_counter": False}}}

WITHHELD: dict[str, tuple[list[dict[str, Any]], set[str], dict[str, Any]]] = {
    "stuck throughout": ([fault("stuck", -2)], {"stuck_sensor", "counter_mismatch"}, {}),
    "stuck throughout, no counter": (
        [fault("stuck", -2)],
        {"stuck_sensor"},
        NO_COUNTER,
    ),
    "stuck over the window's end": ([fault("stuck", LASTS_S - 10, LASTS_S + 5)], {"stuck_sensor"}, {}),
    "stuck over the window's start": ([fault("stuck", -15, 10)], {"stuck_sensor"}, {}),
    "stuck for 20 s": ([fault("stuck", 20, 40)], {"stuck_sensor"}, {}),
    "stuck for 20 s, no counter": ([fault("stuck", 20, 40)], {"stuck_sensor"}, NO_COUNTER),
    "stuck for 4 s, no counter": ([fault("stuck", 20, 24)], {"stuck_sensor"}, NO_COUNTER),
    "zero for 5 s, no counter": ([fault("zero", 20, 25)], {"stuck_sensor"}, NO_COUNTER),
    "zero for a tenth of a second, no counter": ([fault("zero", 20, 20.15)], {"stuck_sensor"}, NO_COUNTER),
    "zero throughout": ([fault("zero", -2)], {"stuck_sensor", "counter_mismatch"}, {}),
    "zero for long": ([fault("zero", 20, 40)], {"counter_reset"}, {}),
    "no reading for 5 s": ([fault("error", 20, 25)], {"gap"}, {}),
    "no reading over the window's start, no counter": ([fault("error", -2, 0.5)], {"gap"}, NO_COUNTER),
    "no reading over the window's end, no counter": (
        [fault("error", LASTS_S - 0.5, LASTS_S + 2)],
        {"gap"},
        NO_COUNTER,
    ),
    "no reading for long over the window's start": ([fault("error", -4, 4)], {"gap"}, {}),
    "another GPU's counter begins anew at the window's edge": (
        [fault("counter_reset", LASTS_S - 0.2, LASTS_S, device=1)],
        {"counter_reset"},
        {"tensor_parallel": 2},
    ),
    "most readings fail": ([fault("error", -5, probability=0.9)], {"gap"}, {}),
    "no reading from before the end on": ([fault("error", LASTS_S - 5)], {"power_not_covered"}, {}),
    "no reading ever": ([fault("error", -NEVER_S)], {"no_power_source"}, {}),
    "the counter begins anew": ([fault("counter_reset", 20, 20)], {"counter_reset"}, {}),
    "one of two GPUs is stuck": ([fault("stuck", -2, device=1)], {"stuck_sensor"}, {"tensor_parallel": 2}),
    "one of two GPUs fails": ([fault("error", 20, 25, device=1)], {"gap"}, {"tensor_parallel": 2}),
    "one of two nodes fails": ([fault("error", 20, 25, device=1)], {"gap"}, {"nodes": 2}),
}


@pytest.mark.parametrize("name", WITHHELD)
def test_a_fault_that_spoils_the_figure_withholds_it(name: str, opens_s: float) -> None:
    faults, codes, settings = WITHHELD[name]
    found = analysed(opens_s, *faults, **settings)
    for figure in ("energy_total_j", "power_mean_w", "energy_active_j", "energy_total_per_output_token_j"):
        assert found.figure(figure)["value"] is None
        assert not found.figure(figure)["valid"]
    assert codes <= found.codes
    assert all(CODES[code].effect == "invalidates" for code in found.codes)


def nvml(**sensor: Any) -> dict[str, Any]:
    return {"sensors": {"nvml": sensor}}


RIGHT: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "one reading in twenty fails": ([fault("error", -5, probability=0.05)], {}),
    "one reading in three fails": ([fault("error", -5, probability=0.33)], {}),
    "half a second without a reading": ([fault("error", 20, 20.5)], {}),
    "half a second without a reading, no counter": ([fault("error", 20, 20.5)], NO_COUNTER),
    "no reading over the window's start": ([fault("error", -2, 0.5)], {}),
    "no reading over the window's end": ([fault("error", LASTS_S - 0.5, LASTS_S + 2)], {}),
    "stuck for 4 s over the window's start": ([fault("stuck", -2, 2)], {}),
    "stuck for 2 s over the window's start": ([fault("stuck", -1, 1)], {}),
    "stuck for 2 s over the window's end": ([fault("stuck", LASTS_S - 1, LASTS_S + 1)], {}),
    "the counter begins anew just before the window": ([fault("counter_reset", -0.05, -0.05)], {}),
    "the counter begins anew well before the window": ([fault("counter_reset", -4, -4)], {}),
    "the counter begins anew just after the window": ([fault("counter_reset", LASTS_S + 0.01, LASTS_S + 0.01)], {}),
    "a tenth of all polls is dropped": ([], nvml(dropped_share=0.1)),
    "zero for a second": ([fault("zero", 20, 21)], {}),
    "stuck for a second under an even load": ([fault("stuck", 20, 21)], {}),
    "the driver's clock jumps ahead": ([fault("clock_step", 20, step_s=3600.0)], {}),
    "the driver's clock jumps back": ([fault("clock_step", 20, step_s=-2.0)], {}),
    "the driver's clock is off for a while": ([fault("clock_step", 20, 30, step_s=1.0)], {}),
    "a GPU without a counter": ([], nvml(has_counter=False)),
    "a GPU without the instant reading": ([], nvml(has_instant=False)),
    "a coarse sensor": ([], nvml(power_quantum_w=1.0, counter_quantum_j=1.0, noise_std_w=5.0)),
    "a slow sensor": ([], nvml(update_period_s=0.5, update_jitter_s=0.05)),
    "slow calls": ([], nvml(counter_latency_median_s=0.02, counter_latency_p99_s=0.1, field_latency_s=2e-3)),
    "the faults are another GPU's": ([fault("stuck", -2, device=3)], {}),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_fault_that_does_not_matter_leaves_the_figure_right(name: str, opens_s: float) -> None:
    faults, settings = RIGHT[name]
    found = analysed(opens_s, *faults, **settings)
    assert abs(found.error) < 0.01
    assert found.figure("energy_total_per_output_token_j")["value"] is not None


def test_the_instant_reading_is_right_too(opens_s: float) -> None:
    found = analysed(opens_s, config={"power_reading": "instant"}, **NO_COUNTER)
    assert abs(found.error) < 0.01
    assert found.window["devices"][0]["reading"] == "instant"
    absent = analysed(opens_s, config={"power_reading": "instant"}, **nvml(has_instant=False, has_counter=False))
    assert abs(absent.error) < 0.01
    assert "other_reading" in absent.codes


@pytest.mark.parametrize("start_s", [6.0, 14.0, 32.0, 40.0])
def test_a_short_freeze_is_seen_whatever_the_counter_says(start_s: float, opens_s: float) -> None:
    """The counter freezes too and then jumps to the right value; the integral lacks up to 5 %, within the tolerance."""
    frozen = fault("stuck", start_s, start_s + 4)
    found = analysed(opens_s, frozen, load=LIGHT)
    assert found.codes == {"stuck_sensor"}
    (device,) = [one for one in found.window["devices"] if one["domain"] == "gpu"]
    assert abs(device["counter_energy_j"] / found.true_j - 1) < 0.002
    assert 0.01 < abs(device["ratios"]["average"] - 1) < AnalysisConfig().counter_tolerance
    sound = analysed(opens_s, load=LIGHT, config={"counter_tolerance": 0.01})
    assert abs(sound.error) < 0.002
    assert sound.window["devices"][0]["ratios"] == {
        "average": pytest.approx(1, abs=0.005),
        "instant": pytest.approx(1, abs=0.01),
    }


COUNTER_LOST: dict[str, tuple[list[dict[str, Any]], str]] = {
    "from the middle on": ([fault("error", 30, readings="counter")], "the last 2"),
    "from before the window on": ([fault("error", -20, readings="counter")], "not be read in the window:"),
    "until into the window": ([fault("error", -NEVER_S, 12, readings="counter")], "the first 1"),
    "for 20 s, then it comes back": ([fault("error", 15, 35, readings="counter")], "for a while in the window"),
}


@pytest.mark.parametrize("name", COUNTER_LOST)
def test_a_counter_that_is_lost_is_replaced_by_the_power_readings(name: str, opens_s: float) -> None:
    faults, where = COUNTER_LOST[name]
    found = analysed(opens_s, *faults)
    assert abs(found.error) < 0.01
    assert "counter_lost" in found.codes
    assert not any(CODES[code].effect == "invalidates" for code in found.codes)
    (said,) = [r["detail"] for r in found.figure("energy_total_j")["reasons"] if r["code"] == "counter_lost"]
    assert where in said
    (device,) = [one for one in found.window["devices"] if one["domain"] == "gpu"]
    assert (device["reading"], device["summed"], device["counter_energy_j"]) == ("average", True, None)
    low, high = found.figure("energy_total_j")["interval_95"]
    assert low < found.true_j < high
    terms = {term["name"] for term in found.figure("energy_total_j")["budget"]["terms"]}
    assert "sampling" in terms


def test_the_rest_of_a_lost_counter_still_checks_the_power_readings(opens_s: float) -> None:
    """Where power stood still while the counter was read, neither is to be believed."""
    stuck = fault("stuck", 0, 2.5, readings="power")
    agreeing = analysed(opens_s, fault("error", 30, readings="counter"))
    assert any("apart" in r["detail"] for r in agreeing.figure("energy_total_j")["reasons"])
    strict = analysed(
        opens_s, stuck, fault("error", 8, readings="counter"), load=LIGHT, config={"counter_tolerance": 0.001}
    )
    assert strict.codes == {"counter_mismatch"}
    assert strict.figure("energy_total_j")["value"] is None


def test_without_power_readings_a_lost_counter_withholds_the_energy(opens_s: float) -> None:
    both = [fault("error", 30, readings="counter"), fault("error", 40, 45, readings="power")]
    found = analysed(opens_s, *both)
    assert found.codes == {"power_not_covered"}
    frozen = analysed(opens_s, fault("error", 30, readings="counter"), fault("stuck", 40, 45, readings="power"))
    assert frozen.codes == {"stuck_sensor"}


@pytest.mark.parametrize(
    ("start_s", "end_s", "still_s"), [(20, 30, 10), (-5, 20, 20), (-5, LASTS_S - 2, 50), (-5, LASTS_S + 5, 52)]
)
def test_power_that_stands_still_beside_a_sound_counter_is_named_and_costs_nothing(
    start_s: float, end_s: float, still_s: float, opens_s: float
) -> None:
    found = analysed(opens_s, fault("stuck", start_s, end_s, readings="power"), load=LIGHT)
    assert abs(found.error) < 0.002
    assert "cross_check_stuck" in found.codes
    said = [r["detail"] for r in found.figure("energy_total_j")["reasons"] if r["code"] == "cross_check_stuck"]
    assert len(said) == 2, "the average and the instant reading"
    for sentence in said:
        assert float(sentence.split("did not change for ")[1].split()[0]) == pytest.approx(still_s, abs=1.0)
    (device,) = [one for one in found.window["devices"] if one["domain"] == "gpu"]
    assert device["reading"] == "counter"
    if end_s - start_s > 20:
        assert abs(device["ratios"]["average"] - 1) > 0.01, "the integral over the whole window is wrong"


def test_power_that_is_wrong_where_it_moves_is_not_excused_by_standing_still_elsewhere(opens_s: float) -> None:
    found = analysed(opens_s, fault("stuck", 20, 30, readings="power"), load=LIGHT, config={"counter_tolerance": 1e-6})
    assert found.codes == {"counter_mismatch"}


def test_a_counter_alone_that_stands_still_withholds_the_energy(opens_s: float) -> None:
    found = analysed(opens_s, fault("stuck", 20, 30, readings="counter"))
    assert found.codes == {"stuck_sensor"}


def test_requests_cut_off_at_the_drain_are_said_where_their_tokens_lack(opens_s: float) -> None:
    found = analysed(opens_s, load=LONG)
    assert abs(found.error) < 0.002
    assert found.load["counts"]["aborted"] == 18
    per_token = found.figure("energy_total_per_output_token_j")
    assert (per_token["value"], {reason["code"] for reason in per_token["reasons"]}) == (None, {"token_mismatch"})
    assert found.load["figures"]["requests"]["value"] == found.load["counts"]["finished"]


IDLE_FAULTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "zero throughout": (fault("zero", 0, 16), {}),
    "zero throughout, no counter": (fault("zero", 0, 16), NO_COUNTER),
    "zero for 3 s": (fault("zero", 6, 9), {}),
    "zero for 3 s, no counter": (fault("zero", 6, 9), NO_COUNTER),
    "stuck for 8 s": (fault("stuck", 3, 11), {}),
    "stuck for 8 s, no counter": (fault("stuck", 3, 11), NO_COUNTER),
    "no reading for 8 s": (fault("error", 3, 11), {}),
    "no reading for 8 s, no counter": (fault("error", 3, 11), NO_COUNTER),
}


@pytest.mark.parametrize("name", IDLE_FAULTS)
def test_a_fault_in_the_cold_idle_withholds_it(name: str, opens_s: float) -> None:
    """Times are those since the node began; the cold idle lasts ten seconds from the first or second on."""
    one, settings = IDLE_FAULTS[name]
    placed = {**one, "start_s": one["start_s"] - opens_s, "end_s": one["end_s"] - opens_s}
    found = analysed(opens_s, placed, **settings)
    cold = found.energy["idle"]["cold_power_w"]
    assert (cold["value"], {reason["code"] for reason in cold["reasons"]}) == (None, {"cold_idle_missing"})
    assert found.figure("energy_active_j")["value"] is None
    assert abs(found.error) < 0.01


@pytest.mark.parametrize("settings", [{}, NO_COUNTER], ids=["counter", "no counter"])
def test_without_a_fault_the_idles_are_right(settings: dict[str, Any], opens_s: float) -> None:
    found = analysed(opens_s, **settings)
    true_w = found.session.truth.power_w(*found.session.cold_ns)
    cold = found.energy["idle"]["cold_power_w"]
    assert cold["value"] == pytest.approx(true_w, rel=0.02)
    assert cold["interval_95"][0] < true_w < cold["interval_95"][1]


def test_a_second_tenant_withholds_the_figure_of_the_time_it_was_there(opens_s: float) -> None:
    alone = analysed(opens_s)
    tenant = {"power_w": 150.0, "start_s": 10.0, "end_s": 30.0}
    found = analysed(opens_s, tenants=(tenant,))
    assert found.true_j == pytest.approx(alone.true_j + 150.0 * 20.0, rel=1e-9)
    assert found.codes == {"foreign_process"}
    (device,) = [one for one in found.window["devices"] if one["domain"] == "gpu"]
    assert abs(device["energy_j"] / found.true_j - 1) < 0.01
    for other in ({**tenant, "device": 1}, {**tenant, "start_s": -NEVER_S, "end_s": -10.0}):
        elsewhere = analysed(opens_s, tenants=(other,))
        assert elsewhere.codes == alone.codes
        assert elsewhere.true_j == alone.true_j


def test_a_tenant_in_the_cold_idle_withholds_it(opens_s: float) -> None:
    found = analysed(opens_s, tenants=({"power_w": 150.0, "start_s": 3.0 - opens_s, "end_s": 8.0 - opens_s},))
    cold = found.energy["idle"]["cold_power_w"]
    assert (cold["value"], {reason["code"] for reason in cold["reasons"]}) == (None, {"cold_idle_missing"})
    assert "foreign_process" not in found.codes


def test_a_power_cap_is_noted_and_the_figure_right(opens_s: float) -> None:
    found = analysed(opens_s, power_limit_w=450.0)
    assert abs(found.error) < 0.01
    assert "power_cap" in found.codes
    assert found.window["devices"][0]["clocks_event_shares"]["power_cap"] > 0.5
    assert found.true_j / LASTS_S <= 450.0
    assert "power_cap" not in analysed(opens_s).codes


def test_a_gpu_that_slows_down_for_heat_gives_no_figure(opens_s: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DEVICES, "hot", H100.model_copy(update={"name": "hot", "ambient_c": 75.0}))
    assert "thermal_throttle" in analysed(opens_s, gpu="hot").codes
    monkeypatch.setitem(DEVICES, "warm", H100.model_copy(update={"name": "warm", "ambient_c": 50.0}))
    warm = analysed(opens_s, gpu="warm")
    assert abs(warm.error) < 0.01
    assert warm.codes == {"steadiness_not_judged"}


@pytest.mark.parametrize("with_psys", [False, True])
def test_rapl_counters_that_wrap_in_the_window_are_followed(with_psys: bool, opens_s: float) -> None:
    rapl = {"present": True, "max_energy_range_j": 1500.0, "packages": 2, "with_psys": with_psys}
    found = analysed(opens_s, sensors={"rapl": rapl})
    host_j = found.session.truth.host_energy_j(found.window["start_ns"], found.window["end_ns"])
    assert host_j / 2 > 2 * 1500.0  # each package's counter wraps twice at least
    assert abs(found.error) < 0.01
    assert found.energy["boundary"] == "gpu (simulated) + cpu_package (simulated) + dram (simulated)"
    measured_j = sum(one["energy_j"] for one in found.window["devices"] if one["source"] == "rapl" and one["summed"])
    assert measured_j == pytest.approx(host_j, rel=0.002)


def test_without_readings_in_the_cold_idle_there_is_no_active_energy(opens_s: float) -> None:
    found = analysed(opens_s, fault("error", -opens_s, 16.0 - opens_s))
    assert found.energy["idle"]["cold_power_w"]["value"] is None
    assert abs(found.error) < 0.01
    active = found.figure("energy_active_j")
    assert active["value"] is None
    assert [reason["code"] for reason in active["reasons"]] == ["cold_idle_missing"]
