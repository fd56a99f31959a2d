"""Every reason code is raised by the fault it names, on the figures it is about, and does what the table says."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass

import calibrated
import numpy as np
import pytest
import synthetic
from faults import (
    Case,
    aborted_requests,
    attached,
    averaging_unknown,
    below_idle,
    cached_tokens_unknown,
    client_energy_unknown,
    client_lag,
    cold_idle_missing,
    counter_alone,
    counter_jump,
    counter_left_out,
    counter_lost,
    counter_mismatch,
    counter_not_checked,
    counter_reset,
    cross_check_stuck,
    failed_requests,
    foreign_process,
    gap,
    gap_without_counter,
    hardware_slowdown,
    holes,
    idle_drift,
    idle_outliers,
    idle_trend,
    implausible_power,
    interpolated,
    launch_failed,
    leftover_processes,
    loaded_idle_missing,
    many_aborted_and_no_counters,
    metrics_unclear,
    mig_card,
    no_chunk_times,
    no_counter,
    no_factor,
    no_power_source,
    no_schedule,
    no_tokens,
    no_warmup,
    not_steady,
    nothing_asked,
    other_models,
    other_reading,
    post_idle_missing,
    power_cap,
    power_not_covered,
    preemptions,
    prompt_length_differs,
    readings_withheld,
    server_restarted,
    server_restarted_in_the_queue,
    steadiness_not_judged,
    stuck_sensor,
    stuck_without_counter,
    thermal_throttle,
    token_counts_missing,
    token_mismatch,
    tokens_differ,
    tokens_unreconciled,
    tokens_unresolved,
    unidentified_process,
    untouched,
    warmup_failures,
    warmup_too_short,
    wide_bucket,
    zero_without_counter,
)
from foreign_logs import Folder, one_device
from synthetic import recompute

from inference_energy.analysis.figures import make_figure
from inference_energy.contracts.reason_codes import CODES, reason

pytestmark = pytest.mark.slow

TOTAL, PER_TOKEN = "energy_total_j", "energy_total_per_output_token_j"


@dataclass(frozen=True)
class Trigger:
    code: str
    fault: Callable
    figure: str
    valid: bool


IDLE = ("cold_power_w", "loaded_power_w", "post_power_w")
ON_CELLS = [
    *[Trigger(f.__name__, f, TOTAL, False) for f in (no_power_source, power_not_covered, gap, stuck_sensor)],
    *[Trigger(f.__name__, f, TOTAL, False) for f in (counter_mismatch, counter_reset, thermal_throttle, not_steady)],
    *[Trigger(f.__name__, f, TOTAL, True) for f in (power_cap, hardware_slowdown, other_reading, counter_not_checked)],
    *[Trigger(f.__name__, f, TOTAL, True) for f in (steadiness_not_judged, preemptions, holes)],
    *[Trigger(f.__name__, f, TOTAL, True) for f in (counter_alone, counter_lost, cross_check_stuck)],
    *[Trigger(f.__name__, f, TOTAL, True) for f in (averaging_unknown, mig_card, readings_withheld, counter_left_out)],
    Trigger("implausible_power", implausible_power, TOTAL, False),
    Trigger("counter_reset", counter_jump, TOTAL, False),
    Trigger("foreign_process", foreign_process, TOTAL, False),
    Trigger("unidentified_process", unidentified_process, TOTAL, True),
    Trigger("gap", gap_without_counter, TOTAL, False),
    Trigger("stuck_sensor", stuck_without_counter, TOTAL, False),
    Trigger("stuck_sensor", zero_without_counter, TOTAL, False),
    *[Trigger(f.__name__, f, "cold_power_w", True) for f in (idle_outliers, idle_trend)],
    *[Trigger("aborted_requests", aborted_requests, name, True) for name in (PER_TOKEN, "output_tokens")],
    Trigger("not_steady", not_steady, "ttft_p50_s", True),
    Trigger("not_steady", not_steady, "output_tokens_per_s", True),
    *[Trigger("client_lag", client_lag, name, False) for name in (TOTAL, "ttft_p50_s", "requests_per_s", PER_TOKEN)],
    *[Trigger(f.__name__, f, PER_TOKEN, False) for f in (token_mismatch, token_counts_missing, failed_requests)],
    Trigger("token_counts_missing", many_aborted_and_no_counters, PER_TOKEN, False),
    Trigger("failed_requests", failed_requests, "energy_total_per_request_j", False),
    Trigger("token_mismatch", token_mismatch, "output_tokens", False),
    Trigger("cached_tokens_unknown", cached_tokens_unknown, "cached_tokens", False),
    Trigger("tokens_unreconciled", tokens_unreconciled, "output_tokens", True),
    Trigger("tokens_unresolved", tokens_unresolved, "output_tokens", True),
    Trigger("cold_idle_missing", cold_idle_missing, "energy_active_j", False),
    Trigger("cold_idle_missing", cold_idle_missing, "cold_power_w", False),
    Trigger("loaded_idle_missing", loaded_idle_missing, "energy_marginal_j", False),
    Trigger("post_idle_missing", post_idle_missing, "post_power_w", False),
    Trigger("below_idle", below_idle, "energy_active_j", False),
    Trigger("idle_drift", idle_drift, "post_power_w", True),
    Trigger("idle_drift", idle_drift, "energy_active_j", True),
    Trigger("no_requests", nothing_asked, "ttft_p50_s", False),
    Trigger("no_requests", nothing_asked, "energy_total_per_request_j", False),
    Trigger("no_tokens", no_tokens, PER_TOKEN, False),
    Trigger("no_schedule", no_schedule, "offered_requests_per_s", False),
    Trigger("no_schedule", no_schedule, "e2e_from_schedule_p50_s", False),
    Trigger("no_factor", no_factor, "water_site_l", False),
    Trigger("few_samples", untouched, "ttft_p99_s", False),
    Trigger("server_restarted", server_restarted, PER_TOKEN, False),
    Trigger("server_restarted", server_restarted_in_the_queue, "queue_p90_s", False),
    Trigger("other_models", other_models, PER_TOKEN, False),
    Trigger("metrics_unclear", metrics_unclear, "queue_p90_s", False),
    Trigger("tokens_differ", tokens_differ, "output_tokens", True),
    Trigger("prompt_length_differs", prompt_length_differs, "prompt_tokens", True),
    Trigger("interpolated", interpolated, "queue_p90_s", True),
    Trigger("wide_bucket", wide_bucket, "queue_p50_s", False),
    Trigger("no_chunk_times", no_chunk_times, "goodput_share", False),
]
ON_SESSIONS = [
    *[("launch", f) for f in (attached, launch_failed, leftover_processes)],
    *[("warmup", f) for f in (no_warmup, warmup_failures, warmup_too_short)],
]
ON_LOAD_TESTS = ("ended_in_drain",)  # raised in tests/load
ON_CALIBRATION = ("calibration_not_applied", "calibration_elsewhere")
ON_METRICS = (  # raised in tests/metrics
    *("no_limits", "no_load_sweep", "load_gap", "beyond_full_load", "interpolated_levels", "no_traffic"),
    *("traffic_beyond_sweep", "no_embodied", "no_graded_prompts", "answers_not_kept", "no_correct_answers"),
    *("no_quality_floor", "below_quality_floor", "repeated_questions", "not_split", "whole_requests_only"),
    *("no_parameters", "comparison_only", "interval_reaches_zero"),
)
ON_LOGS = ("edge_held", "sensor_error_unknown")
ON_FITS = ("too_few_cells", "collinear", "mixed_boundaries", "negative_coefficient", "poor_generalisation")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    raw = tmp_path_factory.mktemp("recorded")
    return raw, synthetic.build_session(raw)


@pytest.fixture
def case(recorded, tmp_path):
    raw, truth = recorded
    shutil.copytree(raw, tmp_path / "raw")
    return Case(tmp_path / "raw", truth)


def codes(reasons):
    return [r["code"] for r in reasons]


def test_every_code_has_a_trigger_here():
    triggered = {t.code for t in ON_CELLS} | {f.__name__ for _, f in ON_SESSIONS}
    triggered |= {
        *ON_FITS,
        *ON_METRICS,
        *ON_CALIBRATION,
        *ON_LOGS,
        *ON_LOAD_TESTS,
        "steady_from",
        "client_energy_unknown",
    }
    assert triggered == set(CODES)


def test_logs_of_other_tools_trigger_their_notes(tmp_path):
    figure = Folder(tmp_path).analyze(one_device(last_s=24.95)).figures["energy_total_j"]
    assert [reason.code for reason in figure.reasons] == list(ON_LOGS)
    assert figure.valid


@pytest.mark.parametrize("trigger", ON_CELLS, ids=lambda t: f"{t.code}-{t.figure}")
def test_a_fault_marks_the_figures_it_spoils(case, trigger):
    trigger.fault(case)
    found = recompute(case.raw, case.plan)
    place = found["idle"][0] if trigger.figure in IDLE else found["cells"][0]["figures"]
    figure = place[trigger.figure]
    assert figure["valid"] is trigger.valid
    assert (figure["value"] is not None) is trigger.valid
    assert trigger.code in codes(figure["reasons"])
    if not trigger.valid:
        assert CODES[trigger.code].effect == "invalidates"
    if trigger.figure not in IDLE:
        healthy = found["cells"][1]["figures"]["energy_total_j"]
        assert healthy["valid"] or trigger.code in ("no_power_source", "counter_reset")


def test_an_untouched_session_has_nothing_against_it(case):
    found = recompute(case.raw, case.plan)
    for cell in found["cells"]:
        against = {code for figure in cell["figures"].values() for code in codes(figure["reasons"])}
        assert against <= {"few_samples"}
    assert found["notes"] == [
        "Figures contain gpu; outside are the host CPU, DRAM, mainboard, storage, fans and power supply."
    ]


def test_without_a_sensor_of_the_cpu_the_clients_energy_is_not_known(case):
    client_energy_unknown(case)
    figures = recompute(case.raw, case.plan)["cells"][0]["client"]["figures"]
    assert figures["share_of_busy_cpu"]["value"] == 0.05
    for name in ("energy_j", "share_of_energy"):
        assert (figures[name]["value"], codes(figures[name]["reasons"])) == (None, ["client_energy_unknown"])
        assert figures[name]["grade"] == "modelled"


def test_calibrations_of_other_channels_and_other_devices_are_noted(case, tmp_path):
    others = {"GPU-0": calibrated.entry(channels=["dcgm GPU-0 gpu"]), "GPU-1": calibrated.entry()}
    case.plan["analysis"]["calibration"] = "c.json"
    found = recompute(case.raw, case.plan, calibrated.write(tmp_path / "c.json", others))
    assert codes(found["sessions"][0]["calibration"]["notes"]) == list(ON_CALIBRATION)
    for cell in found["cells"]:
        assert codes(cell["figures"][TOTAL]["reasons"]) == ["calibration_not_applied"]
        assert cell["figures"][TOTAL]["valid"]


def test_a_counter_that_ends_costs_no_other_window_and_power_is_still_judged(case):
    counter_lost(case)
    ended, after = recompute(case.raw, case.plan)["cells"]
    whole = case.window["power_w"] * case.window["duration_s"]
    assert ended["figures"]["energy_total_j"]["value"] == pytest.approx(whole, rel=0.01)
    for cell in (ended, after):
        assert cell["figures"]["energy_total_j"]["grade"] == "sampled"
        assert [d["grade"] for d in cell["devices"] if d["summed"]] == ["sampled"]
        assert "power_w" in cell["checks"]["steadiness"]["trends"]
        assert cell["figures"]["energy_active_j"]["valid"]
        assert cell["figures"]["energy_total_j"]["interval_95"]


@pytest.mark.parametrize(("part", "fault"), ON_SESSIONS, ids=lambda v: getattr(v, "__name__", v))
def test_a_fault_of_the_session_is_said_and_noted(case, part, fault):
    fault(case)
    found = recompute(case.raw, case.plan)
    reasons = found["sessions"][0][part]["reasons"]
    assert codes(reasons) == [fault.__name__]
    assert any(reasons[0]["detail"] in note for note in found["notes"])
    assert found["sessions"][0]["launch"]["ok"] is (fault is not launch_failed)


FIVE = (*synthetic.DESIGNED, synthetic.WindowSpec("mid", process="constant", rate_qps=4.0))


def refusals(found, model):
    return codes(found["fits"][0]["models"][model]["refused"])


def build(tmp_path, **kinds):
    truths = [synthetic.build_session(tmp_path, **kinds)]
    return recompute(tmp_path, synthetic.plan(truths))


def test_two_windows_are_too_few(case):
    assert refusals(recompute(case.raw, case.plan), "power_term") == ["too_few_cells"]


def test_one_workload_at_four_rates_is_collinear(tmp_path):
    windows = tuple(synthetic.WindowSpec(f"r{rate}", rate_qps=rate, process="constant") for rate in (1, 2, 4, 8))
    found = build(tmp_path, windows=windows)
    assert refusals(found, "two_term") == ["collinear"]
    assert "prefill" in found["fits"][0]["missing_cells"][0]


def test_a_server_measured_with_different_channels_is_not_fitted(tmp_path):
    truths = [
        synthetic.build_session(tmp_path, session="gpu", windows=synthetic.DESIGNED),
        synthetic.build_session(tmp_path, session="node", windows=synthetic.DESIGNED, sources=synthetic.NODE),
    ]
    found = recompute(tmp_path, synthetic.plan(truths))
    assert refusals(found, "power_term") == ["mixed_boundaries"]


def test_energy_that_falls_with_tokens_is_refused(tmp_path):
    found = build(tmp_path, windows=FIVE, energy_model=(400.0, -0.004, 0.02))
    assert refusals(found, "power_term") == ["negative_coefficient"]


def test_a_fit_that_does_not_predict_is_refused(tmp_path):
    found = build(tmp_path, windows=FIVE)
    model = found["fits"][0]["models"]["two_term"]
    error = model["leave_one_out"]["mean_abs_relative_error"]
    assert error > 0.25
    prompt = model["coefficients"]["prompt"]
    assert prompt["value"] is None
    assert codes(prompt["reasons"]) == ["poor_generalisation"]
    assert f"{100 * error:.0f} % on average" in prompt["reasons"][0]["detail"]


def test_unknown_codes_are_refused_and_summaries_use_known_ones(case):
    with pytest.raises(KeyError, match="no reason code 'made_up'"):
        reason("made_up", "No.")
    with pytest.raises(ValueError, match="needs a reason"):
        make_figure(None, "J", boundary="gpu", grade="sampled", reasons=[reason("power_cap", "A note.")])
    assert json.loads(json.dumps(recompute(case.raw, case.plan), allow_nan=False))


@pytest.mark.parametrize(
    ("counter", "from_s", "to_s"),
    [(False, -1.0, 0.9), (False, 74.4, 76.0), (True, -4.0, 3.4), (True, 71.6, 79.0)],
    ids=["start", "end", "counter-start", "counter-end"],
)
def test_a_hole_across_an_edge_counts(case, counter, from_s, to_s):
    if not counter:
        no_counter(case)
    case.edit("power", lambda log: log[~case.inside(log, from_s, to_s)])
    figure = recompute(case.raw, case.plan)["cells"][0]["figures"][TOTAL]
    assert codes(figure["reasons"]) == ["gap"]


@pytest.mark.parametrize(("from_s", "to_s"), [(-4.0, 2.2), (72.8, 79.0)], ids=["start", "end"])
def test_a_hole_across_an_edge_is_cut_off_where_a_counter_is_read_soon_after(case, from_s, to_s):
    case.edit("power", lambda log: log[~case.inside(log, from_s, to_s)])
    (cell, _) = recompute(case.raw, case.plan)["cells"]
    figures = cell["figures"]
    assert figures["energy_total_j"]["reasons"] == []
    assert 71 < figures["duration_s"]["value"] < 74
    assert figures["power_mean_w"]["value"] == pytest.approx(case.window["power_w"], rel=1e-6)
    assert figures["power_mean_w"]["interval_95"] is not None


def test_a_warm_up_that_was_too_short_costs_a_part_of_the_window(tmp_path):
    truth = synthetic.build_session(tmp_path, windows=(synthetic.WindowSpec("low", rate_qps=4.0, duration_s=150.0),))
    case = Case(tmp_path, truth)
    level_w = case.window["power_w"]
    # Power is 60 % more at first and falls by a line over 20 s.
    case.power("energy_counter_j", lambda rows: rows["energy_counter_j"] - warming_j(rows, case, level_w), -5, 1e4)
    ramp = lambda rows: rows["power_average_w"] + 0.6 * level_w * np.clip(1 - since_s(rows, case) / 20, 0, 1)  # noqa: E731
    case.power("power_average_w", ramp, 0, 25)
    cell = recompute(case.raw, case.plan)["cells"][0]
    figures = cell["figures"]
    cut_s = (cell["window"]["start_ns"] - case.window["start_ns"]) / 1e9
    assert 12 < cut_s < 30
    for name in (TOTAL, PER_TOKEN, "ttft_p50_s", "output_tokens_per_s"):
        assert figures[name]["valid"]
        assert codes(figures[name]["reasons"])[0] == "steady_from"
    assert f"{cut_s:.0f} s" in figures[TOTAL]["reasons"][0]["detail"]
    seconds = figures["duration_s"]["value"]
    assert seconds == pytest.approx(case.window["duration_s"] - cut_s)
    assert figures[TOTAL]["value"] == pytest.approx(level_w * seconds, rel=0.01)
    assert cell["checks"]["steadiness"]["steady"]


def since_s(rows, case):
    return (rows["timestamp_ns"] - case.window["start_ns"]) / 1e9


def warming_j(rows, case, level_w):
    """What the counter lacks, before and while power is higher, of the energy that is on top; nothing later."""
    left_s = np.clip(1 - since_s(rows, case) / 20, 0, 1) * 20
    return 0.6 * level_w * left_s**2 / 40


@pytest.mark.parametrize(
    "nearly",
    [
        lambda case: case.power("power_average_w", lambda rows: rows["power_average_w"] * 1.04),
        lambda case: case.edit("power", lambda log: log[~case.inside(log, 20.05, 24.85)]),
        lambda case: case.requests("scheduled_ns", lambda times: times - 90_000_000),
        lambda case: case.requests("status", "failed", every=40),
        lambda case: case.power("clocks_event_reasons", 0x1),
    ],
    ids=["counter", "gap", "lag", "failures", "clocks"],
)
def test_a_fault_within_its_limit_spoils_nothing(case, nearly):
    nearly(case)
    figures = recompute(case.raw, case.plan)["cells"][0]["figures"]
    assert figures[PER_TOKEN]["valid"]
    assert figures[PER_TOKEN]["reasons"] == []
