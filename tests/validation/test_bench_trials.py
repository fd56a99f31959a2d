"""One simulated session after another through the whole pipeline, beside the truth."""

import dataclasses
from typing import Any

import pytest

from inference_energy.contracts.figure import Figure, Reason
from inference_energy.validation.bench_trial import Trial, TrialOutcome, outcome, run_trial
from inference_energy.validation.coverage import run_trials
from inference_energy.validation.scenarios import SCENARIOS, LoadWindow, Scenario

pytestmark = pytest.mark.slow

GIVEN = {
    "idle power, cold": "W",
    "idle power, loaded": "W",
    "energy, total": "J",
    "energy, active": "J",
    "output tokens": "token",
    "mean power": "W",
    "J/output token, total": "J/token",
    "J/output token, active": "J/token",
    "power_term: power": "W",
    "power_term: prompt": "J/token",
    "power_term: generated": "J/token",
}
SMALL = tuple(
    Scenario(name, "small", (LoadWindow("load", "steady", 20.0, rate, output=32),))
    for name, rate in (("few", 2.0), ("more", 8.0))
)


def with_card(scenario: Scenario, **sensor: Any) -> Scenario:
    return dataclasses.replace(scenario, settings={**scenario.settings, "sensors": {"nvml": sensor}})


def errors(trial: Trial) -> dict[str, float]:
    return {one.quantity: one.error for one in trial.outcomes if one.error is not None}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_figure_that_is_given_is_near_the_truth(scenario: Scenario) -> None:
    trial = run_trial(scenario, 3)
    assert {one.quantity: one.unit for one in trial.outcomes if one.measured is not None} == GIVEN
    found = errors(trial)
    assert set(found) == set(GIVEN)
    assert max(map(abs, found.values())) < 0.04
    exact = errors(run_trial(with_card(scenario, gain=1.0, offset_w=0.0), 3))
    assert max(map(abs, exact.values())) < 0.01
    assert trial.conservation < 1e-9
    assert trial.true_conservation < 1e-9


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_what_is_not_given_has_a_reason(scenario: Scenario) -> None:
    for one in run_trial(scenario, 3).outcomes:
        assert (one.measured is None) == bool(one.reasons)
        assert one.interval is None or one.interval[0] <= one.interval[1]


def test_a_trial_sees_what_a_card_is_off_by() -> None:
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == "prefix-cached")
    found = errors(run_trial(with_card(scenario, gain=1.05, offset_w=0.0), 3))
    for quantity in ("idle power, cold", "energy, total", "energy, active", "J/output token, total"):
        assert found[quantity] == pytest.approx(0.05, abs=0.005)
    assert abs(found["output tokens"]) < 0.01
    shifted = errors(run_trial(with_card(scenario, gain=1.0, offset_w=7.1), 3))
    assert shifted["idle power, cold"] == pytest.approx(0.1, abs=0.005)
    assert abs(shifted["energy, active"]) < 0.005  # what is subtracted is off alike


def test_trials_do_not_depend_on_the_number_of_workers() -> None:
    seen: list[tuple[str, int]] = []
    alone = run_trials([4, 1], SMALL, workers=1, done=lambda trial: seen.append((trial.scenario, trial.seed)))
    together = run_trials([4, 1], SMALL, workers=2)
    assert alone == together
    assert [(trial.scenario, trial.seed) for trial in alone] == [("few", 4), ("few", 1), ("more", 4), ("more", 1)]
    assert sorted(seen) == [("few", 1), ("few", 4), ("more", 1), ("more", 4)]
    assert len({trial.outcomes for trial in alone}) == 4
    assert alone[0] == run_trial(SMALL[0], 4)


def figure(**content: Any) -> Figure:
    return Figure(**{"value": 5.0, "unit": "J", "basis": "total", "boundary": "gpu", "grade": "counter", **content})


def test_an_outcome_takes_over_what_the_figure_says() -> None:
    note = Reason("power_cap", "x")
    given = outcome("energy", 4.0, figure(interval_95=(3.9, 5.1), reasons=(note,)))
    assert given == TrialOutcome("energy", "J", 4.0, 5.0, (3.9, 5.1), ())
    assert given.error == pytest.approx(0.25)
    assert given.covered is True
    assert outcome("energy", 5.2, figure(interval_95=(3.9, 5.1))).covered is False
    assert outcome("energy", 3.9, figure(interval_95=(3.9, 5.1))).covered is True
    assert outcome("energy", 4.0, figure()).covered is None
    withheld = outcome("energy", 4.0, figure(value=None, valid=False, reasons=(Reason("gap", "x"),)))
    assert (withheld.measured, withheld.reasons, withheld.error, withheld.covered) == (None, ("gap",), None, None)
    assert outcome("energy", None, figure(interval_95=(3.9, 5.1))).covered is None
    assert outcome("energy", None, figure()).error is None
